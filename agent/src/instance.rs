//! One instance: its process, its health, its record on disk. A task of its own looks after it from start to end.
//!
//! Must not know: other instances, or the controller.
//!
//! The record says what was started (port, pid, start time), so that an agent that starts again finds it: a release
//! goes on running when its agent dies, and is never started twice.

mod health;
mod pace;
mod process;
mod record;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::agent::instance_status::State;
use api::agent::{Instance, InstanceStatus};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::artifact::Artifacts;
use crate::ports::Ports;
use health::{Health, probe};
use pace::Pace;
use process::{Process, Start};
pub(crate) use record::{Record, folder_name, records};

/// How often logs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(5);

/// What is wanted of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Run,
    Stop,
}

/// What every instance's task needs.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) data: Arc<Path>,
    pub(crate) artifacts: Artifacts,
    pub(crate) ports: Arc<Ports>,
    /// Notified whenever a status changes.
    pub(crate) changed: Arc<Notify>,
}

/// An instance's status, shared by its task (writer) and the link (reader).
pub(crate) type Shared = Arc<Mutex<InstanceStatus>>;

/// Looks after one instance until it was stopped for good.
pub(crate) struct Keeper {
    host: Host,
    instance: Arc<Instance>,
    record: Record,
    folder: PathBuf,
    wanted: watch::Receiver<Wanted>,
    status: Shared,
    pace: Pace,
}

/// Why watching a process ended.
enum Turn {
    Ended(String),
    Stop,
}

impl Keeper {
    pub(crate) fn new(host: Host, instance: Arc<Instance>, wanted: watch::Receiver<Wanted>) -> (Self, Shared) {
        let folder = host.data.join("instances").join(folder_name(&instance.id));
        let record = record::load(&folder).unwrap_or_else(|| Record::new(&instance));
        if let Some(port) = record.port {
            host.ports.keep(&instance.id, port);
        }
        let status = InstanceStatus {
            id: instance.id.clone(),
            state: State::Starting.into(),
            port: record.port.map_or(0, u32::from),
            ..InstanceStatus::default()
        };
        let status = Arc::new(Mutex::new(status));
        (Self { host, instance, record, folder, wanted, status: status.clone(), pace: Pace::default() }, status)
    }

    /// Runs until the instance was stopped and nothing of it is left but its log.
    pub(crate) async fn run(mut self) {
        let mut process = Process::find(&self.record, &self.host.data).await;
        if let Some(found) = &process {
            info!(id = self.instance.id, pid = found.pid(), "found running");
            self.say(|status| status.pid = found.pid());
        }
        loop {
            if self.is_unwanted() {
                if let Some(process) = process.take() {
                    self.stop(process).await;
                }
                if self.is_unwanted() {
                    break;
                }
            }
            let running = match process.take() {
                Some(running) => Ok(running),
                None => self.start().await,
            };
            let problem = match running {
                Ok(mut running) => match self.watch(&mut running).await {
                    Turn::Stop => {
                        process = Some(running);
                        continue;
                    }
                    Turn::Ended(why) => {
                        running.end_group();
                        why
                    }
                },
                Err(problem) => problem,
            };
            self.wait_to_restart(problem).await;
        }
        self.host.ports.give_back(&self.instance.id);
        record::retire(&self.host.data, &self.folder);
        info!(id = self.instance.id, "ended");
        self.host.changed.notify_one();
    }

    fn is_unwanted(&self) -> bool {
        *self.wanted.borrow() == Wanted::Stop
    }

