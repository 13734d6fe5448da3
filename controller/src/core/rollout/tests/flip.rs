//! Blue-green, and what is watched when a rollout is over.

use super::*;

#[test]
fn rollout_flips_when_all_is_well_at_its_own_host() {
    for pause in [false, true] {
        let mut world = entering(blue_green(pause, None));
        assert_eq!(world.place(), Some((Phase::BeforeFlip, "0%".into())));
        assert!(world.stage().routed().contains(&r(2)), "reachable at its own host");
        world.see(PRODUCTION, |_| ());
        assert!(world.place().is_some(), "no check has answered");
        world.see(PRODUCTION, |seen| seen.checks.extend([well()]));
        assert_eq!(world.is_stable(2), !pause);
        if pause {
            world.resume().expect("resumed");
        }
        assert!(world.is_stable(2) && world.stage().is_warm(r(1)) && world.watching().is_none());
        assert_eq!(world.count("flipped"), 1);
    }
    let mut world = entering(blue_green(false, None));
    world.see(PRODUCTION, |seen| seen.checks.extend([failed()]));
    assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)), "before the flip it goes out");
    let mut world = entering(blue_green(true, None));
    says(&world.skip(), "hello/production is flipped to r2: somebody skipped the rest");
    assert!(world.is_stable(2));
}

/// As [`World::with_two_of`]; a broken objective takes r2 back.
fn promising(count: u32) -> World {
    let objective = Some(objective(Breach::Rollback));
    World::with_two_of_by(count, RolloutSpec { objective, ..RolloutSpec::default() })
}

fn flipped(spec: RolloutSpec) -> World {
    let mut world = entering(spec);
    world.see(PRODUCTION, |seen| seen.checks.extend([well()]));
    assert!(world.is_stable(2));
    world
}

#[test]
fn rollout_is_watched_after_the_flip_and_flips_back() {
    let spec = || RolloutSpec { objective: Some(objective(Breach::Ask)), ..blue_green(false, Some("10m")) };
    let bad: [fn(&mut RolloutSeen); 2] = [|seen| seen.checks.extend([failed()]), breached];
    for bad in bad {
        let mut world = flipped(spec());
        world.pass_ms(9 * MINUTE_MS);
        world.see(PRODUCTION, bad);
        assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)), "{:?}", world.last());
        assert!(matches!(world.last(), Event::RolledBack { why: Some(_), .. }), "{:?}", world.last());
        assert_eq!(world.watching(), None);
    }
    // Time alone is not enough.
    let mut world = flipped(spec());
    world.pass_ms(11 * MINUTE_MS);
    world.see(PRODUCTION, |_| ());
    assert!(world.watching().is_some_and(|watching| watching.until_ms.is_some()));
    world.see(PRODUCTION, |seen| seen.checks.extend([well()]));
    assert_eq!(world.last().kind(), "watch_ended");
    // From then on the objective alone, and as the file says.
    world.see(PRODUCTION, |seen| {
        seen.checks.extend([failed()]);
        breached(seen);
    });
    assert!(world.is_stable(2));
    assert!(world.last().sentence().contains("50 of 1000 (5%) of its requests failed"), "{}", world.last().sentence());
    world.see(PRODUCTION, breached);
    assert_eq!(world.count("breached"), 1, "told once");
    let asked = world.watching().and_then(|watching| watching.asked.as_ref()).expect("kept for whoever looks");
    assert!(matches!(asked.why, Why::Breached { .. }) && asked.problem.is_empty(), "{asked:?}");
}

#[test]
fn rollout_is_not_over_before_its_watch_is() {
    let spec = |meanwhile| RolloutSpec { meanwhile, ..blue_green(false, Some("10m")) };
    let mut world = flipped(spec(Meanwhile::Finish));
    says(&world.promote("hello@r3", "production", None), "hello/production was flipped to r2, which is watched");
    world.skip().expect("ends it");
    assert_eq!(world.watching(), None, "there is no objective");
    world.promote("hello@r3", "production", None).expect("now");

    let mut world = flipped(spec(Meanwhile::Queue));
    says(&world.promote("hello@r3", "production", None), "r3 waits");
    world.run_due();
    assert!(world.is_stable(2));
    world.pass_ms(10 * MINUTE_MS);
    world.see(PRODUCTION, |seen| seen.checks.extend([well()]));
    assert_eq!(world.entering().release, r(3));

    let mut world = flipped(spec(Meanwhile::Replace));
    world.promote("hello@r3", "production", None).expect("replaces");
    assert_eq!((world.entering().release, world.count("watch_ended")), (r(3), 1));
}

