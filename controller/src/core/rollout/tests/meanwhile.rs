//! Releases that are promoted when they cannot simply enter.

use super::*;

fn spec(meanwhile: Meanwhile) -> RolloutSpec {
    RolloutSpec { meanwhile, ..canary(vec![to("10%"), to("100%")]) }
}

#[test]
fn rollout_of_the_first_release_takes_everything_at_once() {
    for spec in [spec(Meanwhile::Queue), blue_green(true, Some("10m"))] {
        let mut world = World::with_static_releases(1);
        world.enter_by("dev", RolloutSpec { objective: Some(objective(Breach::Rollback)), ..spec });
        world.promote("hello@r1", "dev", None).expect("enters");
        let stage = world.state.stage(&"hello/dev".parse().expect("name")).expect("stage");
        assert_eq!((stage.stable, &stage.watching), (Some(r(1)), &None), "there is nobody to go back to");
    }
}

#[test]
fn rollout_of_what_is_there_already_changes_nothing() {
    let mut world = entering(spec(Meanwhile::Finish));
    let again = world.promote("hello@r2", "production", None);
    says(&again, "r2 is on its way into hello/production for 10% already, in step 1 of 2");
    assert_eq!(again.expect("already").events, []);
    let stable = world.promote("hello@r1", "production", None);
    says(&stable, "r1 is stable in hello/production already; r2 is on its way in");
    assert_eq!(stable.expect("already").events, []);
    world.promote("hello@r2", "production", Some(share("20%"))).expect("a weight by hand");
    assert_eq!(world.place(), Some((Phase::ByHand, "20%".into())));
}

#[test]
fn rollout_is_not_finished_by_asking_for_its_release_again() {
    let mut world = entering(spec(Meanwhile::Finish));
    world.enter_by("production", RolloutSpec::default());
    says(&world.promote("hello@r2", "production", None), "r2 is on its way into hello/production for 10% already");
    assert_eq!(world.place(), Some((Phase::Step(0), "10%".into())), "its way is the one with which it began");

    // All at once, by hand, and frozen because it was worse.
    let mut world = self::world(RolloutSpec { on_worse: OnWorse::Freeze, ..RolloutSpec::default() });
    world.promote("hello@r2", "production", Some(share("10%"))).expect("a weight by hand");
    world.run_due();
    world.see(PRODUCTION, worse);
    world.run_due();
    assert!(world.rollout().frozen.is_some());
    says(&world.promote("hello@r2", "production", None), "r2 is on its way into hello/production for 10% already");
    assert_eq!(world.place(), Some((Phase::ByHand, "10%".into())));
}

#[test]
fn rollout_of_a_bad_release_is_refused_in_each_way() {
    for meanwhile in [Meanwhile::Finish, Meanwhile::Replace, Meanwhile::Queue] {
        let mut world = entering(spec(meanwhile));
        world.rollback(PRODUCTION, None).expect("back");
        says(&world.promote("hello@r2", "production", None), "pointsman unhold hello/production r2");
        world.promote("hello@r3", "production", None).expect("another");
        let refusal = world.promote("hello@r2", "production", None);
        says(&refusal, if meanwhile == Meanwhile::Finish { "r3 is on its way" } else { "pointsman unhold" });
        assert!(refusal.is_err());
    }
}

#[test]
fn rollout_in_another_s_middle_is_refused_with_the_commands_that_end_it() {
    let mut world = entering(spec(Meanwhile::Finish));
    let refusal = world.promote("hello@r3", "production", None);
    assert!(refusal.is_err());
    for words in ["r2 is on its way into hello/production", "rollout weight hello/production 100%", "rollout abort"] {
        says(&refusal, words);
    }
}

#[test]
fn rollout_that_replaces_another_begins_at_the_first_step() {
    let mut world =
        entering(RolloutSpec { meanwhile: Meanwhile::Replace, ..canary(vec![to("1%"), to("10%"), to("100%")]) });
    world.see(PRODUCTION, no_worse(9));
    let (number, place) = (world.rollout().number, world.place());
    assert_eq!(place, Some((Phase::Step(1), "10%".into())));
    says(&world.promote("hello@r3", "production", None), "r2 left hello/production for r3; it is not marked bad");
    assert_eq!(world.place(), Some((Phase::Step(0), "1%".into())));
    assert!(world.entering().release == r(3) && world.rollout().number > number);
    assert!(world.stage().is_warm(r(2)) && world.stage().bad.is_empty());
    let mut late = RolloutSeen::nothing(number, 1);
    no_worse(1_000)(&mut late);
    let late = Command::MoveRollout { stage: name(), seen: Box::new(late) };
    assert_eq!(world.command(late, "").expect("late").events, [], "what r2 earned is nothing for r3");

    // Neither is a rollback replaced.
    let mut world = World::with_two_of(3);
    world.pass_ms(2 * 3_600_000);
    world.run_due();
    world.enter_by("dev", spec(Meanwhile::Replace));
    world.rollback("hello/dev", None).expect("has to start");
    let refusal = world.promote("hello@r3", "dev", None);
    says(&refusal, "r1 is being fetched back into hello/dev: wait until it serves");
    says(&refusal, "`pointsman rollout abort hello/dev`");
}

