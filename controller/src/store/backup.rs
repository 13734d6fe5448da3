//! Backups: one file with all events and the place and hash of the last, so that a cut one is found out.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, params};

use super::anchor::{self, Anchor, Reached};
use super::chain::Link;
use super::{StoreError, database};

/// Writes the backup beside its final name first: a file with the final name is always whole.
pub(crate) fn write(connection: &Connection, last: Link, to: &Path) -> Result<u64, StoreError> {
    if to.exists() {
        return Err(StoreError::Exists { path: to.to_owned() });
    }
    let partial = partial_name(to);
    remove_partial(&partial)?;
    let written = copy_database(connection, &partial).and_then(|copy| {
        let sql = "CREATE TABLE anchor (seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT";
        copy.execute_batch(sql)?;
        copy.execute("INSERT INTO anchor (seq, hash) VALUES (?1, ?2)", params![last.seq.cast_signed(), last.hash])?;
        copy.close().map_err(|(_, error)| error)
    });
    let done = written.map_err(|source| StoreError::writing(to, source)).and_then(|()| publish(&partial, to));
    done.inspect_err(|_| drop(remove_partial(&partial)))?;
    Ok(last.seq)
}

/// Makes a store in `folder` from a backup, after verifying all of it; returns its last event.
///
/// # Errors
/// [`StoreError::Exists`] when the folder has a store already, [`StoreError::BadBackup`] when the file is damaged or cut.
pub fn restore(backup: &Path, folder: &Path) -> Result<u64, StoreError> {
    database::create_folder(folder)?;
    let _lock = database::lock(folder)?;
    let target = folder.join(database::FILE_NAME);
    for name in [database::FILE_NAME, database::LOG_NAME, anchor::FILE_NAME] {
        let path = folder.join(name);
        if path.exists() {
            return Err(StoreError::Exists { path });
        }
    }
    let bad = |why: String| StoreError::BadBackup { path: backup.to_owned(), why };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    File::open(backup).map_err(StoreError::io("opening", backup))?;
    let source = Connection::open_with_flags(backup, flags).map_err(|error| bad(error.to_string()))?;
    let last = verify(&source, backup).map_err(|error| match error {
        error @ StoreError::BadBackup { .. } => error,
        error => bad(error.to_string()),
    })?;
    let partial = partial_name(&target);
    remove_partial(&partial)?;
    let written = copy_database(&source, &partial).and_then(|copy| {
        copy.execute_batch("DROP TABLE anchor")?;
        copy.close().map_err(|(_, error)| error)
    });
    written.map_err(|error| StoreError::writing(folder, error))?;
    publish(&partial, &target)?;
    // Last: a crash before this leaves events without an anchor, which `open` refuses, rather than the other way round.
    Anchor::create(folder, last)?;
    Ok(last.seq)
}

/// Verifies chain and end of a backup.
fn verify(source: &Connection, path: &Path) -> Result<Link, StoreError> {
    let bad = |why: &str| StoreError::BadBackup { path: path.to_owned(), why: why.to_owned() };
    if !database::is_store(source, path)? {
        return Err(bad("it is empty"));
    }
    let (seq, hash): (i64, Vec<u8>) = source
        .query_row("SELECT seq, hash FROM anchor", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(|_| bad("it does not say where it ends; a backup is made by `pointsman controller backup`"))?;
    let (Reached { end, .. }, _) = database::verify_chain(source, None)?;
    if end.seq != seq.cast_unsigned() || end.hash[..] != hash[..] {
        return Err(bad(&format!("it should end at event {seq} and ends at {}", end.seq)));
    }
    Ok(end)
}

/// Copies all pages; the copy has no log of its own, so that it is one file.
fn copy_database(source: &Connection, to: &Path) -> rusqlite::Result<Connection> {
    let mut copy = Connection::open(to)?;
    copy.pragma_update(None, "synchronous", "FULL")?;
    // All pages in one step: the source is not written in between, and a partial copy has no use.
    Backup::new(source, &mut copy)?.step(-1)?;
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    Ok(copy)
}

fn publish(partial: &Path, to: &Path) -> Result<(), StoreError> {
    let renamed = File::open(partial).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(partial, to));
    renamed.map_err(StoreError::io("writing", to))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    database::sync_folder(folder)
}

fn partial_name(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

fn remove_partial(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("removing", path)(error)),
        _ => Ok(()),
    }
}
