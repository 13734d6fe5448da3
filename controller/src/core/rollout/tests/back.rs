//! The ways out of a rollout, and what becomes of a release that waits for its end.

use super::*;

/// What somebody asks for.
type Asked = fn(&mut World) -> Result<Decision, Refusal>;

fn spec(meanwhile: Meanwhile) -> RolloutSpec {
    RolloutSpec { meanwhile, ..canary(vec![to("10%"), to("50%"), to("100%")]) }
}

/// r2 enters and r3 waits for its end.
fn queued() -> World {
    let mut world = entering(spec(Meanwhile::Queue));
    world.promote("hello@r3", "production", None).expect("waits");
    world
}

/// r2 serves all of hello/dev, r1 runs no more, and r3 is ready: a rollback has to start r1.
fn cold(meanwhile: Meanwhile) -> World {
    let mut world = World::with_two_of(3);
    world.pass_ms(2 * 3_600_000);
    world.run_due();
    world.enter_by("dev", spec(meanwhile));
    world
}

fn dev() -> StageName {
    "hello/dev".parse().expect("name")
}

#[test]
fn rollback_by_a_person_drops_what_waits() {
    let ends: [Asked; 3] = [
        |world| world.rollback(PRODUCTION, None),
        |world| world.rollback(PRODUCTION, Some(r(1))),
        |world| world.abort(false),
    ];
    for end in ends {
        let mut world = queued();
        let said = end(&mut world);
        says(&said, "r3 no longer waits to enter hello/production: after a");
        says(&said, "`pointsman promote hello@r3 --to production` lets it in");
        world.run_due();
        assert!(world.is_stable(1) && world.stage().queued.is_none(), "{:?}", world.stage());
        assert_eq!((world.count("rolled_back"), world.count("dropped")), (1, 1));
        // Nobody is surprised by a second one.
        says(&world.rollback(PRODUCTION, None), "was rolled back from r2 to r1 already");
        assert!(world.is_stable(1) && !world.stage().bad.contains(&r(3)));
    }
    // What is refused changes nothing.
    let mut world = queued();
    says(&world.rollback(PRODUCTION, Some(r(9))), "there is no release r9");
    assert!(world.stage().queued.is_some());
}

#[test]
fn rollback_drops_what_waits_for_the_end_of_a_watch() {
    let watched = || {
        let mut world = entering(RolloutSpec { meanwhile: Meanwhile::Queue, ..blue_green(false, Some("10m")) });
        world.see(PRODUCTION, |seen| seen.checks.extend([well()]));
        says(&world.promote("hello@r3", "production", None), "it enters when r2 has passed its time after the flip");
        world
    };
    let mut world = watched();
    says(&world.rollback(PRODUCTION, None), "r3 no longer waits");
    world.run_due();
    assert!(world.is_stable(1) && world.stage().queued.is_none());

    // Nothing enters that could be aborted: only the wait ends.
    let mut world = watched();
    says(&world.abort(false), "r3 no longer waits");
    assert!(world.is_stable(2) && world.stage().queued.is_none() && world.watching().is_some());
    assert!(world.abort(false).is_err());
}

#[test]
fn rollback_of_what_came_from_the_queue_by_itself_marks_nothing() {
    let waited = || {
        let mut world = queued();
        world.see(PRODUCTION, worse);
        assert_eq!(world.entering().release, r(3));
        world
    };
    let mut world = waited();
    says(&world.rollback(PRODUCTION, None), "it is not marked bad");
    assert!(world.is_stable(1) && world.stage().bad == [r(2)].into(), "{:?}", world.stage().bad);
    // It has moved since, by itself or by somebody: it is a rollout like any other.
    let moves: [fn(&mut World); 4] = [
        |world| world.see(PRODUCTION, no_worse(9)),
        |world| drop(world.weigh(PRODUCTION, "10%").expect("by hand")),
        |world| drop(world.pause().expect("paused")),
        |world| drop(world.weigh(PRODUCTION, "20%").expect("by hand")),
    ];
    for moves in moves {
        let mut world = waited();
        moves(&mut world);
        world.rollback(PRODUCTION, None).expect("back");
        assert!(world.stage().bad.contains(&r(3)));
    }
    // So is one that never waited.
    let mut world = entering(spec(Meanwhile::Queue));
    world.rollback(PRODUCTION, None).expect("back");
    assert!(world.stage().bad.contains(&r(2)));
}

