//! Files that appear whole or not at all: written beside, synced, renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use api::Digest;
use aws_lc_rs::digest::{Context, SHA256};

use super::ArtifactError;

/// Names unfinished files apart within this process; another one's were cleared at the start.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A blob whose digest is not known before its last byte. Removed when it is dropped before it was kept.
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    hash: Context,
    bytes: u64,
}

impl Writer {
    pub(crate) fn new(unfinished: &Path) -> Result<Self, ArtifactError> {
        let path = unfinished.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(ArtifactError::io(&path))?;
        Ok(Self { file, path, hash: Context::new(&SHA256), bytes: 0 })
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.write_all(bytes).map_err(ArtifactError::io(&self.path))
    }

    /// Renames it to its digest in `blobs`; returns digest and size.
    pub(crate) fn keep(self, blobs: &Path) -> Result<(Digest, u64), ArtifactError> {
        let hash = self.hash.clone().finish();
        let digest = Digest::from_bytes(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"));
        let to = blobs.join(digest.hex());
        // Also when it is there already: the one there may have been damaged since.
        self.file.sync_all().and_then(|()| std::fs::rename(&self.path, &to)).map_err(ArtifactError::io(&to))?;
        sync_folder(blobs)?;
        Ok((digest, self.bytes))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Not there any more when it was kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Replaces a small file as a whole.
pub(crate) fn replace(unfinished: &Path, to: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut writer = Writer::new(unfinished)?;
    writer.add(bytes)?;
    writer.file.sync_all().and_then(|()| std::fs::rename(&writer.path, to)).map_err(ArtifactError::io(to))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Removes the files in a folder.
pub(crate) fn clear(folder: &Path) -> Result<(), ArtifactError> {
    for entry in std::fs::read_dir(folder).map_err(ArtifactError::io(folder))? {
        let path = entry.map_err(ArtifactError::io(folder))?.path();
        std::fs::remove_file(&path).map_err(ArtifactError::io(&path))?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), ArtifactError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArtifactError::io(folder))
}
