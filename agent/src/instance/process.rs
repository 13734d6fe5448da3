//! Processes: started in a group of their own, found again by pid and start time, ended as a group.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use api::agent::Instance;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};
use tokio::process::{Child, Command};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::proc::{self, Living, MARK_AGENT, MARK_INSTANCE};
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
    /// The session of its group: that of the agent that started it.
    session: i32,
    /// Where in the log its own lines begin; 0 when an earlier agent started it.
    log_from: u64,
    watched: Watched,
}

/// How its end is noticed.
enum Watched {
    /// We started it.
    Child(Box<Child>),
    /// An earlier agent did, so nobody tells us: it is looked for. The descriptor means this process and no later one
    /// with its pid; none where the system gives none.
    Found(Option<OwnedFd>),
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
        // Read where those of others are: 0 when its leader is outside our PID namespace, which getsid(2) of rustix
        // takes for impossible.
        let session = proc::living(getpid()).ok().flatten().map_or(0, |own| own.session);
        Ok(Process { pid, start_time, session, log_from, watched: Watched::Child(Box::new(child)) })
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
        let leads = |pid: Pid, living: Living| {
            let pid = pid.as_raw_nonzero().get();
            living.group == pid && living.session != pid
        };
        let marked = proc::marked(&Instance::from(record.spec.clone()).id, data).found.into_iter();
        let leader = marked.filter(|(pid, living)| leads(*pid, *living)).min_by_key(|(_, living)| living.start_time);
        leader.map(|(pid, living)| Self::found(pid, living))
    }

    /// The process of a record, if it still runs. Quick: one file is read.
    pub(super) fn recorded(record: &Record) -> Option<Self> {
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw)?;
        let living = proc::living(pid).ok().flatten()?;
        let same = record.boot == proc::boot() && living.start_time == record.start_time;
        same.then(|| Self::found(pid, living))
    }

    fn found(pid: Pid, living: Living) -> Self {
        let held = hold(pid, living.start_time).ok().flatten();
        let (start_time, session) = (living.start_time, living.session);
        Self { pid, start_time, session, log_from: 0, watched: Watched::Found(held) }
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
            Watched::Found(_) => {
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
        self.signal_group(Signal::TERM).await;
        // Not only the leader: a shell ends at once, and the server that it started is still finishing its work.
        let _ = timeout(grace, self.group_ended()).await;
        self.end_group().await;
        if timeout(KILLED, self.group_ended()).await.is_err() {
            warn!(pid = self.pid(), "a process does not end although it was killed");
        }
    }

    async fn group_ended(&mut self) {
        self.ended().await;
        let (leader, start_time, session) = (self.pid, self.start_time, self.session);
        let lives = move || !proc::rest_of_group(leader, start_time, session).is_empty();
        while spawn_blocking(lives).await.unwrap_or(false) {
            sleep(LOOK_FOR_REST).await;
        }
    }

    /// Ends whatever is left of the group.
    pub(super) async fn end_group(&self) {
        self.signal_group(Signal::KILL).await;
    }

    /// Signals everybody in the group, and nobody else: its number is the leader's pid, which a stranger may have once
    /// the leader is gone.
    async fn signal_group(&self, signal: Signal) {
        if self.has_its_pid() {
            let _ = kill_process_group(self.pid, signal); // It may be ending by itself.
            return;
        }
        let (leader, start_time, session) = (self.pid, self.start_time, self.session);
        let rest = move || {
            for (pid, living) in proc::rest_of_group(leader, start_time, session) {
                signal_only(pid, living.start_time, signal);
            }
        };
        let _ = spawn_blocking(rest).await; // It does not panic.
    }

    /// Whether the leader's pid is still its own.
    fn has_its_pid(&self) -> bool {
        match &self.watched {
            // Until we have asked how it ended, also after its end.
            Watched::Child(child) => child.id().is_some(),
            Watched::Found(Some(held)) => !has_ended(held),
            Watched::Found(None) => is_same(self.pid, self.start_time),
        }
    }
}

/// A descriptor of the process with this pid and start time; `None` when that one is gone.
fn hold(pid: Pid, start_time: u64) -> io::Result<Option<OwnedFd>> {
    let held = pidfd_open(pid, PidfdFlags::empty())?;
    // Looked at afterwards: what has this start time now is what is held.
    Ok(is_same(pid, start_time).then_some(held))
}

fn is_same(pid: Pid, start_time: u64) -> bool {
    proc::living(pid).ok().flatten().is_some_and(|living| living.start_time == start_time)
}

