//! Event in, next state out. Never refuses and never asks: what is on record has happened.

mod application;
mod marks;
mod rollout;
mod stage;

use api::{Digest, ReleaseName, Scope, StageName};

use super::event::Event;
use super::state::{
    Brought, Member, MemberProgress, NotReversible, Override, Release, ReleaseProgress, Service, Stage, State, Token,
};

/// Who, when and why an event happened.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// Its place among all events, from 1.
    pub seq: u64,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Token name, or "controller".
    pub by: &'a str,
    /// May be empty.
    pub reason: &'a str,
    /// Id of the request that asked for it; may be empty.
    pub request: &'a str,
}

/// Enough that a client which repeats itself for minutes is recognised at a thousand changes a minute.
const REQUESTS_KEPT: usize = 4_096;

impl State {
    /// Takes in one event.
    pub fn evolve(&mut self, event: &Event, mark: Mark<'_>) {
        if !mark.request.is_empty() && self.requests.back().is_none_or(|(last, _)| last != mark.request) {
            self.requests.push_back((mark.request.to_owned(), mark.seq));
            if self.requests.len() > REQUESTS_KEPT {
                self.requests.pop_front();
            }
        }
        match event {
            Event::Started { term } => self.term = *term,
            Event::EnvironmentApplied { spec } => {
                self.environments.insert(spec.name.clone(), spec.clone());
            }
            Event::ServiceApplied { spec } => match self.services.get_mut(&spec.name) {
                Some(service) => service.spec = spec.clone(),
                None => {
                    let service =
                        Service { spec: spec.clone(), releases: Default::default(), stages: Default::default() };
                    self.services.insert(spec.name.clone(), service);
                }
            },
            Event::AccessApplied { spec } => self.access = spec.clone(),
            Event::ApplicationCreated { .. }
            | Event::ApplicationRotated { .. }
            | Event::ApplicationKeysEnded { .. }
            | Event::ApplicationRevoked { .. } => self.evolve_application(event, mark),
            Event::CertificatesReplaced { environment, key, certificates, .. } => {
                let brought = Brought { source: key.clone(), certificates: certificates.clone() };
                self.certificates.insert(environment.clone(), brought);
            }
            Event::MemberInvited { .. }
            | Event::MemberJoined { .. }
            | Event::MemberRenewed { .. }
            | Event::MemberRevoked { .. } => self.evolve_member(event, mark.at_ms),
            Event::TokenCreated { name, secret, scope } => {
                self.tokens.insert(name.clone(), token(Some(*secret), None, scope, mark));
            }
            Event::OperatorCertified { name, serial, scope } => {
                self.tokens.insert(name.clone(), token(None, Some(serial.clone()), scope, mark));
            }
            Event::TokenRevoked { name } => {
                self.tokens.entry(name.clone()).and_modify(|token| token.revoked = true);
            }
            Event::OverrideTold { proxy, stage, release, until_ms } => {
                let Some(member) = self.members.get_mut(proxy) else { return };
                match *release {
                    Some(release) => member.overrides.insert(stage.clone(), Override { release, until_ms: *until_ms }),
                    None => member.overrides.remove(stage),
                };
            }
            Event::ReleaseRequested { .. }
            | Event::ReleaseAdded { .. }
            | Event::BuildStarted { .. }
            | Event::ReleaseBuilt { .. }
            | Event::ReleaseFailed { .. }
            | Event::ReleaseMarked { .. }
            | Event::ReleaseUnmarked { .. } => {
                self.evolve_release(event, mark);
            }
            _ => {
                if let Some(stage) = event.stage().and_then(|name| self.stage_mut(name)) {
                    stage.evolve(event, mark.at_ms);
                }
            }
        }
    }

    fn stage_mut(&mut self, name: &StageName) -> Option<&mut Stage> {
        Some(self.services.get_mut(&name.service)?.stages.entry(name.environment.clone()).or_default())
    }

