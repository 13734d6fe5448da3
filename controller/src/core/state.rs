//! What is true now: the fold of all events.

mod application;
mod release;
pub(crate) mod rollout;
mod stage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::{Digest, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Scope, ServiceName, Span, StageName};
use certs::fleet::Role;
use serde::{Deserialize, Serialize};

use super::spec::{AccessSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec, StageSpec, Target};

pub use application::{ApiKey, Application};
pub use release::{
    Addresses, Artifact, ArtifactKind, BuildStep, CheckDone, CheckVerdict, CommitNamed, HotFix, Marked, NotReversible,
    Overtook, Release, ReleaseProgress, Trigger, Trimmed, Wanted,
};
pub use rollout::{Asked, Begun, CheckSeen, Earned, Frozen, Phase, Queued, Rollout, WatchEnd, Watching, Why};
pub use stage::{Entering, Leaving, RolledBack, Stage, StartTakes, WARM_MOST};

/// Everything the controller knows for good. Serialised as a checkpoint; its shape is versioned by
/// [`State::SCHEMA`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Term of the controller that leads; grows with each start.
    pub term: u64,
    /// By name.
    pub environments: BTreeMap<EnvironmentName, EnvironmentSpec>,
    /// By name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Proxies and agents, invited or joined, by name.
    pub members: BTreeMap<MemberName, Member>,
    /// Operators' tokens by name.
    pub tokens: BTreeMap<MemberName, Token>,
    /// What was served last from each environment's source, other than the development authority.
    #[serde(default)]
    pub certificates: BTreeMap<EnvironmentName, Brought>,
    /// Who may pass, as last applied.
    #[serde(default)]
    pub access: AccessSpec,
    /// What calls, by name.
    #[serde(default)]
    pub applications: BTreeMap<MemberName, Application>,
    /// What the operator says of releases, as last applied.
    pub releases: ReleasesSpec,
    /// Requests that were carried out, newest last, each with its first event: a repeated one is answered with what it
    /// did, not done again.
    pub requests: VecDeque<(String, u64)>,
}

/// What a source brought last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// Which source, as `CertificateSource::key` says it.
    pub source: String,
    /// All of them.
    pub certificates: Vec<CertificateRecord>,
}

/// A certificate that was brought to proxies; its key is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// DNS names.
    pub names: Vec<String>,
    /// SHA-256 of the certificate.
    pub sha256: Digest,
    /// End of its validity, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
}

/// A service with its releases and stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As last applied.
    pub spec: ServiceSpec,
    /// All of them.
    pub releases: BTreeMap<ReleaseNumber, Release>,
    /// Stages in which something ever ran.
    pub stages: BTreeMap<EnvironmentName, Stage>,
    /// The number given last, also to what is forgotten by now; none: there was no release yet.
    pub newest: Option<ReleaseNumber>,
    /// The repository that registered it, and the commit that it did by; none: it was applied.
    pub registered: Option<Registered>,
    /// Tags that were seen, each with the commit that it named then.
    pub tags: BTreeMap<String, String>,
    /// When all tags of its repository were looked at first, which are no news then; none: they were not.
    pub tags_since_ms: Option<u64>,
    /// When builds of it began within the last day, oldest first; at most [`BEGUN_MOST`].
    pub begun: VecDeque<u64>,
}

/// More beginnings of builds than this within a day are not told apart from this many.
pub const BEGUN_MOST: usize = 1_000;

/// What registered a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Name of the repository, as the operator listed it.
    pub repository: MemberName,
    /// The commit whose file counts.
    pub commit: String,
}

/// A proxy or an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// Agents: the group; empty for proxies.
    pub group: String,
    /// How far it is.
    pub progress: MemberProgress,
    /// Proxies: splits that somebody overrode on the spot, until they end.
    pub overrides: BTreeMap<StageName, Override>,
}

/// A split that was overridden on a proxy itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Everything goes there.
    pub release: ReleaseNumber,
    /// It ends by itself then.
    pub until_ms: u64,
}

/// How far a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberProgress {
    /// Has a one-time token.
    Invited {
        /// SHA-256 of its secret.
        secret: Digest,
        /// Until when it may be used.
        until_ms: u64,
    },
    /// Has a certificate.
    Joined {
        /// Serial number of the certificate, hex.
        serial: String,
        /// That of the one it was renewed with, which stays good until the next renewal: the answer may have been lost.
        before: Option<String>,
        /// Since when. A certificate that counts from later on was given out by a controller whose events are lost, as
        /// after a restored backup: its owner still belongs.
        since_ms: u64,
    },
    /// May not connect any more. Terminal; the name can be invited again.
    Revoked,
}

