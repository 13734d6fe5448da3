//! Going on without events that are gone: the operator's decision, kept as an event of its own.

use std::path::Path;

use super::anchor::{self, Anchor, Found};
use super::{NewRecord, Record, StoreError, database};

/// Kind of the event that [`accept_loss`] writes.
pub const LOSS_ACCEPTED: &str = "store.loss_accepted";

/// Accepts that events at the end are gone, or that nothing vouches for them any more, and puts that on record.
///
/// The files as they were found are copied first, into `before-loss-<at_ms>` within the folder. The payload of the event
/// says how many events were kept and, if known, how many there had been.
///
/// # Errors
/// [`StoreError::NothingLost`] when the store opens as it is; the chain's own errors when it is broken in the middle,
/// which only a backup can mend.
pub fn accept_loss(folder: &Path, at_ms: u64, by: &str, reason: &str) -> Result<Record, StoreError> {
    let _lock = database::lock(folder)?;
    let found = database::look(folder)?;
    let (kept, vouched) = (kept(folder, &found)?, found.anchor.vouched());
    keep_copies(folder, at_ms)?;
    if found.empty {
        // A log without its database cannot be read, nor a database without its first page; the copy has them.
        for name in [database::LOG_NAME, database::FILE_NAME] {
            remove(&folder.join(name))?;
        }
    }
    let left = database::Found { anchor: Found::Missing, has_log: found.has_log && !found.empty, ..found };
    let verified = match database::verify(folder, &left)? {
        Some(verified) => verified,
        None => database::create(folder)?,
    };
    let (mut connection, end) = (verified.connection, verified.last.end);
    let forget = connection.execute("DELETE FROM checkpoint WHERE seq > ?1", [end.seq.cast_signed()]);
    forget.map_err(|error| StoreError::writing(folder, error))?;
    let payload = serde_json::json!({ "kept": kept, "had": vouched });
    let (by, reason, about, kind) = (by.to_owned(), reason.to_owned(), "store".to_owned(), LOSS_ACCEPTED.to_owned());
    let record = NewRecord { at_ms, by, reason, about, kind, schema: 1, payload };
    let (mut written, end) = super::commit(&mut connection, folder, end, vec![record])?;
    // Last: from now on the store opens, and the loss is on record by then.
    Anchor::create(folder, end)?;
    Ok(written.pop().expect("one record was appended"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("removing", path)(error)),
        _ => Ok(()),
    }
}

/// The last event that is left, when some are lost or may be.
fn kept(folder: &Path, found: &database::Found) -> Result<u64, StoreError> {
    let last = match database::verify(folder, found) {
        Ok(None) if matches!(found.anchor, Found::Unreadable) => return Ok(0),
        Ok(None) => return Err(StoreError::NothingLost),
        Ok(Some(verified)) => verified.last,
        // The database itself is gone or empty.
        Err(StoreError::Behind { last, .. }) => return Ok(last),
        Err(error) => return Err(error),
    };
    let whole = match &found.anchor {
        Found::Vouched { link, .. } => last.end.seq >= link.seq && last.at_anchor == Some(*link),
        Found::Missing => last.end.seq == 0,
        Found::Unreadable => false,
    };
    if whole { Err(StoreError::NothingLost) } else { Ok(last.end.seq) }
}

fn keep_copies(folder: &Path, at_ms: u64) -> Result<(), StoreError> {
    let copies = folder.join(format!("before-loss-{at_ms}"));
    database::create_folder(&copies)?;
    for name in [database::FILE_NAME, database::LOG_NAME, anchor::FILE_NAME] {
        let from = folder.join(name);
        if from.exists() {
            std::fs::copy(&from, copies.join(name)).map_err(StoreError::io("copying", &from))?;
        }
    }
    database::sync_folder(&copies)
}
