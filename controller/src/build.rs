//! Builds: a commit of a git repository becomes artifacts, in a clean checkout with a cleared environment.
//!
//! Must not know: stages, events, or why a build was asked for. One call is one build; whoever calls keeps them in order.
//!
//! Main types: [`BuildFolders`], [`Revision`] and [`Commit`] (see [`resolve`]), `Job` and `Built` (see `run`),
//! [`BuildProblem`].
//!
//! A build command runs as the controller's own user: it is kept apart by folders and environment so that builds do not
//! depend on each other, not so that a hostile one could do no harm.

mod check;
mod checkout;
mod command;
pub(crate) mod contain;
mod journal;
mod limit;
mod log;
mod login;
pub(crate) mod mask;
pub(crate) mod mirror;
mod outputs;
mod picks;
pub(crate) mod process;
mod push;
pub(crate) mod secrets;
mod steps;
pub(crate) mod workspace;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{ComponentName, EnvironmentName, ReleaseName, ReleaseNumber};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

use crate::core::observe::Transfer;
use crate::core::spec::{BuildSpec, ComponentSpec, RegistrySpec, SecretSpec, ServiceSpec, Source};
use crate::core::state::{Artifact, BuildStep, CheckDone, HotFix};
use crate::shelf::Shelf;

use self::contain::Containment;
use self::journal::Journal;
use self::log::Log;
use steps::Build;
use workspace::Workspace;

pub use mirror::resolve;
pub(crate) use mirror::{Between, GitSettings, commits_between};
pub use picks::{Fix, Fixed, fix};
pub(crate) use push::anybody;
pub(crate) use workspace::clear_leftovers;
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
    /// Limits of git, and who we are at the servers that it talks to.
    pub(crate) git: GitSettings,
    mirror_locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    containment: Arc<OnceCell<Containment>>,
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
pub(crate) struct Job {
    /// The release that it makes.
    pub(crate) release: ReleaseName,
    /// Where the commit comes from.
    pub(crate) source: Source,
    /// Full hash.
    pub(crate) commit: String,
    /// It stands on a released commit.
    pub(crate) hot_fix: Option<HotFix>,
    /// The tag by which it was asked for, which must still name the commit; none: it was not by a tag.
    pub(crate) tag: Option<String>,
    /// The newest release that was built, whose artifacts stay when only configuration has changed since.
    pub(crate) base: Option<Base>,
    /// What builds may be given, by name.
    pub(crate) secrets: BTreeMap<String, SecretSpec>,
    /// Where artifacts go.
    pub(crate) registry: Option<RegistrySpec>,
}

/// A release that was built before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) number: ReleaseNumber,
    pub(crate) commit: String,
    pub(crate) build: BuildSpec,
    pub(crate) components: BTreeMap<ComponentName, ComponentSpec>,
    pub(crate) artifacts: BTreeMap<ComponentName, Artifact>,
    pub(crate) for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    pub(crate) checks: Vec<CheckDone>,
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// The commit's own `pointsman.toml`.
    pub(crate) spec: ServiceSpec,
    /// What is the same in all environments.
    pub(crate) artifacts: BTreeMap<ComponentName, Artifact>,
    /// What is for one environment each.
    pub(crate) for_environments: BTreeMap<EnvironmentName, BTreeMap<ComponentName, Artifact>>,
    /// What was asked of it.
    pub(crate) checks: Vec<CheckDone>,
    /// The release whose artifacts these are.
    pub(crate) kept_from: Option<ReleaseNumber>,
}

/// Why a build made nothing, and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotBuilt {
    pub(crate) problem: BuildProblem,
    pub(crate) step: BuildStep,
    pub(crate) checks: Vec<CheckDone>,
}

