//! Small worlds in which builds wait. Nothing here moves by itself: a test carries out what is due and says what was seen.

use std::num::NonZeroU32;

use super::*;
use crate::core::evolve_test::{World, built, failed};
use crate::core::spec::BuildLimits;
use crate::core::{Command, Event, due};

const MINUTE_MS: u64 = 60_000;

fn name(text: &str) -> ReleaseName {
    text.parse().expect("a release")
}

/// A world with these services, all of which build each head; `limits` per hour and day; 0: none.
fn world(services: &[&str], builders: u32, limits: (u32, u32)) -> World {
    let mut world = World::new(false);
    let mut all = Vec::new();
    for service in services {
        let mut spec = world.state.services.values().next().expect("hello").spec.clone();
        spec.name = service.parse().expect("a name");
        spec.trigger.commits = true;
        spec.trigger.limits = BuildLimits { hour: NonZeroU32::new(limits.0), day: NonZeroU32::new(limits.1) };
        all.push(spec);
    }
    let releases = crate::core::spec::ReleasesSpec { builders, ..Default::default() };
    let apply =
        Command::Apply { environments: Vec::new(), services: all, access: None, releases: Some(Box::new(releases)) };
    world.command(apply, "").expect("applied");
    world
}

fn commit(number: u32) -> String {
    format!("{number:040x}")
}

fn head(number: u32) -> Wanted {
    let trigger = Trigger::Commit { branch: "main".into() };
    Wanted { commit: commit(number), subject: format!("change {number}"), trigger, ..Wanted::default() }
}

/// Somebody asks for a commit.
fn by_hand(world: &mut World, service: &str, number: u32) {
    let wanted = Box::new(Wanted { trigger: Trigger::ByHand, ..head(number) });
    let build = Command::Build { service: service.parse().expect("a name"), wanted, again: false };
    world.command(build, "").expect("asked for");
}

/// A look finds this head.
fn sees(world: &mut World, service: &str, wanted: Wanted) {
    world.seen.heads.insert(service.parse().expect("a name"), wanted);
}

/// Carries out all that is due; builds that are to run do, until somebody ends them.
fn turn(world: &mut World) {
    world.run_due();
    for due in due(&world.state, &world.seen, world.now_ms) {
        match due {
            Due::Build(release) => assert!(world.seen.building.insert(release), "it runs already"),
            Due::Cancel(release) => assert!(world.seen.ending.insert(release), "it ends already"),
            Due::Command(command) => panic!("left over: {command:?}"),
        }
    }
}

/// The build of a release ends well.
fn ends(world: &mut World, release: &str) {
    let release = name(release);
    world.command(Command::EndBuild { release: release.clone(), outcome: Ok(built()) }, "").expect("ended");
    assert!(world.seen.building.remove(&release), "{release} was not being built");
    world.seen.ending.remove(&release);
}

fn running(world: &World) -> Vec<String> {
    world.seen.building.iter().map(ToString::to_string).collect()
}

fn wait(world: &World, release: &str) -> Option<QueueWait> {
    waits(&world.state, &world.seen, &name(release), world.now_ms)
}

fn progress(world: &World, release: &str) -> ReleaseProgress {
    world.state.release(&name(release)).expect("there").progress.clone()
}

fn behind(release: &str) -> Option<QueueWait> {
    Some(QueueWait::Behind(name(release)))
}

#[test]
fn queue_a_hundred_commits_make_two_builds_and_the_last_is_built() {
    let mut world = world(&["hello"], 2, (0, 0));
    let before = world.log.len();
    for number in 1..=100 {
        sees(&mut world, "hello", head(number));
        turn(&mut world);
    }
    assert_eq!(running(&world), ["hello@r1"]);
    assert_eq!(world.log.len() - before, 2, "asked for and begun, and nothing of those between");
    ends(&mut world, "hello@r1");
    turn(&mut world);
    assert_eq!(running(&world), ["hello@r2"]);
    assert_eq!(world.state.release(&name("hello@r2")).expect("there").wanted.commit, commit(100));
    ends(&mut world, "hello@r2");
    turn(&mut world);
    assert!(running(&world).is_empty() && world.state.release(&name("hello@r3")).is_none());
}

