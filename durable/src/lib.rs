//! Files that are whole or absent, and for their owner only: written beside, synced, renamed.
//!
//! Must not know: what the files hold. A crash at any point leaves the old file or the new one, and so does an error.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes `bytes` to the file `path`, mode 0600, in place of what is there. On disk when it returns.
///
/// One writer of a file at a time: the temporary one beside it, `<path>.new`, has no other name, so that a crash leaves
/// at most one behind and the next write takes it over.
///
/// # Errors
/// When the folder cannot be written or the disk is full: what was there before is untouched then. When only the last
/// step fails, which is to sync the folder, the new file is in place, but a crash may still bring the old one back.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = beside(path);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(path)
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Makes a folder, and those above it, mode 0700; one that exists is left as it is. On disk when it returns.
///
/// # Errors
/// When it cannot be made, or a file has its name.
pub fn folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        folder(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster.
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    sync_folder(path)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new name is on disk only once the folder that it stands in is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_private() {
        let home = tempfile::tempdir().expect("folder");
        let path = home.path().join("inner/file");
        assert!(write(&path, b"one").is_err(), "no such folder");
        folder(path.parent().expect("inner")).expect("made");
        assert_eq!(path.parent().expect("inner").metadata().expect("folder").permissions().mode() & 0o777, 0o700);
        assert_eq!(read(&path).expect("nothing there"), None);
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("replaced");
        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"two"[..]));
        assert_eq!(path.metadata().expect("file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("inner")).expect("list").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_folder_is_made_with_those_above_it() {
        let home = tempfile::tempdir().expect("folder");
        let inner = home.path().join("one/two/three");
        for _ in 0..2 {
            folder(&inner).expect("made, then left as it is");
        }
        let modes = inner.ancestors().take(3).map(|one| one.metadata().expect("folder").permissions().mode() & 0o777);
        assert_eq!(modes.collect::<Vec<_>>(), [0o700; 3]);
        write(&home.path().join("file"), b"x").expect("written");
        assert!(folder(&home.path().join("file")).is_err() && folder(&home.path().join("file/in")).is_err());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let home = tempfile::tempdir().expect("folder");
        let path = home.path().join("file");
        write(&path, b"old").expect("written");
        // Something that cannot be written over stands where the temporary file would.
        fs::create_dir(beside(&path)).expect("in the way");
        assert!(write(&path, b"new").is_err());
        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"old"[..]));
    }
}
