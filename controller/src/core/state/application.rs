//! Applications: what calls, on behalf of users or its own.

use std::collections::BTreeSet;

use api::{Digest, MemberName};
use serde::{Deserialize, Serialize};

/// An application with what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its API keys, the newest last; those whose time is over are kept for a day, at most until the next rotation.
    pub keys: Vec<ApiKey>,
    /// Groups that it is in.
    pub groups: BTreeSet<String>,
    /// Names in client certificates that stand for it: URIs and DNS names.
    pub certificates: BTreeSet<String>,
    /// Tokens that stand for it: name of the issuer, and `azp` or else `client_id`.
    pub clients: BTreeSet<(MemberName, String)>,
    /// When it was made.
    pub created_ms: u64,
    /// By whom.
    pub by: String,
    /// It is known by nothing any more. Terminal; the name can be used again.
    pub revoked: bool,
}

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Part of the key by which people tell it from others; no secret.
    pub id: String,
    /// SHA-256 of the whole key.
    pub sha256: Digest,
    /// When it was made.
    pub created_ms: u64,
    /// From then on it does not count; none: it has no end.
    pub until_ms: Option<u64>,
}

impl Application {
    /// Keys that count at a time, or will.
    pub fn keys_at(&self, now_ms: u64) -> impl Iterator<Item = &ApiKey> {
        self.keys.iter().filter(move |key| key.counts_at(now_ms))
    }
}

/// So long keys are kept whose time is over: until then a clock that was wrong has lost nobody a key, and what is told to
/// proxies, which judge the end themselves, does not change at that very moment.
const KEPT_MS: u64 = 86_400_000;

impl ApiKey {
    /// Whether it counts.
    pub fn counts_at(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }

    /// Whether its time was over a day ago: it is forgotten.
    pub fn is_long_over(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| until_ms.saturating_add(KEPT_MS) <= now_ms)
    }
}
