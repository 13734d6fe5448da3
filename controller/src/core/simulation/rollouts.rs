//! Rollouts in the simulation: people, judges, proxies and checks that say anything at any time, late and twice.

use api::{ReleaseNumber, Share, Span, StageName};
use proptest::prelude::*;

use super::ledger::Ledger;
use super::{DAY_MS, ENVIRONMENTS};
use crate::core::evolve_test::World;
use crate::core::observe::{BreachSeen, RolloutSeen, TrippedSeen};
use crate::core::spec::{
    BlueGreen, Breach, Check, CheckKind, Insiders, Meanwhile, Objective, OnWorse, RolloutSpec, Step, Strategy as Way,
};
use crate::core::state::{CheckSeen, Phase};
use crate::core::{Command, Decision, Refusal, back, rollout};
use crate::judge::{Answered, Measure, Verdict};

/// Whatever looks at this release finds it worse; nothing ever finds that it is well.
pub(super) const BAD: u32 = 4;

#[derive(Debug, Clone)]
pub(super) enum RolloutStep {
    Enter {
        environment: usize,
        spec: Box<RolloutSpec>,
    },
    /// As people do most: without a weight.
    Promote {
        environment: usize,
        release: u32,
    },
    Pause(usize),
    Resume(usize),
    Skip(usize),
    Abort(usize, bool),
    See {
        environment: usize,
        sight: Sight,
    },
    /// What was seen at some time before is told again.
    Late(usize),
    /// A release is marked not reversible, or no more.
    Mark {
        release: u32,
        reversible: bool,
    },
    /// From now on people say that they go past this one.
    Past(Option<u32>),
}

/// What is seen of a rollout, of a release that is not bad.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    requests: u64,
    verdict: Verdict,
    trips: bool,
    flat: bool,
    check: CheckSeen,
    breach: bool,
    p95: bool,
}

pub(super) fn step() -> impl Strategy<Value = RolloutStep> {
    let environment = 0..3usize;
    let see = || (0..3usize, sight()).prop_map(|(environment, sight)| RolloutStep::See { environment, sight });
    prop_oneof![
        3 => (environment.clone(), spec()).prop_map(|(environment, spec)| RolloutStep::Enter { environment, spec: Box::new(spec) }),
        5 => (environment.clone(), 1..5u32).prop_map(|(environment, release)| RolloutStep::Promote { environment, release }),
        3 => environment.clone().prop_map(RolloutStep::Pause),
        2 => environment.clone().prop_map(RolloutStep::Resume),
        1 => environment.clone().prop_map(RolloutStep::Skip),
        1 => (environment, any::<bool>()).prop_map(|(environment, bad)| RolloutStep::Abort(environment, bad)),
        8 => see(),
        4 => any::<usize>().prop_map(RolloutStep::Late),
        3 => (1..5u32, proptest::bool::weighted(0.3)).prop_map(|(release, reversible)| RolloutStep::Mark { release, reversible }),
        2 => proptest::option::of(1..5u32).prop_map(RolloutStep::Past),
    ]
}

fn sight() -> impl Strategy<Value = Sight> {
    let verdict = prop_oneof![
        8 => Just(Verdict::NoWorse),
        4 => Just(Verdict::NotYet { likely_requests: None }),
        1 => Just(Verdict::Worse { by: Measure::Slow }),
    ];
    let check = prop_oneof![
        8 => Just(CheckSeen::Well),
        2 => Just(CheckSeen::NotYet),
        1 => Just(CheckSeen::Failed("no".into())),
    ];
    let requests = prop_oneof![1 => Just(0u64), 3 => 1..1_000u64];
    let rarely = || proptest::bool::weighted(0.06);
    (requests, verdict, rarely(), proptest::bool::weighted(0.8), check, rarely(), any::<bool>()).prop_map(
        |(requests, verdict, trips, flat, check, breach, p95)| Sight {
            requests,
            verdict,
            trips,
            flat,
            check,
            breach,
            p95,
        },
    )
}

fn span(ms: u64) -> Span {
    Span::from_ms(ms).expect("a span")
}