#[test]
fn rollout_that_broke_its_promise_and_could_not_go_back_does_not_pass_its_watch() {
    let spec = RolloutSpec { objective: Some(objective(Breach::Ask)), ..blue_green(false, Some("10m")) };
    let mut world = flipped(spec);
    let mark = Command::MarkRelease { release: "hello@r2".parse().expect("a name"), reversible: false };
    world.command(mark, "drops the column names").expect("marked");
    world.see(PRODUCTION, breached);
    assert!(world.is_stable(2) && world.count("breached") == 1, "nothing goes back past r2 by itself");
    world.pass_ms(10 * MINUTE_MS);
    world.see(PRODUCTION, |seen| {
        seen.checks.extend([well()]);
        breached(seen);
    });
    assert_eq!(world.count("watch_ended"), 0, "all is not well");
    world.skip().expect("somebody says so");
    assert_eq!(world.count("watch_ended"), 1);
}

#[test]
fn rollout_keeps_the_release_before_warm_for_as_long_as_it_is_watched() {
    let mut world = flipped(blue_green(false, Some("3h")));
    world.pass_ms(3 * 3_600_000);
    world.run_due();
    assert!(world.stage().is_warm(r(1)), "longer than the hour of the environment");
    world.pass_ms(3_600_000);
    world.run_due();
    assert!(!world.stage().is_warm(r(1)));
    assert_eq!(world.watching(), None, "there is nothing to go back to");
    assert_eq!(world.stage().busy(), None, "checks that never answer do not hold it for ever");
    assert_eq!(ends(&world), ["watch_ended", "warmth_ended"], "it says so before");
}

/// The ends that are on record, in order.
fn ends(world: &World) -> Vec<&str> {
    let kinds = world.log.iter().filter(|(event, _)| event.stage() == Some(&name())).map(|(event, _)| event.kind());
    kinds.filter(|kind| ["watch_ended", "warmth_ended", "rolled_back"].contains(kind)).collect()
}

/// Why the watch was over, how long it took, and what it saw.
fn watch_end(world: &World) -> (WatchEnd, u64, Option<u64>) {
    let end = world.log.iter().rev().find_map(|(event, _)| match event {
        Event::WatchEnded { cause, took_ms, earned, .. } => {
            Some((*cause, *took_ms, earned.as_ref().map(|earned| earned.requests)))
        }
        _ => None,
    });
    end.expect("a watch was over")
}

#[test]
fn rollout_s_watch_says_how_long_it_took_and_why_it_ended() {
    let spec = || RolloutSpec { meanwhile: Meanwhile::Replace, ..blue_green(false, Some("10m")) };
    let ended = |end: &dyn Fn(&mut World)| {
        let mut world = flipped(spec());
        world.pass_ms(3 * MINUTE_MS);
        end(&mut world);
        let event = world.log.iter().rev().find(|(event, _)| event.kind() == "watch_ended").expect("an end");
        (watch_end(&world), event.0.sentence())
    };
    let (end, said) = ended(&|world| {
        world.pass_ms(8 * MINUTE_MS);
        world.see(PRODUCTION, |seen| {
            seen.requests = 7;
            seen.checks.extend([well()]);
        });
    });
    assert_eq!(end, (WatchEnd::Earned, 11 * MINUTE_MS, Some(7)));
    assert!(said.contains("has passed its time after the flip: 7 requests in 11m"), "{said}");
    let (end, said) = ended(&|world| drop(world.skip().expect("skipped")));
    assert_eq!(end, (WatchEnd::Skipped, 3 * MINUTE_MS, None));
    assert!(said.ends_with("is watched no longer after 3m: somebody skipped the rest"), "{said}");
    let (end, said) = ended(&|world| drop(world.promote("hello@r3", "production", None).expect("replaces")));
    assert_eq!(end, (WatchEnd::Replaced, 3 * MINUTE_MS, None));
    assert!(said.ends_with("another release takes its place"), "{said}");
    let (end, said) = ended(&|world| {
        world.pass_ms(3_600_000);
        world.see(PRODUCTION, |seen| seen.requests = 9);
    });
    assert_eq!(end, (WatchEnd::WarmthEnded, 63 * MINUTE_MS, Some(9)));
    assert!(said.contains("no longer warm; it saw 9 requests in 1h3m"), "{said}");
}

#[test]
fn rollout_never_flips_back_to_what_is_no_longer_warm() {
    let bad: [fn(&mut RolloutSeen); 2] = [|seen| seen.checks.extend([failed()]), breached];
    for bad in bad {
        let mut world =
            flipped(RolloutSpec { objective: Some(objective(Breach::Rollback)), ..blue_green(false, Some("10m")) });
        // Seen in the moment in which warmth ends, and told of by nobody before.
        world.pass_ms(3_600_000);
        world.see(PRODUCTION, bad);
        assert!(world.is_stable(2) && world.stage().bad.is_empty());
        assert_eq!(ends(&world), ["watch_ended", "warmth_ended"]);
        assert_eq!(watch_end(&world).0, WatchEnd::WarmthEnded);
    }
    // Warmth that is over before its time, as there are too many: it is said all the same.
    let mut world = flipped(blue_green(false, Some("10m")));
    for number in 100..=131 {
        let until_ms = world.now_ms + 9 * 3_600_000;
        let warm = crate::core::state::Leaving::Warm { until_ms };
        let stages = world.state.services.values_mut().flat_map(|service| service.stages.values_mut());
        stages.for_each(|stage| stage.leaving.extend([(r(number), warm)]));
    }
    let end = Command::EndWarmth { stage: name(), release: r(1) };
    world.command(end, "").expect("too many");
    assert_eq!(ends(&world), ["watch_ended", "warmth_ended"]);
}

