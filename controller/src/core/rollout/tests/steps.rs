//! Steps are taken when they are earned, once, and not before.

use super::*;

#[test]
fn rollout_takes_a_step_only_when_all_of_it_is_earned() {
    let (share10, pause) = (to("10%"), Step { pause: true, ..Step::default() });
    let timed = Step { least_time: Some(span("10m")), ..share10.clone() };
    let counted = Step { requests: Some(500), ..share10.clone() };
    let both = Step { requests: Some(500), ..timed.clone() };
    let insiders =
        Step { insiders: Some(Insiders { header: "x-insider".into(), value: "yes".into() }), ..Step::default() };
    let not_yet = Verdict::NotYet { likely_requests: Some(9) };
    let (ten, none) = (10 * MINUTE_MS, 0);
    // The step, how long it lasted, requests, verdict, whether it is over.
    let table = [
        (&share10, none, 1, Verdict::NoWorse, true),
        (&share10, none, 1, not_yet, false),
        (&share10, ten, 0, Verdict::NoWorse, false),
        (&timed, ten, 1, not_yet, true),
        (&timed, ten - 1, 1, Verdict::NoWorse, false),
        (&timed, ten, 0, not_yet, false),
        (&counted, none, 500, not_yet, true),
        (&counted, ten, 499, Verdict::NoWorse, false),
        (&both, ten, 500, not_yet, true),
        (&both, ten, 499, Verdict::NoWorse, false),
        (&both, ten - 1, 500, Verdict::NoWorse, false),
        (&pause, ten, 500, Verdict::NoWorse, false),
        (&insiders, none, 0, not_yet, true),
    ];
    for (step, passed_ms, requests, verdict, over) in table {
        let mut world = entering(canary(vec![step.clone(), to("50%"), to("100%")]));
        if *step != insiders {
            assert_eq!(world.rollout().phase, Phase::Step(0), "{step:?}");
        }
        if world.rollout().phase == Phase::Step(0) {
            world.pass_ms(passed_ms);
            world.see(PRODUCTION, |seen| (seen.requests, seen.verdict) = (requests, verdict));
        }
        let at = if over { Phase::Step(1) } else { Phase::Step(0) };
        assert_eq!(world.rollout().phase, at, "{step:?} after {passed_ms} ms with {requests} requests, {verdict:?}");
        assert_eq!(world.count("step_taken"), usize::from(over));
    }
}

#[test]
fn rollout_goes_from_its_first_step_to_completion_and_says_by_what() {
    let mut world = entering(canary(vec![to("0.1%"), to("10%"), to("100%")]));
    assert_eq!(world.place(), Some((Phase::Step(0), "0.1%".into())));
    world.pass_ms(90_000);
    world.see(PRODUCTION, no_worse(512));
    let Event::StepTaken { step: 1, of: 3, earned: Some(earned), .. } = world.last() else {
        panic!("{:?}", world.last())
    };
    assert_eq!((earned.took_ms, earned.requests, earned.verdict), (90_000, 512, Verdict::NoWorse));
    assert_eq!(
        world.last().sentence(),
        "r2 takes step 2 of 3 in hello/production with 10%: 512 requests in 1m30s, no worse than the stable release"
    );
    world.see(PRODUCTION, no_worse(512));
    assert!(world.is_stable(2) && world.stage().is_warm(r(1)));
    let kinds: Vec<_> = world.log.iter().rev().take(2).map(|(event, _)| event.kind()).collect();
    assert_eq!(kinds, ["completed", "step_taken"]);
}

#[test]
fn rollout_takes_no_step_by_what_was_seen_before_or_twice() {
    let mut world = entering(canary(vec![to("1%"), to("10%"), to("20%"), to("100%")]));
    let (number, first) = (world.rollout().number, world.rollout().at());
    world.see(PRODUCTION, no_worse(1));
    assert_eq!(world.rollout().phase, Phase::Step(1));
    for (number, step) in [(number, first), (number + 1, 1), (0, 1), (number, 2), (number, u32::MAX)] {
        let mut seen = RolloutSeen::nothing(number, step);
        no_worse(1_000)(&mut seen);
        let late = Command::MoveRollout { stage: name(), seen: Box::new(seen) };
        assert_eq!(world.command(late, "").expect("nothing").events, [], "{number} {step}");
    }
    // The same word twice, as of a driver that was not answered.
    let mut seen = RolloutSeen::nothing(number, 1);
    no_worse(1_000)(&mut seen);
    let twice = Command::MoveRollout { stage: name(), seen: Box::new(seen) };
    assert_eq!(world.command(twice.clone(), "").expect("once").events.len(), 1);
    assert_eq!(world.command(twice, "").expect("twice").events, []);
    assert_eq!(world.place(), Some((Phase::Step(2), "20%".into())));
}