/// A canary always has a step in which it is judged, and everything that flips is checked.
fn spec() -> impl Strategy<Value = RolloutSpec> {
    let judged =
        (1..=900_000u32, proptest::option::of(1_000..2_000_000u64), proptest::option::of(1..500u64), any::<bool>());
    let judged = judged.prop_map(|(ppm, ms, requests, pause)| Step {
        share: Share::from_ppm(ppm),
        least_time: ms.map(span),
        requests,
        pause,
        insiders: None,
    });
    let pause = Just(Step { pause: true, ..Step::default() });
    let insiders = any::<bool>().prop_map(|pause| Step {
        insiders: Some(Insiders { header: "x-insider".into(), value: "yes".into() }),
        pause,
        ..Step::default()
    });
    let steps = (proptest::option::of(insiders), proptest::collection::vec(judged, 1..4), proptest::option::of(pause));
    let canary = steps.prop_map(|(insiders, mut judged, pause)| {
        judged.sort_by_key(|step| step.share);
        let last = Step { share: Some(Share::ALL), ..Step::default() };
        Way::Canary(insiders.into_iter().chain(judged).chain(pause).chain([last]).collect())
    });
    let flip = (any::<bool>(), proptest::option::of(1_000..8_000_000u64))
        .prop_map(|(pause, ms)| Way::BlueGreen(BlueGreen { pause, watch: ms.map(span) }));
    let way = prop_oneof![1 => Just(Way::AllAtOnce), 2 => flip, 6 => canary];
    let meanwhile = prop_oneof![Just(Meanwhile::Finish), Just(Meanwhile::Replace), Just(Meanwhile::Queue)];
    (way, meanwhile, any::<bool>(), any::<bool>(), proptest::option::of(any::<bool>())).prop_map(
        |(strategy, meanwhile, freeze, checked, objective)| {
            let checks = if checked || matches!(strategy, Way::BlueGreen(_)) { vec![check()] } else { Vec::new() };
            let on_worse = if freeze { OnWorse::Freeze } else { OnWorse::Rollback };
            let objective = objective.map(|asks| Objective {
                errors: Share::from_ppm(1_000),
                slow: None,
                on_breach: if asks { Breach::Ask } else { Breach::Rollback },
            });
            RolloutSpec { strategy, meanwhile, on_worse, checks, objective, ..RolloutSpec::default() }
        },
    )
}

fn check() -> Check {
    let kind = CheckKind::Http { url: "https://{host}/smoke".into(), app: None, ca: None };
    Check { name: "smoke".into(), kind, every: span(30_000), timeout: span(10_000), fall: 3 }
}

fn stage(environment: usize) -> StageName {
    format!("hello/{}", ENVIRONMENTS[environment]).parse().expect("stage")
}

pub(super) fn carry_out(world: &mut World, ledger: &mut Ledger, step: &RolloutStep) -> Result<Decision, Refusal> {
    let command = match step {
        RolloutStep::Enter { environment, spec } => {
            world.enter_by(ENVIRONMENTS[*environment], (**spec).clone());
            return Ok(Decision::default());
        }
        RolloutStep::Promote { environment, release } => Command::Promote {
            release: format!("hello@r{release}").parse().expect("name"),
            environment: ENVIRONMENTS[*environment].parse().expect("name"),
            share: None,
            bypass: true,
        },
        RolloutStep::Pause(environment) => Command::PauseRollout { stage: stage(*environment) },
        RolloutStep::Resume(environment) => Command::ResumeRollout { stage: stage(*environment) },
        RolloutStep::Skip(environment) => Command::SkipStep { stage: stage(*environment) },
        RolloutStep::Abort(environment, bad) => Command::AbortRollout { stage: stage(*environment), bad: *bad },
        RolloutStep::See { environment, sight } => {
            see(world, ledger, &stage(*environment), sight);
            return Ok(Decision::default());
        }
        RolloutStep::Late(which) => {
            let Some((stage, seen)) = ledger.seen_before(*which) else { return Ok(Decision::default()) };
            let late = Command::MoveRollout { stage, seen: Box::new(seen) };
            let past = world.past.take();
            let done = world.command(late, "");
            world.past = past;
            assert!(done.is_ok(), "a driver is never refused: {done:?}");
            return done;
        }
        RolloutStep::Mark { release, reversible } => Command::MarkRelease {
            release: format!("hello@r{release}").parse().expect("name"),
            reversible: *reversible,
        },
        RolloutStep::Past(release) => {
            world.past = release.and_then(ReleaseNumber::new);
            return Ok(Decision::default());
        }
    };
    world.command(command, "simulated")
}

