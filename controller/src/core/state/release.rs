//! Releases: what can serve, how far it is, and where it was put by hand.

use std::collections::BTreeMap;

use api::{ComponentName, Digest, EnvironmentName, ReleaseNumber};
use serde::{Deserialize, Serialize};

use crate::core::spec::ComponentSpec;

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
    /// Nothing goes back past it unasked; none: it can be left like any other.
    #[serde(default)]
    pub not_reversible: Option<NotReversible>,
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
