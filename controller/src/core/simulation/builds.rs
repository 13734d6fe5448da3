//! Builds under random orders of heads, tags, people, builders, retention and deaths, beside traffic.

mod book;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use api::{ReleaseName, ServiceName};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use self::book::Book;
use super::{Step, carry_out, check, check_placed, config, fold, shares};
use crate::core::evolve_test::{World, artifact, built, failed};
use crate::core::queue::is_asked_for;
use crate::core::simulation::ledger::Ledger;
use crate::core::spec::{BuildLimits, KeepSpec, ReleasesSpec};
use crate::core::state::{Release, Trigger, Wanted};
use crate::core::{Command, Decision, Due, Refusal, due, keep};

const SERVICES: [&str; 2] = ["hello", "shop"];
const HOUR_MS: u64 = 3_600_000;
const HOUR_LIMIT: u32 = 3;
const BUILDERS: u32 = 1;

#[derive(Debug, Clone)]
pub(super) enum BuildStep {
    /// A look finds this commit at the head of the branch.
    Head {
        service: usize,
        commit: u8,
    },
    /// A look finds this tag there.
    Tag {
        service: usize,
        tag: u8,
        commit: u8,
    },
    ByHand {
        service: usize,
        commit: u8,
        again: bool,
    },
    Cancel {
        service: usize,
        back: u8,
    },
    Retry {
        service: usize,
        back: u8,
    },
    /// The builder of a service is done, well or not.
    End {
        service: usize,
        well: bool,
    },
    /// Retention looks.
    Keep,
    /// Somebody wants exactly this gone.
    Trim {
        service: usize,
        back: u8,
        forget: bool,
    },
}

pub(super) fn step() -> impl Strategy<Value = BuildStep> {
    let service = 0..2usize;
    let (commit, back) = (0..12u8, 0..6u8);
    prop_oneof![
        4 => (service.clone(), commit.clone()).prop_map(|(service, commit)| BuildStep::Head { service, commit }),
        2 => (service.clone(), 0..4u8, 0..3u8).prop_map(|(service, tag, commit)| BuildStep::Tag { service, tag, commit }),
        2 => (service.clone(), commit, any::<bool>()).prop_map(|(service, commit, again)| BuildStep::ByHand { service, commit, again }),
        2 => (service.clone(), back.clone()).prop_map(|(service, back)| BuildStep::Cancel { service, back }),
        2 => (service.clone(), back.clone()).prop_map(|(service, back)| BuildStep::Retry { service, back }),
        6 => (service.clone(), proptest::bool::weighted(0.7)).prop_map(|(service, well)| BuildStep::End { service, well }),
        2 => Just(BuildStep::Keep),
        2 => (service, back, any::<bool>()).prop_map(|(service, back, forget)| BuildStep::Trim { service, back, forget }),
    ]
}

impl BuildStep {
    fn kind(&self) -> &'static str {
        match self {
            Self::Head { .. } => "head",
            Self::Tag { .. } => "tag",
            Self::ByHand { .. } => "by hand",
            Self::Cancel { .. } => "cancel",
            Self::Retry { .. } => "retry",
            Self::End { .. } => "end",
            Self::Keep => "keep",
            Self::Trim { forget: false, .. } => "trim",
            Self::Trim { forget: true, .. } => "forget",
        }
    }
}

fn service(which: usize) -> ServiceName {
    SERVICES[which].parse().expect("a name")
}

fn wanted(commit: u8, trigger: Trigger) -> Wanted {
    Wanted { commit: format!("{commit:040x}"), subject: "s".into(), trigger, ..Wanted::default() }
}

/// The release that is so many before the newest.
fn before_newest(world: &World, which: usize, back: u8) -> ReleaseName {
    let found = world.state.service(&service(which)).expect("there");
    let newest = found.newest.map_or(1, |number| number.number());
    let number = newest.saturating_sub(u32::from(back)).max(1);
    format!("{}@r{number}", SERVICES[which]).parse().expect("a release")
}

