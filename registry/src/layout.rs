//! Artifacts: what a build made, kept by digest in an OCI image layout on disk.
//!
//! Must not know: services' builds, stages, or who fetches what.
//!
//! Main types: [`Layout`], [`Artifact`], [`ArtifactError`]. Source: OCI image specification 1.1, "Image Layout" and
//! "Guidelines for Artifact Usage".
//!
//! An artifact's digest is that of its manifest, which names one layer: the folder as tar and gzip, made so that the same
//! folder gives the same bytes. More than 64 MiB are cut into parts, each a layer. The manifest does not name the release, so that two releases with the same content have the
//! same digest; which release has which is said in `index.json`.

mod blob;
mod pack;
mod parts;
mod sweep;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use api::{ComponentName, Digest, ReleaseName};
use oci_spec::OciSpecError;
use oci_spec::image::{
    ANNOTATION_REF_NAME, ANNOTATION_TITLE, Descriptor, DescriptorBuilder, ImageIndex, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, SCHEMA_VERSION, Sha256Digest,
};

use parts::Packing;
pub use sweep::Swept;

/// What a manifest of ours is, in `artifactType`.
pub const COMPONENT_TYPE: &str = "application/vnd.pointsman.component.v1";

/// What a part of a large artifact is, in its descriptor's `mediaType`: all of them in order, one after the other, are one
/// tar+gzip.
pub const PART_TYPE: &str = "application/vnd.pointsman.part.v1.tar+gzip";
/// A part's place, in its descriptor's annotations: `3/16` is the third of sixteen.
pub const PART_ANNOTATION: &str = "vnd.pointsman.part";

const INDEX: &str = "index.json";

/// A component's artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Digest of its manifest: its name from now on.
    pub digest: Digest,
    /// Size of its content as it is stored and fetched, compressed.
    pub bytes: u64,
}

/// A folder of artifacts. Clones share it.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: Arc<Path>,
    /// Held while the index is read, changed and replaced.
    index: Arc<Mutex<()>>,
}

/// Why an artifact was not made, or not found.
#[derive(Debug)]
pub enum ArtifactError {
    /// The layout's folder could not be used.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Something in the folder cannot be part of an artifact, or the folder is missing.
    Refused {
        /// One sentence that names it.
        sentence: String,
    },
    /// The layout's own files are not what they should be.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A blob's bytes are not what its digest says.
    Changed {
        /// The digest.
        digest: Digest,
    },
    /// There is no blob with this digest.
    Unknown {
        /// The digest.
        digest: Digest,
    },
}

impl fmt::Display for ArtifactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Refused { sentence } => f.write_str(sentence),
            Self::Damaged { path, why } => write!(f, "{} cannot be used: {why}", path.display()),
            Self::Changed { digest } => write!(f, "the artifact {digest} is damaged on this disk"),
            Self::Unknown { digest } => write!(f, "there is no artifact {digest}"),
        }
    }
}

impl std::error::Error for ArtifactError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl ArtifactError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

// === impl Layout ===

impl Layout {
    /// Opens the layout in `folder`, or makes an empty one.
    ///
    /// # Errors
    /// When the folder cannot be used, or holds a layout of another version.
    pub fn open(folder: &Path) -> Result<Self, ArtifactError> {
        let layout = Self { folder: folder.into(), index: Arc::default() };
        for part in [layout.blobs(), layout.unfinished()] {
            std::fs::create_dir_all(&part).map_err(ArtifactError::io(&part))?;
        }
        // What a controller that died was writing.
        blob::clear(&layout.unfinished())?;
        let marker = folder.join("oci-layout");
        let expected = serde_json::json!({ "imageLayoutVersion": "1.0.0" });
        match read_json::<serde_json::Value>(&marker)? {
            None => blob::replace(&layout.unfinished(), &marker, expected.to_string().as_bytes())?,
            Some(found) if found == expected => {}
            Some(found) => return Err(ArtifactError::Damaged { path: marker, why: format!("it says {found}") }),
        }
        let index = layout.read_index()?;
        if !folder.join(INDEX).exists() {
            layout.write_index(&index)?;
        }
        Ok(layout)
    }

    /// Packs a folder as the artifact of a component of release `title`.
    ///
    /// The same content gives the same digest, also under another title. Blocks: to be called where that is allowed.
    ///
    /// # Errors
    /// [`ArtifactError::Refused`] when the folder is missing or holds what cannot be packed (sockets, devices, symbolic links
    /// that point out of it).
    pub fn pack(
        &self,
        folder: &Path,
        title: &ReleaseName,
        component: &ComponentName,
    ) -> Result<Artifact, ArtifactError> {
        self.pack_by(folder, title, component, parts::PART_BYTES)
    }

