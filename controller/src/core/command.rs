//! What can be asked for, by people and by the controller's own drivers, and the two ways to answer.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    ComponentName, Digest, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Scope, ServiceName, Share,
    StageName,
};
use certs::fleet::Role;

use super::event::{Event, KeyMade};
use super::observe::RolloutSeen;
use super::spec::{AccessSpec, BuildSpec, ComponentSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec};
use super::state::{Addresses, Artifact, BuildStep, CertificateRecord, CheckDone, Wanted};

/// A wish. People's come with a name and perhaps a reason; drivers' tell what they saw or did.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "fields are named after the words of the design; each variant says what is asked for")]
pub enum Command {
    /// A controller begins to lead, with a term above its own last one and above `above`.
    Start { above: u64 },
    /// Files, all or nothing.
    Apply {
        environments: Vec<EnvironmentSpec>,
        services: Vec<ServiceSpec>,
        access: Option<AccessSpec>,
        releases: Option<Box<ReleasesSpec>>,
    },
    /// Driver: a repository's branch describes these services at this commit; each already checked as `apply` checks files.
    Register { repository: MemberName, commit: String, services: Vec<ServiceSpec> },
    /// Driver: these tags of a service's repository were seen, each with its commit.
    NoticeTags { service: ServiceName, tags: BTreeMap<String, String> },

    /// Build a commit, which the caller has found in the repository. `again`: although it was built already.
    Build { service: ServiceName, wanted: Box<Wanted>, again: bool },
    /// Take over what was made elsewhere.
    AddRelease {
        service: ServiceName,
        version: String,
        commit: String,
        addresses: Vec<Addresses>,
        artifacts: Vec<GivenArtifact>,
    },
    /// End a build, or take it out of the queue.
    CancelBuild { release: ReleaseName },
    /// Build the commit of a release that failed or was cancelled once more, as a new one.
    RetryRelease { release: ReleaseName },
    /// Say that what the release does can, or cannot, be taken back by running an older one; the reason is what it does.
    MarkRelease { release: ReleaseName, reversible: bool },
    /// Let a release into a stage.
    Promote { release: ReleaseName, environment: EnvironmentName, share: Option<Share>, bypass: bool },
    /// Change the share of the entering release.
    Weigh { stage: StageName, share: Share },
    /// Let nothing move by itself in the rollout under way.
    PauseRollout { stage: StageName },
    /// Let it go on: after a pause, of a step that waits for it, or although it froze.
    ResumeRollout { stage: StageName },
    /// Take the next step now, whatever the rest of this one asks for.
    SkipStep { stage: StageName },
    /// Take the entering release out. `bad`: mark it so even if it was not frozen as worse.
    AbortRollout { stage: StageName, bad: bool },
    /// Everything back to an earlier release.
    Rollback { stage: StageName, to: Option<ReleaseNumber> },
    /// Take away the mark "bad".
    Unhold { stage: StageName, release: ReleaseNumber },

    /// Give out a one-time token.
    Invite { name: MemberName, role: Role, group: String, secret: Digest, until_ms: u64 },
    /// A token was used; the certificate has this serial.
    Join { name: MemberName, serial: String },
    /// Give a member another certificate, with the serial `serial`, in place of the one with the serial `used`, which
    /// counts from `from_ms` on.
    RenewMember { name: MemberName, used: String, from_ms: u64, serial: String },
    /// Shut a member out.
    RevokeMember { name: MemberName },
    /// Make an operator's token.
    CreateToken { name: MemberName, secret: Digest, scope: Scope },
    /// Make an operator's token that is opened by the certificate with this serial.
    CertifyOperator { name: MemberName, serial: String, scope: Scope },
    /// Shut its bearer out.
    RevokeToken { name: MemberName },

    /// Give something that calls a name, and a key unless it is known by other things.
    CreateApplication { name: MemberName, new: NewApplication, key: Option<KeyMade> },
    /// Give it another key; those before count for so long.
    RotateApplication { name: MemberName, key: KeyMade, overlap_ms: u64 },
    /// Know it no more.
    RevokeApplication { name: MemberName },

    /// An environment's source has brought other certificates, which are kept already.
    ReplaceCertificates {
        environment: EnvironmentName,
        source: String,
        key: String,
        certificates: Vec<CertificateRecord>,
    },

