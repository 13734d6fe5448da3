//! What nobody names any more leaves the disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use api::Digest;

use super::{ArtifactError, Layout};
use crate::distribution::{MANIFEST_BYTES, blobs_of};

/// What left the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// How many files.
    pub files: u32,
    /// Their sizes together.
    pub bytes: u64,
}

impl Layout {
    /// Removes the blobs that none of the manifests in `keep` names and that were made before `before`, and what came of
    /// blobs that nobody went on with since then.
    ///
    /// `before` is long ago (a day): what is being packed or fetched is named by nobody yet. Blocks.
    ///
    /// # Errors
    /// Nothing is removed when a manifest of `keep` is there and cannot be read: what it names is not known then.
    pub fn sweep(&self, keep: &BTreeSet<Digest>, before: SystemTime) -> Result<Swept, ArtifactError> {
        let mut named = keep.clone();
        for manifest in keep {
            named.extend(self.named_by(manifest)?);
        }
        let mut swept = Swept::default();
        let blobs = self.blobs();
        sweep(&blobs, before, &mut swept, |digest| !named.contains(&digest))?;
        sweep(&self.unfinished(), before, &mut swept, |_| true)?;
        self.unlist_missing()?;
        Ok(swept)
    }

    /// The blobs that a manifest names; none when it is not here.
    fn named_by(&self, manifest: &Digest) -> Result<Vec<Digest>, ArtifactError> {
        let file = match self.open_blob(manifest) {
            Err(ArtifactError::Unknown { .. }) => return Ok(Vec::new()),
            file => file?,
        };
        let mut body = Vec::new();
        let path = self.blob_path(manifest);
        file.take(MANIFEST_BYTES as u64 + 1).read_to_end(&mut body).map_err(ArtifactError::io(&path))?;
        if Digest::of(&body) != *manifest {
            return Err(ArtifactError::Changed { digest: *manifest });
        }
        blobs_of(&body).ok_or_else(|| ArtifactError::Damaged { path, why: "it is no manifest".to_owned() })
    }

    /// Takes manifests that are gone from the index.
    fn unlist_missing(&self) -> Result<(), ArtifactError> {
        let _held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.read_index()?;
        let blobs = self.blobs();
        let listed = index.manifests().len();
        let there = |digest: &str| digest.strip_prefix("sha256:").is_some_and(|hex| blobs.join(hex).exists());
        let left: Vec<_> = index.manifests().iter().filter(|entry| there(entry.digest().as_ref())).cloned().collect();
        if left.len() == listed {
            return Ok(());
        }
        index.set_manifests(left);
        self.write_index(&index)
    }
}

/// Removes files of a folder that are named by digests.
fn sweep(
    folder: &Path,
    before: SystemTime,
    swept: &mut Swept,
    goes: impl Fn(Digest) -> bool,
) -> Result<(), ArtifactError> {
    for entry in fs::read_dir(folder).map_err(ArtifactError::io(folder))? {
        let entry = entry.map_err(ArtifactError::io(folder))?;
        let name = format!("sha256:{}", entry.file_name().to_string_lossy());
        let Some(digest) = name.parse::<Digest>().ok().filter(|digest| goes(*digest)) else { continue };
        let path = folder.join(digest.hex());
        let removed = entry.metadata().and_then(|data| match data.modified()? < before {
            true => fs::remove_file(&path).map(|()| Some(data.len())),
            false => Ok(None),
        });
        match removed {
            Ok(None) => {}
            Ok(Some(bytes)) => *swept = Swept { files: swept.files + 1, bytes: swept.bytes + bytes },
            // Somebody finished it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ArtifactError::io(&path)(error)),
        }
    }
    Ok(())
}
