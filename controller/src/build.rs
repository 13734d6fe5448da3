//! Builds: a commit of a git repository becomes artifacts, in a clean checkout with a cleared environment.
//!
//! Must not know: stages, events, or why a build was asked for. One call is one build; whoever calls keeps them in order.
//!
//! Main types: [`BuildFolders`], [`Revision`] and [`Commit`] (see [`resolve`]), [`Job`] and [`Built`] (see [`run`]),
//! [`BuildProblem`].
//!
//! A build command runs as the controller's own user: it is kept apart by folders and environment so that builds do not
//! depend on each other, not so that a hostile one could do no harm.

mod log;
mod mirror;
pub(crate) mod process;
mod steps;
pub(crate) mod workspace;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{ComponentName, ReleaseName, ServiceName};
use tokio::sync::watch;

use crate::artifact::{Artifact, Layout};
use crate::core::spec::{ServiceSpec, Source};

use self::log::Log;
use steps::Build;
use workspace::Workspace;

pub use mirror::resolve;
pub use workspace::end_leftovers;

/// Between SIGTERM and SIGKILL when a build is ended: time to remove a lock file, not to finish.
const GRACE: Duration = Duration::from_secs(5);

/// Where programs are looked for when the controller itself was not told.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Ends a build when it becomes true. A sender that is gone never does.
pub type Cancel = watch::Receiver<bool>;

/// Where builds do their work. Clones share the locks of the mirrors.
#[derive(Debug, Clone)]
pub struct BuildFolders {
    /// A bare mirror per service.
    pub mirrors: PathBuf,
    /// Checkouts while they are built; nothing else may be in it.
    pub work: PathBuf,
    /// What builds of a service may keep for later ones, a folder per service.
    pub cache: PathBuf,
    /// Logs: `<service>/r<N>.log`.
    pub logs: PathBuf,
    /// The controller's own environment, of which builds see PATH and what their spec passes on.
    pub inherited: BTreeMap<String, String>,
    mirror_locks: Arc<Mutex<HashMap<ServiceName, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// A commit by its hash, at least 7 digits of it.
    Commit(String),
    /// A tag.
    Tag(String),
    /// The newest commit of a branch.
    Branch(String),
}

/// A commit that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Full hash.
    pub id: String,
    /// First line of its message, at most 200 characters.
    pub subject: String,
    /// Author's name, at most 200 characters.
    pub author: String,
    /// The tag that was asked for, or else one that points at it.
    pub tag: Option<String>,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The release that it makes.
    pub release: ReleaseName,
    /// Where the commit comes from.
    pub source: Source,
    /// Full hash.
    pub commit: String,
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The commit's own `pointsman.toml`.
    pub spec: ServiceSpec,
    /// One for each of its components.
    pub artifacts: BTreeMap<ComponentName, Artifact>,
}

/// Why there is nothing to release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildProblem {
    /// One sentence; the log has the rest.
    pub sentence: String,
    /// Exit status of the program that failed, if one did.
    pub exit: Option<i32>,
}

impl fmt::Display for BuildProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for BuildProblem {}

impl BuildProblem {
    fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), exit: None }
    }

    fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(format!("{doing} {}: {error}", path.display()))
    }
}

/// Builds a commit.
///
/// The log is kept in every case, also of what went wrong before the command; a second build of the same release goes on
/// in the same log.
///
/// # Errors
/// One sentence: the commit is gone, its `pointsman.toml` has mistakes, the command failed, took too long or was
/// cancelled, a component's folder is missing or cannot be packed.
///
/// # Cancel safety
/// Dropping the future kills the command; its folder stays until the next build of the same release or
/// [`end_leftovers`]. `cancel` ends it in order.
pub async fn run(folders: &BuildFolders, layout: &Layout, job: &Job, cancel: Cancel) -> Result<Built, BuildProblem> {
    let mut log = Log::open(&folders.logs, &job.release)?;
    let built = match Workspace::make(folders, &job.release).await {
        Ok(workspace) => {
            let mut build = Build { folders, job, log: &mut log, cancel, workspace: &workspace };
            let built = Box::pin(build.steps(layout)).await;
            workspace.remove().await;
            built
        }
        Err(problem) => Err(problem),
    };
    match &built {
        Ok(_) => log.line("built"),
        Err(problem) => log.line(&format!("failed: {}", problem.sentence)),
    }
    built
}

// === impl BuildFolders ===

impl BuildFolders {
    /// The usual folders within the controller's data folder; `inherited` is the environment it was started with.
    pub fn within(data: &Path, inherited: BTreeMap<String, String>) -> Self {
        let [mirrors, work, cache, logs] = ["mirrors", "work", "cache", "logs"].map(|name| data.join(name));
        Self { mirrors, work, cache, logs, inherited, mirror_locks: Arc::default() }
    }

    /// The log of a release's build; there is none before it was started.
    pub fn log(&self, release: &ReleaseName) -> PathBuf {
        log::path(&self.logs, release)
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> String {
        self.inherited.get("PATH").cloned().unwrap_or_else(|| DEFAULT_PATH.to_owned())
    }

    /// One git at a time changes a mirror.
    fn mirror_lock(&self, service: &ServiceName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.mirror_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(service.clone()).or_default().clone()
    }
}

/// A command line for the log.
fn told(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,{}".contains(&b))
    };
    let words = words.iter().map(|word| if plain(word) { word.clone() } else { format!("{word:?}") });
    words.collect::<Vec<_>>().join(" ")
}
