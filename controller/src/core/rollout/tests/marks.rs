//! Releases that are marked not reversible: nothing goes back past them unasked.

use super::*;
use crate::core::back::back;
use crate::core::evolve_test::{built, wanted};
use crate::core::spec::{EnvironmentSpec, Target};
use crate::core::state::ReleaseProgress;

type Numbers = &'static [u32];

/// A share afterwards, and what is seen before.
type Bad = (&'static str, fn(&mut RolloutSeen));

const WHY: &str = "drops the column names";

impl World {
    fn mark(&mut self, number: u32, reversible: bool) -> Result<Decision, Refusal> {
        let release = format!("hello@r{number}").parse().expect("a name");
        self.command(Command::MarkRelease { release, reversible }, WHY)
    }

    fn marked(mut self, numbers: &[u32]) -> Self {
        numbers.iter().for_each(|number| drop(self.mark(*number, false).expect("marked")));
        self
    }

    /// As `change`, by somebody who says `--past`.
    fn past<T>(&mut self, number: u32, change: impl FnOnce(&mut Self) -> T) -> T {
        self.past = Some(r(number));
        let done = change(self);
        self.past = None;
        done
    }
}

/// It is refused, because of this release, and nothing has changed.
fn asks(world: &mut World, number: u32, change: impl FnOnce(&mut World) -> Result<Decision, Refusal>) {
    let before = world.log.len();
    let refused = change(world).expect_err("nobody said that it goes past");
    let Refusal::Marked(past, sentence) = &refused else { panic!("{refused:?}") };
    assert_eq!(*past, r(number), "{sentence}");
    assert!(sentence.contains(&format!("`--past r{number}`")) && sentence.contains(WHY), "{sentence}");
    assert_eq!(world.log.len(), before);
}

/// r1, then each of `numbers`, have served all of production.
fn served(numbers: &[u32]) -> World {
    let mut world = world(RolloutSpec::default());
    for number in numbers {
        world.promote(&format!("hello@r{number}"), "production", None).expect("enters");
    }
    world
}

#[test]
fn rollback_asks_before_it_passes_a_release_that_is_marked() {
    // What served, what is marked, where it goes back to, and which has to be named.
    let table: &[(Numbers, Numbers, u32, Option<u32>)] = &[
        (&[2], &[], 1, None),
        (&[2], &[1], 1, None),
        (&[2], &[2], 1, Some(2)),
        (&[2, 3], &[2], 2, None),
        (&[2, 3], &[2], 1, Some(2)),
        (&[2, 3], &[3], 2, Some(3)),
        (&[2, 3], &[2, 3], 1, Some(3)),
        // It never ran here, and may be of another branch.
        (&[3], &[2], 1, None),
        // Above what serves.
        (&[2], &[3], 1, None),
    ];
    for (numbers, marks, target, highest) in table {
        let words = format!("{numbers:?} with marks on {marks:?} to r{target}");
        let mut world = served(numbers).marked(marks);
        let back = |world: &mut World| world.rollback(PRODUCTION, Some(r(*target)));
        let Some(highest) = *highest else {
            let done = back(&mut world).expect(&words);
            assert!(matches!(done.events[..], [Event::RolledBack { .. }]), "{words}: {done:?}");
            // One that lies between and never ran is not asked for, but it is said.
            let over: Vec<_> = done.lines.iter().filter(|line| line.contains("never ran")).collect();
            let is_between = |mark: &&u32| (target + 1..=numbers[numbers.len() - 1]).contains(*mark);
            let expected = marks.iter().filter(is_between).filter(|mark| !numbers.contains(*mark)).count();
            assert_eq!(over.len(), expected, "{words}: {done:?}");
            assert!(over.iter().all(|line| line.contains(WHY)), "{words}: {done:?}");
            continue;
        };
        asks(&mut world, highest, back);
        // A number that is not the highest is another one's.
        for other in (1..=4).filter(|other| *other != highest) {
            world.past(other, |world| asks(world, highest, back));
        }
        let done = world.past(highest, back).expect(&words);
        let [Event::MarksPassed { to, marks, .. }, Event::RolledBack { .. }] = &done.events[..] else {
            panic!("{words}: {done:?}")
        };
        assert_eq!((*to, marks.last().map(|mark| mark.release)), (r(*target), Some(r(highest))), "{words}");
        assert!(world.is_stable(*target), "{words}");
        assert!(done.lines[0].contains(WHY), "{words}: {done:?}");
    }
}

#[test]
fn rollback_says_beforehand_what_it_would_pass() {
    let world = served(&[2, 3]).marked(&[3]);
    let way = back(&world.state, &name()).expect("a way");
    assert_eq!((way.to, way.past.first().map(|mark| mark.release)), (r(2), Some(r(3))));
    let world = entering(canary(vec![to("10%"), to("100%")])).marked(&[2]);
    let way = back(&world.state, &name()).expect("a way");
    assert_eq!((way.to, way.past.len()), (r(1), 1));
    let world = served(&[2, 3]).marked(&[2]);
    assert_eq!(back(&world.state, &name()).expect("a way").past, []);
}

#[test]
fn rollback_needs_no_word_once_the_mark_is_gone() {
    let mut world = served(&[2]).marked(&[2]);
    world.mark(2, true).expect("unmarked");
    world.rollback(PRODUCTION, None).expect("back");
    assert!(world.is_stable(1));
}

#[test]
fn rollback_goes_by_itself_to_what_serves_behind_a_mark_already() {
    let worse = |seen: &mut RolloutSeen| seen.verdict = Verdict::Worse { by: Measure::Errors };
    let steps = || canary(vec![to("10%"), to("100%")]);
    // Somebody took r2 out past its mark; or it went out by itself, and was marked afterwards.
    for agreed in [true, false] {
        let mut world = entering(steps());
        if agreed {
            world = world.marked(&[2]);
            world.past(2, |world| world.abort(true)).expect("out");
        } else {
            world.see(PRODUCTION, worse);
            world = world.marked(&[2]);
        }
        assert!(world.is_stable(1));
        world.promote("hello@r3", "production", None).expect("mends it");
        world.run_due();
        world.see(PRODUCTION, worse);
        assert!(world.is_stable(1), "{agreed}: {:?}", world.last());
        assert_eq!(world.count("rollout_frozen"), 0, "r1 has served beside it");
    }
}

#[test]
fn rollback_asks_once_for_a_release_and_again_when_what_is_marked_enters_again() {
    let mut world = served(&[2]).marked(&[2]);
    world.past(2, |world| world.rollback(PRODUCTION, None)).expect("back");
    world.promote("hello@r3", "production", None).expect("serves");
    world.rollback(PRODUCTION, Some(r(1))).expect("r1 has served after r2 did its work");
    assert_eq!(world.count("marks_passed"), 1);
    world.command(Command::Unhold { stage: name(), release: r(2) }, "").expect("unheld");
    world.promote("hello@r2", "production", None).expect("once more");
    asks(&mut world, 2, |world| world.rollback(PRODUCTION, Some(r(1))));
}

#[test]
fn rollback_needs_a_new_word_when_what_was_said_was_for_a_release_that_did_not_stay() {
    let mut world = world(RolloutSpec { objective: Some(objective(Breach::Rollback)), ..RolloutSpec::default() });
    world.promote("hello@r2", "production", None).expect("serves");
    let mut world = world.marked(&[2]);
    world.past(2, |world| world.promote("hello@r1", "production", Some(share("1%")))).expect("enters");
    world.abort(false).expect("leaves");
    assert!(world.is_stable(2) && world.count("marks_passed") == 1);
    world.see(PRODUCTION, |seen| {
        let counted = Answered { requests: 100, failed: 50, slow: 0 };
        seen.breach = Some(BreachSeen { by: Measure::Errors, counted, allowed: share("0.1%") });
    });
    assert!(world.is_stable(2) && world.count("breached") == 1, "{:?}", world.last());
    asks(&mut world, 2, |world| world.rollback(PRODUCTION, Some(r(1))));
}

#[test]
fn promotion_of_an_older_release_is_not_resumed_past_a_mark_unasked() {
    let mut world = served(&[3]);
    let spec = canary(vec![to("10%"), to("100%")]);
    world.enter_by("production", RolloutSpec { on_worse: OnWorse::Freeze, ..spec });
    world.promote("hello@r2", "production", None).expect("enters");
    world.run_due();
    world.see(PRODUCTION, tripped);
    let mut world = world.marked(&[3]);
    asks(&mut world, 3, World::resume);
    world.past(3, World::resume).expect("said");
    assert_eq!(world.count("marks_passed"), 1, "and on record");
    assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
}

#[test]
fn rollback_asks_for_what_an_agent_started_though_it_never_served() {
    let mut world = served(&[3]);
    let placed = |release| Event::Placed {
        stage: name(),
        release: r(release),
        agent: "a1".parse().expect("a name"),
        address: "127.0.0.1:81".parse().expect("an address"),
    };
    assert_eq!(crate::core::back::passed(&world.state, &name(), &[r(3)], r(1)), []);
    world = world.marked(&[2]);
    let mark = crate::core::evolve::Mark { seq: 1_000, at_ms: world.now_ms, by: "test", reason: "", request: "" };
    world.state.evolve(&placed(2), mark);
    asks(&mut world, 2, |world| world.rollback(PRODUCTION, Some(r(1))));
}

#[test]
fn promotion_of_an_older_release_goes_no_further_past_a_mark_unasked_whoever_moves_it() {
    let mut world = served(&[3]);
    world.enter_by("production", canary(vec![to("10%"), to("50%"), to("100%")]));
    world.promote("hello@r2", "production", None).expect("enters");
    world.run_due();
    let mut world = world.marked(&[3]);
    asks(&mut world, 3, |world| world.weigh(PRODUCTION, "100%"));
    asks(&mut world, 3, World::skip);
    world.weigh(PRODUCTION, "5%").expect("less of it asks nobody");
    world.past(3, |world| world.weigh(PRODUCTION, "100%")).expect("said");
    assert!(world.is_stable(2));
}

#[test]
fn rollback_and_abort_in_the_middle_of_a_marked_release_s_rollout_ask() {
    let steps = || canary(vec![to("10%"), to("100%")]);
    for abort in [false, true] {
        let go = |world: &mut World| if abort { world.abort(false) } else { world.rollback(PRODUCTION, None) };
        let mut world = entering(steps()).marked(&[2]);
        asks(&mut world, 2, go);
        assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
        world.past(2, go).expect("out");
        assert!(world.is_stable(1), "abort: {abort}");
        assert_eq!(world.count("marks_passed"), 1);
    }
}

#[test]
fn promotion_of_a_release_before_a_marked_one_asks() {
    let mut world = served(&[3]).marked(&[3]);
    let promote = |world: &mut World| world.promote("hello@r2", "production", None);
    asks(&mut world, 3, promote);
    let done = world.past(3, promote).expect("enters");
    assert!(matches!(done.events[..], [Event::MarksPassed { .. }, Event::Promoted { .. }, Event::Completed { .. }]));
    assert!(world.is_stable(2));
    // Forwards there is nothing to leave behind.
    world.promote("hello@r4", "production", None).expect("enters");
}

#[test]
fn promotion_that_replaces_a_marked_release_by_an_older_one_asks() {
    let spec = RolloutSpec { meanwhile: Meanwhile::Replace, ..canary(vec![to("10%"), to("100%")]) };
    let mut world = world(spec);
    world.promote("hello@r3", "production", None).expect("enters");
    let mut world = world.marked(&[3]);
    let promote = |world: &mut World| world.promote("hello@r2", "production", None);
    asks(&mut world, 3, promote);
    world.promote("hello@r4", "production", None).expect("a newer one has it all");
    asks(&mut world, 3, promote);
    world.past(3, promote).expect("replaces");
    assert_eq!(world.entering().release, r(2));
}

#[test]
fn promotion_that_waits_keeps_what_it_may_pass() {
    let spec = RolloutSpec { meanwhile: Meanwhile::Queue, ..canary(vec![to("10%"), to("100%")]) };
    let queued = |said: bool| {
        let mut world = world(spec.clone());
        world.promote("hello@r3", "production", None).expect("enters");
        let promote = |world: &mut World| world.promote("hello@r2", "production", None);
        if said {
            world = world.marked(&[3]);
            asks(&mut world, 3, promote);
            world.past(3, promote).expect("waits");
        } else {
            promote(&mut world).expect("waits");
            world = world.marked(&[3]);
        }
        world.see(PRODUCTION, no_worse(9));
        world
    };
    let world = queued(true);
    assert_eq!((world.stage().stable, world.entering().release), (Some(r(3)), r(2)));
    assert_eq!(world.count("marks_passed"), 1, "once, and by a person");

    // The mark came while it waited.
    let world = queued(false);
    assert!(world.is_stable(3));
    let Event::Dropped { because, .. } = world.last() else { panic!("{:?}", world.last()) };
    assert!(because.contains("`--past r3`"), "{because}");
}

#[test]
fn rollout_of_a_marked_release_freezes_where_it_would_have_gone_back() {
    let spec = || RolloutSpec { checks: vec![check("smoke")], ..canary(vec![to("10%"), to("100%")]) };
    let bads: [Bad; 3] = [("10%", worse), ("0%", tripped), ("10%", |seen| seen.checks.extend([failed()]))];
    for (at, bad) in bads {
        let mut world = entering(spec()).marked(&[2]);
        world.see(PRODUCTION, bad);
        assert_eq!(world.place(), Some((Phase::Step(0), at.into())));
        let sentence = world.last().sentence();
        for words in
            ["is frozen", "r2, which is marked not reversible", WHY, "rollout abort hello/production --past r2"]
        {
            assert!(sentence.contains(words), "{words:?} is not in {sentence:?}");
        }
        let frozen = world.rollout().frozen.as_ref().expect("frozen").to_string();
        assert!(frozen.contains("does not go out by itself"), "{frozen}");
        let before = world.log.len();
        world.run_due();
        assert_eq!(world.log.len(), before, "once");
        asks(&mut world, 2, |world| world.abort(false));
        world.past(2, |world| world.abort(false)).expect("out");
        assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)));

        // Without the mark it goes out.
        let mut world = entering(spec());
        world.see(PRODUCTION, bad);
        assert!(world.is_stable(1));
    }
}

