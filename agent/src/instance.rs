//! One instance: its process, its health, its record on disk. A task of its own looks after it from start to end.
//!
//! Must not know: other instances, or the controller.
//!
//! The record says what was started (port, pid, start time), so that an agent that starts again finds it: a release
//! goes on running when its agent dies, and is never started twice.

mod health;
mod pace;
mod proc;
mod process;
mod record;
mod wanted;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::agent::instance_status::State;
use api::agent::{Instance, InstanceStatus};
use api::fleet::HealthCheck;
use certs::endpoint::Authorities;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval, sleep};
use tracing::{info, warn};

use crate::artifact::Artifacts;
use crate::ports::Ports;
use health::{Health, Probe};
use pace::Pace;
use process::{Process, Start, end_marked};
pub(crate) use record::{Kept as Spec, Record, folder_name, records};
pub(crate) use wanted::Wanted;

/// How often logs are looked at.
const LOG_LOOK: Duration = Duration::from_secs(5);
/// A process that starts for longer than this without answering has a problem that people should see.
const STARTS: Duration = Duration::from_secs(10);

/// What every instance's task needs.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) data: Arc<Path>,
    pub(crate) artifacts: Artifacts,
    pub(crate) ports: Arc<Ports>,
    /// Where releases are probed.
    pub(crate) probe: IpAddr,
    /// Who is believed about releases behind TLS that name nobody.
    pub(crate) authorities: Authorities,
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
    /// Written by the keeper of the set; by this task only to say that it has ended.
    wanted: watch::Sender<Wanted>,
    status: Shared,
    pace: Pace,
    /// Whether there was a process before: the next one is a restart.
    started: bool,
}

/// Why watching a process ended.
enum Turn {
    Ended(String),
    Unwanted,
}

impl Keeper {
    pub(crate) fn new(host: Host, instance: &Arc<Instance>, wanted: watch::Sender<Wanted>) -> (Self, Shared) {
        let folder = host.data.join("instances").join(folder_name(&instance.id));
        let (instance, record) = match record::load(&folder) {
            // What was started counts: when it is not what is wanted, it is stopped first.
            Some(record) => (Arc::new(Instance::from(record.spec.clone())), record),
            None => (instance.clone(), Record::new(instance)),
        };
        if let Some(port) = record.port {
            host.ports.keep(&instance.id, port);
        }
        // Asked now, so that the first report neither calls well what has died nor unwell what was well all the time.
        let lives = Process::recorded(&record).is_some();
        let status = InstanceStatus {
            id: instance.id.clone(),
            state: if lives && record.healthy { State::Healthy } else { State::Starting }.into(),
            port: record.port.map_or(0, u32::from),
            pid: if lives { record.pid } else { 0 },
            ..InstanceStatus::default()
        };
        let status = Arc::new(Mutex::new(status));
        let (shared, pace) = (status.clone(), Pace::default());
        (Self { host, instance, record, folder, wanted, status, pace, started: false }, shared)
    }

    /// Runs until the instance was stopped and nothing of it is left but its log.
    pub(crate) async fn run(mut self) {
        let mut process = self.find().await;
        loop {
            if !self.is_wanted() {
                self.stop(process.take()).await;
                if self.ends() {
                    break;
                }
            }
            let running = match process.take() {
                Some(running) => Ok(Some(running)),
                None => self.start().await,
            };
            let problem = match running {
                Ok(None) => continue,
                Ok(Some(mut running)) => match self.watch(&mut running).await {
                    Turn::Unwanted => {
                        process = Some(running);
                        continue;
                    }
                    Turn::Ended(why) => {
                        running.end_group().await;
                        why
                    }
                },
                Err(problem) => problem,
            };
            self.wait_to_start(problem).await;
        }
        info!(id = self.instance.id, "ended");
        self.host.changed.notify_one();
    }

    fn is_wanted(&self) -> bool {
        self.wanted.borrow().is_run(&self.instance)
    }

    /// Waits until this is not wanted any more. Borrows nothing, so that it can stand beside what changes the keeper.
    fn unwanted(&self) -> impl Future<Output = ()> + use<> {
        let (mut wanted, instance) = (self.wanted.subscribe(), self.instance.clone());
        async move {
            // The sender lives in the keeper itself.
            let _ = wanted.wait_for(|wanted| !wanted.is_run(&instance)).await;
        }
    }

