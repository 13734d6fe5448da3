//! Each reason alone keeps a release, and everything else goes in its time.

use api::{Span, StageName};

use super::*;
use crate::core::evolve_test::{World, artifact, built, failed, wanted};
use crate::core::spec::KeepSpec;
use crate::core::state::{Artifact, HotFix, NotReversible, Overtook, Trigger, Wanted};
use crate::core::{Command, Event};

fn name(number: u32) -> ReleaseName {
    format!("hello@r{number}").parse().expect("a release")
}

fn r(number: u32) -> ReleaseNumber {
    name(number).number
}

fn keep(world: &mut World, releases: u32, artifacts: u32, back: u32) {
    let logs = Span::from_ms(1_000).expect("a span");
    world.state.releases.keep = KeepSpec { releases, logs, artifacts, back, in_registry: false };
}

/// A world on agents, with so many releases that are ready; each has an artifact of its own.
fn world(count: u32) -> World {
    let mut world = World::with_built_releases(count);
    world.join_agent("a1");
    keep(&mut world, 1, 0, 0);
    world
}

fn ask(world: &mut World, commit: &str, shape: impl FnOnce(&mut Wanted)) {
    let mut wanted = wanted(&commit.repeat(40));
    shape(&mut wanted);
    let service = "hello".parse().expect("a name");
    world.command(Command::Build { service, wanted, again: false }, "").expect("asked for");
}

/// What goes until nothing does, as events; each pass is one look.
fn all_that_goes(world: &mut World) -> Vec<Event> {
    let mut gone = Vec::new();
    for _ in 0..100 {
        let commands = trim(&world.state, world.now_ms);
        assert!(commands.len() <= AT_ONCE);
        if commands.is_empty() {
            return gone;
        }
        for command in commands {
            let decision = world.command(command.clone(), "");
            let decision = decision.unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
            assert_eq!(decision.events.len(), 1, "{command:?}");
            gone.extend(decision.events);
        }
    }
    panic!("it never ends");
}

fn listed(world: &World) -> Vec<u32> {
    let service = world.state.services.values().next().expect("hello");
    service.releases.keys().map(|number| number.number()).collect()
}

/// Starts, serves everything.
fn serves(world: &mut World, number: u32, environment: &str) {
    world.promote(&name(number).to_string(), environment, None).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    let stage: StageName = format!("hello/{environment}").parse().expect("a stage");
    assert_eq!(world.state.stage(&stage).expect("there").stable, Some(r(number)));
}

#[test]
fn keep_each_reason_alone_keeps_a_release() {
    type Shaped = fn(&mut World);
    let table: [(&str, Shaped, &str); 9] = [
        ("nothing", |_| {}, ""),
        ("stable", |world| serves(world, 1, "dev"), "it runs in dev"),
        (
            "warm",
            |world| {
                serves(world, 1, "dev");
                serves(world, 2, "dev");
            },
            "it runs in dev",
        ),
        (
            "entering",
            |world| drop(world.promote("hello@r1", "dev", None).expect("starts")),
            "it is on its way into dev",
        ),
        (
            "rolled back to without further words",
            |world| {
                serves(world, 1, "dev");
                serves(world, 2, "dev");
                world.pass_ms(40 * 86_400_000);
                world.run_due();
                world.pass_ms(86_400_000);
                world.run_due();
            },
            "dev can be rolled back to it",
        ),
        (
            "one of the last that served",
            |world| {
                keep(world, 1, 0, 2);
                for number in 1..=3 {
                    serves(world, number, "dev");
                }
                world.pass_ms(40 * 86_400_000);
                world.run_due();
                world.pass_ms(86_400_000);
                world.run_due();
            },
            "dev can be rolled back to it",
        ),
        (
            "mended",
            |world| {
                let hot_fix = HotFix { of: r(1), base: "1".repeat(40), branch: None, picks: Vec::new() };
                ask(world, "f", |wanted| wanted.hot_fix = Some(hot_fix));
            },
            "r5 is to mend it",
        ),
        ("tried again", |world| ask(world, "f", |wanted| wanted.retry_of = Some(r(1))), "r5 is another attempt at it"),
        (
            "waits for its way in",
            |world| {
                serves(world, 2, "dev");
                let stage = world.state.services.values_mut().next().expect("hello").stages.values_mut().next();
                let (release, share, bypass, past) = (r(1), None, false, None);
                stage.expect("dev").queued =
                    Some(crate::core::state::Queued { release, share, bypass, past, since_ms: 0 });
            },
            "it waits for its way into dev",
        ),
    ];
    for (what, shape, expected) in table {
        let mut world = world(4);
        shape(&mut world);
        let why = need(&world.state, &name(1)).unwrap_or_default();
        assert_eq!((why.as_str(), is_needed(&world.state, &name(1))), (expected, !expected.is_empty()), "{what}");
        let gone = all_that_goes(&mut world);
        assert_eq!(listed(&world).contains(&1), !expected.is_empty(), "{what}: {gone:?}");
        let trim = Command::Trim { release: name(1), log: true, artifacts: true };
        let forget = Command::Forget { release: name(1) };
        for command in [trim, forget].into_iter().filter(|_| !expected.is_empty()) {
            let refusal = world.command(command, "").expect_err("needed");
            assert_eq!(refusal.to_string(), format!("hello@r1 is needed: {expected}"), "{what}");
        }
    }
}

