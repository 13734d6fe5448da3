//! Removes what nobody needs any more: logs, artifacts, manifests in the registry, and places in the list of releases.
//!
//! Must not know: what is needed. `core::keep` says what goes; it is on record before a file is touched, and files follow
//! what is on record: what a crash left half done is done after the next start.
//!
//! Main function: [`run`]. `logs` and `manifests` say what to remove (pure).

mod logs;
mod manifests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::Digest;
use registry::Place;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, info, warn};

use crate::build::BuildFolders;
use crate::core::State;
use crate::core::keep;
use crate::core::state::ReleaseProgress;
use crate::engine::{Handle, NotDone, Priority, Submission};
use crate::shelf::Shelf;
use crate::status::clock_ms;
use crate::store::Record;
use logs::Logs;

/// How often it is asked what may go, when nothing happens that lets something go.
const LOOK: Duration = Duration::from_secs(60);
/// How often blobs are swept although nothing was trimmed: for what was too new when its release was.
const SWEEP: Duration = Duration::from_secs(3_600);
/// Blobs that are newer stay: what is packed or fetched is named by nobody yet.
const SETTLED: Duration = Duration::from_secs(86_400);
/// What happens before something may go.
const WAKES: [&str; 6] =
    ["release_built", "release_added", "releases_applied", "completed", "retired", "release_cancelled"];

/// Runs until it is dropped, or the engine is gone.
pub(crate) async fn run(
    engine: Handle,
    shelf: Shelf,
    folders: BuildFolders,
    mut happened: broadcast::Receiver<Arc<Record>>,
) {
    let (swept, removed, told) = Default::default();
    let mut driver = Driver { engine, shelf, folders, swept, removed, told };
    while driver.round().await.is_some() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            goes_on = awoken(&mut happened) => if !goes_on { return },
        }
    }
}

/// Waits for something that may let something go; whether there can be more.
async fn awoken(happened: &mut broadcast::Receiver<Arc<Record>>) -> bool {
    loop {
        match happened.recv().await {
            Ok(record) if WAKES.contains(&record.kind.as_str()) => break,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => break,
            Err(RecvError::Closed) => return false,
        }
    }
    // One look is enough for all that has happened until now.
    *happened = happened.resubscribe();
    true
}

struct Driver {
    engine: Handle,
    shelf: Shelf,
    folders: BuildFolders,
    /// When blobs were swept last; none: not since the start.
    swept: Option<tokio::time::Instant>,
    /// Manifests that this process has removed from the registry.
    removed: BTreeSet<(Place, Digest)>,
    /// What keeps others from being removed there, which was told.
    told: String,
}

/// What state says about what lies outside of it.
struct Kept {
    logs: Logs,
    digests: BTreeSet<Digest>,
    /// A build is under way, whose artifacts nobody names yet.
    builds: bool,
    /// What is to be gone from the registry.
    manifests: Vec<(Place, Digest)>,
}

impl Kept {
    fn of(state: &State, now_ms: u64) -> Self {
        let releases = || state.services.values().flat_map(|service| service.releases.values());
        Self {
            logs: Logs::of(state),
            digests: keep::digests(state),
            builds: releases().any(|release| release.progress == ReleaseProgress::Building),
            manifests: manifests::gone(state, now_ms),
        }
    }
}

impl Driver {
    /// Has recorded what may go, and removes what is on record as gone; none: the engine is gone.
    async fn round(&mut self) -> Option<()> {
        let trimmed = self.record().await?;
        let now_ms = clock_ms();
        let kept = self.engine.read(move |engine| Kept::of(&engine.state, now_ms)).await?;
        let Kept { logs, digests, builds, manifests } = kept;
        let folder = self.folders.logs.clone();
        let removed = tokio::task::spawn_blocking(move || logs.remove_gone(&folder)).await;
        match removed {
            Ok(0) | Err(_) => {}
            Ok(count) => info!(count, "logs that nobody needs any more were removed"),
        }
        // While something is built, a blob that was old may become its artifact.
        if !builds && (trimmed || self.swept.is_none_or(|at| at.elapsed() > SWEEP)) {
            self.swept = Some(tokio::time::Instant::now());
            self.sweep(digests).await;
        }
        self.remove_manifests(manifests).await;
        Some(())
    }

    /// Has the engine record what may go; whether anything was.
    async fn record(&self) -> Option<bool> {
        let now_ms = clock_ms();
        let commands = self.engine.read(move |engine| keep::trim(&engine.state, now_ms)).await?;
        let mut trimmed = false;
        for command in commands {
            match self.engine.submit(Submission::own(command), Priority::Normal).await {
                Ok(_) => trimmed = true,
                // Somebody was faster, and needs it now.
                Err(NotDone::Refused(refusal)) => debug!(%refusal, "something stays that was to go"),
                Err(NotDone::Store(problem)) => {
                    warn!(%problem, "what may go could not be recorded");
                    break;
                }
                Err(NotDone::Stopping) => return None,
            }
        }
        Some(trimmed)
    }

    async fn sweep(&self, digests: BTreeSet<Digest>) {
        let layout = self.shelf.layout.clone();
        let before = SystemTime::now().checked_sub(SETTLED).unwrap_or(SystemTime::UNIX_EPOCH);
        match tokio::task::spawn_blocking(move || layout.sweep(&digests, before)).await {
            Ok(Ok(swept)) if swept.files > 0 => {
                info!(files = swept.files, bytes = swept.bytes, "artifacts that nobody needs any more were removed");
            }
            Ok(Err(problem)) => warn!(%problem, "artifacts that nobody needs any more stay"),
            Ok(Ok(_)) | Err(_) => {}
        }
    }

    async fn remove_manifests(&mut self, manifests: Vec<(Place, Digest)>) {
        let Ok(Some(registry)) = self.shelf.registry() else { return };
        for wanted in manifests {
            if self.removed.contains(&wanted) {
                continue;
            }
            match registry.delete(&wanted.0, &wanted.1).await {
                Ok(_) => drop(self.removed.insert(wanted)),
                // A registry that is away, or does not delete at all: the next round tries it again, and says no more.
                Err(problem) => {
                    let problem = problem.to_string();
                    if self.told != problem {
                        warn!(problem, "what nobody needs any more stays in the registry");
                        self.told = problem;
                    }
                    return;
                }
            }
        }
    }
}

/// Removes a file; whether it was there and is gone.
fn remove(path: &Path) -> bool {
    match std::fs::remove_file(path) {
        Ok(()) => true,
        Err(problem) => {
            warn!(path = %path.display(), %problem, "a file that nobody needs any more stays");
            false
        }
    }
}