#[test]
fn queue_a_commit_is_asked_for_once_by_itself() {
    for ended in ["ready", "failed", "cancelled"] {
        let mut world = world(&["hello"], 2, (0, 0));
        sees(&mut world, "hello", head(1));
        turn(&mut world);
        let release = name("hello@r1");
        if ended == "cancelled" {
            world.command(Command::CancelBuild { release: release.clone() }, "").expect("cancelled");
        }
        let outcome = if ended == "failed" { Err(failed("exit status 1")) } else { Ok(built()) };
        world.command(Command::EndBuild { release, outcome }, "").expect("ended");
        world.seen.building.clear();
        turn(&mut world);
        assert!(running(&world).is_empty() && world.state.release(&name("hello@r2")).is_none(), "{ended}");
        sees(&mut world, "hello", head(2));
        turn(&mut world);
        assert_eq!(running(&world), ["hello@r2"], "{ended}");
    }
}

#[test]
fn queue_heads_that_no_trigger_wants_any_more_are_left_alone() {
    let schedule = crate::core::spec::ScheduleSpec { cron: "0 3 * * *".into(), time_zone: "UTC".into() };
    let elsewhere = Trigger::Commit { branch: "other".into() };
    let table = [
        (head(1).trigger, true, false, true),
        (head(1).trigger, false, true, false),
        (elsewhere, true, true, false),
        (Trigger::Schedule, false, true, true),
        (Trigger::Schedule, true, false, false),
        (Trigger::ByHand, true, true, false),
        (Trigger::Tag, true, true, false),
    ];
    for (trigger, commits, scheduled, expected) in table {
        let mut world = world(&["hello"], 2, (0, 0));
        let service = world.state.services.values_mut().next().expect("hello");
        service.spec.trigger.commits = commits;
        service.spec.trigger.schedule = scheduled.then(|| schedule.clone());
        sees(&mut world, "hello", Wanted { trigger: trigger.clone(), ..head(1) });
        turn(&mut world);
        assert_eq!(!running(&world).is_empty(), expected, "{trigger:?} {commits} {scheduled}");
    }
}

#[test]
fn queue_what_somebody_asked_for_comes_first_and_is_never_overtaken() {
    let mut world = world(&["hello"], 1, (0, 0));
    by_hand(&mut world, "hello", 1);
    turn(&mut world);
    let tag = Wanted { trigger: Trigger::Tag, tag: Some("v1.0.0".into()), ..head(10) };
    for wanted in [head(20), tag, head(21)] {
        let service = "hello".parse().expect("a name");
        world.command(Command::Build { service, wanted: Box::new(wanted), again: false }, "").expect("asked for");
    }
    by_hand(&mut world, "hello", 2);
    by_hand(&mut world, "hello", 3);
    turn(&mut world);
    assert_eq!(
        progress(&world, "hello@r2"),
        ReleaseProgress::Overtaken { at_ms: world.now_ms, by: name("hello@r4").number }
    );
    assert_eq!(
        ["r3", "r4", "r5", "r6"].map(|one| wait(&world, &format!("hello@{one}"))),
        [(); 4].map(|()| behind("hello@r1"))
    );
    let mut order = Vec::new();
    for _ in 0..5 {
        let now = running(&world);
        let [release] = &now[..] else { panic!("{now:?}") };
        ends(&mut world, release);
        turn(&mut world);
        order.push(release.clone());
    }
    assert_eq!(order, ["hello@r1", "hello@r5", "hello@r6", "hello@r3", "hello@r4"]);
    assert!(running(&world).is_empty());
}

