//! Releases: what can serve, how far it is, and where it was put by hand.

use std::collections::{BTreeMap, BTreeSet};

use api::{ComponentName, Digest, EnvironmentName, ReleaseNumber};
use registry::Place;
use serde::{Deserialize, Serialize};

use crate::core::spec::{BuildSpec, ComponentSpec};

/// An immutable, numbered thing that can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What it was made of, and why.
    pub wanted: Wanted,
    /// How far it is.
    pub progress: ReleaseProgress,
    /// Somebody has asked for the end of its build.
    pub cancel_asked: bool,
    /// Who; empty: nobody.
    pub cancel_by: String,
    /// When it was asked for.
    pub created_ms: u64,
    /// When its build began last; none: it did not.
    pub begun_ms: Option<u64>,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Frozen when it became ready.
    pub components: BTreeMap<ComponentName, ComponentSpec>,
    /// How it was built; none: it was not, or by a version that did not write it down.
    pub build: Option<BuildSpec>,
    /// What was built for all environments.
    pub artifacts: BTreeMap<ComponentName, Artifact>,
    /// What was built for one environment each.
    pub for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    /// What was asked of it after it was built.
    pub checks: Vec<CheckDone>,
    /// Only configuration has changed since that one, whose artifacts these are.
    pub kept_from: Option<ReleaseNumber>,
    /// What retention has removed of it.
    pub trimmed: Trimmed,
    /// Where it runs in environments with a static target.
    pub addresses: Vec<Addresses>,
    /// Nothing goes back past it unasked; none: it can be left like any other.
    pub not_reversible: Option<NotReversible>,
}

/// What a release is made of, and what asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Tag or version given by hand; may be empty.
    pub version: String,
    /// Full commit hash; may be empty for one added by hand.
    pub commit: String,
    /// First line of the commit's message.
    #[serde(default)]
    pub subject: String,
    /// Author of the commit; may be empty.
    #[serde(default)]
    pub author: String,
    /// The tag by which it was asked for, which must still name the commit when it is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What asked for it.
    #[serde(default)]
    pub trigger: Trigger,
    /// It stands on an older release and leaves out what came since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_fix: Option<HotFix>,
    /// Commits since the last one that was asked for, which have no release of their own.
    #[serde(default)]
    pub overtook: Overtook,
    /// It is another attempt at that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<ReleaseNumber>,
}

/// What asked for a release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody.
    #[default]
    ByHand,
    /// A new head of the branch.
    Commit {
        /// Which branch.
        branch: String,
    },
    /// A new tag.
    Tag,
    /// The time.
    Schedule,
}

/// On what a hot fix stands, and what it adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotFix {
    /// The release that it mends.
    pub of: ReleaseNumber,
    /// The commit of that release.
    pub base: String,
    /// The branch that stands on it; none: it is made of picks.
    pub branch: Option<String>,
    /// Commits put on top, in this order.
    pub picks: Vec<CommitNamed>,
}

/// A commit, as people name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitNamed {
    /// Full hash.
    pub id: String,
    /// First line of its message, at most 200 characters.
    pub subject: String,
}

/// Commits that have no release of their own, because a newer one overtook them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overtook {
    /// Newest first, at most 100.
    pub commits: Vec<CommitNamed>,
    /// So many more.
    pub more: u32,
    /// The branch was rewritten: what was asked for before is no ancestor of this one.
    pub rewritten: bool,
}

/// What retention has removed of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trimmed {
    /// Its log, then.
    pub log_ms: Option<u64>,
    /// Its artifacts, then: it cannot be promoted any more.
    pub artifacts_ms: Option<u64>,
}

/// A check of what was built, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDone {
    /// Its name.
    pub name: String,
    /// What it said.
    pub verdict: CheckVerdict,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What a check of a release said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckVerdict {
    /// Exit status 0.
    Well,
    /// This exit status.
    Failed(i32),
    /// It did not come to an end by itself: why.
    Ended(String),
}

/// What a release did, once it ran, cannot be taken back by running an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReversible {
    /// What it did: "drops the column names".
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When.
    pub at_ms: u64,
}

/// A release with that mark, as events and refusals name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Which.
    pub release: ReleaseNumber,
    /// As [`NotReversible::reason`].
    pub reason: String,
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
        /// In which step; none: a version that did not write it down.
        #[serde(default)]
        step: Option<BuildStep>,
        /// Exit status of the program that failed, if one did.
        #[serde(default)]
        exit: Option<i32>,
    },
    /// Somebody has ended its build, or taken it out of the queue. Terminal.
    Cancelled {
        /// Since when.
        at_ms: u64,
        /// Who.
        by: String,
    },
    /// It waited for its build, and a newer commit of the same branch came. Terminal.
    Overtaken {
        /// Since when.
        at_ms: u64,
        /// The release of the newer commit.
        by: ReleaseNumber,
    },
}

/// Where in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStep {
    /// The commit's files are put into the workspace.
    Checkout,
    /// The build command runs.
    Command,
    /// Folders and digest files are looked for.
    Outputs,
    /// Folders become artifacts.
    Pack,
    /// They go to the registry.
    Push,
    /// The release's checks run.
    Check,
    /// The controller ended meanwhile, and a second run could push something else.
    Interrupted,
}

/// A built component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of its layers.
    pub bytes: u64,
    /// What it is.
    #[serde(default)]
    pub kind: ArtifactKind,
    /// Where it is besides the controller's disk; images are only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// What an artifact is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactKind {
    /// A folder that we packed.
    #[default]
    Folder,
    /// An image that something else has pushed.
    Image,
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

// === impl Release ===

impl Release {
    /// The component that is routed to, with how it is spoken to.
    pub fn routed(&self) -> Option<(&ComponentName, &ComponentSpec)> {
        self.components.iter().find(|(_, component)| component.protocol.is_some())
    }

    /// Whether an agent could run what is routed to, in that environment.
    pub fn can_run(&self, environment: &EnvironmentName) -> bool {
        self.routed().is_some_and(|(name, spec)| !spec.run.is_empty() && self.artifact(name, environment).is_some())
    }

    /// What a component is in an environment: what was built for it, else what was built for all.
    pub fn artifact(&self, component: &ComponentName, environment: &EnvironmentName) -> Option<&Artifact> {
        let own = self.for_environments.get(environment).and_then(|artifacts| artifacts.get(component));
        own.or_else(|| self.artifacts.get(component))
    }

    /// All its artifacts, each with the environment that it is for; none: for all.
    pub fn all_artifacts(&self) -> impl Iterator<Item = (Option<&EnvironmentName>, &ComponentName, &Artifact)> {
        let common = self.artifacts.iter().map(|(name, artifact)| (None, name, artifact));
        let own = self.for_environments.iter();
        let own = own.flat_map(|(at, all)| all.iter().map(move |(name, artifact)| (Some(at), name, artifact)));
        common.chain(own)
    }

    /// Digests of all its artifacts.
    pub fn digests(&self) -> BTreeSet<Digest> {
        self.all_artifacts().map(|(_, _, artifact)| artifact.digest).collect()
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
        !matches!(self, Self::Queued | Self::Building)
    }
}
