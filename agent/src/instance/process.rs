//! Processes: started in a group of their own, found again by pid and start time, ended as a group.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use api::agent::Instance;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::proc::{self, MARK_AGENT, MARK_INSTANCE};
use super::record::{Record, log_path};

/// How often a process that an earlier agent started is looked for: its end is noticed about as fast as a failed probe.
const LOOK: Duration = Duration::from_millis(200);
/// How often the rest of a group is looked for while it ends.
const LOOK_FOR_REST: Duration = Duration::from_millis(20);
/// Longest wait for what was killed: only a process in the middle of a disk's answer takes that long.
const KILLED: Duration = Duration::from_secs(5);

/// What was just unpacked cannot be run for a moment when another process was forked meanwhile, which has the file open
/// until it runs its own program.
const BUSY: Duration = Duration::from_millis(2);
const BUSY_TRIES: u32 = 50;

/// How a process is started.
pub(super) struct Start<'a> {
    pub(super) instance: &'a Instance,
    /// What was unpacked for this start: where it runs, read-only.
    pub(super) unpacked: &'a Path,
    /// The instance's own folder: its HOME, where it may write.
    pub(super) folder: &'a Path,
    pub(super) data: &'a Path,
    pub(super) port: Option<u16>,
}

/// A running process and its group.
pub(super) struct Process {
    pid: Pid,
    start_time: u64,
    /// Where in the log its own lines begin; 0 when an earlier agent started it.
    log_from: u64,
    watched: Watched,
}

/// How its end is noticed.
enum Watched {
    /// We started it.
    Child(Box<Child>),
    /// An earlier agent did, so nobody tells us: it is looked for.
    Found,
}

impl Start<'_> {
    /// Starts the process in the unpacked folder, in a group of its own, with a cleared environment.
    pub(super) fn spawn(&self) -> Result<Process, String> {
        let (program, arguments) = self.instance.run.split_first().ok_or("it has no command to run")?;
        // `./hello` is meant relative to the artifact; a bare name is looked up in PATH.
        let program = if program.contains('/') { self.unpacked.join(program).into_os_string() } else { program.into() };
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        let unopened = |problem: io::Error| format!("its log cannot be opened: {problem}");
        let log = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(log_path(self.folder));
        let log = log.map_err(unopened)?;
        let errors = log.try_clone().map_err(unopened)?;
        let log_from = log.metadata().map_err(unopened)?.len();
        let mut command = Command::new(&program);
        command
            .args(arguments.iter().map(|argument| argument.replace("{port}", &port)))
            .current_dir(self.unpacked)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()))
            .env("LANG", "C.UTF-8")
            .env("HOME", self.folder)
            .envs(self.instance.environment.iter().map(|variable| (&variable.name, &variable.value)))
            .env("POINTSMAN_STAGE", &self.instance.stage)
            .env("POINTSMAN_RELEASE", format!("r{}", self.instance.release))
            .env("POINTSMAN_COMPONENT", &self.instance.component)
            .env(MARK_INSTANCE, &self.instance.id)
            .env(MARK_AGENT, self.data)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        if self.port.is_some() {
            command.env("PORT", &port);
        }
        let mut tries = BUSY_TRIES;
        let child = loop {
            match command.spawn() {
                Err(problem) if problem.kind() == ErrorKind::ExecutableFileBusy && tries > 0 => tries -= 1,
                child => break child,
            }
            std::thread::sleep(BUSY);
        };
        let child = child.map_err(|problem| format!("{} cannot be started: {problem}", program.display()))?;
        let pid =
            child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or("it ended at once")?;
        let start_time = proc::living(pid).ok().flatten().map_or(0, |living| living.start_time);
        Ok(Process { pid, start_time, log_from, watched: Watched::Child(Box::new(child)) })
    }
}

impl Process {
    /// The process of a record, if it still runs; also one that was started just before the record could be written.
    ///
    /// Blocks while the kernel is asked.
    pub(super) fn find(record: &Record, data: &Path) -> Option<Self> {
        if record.pid != 0 && record.boot == proc::boot() {
            return Self::recorded(record);
        }
        // An agent starts leaders of groups in its own session; others are what a leader left behind.
        let leads = |pid: Pid, living: proc::Living| {
            let pid = pid.as_raw_nonzero().get();
            living.group == pid && living.session != pid
        };
        let marked = proc::marked(&Instance::from(record.spec.clone()).id, data).into_iter();
        let leader = marked.filter(|(pid, living)| leads(*pid, *living)).min_by_key(|(_, living)| living.start_time);
        leader.map(|(pid, living)| Self::found(pid, living.start_time))
    }

    /// The process of a record, if it still runs. Quick: one file is read.
    pub(super) fn recorded(record: &Record) -> Option<Self> {
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw)?;
        let living = proc::living(pid).ok().flatten()?;
        let same = record.boot == proc::boot() && living.start_time == record.start_time;
        same.then(|| Self::found(pid, living.start_time))
    }

    fn found(pid: Pid, start_time: u64) -> Self {
        Self { pid, start_time, log_from: 0, watched: Watched::Found }
    }

    /// The port that it was started with.
    pub(super) fn port(&self) -> Option<u16> {
        proc::variable(self.pid, "PORT")?.to_str()?.parse().ok()
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub(super) fn start_time(&self) -> u64 {
        self.start_time
    }

    pub(super) fn log_from(&self) -> u64 {
        self.log_from
    }

    /// Waits for its end and says how it ended.
    ///
    /// # Cancel safety
    /// May be dropped and called again.
    pub(super) async fn ended(&mut self) -> String {
        match &mut self.watched {
            Watched::Child(child) => match child.wait().await {
                Ok(status) => describe(status),
                Err(problem) => format!("it ended ({problem})"),
            },
            Watched::Found => {
                // An error says nothing: a running process must not be taken for dead because files ran out.
                while proc::living(self.pid)
                    .map_or(true, |living| living.is_some_and(|living| living.start_time == self.start_time))
                {
                    sleep(LOOK).await;
                }
                "it ended".to_owned()
            }
        }
    }

    /// SIGTERM to the group, and SIGKILL to what is left of it after `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) {
        let _ = kill_process_group(self.pid, Signal::TERM); // It may have ended by itself.
        // Not only the leader: a shell ends at once, and the server that it started is still finishing its work.
        let _ = timeout(grace, self.group_ended()).await;
        self.end_group();
        if timeout(KILLED, self.group_ended()).await.is_err() {
            warn!(pid = self.pid(), "a process does not end although it was killed");
        }
    }

    async fn group_ended(&mut self) {
        self.ended().await;
        let group = self.pid;
        while spawn_blocking(move || proc::group_lives(group)).await.unwrap_or(false) {
            sleep(LOOK_FOR_REST).await;
        }
    }

    /// Ends whatever is left of the group.
    pub(super) fn end_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL); // Mostly nothing is left.
    }
}

/// Ends everything that carries an instance's marks: what a leader that ended left behind, also in other groups.
pub(super) async fn end_marked(id: &str, data: &Path) {
    let end_all = async {
        loop {
            let (id, data) = (id.to_owned(), data.to_owned());
            let marked = spawn_blocking(move || proc::marked(&id, &data)).await.unwrap_or_default();
            if marked.is_empty() {
                return;
            }
            for (pid, _) in marked {
                let _ = kill_process(pid, Signal::KILL); // It may have ended by itself.
            }
            sleep(LOOK_FOR_REST).await;
        }
    };
    if timeout(KILLED, end_all).await.is_err() {
        warn!(id, "something that was left behind does not end although it was killed");
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}
