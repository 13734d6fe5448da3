//! The SQLite file: how it is made, opened, verified from the first event to the last, and locked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};

use super::anchor::{Found as FoundAnchor, Reached};
use super::chain::{self, Link, Row};
use super::{Checkpoint, StoreError};

/// The shape of the tables, in `user_version`.
pub(crate) const FORMAT: i64 = 1;

/// "PmEv", in `application_id`: tells our file from any other SQLite file.
const APPLICATION: i64 = 0x506d_4576;

pub(crate) const FILE_NAME: &str = "events.db";
pub(crate) const LOG_NAME: &str = "events.db-wal";
const LOCK_NAME: &str = "events.lock";

/// SQLite's default, set on purpose: a file shorter than this has lost its first page.
const PAGE_BYTES: u64 = 4096;

const TABLES: &str = "
    CREATE TABLE event (
        seq INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        by TEXT NOT NULL,
        reason TEXT NOT NULL,
        about TEXT NOT NULL,
        kind TEXT NOT NULL,
        schema INTEGER NOT NULL,
        payload TEXT NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE checkpoint (
        seq INTEGER PRIMARY KEY,
        schema INTEGER NOT NULL,
        state BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
";

/// What lies in a folder, before SQLite has touched anything.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) anchor: FoundAnchor,
    /// No file, or one that is cut within its first page: SQLite would take it for a new one.
    pub(crate) empty: bool,
    pub(crate) has_log: bool,
}

/// A database whose whole chain was read and is right.
pub(crate) struct Verified {
    pub(crate) connection: Connection,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) last: Reached,
}

/// Makes the store's folder, for its owner alone.
pub(crate) fn create_folder(folder: &Path) -> Result<(), StoreError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(StoreError::io("making the folder", folder))
}

/// Takes the folder for this process; the lock ends with the returned file.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK_NAME);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(StoreError::io("opening", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { folder: folder.to_owned() }),
        Err(error) => Err(StoreError::io("locking", &path)(error.into())),
    }
}

/// Looks at the files only.
pub(crate) fn look(folder: &Path) -> Result<Found, StoreError> {
    let bytes = |name: &str| {
        let path = folder.join(name);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(StoreError::io("reading", &path)(error)),
        }
    };
    let anchor = FoundAnchor::look(folder)?;
    Ok(Found { anchor, empty: bytes(FILE_NAME)? < PAGE_BYTES, has_log: bytes(LOG_NAME)? > 0 })
}

/// Opens and reads everything; `None` when there is no database yet.
pub(crate) fn verify(folder: &Path, found: &Found) -> Result<Option<Verified>, StoreError> {
    if found.empty {
        // SQLite deletes the log of an empty database: look before it does, so that what is left can be rescued.
        let anchored = found.anchor.vouched().unwrap_or(0);
        if anchored > 0 {
            return Err(StoreError::Behind { folder: folder.to_owned(), last: 0, anchored });
        }
        if found.has_log {
            let why = "it is empty, but its write-ahead log is not".to_owned();
            return Err(StoreError::NotAStore { path: folder.join(FILE_NAME), why });
        }
        return Ok(None);
    }
    let connection = open(&folder.join(FILE_NAME))?;
    if !check_format(&connection, folder, found)? {
        drop(connection);
        return Ok(None);
    }
    let (last, checkpoint) = verify_chain(&connection, found.anchor.vouched())?;
    Ok(Some(Verified { connection, checkpoint, last }))
}

/// Makes an empty database.
pub(crate) fn create(folder: &Path) -> Result<Verified, StoreError> {
    let connection = open(&folder.join(FILE_NAME))?;
    let doing = |source| StoreError::writing(folder, source);
    connection.pragma_update(None, "journal_mode", "WAL").map_err(doing)?;
    let tables = format!(
        "BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; {TABLES} COMMIT;"
    );
    connection.execute_batch(&tables).map_err(doing)?;
    sync_folder(folder)?;
    let last = Reached { end: Link::START, at_anchor: Some(Link::START) };
    Ok(Verified { connection, checkpoint: None, last })
}

/// From here on the connection may tidy up: nothing was found that somebody might want to look at.
pub(crate) fn accept(connection: &Connection) -> Result<(), StoreError> {
    let set = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
    set.map(drop).map_err(StoreError::reading)
}

