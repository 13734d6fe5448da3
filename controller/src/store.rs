//! The event store: every change, in order, hash-chained, in one SQLite file with an anchor beside it.
//!
//! Must not know: what an event means. Kind, payload and checkpoint are text and bytes that the core made.
//!
//! Main types: [`Store`], [`NewRecord`] and [`Record`], [`Checkpoint`], [`StoreError`].
//!
//! Three things together show damage: SQLite's own checks (a page that cannot be read), the hash chain (an event that was
//! changed or taken out), and the anchor (events cut off at the end, which a damaged write-ahead log hides from both).
//! A store that fails any of them is not opened and not changed: its files stay as they are for whoever repairs them.

mod anchor;
mod backup;
mod chain;
mod database;
mod error;
mod loss;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior, params};

use anchor::Anchor;
use chain::Link;

pub use backup::restore;
pub use error::StoreError;
pub use loss::{LOSS_ACCEPTED, accept_loss};

/// An event before it has its place in the order.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// When it was decided, milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// Who: a token's name, or a part of the controller.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// What it is about, such as `hello/production`.
    pub about: String,
    /// What happened, such as `release.built`.
    pub kind: String,
    /// Version of the payload's shape; older ones are brought up to date by the reader.
    pub schema: u32,
    /// The rest.
    pub payload: serde_json::Value,
}

/// An event in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place, from 1, without gaps.
    pub seq: u64,
    /// When it was decided, milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What it is about.
    pub about: String,
    /// What happened.
    pub kind: String,
    /// Version of the payload's shape.
    pub schema: u32,
    /// The rest.
    pub payload: serde_json::Value,
}

/// State folded up to an event, so that a start need not fold from the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last event folded into it.
    pub seq: u64,
    /// Version of the state's shape; the reader drops those it does not know.
    pub schema: u32,
    /// The state.
    pub state: Vec<u8>,
}

/// An opened store and what was found in it.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// The newest checkpoint that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// What was found and mended, one sentence each, for the log.
    pub notes: Vec<String>,
}

/// The one writer of a folder's events.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    anchor: Anchor,
    folder: PathBuf,
    last: Link,
    /// Set after a failure that leaves open whether the last append is on disk; then only a new start can tell.
    uncertain: bool,
    /// Held as long as the store lives: the lock goes with the descriptor.
    _lock: File,
}

impl Store {
    /// Opens the store in `folder`, or makes an empty one, and verifies all of it.
    ///
    /// Takes time in proportion to the number of events.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another controller has it; [`StoreError::Broken`], [`StoreError::Behind`],
    /// [`StoreError::Rewritten`] and [`StoreError::AnchorUnreadable`] when events were damaged or are missing. None of
    /// them changes a file.
    pub fn open(folder: &Path) -> Result<Opened, StoreError> {
        database::create_folder(folder)?;
        let lock = database::lock(folder)?;
        let found = database::look(folder)?;
        let database::Verified { connection, checkpoint, last } = match database::verify(folder, &found)? {
            Some(verified) => verified,
            // Neither is there, but once there was something: not the same as new.
            None if matches!(found.anchor, anchor::Found::Unreadable) => {
                return Err(StoreError::AnchorUnreadable { path: anchor::path(folder), last: 0 });
            }
            None => database::create(folder)?,
        };
        let mut notes = Vec::new();
        let anchor = found.anchor.reconcile(folder, last, &mut notes)?;
        database::accept(&connection)?;
        let store =
            Self { connection, anchor, folder: folder.to_owned(), last: last.end, uncertain: false, _lock: lock };
        Ok(Opened { store, checkpoint, notes })
    }

    /// The last event's place; 0 when there is none.
    pub fn last(&self) -> u64 {
        self.last.seq
    }

