//! What the fleet of proxies should have: all resources, their version, and the way there from an earlier version.
//!
//! A change of one stage touches that stage's resources only, whatever the number of stages.

mod access;
mod certificates;
mod pieces;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use api::fleet::{Challenge, Change, ControllerMessage, Hello, Resource, ResourceKey, ResourceSet};
use api::{EnvironmentName, Fingerprint, ServiceName, StageName, Version};
use prost::Message;

use crate::core::{Event, State, resources};
use crate::fleet::Fleet;
pub(crate) use certificates::{Certificates, secrets_messages};
use pieces::{change_messages, pieces};

/// Changes that are kept for proxies which were away: a thousand small ones are some 100 KB.
const LOG_LENGTH: usize = 1_024;

type Key = (String, String);

/// The resources of now and the latest changes.
pub(crate) struct Publisher {
    version: Version,
    /// When this version came about.
    since: Instant,
    resources: BTreeMap<Key, Resource>,
    fingerprint: Fingerprint,
    log: VecDeque<Arc<Change>>,
    certificates: Certificates,
}

impl Publisher {
    /// Opens the certificates kept in `folder`; publishes nothing before [`Publisher::begin_term`].
    ///
    /// # Errors
    /// A sentence: what is kept there cannot be used.
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        Ok(Self {
            version: Version::default(),
            since: Instant::now(),
            resources: BTreeMap::new(),
            fingerprint: Fingerprint::default(),
            log: VecDeque::new(),
            certificates: Certificates::open(folder)?,
        })
    }

    /// The version of now.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// When the version of now came about.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// What there is of certificates.
    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The same, for whoever brings some.
    pub(crate) fn certificates_mut(&mut self) -> &mut Certificates {
        &mut self.certificates
    }

    /// All secrets that resources of now name.
    pub(crate) fn secrets(&self) -> Vec<(String, Vec<u8>)> {
        self.certificates.secrets_of(self.resources.values())
    }

    /// The version with which proxies got a resource as it is now; none: there is no such.
    pub(crate) fn since_of(&self, kind: &str, name: &str) -> Option<Version> {
        let key = (kind.to_owned(), name.to_owned());
        self.resources.contains_key(&key).then(|| self.certificates.since(&key).unwrap_or(self.version))
    }

    /// Derives everything anew, as the first version of a term.
    pub(super) fn begin_term(&mut self, term: u64, state: &State, environments: &[EnvironmentName]) {
        (self.version, self.since) = (Version::first_of(term), Instant::now());
        self.resources.clear();
        self.fingerprint = Fingerprint::default();
        self.log.clear();
        let mut set = ResourceSet::default();
        for name in environments {
            set.upserts.extend(self.certificates.of_environment(state, name, SystemTime::now()));
        }
        set.upserts.extend(self.certificates.shared(SystemTime::now()));
        set.upserts.extend(access::all(state));
        for name in state.known_stages() {
            set.upserts.extend(self.stage(state, &name));
        }
        self.apply(&set);
    }

    /// Brings the resources that some events touch up to date, as one change, and sends it to all connected proxies.
    pub(super) fn refresh(&mut self, state: &State, events: &[Event], fleet: &Fleet) {
        let mut set = ResourceSet::default();
        for event in events {
            match event {
                Event::EnvironmentApplied { spec } => {
                    self.refresh_environment(state, &spec.name, SystemTime::now(), &mut set);
                    // The host of a stage, by which its endpoints may be verified, is in the zone.
                    for name in state.known_stages().into_iter().filter(|name| name.environment == spec.name) {
                        self.refresh_stage(state, &name, &mut set);
                    }
                }
                Event::ServiceApplied { spec } => self.refresh_service(state, &spec.name, &mut set),
                Event::ServiceRegistered { spec, .. } => self.refresh_service(state, &spec.name, &mut set),
                Event::AccessApplied { .. } => self.refresh_access(state, &mut set),
                Event::ApplicationCreated { name, .. }
                | Event::ApplicationRotated { name, .. }
                | Event::ApplicationKeysEnded { name, .. }
                | Event::ApplicationRevoked { name } => self.refresh_application(state, name, &mut set),
                Event::CertificatesReplaced { environment, .. } => {
                    self.refresh_environment(state, environment, SystemTime::now(), &mut set);
                }
                // What ran on a revoked agent is no endpoint any more, in whatever stage.
                Event::MemberRevoked { .. } => {
                    for name in state.stage_names() {
                        self.refresh_stage(state, &name, &mut set);
                    }
                }
                _ => {}
            }
        }
        let mut stages: Vec<&StageName> = events.iter().filter_map(Event::stage).collect();
        stages.sort();
        stages.dedup();
        for name in stages {
            self.refresh_stage(state, name, &mut set);
        }
        self.publish(set, fleet);
    }

    /// Publishes certificates, lists and shared keys that are others at `now`, as one change.
    pub(super) fn renew(&mut self, state: &State, fleet: &Fleet, now: SystemTime) {
        let mut set = ResourceSet::default();
        for name in state.environments.keys() {
            self.refresh_environment(state, name, now, &mut set);
        }
        let mut asking = state.known_stages();
        asking.retain(|name| certificates::clients_of_stage(state, name).is_some());
        for name in asking {
            self.refresh_stage(state, &name, &mut set);
        }
        set.upserts.extend(self.certificates.shared(now).into_iter().filter(|new| self.is_news(new)));
        self.publish(set, fleet);
    }

    /// Has proxies show that a host is ours. Not on record: it lasts seconds, and a controller that ends meanwhile takes it
    /// back with its next term.
    pub(super) fn show_challenge(&mut self, told: &Challenge, fleet: &Fleet) {
        let upserts = vec![resources::of_challenge(told)];
        self.publish(ResourceSet { upserts, ..ResourceSet::default() }, fleet);
    }

    /// Has proxies take that back.
    pub(super) fn withdraw_challenge(&mut self, kind: &str, host: &str, fleet: &Fleet) {
        let removals = vec![ResourceKey { kind: "challenge".into(), name: format!("{kind}/{host}") }];
        self.publish(ResourceSet { removals, ..ResourceSet::default() }, fleet);
    }

    /// Makes a change the newest version, and sends it to all connected proxies; one that changes nothing is none.
    fn publish(&mut self, set: ResourceSet, fleet: &Fleet) {
        if set.upserts.is_empty() && set.removals.is_empty() {
            return;
        }
        let base = self.version;
        (self.version, self.since) = (base.next(), Instant::now());
        self.apply(&set);
        let change = Arc::new(Change {
            version: Some(self.version.into()),
            base: Some(base.into()),
            set: Some(set),
            fingerprint: self.fingerprint.to_bytes().to_vec(),
        });
        if self.log.len() == LOG_LENGTH {
            self.log.pop_front();
        }
        self.log.push_back(change.clone());
        // Before the change that names them.
        fleet.send_secrets(&self.certificates.secrets_of(change.set.iter().flat_map(|set| &set.upserts)));
        fleet.send_to_all(&change_messages(&change));
        let set = change.set.iter();
        let kinds =
            set.flat_map(|set| set.upserts.iter().map(|one| &one.kind).chain(set.removals.iter().map(|one| &one.kind)));
        if { kinds }.any(|kind| certificates::names_secrets(kind)) {
            self.certificates.forget_all_but(self.resources.values());
        }
    }

    /// What a proxy with this hello needs to have everything.
    pub(crate) fn catch_up(&self, hello: &Hello) -> Vec<ControllerMessage> {
        let have = hello.have.map(Version::from);
        let same = hello.fingerprint == self.fingerprint.to_bytes();
        match have {
            Some(have) if have == self.version && same => Vec::new(),
            // The same bytes under an older name: a controller that started again, say.
            Some(have) if same && have < self.version => self.messages_for(Some(have), ResourceSet::default()),
            Some(have) if self.knows(have) => {
                let after = self.log.iter();
                let is_later =
                    |change: &&Arc<Change>| change.version.is_some_and(|version| Version::from(version) > have);
                let after: Vec<_> = after.filter(is_later).collect();
                let upserts = after.iter().flat_map(|change| &change.set).flat_map(|set| &set.upserts);
                let names_secrets = |resource: &&Resource| certificates::names_secrets(&resource.kind);
                if upserts.filter(names_secrets).any(|resource| self.is_news(resource)) {
                    // What they name may be gone by now, and is given out no more.
                    return self.everything();
                }
                after.into_iter().flat_map(|change| change_messages(change)).collect()
            }
            _ => self.everything(),
        }
    }

    /// The full state, for a proxy that has nothing or refused a change.
    pub(crate) fn everything(&self) -> Vec<ControllerMessage> {
        let set = ResourceSet { upserts: self.resources.values().cloned().collect(), removals: Vec::new() };
        pieces(self.version, None, &set, self.fingerprint)
    }

    /// Whether the changes after `have` are all in the log.
    fn knows(&self, have: Version) -> bool {
        have.term == self.version.term
            && self.log.iter().any(|change| change.base.is_some_and(|base| Version::from(base) == have))
    }

    fn messages_for(&self, base: Option<Version>, set: ResourceSet) -> Vec<ControllerMessage> {
        let change = Change {
            version: Some(self.version.into()),
            base: base.map(Into::into),
            set: Some(set),
            fingerprint: self.fingerprint.to_bytes().to_vec(),
        };
        change_messages(&change)
    }

    fn stage(&self, state: &State, name: &StageName) -> Vec<Resource> {
        self.certificates.with_lists(resources::of_stage(state, name), certificates::clients_of_stage(state, name))
    }

    fn refresh_environment(&mut self, state: &State, name: &EnvironmentName, now: SystemTime, set: &mut ResourceSet) {
        let wanted = self.certificates.of_environment(state, name, now);
        // A zone that moved takes its old name and certificate along, unless another environment has taken it over.
        let taken = |domain: &str| state.environments.values().any(|other| other.zone.as_str() == domain);
        let zones = self.resources.values().filter(|resource| resource.kind == "zone");
        let zones = zones.filter_map(|resource| api::fleet::Zone::decode(&*resource.body).ok());
        let moved = zones.filter(|zone| zone.environment == name.as_str() && !taken(&zone.domain));
        set.removals.extend(moved.map(|zone| ResourceKey { kind: "zone".into(), name: zone.domain }));
        // So are certificates that it does not have any more.
        let prefix = format!("{name}/");
        let present = self.resources.keys().filter(|(kind, of)| kind == "certificate" && of.starts_with(&prefix));
        let gone = present.filter(|(_, of)| !wanted.iter().any(|new| new.kind == "certificate" && new.name == *of));
        set.removals.extend(gone.map(|(kind, name)| ResourceKey { kind: kind.clone(), name: name.clone() }));
        set.upserts.extend(wanted.into_iter().filter(|new| self.is_news(new)));
    }

    fn refresh_service(&self, state: &State, service: &ServiceName, set: &mut ResourceSet) {
        // Also those that its file describes no more.
        let (first, last) = (format!("{service}/"), format!("{service}0")); // '0' follows '/' in ASCII.
        let present = self.resources.range(("stage".to_owned(), first)..("stage".to_owned(), last));
        let mut names: BTreeSet<StageName> = present.filter_map(|((_, name), _)| name.parse().ok()).collect();
        names.extend(state.known_stages().into_iter().filter(|name| name.service == *service));
        for name in names {
            self.refresh_stage(state, &name, set);
        }
    }

    fn refresh_stage(&self, state: &State, name: &StageName, set: &mut ResourceSet) {
        let wanted = self.stage(state, name);
        let (first, last) = (format!("{name}/"), format!("{name}0")); // '0' follows '/' in ASCII.
        let endpoints = self
            .resources
            .range(("endpoints".to_owned(), first)..("endpoints".to_owned(), last))
            .map(|(key, _)| key.clone());
        let own = ["split", "stage"].map(|kind| (kind.to_owned(), name.to_string()));
        let present = endpoints.chain(own.into_iter().filter(|key| self.resources.contains_key(key)));
        let gone = present.filter(|(kind, name)| !wanted.iter().any(|new| new.kind == *kind && new.name == *name));
        set.removals.extend(gone.map(|(kind, name)| ResourceKey { kind, name }));
        set.upserts.extend(wanted.into_iter().filter(|new| self.is_news(new)));
    }

    fn is_news(&self, resource: &Resource) -> bool {
        self.resources.get(&(resource.kind.clone(), resource.name.clone())) != Some(resource)
    }

    fn apply(&mut self, set: &ResourceSet) {
        for key in &set.removals {
            if let Some(old) = self.resources.remove(&(key.kind.clone(), key.name.clone())) {
                self.fingerprint.remove(&old);
            }
        }
        for resource in &set.upserts {
            self.certificates.published(resource, self.version);
            self.fingerprint.add(resource);
            if let Some(old) = self.resources.insert((resource.kind.clone(), resource.name.clone()), resource.clone()) {
                self.fingerprint.remove(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests;