fn completed(on_breach: Breach) -> World {
    let spec = RolloutSpec { objective: Some(objective(on_breach)), ..canary(vec![to("10%"), to("100%")]) };
    let mut world = entering(spec);
    world.see(PRODUCTION, no_worse(9));
    assert!(world.is_stable(2));
    world
}

#[test]
fn rollout_s_objective_is_watched_while_the_release_before_is_warm() {
    let mut world = completed(Breach::Rollback);
    world.see(PRODUCTION, breached);
    assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)));
    let Event::RolledBack { why: Some(why), .. } = world.last() else { panic!("{:?}", world.last()) };
    assert!(matches!(**why, Why::Breached { .. }));

    let mut world = completed(Breach::Ask);
    world.see(PRODUCTION, breached);
    assert!(world.is_stable(2) && world.count("breached") == 1);
    assert!(world.last().sentence().contains("`pointsman rollback hello/production` goes back"));

    let mut world = completed(Breach::Rollback);
    let number = world.watching().expect("watched").number;
    world.pass_ms(3_600_000);
    world.run_due();
    let mut late = RolloutSeen::nothing(number, 0);
    breached(&mut late);
    let late = Command::MoveRollout { stage: name(), seen: Box::new(late) };
    assert_eq!(world.command(late, "").expect("late").events, []);
    assert!(world.is_stable(2), "there is nothing warm to go back to");
}

#[test]
fn rollout_s_objective_rests_while_the_next_release_enters() {
    let mut world = completed(Breach::Rollback);
    let before = world.watching().expect("watched").number;
    world.promote("hello@r3", "production", None).expect("enters");
    let mut late = RolloutSeen::nothing(before, 0);
    breached(&mut late);
    let late = Command::MoveRollout { stage: name(), seen: Box::new(late) };
    assert_eq!(world.command(late, "").expect("late").events, []);
    let entered = world.rollout().number;
    world.abort(false).expect("aborted");
    let after = world.watching().expect("watched again").number;
    assert!(before < entered && entered < after, "{before} {entered} {after}");
    world.see(PRODUCTION, breached);
    assert!(world.is_stable(1) && world.stage().bad.contains(&r(2)));
}

#[test]
fn rollout_that_breaks_its_objective_after_the_agents_are_gone_is_told() {
    let mut world = promising(2);
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.see("hello/dev", breached);
    let Event::Breached { problem, .. } = world.last() else { panic!("{:?}", world.last()) };
    assert!(problem.contains("no agent of group prod has joined"), "{problem}");
    world.run_due();
    assert_eq!(world.count("breached"), 1, "it is not tried for ever");
}

#[test]
fn rollout_is_watched_no_more_when_the_release_before_could_not_be_fetched_back() {
    let mut world = promising(2);
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.join_agent("a2");
    world.rollback("hello/dev", None).expect("has to start");
    world.pass_ms(3_600_000);
    world.run_due();
    let found = world.state.stage(&"hello/dev".parse().expect("name")).expect("stage");
    assert_eq!((found.stable, &found.entering, &found.watching), (Some(r(2)), &None, &None));
}

#[test]
fn rollout_that_breaks_its_objective_while_the_next_one_starts_changes_nothing() {
    let mut world = promising(3);
    let number = world.state.stage(&"hello/dev".parse().expect("name")).and_then(|stage| Some(stage.watched()?.number));
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.join_agent("a2");
    world.promote("hello@r3", "dev", None).expect("has to start");
    let mut meanwhile = RolloutSeen::nothing(number.expect("watched"), 0);
    breached(&mut meanwhile);
    let meanwhile = Command::MoveRollout { stage: "hello/dev".parse().expect("name"), seen: Box::new(meanwhile) };
    assert_eq!(world.command(meanwhile, "").expect("nothing").events, []);
}

#[test]
fn rollout_that_breaks_its_objective_says_why_before_it_fetches_back() {
    let mut world = promising(2);
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.join_agent("a2");
    world.see("hello/dev", breached);
    let kinds: Vec<_> = world.log.iter().rev().take(2).map(|(event, _)| event.kind()).collect();
    assert_eq!(kinds, ["promoted", "breached"], "the reason is on record");
    let said = world.log[world.log.len() - 2].0.sentence();
    assert!(said.ends_with("; everything goes back to r1, which has to start first"), "{said}");
    world.report_healthy("a2");
    world.run_due();
    let found = world.state.stage(&"hello/dev".parse().expect("name")).expect("stage");
    assert_eq!((found.stable, found.bad.contains(&r(2))), (Some(r(1)), true));
}