    fn say(&self, change: impl FnOnce(&mut InstanceStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.clone();
        change(&mut status);
        if *status != before {
            self.host.changed.notify_one();
        }
    }

    /// Fetches what is missing and starts the process. Gives up when it is not wanted any more.
    async fn start(&mut self) -> Result<Process, String> {
        self.say(|status| (status.state, status.pid) = (State::Fetching.into(), 0));
        let digest = self.instance.digest.parse().map_err(|problem: api::NotAccepted| problem.to_string())?;
        let mut wanted = self.wanted.clone();
        let unpacked = tokio::select! {
            unpacked = self.host.artifacts.unpacked(&digest) => unpacked?,
            _ = wanted.wait_for(|wanted| *wanted == Wanted::Stop) => return Err("it is not wanted any more".into()),
        };
        self.host.artifacts.touch(&digest);
        if self.instance.has_port && self.record.port.is_none() {
            self.record.port = Some(self.host.ports.give(&self.instance.id)?);
        }
        let port = self.record.port;
        self.say(|status| (status.state, status.port) = (State::Starting.into(), port.map_or(0, u32::from)));
        // Before the process exists: an agent that dies in between finds it by its marks.
        record::save(&self.folder, &self.record)?;
        let start =
            Start { instance: &self.instance, unpacked: &unpacked, folder: &self.folder, data: &self.host.data, port };
        let process = start.spawn()?;
        (self.record.pid, self.record.start_time) = (process.pid(), process.start_time());
        record::save(&self.folder, &self.record)?;
        info!(id = self.instance.id, pid = process.pid(), port, "started");
        self.say(|status| status.pid = process.pid());
        Ok(process)
    }

    /// Probes the process until it ends or is not wanted any more.
    async fn watch(&mut self, process: &mut Process) -> Turn {
        let check = self.instance.health.clone().unwrap_or_default();
        let mut health = Health::new(&check);
        let (started, mut looked, mut wanted) = (Instant::now(), Instant::now(), self.wanted.clone());
        loop {
            let outcome = tokio::select! {
                why = process.ended() => return Turn::Ended(self.with_last_line(&why)),
                _ = wanted.wait_for(|wanted| *wanted == Wanted::Stop) => return Turn::Stop,
                outcome = probe(&check, self.record.port) => outcome,
            };
            let problem = outcome.as_ref().err().cloned().unwrap_or_default();
            health.take_in(outcome.is_ok());
            let state = health.state();
            self.say(|status| {
                status.state = state.into();
                // While it starts, refusing connections is no problem yet.
                status.problem = if state == State::Unhealthy { problem } else { status.problem.clone() };
                if state == State::Healthy {
                    status.problem.clear();
                }
            });
            self.pace.ran_for(started.elapsed());
            if looked.elapsed() >= LOG_LOOK {
                record::rotate_log(&self.folder);
                looked = Instant::now();
            }
            tokio::select! {
                why = process.ended() => return Turn::Ended(self.with_last_line(&why)),
                _ = wanted.wait_for(|wanted| *wanted == Wanted::Stop) => return Turn::Stop,
                () = sleep(health.wait(&check)) => {}
            }
        }
    }

    fn with_last_line(&self, why: &str) -> String {
        match record::last_line(&self.folder) {
            Some(line) => format!("{why}; its last line: {line}"),
            None => why.to_owned(),
        }
    }

    async fn wait_to_restart(&mut self, problem: String) {
        if self.is_unwanted() {
            return;
        }
        let wait = self.pace.next();
        warn!(id = self.instance.id, problem, ?wait, "is not running");
        self.say(|status| {
            (status.state, status.pid) = (State::Backoff.into(), 0);
            status.restarts += 1;
            status.problem = problem;
        });
        let mut wanted = self.wanted.clone();
        tokio::select! {
            () = sleep(wait) => {}
            _ = wanted.wait_for(|wanted| *wanted == Wanted::Stop) => {}
        }
    }

    /// Asks the process group to end, and ends it when it does not.
    async fn stop(&mut self, mut process: Process) {
        self.say(|status| status.state = State::Stopping.into());
        let grace = Duration::from_millis(u64::from(self.instance.stop_ms));
        process.stop(grace).await;
        (self.record.pid, self.record.start_time) = (0, 0);
    }
}
