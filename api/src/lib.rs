//! The contract between the parts of Pointsman: generated messages and services, and the value types that both sides
//! parse the same way.
//!
//! Must not know: sockets, files, clocks, or which part it is compiled into. Everything here is a value.
//!
//! Main types: the names ([`ServiceName`], [`StageName`], [`ReleaseName`]...), [`Share`] and [`Weight`], [`Digest`],
//! [`Version`], [`Scope`], and the messages in [`fleet`], [`agent`] and [`operator`].

mod digest;
mod field;
mod fingerprint;
mod histogram;
mod host;
mod join_token;
mod names;
mod scope;
mod share;
mod span;
mod version;

pub use digest::Digest;
pub use field::{OUR_FIELDS, is_the_services};
pub use fingerprint::Fingerprint;
pub use histogram::Histogram;
pub use host::{Host, HostTarget};
pub use join_token::JoinToken;
pub use names::{ComponentName, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, ServiceName, StageName};
pub use scope::{Scope, Verb};
pub use share::{Share, Weight};
pub use span::Span;
pub use version::Version;

/// Metadata of a refused change that goes past releases marked not reversible: the number of the highest, which has to be
/// named.
pub const PAST_KEY: &str = "pointsman-past";

/// What a text should have been: the error of every value type that is parsed from text.
///
/// Displays as one sentence that names what was written and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAccepted {
    /// What was being read, with its article: "a service name", "a share".
    pub what: &'static str,
    /// What was written, cut to a readable length.
    pub written: String,
    /// The accepted form, in words with an example.
    pub accepted: &'static str,
}

impl NotAccepted {
    /// `written` may be of any length: its beginning is kept.
    pub fn new(what: &'static str, written: &str, accepted: &'static str) -> Self {
        // 64 characters show the mistake; a 10 MB name must not become a 10 MB message. Debug form escapes controls.
        let mut shown: String = written.chars().take(64).collect();
        if shown.len() < written.len() {
            shown.push('…');
        }
        Self { what, written: shown, accepted }
    }
}

impl std::fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not {}: accepted is {}", self.written, self.what, self.accepted)
    }
}

impl std::error::Error for NotAccepted {}

/// Gives a type its text form in serde: written by `Display`, read by `FromStr`.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

/// Generated from `proto/pointsman/fleet/v1`: controller and proxy, and joining.
pub mod fleet {
    pub use v1::*;

    #[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
    pub(crate) mod v1 {
        tonic::include_proto!("pointsman.fleet.v1");
    }
}

/// Generated from `proto/pointsman/agent/v1`: controller and agent.
pub mod agent {
    pub use v1::*;

    #[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
    pub(crate) mod v1 {
        tonic::include_proto!("pointsman.agent.v1");
    }
}

/// Generated from `proto/pointsman/operator/v1`: people and controller.
pub mod operator {
    pub use v1::*;

    #[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications)]
    pub(crate) mod v1 {
        tonic::include_proto!("pointsman.operator.v1");
    }
}

/// The highest resource schema that this software understands (see `Resource.schema`).
///
/// It writes the least that a resource needs, so that a proxy of an earlier version goes on as long as it can.
pub const RESOURCE_SCHEMA: u32 = SCHEMA_ROLLOUT;

/// The schema of a stage with endpoints behind TLS: a proxy that passed over it would speak to them in clear.
pub const SCHEMA_ENDPOINT_TLS: u32 = 2;

/// The schema of a zone whose hosts are for https: a proxy that passed over it would serve them in clear.
pub const SCHEMA_HTTPS: u32 = 2;

/// The schema of everything that came with sealed keys: a proxy that passed over it would have a certificate without its
/// key, let clients in unasked, or take an endpoint for what it is not.
pub const SCHEMA_SEALED: u32 = 3;

/// Schema of resources that say who may pass: [`fleet::StageAccess`] in a stage, issuers, applications, policies, entities,
/// and the keys of assertions and explanations.
pub const SCHEMA_ACCESS: u32 = 4;

/// Schema of a split whose callers keep their release, or that some requests pass by: a proxy that passed over it would deal
/// them out anew.
pub const SCHEMA_ROLLOUT: u32 = 5;

/// Most header rules of a split that a proxy accepts.
pub const HEADER_RULES_MOST: usize = 16;

/// Most requests that a tripwire looks back on: a bit of one word for each.
pub const TRIPWIRE_MOST: u32 = 64;

/// Most epochs of a rollout that a proxy counts and reports, and the judge listens to: the newest. What began so long ago has
/// ended, or is a stream.
pub const EPOCHS_MOST: usize = 8;

/// Most issuers that a proxy accepts. Each may cost a fetch of keys and a place to keep them.
pub const ISSUERS_MOST: usize = 256;

/// Most applications that a proxy accepts.
pub const APPLICATIONS_MOST: usize = 100_000;

/// Most policy documents that a proxy accepts.
pub const POLICIES_MOST: usize = 4_096;

/// Longest policy document, and longest text with entities, that a proxy accepts, in bytes: 4 MiB.
pub const POLICY_BYTES: usize = 4 * 1024 * 1024;

/// Most entries of one artifact: far above any real one, far below what fills a disk. Neither packed nor unpacked beyond.
pub const ARTIFACT_ENTRIES: usize = 200_000;

/// Most bytes of one artifact, of its files together and of its layer. Neither packed nor unpacked beyond.
pub const ARTIFACT_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Largest encoded [`fleet::Change`] that is sent in one message; larger ones go as [`fleet::Transfer`] pieces.
///
/// Well below tonic's 4 MiB limit, and small enough that a rollback behind it in the stream waits less than 1 ms.
pub const CHANGE_BYTES: usize = 256 * 1024;

/// Size of one [`fleet::Transfer`] piece.
pub const PIECE_BYTES: usize = 256 * 1024;
