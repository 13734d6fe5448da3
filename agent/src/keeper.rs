//! The wanted set: which instances there should be, kept on disk, each looked after by a task of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::agent::instance_status::State;
use api::agent::{Instance, InstanceStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::file;
use crate::instance::{Host, Keeper, Shared, Spec, Wanted, records};

/// Beyond its grace, what an instance's end may take: killing, and finding out that all is gone.
const BEYOND_GRACE: Duration = Duration::from_secs(15);

/// All instances of this agent.
pub(crate) struct Instances {
    host: Host,
    running: BTreeMap<String, Running>,
    /// The last set that the controller wanted.
    pub(crate) generation: u64,
    /// What is wanted and cannot be: why.
    refused: Vec<InstanceStatus>,
}

struct Running {
    instance: Arc<Instance>,
    wanted: watch::Sender<Wanted>,
    status: Shared,
    task: JoinHandle<()>,
}

/// The wanted set on disk: what counts while the controller is away.
#[derive(Serialize, Deserialize)]
struct Kept {
    generation: u64,
    instances: Vec<Spec>,
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
            refused: Vec::new(),
        };
        for record in records(&host.data) {
            let instance = Instance::from(record.spec);
            let id = instance.id.clone();
            instances.keep(instance);
            if kept.as_ref().is_some_and(|kept| kept.instances.iter().all(|spec| spec.id() != id)) {
                instances.stop(&id);
            }
        }
        // Also what has no record yet, or none any more.
        kept.into_iter().flat_map(|kept| kept.instances).for_each(|spec| instances.keep(spec.into()));
        instances
    }

    /// Makes the wanted set so. Saved first: a crash in between is answered by doing it again.
    pub(crate) fn want(&mut self, generation: u64, mut wanted: Vec<Instance>) {
        // Without a name it would have the folder of all instances for its own.
        let nameless = wanted.extract_if(.., |instance| instance.id.is_empty());
        let problem = "it has no id: accepted is STAGE/RELEASE/COMPONENT, as in hello/dev/r1/web";
        let unhealthy =
            || InstanceStatus { state: State::Unhealthy.into(), problem: problem.into(), ..Default::default() };
        self.refused = nameless.map(|_| unhealthy()).collect();
        let kept = Kept { generation, instances: wanted.iter().map(Spec::from).collect() };
        if let Err(problem) = file::write(&kept_path(&self.host.data), &kept) {
            warn!(%problem, "what is wanted cannot be saved; it is done all the same");
        }
        self.generation = generation;
        self.forget_ended();
        let is_wanted = |id: &String| wanted.iter().any(|instance| instance.id == *id);
        let gone: Vec<String> = self.running.keys().filter(|id| !is_wanted(id)).cloned().collect();
        gone.iter().for_each(|id| self.stop(id));
        wanted.into_iter().for_each(|instance| self.keep(instance));
        let in_use = self.running.values().filter_map(|running| running.instance.digest.strip_prefix("sha256:"));
        self.host.artifacts.clean(in_use.map(str::to_owned).collect());
    }

    /// Stops everything and waits until it has ended, for as long as the longest grace allows.
    pub(crate) async fn end_all(&mut self) {
        self.want(self.generation, Vec::new());
        let grace = self.running.values().map(|running| running.instance.stop_ms).max().unwrap_or(0);
        let tasks = std::mem::take(&mut self.running).into_values().map(|running| running.task);
        let all = async {
            for task in tasks {
                let _ = task.await; // A task that panicked has ended too.
            }
        };
        if tokio::time::timeout(Duration::from_millis(grace.into()) + BEYOND_GRACE, all).await.is_err() {
            warn!("some releases did not end in time");
        }
    }

    /// Ends the tasks and leaves the processes: when this returns, nothing is started any more.
    pub(crate) async fn leave(mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            running.task.abort();
            let _ = running.task.await; // Cancelled, as we asked.
        }
    }

    /// The status of every instance.
    pub(crate) fn statuses(&mut self) -> Vec<InstanceStatus> {
        self.forget_ended();
        self.running
            .values()
            .map(|running| running.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .chain(self.refused.iter().cloned())
            .collect()
    }

    fn keep(&mut self, instance: Instance) {
        let instance = Arc::new(instance);
        if let Some(running) = self.running.get_mut(&instance.id)
            && running.wanted.send_if_modified(|wanted| wanted.run(&instance))
        {
            // It may have been about to stop.
            running.instance = instance;
            return;
        }
        let (wanted, _) = watch::channel(Wanted::Run(instance.clone()));
        let (keeper, status) = Keeper::new(self.host.clone(), &instance, wanted.clone());
        let task = tokio::spawn(keeper.run());
        self.running.insert(instance.id.clone(), Running { instance, wanted, status, task });
    }

    fn stop(&mut self, id: &str) {
        if let Some(running) = self.running.get(id) {
            running.wanted.send_if_modified(Wanted::stop);
        }
    }

    fn forget_ended(&mut self) {
        self.running.retain(|_, running| !matches!(*running.wanted.borrow(), Wanted::Ended));
        // A task that finished in any other way panicked, and its process is nobody's.
        let lost = self.running.extract_if(.., |_, running| running.task.is_finished());
        for (id, running) in lost.collect::<Vec<_>>() {
            error!(id, "the task that looks after an instance failed; another one takes over");
            let stops = matches!(*running.wanted.borrow(), Wanted::Stop);
            self.keep(Instance::clone(&running.instance));
            if stops {
                self.stop(&id);
            }
        }
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
