//! What happened: the only thing that is ever written down, and never changed afterwards.

use std::collections::{BTreeMap, BTreeSet};

use api::{ComponentName, Digest, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Scope, Share, StageName};
use certs::fleet::Role;
use serde::{Deserialize, Serialize};

use super::spec::{AccessSpec, ComponentSpec, EnvironmentSpec, ServiceSpec};
use super::state::{Addresses, Artifact, CertificateRecord};

/// Schema of the events written now; older ones are upcast when they are read.
pub const EVENT_SCHEMA: u32 = 1;

/// A fact. Who, when and why stand beside it in the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "fields are named after the words of the design; each variant says what happened")]
pub enum Event {
    /// A controller took the lead.
    Started { term: u64 },
    /// An environment is as written from now on.
    EnvironmentApplied { spec: EnvironmentSpec },
    /// A service is as written from now on.
    ServiceApplied { spec: ServiceSpec },
    /// Who may pass is as written from now on, in place of all before.
    AccessApplied { spec: AccessSpec },

    /// A release was asked for and waits for its build.
    ReleaseRequested { release: ReleaseName, version: String, commit: String, subject: String },
    /// A release made elsewhere was added; it is ready.
    ReleaseAdded {
        release: ReleaseName,
        version: String,
        commit: String,
        components: BTreeMap<ComponentName, ComponentSpec>,
        addresses: Vec<Addresses>,
    },
    /// Its build began.
    BuildStarted { release: ReleaseName },
    /// Its build succeeded; it is ready.
    ReleaseBuilt {
        release: ReleaseName,
        components: BTreeMap<ComponentName, ComponentSpec>,
        artifacts: BTreeMap<ComponentName, Artifact>,
    },
    /// Its build failed.
    ReleaseFailed { release: ReleaseName, problem: String },

    /// A release was let into a stage; it has to start first when `starting_until_ms` is given.
    Promoted {
        stage: StageName,
        release: ReleaseNumber,
        share: Share,
        starting_until_ms: Option<u64>,
        rollback: bool,
        bypass: bool,
    },
    /// It could not be started; the stage is as it was.
    PromotionFailed { stage: StageName, release: ReleaseNumber, problem: String, until_ms: u64 },
    /// It has started and takes its share.
    Entered { stage: StageName, release: ReleaseNumber },
    /// The share of the entering release.
    ShareSet { stage: StageName, release: ReleaseNumber, share: Share },
    /// The entering release serves everything; the one before is kept warm.
    Completed { stage: StageName, release: ReleaseNumber, warm_until_ms: u64 },
    /// Everything goes to `to` again; `from` is kept warm, and marked bad when it had served.
    RolledBack { stage: StageName, from: ReleaseNumber, to: ReleaseNumber, warm_until_ms: u64, bad: bool },
    /// The mark "bad" was taken away.
    Unheld { stage: StageName, release: ReleaseNumber },
    /// A release is no longer kept warm.
    WarmthEnded { stage: StageName, release: ReleaseNumber, until_ms: u64 },
    /// It serves nobody any more; its instances end.
    Retired { stage: StageName, release: ReleaseNumber },
    /// A routed component runs on an agent at this address.
    Placed { stage: StageName, release: ReleaseNumber, agent: MemberName, address: std::net::SocketAddr },

    /// Proxies are given these in place of those that the environment had.
    CertificatesReplaced {
        environment: EnvironmentName,
        source: String,
        key: String,
        certificates: Vec<CertificateRecord>,
    },

    /// A one-time token was given out.
    MemberInvited { name: MemberName, role: Role, group: String, secret: Digest, until_ms: u64 },
    /// The token was used.
    MemberJoined { name: MemberName, serial: String },
    /// It got another certificate: the new one is good, and the one it `used`, in case the answer was lost.
    MemberRenewed { name: MemberName, used: String, serial: String },
    /// The member may not connect any more.
    MemberRevoked { name: MemberName },
    /// An operator's token was made.
    TokenCreated { name: MemberName, secret: Digest, scope: Scope },
    /// An operator's token was made that is opened by a certificate.
    OperatorCertified { name: MemberName, serial: String, scope: Scope },
    /// It may not be used any more.
    TokenRevoked { name: MemberName },
    /// Something that calls got a name, and perhaps a key.
    ApplicationCreated {
        name: MemberName,
        key: Option<KeyMade>,
        groups: BTreeSet<String>,
        certificates: BTreeSet<String>,
        clients: BTreeSet<(MemberName, String)>,
    },
    /// It got another key; those before count until then.
    ApplicationRotated { name: MemberName, key: KeyMade, before_until_ms: u64 },
    /// The time of some of its keys is over.
    ApplicationKeysEnded { name: MemberName, keys: BTreeSet<String> },
    /// It is known by nothing any more.
    ApplicationRevoked { name: MemberName },
    /// Somebody overrode a split on a proxy itself (`release`), or ended that (none).
    OverrideTold { proxy: MemberName, stage: StageName, release: Option<ReleaseNumber>, until_ms: u64 },
}

