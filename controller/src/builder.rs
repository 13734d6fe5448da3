//! The build driver: runs what the engine asks for, one build of a service at a time, and tells how it ended.

use std::collections::BTreeMap;

use api::ReleaseName;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::artifact::Layout;
use crate::build::{self, BuildFolders, Cancel, Job};
use crate::core::Command;
use crate::core::command::Built;
use crate::core::state::Artifact;
use crate::engine::{Handle, Priority, Submission};

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
    let command = Command::EndBuild { release: release.clone(), outcome };
    let submission = Submission::own(command);
    if let Err(problem) = engine.submit(submission, Priority::Normal).await {
        warn!(%release, ?problem, "the end of a build could not be recorded; it will be built again");
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
