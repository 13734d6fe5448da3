//! What becomes of releases, and of what is known of their sources.

use api::{ReleaseName, ReleaseNumber};

use super::Mark;
use crate::core::event::Event;
use crate::core::spec::ServiceSpec;
use crate::core::state::{
    BEGUN_MOST, NotReversible, Registered, Release, ReleaseProgress, Service, State, Trimmed, Wanted,
};

/// For how long it is known when builds began.
const BEGUN_MS: u64 = 86_400_000;

impl State {
    /// A service is as written.
    pub(super) fn service_is(&mut self, spec: &ServiceSpec) -> &mut Service {
        let service = self.services.entry(spec.name.clone()).or_insert_with(|| Service::new(spec.clone()));
        service.spec = spec.clone();
        service
    }

    pub(super) fn evolve_source(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::ServiceRegistered { repository, commit, spec } => {
                let registered = Registered { repository: repository.clone(), commit: commit.clone() };
                self.service_is(spec).registered = Some(registered);
            }
            Event::TagsSeen { service, tags } => {
                if let Some(service) = self.services.get_mut(service) {
                    service.tags_since_ms.get_or_insert(at_ms);
                    for (tag, commit) in tags {
                        service.see_tag(tag, commit);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn evolve_release(&mut self, event: &Event, mark: Mark<'_>) {
        match event {
            Event::ReleaseRequested { release, wanted } => {
                if let Some((service, tag)) = self.services.get_mut(&release.service).zip(wanted.tag.as_ref()) {
                    service.see_tag(tag, &wanted.commit);
                }
                self.insert(release, new(Wanted::clone(wanted), ReleaseProgress::Queued, mark));
            }
            Event::ReleaseAdded { release, version, commit, components, addresses, artifacts, for_environments } => {
                let wanted = Wanted { version: version.clone(), commit: commit.clone(), ..Wanted::default() };
                let mut added = new(wanted, ReleaseProgress::Ready { at_ms: mark.at_ms }, mark);
                added.components = components.clone();
                added.addresses = addresses.clone();
                added.artifacts = artifacts.clone();
                added.for_environments = for_environments.clone();
                self.insert(release, added);
            }
            Event::BuildStarted { release } => {
                if let Some(service) = self.services.get_mut(&release.service) {
                    service.begin(release.number, mark.at_ms);
                }
            }
            Event::ReleaseForgotten { release } => {
                if let Some(service) = self.services.get_mut(&release.service) {
                    service.releases.remove(&release.number);
                }
            }
            Event::ReleaseBuilt { release, .. }
            | Event::ReleaseFailed { release, .. }
            | Event::BuildCancelAsked { release }
            | Event::ReleaseCancelled { release }
            | Event::ReleaseOvertaken { release, .. }
            | Event::ReleaseTrimmed { release, .. }
            | Event::ReleaseMarked { release, .. }
            | Event::ReleaseUnmarked { release } => {
                if let Some(release) = self.release_mut(release) {
                    release.evolve(event, mark);
                }
            }
            _ => {}
        }
    }

    fn insert(&mut self, name: &ReleaseName, release: Release) {
        if let Some(service) = self.services.get_mut(&name.service) {
            service.releases.insert(name.number, release);
            service.newest = service.newest.max(Some(name.number));
        }
    }
}

impl Service {
    /// A tag is for good where it was seen first.
    fn see_tag(&mut self, tag: &str, commit: &str) {
        self.tags.entry(tag.to_owned()).or_insert_with(|| commit.to_owned());
    }

    fn begin(&mut self, number: ReleaseNumber, at_ms: u64) {
        if let Some(release) = self.releases.get_mut(&number) {
            release.progress = ReleaseProgress::Building;
            release.begun_ms = Some(at_ms);
        }
        self.begun.push_back(at_ms);
        while self.begun.len() > BEGUN_MOST || self.begun.front().is_some_and(|begun| begun + BEGUN_MS <= at_ms) {
            self.begun.pop_front();
        }
    }
}

impl Release {
    fn evolve(&mut self, event: &Event, mark: Mark<'_>) {
        let at_ms = mark.at_ms;
        match event {
            Event::ReleaseBuilt { components, artifacts, for_environments, build, checks, kept_from, .. } => {
                self.progress = ReleaseProgress::Ready { at_ms };
                self.components = components.clone();
                self.artifacts = artifacts.clone();
                self.for_environments = for_environments.clone();
                self.build = build.as_deref().cloned();
                self.checks = checks.clone();
                self.kept_from = *kept_from;
            }
            Event::ReleaseFailed { problem, step, exit, checks, .. } => {
                let problem = problem.clone();
                self.progress = ReleaseProgress::Failed { at_ms, problem, step: *step, exit: *exit };
                self.checks = checks.clone();
            }
            Event::BuildCancelAsked { .. } => (self.cancel_asked, self.cancel_by) = (true, mark.by.to_owned()),
            Event::ReleaseCancelled { .. } => {
                // The controller says that it has ended; somebody has asked for that.
                let by = if self.cancel_asked { self.cancel_by.clone() } else { mark.by.to_owned() };
                self.progress = ReleaseProgress::Cancelled { at_ms, by };
            }
            Event::ReleaseOvertaken { by, .. } => self.progress = ReleaseProgress::Overtaken { at_ms, by: *by },
            Event::ReleaseTrimmed { log, artifacts, .. } => {
                self.trimmed.log_ms = self.trimmed.log_ms.or(log.then_some(at_ms));
                self.trimmed.artifacts_ms = self.trimmed.artifacts_ms.or(artifacts.then_some(at_ms));
            }
            Event::ReleaseMarked { reason, .. } => {
                let (reason, by) = (reason.clone(), mark.by.to_owned());
                self.not_reversible = Some(NotReversible { reason, by, at_ms });
            }
            Event::ReleaseUnmarked { .. } => self.not_reversible = None,
            _ => {}
        }
    }
}

fn new(wanted: Wanted, progress: ReleaseProgress, mark: Mark<'_>) -> Release {
    Release {
        wanted,
        progress,
        cancel_asked: false,
        cancel_by: String::new(),
        created_ms: mark.at_ms,
        begun_ms: None,
        by: mark.by.to_owned(),
        reason: mark.reason.to_owned(),
        components: Default::default(),
        build: None,
        artifacts: Default::default(),
        for_environments: Default::default(),
        checks: Vec::new(),
        kept_from: None,
        trimmed: Trimmed::default(),
        addresses: Vec::new(),
        not_reversible: None,
    }
}
