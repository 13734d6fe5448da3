//! Files on the controller's machine that are looked at all the time: certificates with their keys, and lists of revoked
//! certificates. Taken whole or not at all.
//!
//! Must not know: what becomes of what they hold.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use certs::development::Material;
use certs::pair;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;

use super::shelf::Lists;

/// Most bytes of a file of lists; those of large public authorities are about a megabyte. They go to every proxy with each
/// zone and stage that names them.
const LISTS_BYTES: u64 = 4 * 1024 * 1024;
/// What was refused is read again after so long although nobody has changed it: it may have become valid meanwhile.
const AGAIN: Duration = Duration::from_secs(60);

/// Some files as they were when they were read last.
#[derive(Debug, Default)]
pub(super) struct Watched {
    stamps: Vec<Option<Stamp>>,
    /// When they were refused.
    refused: Option<SystemTime>,
}

/// Another one means another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: (u64, u64),
}

impl Watched {
    /// Whether the files may hold something else than when this was asked last.
    pub(super) fn changed(&mut self, paths: &[&str], now: SystemTime) -> bool {
        let stamps: Vec<_> = paths.iter().map(|path| stamp(Path::new(path))).collect();
        let again = self.refused.is_some_and(|at| now.duration_since(at).map_or(true, |since| since >= AGAIN));
        let changed = again || stamps != self.stamps;
        self.stamps = stamps;
        changed
    }

    /// What came of reading them.
    pub(super) fn was_read(&mut self, well: bool, now: SystemTime) {
        self.refused = (!well).then_some(now);
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    let (modified, inode) = ((data.mtime(), data.mtime_nsec()), (data.dev(), data.ino()));
    Some(Stamp { modified, bytes: data.len(), inode })
}

/// A certificate with its key.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn pair(chain: &str, key: &str, now: SystemTime) -> Result<Material, String> {
    let (chain_pem, key_pem) = (text(chain, pair::PEM_BYTES as u64)?, text(key, pair::PEM_BYTES as u64)?);
    pair::read(&chain_pem, &key_pem, now).map_err(|problem| format!("{chain} and {key}: {problem}"))
}

/// The lists in a file, PEM.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn lists(path: &str) -> Result<Lists, String> {
    let text = text(path, LISTS_BYTES)?;
    let wrong = |what: String| format!("{path}: {what} (accepted are lists of revoked certificates, PEM)");
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|problem| wrong(format!("it is not PEM: {}", pair::pem_problem(&problem))))?;
    if found.is_empty() {
        return Err(wrong("there is no list in it".into()));
    }
    for (place, list) in found.iter().enumerate() {
        certs::describe::check_list(list).map_err(|problem| wrong(format!("list {}: {problem}", place + 1)))?;
    }
    Ok(Lists { path: path.to_owned(), crl_der: found.iter().map(|list| list.to_vec()).collect() })
}

/// A file's text. What is no file is not opened: a pipe would be waited for without end, a device read so.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn text(path: &str, most: u64) -> Result<String, String> {
    let failed = |problem: std::io::Error| format!("{path}: {problem}");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{path}: it is not a file"));
    }
    let mut text = Vec::new();
    file.take(most + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > most {
        return Err(format!("{path}: it is longer than {most} bytes"));
    }
    String::from_utf8(text).map_err(|_| format!("{path}: it is not text (accepted is PEM)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_again_when_they_changed_or_were_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a").display().to_string();
        let (mut watched, start) = (Watched::default(), SystemTime::UNIX_EPOCH);
        assert!(watched.changed(&[&path], start), "never looked at");
        watched.was_read(false, start);
        assert!(!watched.changed(&[&path], start + AGAIN / 2) && watched.changed(&[&path], start + AGAIN));
        fs::write(&path, "x").expect("written");
        assert!(watched.changed(&[&path], start));
        watched.was_read(true, start);
        assert!(!watched.changed(&[&path], start + 2 * AGAIN));
        fs::write(folder.path().join("b"), "y").expect("written");
        fs::rename(folder.path().join("b"), &path).expect("replaced");
        assert!(watched.changed(&[&path], start), "as long as before, and another file");
    }

    #[test]
    fn hostile_h61_lists_that_are_none_are_refused_with_their_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("crl.pem").display().to_string();
        let quoted = |text: &str| format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n");
        for (text, expected) in [
            (String::new(), "there is no list in it"),
            (quoted("AAAA"), "list 1: "),
            (quoted("!"), "it is not PEM"),
            ("\u{0}".repeat(5 * 1024 * 1024), "longer than 4194304 bytes"),
            (quoted("AAAA").replace('\n', ""), "it is not PEM: "),
        ] {
            fs::write(&path, text).expect("written");
            let problem = lists(&path).expect_err("refused");
            assert!(problem.contains(expected) && problem.starts_with(&path), "{problem}");
            assert!(!problem.contains("65, 65") && !problem.contains("AAAA"), "it quotes the file: {problem}");
        }
        assert!(lists("/no/such/file").expect_err("refused").starts_with("/no/such/file: "));
        for endless in ["/dev/zero", "/proc"] {
            let problem = lists(endless).expect_err("refused");
            assert!(problem.contains("it is not a file"), "{problem}");
        }
    }
}