    fn say(&self, change: impl FnOnce(&mut InstanceStatus)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.clone();
        change(&mut status);
        if *status != before {
            self.host.changed.notify_one();
        }
    }

    /// The process that an earlier agent started.
    async fn find(&mut self) -> Option<Process> {
        let (record, data) = (self.record.clone(), self.host.data.clone());
        let found = spawn_blocking(move || {
            let found = Process::find(&record, &data)?;
            let port = found.port();
            Some((found, port))
        });
        let (mut found, port) = found.await.ok()??;
        info!(id = self.instance.id, pid = found.pid(), "found running");
        self.started = true;
        if self.instance.has_port && self.record.port.is_none() {
            // Its record was lost. Without its port nobody could say whether it is well.
            let Some(port) = port else {
                found.stop(self.grace()).await;
                return None;
            };
            self.host.ports.keep(&self.instance.id, port);
            self.record.port = Some(port);
        }
        self.save_started(&found);
        self.say(|status| (status.pid, status.port) = (found.pid(), self.record.port.map_or(0, u32::from)));
        Some(found)
    }

    /// Fetches what is missing and starts the process; `None` when it is not wanted any more.
    async fn start(&mut self) -> Result<Option<Process>, String> {
        self.say(|status| (status.state, status.pid) = (State::Fetching.into(), 0));
        let digest = self.instance.digest.parse().map_err(|problem: api::NotAccepted| problem.to_string())?;
        let unwanted = self.unwanted();
        let content = tokio::select! {
            content = self.host.artifacts.content(&digest) => content?,
            () = unwanted => return Ok(None),
        };
        // An earlier leader may have died while no agent was there to end what it left. Before its folder is replaced.
        end_marked(&self.instance.id, &self.host.data).await;
        (self.record.pid, self.record.start_time, self.record.healthy) = (0, 0, false);
        record::save(&self.folder, &self.record)?;
        // To its end, wanted or not: nobody else may remove the folder meanwhile.
        let unpacked = content.unpack(&self.folder).await?;
        if self.instance.has_port {
            self.record.port = Some(self.host.ports.give(&self.instance.id, self.record.port)?);
        }
        let port = self.record.port;
        self.say(|status| (status.state, status.port) = (State::Starting.into(), port.map_or(0, u32::from)));
        // Before the process exists: an agent that dies in between finds it by its marks. From here on nothing waits.
        record::save(&self.folder, &self.record)?;
        let start =
            Start { instance: &self.instance, unpacked: &unpacked, folder: &self.folder, data: &self.host.data, port };
        let process = start.spawn()?;
        self.save_started(&process);
        info!(id = self.instance.id, pid = process.pid(), port, "started");
        let again = u32::from(std::mem::replace(&mut self.started, true));
        self.say(|status| (status.pid, status.restarts) = (process.pid(), status.restarts + again));
        Ok(Some(process))
    }

    /// Records a process that runs. A full disk must not end it, nor start a second one: its marks tell as well.
    fn save_started(&mut self, process: &Process) {
        (self.record.pid, self.record.start_time) = (process.pid(), process.start_time());
        self.record.boot = proc::boot();
        if let Err(problem) = record::save(&self.folder, &self.record) {
            warn!(id = self.instance.id, problem, "a process that runs could not be recorded");
        }
    }

    /// Probes the process until it ends or is not wanted any more.
    async fn watch(&mut self, process: &mut Process) -> Turn {
        let mut health = Health::new(&self.check(), self.record.healthy);
        let (started, mut looks) = (Instant::now(), interval(LOG_LOOK));
        let unwanted = self.unwanted();
        tokio::pin!(unwanted);
        let why = loop {
            // What is asked, and how, may be said anew.
            self.take_up();
            let check = self.check();
            // Made anew for the same reason; it costs little beside a handshake.
            let probe = Probe::new(&self.instance, &self.host.authorities);
            let outcome = tokio::select! {
                why = process.ended() => break why,
                () = &mut unwanted => return Turn::Unwanted,
                outcome = probe.ask(&check, self.host.probe, self.record.port) => outcome,
            };
            health.take_in(outcome.is_ok());
            self.record_health(health.state() == State::Healthy);
            self.tell(health.state(), outcome, started.elapsed() >= STARTS);
            let next = sleep(health.wait(&check));
            tokio::pin!(next);
            let ended = loop {
                tokio::select! {
                    why = process.ended() => break Some(why),
                    () = &mut unwanted => return Turn::Unwanted,
                    () = &mut next => break None,
                    _ = looks.tick() => {
                        let folder = self.folder.clone();
                        let _ = spawn_blocking(move || record::rotate_log(&folder)).await; // It says what went wrong.
                    }
                }
            };
            if let Some(why) = ended {
                break why;
            }
        };
        self.pace.ran_for(started.elapsed());
        Turn::Ended(match record::last_line(&self.folder, process.log_from()) {
            Some(line) => format!("{why}; its last line: {line}"),
            None => why,
        })
    }

