//! What proxies are to serve, kept on disk: certificates with their keys, and lists of revoked ones. A start needs neither
//! their sources nor anybody else.
//!
//! Must not know: where they come from, or who gets them. Files are for their owner only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use api::{Digest, EnvironmentName};
use certs::development::Material;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The certificates of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shelved {
    pub(crate) environment: EnvironmentName,
    /// The source that they are from, as `CertificateSource::key` says it.
    pub(crate) source: String,
    pub(crate) materials: Vec<Material>,
}

/// The lists of one file, as they were when they were good last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lists {
    /// The file's path.
    pub(crate) path: String,
    pub(crate) crl_der: Vec<Vec<u8>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    folder: PathBuf,
    certificates: BTreeMap<EnvironmentName, Shelved>,
    lists: BTreeMap<String, Lists>,
}

impl Shelf {
    /// Reads what is kept in `folder`, which is made when it is not there.
    ///
    /// # Errors
    /// A sentence: a file that cannot be read, or is not what was written there.
    pub(crate) fn open(folder: &Path) -> Result<Self, String> {
        let failed = |problem: io::Error| format!("{}: {problem}", folder.display());
        durable::folder(folder).map_err(failed)?;
        let mut shelf = Self { folder: folder.to_owned(), ..Self::default() };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // What a crash left half-written is beside it and ends otherwise.
            if name.ends_with(".certificates.json") {
                let shelved: Shelved = read(&path)?;
                shelf.certificates.insert(shelved.environment.clone(), shelved);
            } else if name.ends_with(".lists.json") {
                let lists: Lists = read(&path)?;
                shelf.lists.insert(lists.path.clone(), lists);
            }
        }
        Ok(shelf)
    }

    /// Where it is kept.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes over what [`Shelved::save`] has saved.
    pub(crate) fn put(&mut self, shelved: Shelved) {
        self.certificates.insert(shelved.environment.clone(), shelved);
    }

    /// Takes over what [`Lists::save`] has saved.
    pub(crate) fn put_lists(&mut self, lists: Lists) {
        self.lists.insert(lists.path.clone(), lists);
    }

    /// The certificates of an environment, whatever source they are from.
    pub(crate) fn last(&self, environment: &EnvironmentName) -> &[Material] {
        self.certificates.get(environment).map(|found| found.materials.as_slice()).unwrap_or_default()
    }

    /// The certificates of an environment from the source with this key; none: there are none yet.
    pub(crate) fn of(&self, environment: &EnvironmentName, source: &str) -> &[Material] {
        let found = self.certificates.get(environment).filter(|found| found.source == source);
        found.map(|found| found.materials.as_slice()).unwrap_or_default()
    }

    /// Forgets lists, on disk as well.
    pub(crate) fn drop_lists(&mut self, gone: &BTreeSet<String>) {
        for lists in gone.iter().filter_map(|path| self.lists.remove(path)) {
            let _ = std::fs::remove_file(lists.file(&self.folder)); // The next start reads it in vain.
        }
    }

    /// The lists of a file; none: it was never good.
    pub(crate) fn lists(&self, path: &str) -> Option<&[Vec<u8>]> {
        self.lists.get(path).map(|lists| lists.crl_der.as_slice())
    }
}

impl Shelved {
    /// Writes them in place of what the environment had. On disk when it returns.
    ///
    /// # Errors
    /// A sentence; what was there is untouched then.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), String> {
        write(&folder.join(format!("{}.certificates.json", self.environment)), self)
    }
}

impl Lists {
    /// Writes them in place of what the file had before. On disk when it returns.
    ///
    /// # Errors
    /// A sentence; what was there is untouched then.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), String> {
        write(&self.file(folder), self)
    }

    fn file(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.lists.json", &Digest::of(self.path.as_bytes()).hex()[..16]))
    }
}

/// Reads a file of ours. Its text is never told: it holds keys.
///
/// # Errors
/// A sentence.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        format!(
            "{}: not what was written there (line {}, column {}): restore it, or move it away to have it made anew",
            path.display(),
            error.line(),
            error.column()
        )
    })
}

/// Writes a file of ours, for its owner alone. On disk when it returns.
///
/// # Errors
/// A sentence; what was there is untouched then.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_vec(value).map_err(|problem| problem.to_string())?;
    durable::write(path, &text).map_err(|problem| format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelved(name: &str) -> Shelved {
        let material =
            Material { dns_names: vec![name.into()], chain_der: vec![vec![1]], key_der: vec![2], expires_s: 3 };
        Shelved { environment: "dev".parse().expect("name"), source: "files".into(), materials: vec![material] }
    }

    #[test]
    fn what_is_shelved_is_there_after_a_start_and_of_its_source_only() {
        let folder = tempfile::tempdir().expect("folder");
        let lists = Lists { path: "/etc/crl.pem".into(), crl_der: vec![vec![9]] };
        shelved("a.example").save(folder.path()).expect("saved");
        shelved("b.example").save(folder.path()).expect("replaced");
        lists.save(folder.path()).expect("saved");
        let shelf = Shelf::open(folder.path()).expect("read");
        let dev = "dev".parse().expect("name");
        assert_eq!(shelf.of(&dev, "files"), shelved("b.example").materials);
        assert!(shelf.of(&dev, "acme").is_empty() && shelf.of(&"prod".parse().expect("name"), "files").is_empty());
        assert_eq!((shelf.lists("/etc/crl.pem"), shelf.lists("/etc/other")), (Some(&[vec![9]][..]), None));
        let mut shelf = shelf;
        shelf.drop_lists(&["/etc/other".to_owned()].into());
        assert!(Shelf::open(folder.path()).expect("read").lists("/etc/crl.pem").is_some());
        shelf.drop_lists(&["/etc/crl.pem".to_owned()].into());
        assert!(Shelf::open(folder.path()).expect("read").lists("/etc/crl.pem").is_none());
    }

    #[test]
    fn a_damaged_shelf_is_told_and_not_passed_over() {
        let folder = tempfile::tempdir().expect("folder");
        shelved("a.example").save(folder.path()).expect("saved");
        std::fs::write(folder.path().join("dev.certificates.json"), "{\"key_der\":[1,2").expect("written");
        let problem = Shelf::open(folder.path()).expect_err("damaged");
        assert!(problem.contains("dev.certificates.json") && problem.contains("move it away"), "{problem}");
    }
}
