//! Resources to a snapshot: whole or not at all, every problem at once, and only what changed is done again.
//!
//! Must not know: where changes come from, who reads the snapshot, what time it is.
//!
//! Main type: [`Compiler`]. A change is first prepared against what is applied, which may fail and alters nothing that
//! anyone can see, and then committed, which cannot fail.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::fleet::{self, Rejection};
use api::{Fingerprint, Version};
use certs::client::Clients;
use certs::endpoint::Authorities;
use certs::public::Public;
use certs::resolver::Certified;
use policies::credential::denial;
use policies::verdict::Rule;

use super::apply::Incoming;
use super::challenges::Challenges;
use super::check::{self, Problems};
use super::clients::ClientsBoard;
use super::gate::{self, GateBoard, IssuersTold};
use super::guard;
use super::placing;
use super::resources::{Delta, Kind, Raw, Resources};
use super::shown::{self, Changed, Shown};
use super::slots::Slots;
use super::tls::TlsBoard;
use super::zones::{self, ZoneMeant};
use super::{Backend, Endpoint, Protocol, Services, Snapshot, Stage, Zone};
use crate::health::{Check, Health, HealthBoard};
use crate::keyring::{Keyring, Opened};

/// What is applied, and what is needed to apply the next change cheaply.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    resources: Resources,
    snapshot: Arc<Snapshot>,
    keyring: Keyring,
    shown: Shown,
    /// Release that takes everything, by stage; kept also while it cannot be followed.
    overrides: HashMap<Arc<str>, u32>,
    slots: Slots,
    generation: u64,
    health: HealthBoard,
    tls: TlsBoard,
    clients: ClientsBoard,
    gate: GateBoard,
    zones: Arc<[ZoneMeant]>,
}

/// What a commit gives.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) changed: Changed,
    /// For the journal.
    pub(crate) delta: Delta,
    pub(crate) fingerprint: Fingerprint,
    /// Secrets that nothing names any more.
    pub(crate) forgotten: Vec<Arc<str>>,
    /// Secrets that are named and lost: only in what was taken over.
    pub(crate) missing: Vec<Rejection>,
    /// Everybody whose tokens count; `None`: as before.
    pub(crate) issuers: Option<IssuersTold>,
}

/// Where a state comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// The controller: it can send what is missing.
    Controller,
    /// The last run: what serves is better than nothing.
    LastRun,
}

/// A change that was found good.
#[derive(Debug)]
struct Prepared {
    version: Version,
    delta: Delta,
    stages: Vec<(Arc<str>, Option<Arc<Stage>>)>,
    /// All of them, when any changed.
    zones: Option<Vec<ZoneMeant>>,
    /// The same.
    challenges: Option<Challenges>,
    shown: shown::Change,
    gate: gate::Change,
    missing: Vec<Rejection>,
}

