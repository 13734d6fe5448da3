//! What is done of a build, on the disk before the next step begins: a controller that died goes on from there, and nothing is
//! made twice.
//!
//! Must not know: how any of it is done.
//!
//! Main types: [`Journal`], [`Made`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use api::{ComponentName, EnvironmentName, ReleaseName, ReleaseNumber};
use serde::{Deserialize, Serialize};

use crate::core::state::{Artifact, CheckDone};

use super::NotBuilt;

/// Of what a journal says only this much is read: its own are far shorter.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    pub(crate) release: ReleaseName,
    pub(crate) commit: String,
    /// The command has begun, and pushes what it makes: a second run could push something else.
    pub(crate) pushes: bool,
    /// The command has come to its end, and well: what it has left is in the checkout.
    pub(crate) ran: bool,
    /// From here on this is the release, whatever a command would make now.
    pub(crate) made: Option<Made>,
    /// All of it is in the registry, as far as it is to be there.
    pub(crate) pushed: bool,
    /// Checks that came to an end.
    pub(crate) checks: Vec<CheckDone>,
    /// It came to this end.
    pub(crate) failed: Option<NotBuilt>,
}

/// A whole set of artifacts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The same in all environments.
    pub(crate) artifacts: BTreeMap<ComponentName, Artifact>,
    /// For one environment each.
    pub(crate) for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    /// They are those of this release.
    pub(crate) kept_from: Option<ReleaseNumber>,
}

// === impl Journal ===

impl Journal {
    pub(crate) fn new(release: ReleaseName, commit: String) -> Self {
        Self { release, commit, pushes: false, ran: false, made: None, pushed: false, checks: Vec::new(), failed: None }
    }

    /// What an earlier build of the same left in its folder; none: nothing that lasts.
    pub(crate) fn read(folder: &Path, release: &ReleaseName, commit: &str) -> Option<Self> {
        let path = path(folder);
        if path.metadata().ok()?.len() > MOST_BYTES {
            return None;
        }
        let read: Self = serde_json::from_slice(&durable::read(&path).ok()??).ok()?;
        (read.release == *release && read.commit == commit).then_some(read)
    }

    /// Writes it. On disk when it returns.
    ///
    /// # Errors
    /// The disk is full, or the folder gone.
    pub(crate) async fn write(&self, folder: &Path) -> io::Result<()> {
        let (path, bytes) = (path(folder), serde_json::to_vec(self).expect("a journal is JSON"));
        let written = tokio::task::spawn_blocking(move || durable::write(&path, &bytes)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

// === impl Made ===

impl Made {
    /// Puts one in its place.
    pub(crate) fn put(&mut self, component: ComponentName, environment: Option<EnvironmentName>, artifact: Artifact) {
        let place = match environment {
            Some(environment) => self.for_environments.entry(environment).or_default(),
            None => &mut self.artifacts,
        };
        place.insert(component, artifact);
    }

    /// All of them, each with the environment that it is for; none: for all.
    pub(crate) fn each(&mut self) -> impl Iterator<Item = (&ComponentName, Option<&EnvironmentName>, &mut Artifact)> {
        let common = self.artifacts.iter_mut().map(|(name, artifact)| (name, None, artifact));
        let own = self.for_environments.iter_mut();
        let own = own.flat_map(|(at, all)| all.iter_mut().map(move |(name, artifact)| (name, Some(at), artifact)));
        common.chain(own)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("journal.json")
}

#[cfg(test)]
mod tests {
    use api::Digest;

    use super::*;
    use crate::core::state::{ArtifactKind, BuildStep, CheckVerdict};

    #[tokio::test]
    async fn a_journal_is_read_as_it_was_written_and_by_its_own_build_only() {
        let folder = tempfile::tempdir().expect("folder");
        let release: ReleaseName = "hello@r1".parse().expect("release");
        assert!(Journal::read(folder.path(), &release, "abc").is_none());
        let mut journal = Journal::new(release.clone(), "abc".into());
        let place = "r.example.com/web".parse().ok();
        let artifact = Artifact { digest: Digest::of(b"x"), bytes: 7, kind: ArtifactKind::Image, place };
        let mut made = Made::default();
        made.put("web".parse().expect("name"), None, artifact.clone());
        made.put("ui".parse().expect("name"), "qa".parse().ok(), artifact);
        assert_eq!(made.each().count(), 2);
        journal.made = Some(made);
        journal.checks.push(CheckDone { name: "fits".into(), verdict: CheckVerdict::Failed(3), took_ms: 5 });
        journal.failed = Some(NotBuilt::new(BuildStep::Check, super::super::BuildProblem::new("no")));
        journal.write(folder.path()).await.expect("written");
        assert_eq!(Journal::read(folder.path(), &release, "abc"), Some(journal));
        assert!(Journal::read(folder.path(), &release, "abd").is_none(), "another commit");
        assert!(
            Journal::read(folder.path(), &"hello@r2".parse().expect("release"), "abc").is_none(),
            "another release"
        );
        for text in ["", "{", "{}", "[1]"] {
            std::fs::write(path(folder.path()), text).expect("written");
            assert!(Journal::read(folder.path(), &release, "abc").is_none(), "{text}");
        }
    }
}
