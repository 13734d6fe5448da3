//! A layer into a folder. Whatever the archive says, nothing is written outside and nothing special is made.

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Component, Path};

use tar::{Archive, EntryType};

/// Most entries and bytes of one artifact: far above any real one, far below what fills a disk.
const ENTRIES: usize = 200_000;
const BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Unpacks the layer file into the new folder `target`; an unfinished one is replaced.
pub(super) fn layer(path: &Path, media_type: &str, target: &Path) -> Result<(), String> {
    let io = |problem: std::io::Error| format!("{}: {problem}", target.display());
    let file = BufReader::new(fs::File::open(path).map_err(io)?);
    let tar: Box<dyn Read> = match media_type.rsplit_once('.').map(|(_, form)| form) {
        Some("tar") => Box::new(file),
        Some("tar+gzip") => Box::new(flate2::read::GzDecoder::new(file)),
        _ => return Err(format!("a layer of type {media_type} cannot be unpacked: accepted are tar and tar+gzip")),
    };
    if target.exists() {
        fs::remove_dir_all(target).map_err(io)?;
    }
    fs::create_dir_all(target).map_err(io)?;
    // One byte more than permitted shows that there is too much.
    let mut archive = Archive::new(tar.take(BYTES + 1));
    archive.set_preserve_permissions(false); // Keeps rwx, drops setuid, setgid and sticky.
    archive.set_preserve_mtime(false);
    let mut written = 0u64;
    for (count, entry) in archive.entries().map_err(io)?.enumerate() {
        let mut entry = entry.map_err(|problem| format!("the archive is damaged: {problem}"))?;
        let name = entry.path().map_err(io)?.into_owned();
        let refused = |why: &str| format!("the archive's entry {:?} is refused: {why}", name.display().to_string());
        written = written.saturating_add(entry.size());
        if count >= ENTRIES || written > BYTES {
            return Err(refused("the archive is too large"));
        }
        if !name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refused("it lies outside the folder"));
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Directory => {}
            EntryType::Symlink => {
                let link = entry.link_name().map_err(io)?.unwrap_or_default().into_owned();
                if !stays_inside(&name, &link) {
                    return Err(refused("it is a link that points outside"));
                }
            }
            _ => return Err(refused("only files, folders and symbolic links are unpacked")),
        }
        if !entry.unpack_in(target).map_err(|problem| refused(&problem.to_string()))? {
            return Err(refused("it lies outside the folder"));
        }
    }
    Ok(())
}

/// Whether a link at `name` to `link` stays within the folder that `name` is relative to.
fn stays_inside(name: &Path, link: &Path) -> bool {
    let mut depth = name.components().filter(|part| matches!(part, Component::Normal(_))).count().saturating_sub(1);
    for part in link.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
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

    fn unpack(bytes: &[u8]) -> (tempfile::TempDir, Result<(), String>) {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("layer");
        fs::write(&file, bytes).expect("written");
        let result = layer(&file, "application/vnd.oci.image.layer.v1.tar", &folder.path().join("target"));
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
            let (folder, result) = unpack(&archive(name, kind, link));
            assert!(result.expect_err(name).contains("refused"), "{name}");
            assert!(!folder.path().join("out").exists());
        }
        let (_, result) = unpack(&[0x41; 700]);
        assert!(result.is_err(), "garbage");
    }

    #[test]
    fn permissions_lose_their_special_bits() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, result) = unpack(&archive("run", EntryType::Regular, ""));
        result.expect("unpacked");
        let mode = folder.path().join("target/run").metadata().expect("file").permissions().mode();
        assert_eq!((mode & 0o7000, mode & 0o700), (0, 0o700));
        let (_folder, result) = unpack(&archive("a/link", EntryType::Symlink, "../b"));
        result.expect("a link that stays inside");
    }
}
