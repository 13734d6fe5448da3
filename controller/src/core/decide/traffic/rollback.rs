//! Everything back to an earlier release: at once while it is warm.

use api::{ReleaseName, ReleaseNumber, Share, StageName};

use super::{DRAIN_DEADLINE_MS, START_DEADLINE_MS, known, needs_start};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::require_reason;
use crate::core::event::Event;
use crate::core::state::{Entering, Stage, State};

pub(in crate::core::decide) fn rollback(
    state: &State,
    name: &StageName,
    to: Option<ReleaseNumber>,
    context: &Context,
) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let nothing = || Refusal::Refused(format!("nothing serves in {name} yet"));
    let stage = state.stage(name).ok_or_else(nothing)?;
    if to.is_none()
        && stage.entering.is_none()
        && let Some(last) = stage.rolled_back
    {
        // A second rollback, perhaps by a second person, never goes one further back by itself.
        return Ok(Decision::already(format!(
            "{name} was rolled back from {} to {} already; to go further back name the release: --to rN",
            last.from, last.to
        )));
    }
    if let Some(entering) =
        stage.entering.as_ref().filter(|entering| entering.rollback && to.is_none_or(|to| to == entering.release))
    {
        return Ok(Decision::already(format!("{} is being fetched back into {name} already", entering.release)));
    }
    let none = || Refusal::Refused(format!("there is no earlier release in {name} to go back to"));
    let target = to.or_else(|| stage.rollback_target()).ok_or_else(none)?;
    if state.release(&ReleaseName::new(name.service.clone(), target)).is_none() {
        return Err(Refusal::Unknown(format!("there is no release {target} of {}", name.service)));
    }
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    if let Some(entering) = &stage.entering {
        if entering.release == target {
            return Err(Refusal::Refused(format!(
                "{target} is on its way into {name}; a rollback goes to a release that served before"
            )));
        }
        let stable = stage
            .stable
            .ok_or_else(|| Refusal::Refused(format!("{} is the first release of {name}", entering.release)))?;
        if stable == target {
            return Ok(cancel(name, entering, stable, warm_until_ms, context));
        }
        return Err(Refusal::Refused(format!(
            "{} is on its way into {name}: roll back to {stable} first",
            entering.release
        )));
    }
    let stable = stage.stable.ok_or_else(nothing)?;
    if stable == target {
        return Ok(Decision::already(format!("{target} serves all of {name} already")));
    }
    back_to(state, name, stage, stable, target, context)
}

/// Takes the entering release out again. One that has not started serves nowhere, so that it cannot be kept warm.
fn cancel(
    name: &StageName,
    entering: &Entering,
    stable: ReleaseNumber,
    warm_until_ms: u64,
    context: &Context,
) -> Decision {
    let (stage, from, now_ms) = (name.clone(), entering.release, context.now_ms);
    let started = entering.starting_until_ms.is_none();
    let (warm_until_ms, bad) = (if started { warm_until_ms } else { now_ms }, started && !entering.rollback);
    let back = Event::RolledBack { stage: stage.clone(), from, to: stable, warm_until_ms, bad };
    let lines = vec![back.sentence()];
    let mut events = vec![back];
    if !started {
        events.push(Event::WarmthEnded { stage, release: from, until_ms: now_ms + DRAIN_DEADLINE_MS });
    }
    Decision { events, lines }
}

/// Back to a release that is not stable now: at once when it is warm, else after it has started.
fn back_to(
    state: &State,
    name: &StageName,
    stage: &Stage,
    from: ReleaseNumber,
    to: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    if !stage.past.contains(&to) {
        return Err(Refusal::Refused(format!("{to} never served all of {name}: `pointsman promote` lets it in")));
    }
    if stage.bad.contains(&to) {
        return Err(Refusal::Refused(format!(
            "{to} is marked bad in {name}: `pointsman unhold {name} {to}` takes the mark away"
        )));
    }
    let release = state.release(&ReleaseName::new(name.service.clone(), to));
    let environment = state.environments.get(&name.environment);
    let (Some(release), Some(environment)) = (release, environment) else {
        return Err(Refusal::Unknown(format!("there is no release {to} of {}", name.service)));
    };
    if needs_start(state, environment, release, stage, to)? {
        let event = Event::Promoted {
            stage: name.clone(),
            release: to,
            share: Share::ALL,
            starting_until_ms: Some(context.now_ms + START_DEADLINE_MS),
            rollback: true,
            bypass: false,
        };
        let line = format!("{to} is no longer warm in {name}: it has to start first; {from} serves until then");
        return Ok(Decision { events: vec![event], lines: vec![line] });
    }
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    Ok(Decision::one(Event::RolledBack { stage: name.clone(), from, to, warm_until_ms, bad: true }))
}
