//! Logs of builds and of their checks, by the releases that they belong to.

use std::collections::BTreeMap;
use std::path::Path;

use api::{ReleaseNumber, ServiceName};

use crate::core::State;

/// Which logs there should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logs(BTreeMap<ServiceName, OfService>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct OfService {
    /// The last number that was ever given.
    newest: Option<ReleaseNumber>,
    /// Releases that are listed, and whether their log stays.
    listed: BTreeMap<ReleaseNumber, bool>,
}

impl Logs {
    pub(super) fn of(state: &State) -> Self {
        let of_service = |service: &crate::core::state::Service| {
            let listed = service.releases.iter();
            let listed = listed.map(|(number, release)| (*number, release.trimmed.log_ms.is_none())).collect();
            OfService { newest: service.newest, listed }
        };
        Self(state.services.iter().map(|(name, service)| (name.clone(), of_service(service))).collect())
    }

    /// Removes the logs below `folder` that should not be there; how many. Blocks.
    pub(super) fn remove_gone(&self, folder: &Path) -> usize {
        let mut removed = 0;
        for (name, service) in &self.0 {
            let entries = std::fs::read_dir(folder.join(name.as_str())).into_iter().flatten().flatten();
            let gone = entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| service.is_gone(name)));
            removed += gone.filter(|entry| super::remove(&entry.path())).count();
        }
        removed
    }
}

impl OfService {
    /// Whether the log with this file name belongs to a release that has lost it, or is listed no more.
    ///
    /// Numbers that were never given are left alone, as are other files: the store may have been restored from a backup that
    /// is older than they are.
    fn is_gone(&self, file: &str) -> bool {
        let Some((number, rest)) = file.split_once('.') else { return false };
        let is_log = rest == "log" || rest.starts_with("check-") && rest.ends_with(".log");
        let Some(number) = number.parse::<ReleaseNumber>().ok().filter(|_| is_log) else { return false };
        match self.listed.get(&number) {
            Some(stays) => !stays,
            None => self.newest.is_some_and(|newest| number <= newest),
        }
    }
}