#[test]
fn rollout_waits_after_a_restart_for_what_is_not_on_record() {
    let timed = Step { least_time: Some(span("10m")), requests: Some(100), ..to("10%") };
    let mut world = entering(canary(vec![timed, to("100%")]));
    world.see(PRODUCTION, |seen| seen.requests = 5_000);
    world.seen.rollouts.clear();
    world.pass_ms(10 * MINUTE_MS);
    world.run_due();
    assert_eq!(world.rollout().phase, Phase::Step(0), "its requests were never on record");
    world.see(PRODUCTION, |seen| seen.requests = 100);
    assert!(world.is_stable(2), "its time was");
}

#[test]
fn rollout_stands_still_while_the_clock_goes_back() {
    let timed = Step { least_time: Some(span("10m")), ..to("10%") };
    let mut world = entering(canary(vec![timed, to("100%")]));
    world.now_ms -= 500_000;
    world.see(PRODUCTION, no_worse(100));
    assert_eq!(world.rollout().phase, Phase::Step(0));
    world.pass_ms(500_000 + 10 * MINUTE_MS);
    world.run_due();
    assert!(world.is_stable(2));
}

#[test]
fn rollout_grows_only_while_latency_is_flat_or_after_five_minutes() {
    let steps = || canary(vec![to("10%"), to("100%")]);
    let rises = |seen: &mut RolloutSeen| {
        no_worse(9)(seen);
        seen.is_flat = false;
    };
    let mut world = entering(steps());
    world.see(PRODUCTION, rises);
    assert_eq!((world.last().kind(), world.rollout().phase), ("warming_up", Phase::Step(0)));
    world.pass_ms(299_999);
    world.see(PRODUCTION, rises);
    assert_eq!(world.count("warming_up"), 1, "told once");
    assert_eq!(world.rollout().phase, Phase::Step(0));
    world.pass_ms(1);
    world.see(PRODUCTION, rises);
    assert!(world.is_stable(2), "it goes on then");
    let said = world.log.iter().any(|(event, _)| event.sentence().contains("after it waited 5m for flat latency"));
    assert!(said, "{:?}", world.last());

    let mut world = entering(steps());
    world.see(PRODUCTION, rises);
    world.pass_ms(1_000);
    world.see(PRODUCTION, no_worse(9));
    assert!(world.is_stable(2), "flat again");

    // Insiders have no share that could rise, and a pause raises nothing.
    let mut world = entering(canary(vec![Step { pause: true, ..Step::default() }, to("10%"), to("100%")]));
    world.resume().expect("resumed");
    assert_eq!(world.rollout().phase, Phase::Step(1));
}

#[test]
fn rollout_waits_for_somebody_where_a_step_pauses() {
    let mut world =
        entering(canary(vec![Step { pause: true, ..to("10%") }, Step { pause: true, ..Step::default() }, to("100%")]));
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
    says(&world.resume(), "goes on from 10%; 10% follows when the rest is earned");
    assert_eq!(world.place(), Some((Phase::Step(1), "10%".into())), "a pause has the share of the step before");
    world.run_due();
    assert_eq!(world.rollout().phase, Phase::Step(1), "a resume is for one step");
    says(&world.resume(), "100% follows at once");
    assert!(world.is_stable(2), "a step that only pauses asks for no traffic");

    // Resumed before the rest is earned, it goes on when that is.
    let mut world = entering(canary(vec![Step { pause: true, ..to("10%") }, to("100%")]));
    world.resume().expect("resumed");
    assert_eq!(world.rollout().phase, Phase::Step(0));
    says(&world.resume(), "nothing in the rollout of r2");
    world.see(PRODUCTION, no_worse(9));
    assert!(world.is_stable(2));
}

#[test]
fn rollout_is_paused_resumed_and_skipped_by_people() {
    let mut world = entering(canary(vec![to("1%"), to("10%"), to("20%"), to("100%")]));
    world.pause().expect("paused");
    says(&world.pause(), "is paused already");
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(world.rollout().phase, Phase::Step(0));
    says(&world.skip(), "it stays paused");
    assert_eq!(world.place(), Some((Phase::Step(1), "10%".into())), "a person moves it all the same");
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(world.rollout().phase, Phase::Step(1));
    world.resume().expect("resumed");
    assert_eq!(world.rollout().phase, Phase::Step(2), "it had earned that");
    says(&world.skip(), "somebody skipped the rest");
    assert!(world.is_stable(2));
    for answer in [world.pause(), world.resume(), world.skip()] {
        says(&answer, "no release is on its way into hello/production");
        assert!(answer.is_err());
    }
}

