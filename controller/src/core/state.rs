//! What is true now: the fold of all events.

mod application;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use api::{
    ComponentName, Digest, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Scope, ServiceName, Share, Span,
    StageName,
};
use certs::fleet::Role;
use serde::{Deserialize, Serialize};

use super::spec::{AccessSpec, ComponentSpec, EnvironmentSpec, ServiceSpec, StageSpec, Target};

pub use application::{ApiKey, Application};

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

/// Warm releases of one stage: half of the backends that proxies accept, and more than anybody goes back.
pub const WARM_MOST: usize = 32;

/// A service with its releases and stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// As last applied.
    pub spec: ServiceSpec,
    /// All of them.
    pub releases: BTreeMap<ReleaseNumber, Release>,
    /// Stages in which something ever ran.
    pub stages: BTreeMap<EnvironmentName, Stage>,
}

/// An immutable, numbered thing that can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Tag or version given by hand; may be empty.
    pub version: String,
    /// Full commit hash; may be empty for one added by hand.
    pub commit: String,
    /// First line of the commit's message.
    pub subject: String,
    /// How far it is.
    pub progress: ReleaseProgress,
    /// When it was asked for.
    pub created_ms: u64,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Frozen when it became ready.
    pub components: BTreeMap<ComponentName, ComponentSpec>,
    /// What was built.
    pub artifacts: BTreeMap<ComponentName, Artifact>,
    /// Where it runs in environments with a static target.
    pub addresses: Vec<Addresses>,
}

/// How far a release is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseProgress {
    /// Waits for its build.
    Queued,
    /// Is being built.
    Building,
    /// Can be promoted. Terminal.
    Ready {
        /// Since when.
        at_ms: u64,
    },
    /// Cannot be promoted. Terminal.
    Failed {
        /// Since when.
        at_ms: u64,
        /// Why, a sentence.
        problem: String,
    },
}

/// A built component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of its layer.
    pub bytes: u64,
}

/// Addresses given by hand for a component of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Only there; none: in every environment with a static target.
    pub environment: Option<EnvironmentName>,
    /// The component.
    pub component: ComponentName,
    /// IP addresses with ports.
    pub addresses: Vec<std::net::SocketAddr>,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stage {
    /// Serves what `entering` does not.
    pub stable: Option<ReleaseNumber>,
    /// The one release that is on its way in.
    pub entering: Option<Entering>,
    /// Releases that left and still run.
    pub leaving: BTreeMap<ReleaseNumber, Leaving>,
    /// Rolled back from: never a default target until `unhold`.
    pub bad: BTreeSet<ReleaseNumber>,
    /// Releases that were stable here, oldest first, each once at its last time.
    pub past: Vec<ReleaseNumber>,
    /// Releases that ever had weight here: what may go on downstream.
    pub served: BTreeSet<ReleaseNumber>,
    /// Where routed components run, as agents reported.
    pub placed: BTreeMap<ReleaseNumber, BTreeMap<MemberName, std::net::SocketAddr>>,
    /// The last rollback, until something is promoted again.
    pub rolled_back: Option<RolledBack>,
}

/// A release on its way into a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entering {
    /// Which.
    pub release: ReleaseNumber,
    /// Its share now, or once it has started.
    pub share: Share,
    /// Until when it must have started; none: it has.
    pub starting_until_ms: Option<u64>,
    /// It is an old release that is fetched back.
    pub rollback: bool,
    /// Since when.
    pub since_ms: u64,
}

/// Why a release that has no weight still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// Ready to take over at once.
    Warm {
        /// Until when.
        until_ms: u64,
    },
    /// No new requests; ends when those in flight have ended, or at the deadline.
    Draining {
        /// Until when at most.
        until_ms: u64,
    },
}

/// A rollback that nothing followed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// From this release.
    pub from: ReleaseNumber,
    /// To this one.
    pub to: ReleaseNumber,
    /// When.
    pub at_ms: u64,
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
    pub const SCHEMA: u32 = 6;

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

    /// How long a release that left the stage is kept ready.
    pub fn keep_warm(&self, name: &StageName) -> Span {
        let own = self.services.get(&name.service).and_then(|service| service.spec.stages.get(&name.environment));
        let environment = self.environments.get(&name.environment);
        own.and_then(|stage: &StageSpec| stage.keep_warm)
            .or(environment.map(|environment| environment.keep_warm))
            .unwrap_or(super::spec::KEEP_WARM)
    }

    /// Agents that have joined the group.
    pub fn agents<'a>(&'a self, group: &'a MemberName) -> impl Iterator<Item = &'a MemberName> + 'a {
        self.members.iter().filter_map(move |(name, member)| {
            let joined = matches!(member.progress, MemberProgress::Joined { .. });
            (joined && member.role == Role::Agent && member.group == group.as_str()).then_some(name)
        })
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

