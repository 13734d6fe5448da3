//! The whole core under random orders of commands, deaths and time: what must hold after every step.

mod builds;
mod ledger;
mod rollouts;

use std::collections::BTreeMap;

use api::{ReleaseNumber, Share, StageName};
use proptest::prelude::*;

use super::evolve::Mark;
use super::evolve_test::World;
use super::state::Leaving;
use super::*;
use builds::BuildStep;
use ledger::Ledger;
use rollouts::RolloutStep;

#[derive(Debug, Clone)]
enum Step {
    Promote {
        release: u32,
        environment: usize,
        ppm: Option<u32>,
    },
    Weigh {
        environment: usize,
        ppm: u32,
    },
    Rollback {
        environment: usize,
        to: Option<u32>,
    },
    Unhold {
        environment: usize,
        release: u32,
    },
    AgentHealthy,
    AgentGone,
    AgentRevoked,
    AgentJoined,
    Drained,
    /// `client`: known by tokens of the issuer, too.
    CreateApplication {
        which: usize,
        client: bool,
    },
    RotateApplication {
        which: usize,
        overlap_ms: u64,
    },
    RevokeApplication {
        which: usize,
    },
    EndKeys {
        which: usize,
    },
    /// `issuer`: with it, or without.
    Access {
        issuer: bool,
    },
    Pass {
        ms: u64,
    },
    /// The wall clock goes back; events never do.
    ClockBack {
        ms: u64,
    },
    /// The controller dies and folds its events again; agents come back.
    Restart,
    Rollout(RolloutStep),
    /// In a simulation of its own: see `builds`.
    Build(BuildStep),
}

const ENVIRONMENTS: [&str; 3] = ["dev", "staging", "production"];
const APPLICATIONS: [&str; 2] = ["batch", "web"];
const DAY_MS: u64 = 86_400_000;

fn step() -> impl Strategy<Value = Step> {
    let environment = 0..3usize;
    let ppm = prop_oneof![Just(0u32), Just(100), Just(500_000), Just(1_000_000), 0..=1_000_000u32];
    prop_oneof![
        4 => (1..5u32, environment.clone(), proptest::option::of(ppm.clone())).prop_map(|(release, environment, ppm)| Step::Promote { release, environment, ppm }),
        3 => (environment.clone(), ppm).prop_map(|(environment, ppm)| Step::Weigh { environment, ppm }),
        3 => (environment.clone(), proptest::option::of(1..5u32)).prop_map(|(environment, to)| Step::Rollback { environment, to }),
        1 => (environment, 1..5u32).prop_map(|(environment, release)| Step::Unhold { environment, release }),
        3 => Just(Step::AgentHealthy),
        1 => Just(Step::AgentGone),
        1 => Just(Step::AgentRevoked),
        2 => Just(Step::AgentJoined),
        1 => Just(Step::Drained),
        2 => (0..2usize, any::<bool>()).prop_map(|(which, client)| Step::CreateApplication { which, client }),
        1 => (0..2usize, prop_oneof![Just(0), 1..2_000_000u64]).prop_map(|(which, overlap_ms)| Step::RotateApplication { which, overlap_ms }),
        1 => (0..2usize).prop_map(|which| Step::RevokeApplication { which }),
        1 => (0..2usize).prop_map(|which| Step::EndKeys { which }),
        1 => any::<bool>().prop_map(|issuer| Step::Access { issuer }),
        1 => (1..1_000_000u64).prop_map(|ms| Step::ClockBack { ms }),
        1 => Just(Step::Restart),
        16 => rollouts::step().prop_map(Step::Rollout),
        2 => prop_oneof![Just(DAY_MS), 1..1_000u64, 10_000..400_000u64, Just(3_600_000)].prop_map(|ms| Step::Pass { ms }),
    ]
}

