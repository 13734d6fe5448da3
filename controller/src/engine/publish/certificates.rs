//! Certificates, shared keys and lists of revoked certificates as proxies are told of them: what is public in resources,
//! what is secret sealed for each proxy.
//!
//! Must not know: where certificates come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use api::fleet::controller_message::Kind;
use api::fleet::{self, ControllerMessage, Resource, Secret, Secrets};
use api::{EnvironmentName, Host, StageName, Version};
use certs::development::{DevelopmentCa, Material};
use certs::secret::{key_id, seal, ticket_id};
use prost::Message;
use tracing::warn;

use super::Key;
use crate::certificates::{Shelf, Standing, names};
use crate::core::decide::is_within;
use crate::core::spec::{CertificateSource, ClientCertificates};
use crate::core::{State, resources};
use crate::keys::{self, Keys};

/// Secrets of one message: some 130 KB.
const SECRETS_TOGETHER: usize = 500;

/// See the module.
pub(crate) struct Certificates {
    development: DevelopmentCa,
    pub(crate) shelf: Shelf,
    tickets: Keys,
    assertion: Keys,
    explain: Keys,
    /// What resources of now name, by id.
    secrets: BTreeMap<String, Vec<u8>>,
    /// With which version a certificate became as it is.
    since: BTreeMap<Key, Version>,
    /// How the sources stand that are looked after, and the files of lists that could not be read.
    standings: BTreeMap<EnvironmentName, (String, Standing)>,
    list_problems: BTreeMap<String, String>,
}

