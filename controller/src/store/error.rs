//! What can go wrong with the store, each told so that an operator knows what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store was not opened, or did not do what it was asked.
#[derive(Debug)]
pub enum StoreError {
    /// A file or folder could not be used.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite failed in a way that says nothing about damage.
    Database {
        /// What was being done.
        doing: &'static str,
        /// Its reason.
        source: rusqlite::Error,
    },
    /// Another process has the store.
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// Written by a newer Pointsman.
    Newer {
        /// The format that was found.
        found: i64,
    },
    /// The file is not an event store, or cannot be read as one.
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The chain breaks at an event.
    Broken {
        /// The first event that cannot be trusted.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Events at the end that were written are missing.
    Behind {
        /// The folder.
        folder: PathBuf,
        /// The last event that is there.
        last: u64,
        /// The last event that was written.
        anchored: u64,
    },
    /// An event is not the one that was written in its place, although the chain is whole.
    Rewritten {
        /// Its place.
        seq: u64,
    },
    /// There are events but nothing that vouches for their number.
    AnchorUnreadable {
        /// The anchor file.
        path: PathBuf,
        /// The last event that is there.
        last: u64,
    },
    /// No room on the disk; nothing was written.
    Full {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk failed so that nobody knows whether the last write is there.
    Uncertain {
        /// The folder.
        folder: PathBuf,
        /// What failed.
        cause: String,
    },
    /// A value that the store cannot hold.
    NotStorable {
        /// The value.
        what: String,
    },
    /// There is something already where something new should be written.
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// A backup that is not whole.
    BadBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing is missing, so there is no loss to accept.
    NothingLost,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Self::Database { doing, source } => write!(f, "{doing}: {source}"),
            Self::InUse { folder } => {
                write!(f, "the store in {} is in use: is another controller running?", folder.display())
            }
            Self::Newer { found } => write!(
                f,
                "the store has format {found}, written by a newer version; this one reads format {}",
                super::database::FORMAT
            ),
            Self::NotAStore { path, why } => write!(
                f,
                "{} cannot be read as an event store: {why}; `pointsman controller restore` into a new folder takes a backup",
                path.display()
            ),
            Self::Broken { seq, why } => write!(
                f,
                "the event store is damaged at event {seq}: {why}; nothing was changed; restore a backup into a new folder \
                 with `pointsman controller restore`"
            ),
            Self::Behind { folder, last, anchored } => write!(
                f,
                "events {} to {anchored} are missing from the store in {}: they were written, but it ends at {last}; maybe its \
                 files were cut or an older copy was put back; nothing was changed; restore a newer backup with `pointsman \
                 controller restore`, or go on without them, on record, with `pointsman controller accept-loss`",
                last + 1,
                folder.display()
            ),
            Self::Rewritten { seq } => write!(
                f,
                "event {seq} is not the one that was written: maybe the store's file belongs to another controller; nothing \
                 was changed; restore a backup with `pointsman controller restore`, or go on with what is there, on record, \
                 with `pointsman controller accept-loss`"
            ),
            Self::AnchorUnreadable { path, last } => write!(
                f,
                "the store has events up to {last}, but {}, which tells whether later ones are missing, cannot be read; \
                 nothing was changed; restore a backup with `pointsman controller restore`, or go on with what is there, on \
                 record, with `pointsman controller accept-loss`",
                path.display()
            ),
            Self::Full { folder } => {
                write!(
                    f,
                    "no room for more events in {}: nothing was changed; make room and try again",
                    folder.display()
                )
            }
            Self::Uncertain { folder, cause } => write!(
                f,
                "writing to the store in {} failed and it is not known whether the event is on disk ({cause}); the \
                 controller has to start again to find out",
                folder.display()
            ),
            Self::NotStorable { what } => write!(f, "the store cannot hold {what}"),
            Self::Exists { path } => write!(f, "{} exists already and is not overwritten", path.display()),
            Self::BadBackup { path, why } => write!(f, "{} is not a whole backup: {why}", path.display()),
            Self::NothingLost => f.write_str("the store is whole: there is no loss to accept"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Database { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn reading(source: rusqlite::Error) -> Self {
        Self::Database { doing: "reading the event store", source }
    }

    /// The same once more when it ends the store's use ([`StoreError::Uncertain`]): the asker hears it, and the owner.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Uncertain { folder, cause } => Some(Self::Uncertain { folder: folder.clone(), cause: cause.clone() }),
            _ => None,
        }
    }

    /// Sorts a failed write: no room (nothing happened), or a disk that failed (nobody knows).
    pub(crate) fn writing(folder: &Path, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { folder: folder.to_owned() },
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Uncertain { folder: folder.to_owned(), cause: source.to_string() }
            }
            _ => Self::Database { doing: "writing the event store", source },
        }
    }
}
