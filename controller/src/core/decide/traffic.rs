//! Who serves how much of a stage: promotion, weight, rollback, and what drivers tell of it on the way.

mod driven;
mod promote;
mod rollback;

use api::{MemberName, ReleaseNumber, Share, StageName};

use super::require_reason;
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{EnvironmentSpec, Target};
use crate::core::state::{Entering, Release, Stage, State};

pub(super) use driven::{end_warmth, enter, fail, place, retire};
pub(super) use promote::Promotion;
pub(super) use rollback::rollback;

/// Longest time between a promotion and its release being healthy everywhere: fetching an artifact over a slow line
/// takes minutes; after this somebody has to look anyway.
pub(crate) const START_DEADLINE_MS: u64 = 300_000;

/// Longest time that requests in flight keep a draining release alive (hostile.md: drain 30 s), and half as much again
/// for proxies that learn of it late.
pub(crate) const DRAIN_DEADLINE_MS: u64 = 45_000;

/// Whether the release has to be started before it can serve; refuses when it cannot be.
fn needs_start(
    state: &State,
    environment: &EnvironmentSpec,
    release: &Release,
    stage: &Stage,
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
        Target::Agent { .. } if !release.can_run() => Err(Refusal::Refused(format!(
            "{number} has nothing that an agent could run in {}: its routed component needs `run` and an artifact, which \
             `release build` makes",
            environment.name
        ))),
        Target::Agent { group } => Ok(!(stage.is_warm(number) && runs(state, group, stage, number))),
    }
}

/// Whether an agent of the fleet runs the release: those that did may all have been revoked.
fn runs(state: &State, group: &MemberName, stage: &Stage, number: ReleaseNumber) -> bool {
    let placed = stage.placed.get(&number);
    state.agents(group).any(|agent| placed.is_some_and(|placed| placed.contains_key(agent)))
}

/// What follows once the entering release can serve.
fn take_share(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    share: Share,
    rollback: bool,
    context: &Context,
) -> Vec<Event> {
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    let stable = state.stage(name).and_then(|stage| stage.stable);
    match stable.filter(|_| rollback) {
        Some(from) => vec![Event::RolledBack { stage: name.clone(), from, to: release, warm_until_ms, bad: true }],
        None if share == Share::ALL => vec![Event::Completed { stage: name.clone(), release, warm_until_ms }],
        None => vec![Event::ShareSet { stage: name.clone(), release, share }],
    }
}

fn entering<'a>(state: &'a State, name: &StageName) -> Option<&'a Entering> {
    state.stage(name)?.entering.as_ref()
}

fn known(state: &State, name: &StageName) -> Result<(), Refusal> {
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
    if entering.share == share && share != Share::ALL {
        return Ok(Decision::already(format!("{} has {share} of {name} already", entering.release)));
    }
    let stable = state.stage(name).and_then(|stage| stage.stable);
    if stable.is_none() && share != Share::ALL {
        return Err(Refusal::Refused(format!(
            "{} is the first release of {name}: there is nobody else to take the rest",
            entering.release
        )));
    }
    let (number, starts) = (entering.release, entering.starting_until_ms.is_some());
    let group = state.environments.get(&name.environment).and_then(|environment| environment.group());
    let lost = state.stage(name).zip(group).is_some_and(|(stage, group)| !runs(state, group, stage, number));
    if lost && !starts && share > entering.share {
        return Err(Refusal::Refused(format!(
            "{number} runs on no agent of {name} any more: wait until it does, or `pointsman rollback {name}`"
        )));
    }
    let events = match entering.starting_until_ms {
        Some(_) => vec![Event::ShareSet { stage: name.clone(), release: entering.release, share }],
        None => take_share(state, name, entering.release, share, false, context),
    };
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
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
