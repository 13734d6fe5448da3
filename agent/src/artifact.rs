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
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use api::{ARTIFACT_BYTES, Digest};
use serde::Deserialize;
use tokio::sync::Mutex;
use tonic::transport::Channel;

use fetch::Size;

/// What nobody used for so long is removed: a rollback within a day needs no fetching.
const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// Largest manifest: one layer needs some hundred bytes.
const MANIFEST_BYTES: u64 = 64 * 1024;
/// What a manifest of ours says it is.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const COMPONENT_TYPE: &str = "application/vnd.pointsman.component.v1";

/// The artifacts of one agent.
#[derive(Clone)]
pub(crate) struct Artifacts {
    folder: Arc<Path>,
    channel: Channel,
    /// One fetch at a time: two instances of one digest must not write the same file.
    fetching: Arc<Mutex<()>>,
    /// Held for moments, while an artifact is taken into use or out of it: nothing is removed that was just taken.
    shelf: Arc<std::sync::Mutex<()>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: String,
    artifact_type: String,
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
        Self { folder: data.join("artifacts").into(), channel, fetching: Arc::default(), shelf: Arc::default() }
    }

    /// The unpacked folder of an artifact, fetched when it is not here.
    ///
    /// # Errors
    /// A sentence: the controller is away or does not have it, bytes that do not match, a layer that must not be unpacked.
    ///
    /// # Cancel safety
    /// What was fetched so far is kept and continued.
    pub(crate) async fn unpacked(&self, digest: &Digest) -> Result<PathBuf, String> {
        // Before waiting: what is here starts while something else is fetched.
        if let Some(ready) = self.ready(digest) {
            return Ok(ready);
        }
        let one_at_a_time = self.fetching.clone().lock_owned().await;
        if let Some(ready) = self.ready(digest) {
            return Ok(ready);
        }
        let target = self.folder.join("unpacked").join(digest.hex());
        let blobs = self.folder.join("blobs");
        fs::create_dir_all(&blobs).map_err(|problem| format!("{}: {problem}", blobs.display()))?;
        let manifest = fetch::blob(&self.channel, &blobs, digest, Size::AtMost(MANIFEST_BYTES)).await?;
        let text = fs::read(&manifest).map_err(|problem| format!("{}: {problem}", manifest.display()))?;
        let layer = &layer_of(&text).map_err(|problem| format!("{digest} {problem}"))?;
        let path = fetch::blob(&self.channel, &blobs, &layer.digest, Size::Exactly(layer.size)).await?;
        let (media_type, unfinished) = (layer.media_type.clone(), target.with_extension("unfinished"));
        let task = tokio::task::spawn_blocking(move || {
            // Goes on when nobody waits for it any more: the lock goes along, so that no second one writes there.
            let _one_at_a_time = one_at_a_time;
            unpack::layer(&path, &media_type, &unfinished)?;
            fs::rename(&unfinished, &target).map_err(|problem| format!("{}: {problem}", target.display()))?;
            Ok(target)
        });
        task.await.map_err(|_| "unpacking failed".to_owned())?
    }

    /// Removes what is neither in use nor was in the last day, in the background: a large folder takes a while.
    pub(crate) fn clean(&self, in_use: BTreeSet<String>) {
        let artifacts = self.clone();
        tokio::task::spawn_blocking(move || artifacts.remove_old(&in_use, SystemTime::now()));
    }

    fn remove_old(&self, in_use: &BTreeSet<String>, now: SystemTime) {
        let entries = |name: &str| fs::read_dir(self.folder.join(name)).into_iter().flatten().flatten();
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|data| data.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).unwrap_or_default() > KEEP)
        };
        for entry in entries("unpacked").filter(|entry| !in_use.contains(&*entry.file_name().to_string_lossy())) {
            let removed = entry.path().with_extension("removed");
            let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let taken_out = old(&entry) && fs::rename(entry.path(), &removed).is_ok();
            drop(shelf);
            if taken_out {
                let _ = fs::remove_dir_all(removed); // What cannot be removed now is tried again next time.
            }
        }
        // An unpacked artifact does not need its blobs.
        for entry in entries("blobs").filter(old) {
            let _ = fs::remove_file(entry.path());
        }
    }

    /// The unpacked folder if it is here, marked as used now.
    fn ready(&self, digest: &Digest) -> Option<PathBuf> {
        let place = self.folder.join("unpacked").join(digest.hex());
        let _shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if !place.is_dir() {
            return None;
        }
        if let Ok(folder) = fs::File::open(&place) {
            let _ = folder.set_modified(SystemTime::now()); // Only decides when it is removed.
        }
        Some(place)
    }
}

/// The one layer of a manifest of ours.
fn layer_of(text: &[u8]) -> Result<Layer, String> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|problem| format!("is not an OCI image manifest: {problem}"))?;
    if (manifest.media_type.as_str(), manifest.artifact_type.as_str()) != (MANIFEST_TYPE, COMPONENT_TYPE) {
        return Err(format!(
            "is a {:?} of {:?}: accepted is {COMPONENT_TYPE}",
            manifest.media_type, manifest.artifact_type
        ));
    }
    let count = manifest.layers.len();
    let Ok([layer]) = <[Layer; 1]>::try_from(manifest.layers) else {
        return Err(format!("has {count} layers: accepted is one"));
    };
    if layer.size > ARTIFACT_BYTES {
        return Err(format!("has a layer of {} bytes: accepted are at most {}", layer.size, ARTIFACT_BYTES));
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h85_only_manifests_of_ours_are_read() {
        let digest = Digest::of(b"layer");
        let layer = format!(r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":5}}"#);
        let huge = layer.replace(":5}", ":8589934593}");
        let manifest = |kind: &str, layers: &str| {
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{kind}","layers":[{layers}]}}"#
            )
        };
        let good = layer_of(manifest(COMPONENT_TYPE, &layer).as_bytes()).expect("accepted");
        assert_eq!((good.digest, good.size), (digest, 5));
        for (bad, why) in [
            (String::new(), "not an OCI"),
            ("[]".into(), "not an OCI"),
            (manifest("application/wasm", &layer), "accepted is"),
            (manifest(COMPONENT_TYPE, ""), "has 0 layers"),
            (manifest(COMPONENT_TYPE, &format!("{layer},{layer}")), "has 2 layers"),
            (manifest(COMPONENT_TYPE, &huge), "at most"),
        ] {
            let Err(problem) = layer_of(bad.as_bytes()) else { panic!("accepted {bad}") };
            assert!(problem.contains(why), "{problem}");
        }
    }

    #[tokio::test]
    async fn what_is_neither_used_nor_of_today_is_removed() {
        let data = tempfile::tempdir().expect("folder");
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let artifacts = Artifacts::new(data.path(), channel);
        for path in ["unpacked/used", "unpacked/unused", "blobs"] {
            fs::create_dir_all(data.path().join("artifacts").join(path)).expect("folder");
        }
        let there = |path: &str| data.path().join("artifacts").join(path).exists();
        fs::write(data.path().join("artifacts/blobs/b"), b"b").expect("written");
        let used = BTreeSet::from(["used".to_owned()]);
        artifacts.remove_old(&used, SystemTime::now() + KEEP - Duration::from_secs(60));
        assert!(there("unpacked/used") && there("unpacked/unused") && there("blobs/b"), "within a day");
        artifacts.remove_old(&used, SystemTime::now() + KEEP + Duration::from_secs(60));
        assert!(there("unpacked/used") && !there("unpacked/unused") && !there("blobs/b"));
    }
}
