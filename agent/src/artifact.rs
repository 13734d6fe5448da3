//! Artifacts on this host: fetched once by digest, and for each start checked again and unpacked anew.
//!
//! Must not know: who runs them. A digest that does not match is deleted and never unpacked.
//!
//! What runs is no folder that others share or that was there before: whoever may write to its files, a process of the
//! same release above all, would decide what the next one runs. So every start has a folder of its own, read-only, made
//! from bytes whose digest was checked for it; a large artifact takes its time to start for that.
//!
//! The form is an OCI image manifest with one layer, a tar or tar+gzip of the component's folder (OCI image
//! specification 1.1, "Guidelines for Artifact Usage").

mod fetch;
mod unpack;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use api::{ARTIFACT_BYTES, Digest};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tonic::transport::Channel;

use fetch::Size;

/// What nobody used for so long is removed: a rollback within a day needs no fetching.
const KEEP: Duration = Duration::from_secs(24 * 3_600);
/// Largest manifest: one layer needs some hundred bytes.
const MANIFEST_BYTES: u64 = 64 * 1024;
/// How the folder that an instance runs in begins, within the instance's own.
const UNPACKED: &str = "unpacked-";
/// Tells folders of this process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// What a manifest of ours says it is.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const COMPONENT_TYPE: &str = "application/vnd.pointsman.component.v1";

/// The artifacts of one agent.
#[derive(Clone)]
pub(crate) struct Artifacts {
    blobs: Arc<Path>,
    channel: Channel,
    /// One fetch at a time: two instances of one digest must not write the same file.
    fetching: Arc<Mutex<()>>,
}

/// An artifact's content on this host. Its digest was right when it was opened.
pub(crate) struct Content {
    layer: fs::File,
    media_type: String,
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
        Self { blobs: data.join("artifacts/blobs").into(), channel, fetching: Arc::default() }
    }

    /// The content of an artifact, fetched when it is not here or no longer what its digest says.
    ///
    /// # Errors
    /// A sentence: the controller is away or does not have it, bytes that do not match, a manifest of another form.
    ///
    /// # Cancel safety
    /// What was fetched so far is kept and continued.
    pub(crate) async fn content(&self, digest: &Digest) -> Result<Content, String> {
        // Before waiting: what is here starts while something else is fetched.
        if let Some(content) = self.here(digest).await {
            return Ok(content);
        }
        let _one_at_a_time = self.fetching.lock().await;
        let blobs = &self.blobs;
        fs::create_dir_all(blobs).map_err(|problem| format!("{}: {problem}", blobs.display()))?;
        let manifest = fetch::blob(&self.channel, blobs, digest, Size::AtMost(MANIFEST_BYTES)).await?;
        let text = fs::read(&manifest).map_err(|problem| format!("{}: {problem}", manifest.display()))?;
        let layer = layer_of(&text).map_err(|problem| format!("{digest} {problem}"))?;
        fetch::blob(&self.channel, blobs, &layer.digest, Size::Exactly(layer.size)).await?;
        self.here(digest).await.ok_or_else(|| format!("{digest} changed on this disk while it was fetched"))
    }

    /// The content if all of it is here and every byte is right, marked as used now.
    async fn here(&self, digest: &Digest) -> Option<Content> {
        let (blobs, digest) = (self.blobs.clone(), *digest);
        let here = move || {
            let text = fs::read(blobs.join(digest.hex())).ok().filter(|text| Digest::of(text) == digest)?;
            let layer = layer_of(&text).ok()?;
            let mut file = fs::File::open(blobs.join(layer.digest.hex())).ok()?;
            if fetch::digest_of(&mut file).ok()? != layer.digest {
                return None;
            }
            let manifest = fs::File::open(blobs.join(digest.hex())).ok()?;
            for used in [&manifest, &file] {
                let _ = used.set_modified(SystemTime::now()); // Only decides when it is removed.
            }
            file.rewind().ok()?;
            Some(Content { layer: file, media_type: layer.media_type })
        };
        spawn_blocking(here).await.ok()?
    }

    /// Removes what is neither in use nor was in the last day, in the background: a large file takes a while.
    pub(crate) fn clean(&self, in_use: BTreeSet<String>) {
        let artifacts = self.clone();
        spawn_blocking(move || artifacts.remove_old(&in_use, SystemTime::now()));
    }

    /// What is removed while somebody opens it is fetched again, and what is open stays readable.
    fn remove_old(&self, in_use: &BTreeSet<String>, now: SystemTime) {
        let layer = |manifest: &String| layer_of(&fs::read(self.blobs.join(manifest)).ok()?).ok();
        let layers: BTreeSet<String> = in_use.iter().filter_map(layer).map(|layer| layer.digest.hex()).collect();
        let old = |entry: &fs::DirEntry| {
            let modified = entry.metadata().and_then(|data| data.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).unwrap_or_default() > KEEP)
        };
        for entry in fs::read_dir(&*self.blobs).into_iter().flatten().flatten().filter(old) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !in_use.contains(&name) && !layers.contains(&name) {
                let _ = fs::remove_file(entry.path()); // What cannot be removed now is tried again next time.
            }
        }
    }
}