#[test]
fn queue_a_release_says_what_it_waits_for() {
    let mut world = world(&["hello"], 1, (0, 0));
    for number in 1..=3 {
        by_hand(&mut world, "hello", number);
    }
    assert_eq!(wait(&world, "hello@r1"), None, "it is about to begin");
    assert_eq!(wait(&world, "hello@r2"), behind("hello@r1"));
    turn(&mut world);
    assert_eq!((wait(&world, "hello@r1"), wait(&world, "hello@r3")), (None, behind("hello@r1")));
    ends(&mut world, "hello@r1");
    assert_eq!(
        ["hello@r1", "hello@r2", "hello@r3", "hello@r4"].map(|one| wait(&world, one)),
        [None, None, behind("hello@r2"), None]
    );
    // The end of a build is on record before its builder has gone.
    world.seen.building.insert(name("hello@r1"));
    assert_eq!(wait(&world, "hello@r2"), behind("hello@r1"));
    assert!(next(&world.state, &world.seen, world.now_ms).is_empty());
}

#[test]
fn queue_builders_take_who_waits_longest() {
    let names = ["api", "hello", "shop", "web"];
    for builders in [1, 3] {
        let mut world = world(&names, builders, (0, 0));
        for service in ["web", "shop", "hello", "api"] {
            by_hand(&mut world, service, 1);
            world.pass_ms(1);
        }
        turn(&mut world);
        let first = usize::try_from(builders).expect("few");
        let expected = ["web@r1", "shop@r1", "hello@r1", "api@r1"];
        let mut sorted = expected[..first].to_vec();
        sorted.sort_unstable();
        assert_eq!(running(&world), sorted, "{builders}");
        assert_eq!(wait(&world, "api@r1"), Some(QueueWait::Builders { busy: builders }));
        for (at, release) in expected.into_iter().enumerate() {
            ends(&mut world, release);
            turn(&mut world);
            assert_eq!(running(&world).len(), first.min(3 - at), "{builders}: after {release}");
        }
    }
}

#[test]
fn queue_a_service_with_many_newer_heads_keeps_its_place() {
    let mut world = world(&["hello", "shop"], 1, (0, 0));
    by_hand(&mut world, "shop", 1);
    turn(&mut world);
    sees(&mut world, "hello", head(1));
    turn(&mut world);
    by_hand(&mut world, "shop", 2);
    for number in 2..50 {
        world.pass_ms(MINUTE_MS);
        sees(&mut world, "hello", head(number));
        turn(&mut world);
    }
    ends(&mut world, "shop@r1");
    world.seen.building.clear();
    let before = world.log.len();
    turn(&mut world);
    assert_eq!(running(&world), ["hello@r2"], "the newest, in the place of the one that waited");
    let kinds: Vec<_> = world.log[before..].iter().map(|(event, _)| event.kind()).collect();
    assert_eq!(kinds, ["release_requested", "release_overtaken", "build_started"]);
    let wanted = &world.state.release(&name("hello@r2")).expect("there").wanted;
    assert_eq!(wanted.commit, commit(49));
    assert_eq!(wanted.overtook.commits.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), [commit(1)]);
    // A branch may go back to what nobody has built.
    ends(&mut world, "hello@r2");
    sees(&mut world, "hello", head(1));
    turn(&mut world);
    ends(&mut world, "shop@r2");
    turn(&mut world);
    assert_eq!(running(&world), ["hello@r3"]);
}