// === impl Stage ===

impl Stage {
    /// Share of a release now; what is not running has none.
    pub fn share(&self, release: ReleaseNumber) -> Share {
        let entering = self.entering.as_ref().filter(|entering| entering.starting_until_ms.is_none());
        let taken = entering.map_or(Share::NONE, |entering| entering.share);
        if entering.is_some_and(|entering| entering.release == release) {
            taken
        } else if self.stable == Some(release) {
            taken.rest()
        } else {
            Share::NONE
        }
    }

    /// Every release that should be running: stable, entering, warm and draining.
    pub fn running(&self) -> BTreeSet<ReleaseNumber> {
        let entering = self.entering.as_ref().map(|entering| entering.release);
        self.stable.into_iter().chain(entering).chain(self.leaving.keys().copied()).collect()
    }

    /// Releases that proxies know: those that run and do not drain.
    pub fn routed(&self) -> BTreeSet<ReleaseNumber> {
        let draining = |release: &ReleaseNumber| matches!(self.leaving.get(release), Some(Leaving::Draining { .. }));
        self.running().into_iter().filter(|release| !draining(release)).collect()
    }

    /// Whether the release runs and could take weight at once.
    pub fn is_warm(&self, release: ReleaseNumber) -> bool {
        matches!(self.leaving.get(&release), Some(Leaving::Warm { .. }))
    }

    /// Warm releases, the first to end first.
    pub fn warm(&self) -> Vec<ReleaseNumber> {
        let until = |(release, why): (&ReleaseNumber, &Leaving)| match why {
            Leaving::Warm { until_ms } => Some((*until_ms, *release)),
            Leaving::Draining { .. } => None,
        };
        let mut warm: Vec<_> = self.leaving.iter().filter_map(until).collect();
        warm.sort_unstable();
        warm.into_iter().map(|(_, release)| release).collect()
    }

    /// Warm releases beyond [`WARM_MOST`], the oldest.
    pub fn too_many_warm(&self) -> Vec<ReleaseNumber> {
        let mut warm = self.warm();
        warm.truncate(warm.len().saturating_sub(WARM_MOST));
        warm
    }

    /// The release that a rollback without further words goes to: the last stable before that is not bad.
    pub fn rollback_target(&self) -> Option<ReleaseNumber> {
        let now = self.stable;
        if self.entering.as_ref().is_some_and(|entering| !entering.rollback) {
            return now;
        }
        self.past.iter().rev().copied().find(|release| Some(*release) != now && !self.bad.contains(release))
    }
}

// === impl Release ===

impl Release {
    /// The component that is routed to, with how it is spoken to.
    pub fn routed(&self) -> Option<(&ComponentName, &ComponentSpec)> {
        self.components.iter().find(|(_, component)| component.protocol.is_some())
    }

    /// Whether an agent could run what is routed to.
    pub fn can_run(&self) -> bool {
        self.routed().is_some_and(|(name, spec)| !spec.run.is_empty() && self.artifacts.contains_key(name))
    }

    /// Its addresses in an environment with a static target: those given for it, else those given for all.
    pub fn static_addresses(&self, environment: &EnvironmentName) -> Vec<std::net::SocketAddr> {
        let Some((routed, _)) = self.routed() else { return Vec::new() };
        let given = |wanted: Option<&EnvironmentName>| -> Vec<_> {
            let entries = self
                .addresses
                .iter()
                .filter(|entry| &entry.component == routed && entry.environment.as_ref() == wanted);
            entries.flat_map(|entry| entry.addresses.iter().copied()).collect()
        };
        let own = given(Some(environment));
        if own.is_empty() { given(None) } else { own }
    }

    /// Whether it can be promoted.
    pub fn is_ready(&self) -> bool {
        matches!(self.progress, ReleaseProgress::Ready { .. })
    }
}

impl ReleaseProgress {
    /// Whether nothing changes any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Failed { .. })
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