/// Two services that build each head, one builder, few releases that are kept.
fn world() -> World {
    let mut world = World::with_built_releases(4);
    let mut services = Vec::new();
    for name in SERVICES {
        let mut spec = world.state.services.values().next().expect("hello").spec.clone();
        spec.name = name.parse().expect("a name");
        spec.trigger.commits = true;
        spec.trigger.limits = BuildLimits { hour: NonZeroU32::new(HOUR_LIMIT), day: NonZeroU32::new(20) };
        services.push(spec);
    }
    let logs = api::Span::from_ms(60_000).expect("a span");
    let keep = KeepSpec { releases: 3, logs, artifacts: 1, back: 1, in_registry: false };
    let releases = Some(Box::new(ReleasesSpec { builders: BUILDERS, keep, ..ReleasesSpec::default() }));
    let apply = Command::Apply { environments: Vec::new(), services, access: None, releases };
    world.command(apply, "").expect("applied");
    world.join_agent("a1");
    world
}

/// Carries out one step; true if something came of it.
pub(super) fn carry_out_build(world: &mut World, step: &BuildStep) -> bool {
    let done = match *step {
        BuildStep::Head { service: which, commit } => {
            let head = wanted(commit, Trigger::Commit { branch: "main".into() });
            let is_new = !is_asked_for(world.state.service(&service(which)).expect("there"), &head);
            world.seen.heads.insert(service(which), head);
            return is_new;
        }
        BuildStep::Tag { service: which, tag, commit } => {
            let wanted = Box::new(Wanted { tag: Some(format!("v1.{tag}.0")), ..wanted(commit, Trigger::Tag) });
            world.command(Command::Build { service: service(which), wanted, again: false }, "")
        }
        BuildStep::ByHand { service: which, commit, again } => {
            let wanted = Box::new(wanted(commit, Trigger::ByHand));
            world.command(Command::Build { service: service(which), wanted, again }, "")
        }
        BuildStep::Cancel { service, back } => {
            let release = before_newest(world, service, back);
            world.command(Command::CancelBuild { release }, "")
        }
        BuildStep::Retry { service, back } => {
            let release = before_newest(world, service, back);
            world.command(Command::RetryRelease { release }, "")
        }
        BuildStep::End { service: which, well } => end(world, which, well),
        BuildStep::Keep => keep_looks(world),
        BuildStep::Trim { service, back, forget } => {
            let release = before_newest(world, service, back);
            let command = match forget {
                true => Command::Forget { release },
                false => Command::Trim { release, log: true, artifacts: true },
            };
            removes(world, command)
        }
    };
    done.is_ok_and(|decision| !decision.events.is_empty())
}

fn end(world: &mut World, which: usize, well: bool) -> Result<Decision, Refusal> {
    let Some(release) = world.seen.building.iter().find(|release| release.service == service(which)).cloned() else {
        return Ok(Decision::default());
    };
    // What is built is another thing each time, as far as anybody knows.
    let bytes = world.log.len().to_be_bytes();
    let artifacts = [("web".parse().expect("a name"), artifact(&bytes))].into();
    let made = crate::core::command::Built { artifacts, ..built() };
    let outcome = if well { Ok(made) } else { Err(failed("exit status 1")) };
    let ended = world.command(Command::EndBuild { release: release.clone(), outcome }, "");
    world.seen.building.remove(&release);
    world.seen.ending.remove(&release);
    ended
}

