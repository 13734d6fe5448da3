//! Which build is next, and why one waits. Pure.
//!
//! Must not know: how anything is built, or how heads of branches are found.
//!
//! One build of a service at a time, and so many in all as there are builders. What somebody asked for comes first, oldest first;
//! then tags, oldest first; then the branch, of which the newest commit alone is built: what waits is overtaken. A head that a
//! look has found is asked for when it could begin, or when nothing of its service is under way, so that a hundred commits make
//! two builds and nothing is on record of those between.
//!
//! Main functions: [`next`] and [`waits`]; [`is_asked_for`] and [`made_of`] say what is known of a commit already.

use std::collections::VecDeque;

use api::{ReleaseName, ReleaseNumber, ServiceName};

use super::command::{BuildFailed, Command};
use super::due::Due;
use super::observe::Observations;
use super::state::{Release, ReleaseProgress, Service, State, Trigger, Wanted};

const HOUR_MS: u64 = 3_600_000;

/// Why a release that is asked for is not being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueWait {
    /// Another one of its service is built first.
    Behind(ReleaseName),
    /// As many builds run as there are builders.
    Builders {
        /// How many.
        busy: u32,
    },
    /// As many builds have begun by themselves as the service allows.
    Limit {
        /// Hours that it counts over: 1 or 24.
        hours: u32,
        /// Allowed within them.
        most: u32,
        /// The next one may begin then.
        until_ms: u64,
    },
}

/// Builds to begin, run, end or leave out now, and heads to ask for.
pub fn next(state: &State, seen: &Observations, now_ms: u64) -> Vec<Due> {
    let (mut due, mut idle) = (Vec::new(), Vec::new());
    for (name, service) in &state.services {
        due.extend(under_way(name, service, seen));
        due.extend(overtaken(name, service));
        if is_idle(name, service, seen) {
            idle.extend(fresh_head(name, service, seen).map(|wanted| ask_for(name, wanted)));
        }
    }
    let turns = turns(state, seen, now_ms);
    due.extend(turns.into_iter().take(free(state, seen)).map(|turn| {
        // What waits is of an older commit by now.
        match fresh_head(&turn.release.service, turn.service, seen).filter(|_| turn.is_head) {
            Some(wanted) => ask_for(&turn.release.service, wanted),
            None => Due::Command(Command::BeginBuild { release: turn.release }),
        }
    }));
    due.extend(idle);
    due
}

/// Why a release that is asked for is not being built; none: it is about to be, or it does not wait.
pub fn waits(state: &State, seen: &Observations, release: &ReleaseName, now_ms: u64) -> Option<QueueWait> {
    let service = state.service(&release.service)?;
    let waiting = service.releases.get(&release.number).filter(|found| is_waiting(found))?;
    if let Some(built) = built_now(&release.service, service, seen) {
        return Some(QueueWait::Behind(ReleaseName::new(release.service.clone(), built)));
    }
    let (first, _) = first(service)?;
    if first != release.number {
        let is_about_to_go = overtaker(service, release.number).is_some();
        return (!is_about_to_go).then(|| QueueWait::Behind(ReleaseName::new(release.service.clone(), first)));
    }
    if let Some(limit) = limit(service, waiting, now_ms) {
        return Some(limit);
    }
    let place = turns(state, seen, now_ms).iter().position(|turn| turn.release == *release)?;
    let busy = u32::try_from(busy(state, seen)).unwrap_or(u32::MAX);
    (place >= free(state, seen)).then_some(QueueWait::Builders { busy })
}

/// Whether somebody, or something, has asked for this already: what asks by itself does so once, also for a commit that failed.
/// A tag is asked for apart from its commit, which may have been built before it had one.
pub fn is_asked_for(service: &Service, wanted: &Wanted) -> bool {
    service.releases.values().any(|release| match &wanted.tag {
        Some(tag) => release.wanted.tag.as_ref() == Some(tag),
        // Nobody has built what was overtaken: a branch may go back to it.
        None => {
            release.wanted.commit == wanted.commit && !matches!(release.progress, ReleaseProgress::Overtaken { .. })
        }
    })
}

