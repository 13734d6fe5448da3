//! Who may pass, compiled: who may be known, the policies of each environment, and the keys by which we say something of it.
//!
//! Must not know: requests, or what is answered.
//!
//! Main types: [`Gate`], what requests read; [`Guarded`], one environment of it; [`GateBoard`], which makes the next one when
//! something of it changes, and only then: a change of weights leaves it as it is.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use api::fleet::{self, Rejection};
use policies::Problem;
use policies::credential::assertion::Signer;
use policies::credential::denial::Seal;
use policies::credential::{Access, Applications, Issuers};
use policies::policy::{Action, AttributeTypes, Cut, Document, Policies, Reads, StageFacts, StagePolicies};
use prost::Message;

use super::check::{self, Problems};
use super::resources::{Delta, Kind, Raw, Resources};
use super::sealing::{self, Sealing};
use super::{Services, Table, look_up};
use crate::keyring::Keyring;

/// Most issuers, applications and documents. More is a mistake, which the controller tells before it gets here.
const MOST: [(Kind, usize); 3] = [
    (Kind::Issuer, api::ISSUERS_MOST),
    (Kind::Application, api::APPLICATIONS_MOST),
    (Kind::Policy, api::POLICIES_MOST),
];
/// Largest document, and largest text with entities.
const TEXT_BYTES: usize = api::POLICY_BYTES;
/// Longest name of an issuer, an application or a document.
const NAME_BYTES: usize = 128;
const ENTITIES: &str = "entities";
/// In the place of a service that is not there. No service and no environment can have this name.
const NOWHERE: &str = "~";

/// See the module. Shared by all snapshots in which nothing of it changed.
#[derive(Default)]
pub(crate) struct Gate {
    /// Another number whenever anybody may be judged otherwise than before.
    pub(crate) generation: u64,
    /// Some stage asks for policies. Otherwise everything is open to everybody, and nothing is hidden.
    pub(crate) guards: bool,
    /// No issuer and no application: whatever is presented, it is not for us.
    pub(crate) knows_nobody: bool,
    pub(crate) access: Access,
    environments: Table<Arc<str>, Arc<Guarded>>,
    /// For hosts of no zone: as the environment that asks most.
    pub(crate) nowhere: Arc<Guarded>,
    /// `None`: endpoints are told nothing of who calls.
    pub(crate) signer: Option<Arc<Signer>>,
    /// What endpoints verify it with (RFC 7517).
    pub(crate) jwks: Option<Arc<str>>,
    /// `None`: its key is not here.
    pub(crate) seal: Option<Arc<Seal>>,
}

/// The policies of an environment.
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    /// Its name; of hosts of no zone, one that no environment has.
    pub(crate) environment: Arc<str>,
    /// In the place of a stage that is not there.
    pub(super) nobody: super::Stage,
    /// By service; by `NOWHERE` for services that are not there.
    stages: Table<Arc<str>, Asking>,
    /// For what is not in `stages`: there is nothing to ask, or nobody is asked.
    unknown: Asking,
    /// Where some backend of it is asked for its health: who asks there, of whatever host, may be a health check.
    health_paths: HashSet<Arc<str>, foldhash::fast::RandomState>,
}

/// What is asked for one service.
#[derive(Debug, Default, Clone)]
pub(crate) struct Asking {
    policies: Arc<StagePolicies>,
    /// By action.
    reads: [Reads; ACTIONS.len()],
}

const ACTIONS: [Action; 8] = [
    Action::Discover,
    Action::Read,
    Action::Write,
    Action::Rpc,
    Action::Upgrade,
    Action::Use,
    Action::Preflight,
    Action::Check,
];

/// All issuers as they came, by name.
pub(crate) type IssuersTold = Arc<[(Arc<str>, fleet::Issuer)]>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct GateBoard {
    gate: Arc<Gate>,
    issuers: IssuersTold,
    /// Whether there is any.
    applications: bool,
    policies: Policies,
    attributes: AttributeTypes,
    sealing: Sealing,
}

/// A change that was found good.
#[derive(Debug, Default)]
pub(super) struct Change {
    issuers: Option<(IssuersTold, Arc<Issuers>)>,
    /// And whether there is any.
    applications: Option<(Arc<Applications>, bool)>,
    policies: Option<(Policies, AttributeTypes)>,
    sealing: sealing::Change,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { generation, guards, .. } = self;
        f.debug_struct("Gate").field("generation", generation).field("guards", guards).finish_non_exhaustive()
    }
}

