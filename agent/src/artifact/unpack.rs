//! A layer, or the parts of one, into a folder. Whatever the archive says, nothing is written outside and nothing special is made.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufReader, Read};
use std::iter::Peekable;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use std::rc::Rc;
use std::vec::IntoIter;

use api::{ARTIFACT_BYTES, ARTIFACT_ENTRIES};
use tar::{Archive, Entry, EntryType};

/// Most bytes before an entry's content: its header, long names, extended attributes. They are held in memory.
const HEADER_BYTES: u64 = 1024 * 1024;
/// Bits that no file gets, whatever the archive says: what runs is what was released, so nobody writes there. Setuid,
/// setgid and sticky are dropped too.
const MASK: u32 = 0o222;
/// What folders get once all is in them.
const SEALED: u32 = 0o555;

/// Unpacks the layer, in one file or in parts one after the other, into the new folder `target`, read-only.
///
/// # Errors
/// A sentence; nothing of it is left then.
pub(super) fn layers(layers: Vec<fs::File>, media_type: &str, target: &Path) -> Result<(), String> {
    let unpacked = unpack(layers, media_type, target);
    if unpacked.is_err() {
        let _ = remove(target); // The first error is the one to tell; the next attempt removes it too.
    }
    unpacked
}

/// Removes a folder that may be read-only.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    set_modes(folder, 0o700)?;
    fs::remove_dir_all(folder)
}

/// Gives a folder and all folders in it a mode, each before what is in it is looked at.
fn set_modes(folder: &Path, mode: u32) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Of the entry itself: a link is no folder.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

fn unpack(layers: Vec<fs::File>, media_type: &str, target: &Path) -> Result<(), String> {
    let io = |problem: io::Error| format!("{}: {problem}", target.display());
    let is_cut = layers.len() > 1;
    let file = BufReader::new(Chain { files: layers.into_iter().peekable() });
    let tar: Box<dyn Read> = match media_type.rsplit_once('.').map(|(_, form)| form) {
        Some("tar") => Box::new(file),
        // Each part is a member of its own.
        Some("tar+gzip") if is_cut => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Some("tar+gzip") => Box::new(flate2::read::GzDecoder::new(file)),
        _ => return Err(format!("a layer of type {media_type} cannot be unpacked: accepted are tar and tar+gzip")),
    };
    fs::create_dir_all(target).map_err(io)?;
    let left = Rc::new(Cell::new(HEADER_BYTES));
    let mut archive = Archive::new(Metered { inner: tar, left: left.clone() });
    archive.set_preserve_permissions(false);
    archive.set_mask(MASK);
    archive.set_preserve_mtime(false);
    let mut entries = archive.entries().map_err(io)?;
    let (mut count, mut bytes) = (0, 0u64);
    loop {
        left.set(HEADER_BYTES);
        let Some(entry) = entries.next() else { break };
        let entry = entry.map_err(|problem| format!("the archive is damaged: {problem}"))?;
        (count, bytes) = (count + 1, bytes.saturating_add(entry.size()));
        if count > ARTIFACT_ENTRIES || bytes > ARTIFACT_BYTES {
            return Err("the archive is refused: it is too large".to_owned());
        }
        left.set(entry.size());
        place(entry, target)?;
    }
    set_modes(target, SEALED).map_err(io)
}

/// Puts one entry into the folder, or says why it is refused.
fn place(mut entry: Entry<'_, impl Read>, target: &Path) -> Result<(), String> {
    let name = entry.path().map_err(|problem| problem.to_string())?.into_owned();
    let refused = |why: &str| format!("the archive's entry {:?} is refused: {why}", name.display().to_string());
    let io = |problem: io::Error| refused(&problem.to_string());
    if !name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refused("it lies outside the folder"));
    }
    if lies_behind_link(target, &name) {
        return Err(refused("it lies behind a link"));
    }
    match entry.header().entry_type() {
        EntryType::Regular => {}
        // Made by us, so that its mode cannot lock us out of it.
        EntryType::Directory => return fs::create_dir_all(target.join(&name)).map_err(io),
        EntryType::Symlink => {
            let link = entry.link_name().map_err(io)?.unwrap_or_default();
            if !stays_inside(&name, &link) {
                return Err(refused("it is a link that points outside"));
            }
        }
        _ => return Err(refused("only files, folders and symbolic links are unpacked")),
    }
    match entry.unpack_in(target).map_err(io)? {
        true => Ok(()),
        false => Err(refused("it lies outside the folder")),
    }
}