#[test]
fn rollout_in_the_queue_enters_when_the_other_has_ended() {
    let ends: [fn(&mut World); 3] = [
        |world| drop(world.weigh(PRODUCTION, "100%").expect("completed")),
        |world| drop(world.skip().expect("completed")),
        |world| world.see(PRODUCTION, worse),
    ];
    for end in ends {
        let mut world = entering(spec(Meanwhile::Queue));
        says(&world.promote("hello@r3", "production", None), "r3 waits until the rollout under way");
        says(&world.promote("hello@r3", "production", None), "r3 waits already");
        world.run_due();
        assert_eq!(world.entering().release, r(2));
        end(&mut world);
        world.run_due();
        assert_eq!((world.entering().release, world.place()), (r(3), Some((Phase::Step(0), "10%".into()))));
        assert_eq!(world.stage().queued, None);
    }
}

#[test]
fn rollout_in_the_queue_gives_way_to_a_newer_one_on_record() {
    let mut world = entering(spec(Meanwhile::Queue));
    world.promote("hello@r3", "production", None).expect("waits");
    let newer = world.promote("hello@r4", "production", None);
    says(&newer, "r3 no longer waits to enter hello/production: r4 was promoted after it");
    assert_eq!(world.stage().queued.as_ref().map(|queued| queued.release), Some(r(4)));
    assert_eq!((world.count("queued"), world.count("dropped")), (2, 1));

    // By the rules of the moment in which it enters.
    world.enter_by("production", blue_green(false, None));
    world.see(PRODUCTION, worse);
    assert_eq!((world.entering().release, world.rollout().phase), (r(4), Phase::BeforeFlip));
}

#[test]
fn rollout_in_the_queue_that_may_not_enter_any_more_is_dropped_on_record() {
    let mut world = world(spec(Meanwhile::Queue));
    // r3 was taken out as bad before, and unheld.
    world.promote("hello@r3", "production", None).expect("enters");
    world.rollback(PRODUCTION, None).expect("back");
    world.command(Command::Unhold { stage: name(), release: r(3) }, "").expect("unheld");
    world.promote("hello@r2", "production", None).expect("enters");
    world.promote("hello@r3", "production", Some(share("5%"))).expect("waits");
    world.state.services.values_mut().next().expect("hello").stages.values_mut().for_each(|stage| {
        stage.bad.insert(r(3));
    });
    world.see(PRODUCTION, worse);
    assert!(world.is_stable(1) && world.stage().queued.is_none());
    assert!(world.last().sentence().contains("r3 no longer waits"), "{}", world.last().sentence());
    assert!(world.last().sentence().contains("marked bad"), "{}", world.last().sentence());
}

#[test]
fn rollout_in_the_queue_needs_no_reason_twice() {
    let mut world = entering(spec(Meanwhile::Queue));
    world.promote("hello@r3", "production", None).expect("waits");
    let mut production = world.state.environments[&"production".parse().expect("name")].clone();
    production.reason_required = true;
    world
        .command(Command::Apply { environments: vec![production], services: vec![], access: None, releases: None }, "")
        .expect("applied");
    for command in [
        Command::PauseRollout { stage: name() },
        Command::ResumeRollout { stage: name() },
        Command::SkipStep { stage: name() },
        Command::AbortRollout { stage: name(), bad: false },
    ] {
        says(&world.command(command, " "), "production asks for a reason");
    }
    world.command(Command::SkipStep { stage: name() }, "it was fast").expect("with a reason");
    world.run_due();
    assert_eq!(world.entering().release, r(3));
}

#[test]
fn rollout_of_a_rollback_has_no_steps_and_nobody_moves_it() {
    let mut world = World::with_two_of(3);
    world.pass_ms(2 * 3_600_000);
    world.run_due();
    world.enter_by("dev", RolloutSpec { meanwhile: Meanwhile::Queue, ..blue_green(true, Some("10m")) });
    world.rollback("hello/dev", None).expect("has to start");
    let stage = || "hello/dev".parse().expect("name");
    for command in [
        Command::PauseRollout { stage: stage() },
        Command::ResumeRollout { stage: stage() },
        Command::SkipStep { stage: stage() },
    ] {
        says(&world.command(command, ""), "r1 is being fetched back into hello/dev: a rollback takes no steps");
    }
    says(&world.promote("hello@r1", "dev", None), "r1 is on its way into hello/dev for 100% already");
    says(&world.promote("hello@r3", "dev", None), "r3 waits");
    world.report_healthy("a1");
    world.run_due();
    let found = world.state.stage(&stage()).expect("stage");
    assert_eq!(found.stable, Some(r(1)), "everything at once, whatever the strategy");
    let after =
        found.entering.as_ref().map(|entering| (entering.release, entering.rollout.as_ref().map(|way| way.phase)));
    assert_eq!(after, Some((r(3), Some(Phase::BeforeFlip))), "then the one that waited");
}

#[test]
fn rollout_in_the_queue_keeps_what_was_said_of_it() {
    let mut world = World::with_static_releases(3).promoted_everywhere("hello@r1");
    world.promote_down("hello@r2");
    world.enter_by("production", spec(Meanwhile::Queue));
    world.promote("hello@r2", "production", None).expect("enters");
    let bypass = Command::Promote {
        release: "hello@r3".parse().expect("name"),
        environment: "production".parse().expect("name"),
        share: Some(share("7%")),
        bypass: true,
    };
    assert!(world.command(bypass.clone(), "").is_err(), "it has not run upstream, and nobody says why");
    world.command(bypass, "the shop is down").expect("waits");
    world.see(PRODUCTION, worse);
    assert_eq!((world.entering().release, world.place()), (r(3), Some((Phase::ByHand, "7%".into()))));
}
