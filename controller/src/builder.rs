//! The build driver: runs what the engine asks for, one build of a service at a time, and tells how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use api::ReleaseName;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::artifact::Layout;
use crate::build::{self, BuildFolders, Cancel, Job};
use crate::core::Command;
use crate::core::command::Built;
use crate::core::state::Artifact;
use crate::engine::{Handle, NotDone, Priority, Submission};
use crate::store::StoreError;

/// First and longest wait before the end of a build is recorded again: somebody has to make room on the disk.
const WAIT: Duration = Duration::from_millis(250);
const WAIT_MOST: Duration = Duration::from_secs(30);

/// Runs builds until the engine is gone or `cancel` says so. The engine asks for at most one per service at a time.
///
/// A build that was cancelled because the controller stops is not recorded as ended: it begins again at the next start.
pub(crate) async fn run(
    engine: Handle,
    folders: BuildFolders,
    layout: Layout,
    mut jobs: mpsc::UnboundedReceiver<ReleaseName>,
    cancel: Cancel,
) {
    while let Some(release) = jobs.recv().await {
        tokio::spawn(build(engine.clone(), folders.clone(), layout.clone(), release, cancel.clone()));
    }
}

async fn build(engine: Handle, folders: BuildFolders, layout: Layout, release: ReleaseName, cancel: Cancel) {
    let name = release.clone();
    let found = engine.read(move |engine| {
        let source = engine.state.service(&name.service)?.spec.source.clone()?;
        let commit = engine.state.release(&name)?.commit.clone();
        Some(Job { release: name, source, commit })
    });
    let outcome = match found.await {
        Some(Some(job)) => {
            info!(%release, commit = job.commit, "is being built");
            build::run(&folders, &layout, &job, cancel).await.map(built).map_err(|problem| problem.sentence)
        }
        Some(None) => Err("its service has no `source` any more".to_owned()),
        None => return,
    };
    end(&engine, release, outcome).await;
}

/// Records how a build ended, however long that takes: until then it counts as running, or it would be run again.
async fn end(engine: &Handle, release: ReleaseName, outcome: Result<Built, String>) {
    let command = Command::EndBuild { release: release.clone(), outcome };
    let mut wait = WAIT;
    loop {
        match engine.submit(Submission::own(command.clone()), Priority::Normal).await {
            Ok(_) => break,
            // The next start finds the release building, and builds it again.
            Err(NotDone::Stopping | NotDone::Store(StoreError::Uncertain { .. })) => return,
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
    });
}

fn built(built: build::Built) -> Built {
    let artifact = |artifact: crate::artifact::Artifact| Artifact { digest: artifact.digest, bytes: artifact.bytes };
    let artifacts: BTreeMap<_, _> = built.artifacts.into_iter().map(|(name, made)| (name, artifact(made))).collect();
    Built { components: built.spec.components, artifacts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::spec::{ServiceSpec, Source};
    use crate::core::state::ReleaseProgress;
    use crate::engine::tests::World;

    #[tokio::test]
    async fn a_build_whose_end_cannot_be_recorded_is_not_run_again() {
        let mut world = World::new().await;
        let release: ReleaseName = "hello@r1".parse().expect("name");
        let spec = ServiceSpec {
            name: release.service.clone(),
            source: Some(Source { repository: "/srv/hello.git".into(), branch: "main".into() }),
            build: None,
            components: BTreeMap::new(),
            stages: BTreeMap::new(),
        };
        world
            .carries_out(Submission::own(Command::Apply {
                environments: Vec::new(),
                services: vec![spec],
                access: None,
            }))
            .await;
        let (service, commit) = (release.service.clone(), "a".repeat(40));
        let (version, subject) = Default::default();
        world.carries_out(Submission::own(Command::Build { service, version, commit, subject })).await;
        assert_eq!(world.builds.recv().await, Some(release.clone()), "it is to be built");

        world.engine.tell(|engine| engine.store.fill_up(true));
        let (engine, ended) = (world.engine.clone(), release.clone());
        let ending = tokio::spawn(async move { end(&engine, ended, Err("why ".repeat(10_000))).await });
        tokio::time::sleep(4 * WAIT).await;
        assert!(!ending.is_finished() && world.builds.try_recv().is_err(), "it is to be built again");
        world.engine.tell(|engine| engine.store.fill_up(false));
        ending.await.expect("no panic");
        let progress =
            world.engine.read(move |engine| engine.state.release(&release).map(|found| found.progress.clone()));
        assert!(matches!(progress.await, Some(Some(ReleaseProgress::Failed { .. }))));
        assert!(world.builds.try_recv().is_err());
    }
}