#[test]
fn rollback_that_fetches_back_and_is_ended_leaves_everything_as_it_was() {
    let ends: [Asked; 2] = [
        |world| world.command(Command::AbortRollout { stage: dev(), bad: false }, ""),
        |world| world.rollback("hello/dev", Some(r(2))),
    ];
    for end in ends {
        let mut world = cold(Meanwhile::Queue);
        says(&world.rollback("hello/dev", None), "r1 is no longer warm in hello/dev");
        says(&world.rollback("hello/dev", None), "is being fetched back");
        says(&world.promote("hello@r3", "dev", None), "r3 waits");
        let ended = end(&mut world);
        says(&ended, "r1 did not get into hello/dev: it is not fetched back any more, r2 goes on serving");
        says(&ended, "r3 no longer waits");
        assert_eq!(world.count("rolled_back"), 0, "nothing went back");
        let stage = world.state.stage(&dev()).expect("serves");
        assert_eq!((stage.stable, &stage.entering, stage.rolled_back), (Some(r(2)), &None, None));
        assert!(stage.bad.is_empty());
        says(&world.rollback("hello/dev", None), "r1 is no longer warm in hello/dev");
    }
}

#[test]
fn rollback_while_another_is_fetched_back_drops_what_waits() {
    let mut world = cold(Meanwhile::Queue);
    world.rollback("hello/dev", None).expect("has to start");
    says(&world.promote("hello@r3", "dev", None), "r3 waits");
    let again = world.rollback("hello/dev", None);
    says(&again, "is being fetched back into hello/dev already; r3 no longer waits");
    world.report_healthy("a1");
    world.run_due();
    let stage = world.state.stage(&dev()).expect("serves");
    assert_eq!((stage.stable, &stage.entering, &stage.queued), (Some(r(1)), &None, &None));
}

#[test]
fn rollout_is_not_resumed_before_it_has_started() {
    let starting = || {
        let mut world = cold(Meanwhile::Finish);
        let only = Step { pause: true, ..Step::default() };
        let insiders = Insiders { header: "x-insider".into(), value: "yes".into() };
        world.enter_by("dev", canary(vec![Step { insiders: Some(insiders), ..only }, to("100%")]));
        world.promote("hello@r3", "dev", None).expect("starts");
        world
    };
    let resume = |world: &mut World| world.command(Command::ResumeRollout { stage: dev() }, "");
    let is_in_its_first_step = |world: &mut World| {
        world.report_healthy("a1");
        world.run_due();
        let stage = world.state.stage(&dev()).expect("serves");
        let entering = stage.entering.as_ref().expect("it waits for somebody");
        assert_eq!(entering.rollout.as_ref().map(|rollout| rollout.phase), Some(Phase::Step(0)));
    };
    let mut world = starting();
    says(&resume(&mut world), "r3 has not started in hello/dev yet");
    is_in_its_first_step(&mut world);
    resume(&mut world).expect("now it counts");

    let mut world = starting();
    world.command(Command::PauseRollout { stage: dev() }, "").expect("paused");
    resume(&mut world).expect("the pause is over");
    is_in_its_first_step(&mut world);
}

#[test]
fn rollout_that_replaces_another_leaves_numbers_unique() {
    let spec = RolloutSpec { objective: Some(objective(Breach::Ask)), ..spec(Meanwhile::Replace) };
    let mut world = entering(spec);
    world.weigh(PRODUCTION, "100%").expect("completed");
    world.promote("hello@r3", "production", None).expect("enters");
    world.promote("hello@r4", "production", None).expect("replaces it");
    let (watching, rollout) = (world.watching().expect("rests").number, world.rollout().number);
    assert!(watching < rollout, "{watching} {rollout}");
    assert_eq!(world.stage().rollouts, rollout);
}
