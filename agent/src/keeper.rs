//! The wanted set: which instances there should be, kept on disk, each looked after by a task of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use api::agent::{Instance, InstanceStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::file;
use crate::instance::{Host, Keeper, Shared, Wanted, records};

/// All instances of this agent.
pub(crate) struct Instances {
    host: Host,
    running: BTreeMap<String, Running>,
    /// The last set that the controller wanted.
    pub(crate) generation: u64,
}

struct Running {
    wanted: watch::Sender<Wanted>,
    status: Shared,
    digest: String,
    task: JoinHandle<()>,
}

/// The wanted set on disk: what counts while the controller is away.
#[derive(Serialize, Deserialize)]
struct Kept {
    generation: u64,
    ids: BTreeSet<String>,
}

impl Instances {
    /// Takes up what an earlier agent left: what was wanted goes on, what was not is stopped.
    pub(crate) fn resume(host: &Host) -> Self {
        let kept = file::read::<Kept>(&kept_path(&host.data)).unwrap_or_else(|problem| {
            warn!(%problem, "what was wanted cannot be read: everything goes on until the controller is back");
            None
        });
        let mut instances = Self {
            host: host.clone(),
            running: BTreeMap::new(),
            generation: kept.as_ref().map_or(0, |kept| kept.generation),
        };
        for record in records(&host.data) {
            let instance = Instance::from(record.spec);
            let id = instance.id.clone();
            instances.keep(instance);
            if kept.as_ref().is_some_and(|kept| !kept.ids.contains(&id)) {
                instances.stop(&id);
            }
        }
        instances
    }

    /// Makes the wanted set so. Saved first: a crash in between is answered by doing it again.
    pub(crate) fn want(&mut self, generation: u64, wanted: Vec<Instance>) {
        let ids: BTreeSet<String> = wanted.iter().map(|instance| instance.id.clone()).collect();
        if let Err(problem) = file::write(&kept_path(&self.host.data), &Kept { generation, ids: ids.clone() }) {
            warn!(%problem, "what is wanted cannot be saved; it is done all the same");
        }
        self.generation = generation;
        self.forget_ended();
        let gone: Vec<String> = self.running.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        gone.iter().for_each(|id| self.stop(id));
        wanted.into_iter().for_each(|instance| self.keep(instance));
        let in_use =
            self.running.values().filter_map(|running| Some(running.digest.strip_prefix("sha256:")?.to_owned()));
        self.host.artifacts.clean(&in_use.collect(), SystemTime::now());
    }

    /// Stops everything and waits until it has ended, at most `deadline`.
    pub(crate) async fn end_all(&mut self, deadline: Duration) {
        self.want(self.generation, Vec::new());
        let tasks = std::mem::take(&mut self.running).into_values().map(|running| running.task);
        let all = async {
            for task in tasks {
                let _ = task.await; // A task that panicked has ended too.
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!("some releases did not end in time");
        }
    }

    /// The status of every instance.
    pub(crate) fn statuses(&mut self) -> Vec<InstanceStatus> {
        self.forget_ended();
        self.running
            .values()
            .map(|running| running.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect()
    }

    fn keep(&mut self, instance: Instance) {
        if let Some(running) = self.running.get(&instance.id) {
            // Releases are immutable: the same id is the same thing. It may have been about to stop.
            running.wanted.send_replace(Wanted::Run);
            return;
        }
        let (wanted, receiver) = watch::channel(Wanted::Run);
        let (id, digest) = (instance.id.clone(), instance.digest.clone());
        let (keeper, status) = Keeper::new(self.host.clone(), Arc::new(instance), receiver);
        let task = tokio::spawn(keeper.run());
        self.running.insert(id, Running { wanted, status, digest, task });
    }

    fn stop(&mut self, id: &str) {
        if let Some(running) = self.running.get(id) {
            running.wanted.send_replace(Wanted::Stop);
        }
    }

    fn forget_ended(&mut self) {
        self.running.retain(|_, running| !running.task.is_finished());
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        // The tasks end with the agent, the processes do not.
        self.running.values().for_each(|running| running.task.abort());
    }
}

fn kept_path(data: &Path) -> std::path::PathBuf {
    data.join("wanted.json")
}
