//! `release verify`: whether a release is still what it was.

use std::collections::BTreeSet;
use std::io::Read;

use api::operator::{ReleaseVerified, Verified};
use api::{Digest, ReleaseName, Verb};
use registry::{Layout, Wanted};
use serde_json::Value;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::build::{self, Revision};
use crate::core::spec::Source;
use crate::core::state::{ArtifactKind, Release};
use crate::engine::Engine;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};

/// All of an artifact is read: whoever may look must not keep the disk from everybody else.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// Largest manifest that is read: what registries take.
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

impl Shared {
    /// Looks whether a release's tag still names its commit, and whether each artifact is where it should be, byte for byte.
    pub(in super::super) async fn verify_release(&self, who: &Operator, name: &str) -> Result<ReleaseVerified, Status> {
        let name: ReleaseName = parse(name)?;
        who.may(Verb::Read, Some(&name.service), None)?;
        let asked = name.clone();
        let find = move |engine: &Engine| {
            let source = engine.state.service(&asked.service)?.spec.source.clone();
            Some((engine.state.release(&asked)?.clone(), source))
        };
        let found = self.engine.read(find).await.ok_or_else(stopping)?;
        let (release, source) = found.ok_or_else(|| Status::not_found(format!("there is no release {name}")))?;
        if !release.is_ready() {
            return Err(Status::failed_precondition(format!("{name} is not ready: there is nothing to verify yet")));
        }
        let _permit = AT_ONCE.acquire().await.map_err(|_| stopping())?;
        let mut checked: Vec<Verified> = self.tag(&name, &release, source.as_ref()).await.into_iter().collect();
        checked.extend(self.artifacts(&release).await);
        Ok(ReleaseVerified { well: checked.iter().all(|one| one.problem.is_empty()), checked })
    }

    /// A release that no tag asked for has none to keep.
    async fn tag(&self, name: &ReleaseName, release: &Release, source: Option<&Source>) -> Option<Verified> {
        let (tag, commit) = (release.wanted.tag.clone()?, &release.wanted.commit);
        let what = format!("tag {tag}");
        let Some(source) = source else {
            return Some(verified(what, Err(format!("{} has no `source` any more", name.service))));
        };
        let revision = Revision::Tag(tag);
        let found = Box::pin(build::resolve(&self.folders, &name.service, source, &revision)).await;
        let same = match found {
            Ok(found) if &found.id == commit => Ok(()),
            Ok(found) => Err(format!("names the commit {} now, and named {commit} when it was built", found.id)),
            Err(problem) => Err(problem.sentence),
        };
        Some(verified(what, same))
    }

    async fn artifacts(&self, release: &Release) -> Vec<Verified> {
        let mut checked = Vec::new();
        for (environment, component, artifact) in release.all_artifacts() {
            let what = environment.map_or_else(|| component.to_string(), |at| format!("{component} for {at}"));
            if release.trimmed.artifacts_ms.is_some() {
                checked.push(verified(what, Err("was removed, as `[keep]` of releases.toml says".into())));
                continue;
            }
            if artifact.kind == ArtifactKind::Folder {
                let (layout, digest) = (self.shelf.layout.clone(), artifact.digest);
                let read = tokio::task::spawn_blocking(move || on_disk(&layout, &digest)).await;
                checked.push(verified(what.clone(), read.unwrap_or_else(|problem| Err(problem.to_string()))));
            }
            if let Some(place) = &artifact.place {
                let there = self.in_registry(place, &Wanted::Digest(artifact.digest)).await;
                checked.push(verified(format!("{what}, in {place}"), there.map(drop)));
            }
        }
        checked
    }
}

fn verified(what: String, found: Result<(), String>) -> Verified {
    Verified { what, problem: found.err().unwrap_or_default() }
}

/// Whether a packed folder is whole on this disk: its manifest and all that it names. Blocks.
fn on_disk(layout: &Layout, manifest: &Digest) -> Result<(), String> {
    let sentence = |problem: registry::ArtifactError| problem.to_string();
    layout.check_blob(manifest).map_err(sentence)?;
    let mut body = Vec::new();
    let file = layout.open_blob(manifest).map_err(sentence)?;
    file.take(MANIFEST_BYTES).read_to_end(&mut body).map_err(|problem| problem.to_string())?;
    for digest in named(&body)? {
        layout.check_blob(&digest).map_err(sentence)?;
    }
    Ok(())
}

/// What a manifest names (OCI image specification 1.1, "Image Manifest").
fn named(body: &[u8]) -> Result<BTreeSet<Digest>, String> {
    let read: Value = serde_json::from_slice(body).map_err(|problem| format!("its manifest is not JSON: {problem}"))?;
    let layers = read["layers"].as_array().into_iter().flatten();
    let digests = layers.chain([&read["config"]]).map(|one| one["digest"].as_str().unwrap_or_default().parse());
    digests.collect::<Result<_, _>>().map_err(|_| "its manifest does not name layers by digest".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.collect()
    }

    #[test]
    fn hostile_h85_one_flipped_byte_of_any_blob_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let content = folder.path().join("dist");
        std::fs::create_dir(&content).expect("made");
        std::fs::write(content.join("index.html"), "hello").expect("written");
        let layout = Layout::open(&folder.path().join("artifacts")).expect("a layout");
        let (name, web) = ("hello@r1".parse().expect("a name"), "web".parse().expect("a name"));
        let artifact = layout.pack(&content, &name, &web).expect("packed");
        assert_eq!(on_disk(&layout, &artifact.digest), Ok(()));
        let blobs = files(&folder.path().join("artifacts/blobs/sha256"));
        assert_eq!(blobs.len(), 3, "a manifest, its config and a layer");
        for blob in blobs {
            let good = std::fs::read(&blob).expect("read");
            let mut bad = good.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 1;
            std::fs::write(&blob, &bad).expect("damaged");
            assert!(on_disk(&layout, &artifact.digest).is_err(), "{}", blob.display());
            std::fs::remove_file(&blob).expect("removed");
            assert!(on_disk(&layout, &artifact.digest).is_err(), "{} is gone", blob.display());
            std::fs::write(&blob, &good).expect("mended");
            assert_eq!(on_disk(&layout, &artifact.digest), Ok(()));
        }
        assert!(on_disk(&layout, &Digest::of(b"other")).expect_err("unknown").contains("there is no artifact"));
    }

    #[test]
    fn hostile_h85_manifests_that_name_nothing_are_told() {
        for body in ["", "{}", "[]", r#"{"config":{"digest":"sha256:x"},"layers":[]}"#, r#"{"layers":[{}]}"#] {
            assert!(named(body.as_bytes()).is_err(), "{body}");
        }
    }
}