/// The newest release that is the same as the one wanted: of the same commit, and of the tag or the hot fix if it is to be one;
/// waiting, being built, or built and still there.
pub fn made_of(service: &Service, wanted: &Wanted) -> Option<ReleaseNumber> {
    let is_there = |release: &Release| match release.progress {
        ReleaseProgress::Queued => true,
        ReleaseProgress::Building => !release.cancel_asked,
        // One that was added was made of who knows what.
        ReleaseProgress::Ready { .. } => release.begun_ms.is_some() && release.trimmed.artifacts_ms.is_none(),
        _ => false,
    };
    let is_same = |made: &Wanted| {
        made.commit == wanted.commit
            && (wanted.tag.is_none() || made.tag == wanted.tag)
            && (wanted.hot_fix.is_none() || made.hot_fix == wanted.hot_fix)
    };
    let mut all = service.releases.iter().rev();
    all.find(|(_, release)| is_there(release) && is_same(&release.wanted)).map(|(number, _)| *number)
}

/// Whether it is to be the newest commit of the branch, whichever that is by then.
pub(super) fn is_head(wanted: &Wanted) -> bool {
    matches!(wanted.trigger, Trigger::Commit { .. } | Trigger::Schedule)
}

/// The release of a newer commit of the branch, which takes the place of one that waits.
pub(super) fn overtaker(service: &Service, waiting: ReleaseNumber) -> Option<ReleaseNumber> {
    service.releases.get(&waiting).filter(|release| is_waiting(release) && is_head(&release.wanted))?;
    let mut newer = service.releases.iter().rev().take_while(|(number, _)| **number > waiting);
    newer.find(|(_, newer)| is_head(&newer.wanted)).map(|(number, _)| *number)
}

/// The release of a service that is being built.
pub(super) fn building(service: &Service) -> Option<ReleaseNumber> {
    let mut all = service.releases.iter();
    all.find(|(_, release)| release.progress == ReleaseProgress::Building).map(|(number, _)| *number)
}

fn is_waiting(release: &Release) -> bool {
    release.progress == ReleaseProgress::Queued
}

/// As [`building`], or one whose end is on record and whose builder has not gone yet.
fn built_now(name: &ServiceName, service: &Service, seen: &Observations) -> Option<ReleaseNumber> {
    building(service).or_else(|| seen.building.iter().find(|one| one.service == *name).map(|one| one.number))
}

fn is_idle(name: &ServiceName, service: &Service, seen: &Observations) -> bool {
    service.releases.values().all(|release| release.progress.is_terminal()) && built_now(name, service, seen).is_none()
}

/// What is on record as begun runs, unless somebody wants its end.
fn under_way(name: &ServiceName, service: &Service, seen: &Observations) -> Option<Due> {
    let number = building(service)?;
    let (release, runs) = (ReleaseName::new(name.clone(), number), service.releases.get(&number)?);
    match (seen.building.contains(&release), runs.cancel_asked) {
        (false, false) => Some(Due::Build(release)),
        // Nobody builds it, so that nobody could tell of the end.
        (false, true) => {
            let failed = BuildFailed { problem: "it was cancelled".to_owned(), ..BuildFailed::default() };
            Some(Due::Command(Command::EndBuild { release, outcome: Err(failed) }))
        }
        (true, true) if !seen.ending.contains(&release) => Some(Due::Cancel(release)),
        (true, _) => None,
    }
}

/// What waits for nothing any more.
fn overtaken<'a>(name: &'a ServiceName, service: &'a Service) -> impl Iterator<Item = Due> + 'a {
    let waiting = service.releases.iter().filter(|(_, release)| is_waiting(release)).map(|(number, _)| *number);
    waiting.filter_map(move |number| {
        let (release, by) = (ReleaseName::new(name.clone(), number), overtaker(service, number)?);
        Some(Due::Command(Command::Overtake { release, by }))
    })
}

/// A service whose first release could begin.
struct Turn<'a> {
    release: ReleaseName,
    service: &'a Service,
    is_head: bool,
    /// Since when it waits.
    since_ms: u64,
}

