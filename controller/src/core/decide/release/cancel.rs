//! A build that nobody wants any more: cancelled by somebody, or overtaken by a newer commit.

use api::{ReleaseName, ReleaseNumber};

use super::{release, service};
use crate::core::command::{Decision, Refusal};
use crate::core::event::Event;
use crate::core::queue;
use crate::core::state::{ReleaseProgress, State};

/// What waits is cancelled at once; what is being built, as soon as its processes have ended.
pub(in crate::core::decide) fn cancel(state: &State, name: &ReleaseName) -> Result<Decision, Refusal> {
    let found = release(state, name)?;
    let release = name.clone();
    match found.progress {
        ReleaseProgress::Queued => Ok(Decision::one(Event::ReleaseCancelled { release })),
        ReleaseProgress::Building if found.cancel_asked => {
            Ok(Decision::already(format!("{} has cancelled {name} already: its build is ending", found.cancel_by)))
        }
        ReleaseProgress::Building => Ok(Decision::one(Event::BuildCancelAsked { release })),
        ReleaseProgress::Cancelled { .. } => Ok(Decision::already(format!("{name} was cancelled already"))),
        ReleaseProgress::Failed { .. } => Err(over(name, "it failed")),
        ReleaseProgress::Ready { .. } => Err(over(name, "it is ready")),
        ReleaseProgress::Overtaken { by, .. } => Err(over(name, &format!("{by} has overtaken it"))),
    }
}

fn over(name: &ReleaseName, how: &str) -> Refusal {
    Refusal::Refused(format!("{name} is not being built: {how}"))
}

pub(in crate::core::decide) fn overtake(
    state: &State,
    name: &ReleaseName,
    by: ReleaseNumber,
) -> Result<Decision, Refusal> {
    if let ReleaseProgress::Overtaken { by, .. } = release(state, name)?.progress {
        return Ok(Decision::already(format!("{name} was overtaken by {by} already")));
    }
    if queue::overtaker(service(state, &name.service)?, name.number) != Some(by) {
        return Err(Refusal::Refused(format!("{by} does not take the place of {name}")));
    }
    Ok(Decision::one(Event::ReleaseOvertaken { release: name.clone(), by }))
}
