//! Everything back to an earlier release: at once while it is warm.

use api::{ReleaseName, ReleaseNumber, Share, StageName};

use super::{DRAIN_DEADLINE_MS, START_DEADLINE_MS, known, must_start, warm_until_ms};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::marks::pass;
use crate::core::decide::require_reason;
use crate::core::event::Event;
use crate::core::state::{Entering, Stage, State, Why};

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
            let bad = entering.starting_until_ms.is_none() && !entering.rollback && !entering.waited;
            let passes = pass(state, name, &[entering.release], stable, context)?;
            let mut decision = passes.before(cancel(state, name, entering, stable, bad, None, context));
            if entering.waited {
                decision.lines.push(format!(
                    "{} had waited for another's rollout and has not moved since it entered: it is not marked bad",
                    entering.release
                ));
            }
            return Ok(decision);
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
    go_back_to(state, name, stage, (stable, target), None, context)
}

/// Takes the entering release out again. One that has not started serves nowhere, so that it cannot be kept warm.
pub(in crate::core::decide) fn cancel(
    state: &State,
    name: &StageName,
    entering: &Entering,
    stable: ReleaseNumber,
    bad: bool,
    why: Option<Why>,
    context: &Context,
) -> Decision {
    let (stage, from, now_ms) = (name.clone(), entering.release, context.now_ms);
    if entering.rollback {
        // Nobody left: what serves was to be left, and now is not.
        let problem = format!("it is not fetched back any more, {stable} goes on serving");
        let until_ms = now_ms + DRAIN_DEADLINE_MS;
        return Decision::one(Event::PromotionFailed { stage, release: from, problem, until_ms });
    }
    let started = entering.starting_until_ms.is_none();
    let warm_until_ms = if started { warm_until_ms(state, name, context) } else { now_ms };
    let why = why.map(Box::new);
    let back = Event::RolledBack { stage: stage.clone(), from, to: stable, warm_until_ms, bad, why };
    let lines = vec![back.sentence()];
    let mut events = vec![back];
    if !started {
        events.push(Event::WarmthEnded { stage, release: from, until_ms: now_ms + DRAIN_DEADLINE_MS });
    }
    Decision { events, lines }
}

/// Back to a release that is not stable now: at once when it is warm, else after it has started.
pub(in crate::core::decide) fn go_back_to(
    state: &State,
    name: &StageName,
    stage: &Stage,
    (from, to): (ReleaseNumber, ReleaseNumber),
    why: Option<Why>,
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
    let must_start = must_start(state, name, to)?;
    let passes = pass(state, name, &[from], to, context)?;
    if must_start {
        let event = Event::Promoted {
            stage: name.clone(),
            release: to,
            share: Share::ALL,
            starting_until_ms: Some(context.now_ms + START_DEADLINE_MS),
            rollback: true,
            bypass: false,
            rollout: None,
            past: passes.past(context),
        };
        let takes = stage.start_takes(to);
        let line = format!("{to} is no longer warm in {name}: it needs {takes}; {from} serves until then");
        return Ok(passes.before(Decision { events: vec![event], lines: vec![line] }));
    }
    let (warm_until_ms, why) = (warm_until_ms(state, name, context), why.map(Box::new));
    let back = Event::RolledBack { stage: name.clone(), from, to, warm_until_ms, bad: true, why };
    Ok(passes.before(Decision::one(back)))
}