fn has_ended(held: &OwnedFd) -> bool {
    // pidfd_open(2): readable once the process has ended. At once, without waiting.
    poll(&mut [PollFd::new(held, PollFlags::IN)], Some(&rustix::event::Timespec::default()))
        .is_ok_and(|ready| ready > 0)
}

/// Signals this process and no later one with its pid. Blocks for a moment.
fn signal_only(pid: Pid, start_time: u64, signal: Signal) {
    // Whom a signal does not reach has ended by itself.
    match hold(pid, start_time) {
        Ok(Some(held)) => drop(pidfd_send_signal(held, signal)),
        Ok(None) => {}
        // No more descriptors, or none of this kind: at least looked at just before.
        Err(_) if is_same(pid, start_time) => drop(kill_process(pid, signal)),
        Err(_) => {}
    }
}

/// Ends everything that carries an instance's marks: what a leader that ended left behind, also in other groups.
pub(super) async fn end_marked(id: &str, data: &Path) {
    let end_all = async {
        loop {
            let (id, data) = (id.to_owned(), data.to_owned());
            let all_ended = spawn_blocking(move || {
                let marked = proc::marked(&id, &data);
                for (pid, living) in &marked.found {
                    signal_only(*pid, living.start_time, Signal::KILL);
                }
                marked.found.is_empty() && !marked.unsettled
            });
            if all_ended.await.unwrap_or(false) {
                return;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn started(script: &str) -> (Child, Pid, Living) {
        let child = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let pid = Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("a pid");
        let living = proc::living(pid).expect("asked").expect("it runs");
        (child, pid, living)
    }

    #[tokio::test]
    async fn agent_starts_and_ends_a_process_where_its_own_session_cannot_be_seen() {
        const INSIDE: &str = "POINTSMAN_TEST_INSIDE";
        const NAME: &str =
            "instance::process::tests::agent_starts_and_ends_a_process_where_its_own_session_cannot_be_seen";
        if std::env::var_os(INSIDE).is_none() {
            // As in a container whose agent did not call setsid(2): the session's leader is outside.
            let mut unshare = Command::new("unshare");
            unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
            if !rustix::process::getuid().is_root() {
                unshare.arg("--map-root-user");
            }
            let me = std::env::current_exe().expect("a path");
            let ended = unshare.arg(me).args(["--exact", NAME, "--nocapture"]).env(INSIDE, "1").output().await;
            let ended = ended.expect("unshare(1) runs");
            let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        assert_eq!(proc::living(getpid()).expect("asked").expect("it runs").session, 0);
        let folder = tempfile::tempdir().expect("a folder");
        let run = ["sh", "-c", "sleep 1000 & exec sleep 1001"].map(str::to_owned).to_vec();
        let instance = Instance { run, ..Instance::default() };
        let place = folder.path();
        let start = Start { instance: &instance, unpacked: place, folder: place, data: place, port: None };
        let mut process = start.spawn().expect("started");
        let rest = || proc::rest_of_group(process.pid, process.start_time, process.session);
        while rest().len() < 2 {
            sleep(LOOK_FOR_REST).await;
        }
        process.stop(Duration::from_secs(10)).await;
        assert!(proc::rest_of_group(process.pid, process.start_time, process.session).is_empty());
    }

    #[tokio::test]
    async fn agent_signals_no_stranger_who_got_the_pid() {
        let (mut stranger, pid, living) = started("exec sleep 1000");
        let earlier = Living { start_time: living.start_time - 1, ..living };
        let mut gone = Process::found(pid, earlier);
        assert!(!gone.has_its_pid());
        gone.stop(Duration::from_secs(1)).await;
        gone.watched = Watched::Found(None);
        gone.end_group().await;
        signal_only(pid, earlier.start_time, Signal::KILL);
        assert!(stranger.try_wait().expect("asked").is_none(), "the stranger was ended");
        signal_only(pid, living.start_time, Signal::KILL);
        assert_eq!(stranger.wait().await.expect("ended").signal(), Some(9));
    }

    #[tokio::test]
    async fn agent_ends_what_a_leader_that_ended_left_in_its_group() {
        // Without an environment, so that no marks tell.
        let (mut leader, pid, living) = started("env -i sleep 1000 & exec sleep 1001");
        let process = Process::found(pid, living);
        let rest = || proc::rest_of_group(pid, living.start_time, living.session);
        assert!(process.has_its_pid());
        while rest().len() < 2 {
            sleep(LOOK_FOR_REST).await;
        }
        leader.kill().await.expect("ended");
        assert!(!process.has_its_pid() && rest().len() == 1);
        process.end_group().await;
        while !rest().is_empty() {
            sleep(LOOK_FOR_REST).await;
        }
    }
}
