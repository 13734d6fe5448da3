//! The release that waited for the end of another's rollout enters, or is dropped.

use api::{ReleaseName, ReleaseNumber, StageName};

use super::Promotion;
use crate::core::command::{Command, Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::state::State;

/// What somebody decided, and the end of the wait with it: who takes a release back, or out, wants what serves to stay, so that
/// what waited does not enter either.
pub(in crate::core::decide) fn nobody_waits(state: &State, command: &Command, mut decision: Decision) -> Decision {
    let (name, word) = match command {
        Command::Rollback { stage, .. } => (stage, "a rollback"),
        Command::AbortRollout { stage, .. } => (stage, "an abort"),
        _ => return decision,
    };
    let Some(queued) = state.stage(name).and_then(|stage| stage.queued.as_ref()) else { return decision };
    let release = queued.release;
    let because = format!("after {word} what serves stays");
    let dropped = Event::Dropped { stage: name.clone(), release, because };
    let StageName { service, environment } = name;
    let again = format!("`pointsman promote {service}@{release} --to {environment}` lets it in");
    decision.lines.push(format!("{}; {again}", dropped.sentence()));
    decision.events.push(dropped);
    decision
}

/// What ends the wait of a release for another one, for whoever promoted it.
pub(in crate::core::decide) fn ends_of_wait(name: &StageName, busy: ReleaseNumber, is_entering: bool) -> String {
    if is_entering {
        return format!(
            "it enters when the rollout of {busy} has ended: `pointsman rollout watch {name}` shows how far that is, \
             `pointsman rollout weight {name} 100%` completes it, `pointsman rollout abort {name}` ends both"
        );
    }
    format!(
        "it enters when {busy} has passed its time after the flip: `pointsman rollout skip {name}` ends that time, \
         `pointsman rollout abort {name}` the wait"
    )
}

/// It enters by the rules of this moment; when these refuse it, that is on record.
pub(in crate::core::decide) fn enter_queued(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    let stage = state.stage(name).filter(|stage| stage.busy().is_none());
    let Some(queued) = stage.and_then(|stage| stage.queued.as_ref()).filter(|queued| queued.release == release) else {
        return Ok(Decision::default());
    };
    let promotion = Promotion {
        state,
        context,
        release: &ReleaseName::new(name.service.clone(), release),
        environment: &name.environment,
        share: queued.share,
        bypass: queued.bypass,
        was_queued: true,
    };
    let because = match promotion.decide() {
        Ok(decision) if !decision.events.is_empty() => return Ok(decision),
        Ok(decision) => decision.lines.join("; "),
        Err(refusal) => refusal.to_string(),
    };
    Ok(Decision::one(Event::Dropped { stage: name.clone(), release, because }))
}