/// What is kept of an API key that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyMade {
    /// Part of the key by which people tell it from others; no secret.
    pub id: String,
    /// SHA-256 of the whole key.
    pub sha256: Digest,
    /// From then on it does not count, in milliseconds since the Unix epoch; none: it has no end.
    pub until_ms: Option<u64>,
}

impl Event {
    /// Its kind, as stored and as `history` filters by.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::EnvironmentApplied { .. } => "environment_applied",
            Self::ServiceApplied { .. } => "service_applied",
            Self::AccessApplied { .. } => "access_applied",
            Self::ReleaseRequested { .. } => "release_requested",
            Self::ReleaseAdded { .. } => "release_added",
            Self::BuildStarted { .. } => "build_started",
            Self::ReleaseBuilt { .. } => "release_built",
            Self::ReleaseFailed { .. } => "release_failed",
            Self::Promoted { .. } => "promoted",
            Self::PromotionFailed { .. } => "promotion_failed",
            Self::Entered { .. } => "entered",
            Self::ShareSet { .. } => "share_set",
            Self::Completed { .. } => "completed",
            Self::RolledBack { .. } => "rolled_back",
            Self::Unheld { .. } => "unheld",
            Self::WarmthEnded { .. } => "warmth_ended",
            Self::Retired { .. } => "retired",
            Self::Placed { .. } => "placed",
            Self::CertificatesReplaced { .. } => "certificates_replaced",
            Self::MemberInvited { .. } => "member_invited",
            Self::MemberJoined { .. } => "member_joined",
            Self::MemberRenewed { .. } => "member_renewed",
            Self::MemberRevoked { .. } => "member_revoked",
            Self::TokenCreated { .. } => "token_created",
            Self::OperatorCertified { .. } => "operator_certified",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::ApplicationCreated { .. } => "application_created",
            Self::ApplicationRotated { .. } => "application_rotated",
            Self::ApplicationKeysEnded { .. } => "application_keys_ended",
            Self::ApplicationRevoked { .. } => "application_revoked",
            Self::OverrideTold { .. } => "override_told",
        }
    }

    /// What it is about: a stage, a service, an environment or a member.
    pub fn about(&self) -> String {
        match self {
            Self::Started { .. } => "controller".to_owned(),
            Self::EnvironmentApplied { spec } => spec.name.to_string(),
            Self::ServiceApplied { spec } => spec.name.to_string(),
            Self::AccessApplied { .. } => "access".to_owned(),
            Self::CertificatesReplaced { environment, .. } => environment.to_string(),
            Self::ReleaseRequested { release, .. }
            | Self::ReleaseAdded { release, .. }
            | Self::BuildStarted { release }
            | Self::ReleaseBuilt { release, .. }
            | Self::ReleaseFailed { release, .. } => release.to_string(),
            Self::MemberInvited { name, .. }
            | Self::MemberJoined { name, .. }
            | Self::MemberRenewed { name, .. }
            | Self::MemberRevoked { name }
            | Self::TokenCreated { name, .. }
            | Self::OperatorCertified { name, .. }
            | Self::TokenRevoked { name }
            | Self::ApplicationCreated { name, .. }
            | Self::ApplicationRotated { name, .. }
            | Self::ApplicationKeysEnded { name, .. }
            | Self::ApplicationRevoked { name } => name.to_string(),
            other => other.stage().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The stage it is about, if it is about one: what proxies and agents should have may differ there afterwards.
    pub fn stage(&self) -> Option<&StageName> {
        match self {
            Self::Promoted { stage, .. }
            | Self::PromotionFailed { stage, .. }
            | Self::Entered { stage, .. }
            | Self::ShareSet { stage, .. }
            | Self::Completed { stage, .. }
            | Self::RolledBack { stage, .. }
            | Self::Unheld { stage, .. }
            | Self::WarmthEnded { stage, .. }
            | Self::Retired { stage, .. }
            | Self::Placed { stage, .. }
            | Self::OverrideTold { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// What happened, as a person says it.
    pub fn sentence(&self) -> String {
        match self {
            Self::Started { term } => format!("the controller started (term {term})"),
            Self::EnvironmentApplied { spec } => format!("environment {} in zone {} was applied", spec.name, spec.zone),
            Self::ServiceApplied { spec } => {
                let stages: Vec<_> = spec.stages.keys().map(ToString::to_string).collect();
                format!("service {} with stages {} was applied", spec.name, stages.join(", "))
            }
            Self::ReleaseRequested { release, commit, subject, .. } => {
                format!("{release} was asked for from {} ({subject})", short(commit))
            }
            Self::ReleaseAdded { release, version, .. } => format!("{release} {version} was added").replace("  ", " "),
            Self::BuildStarted { release } => format!("the build of {release} began"),
            Self::ReleaseBuilt { release, artifacts, .. } => {
                let digests: Vec<_> =
                    artifacts.iter().map(|(name, artifact)| format!("{name} {}", artifact.digest.short())).collect();
                format!("{release} was built: {}", digests.join(", "))
            }
            Self::ReleaseFailed { release, problem } => format!("{release} failed: {problem}"),
            Self::Promoted { stage, release, share, starting_until_ms, rollback, bypass } => {
                let verb = if *rollback { "is fetched back into" } else { "was promoted to" };
                let starts = if starting_until_ms.is_some() { "; it starts first" } else { "" };
                let bypass = if *bypass { "; it has not run upstream" } else { "" };
                format!("{release} {verb} {stage} for {share}{starts}{bypass}")
            }
            Self::PromotionFailed { stage, release, problem, .. } => {
                format!("{release} did not get into {stage}: {problem}")
            }
            Self::Entered { stage, release } => format!("{release} has started in {stage}"),
            Self::ShareSet { stage, release, share } => format!("{release} gets {share} of {stage}"),
            Self::Completed { stage, release, .. } => format!("{release} serves all of {stage}"),
            Self::RolledBack { stage, from, to, .. } => format!("{stage} was rolled back from {from} to {to}"),
            Self::Unheld { stage, release } => format!("{release} is no longer marked bad in {stage}"),
            Self::WarmthEnded { stage, release, .. } => format!("{release} is no longer kept warm in {stage}"),
            Self::Retired { stage, release } => format!("{release} has left {stage}"),
            Self::Placed { stage, release, agent, address } => {
                format!("{release} of {stage} runs on {agent} at {address}")
            }
            Self::CertificatesReplaced { environment, source, certificates, .. } => {
                let names: Vec<_> = certificates.iter().flat_map(|one| one.names.first()).map(String::as_str).collect();
                format!("{environment} has a new certificate from {source}: {}", names.join(", "))
            }
            Self::MemberInvited { name, role, .. } => format!("{role} {name} was invited"),
            Self::MemberJoined { name, .. } => format!("{name} joined the fleet"),
            Self::MemberRenewed { name, .. } => format!("the certificate of {name} was renewed"),
            Self::MemberRevoked { name } => format!("{name} was revoked"),
            Self::TokenCreated { name, scope, .. } => format!("token {name} was made for {}", verbs(scope)),
            Self::OperatorCertified { name, scope, .. } => {
                format!("token {name} was made for {}, opened by a certificate", verbs(scope))
            }
            Self::TokenRevoked { name } => format!("token {name} was revoked"),
            Self::AccessApplied { spec } => {
                let (issuers, documents) = (names(spec.issuers.keys()), names(spec.documents.keys()));
                format!("who may pass was applied: issuers {issuers}; policies {documents}")
            }
            Self::ApplicationCreated { name, key, groups, .. } => {
                let key =
                    key.as_ref().map_or_else(|| "without a key".to_owned(), |key| format!("with the key {}", key.id));
                format!("application {name} was made {key}, in groups {}", names(groups.iter()))
            }
            Self::ApplicationRotated { name, key, .. } => format!("application {name} has the new key {}", key.id),
            Self::ApplicationKeysEnded { name, keys } => {
                format!("the time of keys of application {name} is over: {}", names(keys.iter()))
            }
            Self::ApplicationRevoked { name } => format!("application {name} was revoked"),
            Self::OverrideTold { proxy, stage, release: Some(release), .. } => {
                format!("{proxy} was told on the spot to send {stage} to {release}")
            }
            Self::OverrideTold { proxy, stage, release: None, .. } => {
                format!("the override of {stage} on {proxy} ended")
            }
        }
    }
}

/// Names with commas between them, or "none".
fn names<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<_> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn verbs(scope: &Scope) -> String {
    scope.verbs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The first 12 digits of a commit hash, or "nowhere".
pub(crate) fn short(commit: &str) -> &str {
    if commit.is_empty() { "no commit" } else { commit.get(..12).unwrap_or(commit) }
}