impl Gate {
    /// An environment's; of one without any stage the same as for hosts of no zone.
    pub(super) fn guarded(&self, environment: &str) -> &Arc<Guarded> {
        self.environments.get(environment).unwrap_or(&self.nowhere)
    }
}

impl Guarded {
    /// What is asked for a service; `None`: for one that is not there. One look-up for either, and it finds something.
    pub(super) fn asking(&self, service: Option<&str>) -> &Asking {
        look_up(&self.stages, service.unwrap_or(NOWHERE)).unwrap_or(&self.unknown)
    }

    /// Whether anything is asked for a service of its own.
    pub(super) fn has(&self, service: &str) -> bool {
        look_up(&self.stages, service).is_some()
    }

    /// Whether a path, without its query, is one where some service of the environment is asked for its health.
    pub(crate) fn is_health_path(&self, path: &str) -> bool {
        !self.health_paths.is_empty() && self.health_paths.contains(path)
    }
}

impl Asking {
    fn of(policies: &Arc<StagePolicies>) -> Self {
        let reads = ACTIONS.map(|action| match action {
            // Nothing but who asks counts for these: whatever is read, it is not there.
            Action::Discover => Reads::default(),
            action => policies.reads(action),
        });
        Self { policies: policies.clone(), reads }
    }

    pub(crate) fn policies(&self) -> &StagePolicies {
        &self.policies
    }

    /// What an answer may depend on besides who asks.
    pub(crate) fn reads(&self, action: Action) -> Reads {
        self.reads[action as usize]
    }
}

// === impl GateBoard ===

impl GateBoard {
    pub(super) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether every secret that is named is here.
    pub(super) fn is_whole(&self) -> bool {
        self.sealing.is_whole()
    }