/// What proxies, judge and checks say of a stage now.
fn see(world: &mut World, ledger: &mut Ledger, name: &StageName, sight: &Sight) {
    let Some(found) = world.state.stage(name) else { return };
    let Some((number, step)) = rollout::seen_as(found) else { return };
    let release = found.entering.as_ref().map(|entering| entering.release).or(found.stable);
    let is_bad = release == ReleaseNumber::new(BAD);
    let counted = Answered { requests: sight.requests, failed: sight.requests / 2, slow: 0 };
    let mut seen = RolloutSeen::nothing(number, step);
    (seen.requests, seen.is_flat) = (sight.requests, sight.flat);
    seen.verdict = match sight.verdict {
        _ if sight.requests == 0 => Verdict::NotYet { likely_requests: None },
        _ if is_bad => Verdict::Worse { by: Measure::Errors },
        verdict => verdict,
    };
    let check = match &sight.check {
        CheckSeen::Well if is_bad => CheckSeen::Failed("it is bad".into()),
        check => check.clone(),
    };
    seen.checks.insert("smoke".into(), check);
    let trips = sight.trips && sight.requests > 0;
    seen.tripped = trips.then(|| TrippedSeen { proxy: "p1".parse().expect("name"), failures: 10, among: 20 });
    seen.breach = (sight.breach || is_bad && sight.requests > 0).then_some(BreachSeen {
        by: Measure::Errors,
        counted,
        allowed: Share::NONE,
    });
    seen.stable_p95_us = sight.p95.then_some(1_000);
    ledger.offer(name, &seen);
    world.seen.rollouts.insert(name.clone(), seen);
}

/// Enough time, traffic, and people who do what a rollout waits for.
pub(super) fn end_fairly(world: &mut World, ledger: &mut Ledger) {
    let fair = Sight {
        requests: 1_000_000,
        verdict: Verdict::NoWorse,
        trips: false,
        flat: true,
        check: CheckSeen::Well,
        breach: false,
        p95: true,
    };
    if world.state.agents(&"prod".parse().expect("name")).next().is_none() {
        world.join_agent("a1");
    }
    for _ in 0..40 {
        // Before anybody has done anything, and again at once: what is not earned yet must not count.
        for _ in 0..2 {
            let before = super::shares(world);
            world.stage_names().iter().for_each(|name| see(world, ledger, name, &fair));
            world.run_due();
            super::check(world);
            super::check_placed(world, &before);
            ledger.read(world);
        }
        world.report_healthy("a1");
        world.run_due();
        ledger.read(world);
        for name in world.stage_names() {
            see(world, ledger, &name, &fair);
            let entering = world.state.stage(&name).and_then(|stage| stage.entering.as_ref());
            let Some(rollout) = entering.and_then(|entering| entering.rollout.as_ref()) else { continue };
            let bad = entering.map(|entering| entering.release) == ReleaseNumber::new(BAD);
            let stage = name.clone();
            let held = entering.is_some_and(|entering| back::held(&world.state, &name, entering).is_some());
            let person = match rollout.phase {
                Phase::ByHand if bad => Command::AbortRollout { stage, bad },
                Phase::ByHand => Command::Weigh { stage, share: Share::ALL },
                _ if rollout.frozen.is_some() && bad => Command::AbortRollout { stage, bad },
                _ if held && bad => Command::AbortRollout { stage, bad },
                _ if held => Command::SkipStep { stage },
                _ => Command::ResumeRollout { stage },
            };
            // Nothing may have waited for that.
            if let Err(Refusal::Marked(past, _)) = world.command(person.clone(), "simulated") {
                world.past = Some(past);
                let _ = world.command(person, "simulated");
            }
            ledger.read(world);
            see(world, ledger, &name, &fair);
        }
        world.pass_ms(DAY_MS / 24);
    }
}
