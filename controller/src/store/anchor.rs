//! The anchor: a small file beside the database that says up to where events were written.
//!
//! A damaged byte in SQLite's write-ahead log makes it drop every later commit without a word, and what is left is a
//! whole chain. Only something outside the database can tell. Two slots are written in turn, so that a write that is
//! cut leaves the one before it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::chain::Link;
use super::{StoreError, database};

const MAGIC: &[u8; 8] = b"PMANCHOR";

/// Magic, place, hash, and a SHA-256 over the three.
const SLOT_BYTES: usize = 8 + 8 + 32 + 32;

/// Slots lie in different pages of the file, so that no single torn write reaches both.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];

/// Written whole at creation: a later write in place needs no new room on the disk.
const FILE_BYTES: usize = 8192;

/// The name of the anchor file in a store's folder.
pub(crate) const FILE_NAME: &str = "events.anchor";

/// What the anchor file said when the store was opened.
#[derive(Debug)]
pub(crate) enum Found {
    /// No such file.
    Missing,
    /// Neither slot can be read.
    Unreadable,
    /// The newer of the readable slots.
    Vouched {
        /// What it vouches for.
        link: Link,
        /// Which slot that is.
        slot: usize,
        /// Whether the other slot is unreadable.
        half: bool,
    },
}

/// The end of the verified chain, and the hash at the place for which the anchor vouches (if the chain is that long).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    pub(crate) end: Link,
    pub(crate) at_anchor: Option<Link>,
}

/// The open anchor file.
#[derive(Debug)]
pub(crate) struct Anchor {
    file: File,
    next_slot: usize,
}

impl Found {
    /// Reads the anchor of a store.
    pub(crate) fn look(folder: &Path) -> Result<Self, StoreError> {
        let path = path(folder);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(error) => return Err(StoreError::io("opening", &path)(error)),
        };
        let mut slots = [None, None];
        for (slot, offset) in slots.iter_mut().zip(SLOT_OFFSETS) {
            let mut bytes = [0; SLOT_BYTES];
            *slot = match file.read_exact_at(&mut bytes, offset) {
                Ok(()) => decode(&bytes),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                Err(error) => return Err(StoreError::io("reading", &path)(error)),
            };
        }
        Ok(match slots {
            [None, None] => Self::Unreadable,
            [Some(link), None] => Self::Vouched { link, slot: 0, half: true },
            [None, Some(link)] => Self::Vouched { link, slot: 1, half: true },
            [Some(a), Some(b)] if a.seq >= b.seq => Self::Vouched { link: a, slot: 0, half: false },
            [Some(_), Some(b)] => Self::Vouched { link: b, slot: 1, half: false },
        })
    }

    /// The place it vouches for, if any.
    pub(crate) fn vouched(&self) -> Option<u64> {
        match self {
            Self::Vouched { link, .. } => Some(link.seq),
            Self::Missing | Self::Unreadable => None,
        }
    }

    /// Compares with what the database holds, and mends what a crash between commit and anchor leaves behind.
    pub(crate) fn reconcile(
        self,
        folder: &Path,
        reached: Reached,
        notes: &mut Vec<String>,
    ) -> Result<Anchor, StoreError> {
        let Reached { end, at_anchor } = reached;
        let (link, slot, half) = match self {
            // New, or its making was cut short: the anchor is made last, and appears whole.
            Self::Missing if end.seq == 0 => return Anchor::create(folder, Link::START),
            Self::Missing | Self::Unreadable => {
                return Err(StoreError::AnchorUnreadable { path: path(folder), last: end.seq });
            }
            Self::Vouched { link, slot, half } => (link, slot, half),
        };
        if end.seq < link.seq {
            return Err(StoreError::Behind { folder: folder.to_owned(), last: end.seq, anchored: link.seq });
        }
        if at_anchor != Some(link) {
            return Err(StoreError::Rewritten { seq: link.seq });
        }
        let mut anchor = Anchor { file: open(folder)?, next_slot: 1 - slot };
        if half {
            notes.push("one of the two slots of the anchor could not be read and was written again".to_owned());
        }
        if end.seq > link.seq {
            let first = link.seq + 1;
            notes.push(format!("events {first} to {} were whole but not yet in the anchor, as after a crash", end.seq));
        }
        if half || end != link {
            anchor.advance(end).map_err(StoreError::io("writing", &path(folder)))?;
        }
        Ok(anchor)
    }
}

impl Anchor {
    /// Makes the file, or makes it anew, with `link` in both slots.
    pub(crate) fn create(folder: &Path, link: Link) -> Result<Self, StoreError> {
        let (path, fresh) = (path(folder), folder.join("events.anchor.new"));
        let mut bytes = vec![0; FILE_BYTES];
        for offset in SLOT_OFFSETS {
            let start = usize::try_from(offset).expect("below 8192");
            bytes[start..start + SLOT_BYTES].copy_from_slice(&encode(link));
        }
        let written = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        written().map_err(StoreError::io("writing", &path))?;
        database::sync_folder(folder)?;
        Ok(Self { file: open(folder)?, next_slot: 0 })
    }

    /// Vouches for everything up to `link`; on disk when it returns.
    pub(crate) fn advance(&mut self, link: Link) -> io::Result<()> {
        self.file.write_all_at(&encode(link), SLOT_OFFSETS[self.next_slot])?;
        self.file.sync_data()?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

#[cfg(test)]
impl Anchor {
    /// Has every later write fail, as on a disk that does.
    pub(crate) fn fail_from_now_on(&mut self, folder: &Path) {
        self.file = File::open(path(folder)).expect("the anchor is there");
    }
}

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

fn open(folder: &Path) -> Result<File, StoreError> {
    let path = path(folder);
    OpenOptions::new().read(true).write(true).open(&path).map_err(StoreError::io("opening", &path))
}

fn encode(link: Link) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&link.seq.to_be_bytes());
    bytes[16..48].copy_from_slice(&link.hash);
    let sum = api::Digest::of(&bytes[..48]);
    bytes[48..].copy_from_slice(sum.as_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Link> {
    let whole = &bytes[..8] == MAGIC && api::Digest::of(&bytes[..48]).as_bytes()[..] == bytes[48..];
    let seq = u64::from_be_bytes(bytes[8..16].try_into().ok()?);
    let hash = bytes[16..48].try_into().ok()?;
    whole.then_some(Link { seq, hash })
}