    /// Every secret that is named.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.sealing.secrets()
    }

    /// Reads what a change touches.
    pub(super) fn prepare(
        &self,
        delta: &Delta,
        resources: &Resources,
        keyring: &Keyring,
        (list, missing): (&mut Vec<Rejection>, &mut Vec<Rejection>),
    ) -> Change {
        let mut change = Change::default();
        for (kind, most) in MOST.iter().filter(|(kind, _)| delta.touches(*kind)) {
            check_names(*kind, *most, delta, resources, list);
        }
        if delta.touches(Kind::Issuer) {
            change.issuers = issuers(delta, resources, list);
        }
        if delta.touches(Kind::Application) {
            change.applications = applications(delta, resources, list);
        }
        let told = change.issuers.as_ref().map_or(&self.issuers, |(told, _)| told);
        let attributes = attributes(told);
        if delta.touches(Kind::Policy) || delta.touches(Kind::Entities) || attributes != self.attributes {
            change.policies = self.policies(delta, resources, attributes, list);
        }
        change.sealing = self.sealing.prepare(delta, resources, keyring, (list, missing));
        change
    }

    fn policies(
        &self,
        delta: &Delta,
        resources: &Resources,
        attributes: AttributeTypes,
        list: &mut Vec<Rejection>,
    ) -> Option<(Policies, AttributeTypes)> {
        let mut documents = Vec::new();
        for (name, raw) in after(delta, resources, Kind::Policy) {
            let problems = &mut Problems { list, kind: Kind::Policy, name };
            let read = check::decode::<fleet::Policy>(raw, problems)?;
            check_size(&read.text, "text", problems);
            documents.push(Document { name: name.to_string(), text: read.text });
        }
        let mut entities = None;
        for (name, raw) in after(delta, resources, Kind::Entities) {
            let problems = &mut Problems { list, kind: Kind::Entities, name };
            if **name != *ENTITIES {
                problems.add("name", "is not \"entities\": there is one of these");
            }
            let read = check::decode::<fleet::Entities>(raw, problems)?;
            check_size(&read.json, "json", problems);
            entities = Some(read.json);
        }
        // What is too large is not read at all.
        if list.iter().any(|rejection| ["text", "json"].contains(&rejection.field.as_str())) {
            return None;
        }
        match Policies::read(&documents, entities.as_deref(), &attributes, Some(&self.policies)) {
            Ok(policies) => Some((policies, attributes)),
            Err(problems) => {
                list.extend(problems.into_iter().map(|problem| rejection(Kind::Policy, problem)));
                None
            }
        }
    }

    /// Makes a change the applied state, with the stages of all `environments` as they are now. `touched`: environments
    /// whose stages are not asked as before. Gives all issuers when they changed.
    pub(super) fn commit(
        &mut self,
        change: Change,
        environments: &Table<Arc<str>, Arc<Services>>,
        touched: &BTreeSet<Arc<str>>,
    ) -> Option<IssuersTold> {
        let Change { issuers, applications, policies, sealing } = change;
        let recut = policies.is_some();
        let sealed = self.sealing.commit(sealing);
        if !(recut || sealed || issuers.is_some() || applications.is_some()) && touched.is_empty() {
            return None;
        }
        if let Some((policies, attributes)) = policies {
            (self.policies, self.attributes) = (policies, attributes);
        }
        let before = &self.gate;
        let mut access = before.access.clone();
        if let Some((applications, are_some)) = applications {
            (access.applications, self.applications) = (applications, are_some);
        }
        let told = issuers.map(|(told, issuers)| {
            access.issuers = issuers;
            self.issuers = told.clone();
            told
        });
        let mut guarded = before.environments.clone();
        guarded.retain(|environment, _| environments.contains_key(environment));
        for (environment, services) in environments {
            if recut || touched.contains(environment) || !guarded.contains_key(environment) {
                guarded.insert(environment.clone(), Arc::new(self.guard(environment, services)));
            }
        }
        self.gate = Arc::new(Gate {
            generation: before.generation + 1,
            guards: environments.values().any(|services| services.values().any(|stage| stage.rule.is_some())),
            knows_nobody: self.issuers.is_empty() && !self.applications,
            access,
            nowhere: Arc::new(nowhere(&guarded)),
            environments: guarded,
            signer: self.sealing.signer(),
            jwks: self.sealing.jwks(),
            seal: self.sealing.seal(),
        });
        told
    }

    /// The policies of an environment with these services.
    fn guard(&self, environment: &str, services: &Services) -> Guarded {
        let facts = |(service, stage): (&Arc<str>, &Arc<super::Stage>)| {
            let rule = stage.rule?;
            Some(StageFacts { service: service.clone(), public: rule.public })
        };
        let facts: Vec<StageFacts> = services.iter().filter_map(facts).collect();
        let health_paths = services.values().flat_map(|stage| stage.health_paths.iter().cloned()).collect();
        let environment: Arc<str> = environment.into();
        if facts.is_empty() {
            // Nothing is asked of it, and so nothing is cut for it.
            return Guarded { environment, health_paths, ..Guarded::default() };
        }
        let Cut { stages, unknown } = self.policies.cut(&environment, &facts);
        let unknown = Asking::of(&unknown);
        let known = stages.iter().map(|(service, policies)| (service.clone(), Asking::of(policies)));
        let stages = known.chain([(NOWHERE.into(), unknown.clone())]).collect();
        let most = services.values().map(|stage| stage.backends.len()).max().unwrap_or_default();
        let nobody = super::Stage::nobody(u32::try_from(most).unwrap_or(u32::MAX));
        Guarded { environment, nobody, stages, unknown, health_paths }
    }
}

/// What hosts of no zone are asked: as those of the environment where that takes longest.
fn nowhere(environments: &Table<Arc<str>, Arc<Guarded>>) -> Guarded {
    let count = |guarded: &&Arc<Guarded>| guarded.unknown.policies.count(Action::Discover);
    let asked = environments.values().filter(|guarded| !guarded.stages.is_empty());
    let Some(most) = asked.max_by_key(count) else { return Guarded::default() };
    Guarded {
        environment: NOWHERE.into(),
        nobody: super::Stage::nobody(u32::try_from(most.nobody.backends.len()).unwrap_or(u32::MAX)),
        stages: [(NOWHERE.into(), most.unknown.clone())].into_iter().collect(),
        unknown: most.unknown.clone(),
        health_paths: most.health_paths.clone(),
    }
}

/// All resources of a kind as they will be after a change.
fn after<'a>(delta: &'a Delta, resources: &'a Resources, kind: Kind) -> Vec<(&'a Arc<str>, &'a Raw)> {
    let kept = resources.of_kind(kind).filter(|(name, _)| !delta.entries.contains_key(&(kind, Arc::clone(name))));
    let new = delta.entries.iter().filter(|((touched, _), _)| *touched == kind);
    let mut all: Vec<_> = kept.chain(new.filter_map(|((_, name), raw)| Some((name, raw.as_ref()?)))).collect();
    all.sort_by(|a, b| a.0.cmp(b.0));
    all
}

