//! Somebody, or something, wants a commit to be built.

use std::collections::BTreeSet;

use api::{ReleaseName, ReleaseNumber, ServiceName};

use super::{next, release, service};
use crate::core::command::{Decision, Refusal};
use crate::core::event::{Event, short};
use crate::core::queue;
use crate::core::state::{CommitNamed, Overtook, ReleaseProgress, Service, State, Trigger, Wanted};

/// Commits that a release names as overtaken; more are counted.
const OVERTOOK_MOST: usize = 100;

/// A commit is asked for. What is there already answers for it, unless somebody wants it `again`.
pub(in crate::core::decide) fn request(
    state: &State,
    name: &ServiceName,
    wanted: &Wanted,
    again: bool,
) -> Result<Decision, Refusal> {
    let service = service(state, name)?;
    if service.spec.source.is_none() {
        return Err(Refusal::Refused(format!(
            "{name} has no `source` in its pointsman.toml: name its repository, or use `release add`"
        )));
    }
    tag_stays(service, wanted)?;
    if let Some(of) = wanted.hot_fix.as_ref().map(|hot_fix| hot_fix.of) {
        release(state, &ReleaseName::new(name.clone(), of))?;
    }
    if let Some(made) = queue::made_of(service, wanted).filter(|_| !again) {
        return Ok(Decision::already(is_already(name, service, made, wanted)));
    }
    if wanted.trigger != Trigger::ByHand && queue::is_asked_for(service, wanted) && !again {
        return Ok(Decision::already(format!("{} was asked for before", short(&wanted.commit))));
    }
    let release = ReleaseName::new(name.clone(), next(service));
    Ok(Decision::one(Event::ReleaseRequested { release, wanted: Box::new(overtaking(service, wanted)) }))
}

/// The commit of a release that came to nothing is asked for once more, by somebody.
pub(in crate::core::decide) fn retry(state: &State, name: &ReleaseName) -> Result<Decision, Refusal> {
    let before = release(state, name)?;
    let commit = short(&before.wanted.commit);
    let problem = match before.progress {
        ReleaseProgress::Failed { .. } | ReleaseProgress::Cancelled { .. } => None,
        ReleaseProgress::Queued => Some("waits for its build".to_owned()),
        ReleaseProgress::Building => Some("is being built".to_owned()),
        ReleaseProgress::Ready { .. } if before.begun_ms.is_none() => Some("was added, not built".to_owned()),
        ReleaseProgress::Ready { .. } => Some(format!(
            "was built: `release build {} --commit {commit} --again` builds its commit once more",
            name.service
        )),
        ReleaseProgress::Overtaken { by, .. } => Some(format!(
            "was overtaken by {by}: `release build {} --commit {commit}` builds its commit all the same",
            name.service
        )),
    };
    if let Some(problem) = problem {
        return Err(Refusal::Refused(format!(
            "{name} {problem}; a release that failed or was cancelled can be retried"
        )));
    }
    let wanted = Wanted {
        trigger: Trigger::ByHand,
        retry_of: Some(name.number),
        // What it overtook stays with it.
        overtook: Overtook::default(),
        ..before.wanted.clone()
    };
    request(state, &name.service, &wanted, false)
}

/// A tag means what it meant when it was seen first.
fn tag_stays(service: &Service, wanted: &Wanted) -> Result<(), Refusal> {
    let Some(tag) = &wanted.tag else { return Ok(()) };
    match service.tags.get(tag).filter(|first| **first != wanted.commit) {
        None => Ok(()),
        Some(first) => Err(Refusal::Refused(format!(
            "tag {tag} was at {} when it was first seen and is at {} now: a tag must not move; make a new one",
            short(first),
            short(&wanted.commit)
        ))),
    }
}

fn is_already(name: &ServiceName, service: &Service, made: ReleaseNumber, wanted: &Wanted) -> String {
    let how = match service.releases.get(&made).map(|release| &release.progress) {
        Some(ReleaseProgress::Queued) => ", which waits for its build",
        Some(ReleaseProgress::Building) => ", which is being built",
        _ => "",
    };
    let commit = short(&wanted.commit);
    format!("{commit} is {name}@{made} already{how}: --again builds it once more")
}

/// A head takes the place of those that wait for their build, and names their commits as its own overtaken ones.
fn overtaking(service: &Service, wanted: &Wanted) -> Wanted {
    let mut wanted = wanted.clone();
    if !queue::is_head(&wanted) {
        return wanted;
    }
    // One that waits longer was overtaken by that one, which names its commits.
    let waiting = service.releases.values().rev().filter(|release| release.progress == ReleaseProgress::Queued);
    let Some(Wanted { commit, subject, overtook, .. }) =
        { waiting }.map(|release| &release.wanted).find(|waiting| queue::is_head(waiting))
    else {
        return wanted;
    };
    let mut known: BTreeSet<String> = wanted.overtook.commits.iter().map(|commit| commit.id.clone()).collect();
    known.insert(wanted.commit.clone());
    let own = CommitNamed { id: commit.clone(), subject: subject.clone() };
    let all = std::iter::once(&own).chain(&overtook.commits);
    wanted.overtook.commits.extend(all.filter(|commit| known.insert(commit.id.clone())).cloned());
    wanted.overtook.more = wanted.overtook.more.saturating_add(overtook.more);
    wanted.overtook.rewritten |= overtook.rewritten;
    let excess = wanted.overtook.commits.len().saturating_sub(OVERTOOK_MOST);
    wanted.overtook.more = wanted.overtook.more.saturating_add(u32::try_from(excess).unwrap_or(u32::MAX));
    wanted.overtook.commits.truncate(OVERTOOK_MOST);
    wanted
}
