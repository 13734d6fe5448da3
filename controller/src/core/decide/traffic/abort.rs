//! The entering release goes out again because somebody says so.

use api::StageName;

use super::{DRAIN_DEADLINE_MS, cancel, entering, known};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::marks::pass;
use crate::core::decide::require_reason;
use crate::core::event::Event;
use crate::core::state::State;

/// As a rollback, but only of what is entering, and with a mark only when it froze because it was worse, or `bad` says so.
pub(in crate::core::decide) fn abort(
    state: &State,
    name: &StageName,
    bad: bool,
    context: &Context,
) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let Some(entering) = entering(state, name) else {
        if state.stage(name).is_some_and(|stage| stage.queued.is_some()) {
            // Blue-green, after the flip: what waits for the end of the watch is all that can go.
            return Ok(Decision::default());
        }
        return Err(Refusal::Refused(format!(
            "no release is on its way into {name}: `pointsman rollback {name}` goes back to the one before"
        )));
    };
    let Some(stable) = state.stage(name).and_then(|stage| stage.stable) else {
        // The first release of a stage, which has not started: nothing serves, before and afterwards.
        let (stage, release, until_ms) = (name.clone(), entering.release, context.now_ms + DRAIN_DEADLINE_MS);
        let problem = "it was aborted".to_owned();
        return Ok(Decision::one(Event::PromotionFailed { stage, release, problem, until_ms }));
    };
    let passes = pass(state, name, &[entering.release], stable, context)?;
    let was_worse = entering.rollout.as_ref().is_some_and(|rollout| rollout.frozen.is_some());
    Ok(passes.before(cancel(state, name, entering, stable, bad || was_worse, None, context)))
}
