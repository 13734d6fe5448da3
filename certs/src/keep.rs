//! Keeping secrets in files: folders of mode 0700, files of mode 0600, written whole or not at all.
//!
//! Must not know: what the files hold.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
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
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// Reads a file that [`write`] wrote; `None` when there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CertsError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
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

/// Writes a file of mode 0600 by way of a temporary one, so that a crash leaves the old or the new, never half.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), CertsError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| CertsError::Material(error.to_string()))?;
    let temporary = path.with_extension("new");
    let result = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    result.map_err(failed(path))
}
