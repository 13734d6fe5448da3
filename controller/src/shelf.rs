//! Where artifacts are: on this disk, and in the registry that the operator named.
//!
//! Must not know: what they are for.
//!
//! Main types: [`Shelf`]; [`Keeper`], which has it use the registry that counts.

mod keeper;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use api::Digest;
use registry::{ArtifactError, Layout, Place, Progress, Registry};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

use crate::core::spec::RegistrySpec;
pub(crate) use keeper::Keeper;

/// Largest manifest that is looked into.
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// Longest wait for a registry that was applied: a program that prints its secret may take a minute.
const MADE: Duration = Duration::from_secs(90);

/// The layout on this disk, and the registry that counts now. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    /// On this disk.
    pub(crate) layout: Layout,
    /// As `releases.toml` says it now; none: there is none, or it cannot be used: why.
    registry: Arc<RwLock<Option<Result<Registry, String>>>>,
    /// What the registry was made of; none: nobody looks after it.
    made_of: Arc<watch::Sender<Option<Option<RegistrySpec>>>>,
    /// Artifacts that are being fetched, by the digests of their manifests.
    turns: Arc<Mutex<BTreeMap<Digest, Weak<tokio::sync::Mutex<()>>>>>,
}

/// An artifact, and where it is besides this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// Where.
    pub(crate) place: Place,
}

// === impl Shelf ===

impl Shelf {
    /// Without a registry.
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, registry: Arc::default(), made_of: Arc::default(), turns: Arc::default() }
    }

    /// The registry that counts now; none: artifacts stay on this disk.
    ///
    /// # Errors
    /// A sentence: one is named, and cannot be used.
    pub(crate) fn registry(&self) -> Result<Option<Registry>, String> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone().transpose()
    }

    /// The registry of that description, which was applied: waited for until it is the one that counts.
    ///
    /// # Errors
    /// A sentence: it cannot be used, another one was applied since, or its secret is not there in time.
    pub(crate) async fn registry_of(&self, spec: &RegistrySpec) -> Result<Registry, String> {
        let mut made_of = self.made_of.subscribe();
        let is_it =
            |made_of: &Option<Option<RegistrySpec>>| made_of.as_ref().is_none_or(|one| one.as_ref() == Some(spec));
        let waited = timeout(MADE, made_of.wait_for(is_it)).await;
        let missing = || format!("the registry {} is not the one that counts now", spec.address.host());
        waited.map_err(|_| missing())?.map_err(|_| missing())?;
        self.registry()?.ok_or_else(missing)
    }

    /// What counts now was made of this.
    fn is_made_of(&self, spec: Option<RegistrySpec>) {
        self.made_of.send_replace(Some(spec));
    }

    /// From now on this one counts.
    pub(crate) fn replace(&self, registry: Option<Result<Registry, String>>) {
        *self.registry.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// Opens a blob of this disk; one that is gone is fetched with its whole artifact, once for all who wait for it.
    ///
    /// `placed`: artifacts that it may belong to.
    ///
    /// # Errors
    /// A sentence: no artifact has it, or it cannot be had from where that is.
    ///
    /// # Cancel safety
    /// A fetch that has begun goes on without whoever asked.
    pub(crate) async fn open(&self, digest: &Digest, placed: Vec<Placed>) -> Result<File, String> {
        match self.layout.open_blob(digest) {
            Err(ArtifactError::Unknown { .. }) => {}
            found => return found.map_err(|problem| problem.to_string()),
        }
        let (shelf, wanted) = (self.clone(), *digest);
        let whose = spawn_blocking(move || placed.into_iter().find(|one| shelf.has_blob(one, &wanted))).await;
        let whose = whose.ok().flatten();
        let gone = || format!("{} is not on the controller's disk, and no release has it elsewhere", digest.short());
        let placed = whose.ok_or_else(gone)?;
        let registry = self.registry()?.ok_or_else(|| {
            format!("{} is in {}, and no registry is named in releases.toml", digest.short(), placed.place)
        })?;
        let shelf = self.clone();
        // Of its own: an agent that waits no longer asks again, and finds more of it each time.
        let fetched = tokio::spawn(async move { shelf.fetch(&registry, &placed).await }).await;
        fetched.map_err(|_| format!("fetching {} was interrupted", digest.short()))??;
        self.layout.open_blob(digest).map_err(|problem| problem.to_string())
    }

    async fn fetch(&self, registry: &Registry, placed: &Placed) -> Result<(), String> {
        let turn = self.turn(&placed.digest);
        let _turn = turn.lock().await;
        // What is there by now is not fetched again.
        info!(place = %placed.place, digest = %placed.digest, "is fetched from the registry");
        let fetched = registry.fetch(&placed.place, &placed.digest, &self.layout, &Progress::default()).await;
        fetched.map_err(|problem| problem.to_string())
    }

    /// Held by whoever fetches that artifact.
    fn turn(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(*digest, Arc::downgrade(&turn));
        turn
    }

    /// Whether a blob is the artifact's manifest, or named in it.
    fn has_blob(&self, placed: &Placed, blob: &Digest) -> bool {
        if placed.digest == *blob {
            return true;
        }
        let Ok(manifest) = self.layout.open_blob(&placed.digest) else { return false };
        let mut text = String::new();
        let read = manifest.take(MANIFEST_BYTES).read_to_string(&mut text);
        // Digests stand in it as they are written everywhere.
        read.is_ok() && text.contains(&blob.to_string())
    }
}
