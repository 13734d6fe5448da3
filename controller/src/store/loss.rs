//! Going on without events that are gone: the operator's decision, kept as an event of its own.

use std::path::Path;

use super::anchor::{self, Anchor, Found};
use super::{NewRecord, Record, Store, StoreError, database};

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
    let lock = database::lock(folder)?;
    let found = database::look(folder)?;
    let (kept, vouched) = (kept(folder, &found)?, found.anchor.vouched());
    keep_copies(folder, at_ms)?;
    if found.empty && found.has_log {
        // A log without its database cannot be read; the copy has it.
        let log = folder.join(database::LOG_NAME);
        std::fs::remove_file(&log).map_err(StoreError::io("removing", &log))?;
    }
    let empty = database::Found { anchor: Found::Missing, has_log: found.has_log && !found.empty, ..found };
    let verified = match database::verify(folder, &empty)? {
        Some(verified) => verified,
        None => database::create(folder)?,
    };
    let end = verified.last.end;
    let anchor = Anchor::create(folder, end)?;
    let connection = verified.connection;
    let forget = connection.execute("DELETE FROM checkpoint WHERE seq > ?1", [end.seq.cast_signed()]);
    forget.map_err(|error| StoreError::writing(folder, error))?;
    let mut store = Store { connection, anchor, folder: folder.to_owned(), last: end, uncertain: false, _lock: lock };
    let payload = serde_json::json!({ "kept": kept, "had": vouched });
    let (by, reason, about, kind) = (by.to_owned(), reason.to_owned(), "store".to_owned(), LOSS_ACCEPTED.to_owned());
    let mut written = store.append(vec![NewRecord { at_ms, by, reason, about, kind, schema: 1, payload }])?;
    Ok(written.pop().expect("one record was appended"))
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