    /// Takes up how what runs is asked and ended, which may be said anew without starting it again: what an earlier
    /// agent wrote down may lack what its controller could not say yet.
    fn take_up(&mut self) {
        let newest = match &*self.wanted.borrow() {
            Wanted::Run(newest) if **newest != *self.instance && Wanted::Run(newest.clone()).is_run(&self.instance) => {
                newest.clone()
            }
            _ => return,
        };
        self.record.spec = (&*newest).into();
        self.instance = newest;
        if let Err(problem) = record::save(&self.folder, &self.record) {
            warn!(id = self.instance.id, problem, "how it is asked could not be recorded");
        }
    }

    fn check(&self) -> HealthCheck {
        self.instance.health.clone().unwrap_or_default()
    }

    /// Remembers whether it is well: an agent that finds it again goes on from there.
    fn record_health(&mut self, healthy: bool) {
        if self.record.healthy != healthy {
            self.record.healthy = healthy;
            if let Err(problem) = record::save(&self.folder, &self.record) {
                warn!(id = self.instance.id, problem, "its health could not be recorded");
            }
        }
    }

    /// What a probe means for the status.
    fn tell(&self, state: State, outcome: Result<(), String>, slow: bool) {
        self.say(|status| {
            status.state = state.into();
            match (state, outcome) {
                (State::Healthy, _) => status.problem.clear(),
                (State::Unhealthy, Err(problem)) => status.problem = problem,
                // While it starts, refusing connections is no problem yet; what ended the last one stays.
                (State::Starting, Err(problem)) if slow => {
                    status.problem = format!("it does not answer yet: {problem}")
                }
                _ => {}
            }
        });
    }

    async fn wait_to_start(&mut self, problem: String) {
        if !self.is_wanted() {
            return;
        }
        let wait = self.pace.next();
        warn!(id = self.instance.id, problem, ?wait, "is not running");
        self.say(|status| {
            status.pid = 0;
            // What could not be fetched is still being fetched: nothing is started again.
            if status.state() != State::Fetching {
                status.state = State::Backoff.into();
            }
            status.problem = problem;
        });
        tokio::select! {
            () = sleep(wait) => {}
            () = self.unwanted() => {}
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_millis(u64::from(self.instance.stop_ms))
    }

    /// Asks the process group to end, and ends it when it does not, with everything that left it.
    async fn stop(&mut self, process: Option<Process>) {
        self.say(|status| status.state = State::Stopping.into());
        if let Some(mut process) = process {
            process.stop(self.grace()).await;
        }
        end_marked(&self.instance.id, &self.host.data).await;
    }

    /// Leaves nothing but the log, unless something is wanted again: then makes ready for that.
    fn ends(&mut self) -> bool {
        if matches!(*self.wanted.borrow(), Wanted::Stop) {
            self.host.ports.give_back(&self.instance.id);
            record::retire(&self.host.data, &self.folder);
            self.record.port = None;
            // INVARIANT: last of all. Whoever wants it from now on makes a new task, which finds nothing of this one.
            if self.wanted.send_if_modified(Wanted::end) {
                return true;
            }
        }
        if let Wanted::Run(instance) = &*self.wanted.borrow() {
            self.instance = instance.clone();
        }
        self.record = Record { port: self.record.port, ..Record::new(&self.instance) };
        (self.pace, self.started) = (Pace::default(), false);
        self.say(|status| {
            let port = self.record.port.map_or(0, u32::from);
            *status =
                InstanceStatus { id: status.id.clone(), state: State::Starting.into(), port, ..Default::default() };
        });
        false
    }
}