fn carry_out(world: &mut World, ledger: &mut Ledger, step: &Step) {
    let stage = |environment: usize| format!("hello/{}", ENVIRONMENTS[environment]).parse().expect("stage");
    let number = |release: u32| ReleaseNumber::new(release).expect("not 0");
    let share = |ppm: u32| Share::from_ppm(ppm).expect("in range");
    // Refusals are answers like any other here.
    let _ = match step {
        Step::Promote { release, environment, ppm } => world.command(
            Command::Promote {
                release: format!("hello@r{release}").parse().expect("name"),
                environment: ENVIRONMENTS[*environment].parse().expect("name"),
                share: ppm.map(share),
                bypass: true,
            },
            "simulated",
        ),
        Step::Weigh { environment, ppm } => {
            world.command(Command::Weigh { stage: stage(*environment), share: share(*ppm) }, "")
        }
        Step::Rollback { environment, to } => {
            world.command(Command::Rollback { stage: stage(*environment), to: to.map(number) }, "")
        }
        Step::Unhold { environment, release } => {
            world.command(Command::Unhold { stage: stage(*environment), release: number(*release) }, "")
        }
        Step::AgentHealthy => {
            world.report_healthy("a1");
            Ok(Decision::default())
        }
        Step::AgentGone => {
            world.seen.agents.clear();
            Ok(Decision::default())
        }
        Step::AgentRevoked => {
            world.seen.agents.clear();
            world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "")
        }
        Step::AgentJoined => {
            if world.state.agents(&"prod".parse().expect("name")).next().is_none() {
                world.join_agent("a1");
            }
            Ok(Decision::default())
        }
        Step::Drained => {
            for name in world.stage_names() {
                let leaving: Vec<_> =
                    world.state.stage(&name).into_iter().flat_map(|stage| stage.leaving.keys().copied()).collect();
                world.seen.drained.extend(leaving.into_iter().map(|release| (name.clone(), release)));
            }
            Ok(Decision::default())
        }
        Step::CreateApplication { .. }
        | Step::RotateApplication { .. }
        | Step::RevokeApplication { .. }
        | Step::EndKeys { .. }
        | Step::Access { .. } => {
            let command = of_access(step, world.log.len());
            world.command(command, "simulated")
        }
        Step::Pass { ms } => {
            world.pass_ms(*ms);
            Ok(Decision::default())
        }
        Step::ClockBack { ms } => {
            let last_ms = world.log.last().map_or(0, |(_, at_ms)| *at_ms);
            world.now_ms = world.now_ms.saturating_sub(*ms).max(last_ms);
            Ok(Decision::default())
        }
        Step::Restart => {
            restart(world);
            Ok(Decision::default())
        }
        Step::Rollout(step) => rollouts::carry_out(world, ledger, step),
        Step::Build(step) => {
            builds::carry_out_build(world, step);
            Ok(Decision::default())
        }
    };
    world.run_due();
    world.seen.drained.clear();
}

/// A controller that was killed knows what is on record and nothing else.
fn restart(world: &mut World) {
    let folded = fold(world);
    assert_eq!(folded.services, world.state.services, "what is not on record was known");
    world.state.services = folded.services;
    world.seen = Observations::default();
}

/// The state as its events give it, in text form as they are stored.
fn fold(world: &World) -> State {
    let mut folded = State::default();
    for (event, at_ms) in &world.log {
        let text = serde_json::to_string(event).expect("writes");
        let event: Event = serde_json::from_str(&text).expect("reads");
        folded.evolve(&event, Mark { seq: 0, at_ms: *at_ms, by: "test", reason: "", request: "" });
    }
    folded
}

/// The command of a step that is about who may pass. `drawn` makes keys differ.
fn of_access(step: &Step, drawn: usize) -> Command {
    let name = |which: usize| APPLICATIONS[which].parse().expect("a name");
    let id = format!("k{drawn}");
    let key = KeyMade { sha256: api::Digest::of(id.as_bytes()), id, until_ms: None };
    match *step {
        Step::CreateApplication { which, client } => {
            let issued = client.then(|| ("corp".parse().expect("a name"), APPLICATIONS[which].to_owned()));
            let new = NewApplication { clients: issued.into_iter().collect(), ..NewApplication::default() };
            Command::CreateApplication { name: name(which), new, key: Some(key) }
        }
        Step::RotateApplication { which, overlap_ms } => {
            Command::RotateApplication { name: name(which), key, overlap_ms }
        }
        Step::RevokeApplication { which } => Command::RevokeApplication { name: name(which) },
        Step::EndKeys { which } => Command::EndKeys { name: name(which) },
        Step::Access { issuer } => {
            let corp = "schema = 1\n[issuer.corp]\nissuer = \"https://login.example.com\"\naudience = [\"a\"]\n";
            let text = if issuer { corp } else { "schema = 1\npolicies = []\n" };
            let read = crate::files::parse("access.toml", text);
            let Ok(crate::files::File::Access(access)) = read else { panic!("{read:?}") };
            Command::Apply { environments: Vec::new(), services: Vec::new(), access: Some(access), releases: None }
        }
        _ => unreachable!("about stages: {step:?}"),
    }
}

/// What must hold of applications at every moment.
fn check_applications(world: &World) {
    for (name, one) in &world.state.applications {
        // INVARIANT: a revoked application has no keys and no resource; every other one has its resource.
        let told = resources::access::of_application(&world.state, name);
        assert!(!one.revoked || one.keys.is_empty(), "{name} is revoked and has keys: {one:?}");
        assert_eq!(told.is_none(), one.revoked, "{name}: {one:?}");
        // INVARIANT: whoever is known by an issuer's tokens is known by an issuer that is there.
        let issuer_is_there = |(issuer, _): &(api::MemberName, String)| world.state.access.issuers.contains_key(issuer);
        assert!(one.revoked || one.clients.iter().all(issuer_is_there), "{name} has lost its issuer: {one:?}");
        // INVARIANT: nothing is kept for ever.
        let is_kept = |until_ms: u64| until_ms + DAY_MS > world.now_ms;
        assert!(one.keys.iter().all(|key| key.until_ms.is_none_or(is_kept)), "{name} has keys of long ago: {one:?}");
    }
}

