//! The last good state on disk: a base file with everything, and a log with the changes since.
//!
//! Must not know: what resources mean, who serves. It blocks, so it is used from a thread of its own.
//!
//! Main types: [`Journal`], which appends; [`load`], which reads at start; [`Loaded`] says what was found, and every
//! damage in words.
//!
//! `state/base` and `state/log` hold records: length (8 bytes), SHA-256 (32 bytes), an encoded `fleet.v1.Change`. The
//! base is one record without a base version. A record of the log names the version it builds on, so a log that does
//! not belong to its base is noticed. Keys of certificates are inside: folder 0700, files 0600.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use api::fleet::Change;
use api::{Digest, Fingerprint, Version};
use prost::Message;

pub(crate) use durable::folder as create_folder;

use crate::snapshot::{Delta, Resources};

/// The log is folded into the base when it is larger than this and than the base.
const LOG_BYTES: u64 = 4 * 1024 * 1024;
/// A record's length and checksum.
const HEAD_BYTES: usize = 8 + 32;

/// What was on disk.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The last whole state; `None`: never saved, or not to be trusted.
    pub(crate) state: Option<(Version, Resources)>,
    /// What an operator has to know, a sentence each.
    pub(crate) damage: Vec<String>,
}

/// A change that is served.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) version: Version,
    pub(crate) delta: Delta,
    /// Of everything that is served since.
    pub(crate) fingerprint: Fingerprint,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    /// What the files hold, or should hold: needed to write a base.
    resources: Resources,
    version: Option<Version>,
    /// Fingerprint of what is served. INVARIANT: nothing with another one is ever written.
    served: Fingerprint,
    log: Option<File>,
    log_bytes: u64,
    base_bytes: u64,
}

impl Journal {
    /// A journal in `folder` that holds what was loaded and is served. Nothing is written until the first change.
    pub(crate) fn new(folder: PathBuf, loaded: Option<&(Version, Resources)>) -> Self {
        let (version, resources) = match loaded {
            Some((version, resources)) => (Some(*version), resources.clone()),
            None => (None, Resources::default()),
        };
        // Without an open log the first change writes a new base: whatever stood behind a damage is then gone.
        let served = resources.fingerprint();
        Self { folder, resources, version, served, log: None, log_bytes: 0, base_bytes: 0 }
    }

    /// Takes changes over and makes them safe on disk with one write. On an error nothing is lost: the next call, also
    /// one without changes, writes everything again.
    pub(crate) fn save(&mut self, changes: &[Served]) -> io::Result<()> {
        let mut records = Vec::new();
        for Served { version, delta, fingerprint } in changes {
            self.resources.apply(delta);
            self.served = *fingerprint;
            if self.version.is_some_and(|before| *version <= before) {
                // The same version again, mended: as a record of the log it would be passed over as an old one.
                self.log = None;
            }
            let change = Change {
                version: Some((*version).into()),
                base: self.version.map(Into::into),
                set: Some(delta.to_set()),
                fingerprint: self.resources.fingerprint().to_bytes().to_vec(),
            };
            self.version = Some(*version);
            records.extend_from_slice(&record(&change));
        }
        if self.resources.fingerprint() != self.served {
            self.log = None;
            return Err(io::Error::other("the journal does not hold what is served: restart the proxy"));
        }
        let Some(log) = self.log.as_mut() else { return self.write_base() };
        if self.log_bytes + records.len() as u64 > LOG_BYTES.max(self.base_bytes) {
            return self.write_base();
        }
        let appended = log.write_all(&records).and_then(|()| log.sync_data());
        if appended.is_err() {
            // The log may end in half a record now; a new base replaces both.
            self.log = None;
        }
        self.log_bytes += records.len() as u64;
        appended
    }

    /// Version of the last change it took over.
    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Of what it holds at that version.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.resources.fingerprint()
    }

    fn write_base(&mut self) -> io::Result<()> {
        let Some(version) = self.version else { return Ok(()) };
        self.log = None;
        create_folder(&self.folder)?;
        let change = Change {
            version: Some(version.into()),
            base: None,
            set: Some(self.resources.to_set()),
            fingerprint: self.resources.fingerprint().to_bytes().to_vec(),
        };
        let base = record(&change);
        durable::write(&self.folder.join("base"), &base)?;
        // Between these two the old log stands beside the new base: its records are then older and passed over.
        durable::write(&self.folder.join("log"), &[])?;
        self.log = Some(OpenOptions::new().append(true).open(self.folder.join("log"))?);
        self.log_bytes = 0;
        self.base_bytes = base.len() as u64;
        Ok(())
    }
}

/// Reads what was saved in `folder`.
pub(crate) fn load(folder: &Path) -> Loaded {
    let mut damage = Vec::new();
    let (base, log) = (folder.join("base"), folder.join("log"));
    let bytes = match fs::read(&base) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !log.exists() => return Loaded::default(),
        Err(error) => {
            damage.push(format!("{} cannot be read ({error}): starting without routes", base.display()));
            return Loaded { state: None, damage };
        }
    };
    let mut resources = Resources::default();
    let version = match parse(&bytes) {
        Some((change, [])) => replay(None, &mut resources, change).ok(),
        _ => None,
    };
    let Some(version) = version else {
        damage.push(format!("{} is damaged: starting without routes", base.display()));
        return Loaded { state: None, damage };
    };
    let mut state = (version, resources);
    match fs::read(&log) {
        Ok(bytes) => replay_log(&mut state, &bytes, &log, &mut damage),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            damage.push(format!("{} cannot be read ({error}): serving {} as of the base", log.display(), state.0));
        }
    }
    Loaded { state: Some(state), damage }
}

fn replay_log(state: &mut (Version, Resources), bytes: &[u8], log: &Path, damage: &mut Vec<String>) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let Some((change, after)) = parse(rest) else {
            damage.push(format!(
                "{} is damaged at byte {at}: serving the last whole state, {}",
                log.display(),
                state.0
            ));
            return;
        };
        rest = after;
        let version: Version = change.version.unwrap_or_default().into();
        if version <= state.0 {
            continue;
        }
        match replay(Some(state.0), &mut state.1, change) {
            Ok(next) => state.0 = next,
            Err(why) => {
                damage.push(format!(
                    "{} at byte {at}: {why}; serving the last whole state, {}",
                    log.display(),
                    state.0
                ));
                return;
            }
        }
    }
}

/// Applies a record, or leaves all as it was; every record proves itself by the fingerprint of what it leads to.
fn replay(have: Option<Version>, resources: &mut Resources, change: Change) -> Result<Version, String> {
    if change.base.map(Version::from) != have {
        return Err("a change is missing before this one".into());
    }
    let version: Version = change.version.unwrap_or_default().into();
    let delta = Delta::read(change.set.unwrap_or_default())
        .map_err(|rejections| format!("{} resources are of a later version of this software", rejections.len()))?;
    if resources.fingerprint_after(&delta).to_bytes()[..] != change.fingerprint[..] {
        return Err("the fingerprint differs".into());
    }
    resources.apply(&delta);
    Ok(version)
}

fn record(change: &Change) -> Vec<u8> {
    let body = change.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(Digest::of(&body).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The first record and what follows it; `None` when it is not whole.
fn parse(bytes: &[u8]) -> Option<(Change, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<32>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    if Digest::of(body).as_bytes() != sum {
        return None;
    }
    Some((Change::decode(body).ok()?, rest))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
