//! Processes: started in a group of their own, found again by pid and start time, ended as a group.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use api::agent::Instance;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::record::{Record, log_path};

/// Marks in a process's environment by which an agent that lost its record finds it.
const MARK_INSTANCE: &str = "POINTSMAN_INSTANCE";
const MARK_AGENT: &str = "POINTSMAN_AGENT_DATA";

/// How often a process that an earlier agent started is looked for: its end is noticed about as fast as a failed probe.
const LOOK: Duration = Duration::from_millis(200);

/// How a process is started.
pub(super) struct Start<'a> {
    pub(super) instance: &'a Instance,
    /// The artifact's folder: where it runs.
    pub(super) unpacked: &'a Path,
    /// The instance's own folder.
    pub(super) folder: &'a Path,
    pub(super) data: &'a Path,
    pub(super) port: Option<u16>,
}

/// A running process and its group.
pub(super) struct Process {
    pid: Pid,
    start_time: u64,
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
        let log = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(log_path(self.folder));
        let log = log.map_err(|problem| format!("its log cannot be opened: {problem}"))?;
        let errors = log.try_clone().map_err(|problem| format!("its log cannot be opened: {problem}"))?;
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
        let child = command.spawn().map_err(|problem| format!("{} cannot be started: {problem}", program.display()))?;
        let pid =
            child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw).ok_or("it ended at once")?;
        let start_time = start_time(pid).unwrap_or(0);
        Ok(Process { pid, start_time, watched: Watched::Child(Box::new(child)) })
    }
}

impl Process {
    /// The process of a record, if it still runs; also one that was started just before the record could be written.
    pub(super) async fn find(record: &Record, data: &Path) -> Option<Self> {
        let id = Instance::from(record.spec.clone()).id;
        let recorded = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
        let recorded = recorded.filter(|pid| record.start_time != 0 && start_time(*pid) == Some(record.start_time));
        let pid = recorded.or_else(|| find_marked(&id, data))?;
        Some(Self { pid, start_time: start_time(pid)?, watched: Watched::Found })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub(super) fn start_time(&self) -> u64 {
        self.start_time
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
                while start_time(self.pid) == Some(self.start_time) {
                    sleep(LOOK).await;
                }
                "it ended".to_owned()
            }
        }
    }

    /// SIGTERM to the group, and SIGKILL to what is left of it after `grace`.
    pub(super) async fn stop(&mut self, grace: Duration) {
        let _ = kill_process_group(self.pid, Signal::TERM); // It may have ended by itself.
        let _ = timeout(grace, self.ended()).await;
        self.end_group();
        // The leader is reaped, or was never ours; helpers of it end as fast as the kernel can.
        let _ = timeout(Duration::from_secs(5), async {
            self.ended().await;
            while kill_process_group(self.pid, Signal::KILL).is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Ends whatever is left of the group.
    pub(super) fn end_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL); // Mostly nothing is left.
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// When a process started, in clock ticks since boot (proc(5), field 22 of stat); `None` when it has ended.
fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is a name in parentheses that may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(start)
}

/// The leader of a group that carries our marks: one that an agent started just before it died.
fn find_marked(id: &str, data: &Path) -> Option<Pid> {
    let marks = [format!("{MARK_INSTANCE}={id}"), format!("{MARK_AGENT}={}", data.display())];
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.into_iter().find(|pid| {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
        let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
        let marked = marks.iter().all(|mark| variables.contains(&mark.as_bytes()));
        // The group is asked for last: kernel threads have group 0, for which rustix panics.
        marked && start_time(*pid).is_some() && rustix::process::getpgid(Some(*pid)).is_ok_and(|group| group == *pid)
    })
}