impl Compiler {
    /// Nothing applied. `machine`: who is believed where a backend does not say; the default is nobody. `public`: what
    /// handshakes share.
    pub(crate) fn new(machine: Authorities, public: Arc<Public>) -> Self {
        Self { tls: TlsBoard::new(machine), clients: ClientsBoard::new(public), ..Self::default() }
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn resources(&self) -> &Resources {
        &self.resources
    }

    /// Every health that the snapshot names, once each; all others are forgotten.
    #[expect(clippy::mutable_key_type, reason = "what changes within TLS settings is neither compared nor hashed")]
    pub(crate) fn healths(&mut self) -> Vec<Arc<Health>> {
        let stages = self.snapshot.stages();
        let endpoints = stages.flat_map(|stage| &stage.backends).flat_map(|backend| &backend.endpoints);
        // One address may serve several stages.
        let named: HashMap<&Check, &Arc<Health>> =
            endpoints.map(|endpoint| (&endpoint.health.check, &endpoint.health)).collect();
        let named: Vec<Arc<Health>> = named.into_values().cloned().collect();
        self.health.keep(&named);
        named
    }

    /// Applies a change that was received, or says everything that is wrong with it and leaves all as it was.
    pub(crate) fn apply(&mut self, incoming: Incoming) -> Result<Compiled, Vec<Rejection>> {
        let prepared = self.prepare(incoming, From::Controller)?;
        Ok(self.commit(prepared))
    }

    /// Applies the state of the last run. Secrets that are lost are no reason not to serve all else.
    pub(crate) fn take_over(&mut self, incoming: Incoming) -> Result<Compiled, Vec<Rejection>> {
        let prepared = self.prepare(incoming, From::LastRun)?;
        Ok(self.commit(prepared))
    }

    /// Takes over secrets; gives those that are new, as they came, and how many found no room.
    pub(crate) fn take_secrets(&mut self, opened: Vec<Opened>) -> (Vec<fleet::Secret>, usize) {
        self.keyring.take(opened)
    }

    /// Whether every secret is here that the applied state names.
    pub(crate) fn is_whole(&self) -> bool {
        self.shown.is_whole() && self.gate.is_whole()
    }

    /// The applied state once more, with secrets that came since; `None`: nothing was missing.
    pub(crate) fn mend(&mut self) -> Option<Compiled> {
        let version = self.snapshot.version.filter(|_| !self.is_whole())?;
        let (delta, mut list, mut missing) = (Delta::default(), Vec::new(), Vec::new());
        let shown = self.shown.prepare(&delta, &self.resources, &self.keyring, (&mut list, &mut missing));
        let gate = self.gate.prepare(&delta, &self.resources, &self.keyring, (&mut list, &mut missing));
        let stages = Vec::new();
        Some(self.commit(Prepared { version, delta, stages, zones: None, challenges: None, shown, gate, missing }))
    }

    /// All certificates that are shown, with the names of their resources.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&Arc<str>, &Certified)> {
        self.shown.certificates()
    }

    /// Checks a change against what is applied and compiles what it touches.
    fn prepare(&mut self, incoming: Incoming, from: From) -> Result<Prepared, Vec<Rejection>> {
        self.check_order(&incoming).map_err(|reason| vec![whole("version", reason)])?;
        let mut delta = Delta::read(incoming.set)?;
        if incoming.base.is_none() {
            delta = self.resources.difference_to(delta);
        }
        let (mut rejections, mut missing) = (Vec::new(), Vec::new());
        check_each(&delta, &mut rejections);
        let shown = self.shown.prepare(&delta, &self.resources, &self.keyring, (&mut rejections, &mut missing));
        let gate = self.gate.prepare(&delta, &self.resources, &self.keyring, (&mut rejections, &mut missing));
        if from == From::Controller {
            rejections.append(&mut missing);
        }
        let stages = self.compile_stages(&delta, &mut rejections);
        let zones = zones::prepare(&self.zones, &delta, &mut self.clients, &mut rejections);
        let challenges = self.snapshot.challenges.prepare(&delta, &self.resources, &mut rejections);
        if self.resources.fingerprint_after(&delta).to_bytes() != incoming.fingerprint[..] && rejections.is_empty() {
            rejections.push(whole("fingerprint", "differs from what this proxy would hold after the change".into()));
        }
        if !rejections.is_empty() {
            // What was compiled in vain has taken places.
            stages
                .iter()
                .for_each(|(name, _)| self.slots.keep(name, self.snapshot.stage_named(name).map(|stage| &**stage)));
            rejections.sort_by(|a, b| (&a.resource, &a.field).cmp(&(&b.resource, &b.field)));
            rejections.dedup();
            return Err(rejections);
        }
        Ok(Prepared { version: incoming.version, delta, stages, zones, challenges, shown, gate, missing })
    }

    /// Makes a prepared change the applied state.
    fn commit(&mut self, prepared: Prepared) -> Compiled {
        let Prepared { version, delta, stages, zones, challenges, shown, gate, missing } = prepared;
        self.resources.apply(&delta);
        let changed = self.shown.commit(shown);
        if let Some(zones) = zones {
            self.zones = zones.into();
        }
        let challenges = challenges.map_or_else(|| self.snapshot.challenges.clone(), Arc::new);
        let issuers = self.rebuild(Some(version), stages, challenges, gate);
        let (shown, sealing) = (&self.shown, &self.gate);
        Compiled {
            snapshot: self.snapshot.clone(),
            changed,
            fingerprint: self.resources.fingerprint(),
            delta,
            forgotten: self.keyring.settle(|| shown.secrets().into_iter().chain(sealing.secrets()).collect()),
            missing,
            issuers,
        }
    }

