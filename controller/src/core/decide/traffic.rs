//! Who serves how much of a stage: promotion, weight, rollback, and what drivers tell of it on the way.

mod abort;
mod can_start;
mod driven;
mod promote;
mod queue;
mod rollback;

use api::{ReleaseName, ReleaseNumber, Share, StageName};

use super::marks::{Passes, pass};
use super::require_reason;
use super::rollout::{kept_until_ms, lost, watching};
use crate::core::back::held;
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{EnvironmentSpec, Target};
use crate::core::state::{Entering, Phase, Release, Rollout, Stage, State};

pub(super) use abort::abort;
use can_start::can_start;
pub(super) use driven::{end_warmth, enter, fail, place, retire};
pub(super) use promote::Promotion;
pub(super) use queue::{enter_queued, nobody_waits};
pub(super) use rollback::{cancel, go_back_to, rollback};

/// Longest time between a promotion and its release being healthy everywhere: fetching an artifact over a slow line
/// takes minutes; after this somebody has to look anyway.
pub(crate) const START_DEADLINE_MS: u64 = 300_000;

/// Longest time that requests in flight keep a draining release alive (hostile.md: drain 30 s), and half as much again
/// for proxies that learn of it late.
pub(crate) const DRAIN_DEADLINE_MS: u64 = 45_000;

/// Whether the release has to be started before it can serve; refuses when it cannot be.
fn needs_start(
    state: &State,
    name: &StageName,
    (environment, release, stage): (&EnvironmentSpec, &Release, &Stage),
    number: ReleaseNumber,
) -> Result<bool, Refusal> {
    match &environment.target {
        Target::Static if stage.is_warm(number) => Ok(false),
        Target::Static if release.static_addresses(&environment.name).is_empty() => Err(Refusal::Refused(format!(
            "{number} has no addresses in {}: give them with `release add --address {}/COMPONENT=HOST:PORT`",
            environment.name, environment.name
        ))),
        Target::Static => Ok(false),
        Target::Agent { group } if state.agents(group).next().is_none() => Err(Refusal::Refused(format!(
            "no agent of group {group} has joined: `pointsman join agent --group {group} --name NAME` invites one"
        ))),
        Target::Agent { .. } => {
            can_start(&ReleaseName::new(name.service.clone(), number), release, &environment.name)?;
            Ok(!stage.is_warm(number) || state.has_lost(name, number))
        }
    }
}

/// The same by its number alone.
pub(in crate::core) fn must_start(state: &State, name: &StageName, number: ReleaseNumber) -> Result<bool, Refusal> {
    let release = state.release(&ReleaseName::new(name.service.clone(), number));
    let environment = state.environments.get(&name.environment);
    let (Some(release), Some(environment), Some(stage)) = (release, environment, state.stage(name)) else {
        return Err(Refusal::Unknown(format!("there is no release {number} of {}", name.service)));
    };
    needs_start(state, name, (environment, release, stage), number)
}

/// An entering release that can serve now.
pub(super) struct Taking<'a> {
    pub(super) release: ReleaseNumber,
    pub(super) share: Share,
    pub(super) rollback: bool,
    pub(super) rollout: Option<&'a Rollout>,
}

/// What follows once the entering release can serve.
pub(super) fn take_share(state: &State, name: &StageName, taking: &Taking<'_>, context: &Context) -> Vec<Event> {
    let Taking { release, share, rollback, rollout } = *taking;
    let stage = name.clone();
    let stable = state.stage(name).and_then(|stage| stage.stable);
    if let Some(from) = stable.filter(|_| rollback) {
        let warm_until_ms = warm_until_ms(state, name, context);
        return vec![Event::RolledBack { stage, from, to: release, warm_until_ms, bad: true, why: None }];
    }
    if share == Share::ALL {
        let warm_until_ms = kept_until_ms(state, name, rollout, context);
        let watching = rollout.and_then(|rollout| watching(state, name, release, rollout, context));
        return vec![Event::Completed { stage, release, warm_until_ms, watching }];
    }
    match rollout.map(|rollout| rollout.phase) {
        // Without a share of its own: reachable at its own host, or for insiders.
        Some(Phase::BeforeFlip | Phase::Step(_)) if share == Share::NONE => Vec::new(),
        _ => vec![Event::ShareSet { stage, release, share }],
    }
}