fn check_names(kind: Kind, most: usize, delta: &Delta, resources: &Resources, list: &mut Vec<Rejection>) {
    let all = after(delta, resources, kind);
    if all.len() > most {
        let reason = format!("there would be {}, at most {most} are accepted", all.len());
        list.push(Rejection { resource: kind.as_str().into(), field: String::new(), reason });
    }
    for (name, _) in all {
        // `/` stands between an issuer and its subject, and between a document and its folder.
        let is_plain = |b: u8| match b {
            b'/' => kind == Kind::Policy,
            b'"' | b'\\' => false,
            other => (0x21..=0x7e).contains(&other),
        };
        let is_plain = name.bytes().all(is_plain);
        if !is_plain || !(1..=NAME_BYTES).contains(&name.len()) {
            let wrong =
                "is not 1 to 128 printable characters without blank, quote, backslash and, but for a policy, slash";
            Problems { list, kind, name }.add("name", wrong);
        }
    }
}

fn check_size(text: &str, field: &str, problems: &mut Problems<'_>) {
    if text.len() > TEXT_BYTES {
        problems.add(field, format!("has {} bytes, at most {TEXT_BYTES} are accepted", text.len()));
    }
}

/// Every resource of a kind, decoded; `None`: one cannot be.
fn all<M: Message + Default>(
    kind: Kind,
    delta: &Delta,
    resources: &Resources,
    list: &mut Vec<Rejection>,
) -> Option<Vec<(Arc<str>, M)>> {
    let read = after(delta, resources, kind).into_iter().map(|(name, raw)| {
        let read = check::decode(raw, &mut Problems { list, kind, name });
        read.map(|read| (name.clone(), read))
    });
    // All are looked at, so that all that is wrong is said.
    read.collect::<Vec<_>>().into_iter().collect()
}

fn issuers(delta: &Delta, resources: &Resources, list: &mut Vec<Rejection>) -> Option<(IssuersTold, Arc<Issuers>)> {
    let told: Vec<(Arc<str>, fleet::Issuer)> = all(Kind::Issuer, delta, resources, list)?;
    for (name, issuer) in &told {
        if let Err((field, why)) = crate::issuers::check(issuer) {
            Problems { list, kind: Kind::Issuer, name }.add(field, why);
        }
    }
    let made = Issuers::new(told.iter().map(|(name, issuer)| (&**name, issuer)));
    let made = made.map_err(|problems| list.extend(problems.into_iter().map(|one| rejection(Kind::Issuer, one))));
    Some((told.into(), Arc::new(made.ok()?)))
}

fn applications(delta: &Delta, resources: &Resources, list: &mut Vec<Rejection>) -> Option<(Arc<Applications>, bool)> {
    let told: Vec<(Arc<str>, fleet::Application)> = all(Kind::Application, delta, resources, list)?;
    let made = Applications::new(told.iter().map(|(name, application)| (&**name, application)));
    let made = made.map_err(|problems| list.extend(problems.into_iter().map(|one| rejection(Kind::Application, one))));
    Some((Arc::new(made.ok()?), !told.is_empty()))
}

/// What all issuers together say of users: of one type each, or they were refused.
fn attributes(told: &IssuersTold) -> AttributeTypes {
    let all = told.iter().flat_map(|(_, issuer)| &issuer.attributes);
    all.map(|one| (one.attribute.clone(), one.r#type())).collect()
}

/// What a problem is told as. Its place says which resource it is in: "staff.cedar", "issuer corp", "entities".
fn rejection(kind: Kind, problem: Problem) -> Rejection {
    let Problem { place, line, column, message } = problem;
    let resource = match place.as_str() {
        ENTITIES => format!("{ENTITIES} {ENTITIES}"),
        named if named.starts_with(&format!("{} ", kind.as_str())) => place,
        name => format!("{} {name}", kind.as_str()),
    };
    let field = match (line, column) {
        (0, _) => String::new(),
        (line, 0) => format!("line {line}"),
        (line, column) => format!("line {line}, column {column}"),
    };
    Rejection { resource, field, reason: message }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