#[test]
fn rollout_that_froze_for_a_mark_still_hears_of_a_tripwire() {
    let mut world = entering(canary(vec![to("10%"), to("100%")])).marked(&[2]);
    world.see(PRODUCTION, worse);
    world.see(PRODUCTION, tripped);
    assert_eq!(world.place(), Some((Phase::Step(0), "0%".into())));
    world.resume().expect("by hand");
    assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
}

#[test]
fn rollout_s_objective_is_told_where_it_would_have_gone_back_past_a_mark() {
    let spec = RolloutSpec { objective: Some(objective(Breach::Rollback)), ..canary(vec![to("10%"), to("100%")]) };
    let flip = RolloutSpec { ..blue_green(false, Some("10m")) };
    for spec in [spec, flip] {
        let blue_green = matches!(spec.strategy, Strategy::BlueGreen(_));
        let mut world = entering(spec);
        world.see(PRODUCTION, |seen| {
            seen.checks.extend([well()]);
            no_worse(9)(seen);
        });
        assert!(world.is_stable(2));
        let mut world = world.marked(&[2]);
        let bad: fn(&mut RolloutSeen) = if blue_green { |seen| seen.checks.extend([failed()]) } else { breached };
        world.see(PRODUCTION, bad);
        assert!(world.is_stable(2), "nothing goes back by itself");
        let Event::Breached { problem, .. } = world.last() else { panic!("{:?}", world.last()) };
        assert!(problem.contains("`--past r2`") && problem.contains(WHY), "{problem}");
        world.see(PRODUCTION, bad);
        assert_eq!(world.count("breached"), 1, "told once");
        world.past(2, |world| world.rollback(PRODUCTION, None)).expect("by a person");
    }
}

