//! Issuers' keys on disk, for a start while an issuer is down.
//!
//! Must not know: when they are fetched. It blocks. They are public, but whoever writes them decides who may pass: the
//! folder is the proxy's own.
//!
//! Main type: [`Kept`], the keys of one issuer as they came.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The keys of one issuer, and where they came from: they count for nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) issuer: String,
    /// As it was asked for: empty where the issuer's configuration says.
    pub(super) jwks_url: String,
    /// When they were fetched, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// The set (RFC 7517 §5).
    pub(super) keys: String,
}

/// The keys by the issuers' names. With damage nothing is believed, and it is said.
pub(super) fn load(path: &Path) -> BTreeMap<String, Kept> {
    let read = match durable::read(path) {
        Ok(None) => return BTreeMap::new(),
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|_| "it is damaged".to_owned()),
        Err(error) => Err(format!("it cannot be read ({error})")),
    };
    read.unwrap_or_else(|what| {
        tracing::error!("{}: {what}: starting without the keys in it; they are fetched anew", path.display());
        BTreeMap::new()
    })
}

/// Writes the file whole or not at all.
pub(super) fn save(path: &Path, kept: &BTreeMap<String, Kept>) -> io::Result<()> {
    durable::write(path, &serde_json::to_vec_pretty(kept)?)
}