impl Content {
    /// Unpacks it into a new folder within `home` and returns that; what was unpacked there before is removed.
    ///
    /// Nothing but this start has written there: what an earlier process, or somebody else, made of the files it was
    /// given goes with them.
    ///
    /// # Errors
    /// A sentence: a layer that must not be unpacked, or a disk that does not take it. Nothing of it is left then.
    pub(crate) async fn unpack(self, home: &Path) -> Result<PathBuf, String> {
        let home = home.to_owned();
        let task = spawn_blocking(move || {
            remove_unpacked(&home).map_err(|problem| format!("{}: {problem}", home.display()))?;
            // A name of its own: an unpacking that nobody waits for any more must not write into this one.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let target = home.join(format!("{UNPACKED}{}-{number}", std::process::id()));
            unpack::layer(self.layer, &self.media_type, &target)?;
            Ok(target)
        });
        task.await.map_err(|_| "unpacking failed".to_owned())?
    }
}

/// Removes what was unpacked within an instance's folder.
pub(crate) fn remove_unpacked(home: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(home) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNPACKED) {
            unpack::remove(&entry.path())?;
        }
    }
    Ok(())
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

    /// An agent's artifacts with one on the disk: its manifest's digest and the layer's file.
    fn stocked(data: &Path) -> (Artifacts, Digest, PathBuf) {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let artifacts = Artifacts::new(data, channel);
        fs::create_dir_all(&artifacts.blobs).expect("folder");
        let layer = tar::Builder::new(Vec::new()).into_inner().expect("an empty archive");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{COMPONENT_TYPE}","layers":[{{
                "mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            Digest::of(&layer),
            layer.len()
        );
        let keep = |bytes: &[u8]| {
            let path = artifacts.blobs.join(Digest::of(bytes).hex());
            fs::write(&path, bytes).expect("written");
            path
        };
        keep(text.as_bytes());
        let layer = keep(&layer);
        (artifacts, Digest::of(text.as_bytes()), layer)
    }

    #[tokio::test]
    async fn what_is_neither_used_nor_of_today_is_removed() {
        let data = tempfile::tempdir().expect("folder");
        let (artifacts, digest, layer) = stocked(data.path());
        let manifest = artifacts.blobs.join(digest.hex());
        let (used, soon) = (BTreeSet::from([digest.hex()]), SystemTime::now() + KEEP);
        artifacts.remove_old(&BTreeSet::new(), soon - Duration::from_secs(60));
        assert!(manifest.exists() && layer.exists(), "within a day");
        artifacts.remove_old(&used, soon + Duration::from_secs(60));
        assert!(manifest.exists() && layer.exists(), "in use: it may have to start again while the controller is away");
        artifacts.remove_old(&BTreeSet::new(), soon + Duration::from_secs(60));
        assert!(!manifest.exists() && !layer.exists());
    }

    #[tokio::test]
    async fn hostile_h85_what_changed_on_this_disk_is_not_taken_for_what_its_digest_says() {
        let data = tempfile::tempdir().expect("folder");
        let (artifacts, digest, layer) = stocked(data.path());
        let content = artifacts.content(&digest).await.expect("all of it is here");
        let home = data.path().join("home");
        let first = content.unpack(&home).await.expect("unpacked");
        let second = artifacts.content(&digest).await.expect("here").unpack(&home).await.expect("unpacked");
        assert!(second.is_dir() && !first.exists() && first != second);
        let mut bytes = fs::read(&layer).expect("bytes");
        bytes[7] ^= 1;
        fs::write(&layer, bytes).expect("written");
        assert!(artifacts.content(&digest).await.is_err(), "it is asked for again, of nobody");
    }
}