/// The share of each release of each stage; what is stable counts as having everything.
fn shares(world: &World) -> BTreeMap<(StageName, ReleaseNumber), Share> {
    let of_stage = |name: StageName| {
        let stage = world.state.stage(&name).expect("listed");
        let share = |release| if stage.stable == Some(release) { Share::ALL } else { stage.share(release) };
        stage.running().into_iter().map(move |release| ((name.clone(), release), share(release))).collect::<Vec<_>>()
    };
    world.stage_names().into_iter().flat_map(of_stage).collect()
}

/// INVARIANT: on an agent target no release gets weight, or more of it, that runs nowhere.
fn check_placed(world: &World, before: &BTreeMap<(StageName, ReleaseNumber), Share>) {
    for ((name, release), share) in shares(world) {
        if share <= before.get(&(name.clone(), release)).copied().unwrap_or(Share::NONE) {
            continue;
        }
        let endpoints = format!("{name}/{release}");
        let resources = resources::of_stage(&world.state, &name);
        let told = resources.iter().find(|resource| resource.name == endpoints).expect("told");
        let told = <api::fleet::Endpoints as prost::Message>::decode(&*told.body).expect("decodes");
        assert!(!told.endpoints.is_empty(), "{endpoints} gets {share} and has no endpoint");
    }
}

/// What must hold at every moment.
fn check(world: &World) {
    for name in world.stage_names() {
        let stage = world.state.stage(&name).expect("listed");
        let total: u32 = stage.running().into_iter().map(|release| stage.share(release).ppm()).sum();
        // INVARIANT: weights sum to the whole as soon as anything is stable, and nothing serves before.
        assert_eq!(total, if stage.stable.is_some() { 1_000_000 } else { 0 }, "{name}: {stage:?}");
        if let Some(stable) = stage.stable {
            assert!(!stage.leaving.contains_key(&stable), "{name}: stable leaves: {stage:?}");
            assert!(stage.entering.as_ref().is_none_or(|entering| entering.release != stable), "{name}: {stage:?}");
            assert!(!stage.bad.contains(&stable), "{name}: a bad release serves everything: {stage:?}");
        }
        if let Some(entering) = &stage.entering {
            assert!(!stage.leaving.contains_key(&entering.release), "{name}: {stage:?}");
            // INVARIANT: every state that is not terminal has a deadline or waits for a person by name.
            assert!(
                entering.starting_until_ms.is_none_or(|until| until > world.now_ms),
                "{name}: an overdue start: {stage:?}"
            );
        }
        for (release, why) in &stage.leaving {
            let (Leaving::Warm { until_ms } | Leaving::Draining { until_ms }) = why;
            assert!(*until_ms > world.now_ms, "{name}: {release} should have left: {stage:?}");
        }
    }
}

/// How many orders are tried.
fn config() -> ProptestConfig {
    ProptestConfig { cases: std::env::var("POINTSMAN_LONG").map_or(256, |_| 20_000), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn rollout_invariants_hold_in_any_order(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::with_built_releases(4);
        let mut ledger = Ledger::default();
        world.join_agent("a1");
        for step in &steps {
            let before = shares(&world);
            carry_out(&mut world, &mut ledger, step);
            check(&world);
            check_placed(&world, &before);
            check_applications(&world);
            ledger.read(&world);
        }
        // The state is the fold of its events. Reasons stand in the record, not in the event: releases differ in nothing else.
        let folded = fold(&world);
        prop_assert_eq!(&folded.services, &world.state.services);
        prop_assert_eq!(&folded.applications, &world.state.applications);
        prop_assert_eq!(&folded.access, &world.state.access);

        rollouts::end_fairly(&mut world, &mut ledger);
        // Every path ends: left alone, nothing starts or leaves for ever.
        world.pass_ms(40 * DAY_MS);
        world.run_due();
        world.pass_ms(3_600_000);
        world.run_due();
        ledger.read(&world);
        for name in world.stage_names() {
            let stage = world.state.stage(&name).expect("listed");
            prop_assert!(stage.leaving.is_empty(), "{}: {:?}", name, stage);
            prop_assert!(stage.entering.is_none(), "{}: {:?}", name, stage);
            prop_assert!(stage.queued.is_none() && stage.watching.is_none(), "{}: {:?}", name, stage);
        }
    }
}
