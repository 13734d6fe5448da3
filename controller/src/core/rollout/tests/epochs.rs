//! What is dealt out by other shares is counted apart.

use super::told::split;
use super::*;

/// The epoch, the one with which the step began, and the one from which it is known what is slow.
fn epochs(world: &World) -> [u32; 3] {
    let rollout = world.rollout();
    let guard = split(world).1.guard.expect("a guard");
    assert_eq!((guard.rollout, guard.epoch), (rollout.number, rollout.epoch), "as proxies are told");
    [rollout.epoch, rollout.since_epoch, rollout.slow_epoch]
}

#[test]
fn rollout_counts_apart_what_each_share_and_each_bound_deals_out() {
    let pause = Step { pause: true, ..Step::default() };
    let mut world = entering(canary(vec![to("1%"), pause, to("10%"), to("50%"), to("100%")]));
    let number = world.rollout().number;
    assert_eq!(epochs(&world), [0, 0, 0]);
    world.see(PRODUCTION, |seen| seen.stable_p95_us = Some(5_000));
    assert_eq!(epochs(&world), [1, 0, 1], "it is known what is slow, in the same step");
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(epochs(&world), [2, 2, 1], "the next step, with the same share");
    world.pause().expect("paused");
    assert_eq!(epochs(&world), [2, 2, 1], "nothing else is dealt out");
    world.resume().expect("resumed, which is all that the step asks for");
    assert_eq!(epochs(&world), [3, 3, 1], "10 %");
    world.see(PRODUCTION, no_worse(9));
    assert_eq!(epochs(&world), [4, 4, 1], "50 %");
    world.weigh(PRODUCTION, "60%").expect("by hand from now on");
    let by_hand = epochs(&world);
    assert!(by_hand[0] > 4 && by_hand[1] > 4, "{by_hand:?}");
    world.weigh(PRODUCTION, "70%").expect("by hand");
    assert_eq!(epochs(&world), [by_hand[0] + 1, by_hand[1], 1], "70 %");
    world.weigh(PRODUCTION, "70%").expect("by hand");
    assert_eq!(epochs(&world), [by_hand[0] + 1, by_hand[1], 1], "the same");
    assert_eq!(world.rollout().number, number, "all of one rollout");
}

#[test]
fn rollout_that_begins_to_serve_and_one_that_is_stopped_are_counted_apart() {
    let mut world = World::with_built_releases(2);
    world.join_agent("a1");
    for (release, environments) in
        [("hello@r1", &["dev", "staging", "production"][..]), ("hello@r2", &["dev", "staging"])]
    {
        for environment in environments {
            world.promote(release, environment, None).expect("enters");
            world.report_healthy("a1");
            world.run_due();
        }
    }
    let steps = canary(vec![to("10%"), to("100%")]);
    world.enter_by("production", RolloutSpec { on_worse: OnWorse::Freeze, ..steps });
    world.promote("hello@r2", "production", None).expect("enters");
    assert_eq!(epochs_on_record(&world), [0, 0, 0], "it starts");
    world.pass_ms(1_000);
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(epochs(&world), [1, 1, 0], "it has a share from now on");
    world.see(PRODUCTION, tripped);
    assert_eq!(world.place(), Some((Phase::Step(0), "0%".into())));
    assert_eq!(epochs(&world), [2, 1, 0], "it has none");
    world.resume().expect("once more");
    let again = epochs(&world);
    assert_eq!(again[0], again[1], "everything is earned anew");
}

fn epochs_on_record(world: &World) -> [u32; 3] {
    let rollout = world.rollout();
    [rollout.epoch, rollout.since_epoch, rollout.slow_epoch]
}
