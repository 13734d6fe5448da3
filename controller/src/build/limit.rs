//! How much a folder takes on the disk, looked at again and again.
//!
//! Must not know: what fills it.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks: short enough that a build cannot fill a disk in between, as long as disks are what they are.
const EACH: Duration = Duration::from_secs(2);

/// A look at a million files takes a while: of the time, at most this part is spent with looking.
const PART: u32 = 10;

/// Unit of `st_blocks` (inode(7)).
const BLOCK: u64 = 512;

/// Waits until `folder` takes more than `most` bytes on the disk: how many. Links are not followed.
///
/// # Cancel safety
/// Dropping the future ends the watch.
pub(crate) async fn watch(folder: PathBuf, most: u64) -> u64 {
    loop {
        let (looked_at, begun) = (folder.clone(), Instant::now());
        // A look that panics says nothing; the next one may.
        let bytes = tokio::task::spawn_blocking(move || size(&looked_at, most)).await.unwrap_or_default();
        if bytes > most {
            return bytes;
        }
        tokio::time::sleep(EACH.max(begun.elapsed() * PART)).await;
    }
}

/// Bytes that a folder takes; not all of them are counted when it is more than `most`. What vanishes meanwhile, or cannot be
/// read, counts nothing.
pub(crate) fn size(folder: &Path, most: u64) -> u64 {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    // Files with several names, of which each would be counted.
    let mut counted = HashSet::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            // Of the entry itself: links are not followed.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.nlink() > 1 && !counted.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            bytes += metadata.blocks() * BLOCK;
        }
        if bytes > most {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_disk_counts_once() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("folder");
        let empty = size(folder.path(), u64::MAX);
        std::fs::write(at("a/b/one"), vec![1; 1 << 20]).expect("written");
        std::fs::hard_link(at("a/b/one"), at("a/other")).expect("linked");
        std::os::unix::fs::symlink("/", at("a/root")).expect("linked");
        // It is long, and takes nothing.
        std::fs::File::create(at("a/hole")).and_then(|file| file.set_len(1 << 40)).expect("made");
        let bytes = size(folder.path(), u64::MAX) - empty;
        assert!((1 << 20..1 << 21).contains(&bytes), "{bytes}");
        assert_eq!(size(&at("none"), u64::MAX), 0);
    }

    #[tokio::test]
    async fn a_folder_that_grows_is_seen() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, most) = (folder.path().to_owned(), 1 << 20);
        let watch = watch(path.clone(), most);
        tokio::pin!(watch);
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, &mut watch).await.is_err(), "there is nothing yet");
        std::fs::write(path.join("file"), vec![1; 2 << 20]).expect("written");
        assert!(tokio::time::timeout(Duration::from_secs(60), watch).await.expect("seen") > most);
    }
}
