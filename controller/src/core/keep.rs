//! What nobody needs any more. Pure.
//!
//! Must not know: files, registries. It says which releases lose their log, their artifacts, or their place in the list;
//! `retention` does it after it is on record.
//!
//! Main functions: [`trim`], which says what may go now, and [`need`], which says why a release may not.

use std::collections::{BTreeMap, BTreeSet};

use api::{Digest, EnvironmentName, ReleaseName, ReleaseNumber, ServiceName};

use super::command::Command;
use super::queue;
use super::state::{ArtifactKind, Release, ReleaseProgress, Service, Stage, State};

/// Commands at a time: what traffic asks for comes in between.
const AT_ONCE: usize = 100;

/// What may go now, at most 100 commands: [`Command::Trim`] and [`Command::Forget`].
pub fn trim(state: &State, now_ms: u64) -> Vec<Command> {
    let all = state.services.iter().flat_map(|(name, service)| of_service(state, name, service, now_ms));
    all.take(AT_ONCE).collect()
}

/// Whether somebody needs a release, or may: it serves, may be rolled back to, is being built, is the newest one...
pub fn is_needed(state: &State, release: &ReleaseName) -> bool {
    need(state, release).is_some()
}

/// Why somebody needs a release, or may: part of a sentence; `None` when nobody does.
pub fn need(state: &State, release: &ReleaseName) -> Option<String> {
    let service = state.service(&release.service)?;
    needs(service, state.releases.keep.back).remove(&release.number)
}

/// Digests of artifacts that some release still has.
pub fn digests(state: &State) -> BTreeSet<Digest> {
    let releases = state.services.values().flat_map(|service| service.releases.values());
    releases.filter(|release| release.trimmed.artifacts_ms.is_none()).flat_map(|release| release.digests()).collect()
}

/// Whether a release still says something about others: it is marked, or it is the last that the branch asked for.
pub(super) fn is_told_of(state: &State, name: &ReleaseName) -> bool {
    let Some(service) = state.service(&name.service) else { return false };
    let marked = service.releases.get(&name.number).is_some_and(|release| release.not_reversible.is_some());
    marked || newest_head(service) == Some(name.number)
}

/// Whether its build left a log that is still there.
pub(super) fn has_log(release: &Release) -> bool {
    release.begun_ms.is_some() && release.trimmed.log_ms.is_none()
}

/// Whether it has artifacts that retention would remove: images are the registry's.
pub(super) fn has_artifacts(state: &State, release: &Release) -> bool {
    let is_ours = |kind| kind == ArtifactKind::Folder || state.releases.keep.in_registry;
    release.trimmed.artifacts_ms.is_none() && release.all_artifacts().any(|(_, _, artifact)| is_ours(artifact.kind))
}

/// Without it nobody would know that its commit was asked for.
fn newest_head(service: &Service) -> Option<ReleaseNumber> {
    let mut newest = service.releases.iter().rev();
    newest.find(|(_, release)| queue::is_head(&release.wanted)).map(|(number, _)| *number)
}

fn of_service(state: &State, name: &ServiceName, service: &Service, now_ms: u64) -> Vec<Command> {
    let keep = state.releases.keep;
    let needed = needs(service, keep.back);
    let count = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
    let (mut commands, mut with_artifacts) = (Vec::new(), 0);
    for (place, (number, release)) in service.releases.iter().rev().enumerate() {
        let (has_log, has_artifacts) = (has_log(release), has_artifacts(state, release));
        with_artifacts += usize::from(has_artifacts);
        if needed.contains_key(number) {
            continue;
        }
        let one = ReleaseName::new(name.clone(), *number);
        let is_one_too_many = place >= count(keep.releases) && !is_told_of(state, &one);
        let is_old = ended_ms(release).is_some_and(|at_ms| at_ms.saturating_add(keep.logs.ms()) <= now_ms);
        let log = has_log && (is_old || is_one_too_many);
        let artifacts = has_artifacts && (with_artifacts > count(keep.artifacts) || is_one_too_many);
        if log || artifacts {
            commands.push(Command::Trim { release: one, log, artifacts });
        } else if is_one_too_many {
            commands.push(Command::Forget { release: one });
        }
    }
    // The oldest first.
    commands.reverse();
    commands
}

fn ended_ms(release: &Release) -> Option<u64> {
    match release.progress {
        ReleaseProgress::Queued | ReleaseProgress::Building => None,
        ReleaseProgress::Ready { at_ms }
        | ReleaseProgress::Failed { at_ms, .. }
        | ReleaseProgress::Cancelled { at_ms, .. }
        | ReleaseProgress::Overtaken { at_ms, .. } => Some(at_ms),
    }
}

/// Every release of a service that is needed, with why.
fn needs(service: &Service, back: u32) -> BTreeMap<ReleaseNumber, String> {
    let mut needs = BTreeMap::new();
    let mut note = |number: ReleaseNumber, why: String| {
        needs.entry(number).or_insert(why);
    };
    for (environment, stage) in &service.stages {
        of_stage(environment, stage, back, &mut note);
    }
    for (number, release) in service.releases.iter().filter(|(_, release)| !release.progress.is_terminal()) {
        note(*number, "it is not built yet".to_owned());
        if let Some(hot_fix) = &release.wanted.hot_fix {
            note(hot_fix.of, format!("{number} is to mend it"));
        }
        if let Some(before) = release.wanted.retry_of {
            note(before, format!("{number} is another attempt at it"));
        }
    }
    let newest = service.releases.iter().rev().find(|(_, release)| release.is_ready());
    if let Some((number, _)) = newest {
        note(*number, "it is the newest that is ready".to_owned());
    }
    needs
}

fn of_stage(environment: &EnvironmentName, stage: &Stage, back: u32, note: &mut impl FnMut(ReleaseNumber, String)) {
    if let Some(entering) = &stage.entering {
        note(entering.release, format!("it is on its way into {environment}"));
    }
    for number in stage.running() {
        note(number, format!("it runs in {environment}"));
    }
    if let Some(queued) = &stage.queued {
        note(queued.release, format!("it waits for its way into {environment}"));
    }
    if let Some(watching) = &stage.watching {
        note(watching.release, format!("it is watched in {environment}"));
    }
    let to = stage.past.iter().rev().filter(|number| Some(**number) != stage.stable && !stage.bad.contains(number));
    let most = usize::try_from(back).unwrap_or(usize::MAX);
    for number in to.take(most).copied().chain(stage.rollback_target()) {
        note(number, format!("{environment} can be rolled back to it"));
    }
}

#[cfg(test)]
mod tests;
