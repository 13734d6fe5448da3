//! Which repositories are looked at, and what for (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use api::{MemberName, ReleaseNumber, ServiceName};

use crate::core::spec::{GitCredentials, POLL, ReleasesSpec, RepositorySpec, Source, TriggerSpec};
use crate::core::state::{ReleaseProgress, Service, State};

/// A repository that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    /// Time between two looks.
    pub(super) poll: Duration,
    /// Services that are built from it by themselves.
    pub(super) services: BTreeMap<ServiceName, Wants>,
    /// As the operator listed it, by name: its services register themselves.
    pub(super) repositories: BTreeMap<MemberName, RepositorySpec>,
}

/// What a service asks of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) source: Source,
    pub(super) trigger: TriggerSpec,
}

/// How a service stands to commits that were seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// A build of it runs.
    pub(super) is_building: bool,
    /// Which ended last, and when: another answer means that one ended meanwhile.
    pub(super) ended: Option<(u64, ReleaseNumber)>,
    /// The commit of the newest release whose build has begun, but for hot fixes: what comes after it was skipped.
    pub(super) base: Option<String>,
    /// Tags on record, each with the commit that it named when it was first seen.
    pub(super) tags: BTreeMap<String, String>,
    /// Tags that were there before anybody looked are on record.
    pub(super) has_looked: bool,
}

/// All repositories, by URL.
pub(super) fn all(state: &State) -> BTreeMap<String, Watched> {
    let poll = || POLL.duration();
    let none = || Watched { poll: Duration::MAX, services: BTreeMap::new(), repositories: BTreeMap::new() };
    let mut all = BTreeMap::new();
    for (name, repository) in &state.releases.repositories {
        let one = all.entry(repository.url.clone()).or_insert_with(none);
        one.poll = one.poll.min(poll());
        one.repositories.insert(name.clone(), repository.clone());
    }
    for (name, service) in &state.services {
        let Some(source) = service.spec.source.clone().filter(|_| service.spec.trigger.is_any()) else { continue };
        let trigger = service.spec.trigger.clone();
        let one = all.entry(source.repository.clone()).or_insert_with(none);
        one.poll = one.poll.min(trigger.poll.duration());
        one.services.insert(name.clone(), Wants { source, trigger });
    }
    all
}

/// Who we are to servers of repositories, by URL.
pub(super) fn credentials(spec: &ReleasesSpec) -> BTreeMap<String, GitCredentials> {
    let of = |one: &RepositorySpec| Some((one.url.clone(), one.credentials.clone()?));
    spec.repositories.values().filter_map(of).collect()
}

// === impl Standing ===

impl Standing {
    pub(super) fn of(service: &Service) -> Self {
        let ended = service.releases.iter().filter_map(|(number, release)| match &release.progress {
            ReleaseProgress::Ready { at_ms }
            | ReleaseProgress::Failed { at_ms, .. }
            | ReleaseProgress::Cancelled { at_ms, .. } => Some((*at_ms, *number)),
            // Neither is the end of a build.
            ReleaseProgress::Queued | ReleaseProgress::Building | ReleaseProgress::Overtaken { .. } => None,
        });
        let base = service.releases.values().rev().find(|release| {
            let has_begun = matches!(
                release.progress,
                ReleaseProgress::Building | ReleaseProgress::Ready { .. } | ReleaseProgress::Failed { .. }
            );
            has_begun && release.wanted.hot_fix.is_none() && !release.wanted.commit.is_empty()
        });
        Self {
            is_building: service.releases.values().any(|release| release.progress == ReleaseProgress::Building),
            ended: ended.max(),
            base: base.map(|release| release.wanted.commit.clone()),
            tags: service.tags.clone(),
            has_looked: service.tags_since_ms.is_some(),
        }
    }
}

/// Whether a release of this commit was asked for, however it ended: asked for once is asked for.
pub(super) fn is_asked(service: &Service, commit: &str) -> bool {
    service.releases.values().any(|release| release.wanted.commit == commit)
}
