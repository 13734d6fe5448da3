//! What the controller's own drivers tell: started or not, placed, no longer warm, gone. Told twice, it happens once.

use api::{MemberName, ReleaseNumber, StageName};

use super::{DRAIN_DEADLINE_MS, Taking, entering, take_share};
use crate::core::back::{held, named};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::rollout::end_watch;
use crate::core::event::Event;
use crate::core::state::{Leaving, State, WatchEnd};

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
    if let Some(mark) = held(state, name, entering) {
        // The mark came while it started: nobody has agreed to go past it.
        let problem =
            format!("it is behind {}: `--past {}` lets it in", named(std::slice::from_ref(&mark)), mark.release);
        return fail(state, name, release, &problem, context);
    }
    let mut events = vec![Event::Entered { stage: name.clone(), release }];
    let (share, rollback) = (entering.share, entering.rollback);
    let taking = Taking { release, share, rollback, rollout: entering.rollout.as_ref() };
    events.extend(take_share(state, name, &taking, context));
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
    // A watch that would flip back to it ends first: usually that was seen before, with what the watch saw.
    let watching = stage.watching.as_ref().filter(|watching| watching.before == release && watching.until_ms.is_some());
    let ended = watching.map(|watching| end_watch(name, watching, None, WatchEnd::WarmthEnded, context));
    let until_ms = context.now_ms + DRAIN_DEADLINE_MS;
    let cold = Event::WarmthEnded { stage: name.clone(), release, until_ms };
    let events: Vec<_> = ended.into_iter().chain([cold]).collect();
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
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
