//! Files that appear whole or not at all: written beside, synced, renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
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
        let path = next_name(unfinished);
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
        adopt(&self.file, &self.path, &to)?;
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

/// A name for an unfinished file that nobody has.
pub(super) fn next_name(unfinished: &Path) -> PathBuf {
    unfinished.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Renames a whole file to its place among the blobs.
///
/// Also when one is there already: it may have been damaged since.
pub(super) fn adopt(file: &File, path: &Path, to: &Path) -> Result<(), ArtifactError> {
    file.sync_all().and_then(|()| std::fs::rename(path, to)).map_err(ArtifactError::io(to))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// The digest of what a file holds from where it stands, and how much that is.
pub(super) fn digest_of(file: &mut File) -> io::Result<(Digest, u64)> {
    let (mut context, mut buffer, mut bytes) = (Context::new(&SHA256), vec![0; 64 * 1024], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                context.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
    Ok((Digest::from_bytes(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")), bytes))
}

/// Replaces a small file as a whole.
pub(crate) fn replace(unfinished: &Path, to: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let mut writer = Writer::new(unfinished)?;
    writer.add(bytes)?;
    writer.file.sync_all().and_then(|()| std::fs::rename(&writer.path, to)).map_err(ArtifactError::io(to))?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Removes the files in a folder, but for those named by a digest: what came so far of a blob is continued.
pub(crate) fn clear(folder: &Path) -> Result<(), ArtifactError> {
    for entry in std::fs::read_dir(folder).map_err(ArtifactError::io(folder))? {
        let path = entry.map_err(ArtifactError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.len() == 64 && format!("sha256:{name}").parse::<Digest>().is_ok() {
            continue;
        }
        std::fs::remove_file(&path).map_err(ArtifactError::io(&path))?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<(), ArtifactError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArtifactError::io(folder))
}
