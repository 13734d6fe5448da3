//! The hash chain: each event's hash covers all its fields and the hash before it.

use aws_lc_rs::digest::{Context, SHA256};
use rusqlite::{Connection, params};

use super::{Checkpoint, NewRecord, Record, StoreError};

/// All events from a place on, in order.
pub(crate) const SELECT_FROM: &str = "SELECT seq, at_ms, by, reason, about, kind, schema, payload, hash FROM event \
                                      WHERE seq >= ?1 ORDER BY seq LIMIT ?2";

/// The end of a chain: how many events, and the hash of the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
}

impl Link {
    /// Before the first event.
    pub(crate) const START: Self = Self { seq: 0, hash: [0; 32] };
}

/// An event as it lies in the table. The payload is text: the hash covers its bytes, not its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    seq: i64,
    at_ms: i64,
    by: String,
    reason: String,
    about: String,
    kind: String,
    schema: u32,
    payload: String,
    hash: Vec<u8>,
}

impl Row {
    /// The row of a new event after `last`.
    pub(crate) fn follow(last: &Link, new: NewRecord) -> Result<Self, StoreError> {
        let at_ms = i64::try_from(new.at_ms)
            .map_err(|_| StoreError::NotStorable { what: format!("the time {} ms", new.at_ms) })?;
        let mut row = Self {
            seq: (last.seq + 1).cast_signed(),
            at_ms,
            by: new.by,
            reason: new.reason,
            about: new.about,
            kind: new.kind,
            schema: new.schema,
            payload: new.payload.to_string(),
            hash: Vec::new(),
        };
        row.hash = row.computed(&last.hash).to_vec();
        Ok(row)
    }

    pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            at_ms: row.get(1)?,
            by: row.get(2)?,
            reason: row.get(3)?,
            about: row.get(4)?,
            kind: row.get(5)?,
            schema: row.get(6)?,
            payload: row.get(7)?,
            hash: row.get(8)?,
        })
    }

    pub(crate) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO event (seq, at_ms, by, reason, about, kind, schema, payload, hash) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        connection.prepare(sql)?.execute(params![
            self.seq,
            self.at_ms,
            self.by,
            self.reason,
            self.about,
            self.kind,
            self.schema,
            self.payload,
            self.hash
        ])?;
        Ok(())
    }

    /// The chain's end when this row is the last.
    pub(crate) fn link(&self) -> Link {
        let hash = self.hash.as_slice().try_into().expect("made by `follow` or checked by `verify`: 32 bytes");
        Link { seq: self.seq.cast_unsigned(), hash }
    }

    /// The chain's end after this row, if it is the one that follows `last`.
    pub(crate) fn verify(&self, last: &Link) -> Result<Link, StoreError> {
        let expected = last.seq + 1;
        let broken = |why: String| StoreError::Broken { seq: expected, why };
        if self.seq != expected.cast_signed() {
            return Err(broken(format!("it is not there, the next one is {}", self.seq)));
        }
        let computed = self.computed(&last.hash);
        if self.hash != computed {
            return Err(broken("its content does not match its hash".to_owned()));
        }
        Ok(Link { seq: expected, hash: computed })
    }

    pub(crate) fn into_record(self) -> Result<Record, StoreError> {
        let seq = self.seq.cast_unsigned();
        let payload = serde_json::from_str(&self.payload)
            .map_err(|error| StoreError::Broken { seq, why: format!("its payload is not JSON: {error}") })?;
        Ok(Record {
            seq,
            at_ms: self.at_ms.cast_unsigned(),
            by: self.by,
            reason: self.reason,
            about: self.about,
            kind: self.kind,
            schema: self.schema,
            payload,
        })
    }

    /// Lengths stand before texts, so that moving a letter from one field to the next changes the hash.
    fn computed(&self, previous: &[u8; 32]) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(previous);
        context.update(&self.seq.to_be_bytes());
        context.update(&self.at_ms.to_be_bytes());
        context.update(&self.schema.to_be_bytes());
        for text in [&self.by, &self.reason, &self.about, &self.kind, &self.payload] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        finish(context)
    }
}

/// Binds a checkpoint to its content and to the very events it was folded from.
pub(crate) fn checkpoint_hash(link: &Link, checkpoint: &Checkpoint) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&link.hash);
    context.update(&checkpoint.seq.to_be_bytes());
    context.update(&checkpoint.schema.to_be_bytes());
    context.update(&checkpoint.state);
    finish(context)
}

fn finish(context: Context) -> [u8; 32] {
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