/// Reads the chain from the first event on, and the newest whole checkpoint.
pub(crate) fn verify_chain(
    connection: &Connection,
    anchored: Option<u64>,
) -> Result<(Reached, Option<Checkpoint>), StoreError> {
    let structure: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| unreadable(0, &error))?;
    if structure != "ok" {
        return Err(StoreError::Broken { seq: 1, why: format!("SQLite finds its file damaged ({structure})") });
    }
    let candidates = checkpoints(connection)?;
    let (mut end, mut at_anchor, mut whole) = (Link::START, None, None);
    let mut statement = connection.prepare(chain::SELECT_FROM).map_err(|error| unreadable(0, &error))?;
    let mut rows = statement.query(params![i64::MIN, -1]).map_err(|error| unreadable(0, &error))?;
    loop {
        at_anchor = at_anchor.or((anchored == Some(end.seq)).then_some(end));
        for (checkpoint, hash) in candidates.iter().filter(|(checkpoint, _)| checkpoint.seq == end.seq) {
            if *hash == chain::checkpoint_hash(&end, checkpoint) {
                whole = Some(checkpoint.clone());
            }
        }
        let Some(row) = rows.next().map_err(|error| unreadable(end.seq, &error))? else { break };
        end = Row::read(row).map_err(|error| unreadable(end.seq, &error))?.verify(&end)?;
    }
    Ok((Reached { end, at_anchor }, whole))
}

/// The chain's link at an event that is there.
pub(crate) fn link_at(connection: &Connection, seq: u64) -> Result<Link, StoreError> {
    if seq == 0 {
        return Ok(Link::START);
    }
    let row = connection.query_row(chain::SELECT_FROM, params![seq.cast_signed(), 1], Row::read);
    Ok(row.map_err(StoreError::reading)?.link())
}

/// Whether a file is an event store of our format; `false`: a database in which nothing was made yet.
pub(crate) fn is_store(connection: &Connection, path: &Path) -> Result<bool, StoreError> {
    let number = |name: &str| -> Result<i64, StoreError> {
        let read = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
        read.map_err(|error| not_a_store(path, &error))
    };
    let sql = "SELECT count(*), count(*) FILTER (WHERE name IN ('event', 'checkpoint')) FROM sqlite_schema";
    let counts = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (tables, ours): (i64, i64) = counts.map_err(|error| not_a_store(path, &error))?;
    match (number("application_id")?, number("user_version")?, tables, ours) {
        (0, 0, 0, _) => Ok(false),
        (APPLICATION, FORMAT, _, 2) => Ok(true),
        (APPLICATION, found, ..) if found > FORMAT => Err(StoreError::Newer { found }),
        _ => Err(StoreError::NotAStore { path: path.to_owned(), why: "it is some other SQLite file".to_owned() }),
    }
}

/// Makes what was created, renamed or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("syncing", folder))
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let set_up = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        // A store that is refused is left as it was found: closing must not move its log into the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.pragma_update(None, "page_size", PAGE_BYTES.cast_signed())?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    };
    set_up().map_err(|error| not_a_store(path, &error))
}

/// Whether the tables are there. A file that is not in WAL mode beside a log was damaged: SQLite would ignore the log.
fn check_format(connection: &Connection, folder: &Path, found: &Found) -> Result<bool, StoreError> {
    let path = folder.join(FILE_NAME);
    let refuse = |why: &str| Err(StoreError::NotAStore { path: path.clone(), why: why.to_owned() });
    let mode: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(|error| not_a_store(&path, &error))?;
    let there = is_store(connection, &path)?;
    let anchored = found.anchor.vouched().unwrap_or(0);
    match (there, mode.as_str()) {
        (true, "wal") => Ok(true),
        (true, _) if found.has_log => refuse("its header does not name the write-ahead log that lies beside it"),
        (true, _) => connection
            .pragma_update(None, "journal_mode", "WAL")
            .map(|()| true)
            .map_err(|source| StoreError::writing(folder, source)),
        // A crash in the middle of making it; SQLite goes on with the same file.
        (false, _) if anchored == 0 => Ok(false),
        (false, _) => Err(StoreError::Behind { folder: folder.to_owned(), last: 0, anchored }),
    }
}

/// The kept checkpoints with their hashes. One that cannot be read is left out: events are what counts.
fn checkpoints(connection: &Connection) -> Result<Vec<(Checkpoint, Vec<u8>)>, StoreError> {
    let mut seqs = connection.prepare("SELECT seq FROM checkpoint").map_err(|error| unreadable(0, &error))?;
    let seqs: Vec<i64> =
        seqs.query_map([], |row| row.get(0)).map_err(StoreError::reading)?.filter_map(Result::ok).collect();
    let read = |seq: i64| {
        let sql = "SELECT schema, state, hash FROM checkpoint WHERE seq = ?1";
        let row = connection.query_row(sql, [seq], |row| {
            let checkpoint = Checkpoint { seq: seq.cast_unsigned(), schema: row.get(0)?, state: row.get(1)? };
            Ok((checkpoint, row.get(2)?))
        });
        row.optional().ok().flatten()
    };
    Ok(seqs.into_iter().filter_map(read).collect())
}

fn unreadable(last: u64, error: &rusqlite::Error) -> StoreError {
    StoreError::Broken { seq: last + 1, why: format!("it cannot be read ({error})") }
}

fn not_a_store(path: &Path, error: &rusqlite::Error) -> StoreError {
    if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
        return StoreError::InUse { folder: path.parent().map(PathBuf::from).unwrap_or_default() };
    }
    StoreError::NotAStore { path: path.to_owned(), why: error.to_string() }
}
