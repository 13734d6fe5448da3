//! A folder as tar, the same bytes for the same content.
//!
//! Entries are sorted; times, owners and extended attributes are left out; modes are 0755 or 0644. What was built is not
//! trusted: links must stay within the folder, and nothing but files, folders and links is packed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use api::{ARTIFACT_BYTES, ARTIFACT_ENTRIES};
use rustix::fs::{Mode, OFlags};
use tar::{Builder, EntryType, Header};

use super::ArtifactError;

/// What lies at a path of the folder.
pub(super) enum Kind {
    Folder,
    File,
    Link(PathBuf),
}

/// Writes `folder` as an archive to `to`.
pub(super) fn tar(folder: &Path, to: &mut impl Write) -> Result<(), ArtifactError> {
    let entries = entries(folder, ARTIFACT_ENTRIES)?;
    let mut tar = Builder::new(to);
    let mut left = ARTIFACT_BYTES;
    for (path, kind) in &entries {
        append(&mut tar, folder, path, kind, &mut left)?;
    }
    tar.into_inner().map(drop).map_err(ArtifactError::io(folder))
}

/// Everything below the folder, by relative path, sorted by its bytes: a folder stands before what is in it.
///
/// No more than `most`: what no agent would unpack is refused while its build can still be told.
pub(super) fn entries(root: &Path, most: usize) -> Result<Vec<(PathBuf, Kind)>, ArtifactError> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let full = root.join(&folder);
        for entry in std::fs::read_dir(&full).map_err(ArtifactError::io(&full))? {
            let entry = entry.map_err(ArtifactError::io(&full))?;
            let path = folder.join(entry.file_name());
            let kind = kind(root, &path)?;
            if matches!(kind, Kind::Folder) {
                folders.push(path.clone());
            }
            found.push((path, kind));
            if found.len() > most {
                return Err(refused(format!(
                    "the folder has more than {most} files, folders and links: accepted are so many"
                )));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    Ok(found)
}

fn kind(root: &Path, path: &Path) -> Result<Kind, ArtifactError> {
    let full = root.join(path);
    let file_type = std::fs::symlink_metadata(&full).map_err(ArtifactError::io(&full))?.file_type();
    if file_type.is_dir() {
        return Ok(Kind::Folder);
    }
    if file_type.is_file() {
        return Ok(Kind::File);
    }
    if file_type.is_symlink() {
        let target = std::fs::read_link(&full).map_err(ArtifactError::io(&full))?;
        return match leaves(path, &target) {
            None => Ok(Kind::Link(target)),
            Some(why) => Err(refused(format!(
                "the symbolic link {} -> {} {why}: accepted are links to what lies in the same folder",
                told(path.as_os_str()),
                told(target.as_os_str())
            ))),
        };
    }
    let what = match () {
        () if file_type.is_socket() => "a socket",
        () if file_type.is_fifo() => "a pipe",
        () => "a device",
    };
    let path = told(path.as_os_str());
    Err(refused(format!("{path} is {what}: accepted are files, folders and symbolic links")))
}

/// Why a link leads out of the folder, if it does.
///
/// `..` is accepted at the beginning only: there it goes up real folders. After a name, which may be a link itself, its
/// spelling would not tell where it leads.
fn leaves(path: &Path, target: &Path) -> Option<&'static str> {
    let depth = path.components().count() - 1;
    let (mut ups, mut named) = (0, false);
    for component in target.components() {
        match component {
            Component::ParentDir if named => return Some("goes up again after a name"),
            Component::ParentDir => ups += 1,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Some("is absolute"),
        }
    }
    (ups > depth).then_some("points out of the folder")
}

/// Appends one entry, whose content counts against the bytes that are `left`.
fn append(
    tar: &mut Builder<impl Write>,
    root: &Path,
    path: &Path,
    kind: &Kind,
    left: &mut u64,
) -> Result<(), ArtifactError> {
    let full = root.join(path);
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let appended = match kind {
        Kind::Folder => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, path, io::empty())
        }
        Kind::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target)
        }
        Kind::File => {
            let file = open(&full)?;
            let metadata = file.metadata().map_err(ArtifactError::io(&full))?;
            *left = left.checked_sub(metadata.len()).ok_or_else(|| {
                refused(format!(
                    "the folder's files have more than {ARTIFACT_BYTES} bytes together, with {}: accepted are so many",
                    told(path.as_os_str())
                ))
            })?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(metadata.len());
            let content = Exactly { file, rest: metadata.len() };
            tar.append_data(&mut header, path, content)
        }
    };
    appended.map_err(ArtifactError::io(&full))
}

/// Opens a file that was one a moment ago, and refuses what took its place since.
fn open(path: &Path) -> Result<File, ArtifactError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| ArtifactError::io(path)(error.into()))?;
    let file = File::from(file);
    if file.metadata().map_err(ArtifactError::io(path))?.is_file() {
        return Ok(file);
    }
    Err(refused(format!("{} changed while it was packed", path.display())))
}

/// Gives as many bytes as the header said, or an error: an archive with any other number would be garbage from there on.
struct Exactly {
    file: File,
    rest: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.rest).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was packed"));
        }
        self.rest -= read as u64;
        Ok(read)
    }
}

fn refused(sentence: String) -> ArtifactError {
    ArtifactError::Refused { sentence }
}

/// A file name for a message: hostile ones contain control characters.
fn told(name: &OsStr) -> String {
    let name = String::from_utf8_lossy(name.as_bytes());
    let mut cut: String = name.chars().take(200).collect();
    if cut.len() < name.len() {
        cut.push('…');
    }
    cut.escape_debug().to_string()
}