    /// Sets or ends the override of a stage and compiles it again; the version stays.
    pub(crate) fn set_override(&mut self, stage: &str, release: Option<u32>) -> Arc<Snapshot> {
        let name: Arc<str> = stage.into();
        match release {
            Some(release) => drop(self.overrides.insert(name.clone(), release)),
            None => drop(self.overrides.remove(&name)),
        }
        let mut ignored = Vec::new();
        let compiled = self.compile_stage(&name, &Delta::default(), &mut ignored);
        debug_assert!(ignored.is_empty(), "what is applied was found good before");
        let (version, challenges) = (self.snapshot.version, self.snapshot.challenges.clone());
        self.rebuild(version, vec![(name, compiled)], challenges, gate::Change::default());
        self.snapshot.clone()
    }

    fn check_order(&self, incoming: &Incoming) -> Result<(), String> {
        let Incoming { version, base, .. } = incoming;
        let have = self.snapshot.version;
        if *version == Version::default() {
            return Err("there is no version 0.0".into());
        }
        match (have, base) {
            (None, Some(base)) => Err(format!("builds on {base}, this proxy has nothing")),
            (Some(have), Some(base)) if *base != have => Err(format!("builds on {base}, this proxy has {have}")),
            (Some(have), Some(_)) if *version <= have => Err(format!("{version} is not after {have}")),
            // The same version may come again in full: that is how a damaged state is mended.
            (Some(have), None) if *version < have => Err(format!("{version} is older than {have}")),
            _ => Ok(()),
        }
    }

    fn compile_stages(&mut self, delta: &Delta, list: &mut Vec<Rejection>) -> Vec<(Arc<str>, Option<Arc<Stage>>)> {
        let mut touched: BTreeSet<Arc<str>> = BTreeSet::new();
        for (kind, name) in delta.entries.keys() {
            match kind {
                Kind::Stage | Kind::Split => drop(touched.insert(name.clone())),
                Kind::Endpoints => {
                    let stage = check::stage_of_endpoints(name).map(|(stage, _)| stage.into());
                    touched.extend(stage);
                }
                // None of a stage's.
                _ => {}
            }
        }
        touched.into_iter().map(|name| (name.clone(), self.compile_stage(&name, delta, list))).collect()
    }