#[test]
fn queue_limits_hold_up_triggers_alone() {
    // Limits per hour and day; when builds began, in minutes before now; which limit holds a head up, and for how many minutes.
    type Row = ((u32, u32), &'static [u64], Option<(u32, u64)>);
    let table: [Row; 9] = [
        ((0, 0), &[1, 1, 1], None),
        ((3, 0), &[50, 20], None),
        ((2, 0), &[50, 20], Some((1, 10))),
        ((1, 0), &[50, 20], Some((1, 40))),
        // At the border: an hour later to the millisecond it counts no more.
        ((2, 0), &[60, 20], None),
        ((2, 0), &[59, 20], Some((1, 1))),
        ((0, 2), &[23 * 60, 20], Some((24, 60))),
        ((0, 2), &[24 * 60, 20], None),
        // Both: whichever ends later.
        ((1, 2), &[23 * 60, 20], Some((24, 60))),
    ];
    for (limits, begun, expected) in table {
        let mut world = world(&["hello"], 2, limits);
        world.pass_ms(48 * 60 * MINUTE_MS);
        let now_ms = world.now_ms;
        let service = world.state.services.values_mut().next().expect("hello");
        service.begun = begun.iter().map(|ago| now_ms - ago * MINUTE_MS).collect();
        sees(&mut world, "hello", head(1));
        turn(&mut world);
        let expected = expected.map(|(hours, minutes)| {
            let most = if hours == 1 { limits.0 } else { limits.1 };
            QueueWait::Limit { hours, most, until_ms: now_ms + minutes * MINUTE_MS }
        });
        assert_eq!(wait(&world, "hello@r1"), expected, "{limits:?} {begun:?}");
        assert_eq!(running(&world).is_empty(), expected.is_some(), "{limits:?} {begun:?}");
        let Some(QueueWait::Limit { until_ms, .. }) = expected else { continue };
        world.now_ms = until_ms - 1;
        turn(&mut world);
        assert!(running(&world).is_empty(), "{limits:?} {begun:?}: a moment too early");
        world.now_ms = until_ms;
        turn(&mut world);
        assert_eq!(running(&world), ["hello@r1"], "{limits:?} {begun:?}");
    }
}

#[test]
fn queue_what_is_asked_for_by_hand_is_counted_and_never_held_up() {
    let mut world = world(&["hello"], 2, (1, 0));
    for number in 1..=2 {
        by_hand(&mut world, "hello", number);
        turn(&mut world);
        ends(&mut world, &format!("hello@r{number}"));
    }
    sees(&mut world, "hello", head(3));
    turn(&mut world);
    let until_ms = world.now_ms + HOUR_MS;
    assert_eq!(wait(&world, "hello@r3"), Some(QueueWait::Limit { hours: 1, most: 1, until_ms }));
    // A clock that goes back makes nothing begin, and nothing wait for longer.
    world.now_ms -= 1;
    assert_eq!(wait(&world, "hello@r3"), Some(QueueWait::Limit { hours: 1, most: 1, until_ms }));
    turn(&mut world);
    assert!(running(&world).is_empty());
}

#[test]
fn queue_a_build_is_ended_once_and_by_whom_it_was_asked() {
    let mut world = world(&["hello"], 1, (0, 0));
    by_hand(&mut world, "hello", 1);
    by_hand(&mut world, "hello", 2);
    turn(&mut world);
    let cancel = |world: &mut World, release: &str| world.command(Command::CancelBuild { release: name(release) }, "");
    // One that waits ends at once.
    let queued = cancel(&mut world, "hello@r2").expect("out of the queue");
    assert!(matches!(queued.events[..], [Event::ReleaseCancelled { .. }]));
    let asked = cancel(&mut world, "hello@r1").expect("asked");
    assert!(matches!(asked.events[..], [Event::BuildCancelAsked { .. }]));
    let again = cancel(&mut world, "hello@r1").expect("asked already");
    assert!(again.events.is_empty() && again.lines[0].contains("test has cancelled hello@r1 already"), "{again:?}");
    assert!(matches!(next(&world.state, &world.seen, world.now_ms)[..], [Due::Cancel(_)]));
    turn(&mut world);
    assert!(next(&world.state, &world.seen, world.now_ms).is_empty(), "told once");
    // It was built before it could be ended: it was cancelled all the same.
    ends(&mut world, "hello@r1");
    let cancelled = ReleaseProgress::Cancelled { at_ms: world.now_ms, by: "test".into() };
    assert_eq!(progress(&world, "hello@r1"), cancelled);
    let over = cancel(&mut world, "hello@r1").expect("cancelled already");
    assert_eq!(over.events, []);
}

#[test]
fn queue_a_controller_that_died_goes_on_with_builds_and_with_their_ends() {
    let mut world = world(&["hello", "shop"], 2, (0, 0));
    by_hand(&mut world, "hello", 1);
    by_hand(&mut world, "shop", 1);
    turn(&mut world);
    world.command(Command::CancelBuild { release: name("shop@r1") }, "").expect("asked");
    world.seen = Observations::default();
    turn(&mut world);
    assert_eq!(running(&world), ["hello@r1"]);
    assert!(matches!(progress(&world, "shop@r1"), ReleaseProgress::Cancelled { .. }), "nobody was left to end it");
}
