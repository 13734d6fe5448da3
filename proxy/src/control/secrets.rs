//! Secrets on disk, sealed as they came: whoever reads the file without the proxy's own key has nothing.
//!
//! Must not know: what a secret is for. It blocks, so it is used from the thread that writes.
//!
//! Main type: [`SecretsFile`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::fleet::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// `<data>/secrets.json`: written whole or not at all, mode 0600.
#[derive(Debug)]
pub(crate) struct SecretsFile {
    path: PathBuf,
    secrets: BTreeMap<String, Secret>,
    /// The file does not hold just that yet.
    is_behind: bool,
    /// Those of them that the file does not hold yet.
    unsaved: BTreeSet<String>,
}

/// Bytes in base64.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    encapsulated: String,
    sealed: String,
}

impl SecretsFile {
    /// Reads what is there. With damage nothing is believed, and the error is a sentence.
    pub(crate) fn load(path: &Path) -> (Self, Option<String>) {
        let empty =
            Self { path: path.to_owned(), secrets: BTreeMap::new(), is_behind: false, unsaved: BTreeSet::new() };
        match read(path) {
            Ok(secrets) => (Self { secrets, ..empty }, None),
            Err(what) => {
                let text = format!("{}: {what}: starting without the secrets in it", path.display());
                (empty, Some(text))
            }
        }
    }

    /// All of them.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.secrets.values().cloned().collect()
    }

    pub(super) fn add(&mut self, new: Vec<Secret>) {
        self.is_behind |= !new.is_empty();
        self.unsaved.extend(new.iter().map(|secret| secret.id.clone()));
        self.secrets.extend(new.into_iter().map(|secret| (secret.id.clone(), secret)));
    }

    pub(super) fn forget(&mut self, ids: &[Arc<str>]) {
        for id in ids {
            self.is_behind |= self.secrets.remove(&**id).is_some();
            self.unsaved.remove(&**id);
        }
    }

    /// Makes the file what it should be. On an error it is as it was, and the next call tries again.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if !self.is_behind {
            return Ok(());
        }
        let kept = |secret: &Secret| Kept {
            id: secret.id.clone(),
            encapsulated: STANDARD.encode(&secret.encapsulated),
            sealed: STANDARD.encode(&secret.sealed),
        };
        let text = serde_json::to_vec_pretty(&self.secrets.values().map(kept).collect::<Vec<_>>())?;
        durable::write(&self.path, &text)?;
        self.is_behind = false;
        self.unsaved.clear();
        Ok(())
    }

    /// Whether the file is not what it should be, if only larger.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Whether a restart would lack one.
    pub(super) fn lacks_some(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

/// Messages do not quote the text.
fn read(path: &Path) -> Result<BTreeMap<String, Secret>, String> {
    let Some(bytes) = durable::read(path).map_err(|error| format!("it cannot be read ({error})"))? else {
        return Ok(BTreeMap::new());
    };
    let damaged = "it is damaged";
    let kept: Vec<Kept> = serde_json::from_slice(&bytes).map_err(|_| damaged)?;
    let secret = |Kept { id, encapsulated, sealed }: Kept| {
        let encapsulated = STANDARD.decode(encapsulated).map_err(|_| damaged)?;
        let sealed = STANDARD.decode(sealed).map_err(|_| damaged)?;
        Ok((id.clone(), Secret { id, encapsulated, sealed }))
    };
    kept.into_iter().map(secret).collect::<Result<_, &str>>().map_err(str::to_owned)
}