    /// A stage as it will be after `delta`; `None` when there will be none.
    fn compile_stage(&mut self, name: &Arc<str>, delta: &Delta, list: &mut Vec<Rejection>) -> Option<Arc<Stage>> {
        // What is wrong with a resource alone was said already when the resource was checked.
        let silent = &mut Vec::new();
        let raw = |resources: &Resources, kind, name: &str| -> Option<Raw> {
            match delta.entries.get(&(kind, name.into())) {
                Some(changed) => changed.clone(),
                None => resources.get(kind, name).cloned(),
            }
        };
        let stage = raw(&self.resources, Kind::Stage, name);
        let split = raw(&self.resources, Kind::Split, name)
            .and_then(|raw| check::split(&raw, &mut Problems { list: silent, kind: Kind::Split, name }));
        let stage = match stage {
            // Found good or refused before: to look again would read each authority's certificates again.
            Some(raw) => check::read::<fleet::Stage>(&raw)?,
            None => {
                if split.is_some_and(|split| !split.weights.is_empty() || split.guard.is_some()) {
                    Problems { list, kind: Kind::Split, name }.add("name", "there is no stage of this name");
                }
                return None;
            }
        };
        let mut backends = Vec::with_capacity(stage.backends.len());
        for backend in &stage.backends {
            let resource = format!("{name}/r{}", backend.release);
            let addresses = raw(&self.resources, Kind::Endpoints, &resource).and_then(|raw| {
                check::endpoints(&raw, &mut Problems { list: silent, kind: Kind::Endpoints, name: &resource })
            });
            // Where it cannot be verified as asked, the change was refused when the stage was checked.
            backends.push(self.backend(name, backend, &addresses.unwrap_or_default())?);
        }
        backends.sort_by_key(|backend| backend.release);
        let split = split.unwrap_or_default();
        for (place, entry) in split.weights.iter().enumerate() {
            if backends.binary_search_by_key(&entry.release, |backend| backend.release).is_err() {
                Problems { list, kind: Kind::Split, name }
                    .add(format!("weights[{place}].release"), format!("r{} is no backend of the stage", entry.release));
            }
        }
        guard::check_release(split.guard.as_ref(), &backends, &mut Problems { list, kind: Kind::Split, name });
        placing::check_releases(&split, &backends, &mut Problems { list, kind: Kind::Split, name });
        let cors = stage.cors_origins.iter().map(|origin| origin.as_str().into()).collect();
        let clients = if delta.entries.contains_key(&(Kind::Stage, name.clone())) {
            let problems = &mut Problems { list, kind: Kind::Stage, name };
            self.clients.of(stage.client_certificates.as_ref(), problems)
        } else {
            // Lists of revoked certificates are large, and a change of weights has nothing to do with them.
            self.snapshot.stage_named(name).and_then(|before| before.clients.clone())
        };
        let rule = stage.access.as_ref().map(|access| Rule {
            public: access.public,
            explicit_denial: access.explicit_denial,
            needs_application: access.needs_application,
            needs_user: access.needs_user,
        });
        let paths = stage.backends.iter().filter_map(|backend| Some(backend.health.as_ref()?.http_path.as_str()));
        // As it is compared: a query in it is none of the path.
        let paths = paths.filter(|path| !path.is_empty()).map(|path| path.split('?').next().unwrap_or_default());
        let paths: BTreeSet<&str> = paths.collect();
        let health_paths = paths.into_iter().map(Into::into).collect();
        Some(self.stage(name, backends.into(), (cors, clients), (rule, health_paths), &split))
    }

    /// `None`: its endpoints cannot be verified as it asks, and nothing is ever spoken to in clear instead.
    fn backend(
        &mut self,
        stage: &Arc<str>,
        backend: &fleet::Backend,
        addresses: &[std::net::SocketAddr],
    ) -> Option<Backend> {
        let (protocol, secure) = match backend.protocol() {
            fleet::Protocol::H1 => (Protocol::Http1, false),
            fleet::Protocol::H2c => (Protocol::Http2, false),
            fleet::Protocol::H1Tls => (Protocol::Http1, true),
            fleet::Protocol::H2Tls => (Protocol::Http2, true),
            fleet::Protocol::Unspecified => return None,
        };
        let tls = if secure { Some(self.tls.of(backend.tls.as_ref()?, protocol).ok()?) } else { None };
        let slot = self.slots.release(stage, backend.release);
        let endpoint = |address: &std::net::SocketAddr| {
            let check = Check::new(*address, protocol, tls.clone(), backend.health.as_ref());
            Endpoint { address: *address, health: self.health.of(check) }
        };
        let endpoints = addresses.iter().map(endpoint).collect();
        Some(Backend { release: backend.release, protocol, tls, slot, endpoints })
    }