/// Why there is nothing to release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Builds a commit, or goes on where an earlier build of the same release ended with its controller.
///
/// The log is kept in every case, also of what went wrong before the command. The folder of work stays, and says what was
/// done, until [`clear`].
///
/// # Errors
/// Where it ended, and one sentence: the commit is gone, its `pointsman.toml` has mistakes, the command failed, took too long or
/// was cancelled, something is missing or cannot be packed, the registry does not take it, a check failed.
///
/// # Cancel safety
/// Dropping the future kills what runs. `cancel` ends it in order.
pub(crate) async fn run(
    folders: &BuildFolders,
    shelf: &Shelf,
    job: &Job,
    cancel: Cancel,
    transfers: &watch::Sender<Option<Transfer>>,
) -> Result<Built, NotBuilt> {
    let early = |problem| NotBuilt::new(BuildStep::Checkout, problem);
    let mut log = Log::open(log::path(&folders.logs, &job.release)).map_err(early)?;
    let left = Workspace::left(folders, &job.release).await;
    let left =
        left.and_then(|left| Journal::read(left.folder(), &job.release, &job.commit).map(|journal| (left, journal)));
    let (workspace, mut journal) = match left {
        Some((_, Journal { failed: Some(failed), .. })) => return Err(failed),
        Some((left, journal)) if journal.made.is_some() || journal.ran || journal.pushes => (left, journal),
        _ => {
            let journal = Journal::new(job.release.clone(), job.commit.clone());
            (Workspace::make(folders, &job.release).await.map_err(early)?, journal)
        }
    };
    let mut build = Build {
        folders,
        shelf,
        job,
        log: &mut log,
        cancel: cancel.clone(),
        workspace: &workspace,
        journal: &mut journal,
        transfers,
        mask: None,
        surroundings: None,
        step: BuildStep::Checkout,
    };
    let built = Box::pin(build.steps()).await;
    let (mask, step) = (build.mask.clone(), build.step);
    workspace.forget_secrets().await;
    match built {
        Ok(built) => {
            log.line("built");
            Ok(built)
        }
        Err(problem) => {
            let sentence = mask.map_or(problem.sentence.clone(), |mask| mask.text(&problem.sentence));
            log.line(&format!("failed: {sentence}"));
            let failed = NotBuilt {
                checks: journal.checks.clone(),
                ..NotBuilt::new(step, BuildProblem { sentence, ..problem })
            };
            if !*cancel.borrow() {
                journal.failed = Some(failed.clone());
                // A disk that is full: then it fails again.
                let _ = journal.write(workspace.folder()).await;
            }
            Err(failed)
        }
    }
}

/// Removes what a build has left, once its end is on record.
pub(crate) async fn clear(folders: &BuildFolders, release: &ReleaseName) {
    if let Some(left) = Workspace::left(folders, release).await {
        left.remove().await;
    }
}

// === impl NotBuilt ===

impl NotBuilt {
    fn new(step: BuildStep, problem: BuildProblem) -> Self {
        Self { problem, step, checks: Vec::new() }
    }
}

// === impl Base ===

impl Base {
    /// Whether a commit that says this of itself builds what this one was built as, if its other files are the same.
    fn is_like(&self, spec: &ServiceSpec) -> bool {
        let output = |component: &ComponentSpec| (component.folder.clone(), component.image.clone());
        let outputs = |all: &BTreeMap<ComponentName, ComponentSpec>| -> BTreeMap<_, _> {
            all.iter().map(|(name, component)| (name.clone(), output(component))).collect()
        };
        let for_each = spec.components.iter().filter(|(_, component)| outputs::is_for_each(component));
        spec.build.as_ref() == Some(&self.build)
            && outputs(&spec.components) == outputs(&self.components)
            && for_each.map(|(name, _)| name).all(|name| {
                let has =
                    |environment| self.for_environments.get(environment).is_some_and(|all| all.contains_key(name));
                spec.stages.keys().all(has)
            })
    }
}

// === impl BuildFolders ===

impl BuildFolders {
    /// The usual folders within the controller's data folder; `inherited` is the environment it was started with.
    pub fn within(data: &Path, inherited: BTreeMap<String, String>) -> Self {
        let [mirrors, work, cache, logs] = ["mirrors", "work", "cache", "logs"].map(|name| data.join(name));
        let (git, mirror_locks, containment) = Default::default();
        Self { mirrors, work, cache, logs, inherited, git, mirror_locks, containment }
    }

    /// The log of a release's build; there is none before it was started.
    pub fn log(&self, release: &ReleaseName) -> PathBuf {
        log::path(&self.logs, release)
    }

    /// The log of a check of a release; there is none before it ran.
    #[allow(dead_code, reason = "read by `release logs --check`")]
    pub(crate) fn log_of_check(&self, release: &ReleaseName, check: &str) -> PathBuf {
        log::path_of_check(&self.logs, release, check)
    }

    /// Where programs are looked for.
    pub(crate) fn path(&self) -> String {
        self.inherited.get("PATH").cloned().unwrap_or_else(|| DEFAULT_PATH.to_owned())
    }

    /// What keeps the processes of builds together on this machine; found out once.
    pub(crate) async fn containment(&self) -> &Containment {
        self.containment.get_or_init(async || Containment::find_out(&self.path()).await).await
    }

    /// One git at a time changes a mirror.
    fn mirror_lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.mirror_locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(name.to_owned()).or_default().clone()
    }
}

/// A command line for people.
pub(crate) fn told(words: &[String]) -> String {
    let plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@%+,{}".contains(&b))
    };
    let words = words.iter().map(|word| if plain(word) { word.clone() } else { format!("{word:?}") });
    words.collect::<Vec<_>>().join(" ")
}