#[test]
fn rollout_of_an_older_release_takes_no_step_past_a_mark_that_came_later() {
    let mut world = served(&[3]);
    world.enter_by("production", canary(vec![to("10%"), to("100%")]));
    world.promote("hello@r2", "production", None).expect("enters");
    let mut world = world.marked(&[3]);
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())));
    let seen =
        RolloutSeen { requests: 9, verdict: Verdict::NoWorse, ..RolloutSeen::nothing(world.rollout().number, 0) };
    let waits = crate::core::rollout::waits(&world.state, &name(), &seen, world.now_ms);
    assert!(waits.iter().any(|wait| wait.to_string().contains("r3 was marked not reversible")), "{waits:?}");
    world.abort(false).expect("forwards again");
    assert!(world.is_stable(3));

    // Known when it was promoted, and said.
    let mut world = served(&[3]).marked(&[3]);
    world.enter_by("production", canary(vec![to("10%"), to("100%")]));
    world.past(3, |world| world.promote("hello@r2", "production", None)).expect("enters");
    world.see(PRODUCTION, no_worse(9));
    assert!(world.is_stable(2));
}

/// r1 and r2 have served production on an agent; r1 runs no more.
fn gone_cold() -> World {
    let mut world = World::with_built_releases(2);
    world.join_agent("a1");
    for release in ["hello@r1", "hello@r2"] {
        for environment in ["dev", "staging", "production"] {
            world.promote(release, environment, None).expect("starts");
            world.report_healthy("a1");
            world.run_due();
        }
    }
    assert!(world.is_stable(2));
    world.pass_ms(2 * 3_600_000);
    world.run_due();
    world.pass_ms(MINUTE_MS);
    world.run_due();
    assert_eq!(world.stage().running().len(), 1);
    world
}