    fn pack_by(
        &self,
        folder: &Path,
        title: &ReleaseName,
        component: &ComponentName,
        part_bytes: u64,
    ) -> Result<Artifact, ArtifactError> {
        let (blobs, unfinished) = (&self.blobs(), &self.unfinished());
        let parts = Packing { blobs, unfinished, part_bytes }.pack(folder)?;
        let bytes = parts.iter().map(|(_, bytes)| bytes).sum();
        // OCI image specification, "Guidance for an Empty Descriptor".
        let (config_digest, config_bytes) = self.store(b"{}")?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(MediaType::Other(COMPONENT_TYPE.to_owned()))
            .config(descriptor(MediaType::EmptyJSON, config_digest, config_bytes))
            .layers(layers(&parts))
            // One annotation: a map of several would be written in any order, and change the digest.
            .annotations(HashMap::from([(ANNOTATION_TITLE.to_owned(), component.to_string())]))
            .build()
            .expect("every required field is set");
        let manifest = serde_json::to_vec(&manifest).expect("a manifest is JSON");
        let (digest, manifest_bytes) = self.store(&manifest)?;
        self.list(digest, manifest_bytes, &format!("{title}/{component}"))?;
        Ok(Artifact { digest, bytes })
    }

    /// Opens a blob (manifest, config or layer) for reading. Who fetches it checks its digest.
    ///
    /// # Errors
    /// [`ArtifactError::Unknown`] when there is none.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ArtifactError> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ArtifactError::Unknown { digest: *digest },
            _ => ArtifactError::io(&path)(error),
        })
    }

    /// Reads a whole blob and compares it with its digest; its size. Blocks.
    ///
    /// # Errors
    /// [`ArtifactError::Changed`] when it is another one, [`ArtifactError::Unknown`] when there is none.
    pub fn check_blob(&self, digest: &Digest) -> Result<u64, ArtifactError> {
        let mut file = self.open_blob(digest)?;
        let (found, bytes) = blob::digest_of(&mut file).map_err(ArtifactError::io(&self.blob_path(digest)))?;
        if found == *digest { Ok(bytes) } else { Err(ArtifactError::Changed { digest: *digest }) }
    }

    /// Where a blob lies that is not whole yet.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.unfinished().join(digest.hex())
    }

    /// Takes a file of [`Layout::unfinished`] as a blob: its digest was checked.
    pub(crate) fn adopt(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), ArtifactError> {
        blob::adopt(file, path, &self.blob_path(digest))
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Keeps a few bytes as a blob.
    pub(crate) fn store(&self, bytes: &[u8]) -> Result<(Digest, u64), ArtifactError> {
        let mut writer = blob::Writer::new(&self.unfinished())?;
        writer.add(bytes)?;
        writer.keep(&self.blobs())
    }

    /// Lists a manifest in the index under a name; an older one of the same name leaves the index, not the disk.
    fn list(&self, digest: Digest, bytes: u64, name: &str) -> Result<(), ArtifactError> {
        // A panic elsewhere leaves the file whole: it is replaced by renaming.
        let _held = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.read_index()?;
        let mut entry = descriptor(MediaType::ImageManifest, digest, bytes);
        entry.set_artifact_type(Some(MediaType::Other(COMPONENT_TYPE.to_owned())));
        entry.set_annotations(Some(HashMap::from([(ANNOTATION_REF_NAME.to_owned(), name.to_owned())])));
        let named = |entry: &Descriptor| {
            entry.annotations().as_ref().and_then(|all| all.get(ANNOTATION_REF_NAME)).is_some_and(|found| found == name)
        };
        let mut entries: Vec<Descriptor> = index.manifests().iter().filter(|entry| !named(entry)).cloned().collect();
        entries.push(entry);
        index.set_manifests(entries);
        self.write_index(&index)
    }

    fn read_index(&self) -> Result<ImageIndex, ArtifactError> {
        let empty = || {
            let builder = ImageIndexBuilder::default().schema_version(SCHEMA_VERSION).media_type(MediaType::ImageIndex);
            builder.manifests(Vec::new()).build().expect("every required field is set")
        };
        Ok(read_json(&self.folder.join(INDEX))?.unwrap_or_else(empty))
    }

    fn write_index(&self, index: &ImageIndex) -> Result<(), ArtifactError> {
        let json = serde_json::to_vec_pretty(index).expect("an index is JSON");
        blob::replace(&self.unfinished(), &self.folder.join(INDEX), &json)
    }

    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs/sha256")
    }

    /// On the same file system as the blobs, so that a finished one is renamed.
    pub(crate) fn unfinished(&self) -> PathBuf {
        self.folder.join("unfinished")
    }
}

/// One layer as images have it, or parts of one, each with its place among them.
fn layers(parts: &[(Digest, u64)]) -> Vec<Descriptor> {
    if let [(digest, bytes)] = parts {
        return vec![descriptor(MediaType::ImageLayerGzip, *digest, *bytes)];
    }
    let part = |(place, (digest, bytes)): (usize, &(Digest, u64))| {
        let mut part = descriptor(MediaType::Other(PART_TYPE.to_owned()), *digest, *bytes);
        let place = format!("{}/{}", place + 1, parts.len());
        part.set_annotations(Some(HashMap::from([(PART_ANNOTATION.to_owned(), place)])));
        part
    };
    parts.iter().enumerate().map(part).collect()
}

fn descriptor(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
    let digest: Result<Sha256Digest, OciSpecError> = digest.hex().parse();
    let builder = DescriptorBuilder::default().media_type(media_type).size(size);
    builder.digest(digest.expect("64 hex digits")).build().expect("every required field is set")
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ArtifactError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ArtifactError::io(path)(error)),
    };
    let damaged = |error: serde_json::Error| ArtifactError::Damaged { path: path.to_owned(), why: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}
