//! What the controller's own drivers tell: started or not, placed, no longer warm, gone. Told twice, it happens once.

use api::{MemberName, ReleaseNumber, StageName};

use super::{DRAIN_DEADLINE_MS, entering, take_share};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::state::{Leaving, State};

pub(in crate::core::decide) fn enter(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    let Some(entering) =
        entering(state, name).filter(|entering| entering.release == release && entering.starting_until_ms.is_some())
    else {
        return Ok(Decision::default());
    };
    let mut events = vec![Event::Entered { stage: name.clone(), release }];
    events.extend(take_share(state, name, release, entering.share, entering.rollback, context));
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
}

pub(in crate::core::decide) fn fail(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    problem: &str,
    context: &Context,
) -> Result<Decision, Refusal> {
    if entering(state, name).is_none_or(|entering| entering.release != release || entering.starting_until_ms.is_none())
    {
        return Ok(Decision::default());
    }
    let until_ms = context.now_ms + DRAIN_DEADLINE_MS;
    Ok(Decision::one(Event::PromotionFailed { stage: name.clone(), release, problem: problem.to_owned(), until_ms }))
}

pub(in crate::core::decide) fn end_warmth(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    let Some(stage) = state.stage(name) else { return Ok(Decision::default()) };
    let Some(Leaving::Warm { until_ms }) = stage.leaving.get(&release) else { return Ok(Decision::default()) };
    if *until_ms > context.now_ms && !stage.too_many_warm().contains(&release) {
        return Err(Refusal::Refused(format!("{release} is kept warm in {name} for longer")));
    }
    Ok(Decision::one(Event::WarmthEnded { stage: name.clone(), release, until_ms: context.now_ms + DRAIN_DEADLINE_MS }))
}

pub(in crate::core::decide) fn retire(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
) -> Result<Decision, Refusal> {
    match state.stage(name).and_then(|stage| stage.leaving.get(&release)) {
        Some(Leaving::Draining { .. }) => Ok(Decision::one(Event::Retired { stage: name.clone(), release })),
        Some(Leaving::Warm { .. }) | None => Ok(Decision::default()),
    }
}

pub(in crate::core::decide) fn place(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    agent: &MemberName,
    address: std::net::SocketAddr,
) -> Result<Decision, Refusal> {
    let stage = state.stage(name).filter(|stage| stage.running().contains(&release));
    let known =
        stage.is_none_or(|stage| stage.placed.get(&release).and_then(|agents| agents.get(agent)) == Some(&address));
    if known {
        return Ok(Decision::default());
    }
    Ok(Decision::one(Event::Placed { stage: name.clone(), release, agent: agent.clone(), address }))
}