#[test]
fn rollback_that_fetches_a_release_back_is_held_by_a_mark_that_came_meanwhile() {
    for said in [false, true] {
        let mut world = gone_cold();
        let back = |world: &mut World| world.rollback(PRODUCTION, None);
        if said {
            world = world.marked(&[2]);
            asks(&mut world, 2, back);
            world.past(2, back).expect("is fetched back");
        } else {
            back(&mut world).expect("is fetched back");
            world = world.marked(&[2]);
        }
        assert!(world.entering().rollback);
        world.report_healthy("a1");
        world.run_due();
        assert!(world.is_stable(if said { 1 } else { 2 }), "said: {said}");
        if !said {
            let failed = world.log.iter().rev().find(|(event, _)| event.kind() == "promotion_failed").expect("failed");
            assert!(failed.0.sentence().contains("`--past r2`"), "{}", failed.0.sentence());
        }
    }
}

#[test]
fn rollback_of_a_release_that_has_not_started_passes_nothing() {
    let mut world = gone_cold();
    world
        .command(
            Command::Build { service: "hello".parse().expect("name"), wanted: wanted(&"3".repeat(40)), again: false },
            "",
        )
        .expect("queued");
    world.run_due();
    let release = |world: &World, number: u32| -> Option<ReleaseProgress> {
        let name = format!("hello@r{number}").parse().expect("name");
        world.state.release(&name).map(|release| release.progress.clone())
    };
    assert_eq!(release(&world, 3), Some(ReleaseProgress::Building));
    // r2 is marked, too, and r1 serves again: somebody went back past it.
    let mut world = world.marked(&[2, 3]);
    world.past(2, |world| world.rollback(PRODUCTION, None)).expect("is fetched back");
    world.report_healthy("a1");
    world.run_due();
    assert!(world.is_stable(1));
    let artifacts = world.state.release(&"hello@r2".parse().expect("name")).expect("r2").artifacts.clone();
    let components = [("web".parse().expect("name"), crate::core::evolve_test::component())].into();
    let outcome = Ok(crate::core::command::Built { components, artifacts, ..built() });
    world.command(Command::EndBuild { release: "hello@r3".parse().expect("name"), outcome }, "").expect("built");
    let promote = Command::Promote {
        release: "hello@r3".parse().expect("name"),
        environment: "production".parse().expect("name"),
        share: None,
        bypass: true,
    };
    world.command(promote, "hotfix").expect("starts");
    world.command(Command::AbortRollout { stage: name(), bad: false }, "").expect("serves nowhere yet");
    assert!(world.is_stable(1));
}