    /// Driver: a build begins.
    BeginBuild { release: ReleaseName },
    /// Driver: a build ended.
    EndBuild { release: ReleaseName, outcome: Result<Built, BuildFailed> },
    /// Driver: it waits for its build, and `by` is made of a newer commit of the same branch.
    Overtake { release: ReleaseName, by: ReleaseNumber },
    /// Driver: nothing needs its log, or its artifacts, any more.
    Trim { release: ReleaseName, log: bool, artifacts: bool },
    /// Driver: it need not be listed any more.
    Forget { release: ReleaseName },
    /// Driver: the entering release is healthy wherever it should be.
    Enter { stage: StageName, release: ReleaseNumber },
    /// Driver: it did not become so in time.
    FailPromotion { stage: StageName, release: ReleaseNumber, problem: String },
    /// Driver: this was seen of a rollout, and something follows from it.
    MoveRollout { stage: StageName, seen: Box<RolloutSeen> },
    /// Driver: the rollout that it waits for has ended.
    EnterQueued { stage: StageName, release: ReleaseNumber },
    /// Driver: the time of a warm release is over.
    EndWarmth { stage: StageName, release: ReleaseNumber },
    /// Driver: a draining release serves nobody any more, or its time is over.
    Retire { stage: StageName, release: ReleaseNumber },
    /// Driver: an agent runs a routed component there.
    Place { stage: StageName, release: ReleaseNumber, agent: MemberName, address: std::net::SocketAddr },
    /// Driver: the time of some keys of an application is over.
    EndKeys { name: MemberName },
    /// Driver: a proxy tells of an override.
    TellOverride { proxy: MemberName, stage: StageName, release: Option<ReleaseNumber>, until_ms: u64 },
}

/// What an application is known by, besides its key, and what it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewApplication {
    /// Groups that it is in.
    pub groups: BTreeSet<String>,
    /// Names in client certificates that stand for it: URIs and DNS names.
    pub certificates: BTreeSet<String>,
    /// Name of the issuer, and `azp` or else `client_id` of tokens that stand for it.
    pub clients: BTreeSet<(MemberName, String)>,
}

/// What a build made.
#[derive(Debug, Clone)]
pub struct Built {
    /// Frozen into the release.
    pub components: BTreeMap<ComponentName, ComponentSpec>,
    /// What is the same in all environments; with `for_environments` one per component, or more where it is per environment.
    pub artifacts: BTreeMap<ComponentName, Artifact>,
    /// What is for one environment each.
    pub for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    /// How it was built.
    pub build: Option<BuildSpec>,
    /// What was asked of it.
    pub checks: Vec<CheckDone>,
    /// Only configuration has changed since that one.
    pub kept_from: Option<ReleaseNumber>,
}

/// Why a build made nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildFailed {
    /// One sentence.
    pub problem: String,
    /// In which step.
    pub step: Option<BuildStep>,
    /// Exit status of the program that failed, if one did.
    pub exit: Option<i32>,
    /// What was asked of it before.
    pub checks: Vec<CheckDone>,
}

/// An artifact that something else has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenArtifact {
    /// Only there; none: in every environment.
    pub environment: Option<EnvironmentName>,
    /// The component.
    pub component: ComponentName,
    /// By its digest.
    pub artifact: Artifact,
}

/// Who asks, why and when.
#[derive(Debug, Clone)]
pub struct Context {
    /// Token name, or "controller".
    pub by: String,
    /// May be empty.
    pub reason: String,
    /// Milliseconds since the Unix epoch; never before the last event.
    pub now_ms: u64,
    /// The highest release, marked not reversible, that may be left behind by this; none: no such one.
    pub past: Option<ReleaseNumber>,
}

/// The answer to a command that is carried out. Without events, all was so already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// What happens, in order.
    pub events: Vec<Event>,
    /// What a person should know about it, a sentence each.
    pub lines: Vec<String>,
}

/// The answer to a command that is not carried out: nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such thing.
    Unknown(String),
    /// It cannot be done as things are; says what can be done instead.
    Refused(String),
    /// It goes past releases that are marked not reversible, of which this is the highest, and nobody said so.
    Marked(ReleaseNumber, String),
    /// The input is wrong: every mistake, a sentence each.
    Wrong(Vec<String>),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(sentence) | Self::Refused(sentence) | Self::Marked(_, sentence) => f.write_str(sentence),
            Self::Wrong(mistakes) => f.write_str(&mistakes.join("\n")),
        }
    }
}

impl std::error::Error for Refusal {}

impl Decision {
    /// Nothing has to change; says why.
    pub(super) fn already(line: impl Into<String>) -> Self {
        Self { events: Vec::new(), lines: vec![line.into()] }
    }

    /// One event, told by its own sentence.
    pub(super) fn one(event: Event) -> Self {
        Self { lines: vec![event.sentence()], events: vec![event] }
    }
}