/// An operator's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 of its secret; none: a certificate opens it.
    pub secret: Option<Digest>,
    /// Serial number of the one certificate that stands for it, hex.
    pub certificate: Option<String>,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_ms: u64,
    /// By whom.
    pub by: String,
    /// May not be used any more. Terminal.
    pub revoked: bool,
}

// === impl State ===

impl State {
    /// Version of the serialised shape: a checkpoint of another one is not read, the events are folded anew.
    pub const SCHEMA: u32 = 10;

    /// A service, if there is one of that name.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// A release, if there is one of that name.
    pub fn release(&self, name: &ReleaseName) -> Option<&Release> {
        self.services.get(&name.service)?.releases.get(&name.number)
    }

    /// A stage, if something ever ran there.
    pub fn stage(&self, name: &StageName) -> Option<&Stage> {
        self.services.get(&name.service)?.stages.get(&name.environment)
    }

    /// Names of all stages in which something ever ran.
    pub fn stage_names(&self) -> impl Iterator<Item = StageName> + '_ {
        self.services.iter().flat_map(|(service, entry)| {
            entry.stages.keys().map(|environment| StageName::new(service.clone(), environment.clone()))
        })
    }

    /// Names of all stages: those of [`State::stage_names`], and those that files describe.
    pub fn known_stages(&self) -> BTreeSet<StageName> {
        let described = self.services.iter().flat_map(|(service, entry)| {
            entry.spec.stages.keys().map(|environment| StageName::new(service.clone(), environment.clone()))
        });
        self.stage_names().chain(described).collect()
    }

    /// How long a release that left the stage is kept ready.
    pub fn keep_warm(&self, name: &StageName) -> Span {
        let own = self.services.get(&name.service).and_then(|service| service.spec.stages.get(&name.environment));
        let environment = self.environments.get(&name.environment);
        own.and_then(|stage: &StageSpec| stage.keep_warm)
            .or(environment.map(|environment| environment.keep_warm))
            .unwrap_or(super::spec::KEEP_WARM)
    }

    /// Whether a release of the stage has nobody who could answer: all agents that ran it were revoked.
    pub fn has_lost(&self, name: &StageName, release: ReleaseNumber) -> bool {
        let group = self.environments.get(&name.environment).and_then(EnvironmentSpec::group);
        let Some((stage, group)) = self.stage(name).zip(group) else { return false };
        let placed = stage.placed.get(&release);
        !self.agents(group).any(|agent| placed.is_some_and(|placed| placed.contains_key(agent)))
    }

    /// Agents that have joined the group.
    pub fn agents<'a>(&'a self, group: &'a MemberName) -> impl Iterator<Item = &'a MemberName> + 'a {
        self.members.iter().filter_map(move |(name, member)| {
            let joined = matches!(member.progress, MemberProgress::Joined { .. });
            (joined && member.role == Role::Agent && member.group == group.as_str()).then_some(name)
        })
    }
}

// === impl Service ===

impl Service {
    /// A service of which nothing is known but what its file says.
    pub fn new(spec: ServiceSpec) -> Self {
        Self {
            spec,
            releases: BTreeMap::new(),
            stages: BTreeMap::new(),
            newest: None,
            registered: None,
            tags: BTreeMap::new(),
            tags_since_ms: None,
            begun: VecDeque::new(),
        }
    }
}

// === impl MemberProgress ===

impl MemberProgress {
    /// Whether a certificate of its name belongs to it now: one with this serial, that counts from this moment on.
    pub fn accepts(&self, given: &str, from_ms: u64) -> bool {
        match self {
            Self::Joined { serial, before, since_ms } => {
                serial == given || before.as_deref() == Some(given) || from_ms > *since_ms
            }
            Self::Invited { .. } | Self::Revoked => false,
        }
    }
}

impl EnvironmentSpec {
    /// Group of agents that run its releases.
    pub fn group(&self) -> Option<&MemberName> {
        match &self.target {
            Target::Agent { group } => Some(group),
            Target::Static => None,
        }
    }
}