impl Certificates {
    /// Opens what is kept in `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        Ok(Self {
            development: DevelopmentCa::open_or_create(folder).map_err(|problem| problem.to_string())?,
            shelf: Shelf::open(&folder.join("certificates"))?,
            tickets: Keys::open(folder, keys::TICKETS)?,
            assertion: Keys::open(folder, keys::ASSERTION)?,
            explain: Keys::open(folder, keys::EXPLAIN)?,
            secrets: BTreeMap::new(),
            since: BTreeMap::new(),
            standings: BTreeMap::new(),
            list_problems: BTreeMap::new(),
        })
    }

    /// How an environment's source stands; one that it had before does not count.
    pub(crate) fn standing(&self, name: &EnvironmentName, source: &CertificateSource) -> Standing {
        let known = self.standings.get(name).filter(|(of, _)| *of == source.key());
        known.map(|(_, standing)| standing.clone()).unwrap_or_default()
    }

    /// A source was asked.
    pub(crate) fn stands(&mut self, name: EnvironmentName, source: String, standing: Standing) {
        self.standings.insert(name, (source, standing));
    }

    /// A file of lists was read, or could not be.
    pub(crate) fn list_stands(&mut self, path: String, problem: Option<String>) {
        match problem {
            Some(problem) => drop(self.list_problems.insert(path, problem)),
            None => drop(self.list_problems.remove(&path)),
        }
    }

    /// Files of lists that could not be read, and why.
    pub(crate) fn list_problems(&self) -> impl Iterator<Item = (&String, &String)> {
        self.list_problems.iter()
    }

    /// The development CA's certificate, for clients.
    pub(crate) fn authority_pem(&self) -> String {
        self.development.certificate_pem()
    }

    /// Makes a new development certificate for a zone, whatever there is.
    pub(crate) fn renew_development(&self, zone: &Host, now: SystemTime) -> Result<Material, String> {
        self.development.renew(zone, now).map_err(|problem| problem.to_string())
    }

    /// Forgets lists, and their problems, that nothing names any more.
    pub(crate) fn drop_lists(&mut self, gone: &BTreeSet<String>) {
        self.shelf.drop_lists(gone);
        self.list_problems.retain(|path, _| !gone.contains(path));
    }

    /// What an environment's source has brought, as far as it counts: for names that lie in its zone, and with an authority
    /// only for those that are asked of it.
    pub(crate) fn own(&self, state: &State, name: &EnvironmentName) -> Vec<Material> {
        let Some(environment) = state.environments.get(name) else { return Vec::new() };
        let source = &environment.certificates;
        let mut own = within(self.shelf.of(name, &source.key()), &environment.zone);
        if let CertificateSource::Acme(_) = source {
            let asked = names(state, environment);
            own.retain(|material| asked.contains(&material.dns_names));
        }
        own
    }

    /// The certificates that an environment is served with at `now`; the first is the zone's default.
    ///
    /// Those of its source. Until that has brought one for the whole zone, the one that the source before brought, or the
    /// wildcard of the development authority: a name that nobody knows gets one as well.
    pub(crate) fn served(&self, state: &State, name: &EnvironmentName, now: SystemTime) -> Vec<Material> {
        let Some(environment) = state.environments.get(name) else { return Vec::new() };
        let source = &environment.certificates;
        let wildcard = format!("*.{}", environment.zone);
        let is_whole = |material: &Material| material.dns_names.contains(&wildcard);
        let mut served = self.own(state, name);
        if let Some(place) = served.iter().position(is_whole) {
            served.swap(0, place);
            return served;
        }
        // Files and imports are what the operator wants served, whatever they name.
        if !served.is_empty() && !matches!(source, CertificateSource::Acme(_)) {
            return served;
        }
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_good = |material: &Material| is_whole(material) && material.expires_s > now_s;
        let before = within(self.shelf.last(name), &environment.zone).into_iter().find(is_good);
        let before = before.filter(|_| *source != CertificateSource::Development);
        match before.map_or_else(|| self.development.wildcard(&environment.zone, now), Ok) {
            Ok(material) => served.insert(0, material),
            Err(problem) => warn!(zone = %environment.zone, %problem, "no certificate for the zone"),
        }
        served
    }

    /// The zone of an environment and its certificates.
    pub(super) fn of_environment(&mut self, state: &State, name: &EnvironmentName, now: SystemTime) -> Vec<Resource> {
        let Some(environment) = state.environments.get(name) else { return Vec::new() };
        let clients = environment.client_certificates.as_ref();
        let mut found = self.with_lists(resources::of_environment(state, name), clients);
        for (place, material) in self.served(state, name, now).into_iter().enumerate() {
            let id = material.chain_der.first().map(|leaf| key_id(leaf));
            let Some(Ok(id)) = id else {
                warn!(environment = %name, "a certificate that is kept cannot be read");
                continue;
            };
            let zone = if place == 0 { environment.zone.as_str() } else { "" };
            found.push(resources::of_certificate(&material, name, zone));
            self.secrets.insert(id, material.key_der);
        }
        found
    }

    /// The names of the keys that the whole fleet shares at `now`; they are rotated when they have to be.
    pub(super) fn shared(&mut self, now: SystemTime) -> Vec<Resource> {
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let all = [
            ("of session tickets", &mut self.tickets),
            ("of assertions", &mut self.assertion),
            ("of ids of denials", &mut self.explain),
        ];
        for (what, keys) in all {
            if let Err(problem) = keys.rotate(now_s) {
                warn!(problem, "the keys {what} stay as they are");
            }
        }
        let secret = |id: fn(&keys::Key) -> String| move |key: &keys::Key| (id(key), key.key.clone());
        self.secrets.extend(self.tickets.keys().iter().map(secret(|key| ticket_id(&key.name))));
        self.secrets.extend(self.assertion.keys().iter().map(secret(|key| assertion_id(&key.id()))));
        self.secrets.extend(self.explain.current().map(secret(|key| explain_id(&key.name))));
        let told = [
            self.tickets.tickets().map(|told| resources::of_tickets(&told)),
            self.assertion.assertion().map(|told| resources::access::of_assertion(&told)),
            self.explain.explain().map(|told| resources::access::of_explain(&told)),
        ];
        told.into_iter().flatten().collect()
    }

    /// The keys of assertions.
    pub(crate) fn assertion(&self) -> &Keys {
        &self.assertion
    }

    /// The keys of ids of denials.
    pub(crate) fn explain(&self) -> &Keys {
        &self.explain
    }

    /// Puts lists of revoked certificates where clients' certificates are asked for.
    ///
    /// Without the list that an operator named nobody's certificate counts: no authority is told, and proxies refuse that.
    pub(super) fn with_lists(&self, mut found: Vec<Resource>, clients: Option<&ClientCertificates>) -> Vec<Resource> {
        let Some(path) = clients.and_then(|clients| clients.crl_file.as_deref()) else { return found };
        let lists = self.shelf.lists(path);
        let fill = |told: &mut Option<fleet::ClientCertificates>| {
            if let Some(told) = told {
                match lists {
                    Some(lists) => told.crl_der = lists.to_vec(),
                    None => told.ca_der.clear(),
                }
            }
        };
        for resource in &mut found {
            match resource.kind.as_str() {
                "zone" => {
                    resource.body = filled(resource, |zone: &mut fleet::Zone| fill(&mut zone.client_certificates))
                }
                "stage" => {
                    resource.body = filled(resource, |stage: &mut fleet::Stage| fill(&mut stage.client_certificates));
                }
                _ => {}
            }
        }
        found
    }

    /// A resource is published as it is from this version on.
    pub(super) fn published(&mut self, resource: &Resource, version: Version) {
        if resource.kind == "certificate" {
            self.since.insert((resource.kind.clone(), resource.name.clone()), version);
        }
    }

    pub(super) fn since(&self, key: &Key) -> Option<Version> {
        self.since.get(key).copied()
    }

    /// Forgets secrets that none of these resources names.
    pub(super) fn forget_all_but<'a>(&mut self, named: impl Iterator<Item = &'a Resource>) {
        // Nearly every change is one of traffic, and leaves them as they are.
        let seldom = named.filter(|resource| names_secrets(&resource.kind));
        let used: BTreeSet<String> = seldom.flat_map(ids).collect();
        self.secrets.retain(|id, _| used.contains(id));
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn secret_count(&self) -> usize {
        self.secrets.len()
    }

    /// Secrets that these resources name.
    pub(crate) fn secrets_of<'a>(&self, named: impl Iterator<Item = &'a Resource>) -> Vec<(String, Vec<u8>)> {
        let ids = named.flat_map(ids);
        ids.filter_map(|id| self.secrets.get(&id).map(|secret| (id, secret.clone()))).collect()
    }
}

