//! What nobody needs any more goes: on record first, then on disk.

use api::ReleaseName;

use super::release;
use crate::core::command::{Decision, Refusal};
use crate::core::event::Event;
use crate::core::keep;
use crate::core::state::State;

pub(in crate::core::decide) fn trim(
    state: &State,
    name: &ReleaseName,
    log: bool,
    artifacts: bool,
) -> Result<Decision, Refusal> {
    let found = release(state, name)?;
    needed(state, name)?;
    let log = log && found.trimmed.log_ms.is_none();
    let artifacts = artifacts && found.trimmed.artifacts_ms.is_none();
    if !log && !artifacts {
        return Ok(Decision::already(format!("that of {name} was removed already")));
    }
    Ok(Decision::one(Event::ReleaseTrimmed { release: name.clone(), log, artifacts }))
}

/// Its log and artifacts go before it does.
pub(in crate::core::decide) fn forget(state: &State, name: &ReleaseName) -> Result<Decision, Refusal> {
    let found = release(state, name)?;
    needed(state, name)?;
    if keep::is_told_of(state, name) {
        return Err(Refusal::Refused(format!("{name} is still asked about: it stays listed")));
    }
    if keep::has_log(found) || keep::has_artifacts(state, found) {
        return Err(Refusal::Refused(format!("the log and the artifacts of {name} have to go first")));
    }
    Ok(Decision::one(Event::ReleaseForgotten { release: name.clone() }))
}

fn needed(state: &State, name: &ReleaseName) -> Result<(), Refusal> {
    match keep::need(state, name) {
        None => Ok(()),
        Some(why) => Err(Refusal::Refused(format!("{name} is needed: {why}"))),
    }
}