#[test]
fn mark_of_a_release_says_what_it_does() {
    let mut world = served(&[2]);
    let command = |reversible| Command::MarkRelease { release: "hello@r2".parse().expect("name"), reversible };
    says(&world.command(command(false), " "), "--reason");
    let long = "x".repeat(301);
    assert!(matches!(world.command(command(false), &long), Err(Refusal::Wrong(_))));
    let before = world.log.len();
    assert_eq!(world.command(command(true), "").expect("it is so").events, []);
    world.command(command(false), WHY).expect("marked");
    assert_eq!(world.last().sentence(), format!("hello@r2 was marked not reversible: {WHY}"));
    assert_eq!(world.last().about(), "hello@r2");
    assert_eq!(world.command(command(false), WHY).expect("it is so").events, []);
    world.command(command(false), "drops the table").expect("another reason");
    let mark =
        |world: &World| world.state.release(&"hello@r2".parse().expect("name")).expect("r2").not_reversible.clone();
    assert_eq!(mark(&world).map(|mark| (mark.reason, mark.by)), Some(("drops the table".into(), "test".into())));
    world.command(command(true), "").expect("unmarked");
    assert_eq!((mark(&world), world.log.len()), (None, before + 3));
    let unknown = Command::MarkRelease { release: "hello@r9".parse().expect("name"), reversible: false };
    assert!(matches!(world.command(unknown, WHY), Err(Refusal::Unknown(_))));
}