    /// Appends all records, or none, and returns them with their places.
    ///
    /// When it returns, they are on disk and the anchor vouches for them.
    ///
    /// # Errors
    /// [`StoreError::Full`] when there is no room: nothing was appended and a later call may work.
    /// [`StoreError::Uncertain`] when the disk failed so that nobody knows: this and all later calls are refused, and the
    /// process should end and start again, which finds out.
    pub fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Record>, StoreError> {
        self.certain()?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (appended, last) = match commit(&mut self.connection, &self.folder, self.last, records) {
            Ok(done) => done,
            Err(error) => {
                self.uncertain = matches!(error, StoreError::Uncertain { .. });
                return Err(error);
            }
        };
        self.last = last;
        self.anchor.advance(last).map_err(|error| {
            self.uncertain = true;
            StoreError::Uncertain { folder: self.folder.clone(), cause: format!("the anchor was not written: {error}") }
        })?;
        Ok(appended)
    }

    /// Events from place `from` on, at most `limit`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut statement = self.connection.prepare(chain::SELECT_FROM).map_err(StoreError::reading)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![from, limit], chain::Row::read).map_err(StoreError::reading)?;
        rows.map(|row| row.map_err(StoreError::reading)?.into_record()).collect()
    }

    /// Keeps a checkpoint; the last two are kept.
    ///
    /// # Errors
    /// When it lies behind the last event, or the disk is full or fails; the events are not touched either way. After a
    /// failed [`Store::append`] none is taken: the last event may be one that nobody's state knows.
    pub fn save_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.certain()?;
        if checkpoint.seq > self.last.seq {
            return Err(StoreError::NotStorable {
                what: format!("a checkpoint at event {}, after the last ({})", checkpoint.seq, self.last.seq),
            });
        }
        let link = database::link_at(&self.connection, checkpoint.seq)?;
        let hash = chain::checkpoint_hash(&link, checkpoint);
        let doing = |error| StoreError::writing(&self.folder, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing)?;
        let seq = checkpoint.seq.cast_signed();
        transaction
            .execute(
                "INSERT OR REPLACE INTO checkpoint (seq, schema, state, hash) VALUES (?1, ?2, ?3, ?4)",
                params![seq, checkpoint.schema, checkpoint.state, hash],
            )
            .map_err(doing)?;
        transaction
            .execute(
                "DELETE FROM checkpoint WHERE seq NOT IN (SELECT seq FROM checkpoint ORDER BY seq DESC LIMIT 2)",
                [],
            )
            .map_err(doing)?;
        transaction.commit().map_err(doing)
    }

    /// Writes a consistent copy of everything into the new file `to`, which [`restore`] takes; returns its last event.
    ///
    /// # Errors
    /// When `to` exists already or cannot be written.
    pub fn backup(&self, to: &Path) -> Result<u64, StoreError> {
        backup::write(&self.connection, self.last, to)
    }

    /// Refuses to write after a failure that only a new start can look into.
    fn certain(&self) -> Result<(), StoreError> {
        if self.uncertain {
            return Err(StoreError::Uncertain { folder: self.folder.clone(), cause: "an earlier write failed".into() });
        }
        Ok(())
    }
}

/// The transaction of [`Store::append`]: all records after `last`, or none. The chain's new end is the caller's to take
/// over, once something vouches for it.
fn commit(
    connection: &mut Connection,
    folder: &Path,
    mut last: Link,
    records: Vec<NewRecord>,
) -> Result<(Vec<Record>, Link), StoreError> {
    let doing = |error| StoreError::writing(folder, error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(doing)?;
    let mut appended = Vec::with_capacity(records.len());
    for record in records {
        let row = chain::Row::follow(&last, record)?;
        row.insert(&transaction).map_err(doing)?;
        last = row.link();
        appended.push(row.into_record()?);
    }
    transaction.commit().map_err(doing)?;
    Ok((appended, last))
}

#[cfg(test)]
impl Store {
    /// Takes all room, or gives it back.
    pub(crate) fn fill_up(&self, full: bool) {
        let pages: i64 = self.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("pages");
        let most = if full { pages } else { pages + 10_000 };
        self.connection.pragma_update(None, "max_page_count", most).expect("limit");
    }

    /// Has the anchor fail after each later commit.
    pub(crate) fn fail_from_now_on(&mut self) {
        self.anchor.fail_from_now_on(&self.folder);
    }
}
