//! What the agent keeps in files: JSON, whole or absent, for its owner only (variables may hold secrets).

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use durable::folder;

/// Writes `value` in place of what is there.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    durable::write(path, &serde_json::to_vec_pretty(value)?)
}

/// Reads what [`write`] wrote; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    Ok(durable::read(path)?.map(|text| serde_json::from_slice(&text)).transpose()?)
}