#[test]
fn keep_a_build_and_the_newest_that_is_ready() {
    let mut world = world(2);
    for (commit, well) in [("a", false), ("b", false)] {
        ask(&mut world, commit, |_| {});
        world.run_due();
        let release = name(if commit == "a" { 3 } else { 4 });
        let outcome = if well { Ok(built()) } else { Err(failed("exit status 1")) };
        world.command(Command::EndBuild { release, outcome }, "").expect("ended");
    }
    ask(&mut world, "c", |_| {});
    world.run_due();
    ask(&mut world, "d", |_| {});
    world.pass_ms(1_000);
    all_that_goes(&mut world);
    assert_eq!(listed(&world), [2, 5, 6], "the newest that is ready, what is built and what waits");
    let why = |number| need(&world.state, &name(number));
    assert_eq!([2, 5].map(why), ["it is the newest that is ready", "it is not built yet"].map(|one| Some(one.into())));
}

#[test]
fn keep_counts_and_times_are_the_operators() {
    let trimmed = |world: &World, number: u32| {
        let trimmed = world.state.release(&name(number)).expect("there").trimmed;
        (trimmed.log_ms.is_some(), trimmed.artifacts_ms.is_some())
    };
    let mut world = world(4);
    keep(&mut world, 200, 2, 0);
    // Logs are young; the newest two keep their artifacts.
    let gone = all_that_goes(&mut world);
    assert!(
        matches!(&gone[0], Event::ReleaseTrimmed { release, .. } if *release == name(1)),
        "the oldest first: {gone:?}"
    );
    assert_eq!(
        [1, 2, 3, 4].map(|one| trimmed(&world, one)),
        [(false, true), (false, true), (false, false), (false, false)]
    );
    assert_eq!(digests(&world.state).len(), 2);
    world.pass_ms(999);
    assert!(trim(&world.state, world.now_ms).is_empty());
    world.pass_ms(1);
    all_that_goes(&mut world);
    assert_eq!([1, 2, 3, 4].map(|one| trimmed(&world, one).0), [true, true, true, false], "the newest is needed");
    let again = Command::Trim { release: name(1), log: true, artifacts: true };
    assert_eq!(world.command(again, "").expect("gone already").events, []);
    keep(&mut world, 2, 2, 0);
    all_that_goes(&mut world);
    assert_eq!(listed(&world), [3, 4]);
    // Numbers are never given twice.
    ask(&mut world, "e", |_| {});
    assert_eq!(listed(&world), [3, 4, 5]);
}

#[test]
fn keep_logs_and_artifacts_go_before_their_release() {
    let mut world = world(3);
    let refusal = world.command(Command::Forget { release: name(1) }, "").expect_err("has both");
    assert_eq!(refusal.to_string(), "the log and the artifacts of hello@r1 have to go first");
    let gone = all_that_goes(&mut world);
    let kinds: Vec<_> = gone.iter().map(Event::kind).collect();
    assert_eq!(kinds, ["release_trimmed", "release_trimmed", "release_forgotten", "release_forgotten"]);
    assert_eq!(listed(&world), [3]);
}

#[test]
fn keep_images_are_the_registrys() {
    let place = Some("registry.example.com/hello/web".parse().expect("a place"));
    for (in_registry, expected) in [(false, false), (true, true)] {
        let mut world = world(3);
        keep(&mut world, 200, 0, 0);
        world.state.releases.keep.in_registry = in_registry;
        for release in world.state.services.values_mut().flat_map(|service| service.releases.values_mut()) {
            let image = Artifact { kind: ArtifactKind::Image, place: place.clone(), ..artifact(b"image") };
            release.artifacts.values_mut().for_each(|one| *one = image.clone());
        }
        assert_eq!(!trim(&world.state, world.now_ms).is_empty(), expected, "{in_registry}");
    }
}

#[test]
fn keep_marks_and_the_last_head_stay_listed() {
    let mut world = world(4);
    let service = world.state.services.values_mut().next().expect("hello");
    let mark = NotReversible { reason: "drops names".into(), by: "test".into(), at_ms: 1 };
    service.releases.get_mut(&r(1)).expect("r1").not_reversible = Some(mark);
    for number in [2, 3] {
        let wanted = &mut service.releases.get_mut(&r(number)).expect("there").wanted;
        wanted.trigger = Trigger::Commit { branch: "main".into() };
        wanted.overtook = Overtook::default();
    }
    all_that_goes(&mut world);
    assert_eq!(listed(&world), [1, 3, 4], "r2 is neither");
    world.pass_ms(1_000);
    all_that_goes(&mut world);
    let trimmed = world.state.release(&name(1)).expect("there").trimmed;
    assert!(trimmed.artifacts_ms.is_some() && trimmed.log_ms.is_some());
    let refusal = world.command(Command::Forget { release: name(3) }, "").expect_err("the last head");
    assert_eq!(refusal.to_string(), "hello@r3 is still asked about: it stays listed");
}

#[test]
fn keep_takes_a_hundred_at_a_time() {
    let mut world = world(1);
    let one = world.state.release(&name(1)).expect("there").clone();
    let service = world.state.services.values_mut().next().expect("hello");
    service.releases.extend((2..=150).map(|number| (r(number), one.clone())));
    let first = trim(&world.state, world.now_ms);
    assert_eq!(first.len(), AT_ONCE);
    assert!(matches!(&first[0], Command::Trim { release, .. } if *release == name(1)));
    all_that_goes(&mut world);
    assert_eq!(listed(&world), [150]);
}
