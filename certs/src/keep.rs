//! Keeping keys and certificates in files, as JSON, for their owner only.
//!
//! Must not know: what the files hold.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::CertsError;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::File { path, source }
}

/// Makes a folder that only its owner may enter; one that exists is left as it is.
pub(crate) fn folder(path: &Path) -> Result<(), CertsError> {
    durable::folder(path).map_err(failed(path))
}

/// Reads a file that [`write`] wrote; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CertsError> {
    let Some(bytes) = durable::read(path).map_err(failed(path))? else { return Ok(None) };
    // The parser's message may quote the text, which holds a key: only the place is told.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| CertsError::Damaged {
        path: path.to_owned(),
        what: format!(
            "not what was written there (line {}, column {}); restore it, or move it away to start anew",
            error.line(),
            error.column()
        ),
    })
}

/// Writes a file whole or not at all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CertsError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| CertsError::Material(error.to_string()))?;
    durable::write(path, &text).map_err(failed(path))
}