fn keep_looks(world: &mut World) -> Result<Decision, Refusal> {
    let mut all = Decision::default();
    for command in keep::trim(&world.state, world.now_ms) {
        let done = removes(world, command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
        assert!(!done.events.is_empty(), "for nothing: {command:?}");
        all.events.extend(done.events);
    }
    Ok(all)
}

/// INVARIANT: nothing that runs, enters, waits or could be rolled back to loses anything.
fn removes(world: &mut World, command: Command) -> Result<Decision, Refusal> {
    let (Command::Trim { release, .. } | Command::Forget { release }) = &command else { unreachable!("{command:?}") };
    let release = release.clone();
    let mut used = BTreeSet::new();
    for name in world.stage_names().into_iter().filter(|name| name.service == release.service) {
        let stage = world.state.stage(&name).expect("listed");
        used.extend(stage.running());
        used.extend(stage.rollback_target());
        used.extend(stage.entering.iter().map(|entering| entering.release));
        used.extend(stage.queued.iter().map(|queued| queued.release));
    }
    let is_used = used.contains(&release.number);
    let is_over = world.state.release(&release).is_some_and(|found| found.progress.is_terminal());
    let done = world.command(command, "");
    let removed = done.as_ref().is_ok_and(|decision| !decision.events.is_empty());
    assert!(!removed || is_over && !is_used, "{release} lost something: {used:?}");
    done
}

/// Builds that are to run do, and those that are to end are told.
fn tell_builders(world: &mut World) {
    world.run_due();
    for due in due(&world.state, &world.seen, world.now_ms) {
        match due {
            Due::Build(release) => assert!(world.seen.building.insert(release), "it runs already"),
            Due::Cancel(release) => assert!(world.seen.ending.insert(release), "it was told already"),
            Due::Command(
                command @ (Command::BeginBuild { .. }
                | Command::Build { .. }
                | Command::Overtake { .. }
                | Command::EndBuild { .. }),
            ) => panic!("the queue asks for what is refused: {command:?}"),
            Due::Command(_) => {}
        }
    }
}

/// Builders build, and time passes, until nothing waits.
fn quiet(world: &mut World, book: &mut Book) {
    for _ in 0..400 {
        tell_builders(world);
        book.read(world);
        for which in 0..SERVICES.len() {
            end(world, which, true).expect("ended");
        }
        book.read(world);
        let is_over = |release: &Release| release.progress.is_terminal();
        let mut all = world.state.services.values().flat_map(|service| service.releases.values());
        if all.all(is_over) && world.seen.building.is_empty() {
            tell_builders(world);
            if world.seen.building.is_empty() {
                return;
            }
        }
        world.pass_ms(HOUR_MS / 2);
    }
    panic!("builds never end");
}

#[test]
fn builds_invariants_hold_in_any_order() {
    let counts: RefCell<BTreeMap<(&str, bool), u32>> = RefCell::default();
    let any = prop_oneof![3 => super::step(), 7 => step().prop_map(Step::Build)];
    let run = |steps: Vec<Step>| {
        let (mut world, mut ledger, mut book) = (world(), Ledger::default(), Book::default());
        let mut heads = BTreeMap::new();
        for step in &steps {
            let before = shares(&world);
            if let Step::Build(step) = step {
                let came_of_it = carry_out_build(&mut world, step);
                *counts.borrow_mut().entry((step.kind(), came_of_it)).or_default() += 1;
            } else {
                if matches!(step, Step::Restart) {
                    *counts.borrow_mut().entry(("restart", !world.seen.building.is_empty())).or_default() += 1;
                }
                carry_out(&mut world, &mut ledger, step);
            }
            tell_builders(&mut world);
            if let Step::Build(BuildStep::Head { service, .. }) = step {
                let name = self::service(*service);
                heads.insert(name.clone(), world.seen.heads[&name].clone());
            }
            check(&world);
            check_placed(&world, &before);
            book.read(&world);
        }
        assert_eq!(fold(&world).services, world.state.services, "the state is the fold of its events");
        // INVARIANT: when all is quiet, the last head is built or was asked for.
        world.seen.heads = heads.clone();
        quiet(&mut world, &mut book);
        for (name, head) in heads {
            assert!(is_asked_for(world.state.service(&name).expect("there"), &head), "{name} has left {head:?} out");
        }
        Ok(())
    };
    let mut runner = TestRunner::new(config());
    runner.run(&proptest::collection::vec(any, 1..80), run).unwrap_or_else(|failure| panic!("{failure}"));
    // Each kind of step came to something, and was refused or came to nothing.
    let counts = counts.into_inner();
    for kind in ["head", "tag", "by hand", "cancel", "retry", "end", "keep", "trim", "forget", "restart"] {
        for came_of_it in [true, false] {
            assert!(counts.contains_key(&(kind, came_of_it)), "{kind} {came_of_it}: {counts:?}");
        }
    }
}