    fn release_mut(&mut self, name: &ReleaseName) -> Option<&mut Release> {
        self.services.get_mut(&name.service)?.releases.get_mut(&name.number)
    }

    fn evolve_release(&mut self, event: &Event, mark: Mark<'_>) {
        let new = |version: &str, commit: &str, subject: &str, progress| Release {
            version: version.to_owned(),
            commit: commit.to_owned(),
            subject: subject.to_owned(),
            progress,
            created_ms: mark.at_ms,
            by: mark.by.to_owned(),
            reason: mark.reason.to_owned(),
            components: Default::default(),
            artifacts: Default::default(),
            addresses: Vec::new(),
            not_reversible: None,
        };
        match event {
            Event::ReleaseRequested { release, version, commit, subject } => {
                if let Some(service) = self.services.get_mut(&release.service) {
                    service.releases.insert(release.number, new(version, commit, subject, ReleaseProgress::Queued));
                }
            }
            Event::ReleaseAdded { release, version, commit, components, addresses } => {
                if let Some(service) = self.services.get_mut(&release.service) {
                    let mut added = new(version, commit, "", ReleaseProgress::Ready { at_ms: mark.at_ms });
                    added.components = components.clone();
                    added.addresses = addresses.clone();
                    service.releases.insert(release.number, added);
                }
            }
            Event::BuildStarted { release } => {
                if let Some(release) = self.release_mut(release) {
                    release.progress = ReleaseProgress::Building;
                }
            }
            Event::ReleaseBuilt { release, components, artifacts } => {
                if let Some(release) = self.release_mut(release) {
                    release.progress = ReleaseProgress::Ready { at_ms: mark.at_ms };
                    release.components = components.clone();
                    release.artifacts = artifacts.clone();
                }
            }
            Event::ReleaseFailed { release, problem } => {
                if let Some(release) = self.release_mut(release) {
                    release.progress = ReleaseProgress::Failed { at_ms: mark.at_ms, problem: problem.clone() };
                }
            }
            Event::ReleaseMarked { release, reason } => {
                if let Some(release) = self.release_mut(release) {
                    let (reason, by) = (reason.clone(), mark.by.to_owned());
                    release.not_reversible = Some(NotReversible { reason, by, at_ms: mark.at_ms });
                }
            }
            Event::ReleaseUnmarked { release } => {
                if let Some(release) = self.release_mut(release) {
                    release.not_reversible = None;
                }
            }
            _ => {}
        }
    }

    fn evolve_member(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::MemberInvited { name, role, group, secret, until_ms } => {
                let progress = MemberProgress::Invited { secret: *secret, until_ms: *until_ms };
                self.members.insert(
                    name.clone(),
                    Member { role: *role, group: group.clone(), progress, overrides: Default::default() },
                );
            }
            Event::MemberJoined { name, serial } => {
                let progress = MemberProgress::Joined { serial: serial.clone(), before: None, since_ms: at_ms };
                self.members.entry(name.clone()).and_modify(|member| member.progress = progress);
            }
            Event::MemberRenewed { name, used, serial } => {
                let before = Some(used.clone());
                let progress = MemberProgress::Joined { serial: serial.clone(), before, since_ms: at_ms };
                self.members.entry(name.clone()).and_modify(|member| member.progress = progress);
            }
            Event::MemberRevoked { name } => {
                self.members.entry(name.clone()).and_modify(|member| member.progress = MemberProgress::Revoked);
                // An agent that joins again under its name is placed anew, which tells the proxies.
                let stages = self.services.values_mut().flat_map(|service| service.stages.values_mut());
                for placed in stages.flat_map(|stage| stage.placed.values_mut()) {
                    placed.remove(name);
                }
            }
            _ => {}
        }
    }
}

fn token(secret: Option<Digest>, certificate: Option<String>, scope: &Scope, mark: Mark<'_>) -> Token {
    let (created_ms, by) = (mark.at_ms, mark.by.to_owned());
    Token { secret, certificate, scope: scope.clone(), created_ms, by, revoked: false }
}