/// Until when a release that leaves now is kept warm.
pub(super) fn warm_until_ms(state: &State, name: &StageName, context: &Context) -> u64 {
    context.now_ms + state.keep_warm(name).ms()
}

/// The next number of a rollout in the stage.
pub(super) fn number_after(state: &State, name: &StageName) -> u64 {
    state.stage(name).map_or(0, |stage| stage.rollouts).saturating_add(1)
}

fn entering<'a>(state: &'a State, name: &StageName) -> Option<&'a Entering> {
    state.stage(name)?.entering.as_ref()
}

pub(super) fn known(state: &State, name: &StageName) -> Result<(), Refusal> {
    let declared =
        state.service(&name.service).is_some_and(|service| service.spec.stages.contains_key(&name.environment));
    if declared { Ok(()) } else { Err(Refusal::Unknown(format!("there is no stage {name}"))) }
}

pub(super) fn weigh(state: &State, name: &StageName, share: Share, context: &Context) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let Some(entering) = entering(state, name) else {
        return Err(Refusal::Refused(format!("no release is on its way into {name}: `pointsman promote` lets one in")));
    };
    if entering.rollback {
        return Err(Refusal::Refused(format!("{} is being fetched back into {name} for everything", entering.release)));
    }
    let stable = state.stage(name).and_then(|stage| stage.stable);
    let (number, starts) = (entering.release, entering.starting_until_ms.is_some());
    let over = takes_over(state, name, entering, share);
    if entering.share == share && over.is_none() && (share != Share::ALL || starts) {
        return Ok(Decision::already(format!("{number} has {share} of {name} already")));
    }
    if stable.is_none() && share != Share::ALL {
        return Err(Refusal::Refused(format!(
            "{number} is the first release of {name}: there is nobody else to take the rest"
        )));
    }
    if !starts && share > entering.share && state.has_lost(name, number) {
        return Err(Refusal::Refused(lost(name, number)));
    }
    let passes = further(state, name, entering, share, context)?;
    let way = entering.rollout.as_ref().map(|rollout| by_hand(rollout, over.as_ref()));
    let taking = Taking { release: number, share, rollback: false, rollout: way.as_ref() };
    let mut events: Vec<_> = over.into_iter().collect();
    events.extend(match entering.starting_until_ms {
        Some(_) => vec![Event::ShareSet { stage: name.clone(), release: number, share }],
        None => take_share(state, name, &taking, context),
    });
    Ok(passes.before(Decision { lines: events.iter().map(Event::sentence).collect(), events }))
}

/// What is said before an older release takes more of a stage, where something is marked by now that it leaves behind.
pub(super) fn further(
    state: &State,
    name: &StageName,
    entering: &Entering,
    share: Share,
    context: &Context,
) -> Result<Passes, Refusal> {
    let stable = state.stage(name).and_then(|stage| stage.stable).filter(|_| share > entering.share);
    let Some(stable) = stable.filter(|_| held(state, name, entering).is_some()) else { return Ok(Passes::default()) };
    pass(state, name, &[stable], entering.release, context)
}

/// A rollout that moved by itself, or could not move, becomes one by hand.
fn takes_over(state: &State, name: &StageName, entering: &Entering, share: Share) -> Option<Event> {
    let rollout = entering.rollout.as_ref()?;
    let is_so = match rollout.phase {
        Phase::ByHand => true,
        Phase::AtOnce => share == Share::ALL,
        Phase::BeforeFlip | Phase::Step(_) => false,
    };
    if is_so && rollout.frozen.is_none() {
        return None;
    }
    let number = if rollout.frozen.is_some() { number_after(state, name) } else { rollout.number };
    Some(Event::TakenOver { stage: name.clone(), release: entering.release, rollout: number })
}

/// The rollout as it is once somebody has taken it over.
fn by_hand(rollout: &Rollout, over: Option<&Event>) -> Rollout {
    let number = match over {
        Some(Event::TakenOver { rollout, .. }) => *rollout,
        _ => rollout.number,
    };
    Rollout { number, phase: Phase::ByHand, ..rollout.clone() }
}

pub(super) fn unhold(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    if state.stage(name).is_some_and(|stage| stage.bad.contains(&release)) {
        return Ok(Decision::one(Event::Unheld { stage: name.clone(), release }));
    }
    Ok(Decision::already(format!("{release} is not marked bad in {name}")))
}
