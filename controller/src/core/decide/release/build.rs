//! A build begins, and ends.

use api::ReleaseName;

use super::{release, service};
use crate::core::command::{BuildFailed, Built, Decision, Refusal};
use crate::core::event::Event;
use crate::core::queue;
use crate::core::state::{ReleaseProgress, State};

pub(in crate::core::decide) fn begin_build(state: &State, name: &ReleaseName) -> Result<Decision, Refusal> {
    match release(state, name)?.progress {
        ReleaseProgress::Queued => match queue::building(service(state, &name.service)?) {
            Some(other) => Err(Refusal::Refused(format!("{other} of {} is being built: one at a time", name.service))),
            None => Ok(Decision::one(Event::BuildStarted { release: name.clone() })),
        },
        // A controller that died in mid-build goes on with it.
        ReleaseProgress::Building => Ok(Decision::already(format!("the build of {name} goes on"))),
        _ => Err(Refusal::Refused(format!("{name} is not waiting for its build any more"))),
    }
}

/// Whatever became of it: a build whose end somebody has asked for made nothing.
pub(in crate::core::decide) fn end_build(
    state: &State,
    name: &ReleaseName,
    outcome: &Result<Built, BuildFailed>,
) -> Result<Decision, Refusal> {
    let found = release(state, name)?;
    match found.progress {
        ReleaseProgress::Building => {}
        ReleaseProgress::Queued => {
            return Err(Refusal::Refused(format!("the build of {name} has not begun")));
        }
        _ => return Ok(Decision::already(format!("the build of {name} has ended already"))),
    }
    if found.cancel_asked {
        return Ok(Decision::one(Event::ReleaseCancelled { release: name.clone() }));
    }
    Ok(Decision::one(match outcome {
        Ok(built) => Event::ReleaseBuilt {
            release: name.clone(),
            components: built.components.clone(),
            artifacts: built.artifacts.clone(),
            for_environments: built.for_environments.clone(),
            build: built.build.clone().map(Box::new),
            checks: built.checks.clone(),
            kept_from: built.kept_from,
        },
        Err(failed) => Event::ReleaseFailed {
            release: name.clone(),
            problem: failed.problem.clone(),
            step: failed.step,
            exit: failed.exit,
            checks: failed.checks.clone(),
        },
    }))
}
