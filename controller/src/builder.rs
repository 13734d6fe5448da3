//! The build driver: runs what the engine asks for, one build of a service at a time, and tells how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::ReleaseName;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::build::process::cancelled;
use crate::build::{self, Base, BuildFolders, Cancel, Job};
use crate::core::Command;
use crate::core::command::{BuildFailed, Built};
use crate::core::observe::Transfer;
use crate::core::spec::ReleasesSpec;
use crate::core::state::{Release, ReleaseProgress, Service, State, Wanted};
use crate::engine::{Handle, NotDone, Priority, Submission};
use crate::shelf::Shelf;
use crate::store::StoreError;

/// First and longest wait before the end of a build is recorded again: somebody has to make room on the disk.
const WAIT: Duration = Duration::from_millis(250);
const WAIT_MOST: Duration = Duration::from_secs(30);

/// What the engine asks of the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Run its build.
    Build(ReleaseName),
    /// End its build, which runs.
    End(ReleaseName),
}

/// Runs builds until the engine is gone or `cancel` says so. The engine asks for at most one per service at a time.
///
/// A build that was cancelled because the controller stops is not recorded as ended: it goes on at the next start, from what it
/// had done, or from its beginning.
pub(crate) async fn run(
    engine: Handle,
    folders: BuildFolders,
    shelf: Shelf,
    mut orders: mpsc::UnboundedReceiver<Order>,
    cancel: Cancel,
) {
    // An engine that is gone says nothing of what is under way.
    let Some(under_way) = engine.read(|engine| under_way(&engine.state)).await else { return };
    build::clear_leftovers(&folders, &under_way).await;
    let mut enders: BTreeMap<ReleaseName, watch::Sender<bool>> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        enders.retain(|_, ender| !ender.is_closed());
        match order {
            Order::Build(release) => {
                let (ender, ended) = watch::channel(false);
                enders.insert(release.clone(), ender.clone());
                let builder = Builder { engine: engine.clone(), folders: folders.clone(), shelf: shelf.clone() };
                tokio::spawn(builder.build(release, ender, ended, cancel.clone()));
            }
            Order::End(release) => {
                info!(%release, "its build is to end");
                // One that is gone has ended.
                if let Some(ender) = enders.get(&release) {
                    ender.send_replace(true);
                }
            }
        }
    }
}

/// Releases whose builds go on. What was to end when the controller died is on record as ended without us.
fn under_way(state: &State) -> BTreeSet<ReleaseName> {
    let releases = state.services.values().flat_map(|service| {
        let all = service.releases.iter();
        let building =
            all.filter(|(_, release)| release.progress == ReleaseProgress::Building && !release.cancel_asked);
        building.map(|(number, _)| ReleaseName::new(service.spec.name.clone(), *number))
    });
    releases.collect()
}

/// What one build needs.
struct Builder {
    engine: Handle,
    folders: BuildFolders,
    shelf: Shelf,
}

impl Builder {
    async fn build(self, release: ReleaseName, ender: watch::Sender<bool>, ended: Cancel, mut stops: Cancel) {
        let outcome = match self.job(&release).await {
            Some(Some(job)) => {
                info!(%release, commit = job.commit, "is being built");
                let (transfers, seen) = watch::channel(None);
                let stopping = async {
                    cancelled(&mut stops).await;
                    ender.send_replace(true);
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    built = build::run(&self.folders, &self.shelf, &job, ended, &transfers) => {
                        built.map(built_as).map_err(failed)
                    }
                    () = stopping => unreachable!("it only tells the build"),
                    () = tell(&self.engine, &release, seen) => unreachable!("the build holds the other end"),
                }
            }
            Some(None) => {
                let problem = "its service has no `source` any more".to_owned();
                Err(BuildFailed { problem, ..BuildFailed::default() })
            }
            None => return,
        };
        if outcome.is_err() && *stops.borrow() {
            info!(%release, "its build goes on at the next start");
            return;
        }
        if end(&self.engine, release.clone(), outcome).await {
            build::clear(&self.folders, &release).await;
        }
    }

    /// What is to be built; nothing within: it cannot be any more.
    async fn job(&self, release: &ReleaseName) -> Option<Option<Job>> {
        let name = release.clone();
        let found = self.engine.read(move |engine| {
            let service = engine.state.service(&name.service)?;
            let (source, wanted) = (service.spec.source.clone()?, &engine.state.release(&name)?.wanted);
            let ReleasesSpec { secrets, registry, .. } = engine.state.releases.clone();
            // Another attempt, and the same commit again, are asked for to be built.
            let base = base(service).filter(|base| wanted.retry_of.is_none() && base.commit != wanted.commit);
            let Wanted { commit, hot_fix, tag, .. } = wanted.clone();
            Some(Job { release: name, source, commit, hot_fix, tag, base, secrets, registry })
        });
        found.await
    }
}

/// The newest release that was built and has its artifacts.
fn base(service: &Service) -> Option<Base> {
    let ready = service.releases.iter().rev().filter(|(_, release)| release.is_ready());
    let mut built = ready.filter_map(|(number, release)| Some((*number, release, release.build.clone()?)));
    let (number, release, build) = built.find(|(_, release, _)| release.trimmed.artifacts_ms.is_none())?;
    let Release { wanted, components, artifacts, for_environments, checks, .. } = release.clone();
    Some(Base { number, commit: wanted.commit, build, components, artifacts, for_environments, checks })
}

/// Shows what goes to the registry now, for as long as the build runs.
async fn tell(engine: &Handle, release: &ReleaseName, mut seen: watch::Receiver<Option<Transfer>>) {
    while seen.changed().await.is_ok() {
        let (release, now) = (release.clone(), seen.borrow_and_update().clone());
        engine.tell(move |engine| {
            match now {
                Some(transfer) => engine.seen.transfers.insert(release, transfer),
                None => engine.seen.transfers.remove(&release),
            };
        });
    }
}

/// Records how a build ended, however long that takes: until then it counts as running, or it would be run again. Whether it is
/// over: otherwise the next start goes on with it.
async fn end(engine: &Handle, release: ReleaseName, outcome: Result<Built, BuildFailed>) -> bool {
    let command = Command::EndBuild { release: release.clone(), outcome };
    let mut wait = WAIT;
    loop {
        match engine.submit(Submission::own(command.clone()), Priority::Normal).await {
            Ok(_) => break,
            // The next start finds the release building, and goes on.
            Err(NotDone::Stopping | NotDone::Store(StoreError::Uncertain { .. })) => return false,
            Err(NotDone::Refused(refusal)) => {
                warn!(%release, %refusal, "the end of a build is not recorded");
                break;
            }
            Err(NotDone::Store(problem)) => {
                warn!(%release, %problem, wait_ms = wait.as_millis(), "the end of a build could not be recorded yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAIT_MOST);
            }
        }
    }
    engine.tell(move |engine| {
        engine.seen.building.remove(&release);
        engine.seen.ending.remove(&release);
        engine.seen.transfers.remove(&release);
    });
    true
}

fn built_as(built: build::Built) -> Built {
    let build::Built { spec, artifacts, for_environments, checks, kept_from } = built;
    Built { components: spec.components, artifacts, for_environments, build: spec.build, checks, kept_from }
}

fn failed(failed: build::NotBuilt) -> BuildFailed {
    let build::NotBuilt { problem, step, checks } = failed;
    BuildFailed { problem: problem.sentence, step: Some(step), exit: problem.exit, checks }
}

#[cfg(test)]
mod tests;