#[test]
fn mark_needs_a_reason_to_go_where_an_environment_asks_for_one() {
    let mut world = served(&[2]).marked(&[2]);
    let mut production = world.state.environments[&"production".parse().expect("name")].clone();
    production.reason_required = true;
    assert!(matches!(production, EnvironmentSpec { target: Target::Static, .. }));
    world
        .command(Command::Apply { environments: vec![production], services: vec![], access: None, releases: None }, "x")
        .expect("applied");
    let unmark = Command::MarkRelease { release: "hello@r2".parse().expect("name"), reversible: true };
    says(&world.command(unmark.clone(), ""), "production asks for a reason");
    world.command(unmark, "the column is back").expect("unmarked");
}

#[test]
fn mark_is_read_from_events_of_before() {
    // As they were written before there were marks.
    for text in [
        r#"{"kind":"promoted","stage":"hello/production","release":"r2","share":"10%","starting_until_ms":null,
            "rollback":false,"bypass":false}"#,
        r#"{"kind":"queued","stage":"hello/production","release":"r2","share":null,"bypass":false}"#,
    ] {
        let event: Event = serde_json::from_str(text).unwrap_or_else(|problem| panic!("{problem}: {text}"));
        assert!(matches!(event, Event::Promoted { past: None, .. } | Event::Queued { past: None, .. }));
    }
    let mut frozen = entering(RolloutSpec { on_worse: OnWorse::Freeze, ..canary(vec![to("10%"), to("100%")]) });
    frozen.see(PRODUCTION, worse);
    let mut old = serde_json::to_value(frozen.last()).expect("written");
    assert!(old.as_object_mut().expect("fields").remove("held").is_some());
    assert_eq!(serde_json::from_value::<Event>(old).expect("read"), *frozen.last());
}