    fn stage(
        &mut self,
        name: &Arc<str>,
        backends: Box<[Backend]>,
        (cors, clients): (Box<[Box<str>]>, Option<Arc<Clients>>),
        (rule, health_paths): (Option<Rule>, Box<[Arc<str>]>),
        split: &fleet::Split,
    ) -> Arc<Stage> {
        let place = |release: u32| backends.binary_search_by_key(&release, |backend| backend.release).ok();
        // An override whose release is gone cannot be followed; the weights then count.
        let overridden = self.overrides.get(name).copied().filter(|release| place(*release).is_some());
        let mut weighted: Vec<(u32, usize)> = match overridden.and_then(place) {
            Some(place) => vec![(1, place)],
            None => split
                .weights
                .iter()
                .filter(|entry| entry.weight > 0)
                .filter_map(|entry| Some((entry.weight, place(entry.release)?)))
                .collect(),
        };
        weighted.sort_by_key(|(_, place)| *place);
        let shares = |weighted: &[(u32, usize)], backends: &[Backend]| -> Vec<(u32, u32)> {
            weighted.iter().filter_map(|(weight, place)| Some((*weight, backends.get(*place)?.release))).collect()
        };
        let before = self.snapshot.stage_named(name);
        let kept = before
            .filter(|before| shares(&before.weighted, &before.backends) == shares(&weighted, &backends))
            .map(|before| before.generation);
        let generation = kept.unwrap_or_else(|| {
            self.generation += 1;
            self.generation
        });
        let guard = guard::compile(split, &backends, before.and_then(|before| before.guard.as_deref()));
        let slot = self.slots.stage(name);
        let (rules, sticky) = (placing::rules(split, &backends), placing::sticky(split, &backends, &weighted));
        let (text, weighted, short) = (name.clone(), weighted.into(), denial::short(name));
        Arc::new(Stage {
            text,
            short,
            slot,
            generation,
            weighted,
            backends,
            rules,
            sticky,
            cors,
            clients,
            rule,
            health_paths,
            guard,
            overridden,
        })
    }

    /// The next snapshot: the maps of touched environments are copied, everything else is shared.
    fn rebuild(
        &mut self,
        version: Option<Version>,
        stages: Vec<(Arc<str>, Option<Arc<Stage>>)>,
        challenges: Arc<Challenges>,
        gate: gate::Change,
    ) -> Option<IssuersTold> {
        let mut environments = self.snapshot.environments.clone();
        let mut otherwise_asked: BTreeSet<Arc<str>> = BTreeSet::new();
        for (name, stage) in stages {
            self.slots.keep(&name, stage.as_deref());
            let Some((service, environment)) = name.split_once('/') else { continue };
            let asked = |stage: &Stage| (stage.rule, stage.health_paths.clone());
            if self.snapshot.stage_named(&name).map(|stage| asked(stage)) != stage.as_deref().map(asked) {
                otherwise_asked.insert(environment.into());
            }
            let services: &mut Services = match environments.get_mut(environment) {
                Some(services) => Arc::make_mut(services),
                None => Arc::make_mut(environments.entry(environment.into()).or_default()),
            };
            match stage {
                Some(stage) => drop(services.insert(service.into(), stage)),
                None => drop(services.remove(service)),
            }
        }
        let issuers = self.gate.commit(gate, &environments, &otherwise_asked);
        let access = self.gate.gate().clone();
        let empty: Arc<Services> = Arc::default();
        let services = |environment: &str| environments.get(environment).unwrap_or(&empty).clone();
        let compiled = |zone: &ZoneMeant| {
            let (services, guarded) = (services(&zone.environment), access.guarded(&zone.environment).clone());
            (zone.domain.clone(), Zone { services, guarded, https: zone.https, clients: zone.clients.clone() })
        };
        let zones = self.zones.iter().map(compiled).collect();
        let asks_clients = !self.clients.is_empty();
        self.snapshot = Arc::new(Snapshot { version, zones, environments, access, challenges, asks_clients });
        self.tls.prune();
        self.clients.prune();
        issuers
    }
}

/// Checks each resource of a change on its own, but for those that other rooms look at.
fn check_each(delta: &Delta, list: &mut Vec<Rejection>) {
    for ((kind, name), raw) in &delta.entries {
        let problems = &mut Problems { list, kind: *kind, name };
        match (kind, raw) {
            (Kind::Stage, Some(raw)) => drop(check::stage(raw, problems)),
            (Kind::Split, Some(raw)) => drop(check::split(raw, problems)),
            (Kind::Endpoints, Some(raw)) => drop(check::endpoints(raw, problems)),
            _ => {}
        }
    }
}

fn whole(field: &str, reason: String) -> Rejection {
    Rejection { resource: String::new(), field: field.into(), reason }
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
