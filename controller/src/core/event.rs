//! What happened: the only thing that is ever written down, and never changed afterwards.

mod marks;
pub(crate) mod odds;
mod release;
mod rollout;
mod sentence;

use std::collections::{BTreeMap, BTreeSet};

use api::{
    ComponentName, Digest, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Scope, ServiceName, Share,
    StageName,
};
use certs::fleet::Role;
use serde::{Deserialize, Serialize};

use super::spec::{AccessSpec, BuildSpec, ComponentSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec};
use super::state::{
    Addresses, Artifact, Begun, BuildStep, CertificateRecord, CheckDone, Earned, Marked, Wanted, WatchEnd, Watching,
    Why,
};

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
    /// What the operator says of releases is as written from now on, in place of all before.
    ReleasesApplied { spec: Box<ReleasesSpec> },
    /// A service is as the main branch of a repository says from now on.
    ServiceRegistered { repository: MemberName, commit: String, spec: Box<ServiceSpec> },

    /// A release was asked for and waits for its build.
    ReleaseRequested {
        release: ReleaseName,
        #[serde(flatten)]
        wanted: Box<Wanted>,
    },
    /// A release made elsewhere was added; it is ready.
    ReleaseAdded {
        release: ReleaseName,
        version: String,
        commit: String,
        components: BTreeMap<ComponentName, ComponentSpec>,
        addresses: Vec<Addresses>,
        #[serde(default)]
        artifacts: BTreeMap<ComponentName, Artifact>,
        #[serde(default)]
        for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    },
    /// Its build began.
    BuildStarted { release: ReleaseName },
    /// Its build succeeded; it is ready. All artifacts at once: all or none.
    ReleaseBuilt {
        release: ReleaseName,
        components: BTreeMap<ComponentName, ComponentSpec>,
        artifacts: BTreeMap<ComponentName, Artifact>,
        #[serde(default)]
        for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
        #[serde(default)]
        build: Option<Box<BuildSpec>>,
        #[serde(default)]
        checks: Vec<CheckDone>,
        #[serde(default)]
        kept_from: Option<ReleaseNumber>,
    },
    /// Its build failed.
    ReleaseFailed {
        release: ReleaseName,
        problem: String,
        #[serde(default)]
        step: Option<BuildStep>,
        #[serde(default)]
        exit: Option<i32>,
        #[serde(default)]
        checks: Vec<CheckDone>,
    },
    /// Somebody wants its build to end, which takes a moment.
    BuildCancelAsked { release: ReleaseName },
    /// Its build was ended, or it was taken out of the queue.
    ReleaseCancelled { release: ReleaseName },
    /// It waited for its build, and a newer commit came, which `by` is made of.
    ReleaseOvertaken { release: ReleaseName, by: ReleaseNumber },
    /// These tags of the repository were seen for the first time, each with its commit.
    TagsSeen { service: ServiceName, tags: BTreeMap<String, String> },
    /// Its log, or its artifacts, are gone from the controller's disk.
    ReleaseTrimmed { release: ReleaseName, log: bool, artifacts: bool },
    /// It is no longer listed; what happened to it stays on record.
    ReleaseForgotten { release: ReleaseName },
    /// What it does cannot be taken back by running an older one: nothing goes back past it unasked.
    ReleaseMarked { release: ReleaseName, reason: String },
    /// That mark was taken away.
    ReleaseUnmarked { release: ReleaseName },
    /// Somebody lets `to` serve in the stage although these ran there, which are marked not reversible. What that does follows.
    MarksPassed { stage: StageName, to: ReleaseNumber, marks: Vec<Marked> },

    /// A release was let into a stage; it has to start first when `starting_until_ms` is given. `past`: it may go past
    /// releases that are marked not reversible, up to this one.
    Promoted {
        stage: StageName,
        release: ReleaseNumber,
        share: Share,
        starting_until_ms: Option<u64>,
        rollback: bool,
        bypass: bool,
        #[serde(default)]
        rollout: Option<Box<Begun>>,
        #[serde(default)]
        past: Option<ReleaseNumber>,
    },
    /// It could not be started; the stage is as it was.
    PromotionFailed { stage: StageName, release: ReleaseNumber, problem: String, until_ms: u64 },
    /// It has started and takes its share.
    Entered { stage: StageName, release: ReleaseNumber },
    /// The share of the entering release.
    ShareSet { stage: StageName, release: ReleaseNumber, share: Share },
    /// The entering release serves everything; the one before is kept warm, and perhaps something is watched meanwhile.
    Completed {
        stage: StageName,
        release: ReleaseNumber,
        warm_until_ms: u64,
        #[serde(default)]
        watching: Option<Box<Watching>>,
    },
    /// Everything goes to `to` again; `from` is kept warm, and may be marked bad. `why`: what the controller saw that did it
    /// by itself.
    RolledBack {
        stage: StageName,
        from: ReleaseNumber,
        to: ReleaseNumber,
        warm_until_ms: u64,
        bad: bool,
        #[serde(default)]
        why: Option<Box<Why>>,
    },
    /// A canary takes the step `step` (from 0) of `of`, by what the one before earned; none: somebody skipped its rest.
    StepTaken {
        stage: StageName,
        release: ReleaseNumber,
        rollout: u64,
        step: u32,
        of: u32,
        share: Share,
        earned: Option<Box<Earned>>,
    },
    /// Blue-green: all was well before the flip; none: somebody skipped that.
    Flipped { stage: StageName, release: ReleaseNumber, earned: Option<Box<Earned>> },
    /// The step is over but for the canary's latency, which has to be flat first.
    WarmingUp { stage: StageName, release: ReleaseNumber, rollout: u64 },
    /// From now on an answer that takes longer is slow: what is dealt out from here on is judged by that.
    SlowBoundSet { stage: StageName, release: ReleaseNumber, rollout: u64, slow_us: u64 },
    /// Nothing moves by itself until it is resumed.
    RolloutPaused { stage: StageName, release: ReleaseNumber },
    /// It goes on, with this share. Under another number it was frozen, and all counts begin anew.
    RolloutResumed { stage: StageName, release: ReleaseNumber, rollout: u64, share: Share },
    /// It is worse, and somebody has to say what becomes of it. `held`: it would have gone out by itself, but for this
    /// release, which is marked not reversible.
    RolloutFrozen {
        stage: StageName,
        release: ReleaseNumber,
        rollout: u64,
        share: Share,
        why: Box<Why>,
        #[serde(default)]
        held: Option<Marked>,
    },
    /// From now on somebody moves the share; the rollout's steps count no more.
    TakenOver { stage: StageName, release: ReleaseNumber, rollout: u64 },
    /// It left for another one that was promoted meanwhile; no mark.
    Replaced { stage: StageName, release: ReleaseNumber, by: ReleaseNumber, warm_until_ms: u64 },
    /// It waits until the rollout under way has ended. `past`: as of [`Event::Promoted`].
    Queued {
        stage: StageName,
        release: ReleaseNumber,
        share: Option<Share>,
        bypass: bool,
        #[serde(default)]
        past: Option<ReleaseNumber>,
    },
    /// It waits no more and does not enter.
    Dropped { stage: StageName, release: ReleaseNumber, because: String },
    /// The stage's objective is broken, and nothing was done about it: as the stage says, or because of `problem`. Or a
    /// release is fetched back, which takes its time.
    Breached {
        stage: StageName,
        release: ReleaseNumber,
        rollout: u64,
        why: Box<Why>,
        problem: String,
        #[serde(default)]
        fetched_back: Option<ReleaseNumber>,
    },
    /// Blue-green: the watch after the flip is over, after so long, with what it saw; none: nobody looked, as somebody ended it.
    WatchEnded {
        stage: StageName,
        release: ReleaseNumber,
        rollout: u64,
        earned: Option<Box<Earned>>,
        #[serde(default)]
        took_ms: u64,
        #[serde(default)]
        cause: WatchEnd,
    },
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
            Self::ReleasesApplied { .. } => "releases_applied",
            Self::ServiceRegistered { .. } => "service_registered",
            Self::ReleaseRequested { .. } => "release_requested",
            Self::ReleaseAdded { .. } => "release_added",
            Self::BuildStarted { .. } => "build_started",
            Self::ReleaseBuilt { .. } => "release_built",
            Self::ReleaseFailed { .. } => "release_failed",
            Self::BuildCancelAsked { .. } => "build_cancel_asked",
            Self::ReleaseCancelled { .. } => "release_cancelled",
            Self::ReleaseOvertaken { .. } => "release_overtaken",
            Self::TagsSeen { .. } => "tags_seen",
            Self::ReleaseTrimmed { .. } => "release_trimmed",
            Self::ReleaseForgotten { .. } => "release_forgotten",
            Self::ReleaseMarked { .. } => "release_marked",
            Self::ReleaseUnmarked { .. } => "release_unmarked",
            Self::MarksPassed { .. } => "marks_passed",
            Self::Promoted { .. } => "promoted",
            Self::PromotionFailed { .. } => "promotion_failed",
            Self::Entered { .. } => "entered",
            Self::ShareSet { .. } => "share_set",
            Self::Completed { .. } => "completed",
            Self::RolledBack { .. } => "rolled_back",
            Self::StepTaken { .. } => "step_taken",
            Self::Flipped { .. } => "flipped",
            Self::WarmingUp { .. } => "warming_up",
            Self::SlowBoundSet { .. } => "slow_bound_set",
            Self::RolloutPaused { .. } => "rollout_paused",
            Self::RolloutResumed { .. } => "rollout_resumed",
            Self::RolloutFrozen { .. } => "rollout_frozen",
            Self::TakenOver { .. } => "taken_over",
            Self::Replaced { .. } => "replaced",
            Self::Queued { .. } => "queued",
            Self::Dropped { .. } => "dropped",
            Self::Breached { .. } => "breached",
            Self::WatchEnded { .. } => "watch_ended",
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
            Self::ReleasesApplied { .. } => "releases".to_owned(),
            Self::ServiceRegistered { spec, .. } => spec.name.to_string(),
            Self::TagsSeen { service, .. } => service.to_string(),
            Self::CertificatesReplaced { environment, .. } => environment.to_string(),
            Self::ReleaseRequested { release, .. }
            | Self::ReleaseAdded { release, .. }
            | Self::BuildStarted { release }
            | Self::ReleaseBuilt { release, .. }
            | Self::ReleaseFailed { release, .. }
            | Self::BuildCancelAsked { release }
            | Self::ReleaseCancelled { release }
            | Self::ReleaseOvertaken { release, .. }
            | Self::ReleaseTrimmed { release, .. }
            | Self::ReleaseForgotten { release }
            | Self::ReleaseMarked { release, .. }
            | Self::ReleaseUnmarked { release } => release.to_string(),
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
            | Self::StepTaken { stage, .. }
            | Self::Flipped { stage, .. }
            | Self::WarmingUp { stage, .. }
            | Self::SlowBoundSet { stage, .. }
            | Self::RolloutPaused { stage, .. }
            | Self::RolloutResumed { stage, .. }
            | Self::RolloutFrozen { stage, .. }
            | Self::TakenOver { stage, .. }
            | Self::Replaced { stage, .. }
            | Self::Queued { stage, .. }
            | Self::Dropped { stage, .. }
            | Self::Breached { stage, .. }
            | Self::WatchEnded { stage, .. }
            | Self::MarksPassed { stage, .. }
            | Self::Unheld { stage, .. }
            | Self::WarmthEnded { stage, .. }
            | Self::Retired { stage, .. }
            | Self::Placed { stage, .. }
            | Self::OverrideTold { stage, .. } => Some(stage),
            _ => None,
        }
    }
}

/// The first 12 digits of a commit hash, or "nowhere".
pub(crate) fn short(commit: &str) -> &str {
    if commit.is_empty() { "no commit" } else { commit.get(..12).unwrap_or(commit) }
}
