//! What is worse goes out by itself, or freezes until somebody has looked.

use super::*;

/// Each with what it says of itself.
type Bad = (&'static str, fn(&mut RolloutSeen));

const BAD: [Bad; 3] = [
    ("12 of 40 (30%) of its requests failed, 4 of 4000 (0.1%) of the stable release's", worse),
    ("p1 stopped it after 10 failures among 12 requests", tripped),
    ("the check smoke failed: 503", |seen| seen.checks.extend([failed()])),
];

fn spec(on_worse: OnWorse) -> RolloutSpec {
    let steps = vec![to("10%"), to("20%"), to("100%")];
    RolloutSpec { on_worse, checks: vec![check("smoke")], ..canary(steps) }
}

#[test]
fn rollout_of_a_worse_release_goes_back_by_itself_and_marks_it() {
    for (says, bad) in BAD {
        let mut world = entering(spec(OnWorse::Rollback));
        // Whatever else it has earned.
        world.pause().expect("paused");
        world.see(PRODUCTION, |seen| {
            no_worse(9)(seen);
            bad(seen);
        });
        assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)) && world.stage().is_warm(r(2)), "{says}");
        assert!(world.last().sentence().contains(says), "{}", world.last().sentence());
        let before = world.log.len();
        world.run_due();
        assert_eq!(world.log.len(), before, "once");
    }
}

#[test]
fn rollout_of_a_worse_release_freezes_until_somebody_says_what_to_do() {
    for (words, bad) in BAD {
        let frozen = || {
            let mut world = entering(spec(OnWorse::Freeze));
            world.see(PRODUCTION, bad);
            world
        };
        let world = frozen();
        let at = if words.contains("stopped") { "0%" } else { "10%" };
        assert_eq!(world.place(), Some((Phase::Step(0), at.into())), "{words}");
        assert!(world.last().sentence().contains(words), "{}", world.last().sentence());
        let of_stage = |world: &World| world.log.iter().filter(|(event, _)| event.stage() == Some(&name())).count();
        let (number, log) = (world.rollout().number, of_stage(&world));

        let mut world = frozen();
        world.pass_ms(86_400_000);
        world.see(PRODUCTION, |seen| {
            bad(seen);
            seen.requests = 9_999;
        });
        assert_eq!(
            (of_stage(&world), world.place().expect("frozen").1),
            (log, at.into()),
            "nothing moves, and it is told once"
        );
        says(&world.pause(), "is frozen: nothing moves");

        says(&world.resume(), "goes on from 10%");
        assert!(world.rollout().number > number && world.rollout().frozen.is_none(), "judged anew, and untripped");
        assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
        assert_eq!(world.rollout().since_ms, world.now_ms, "earned anew");
        let mut late = RolloutSeen::nothing(number, 0);
        bad(&mut late);
        let late = Command::MoveRollout { stage: name(), seen: Box::new(late) };
        assert_eq!(world.command(late, "").expect("late").events, [], "what was known before is forgotten");

        let mut world = frozen();
        world.skip().expect("skipped");
        assert_eq!(world.place(), Some((Phase::Step(1), "20%".into())));
        assert!(world.rollout().number > number && world.rollout().frozen.is_none());

        let mut world = frozen();
        world.weigh(PRODUCTION, "5%").expect("by hand");
        assert_eq!(world.place(), Some((Phase::ByHand, "5%".into())));
        assert!(world.rollout().number > number && world.rollout().frozen.is_none());

        let mut world = frozen();
        world.abort(false).expect("aborted");
        assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)), "it was worse");
    }
}

#[test]
fn rollout_that_froze_and_then_tripped_has_no_share() {
    let mut world = entering(spec(OnWorse::Freeze));
    world.see(PRODUCTION, worse);
    world.see(PRODUCTION, tripped);
    assert_eq!(world.place(), Some((Phase::Step(0), "0%".into())));
    world.see(PRODUCTION, tripped);
    assert_eq!(world.count("rollout_frozen"), 2);
    says(&world.resume(), "goes on from 10%");
}

#[test]
fn rollout_that_is_aborted_marks_nothing_unless_somebody_says_so() {
    for bad in [false, true] {
        let mut world = entering(spec(OnWorse::Rollback));
        world.abort(bad).expect("aborted");
        assert!(world.is_stable(1));
        assert_eq!(world.stage().bad.contains(&r(2)), bad);
        let again = world.abort(bad);
        assert!(again.is_err());
        says(&again, "`pointsman rollback hello/production` goes back");
    }
    // As before, a rollback marks.
    let mut world = entering(spec(OnWorse::Rollback));
    world.rollback(PRODUCTION, None).expect("back");
    assert!(world.stage().bad.contains(&r(2)));
}

#[test]
fn rollout_that_is_aborted_before_it_has_started_leaves_nothing_behind() {
    let mut world = World::with_built_releases(2);
    world.join_agent("a1");
    world.enter_by("dev", spec(OnWorse::Rollback));
    let abort = |world: &mut World| {
        world.act(Command::AbortRollout { stage: "hello/dev".parse().expect("name"), bad: false }).expect("aborted");
        let stage = world.state.stage(&"hello/dev".parse().expect("name")).expect("stage").clone();
        assert!(stage.entering.is_none() && stage.routed() == stage.stable.into_iter().collect(), "{stage:?}");
        assert!(stage.bad.is_empty());
    };
    world.promote("hello@r1", "dev", None).expect("the first one");
    abort(&mut world);
    world.promote("hello@r1", "dev", None).expect("again");
    world.report_healthy("a1");
    world.run_due();
    world.promote("hello@r2", "dev", None).expect("starts");
    abort(&mut world);
    assert_eq!(world.state.stage(&"hello/dev".parse().expect("name")).expect("stage").stable, Some(r(1)));
}

#[test]
fn rollout_by_hand_is_judged_all_the_same_but_not_checked() {
    let by_hand = || {
        let mut world = world(spec(OnWorse::Rollback));
        world.promote("hello@r2", "production", Some(share("5%"))).expect("by hand");
        world
    };
    for (words, bad) in BAD {
        let mut world = by_hand();
        world.see(PRODUCTION, bad);
        assert_eq!(world.is_stable(1), !words.contains("check"), "{words}");
    }
}

#[test]
fn rollout_takes_stable_s_own_time_as_what_is_slow_and_loses_nothing() {
    let mut world = entering(spec(OnWorse::Rollback));
    let (number, since_ms) = (world.rollout().number, world.rollout().since_ms);
    world.pass_ms(5_000);
    world.see(PRODUCTION, |seen| seen.stable_p95_us = Some(123_456));
    assert_eq!((world.rollout().slow_us, world.rollout().number), (Some(123_456), number), "errors stay counted");
    assert_eq!(world.rollout().since_ms, since_ms, "time goes on");
    world.see(PRODUCTION, |seen| seen.stable_p95_us = Some(1));
    assert_eq!(world.count("slow_bound_set"), 1, "once");

    let mut given = spec(OnWorse::Rollback);
    given.bounds.slow = Some(span("300ms"));
    let mut world = entering(given);
    world.see(PRODUCTION, |seen| seen.stable_p95_us = Some(1));
    assert_eq!(world.rollout().slow_us, Some(300_000), "as the file says");
}
