//! Artifacts on this host: fetched once by digest, and for each start checked again and unpacked anew.
//!
//! Must not know: who runs them. A digest that does not match is deleted and never unpacked.
//!
//! What runs is no folder that others share or that was there before: whoever may write to its files, a process of the
//! same release above all, would decide what the next one runs. So every start has a folder of its own, read-only, made
//! from bytes whose digest was checked for it; a large artifact takes its time to start for that.
//!
//! The form is an OCI image manifest with one layer, a tar or tar+gzip of the component's folder (OCI image
//! specification 1.1, "Guidelines for Artifact Usage"), or with the parts of one: gzip members in order, each with its
//! place in an annotation.

mod fetch;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
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
/// Largest manifest: a layer needs some hundred bytes, and the largest artifact has 150 parts.
const MANIFEST_BYTES: u64 = 64 * 1024;
/// How the folder that an instance runs in begins, within the instance's own.
const UNPACKED: &str = "unpacked-";
/// Tells folders of this process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// What a manifest of ours says it is.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const COMPONENT_TYPE: &str = "application/vnd.pointsman.component.v1";
/// What a part says it is, and where its place stands.
const PART_TYPE: &str = "application/vnd.pointsman.part.v1.tar+gzip";
const PART_ANNOTATION: &str = "vnd.pointsman.part";

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
    /// One layer, or the parts of one in order.
    layers: Vec<fs::File>,
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
    #[serde(default)]
    annotations: BTreeMap<String, String>,
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
        for layer in layers_of(&text).map_err(|problem| format!("{digest} {problem}"))? {
            fetch::blob(&self.channel, blobs, &layer.digest, Size::Exactly(layer.size)).await?;
        }
        self.here(digest).await.ok_or_else(|| format!("{digest} changed on this disk while it was fetched"))
    }

    /// The content if all of it is here and every byte is right, marked as used now.
    async fn here(&self, digest: &Digest) -> Option<Content> {
        let (blobs, digest) = (self.blobs.clone(), *digest);
        let here = move || {
            let text = fs::read(blobs.join(digest.hex())).ok().filter(|text| Digest::of(text) == digest)?;
            let layers = layers_of(&text).ok()?;
            let media_type = layers.first()?.media_type.clone();
            let open = |layer: Layer| {
                let mut file = fs::File::open(blobs.join(layer.digest.hex())).ok()?;
                let is_right = fetch::digest_of(&mut file).ok()? == layer.digest;
                file.rewind().ok()?;
                is_right.then_some(file)
            };
            let files = layers.into_iter().map(open).collect::<Option<Vec<_>>>()?;
            let manifest = fs::File::open(blobs.join(digest.hex())).ok()?;
            for used in files.iter().chain([&manifest]) {
                let _ = used.set_modified(SystemTime::now()); // Only decides when it is removed.
            }
            Some(Content { layers: files, media_type })
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
        let layers = |manifest: &String| layers_of(&fs::read(self.blobs.join(manifest)).ok()?).ok();
        let layers = in_use.iter().filter_map(layers).flatten();
        let layers: BTreeSet<String> = layers.map(|layer| layer.digest.hex()).collect();
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
            unpack::layers(self.layers, &self.media_type, &target)?;
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

/// The one layer of a manifest of ours, or all parts of it in order.
fn layers_of(text: &[u8]) -> Result<Vec<Layer>, String> {
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|problem| format!("is not an OCI image manifest: {problem}"))?;
    if (manifest.media_type.as_str(), manifest.artifact_type.as_str()) != (MANIFEST_TYPE, COMPONENT_TYPE) {
        return Err(format!(
            "is a {:?} of {:?}: accepted is {COMPONENT_TYPE}",
            manifest.media_type, manifest.artifact_type
        ));
    }
    let layers = manifest.layers;
    let count = layers.len();
    match layers.iter().all(|layer| layer.media_type == PART_TYPE) {
        true if count > 1 => in_order(&layers)?,
        false if count == 1 => {}
        _ => return Err(format!("has {count} layers: accepted is one, or all parts of one")),
    }
    let bytes = layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    if bytes > ARTIFACT_BYTES {
        return Err(format!("has a layer of {bytes} bytes: accepted are at most {ARTIFACT_BYTES}"));
    }
    Ok(layers)
}

/// Refuses parts that are missing, doubled, or in another order.
fn in_order(parts: &[Layer]) -> Result<(), String> {
    for (place, part) in parts.iter().enumerate() {
        let expected = format!("{}/{}", place + 1, parts.len());
        let found = part.annotations.get(PART_ANNOTATION).map_or("nothing", String::as_str);
        if found != expected {
            return Err(format!("has {found:?} where part {expected} should be"));
        }
    }
    Ok(())
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
        let good = layers_of(manifest(COMPONENT_TYPE, &layer).as_bytes()).expect("accepted");
        assert_eq!((good.len(), good[0].digest, good[0].size), (1, digest, 5));
        for (bad, why) in [
            (String::new(), "not an OCI"),
            ("[]".into(), "not an OCI"),
            (manifest("application/wasm", &layer), "accepted is"),
            (manifest(COMPONENT_TYPE, ""), "has 0 layers"),
            (manifest(COMPONENT_TYPE, &format!("{layer},{layer}")), "has 2 layers"),
            (manifest(COMPONENT_TYPE, &huge), "at most"),
        ] {
            let Err(problem) = layers_of(bad.as_bytes()) else { panic!("accepted {bad}") };
            assert!(problem.contains(why), "{problem}");
        }
    }

    /// Unpacking cannot tell: an archive that lacks its middle may end well.
    #[test]
    fn hostile_h85_parts_missing_swapped_or_doubled_do_not_unpack() {
        let part = |place: &str, size: u64| {
            format!(
                r#"{{"mediaType":"{PART_TYPE}","digest":"{}","size":{size},"annotations":{{"{PART_ANNOTATION}":"{place}"}}}}"#,
                Digest::of(place.as_bytes())
            )
        };
        let whole = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"DIGEST","size":5}"#;
        let whole = whole.replace("DIGEST", &Digest::of(b"a").to_string());
        let read = |layers: &[String]| {
            let layers = layers.join(",");
            let text = format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","artifactType":"{COMPONENT_TYPE}","layers":[{layers}]}}"#
            );
            layers_of(text.as_bytes()).map(|layers| layers.iter().map(|layer| layer.digest).collect::<Vec<_>>())
        };
        let parts = |places: &[&str]| read(&places.iter().map(|place| part(place, 5)).collect::<Vec<_>>());
        let expected = ["1/3", "2/3", "3/3"];
        assert_eq!(parts(&expected), Ok(expected.map(|place| Digest::of(place.as_bytes())).to_vec()));
        for (bad, why) in [
            (parts(&["1/3", "2/3"]), "has \"1/3\" where part 1/2 should be"),
            (parts(&["2/3", "3/3"]), "has \"2/3\" where part 1/2 should be"),
            (parts(&["1/3", "3/3", "2/3"]), "has \"3/3\" where part 2/3 should be"),
            (parts(&["1/3", "2/3", "2/3"]), "has \"2/3\" where part 3/3 should be"),
            (parts(&["1/3", "2/3", "3/3", "3/3"]), "where part 1/4 should be"),
            (parts(&["1/1"]), "has 1 layers"),
            (read(&[part("1/2", 5), whole]), "has 2 layers"),
            (read(&[part("1/2", 5), part("2/2", ARTIFACT_BYTES)]), "at most"),
            (read(&[part("1/2", u64::MAX), part("2/2", u64::MAX)]), "at most"),
        ] {
            let problem = bad.expect_err(why);
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