#[test]
fn rollout_by_hand_in_the_middle_of_steps_takes_none_any_more() {
    let mut world = entering(canary(vec![to("1%"), to("10%"), to("100%")]));
    says(&world.weigh(PRODUCTION, "1%"), "goes on by hand: its steps count no more");
    assert_eq!(world.count("share_set"), 2, "{:?}", world.last());
    says(&world.weigh(PRODUCTION, "1%"), "has 1% of hello/production already");
    world.weigh(PRODUCTION, "30%").expect("by hand");
    world.see(PRODUCTION, no_worse(1_000));
    world.pass_ms(30 * 86_400_000);
    world.run_due();
    assert_eq!(world.place(), Some((Phase::ByHand, "30%".into())));
    for answer in [world.pause(), world.skip()] {
        says(&answer, "only `pointsman rollout weight hello/production SHARE` moves it");
    }
    world.weigh(PRODUCTION, "100%").expect("all");
    assert!(world.is_stable(2));

    let mut world = self::world(canary(vec![to("1%"), to("100%")]));
    world.promote("hello@r2", "production", Some(share("5%"))).expect("by hand from the start");
    assert_eq!(world.place(), Some((Phase::ByHand, "5%".into())));
    says(&world.promote("hello@r2", "production", None), "r2 is on its way into hello/production for 5% already");
}

#[test]
fn rollout_keeps_the_spec_with_which_it_began() {
    let mut world = entering(canary(vec![to("1%"), to("10%"), to("100%")]));
    world.enter_by("production", RolloutSpec { on_worse: OnWorse::Freeze, ..canary(vec![to("50%"), to("100%")]) });
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(world.place(), Some((Phase::Step(1), "10%".into())));
    world.see(PRODUCTION, worse);
    assert!(world.is_stable(1), "as the first said");
    world.promote("hello@r3", "production", None).expect("the next one");
    assert_eq!(world.place(), Some((Phase::Step(0), "50%".into())));
}

#[test]
fn rollout_of_a_canary_that_nobody_runs_goes_no_further() {
    let mut world = World::with_built_releases(2);
    world.join_agent("a1");
    world.promote("hello@r1", "dev", None).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    world.enter_by("dev", canary(vec![to("10%"), to("100%")]));
    world.promote("hello@r2", "dev", None).expect("starts");
    let stage: StageName = "hello/dev".parse().expect("name");
    let skip = |world: &mut World| world.command(Command::SkipStep { stage: stage.clone() }, "");
    says(&skip(&mut world), "has not started in hello/dev yet");
    world.pass_ms(1_000);
    world.report_healthy("a1");
    world.run_due();
    let began = world.state.stage(&stage).and_then(|stage| stage.entering.as_ref()?.rollout.as_ref());
    assert_eq!(began.map(|rollout| rollout.since_ms), Some(world.now_ms), "the step begins when it has started");

    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.see("hello/dev", no_worse(9));
    assert_eq!(world.state.stage(&stage).expect("stage").share(r(2)), share("10%"));
    says(&skip(&mut world), "runs on no agent of hello/dev any more");
    world.join_agent("a1");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(world.state.stage(&stage).expect("stage").stable, Some(r(2)), "it runs again");
}

#[test]
fn rollout_says_what_it_waits_for() {
    let step = Step { least_time: Some(span("10m")), requests: Some(500), pause: true, ..to("10%") };
    let spec = RolloutSpec { checks: vec![check("smoke")], ..canary(vec![step, to("100%")]) };
    let world = entering(spec);
    let seen = RolloutSeen { requests: 12, ..RolloutSeen::nothing(world.rollout().number, 0) };
    let waits = crate::core::rollout::waits(&world.state, &name(), &seen, world.now_ms + 1_500);
    let waits: Vec<_> = waits.iter().map(ToString::to_string).collect();
    let expected = ["somebody to resume it", "9m59s more", "488 more requests", "the check smoke to be well"];
    assert_eq!(waits, expected);
}

#[test]
fn rollout_for_insiders_is_told_without_a_share_of_nothing() {
    let insiders = Insiders { header: "x-insider".into(), value: "yes".into() };
    let first = Step { insiders: Some(insiders), pause: true, ..Step::default() };
    let mut world = world(canary(vec![first, to("100%")]));
    let promoted = world.promote("hello@r2", "production", None);
    says(&promoted, "r2 was promoted to hello/production for insiders only, the first of 2 steps");
    world.run_due();
    says(&world.resume(), "the rollout of r2 in hello/production goes on; 100% follows at once");
    assert!(world.is_stable(2));
}