/// Services in the order in which they are built: who waits longest first.
fn turns<'a>(state: &'a State, seen: &Observations, now_ms: u64) -> Vec<Turn<'a>> {
    let of_service = |(name, service): (&'a ServiceName, &'a Service)| {
        if built_now(name, service, seen).is_some() {
            return None;
        }
        let (number, since_ms) = first(service)?;
        let release = service.releases.get(&number)?;
        let is_head = is_head(&release.wanted);
        let release = limit(service, release, now_ms).is_none().then(|| ReleaseName::new(name.clone(), number))?;
        Some(Turn { release, service, is_head, since_ms })
    };
    let mut turns: Vec<_> = state.services.iter().filter_map(of_service).collect();
    turns.sort_by(|one, other| (one.since_ms, &one.release).cmp(&(other.since_ms, &other.release)));
    turns
}

/// The release of a service that is built before all others that wait, and since when its kind waits.
fn first(service: &Service) -> Option<(ReleaseNumber, u64)> {
    let waiting = || service.releases.iter().filter(|(_, release)| is_waiting(release));
    let oldest = |wanted: Trigger| waiting().find(|(_, release)| release.wanted.trigger == wanted);
    if let Some((number, release)) = oldest(Trigger::ByHand).or_else(|| oldest(Trigger::Tag)) {
        return Some((*number, release.created_ms));
    }
    // Whoever is overtaken keeps their place for whom they are overtaken by.
    let (newest, since_ms) = (waiting().next_back()?, waiting().map(|(_, release)| release.created_ms).min()?);
    Some((*newest.0, since_ms))
}

/// Until when a release may not begin, because of those that have.
fn limit(service: &Service, release: &Release, now_ms: u64) -> Option<QueueWait> {
    if release.wanted.trigger == Trigger::ByHand {
        return None;
    }
    let limits = service.spec.trigger.limits;
    let over = |hours: u32, most: Option<std::num::NonZeroU32>| {
        let (most, window_ms) = (most?.get(), u64::from(hours) * HOUR_MS);
        let until_ms = free_at(&service.begun, window_ms, most, now_ms)?;
        Some((until_ms, QueueWait::Limit { hours, most, until_ms }))
    };
    let all = [over(1, limits.hour), over(24, limits.day)];
    all.into_iter().flatten().max_by_key(|(until_ms, _)| *until_ms).map(|(_, wait)| wait)
}

/// When fewer than `most` beginnings lie within the window; none: they do now.
fn free_at(begun: &VecDeque<u64>, window_ms: u64, most: u32, now_ms: u64) -> Option<u64> {
    let ends = begun.iter().map(|begun| begun.saturating_add(window_ms)).filter(|end| *end > now_ms);
    // The oldest first: so many have to end that one less than allowed are left.
    ends.rev().nth(usize::try_from(most).ok()?.checked_sub(1)?)
}

/// A head of the service's branch that nobody has asked for, if its triggers still want one.
fn fresh_head<'s>(name: &ServiceName, service: &Service, seen: &'s Observations) -> Option<&'s Wanted> {
    let wanted = seen.heads.get(name)?;
    let source = service.spec.source.as_ref()?;
    let is_wanted = match &wanted.trigger {
        Trigger::Commit { branch } => service.spec.trigger.commits && *branch == source.branch,
        Trigger::Schedule => service.spec.trigger.schedule.is_some(),
        Trigger::ByHand | Trigger::Tag => false,
    };
    (is_wanted && !is_asked_for(service, wanted)).then_some(wanted)
}

fn ask_for(name: &ServiceName, wanted: &Wanted) -> Due {
    let (service, wanted) = (name.clone(), Box::new(wanted.clone()));
    Due::Command(Command::Build { service, wanted, again: false })
}

/// Builders that have nothing to do.
fn free(state: &State, seen: &Observations) -> usize {
    usize::try_from(state.releases.builders).unwrap_or(usize::MAX).saturating_sub(busy(state, seen))
}

/// Builds that run, or are about to, or whose builder has not gone yet.
fn busy(state: &State, seen: &Observations) -> usize {
    let on_record = state
        .services
        .iter()
        .filter_map(|(name, service)| building(service).map(|number| ReleaseName::new(name.clone(), number)));
    on_record.filter(|release| !seen.building.contains(release)).count() + seen.building.len()
}

#[cfg(test)]
mod tests;
