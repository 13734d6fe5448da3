//! Event in, next state out. Never refuses and never asks: what is on record has happened.

mod application;
mod marks;
mod release;
mod rollout;
mod stage;

use api::{Digest, ReleaseName, Scope, StageName};

use super::event::Event;
use super::spec::ReleasesSpec;
use super::state::{Brought, Member, MemberProgress, Override, Release, Stage, State, Token};

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
            Event::ServiceApplied { spec } => self.service_is(spec).registered = None,
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
            Event::ReleasesApplied { spec } => self.releases = ReleasesSpec::clone(spec),
            Event::ServiceRegistered { .. } | Event::TagsSeen { .. } => self.evolve_source(event, mark.at_ms),
            Event::ReleaseRequested { .. }
            | Event::ReleaseAdded { .. }
            | Event::BuildStarted { .. }
            | Event::ReleaseBuilt { .. }
            | Event::ReleaseFailed { .. }
            | Event::BuildCancelAsked { .. }
            | Event::ReleaseCancelled { .. }
            | Event::ReleaseOvertaken { .. }
            | Event::ReleaseTrimmed { .. }
            | Event::ReleaseForgotten { .. }
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