/// Certificates with those of their names that lie in a zone; the others belong to somebody else.
fn within(materials: &[Material], zone: &Host) -> Vec<Material> {
    let mut found = materials.to_vec();
    found.iter_mut().for_each(|material| material.dns_names.retain(|name| is_within(name, zone)));
    found.retain(|material| !material.dns_names.is_empty());
    found
}

/// Whether resources of a kind may name secrets.
pub(super) fn names_secrets(kind: &str) -> bool {
    matches!(kind, "certificate" | "tickets" | "assertion" | "explain")
}

/// The id of a key by which assertions are signed.
fn assertion_id(id: &str) -> String {
    format!("assertion/{id}")
}

/// The id of a key by which ids of denials are sealed.
fn explain_id(name: &[u8]) -> String {
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("explain/{hex}")
}

/// Secrets that a resource names.
fn ids(resource: &Resource) -> Vec<String> {
    match resource.kind.as_str() {
        "certificate" => {
            let told = fleet::Certificate::decode(&*resource.body).unwrap_or_default();
            told.chain_der.first().and_then(|leaf| key_id(leaf).ok()).into_iter().collect()
        }
        "assertion" => {
            let told = fleet::Assertion::decode(&*resource.body).unwrap_or_default();
            told.keys.iter().map(|key| assertion_id(&key.id)).collect()
        }
        "explain" => {
            let told = fleet::Explain::decode(&*resource.body).unwrap_or_default();
            vec![explain_id(&told.current)]
        }
        "tickets" => {
            let told = fleet::Tickets::decode(&*resource.body).unwrap_or_default();
            std::iter::once(&told.current).chain(&told.accepted).map(|name| ticket_id(name)).collect()
        }
        _ => Vec::new(),
    }
}

fn filled<M: Message + Default>(resource: &Resource, change: impl FnOnce(&mut M)) -> bytes::Bytes {
    let mut message = M::decode(&*resource.body).unwrap_or_default();
    change(&mut message);
    message.encode_to_vec().into()
}

/// What clients of a single stage are asked for.
pub(super) fn clients_of_stage<'a>(state: &'a State, name: &StageName) -> Option<&'a ClientCertificates> {
    state.service(&name.service)?.spec.stages.get(&name.environment)?.client_certificates.as_ref()
}

/// Secrets sealed for one proxy, as messages. A proxy of an earlier version has no key to seal for and gets none.
pub(crate) fn secrets_messages(secrets: &[(String, Vec<u8>)], seal_key: &[u8]) -> Vec<ControllerMessage> {
    if seal_key.is_empty() {
        return Vec::new();
    }
    let sealed = secrets.iter().filter_map(|(id, secret)| {
        seal(id, secret, seal_key).map_err(|problem| warn!(%problem, "a secret could not be sealed")).ok()
    });
    let sealed: Vec<Secret> = sealed.collect();
    let message = |some: &[Secret]| ControllerMessage { kind: Some(Kind::Secrets(Secrets { secrets: some.to_vec() })) };
    sealed.chunks(SECRETS_TOGETHER).map(message).collect()
}
