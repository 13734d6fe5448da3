//! Artifacts on this host: fetched once by digest, checked, unpacked once, shared by all instances that run them.
//!
//! Must not know: who runs them. A digest that does not match is deleted and never unpacked.
//!
//! The form is an OCI image manifest with one layer, a tar or tar+gzip of the component's folder (OCI image
//! specification 1.1, "Guidelines for Artifact Usage").

mod fetch;
mod unpack;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::Digest;
use serde::Deserialize;
use tokio::sync::Mutex;
use tonic::transport::Channel;

/// What nobody used for so long is removed: a rollback within a day needs no fetching.
const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// Largest manifest: one layer needs some hundred bytes.
const MANIFEST_BYTES: u64 = 64 * 1024;

/// The artifacts of one agent.
#[derive(Clone)]
pub(crate) struct Artifacts {
    folder: Arc<Path>,
    channel: Channel,
    /// One fetch at a time: two instances of one digest must not write the same file.
    fetching: Arc<Mutex<()>>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Artifacts {
    pub(crate) fn new(data: &Path, channel: Channel) -> Self {
        Self { folder: data.join("artifacts").into(), channel, fetching: Arc::default() }
    }

    /// The unpacked folder of an artifact, fetched when it is not here.
    ///
    /// # Errors
    /// A sentence: the controller is away or does not have it, bytes that do not match, a layer that must not be unpacked.
    ///
    /// # Cancel safety
    /// What was fetched so far is kept and continued.
    pub(crate) async fn unpacked(&self, digest: &Digest) -> Result<PathBuf, String> {
        let target = self.folder.join("unpacked").join(digest.hex());
        let _one_at_a_time = self.fetching.lock().await;
        if target.is_dir() {
            return Ok(target);
        }
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(|problem| format!("{}: {problem}", blobs.display()))?;
        let manifest = fetch::blob(&self.channel, &blobs, digest, MANIFEST_BYTES).await?;
        let text = fs::read(&manifest).map_err(|problem| format!("{}: {problem}", manifest.display()))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|problem| format!("{digest} is not a manifest: {problem}"))?;
        let [layer] = &manifest.layers[..] else {
            return Err(format!("{digest} has {} layers instead of one", manifest.layers.len()));
        };
        let path = fetch::blob(&self.channel, &blobs, &layer.digest, layer.size).await?;
        let (media_type, unfinished) = (layer.media_type.clone(), target.with_extension("unfinished"));
        let task =
            tokio::task::spawn_blocking(move || unpack::layer(&path, &media_type, &unfinished).map(|()| unfinished));
        let unfinished = task.await.map_err(|_| "unpacking failed".to_owned())??;
        fs::rename(&unfinished, &target).map_err(|problem| format!("{}: {problem}", target.display()))?;
        Ok(target)
    }

    /// Removes what is neither in use nor was in the last day.
    pub(crate) fn clean(&self, in_use: &BTreeSet<String>, now: SystemTime) {
        let entries = |name: &str| fs::read_dir(self.folder.join(name)).into_iter().flatten().flatten();
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|data| data.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).unwrap_or_default() > KEEP)
        };
        for entry in
            entries("unpacked").filter(|entry| old(entry) && !in_use.contains(&*entry.file_name().to_string_lossy()))
        {
            // What cannot be removed now is tried again next time.
            let _ = fs::remove_dir_all(entry.path());
        }
        // An unpacked artifact does not need its blobs.
        for entry in entries("blobs").filter(old) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// Marks an artifact as used now.
    pub(crate) fn touch(&self, digest: &Digest) {
        let folder = self.folder.join("unpacked").join(digest.hex());
        if let Ok(folder) = fs::File::open(folder) {
            let _ = folder.set_modified(SystemTime::now()); // Only decides when it is removed.
        }
    }
}