/// Whether the way to `name` leads over a link: then its spelling would not tell where it lies.
fn lies_behind_link(target: &Path, name: &Path) -> bool {
    name.ancestors().skip(1).any(|folder| {
        // The target itself is ours.
        let inner = folder.components().any(|part| matches!(part, Component::Normal(_)));
        inner && target.join(folder).symlink_metadata().is_ok_and(|data| data.is_symlink())
    })
}

/// Whether a link at `name` to `link` stays within the folder that `name` is relative to.
///
/// `..` is accepted at the beginning only: there it goes up real folders; after a name, which may be a link itself, its
/// spelling would not tell where it leads.
fn stays_inside(name: &Path, link: &Path) -> bool {
    let mut depth = name.components().filter(|part| matches!(part, Component::Normal(_))).count().saturating_sub(1);
    let mut named = false;
    for part in link.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !named => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Files, one after the other.
struct Chain {
    files: Peekable<IntoIter<fs::File>>,
}

impl Read for Chain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(file) = self.files.peek_mut() {
            match file.read(buffer)? {
                0 if !buffer.is_empty() => drop(self.files.next()),
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// Gives no more bytes than are `left`: a header that announces gigabytes is not read into memory.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other("more bytes than its headers may have"));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one entry whose name and link are written as they are, unchecked.
    fn archive(name: &str, kind: EntryType, link: &str) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(if kind == EntryType::Regular { 4 } else { 0 });
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b"text"[..if kind == EntryType::Regular { 4 } else { 0 }]).expect("appended");
        builder.into_inner().expect("finished")
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), String>) {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("layer");
        fs::write(&file, bytes).expect("written");
        let file = fs::File::open(file).expect("there");
        let result = layers(vec![file], "application/vnd.oci.image.layer.v1.tar", &folder.path().join("target"));
        (folder, result)
    }

    #[test]
    fn hostile_h85_archives_write_nothing_outside() {
        for (name, kind, link) in [
            ("../out", EntryType::Regular, ""),
            ("/etc/out", EntryType::Regular, ""),
            ("a/../../out", EntryType::Regular, ""),
            ("link", EntryType::Symlink, "/etc/passwd"),
            ("link", EntryType::Symlink, "../out"),
            ("a/link", EntryType::Symlink, "../../out"),
            ("hard", EntryType::Link, "/etc/passwd"),
            ("device", EntryType::Char, ""),
            ("pipe", EntryType::Fifo, ""),
        ] {
            let (folder, result) = unpacked(&archive(name, kind, link));
            assert!(result.expect_err(name).contains("refused"), "{name}");
            assert!(!folder.path().join("out").exists());
            assert!(!folder.path().join("target").exists(), "{name}: what was refused stays on the disk");
        }
        let (_folder, result) = unpacked(&[0x41; 700]);
        assert!(result.is_err(), "garbage");
    }

    #[test]
    fn permissions_lose_their_special_bits() {
        let (folder, result) = unpacked(&archive("run", EntryType::Regular, ""));
        result.expect("unpacked");
        let mode = folder.path().join("target/run").metadata().expect("file").permissions().mode();
        assert_eq!((mode & 0o7000, mode & 0o700, mode & 0o222), (0, 0o500, 0), "{mode:o}");
        let (_folder, result) = unpacked(&archive("a/link", EntryType::Symlink, "../b"));
        result.expect("a link that stays inside");
    }

    /// An archive of several entries: (name, link); without a link it is a file.
    fn chain(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, link) in entries {
            let kind = if link.is_empty() { EntryType::Regular } else { EntryType::Symlink };
            let one = archive(name, kind, link);
            bytes.extend_from_slice(&one[..one.len() - 1024]); // Without the end of the archive.
        }
        bytes.extend_from_slice(&[0; 1024]);
        bytes
    }

    #[test]
    fn hostile_h85_links_do_not_lead_one_another_out() {
        for entries in [
            &[("a/up", ".."), ("a/up/out", "../..")][..],
            &[("a/b/up", ".."), ("link", "a/b/up/../../..")],
            &[("a/l", "."), ("a/l/file", "")],
        ] {
            let (folder, result) = unpacked(&chain(entries));
            assert!(result.expect_err("refused").contains("refused"), "{entries:?}");
            assert!(folder.path().join("target/out").symlink_metadata().is_err(), "{entries:?}");
        }
        let (folder, result) = unpacked(&chain(&[("a/real", ""), ("b/up", "../a/real"), ("b/up", "")]));
        result.expect("a file takes the place of a link");
        assert!(!folder.path().join("target/b/up").symlink_metadata().expect("there").is_symlink());
    }

    #[test]
    fn hostile_h85_a_name_of_gigabytes_is_not_held_in_memory() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(4 * 1024 * 1024 * 1024);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(3 * 1024 * 1024, b'x');
        let (_folder, result) = unpacked(&bytes);
        assert!(result.expect_err("refused").contains("more bytes"), "limited before the end of the file");
    }

    #[test]
    fn permissions_of_folders_lock_nobody_out() {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..1].copy_from_slice(b"d");
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o000);
        header.set_size(0);
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &archive("d/file", EntryType::Regular, "")].concat();
        let (folder, result) = unpacked(&bytes);
        result.expect("unpacked");
        let mode = |path: &str| folder.path().join(path).metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!((mode("target"), mode("target/d")), (0o555, 0o555), "nobody writes there");
        assert_eq!(mode("target/d/file") & 0o222, 0, "nobody writes it");
        remove(&folder.path().join("target")).expect("removed all the same");
    }

    const PARTS: &str = "application/vnd.pointsman.part.v1.tar+gzip";

    /// An archive of two files in gzip members of 700 bytes of it.
    fn members(folder: &Path) -> Vec<std::path::PathBuf> {
        let archive = chain(&[("a", ""), ("b", "")]);
        let pack = |(place, piece): (usize, &[u8])| {
            let path = folder.join(place.to_string());
            let file = fs::File::create(&path).expect("made");
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            io::Write::write_all(&mut gzip, piece).expect("written");
            gzip.finish().expect("finished");
            path
        };
        archive.chunks(700).enumerate().map(pack).collect()
    }

    #[test]
    fn parts_unpack_as_one() {
        let folder = tempfile::tempdir().expect("folder");
        let open = |path: &std::path::PathBuf| fs::File::open(path).expect("there");
        let parts: Vec<_> = members(folder.path()).iter().map(open).collect();
        assert!(parts.len() > 2);
        layers(parts, PARTS, &folder.path().join("target")).expect("unpacked");
        for name in ["a", "b"] {
            assert_eq!(fs::read(folder.path().join("target").join(name)).expect("there"), b"text");
        }
    }

    #[test]
    fn hostile_h85_parts_that_are_no_archive_or_cut_do_not_unpack() {
        let folder = tempfile::tempdir().expect("folder");
        let parts = members(folder.path());
        for order in [&[1, 0, 2, 3, 4][..], &[1, 2, 3, 4], &[0, 0, 1, 2, 3, 4]] {
            let files = order.iter().map(|place| fs::File::open(&parts[*place]).expect("there")).collect();
            let target = folder.path().join("target");
            assert!(layers(files, PARTS, &target).is_err(), "{order:?}");
            assert!(!target.exists(), "{order:?}: what was refused stays on the disk");
        }
        // A member that was cut, between two whole ones.
        let cut = folder.path().join("cut");
        let bytes = fs::read(&parts[1]).expect("bytes");
        fs::write(&cut, &bytes[..bytes.len() - 4]).expect("written");
        let files =
            [&parts[0], &cut, &parts[2], &parts[3], &parts[4]].map(|path| fs::File::open(path).expect("there")).into();
        assert!(layers(files, PARTS, &folder.path().join("target")).is_err());
    }
}
