//! Proofs by DNS-01 through a command of the operator's.
//!
//! Must not know: whose name servers, or how a record gets there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::error::plain;
use super::{Method, Proof, Prover};

/// What the command keeps of our environment.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Of the output only the end is kept.
const TAIL_BYTES: usize = 4096;
/// How long output is read after the command has ended: a process that left its group may hold the pipe for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Runs an operator's command to show and to withdraw TXT records.
///
/// `<command...> present _acme-challenge.<host> <value>` adds a TXT record with that text and exits with status 0 when every
/// name server of the zone answers it: the authority looks at once. It must not remove other values of the name: a name
/// and its wildcard are proved by two at the same time. `<command...> cleanup _acme-challenge.<host> <value>` removes that
/// one; it also comes after a `present` that failed. The value is base64url, and may begin with a hyphen.
///
/// The command runs in the folder `/` with nothing of our environment but PATH, HOME and LANG, without input, in a process
/// group of its own, of which nothing is left when it has ended. What it says is shown only when it fails: the last line.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Program, by name to be looked up in PATH or by absolute path, and its first arguments; not empty.
    pub command: Vec<String>,
    /// How long it may take, each time; then its process group is killed. [`Hook::TIMEOUT`] unless the operator says
    /// otherwise. A whole certificate takes at most 10 minutes.
    pub timeout: Duration,
}

impl Hook {
    /// How long a command may take by default.
    pub const TIMEOUT: Duration = Duration::from_secs(120);

    async fn run(&self, verb: &str, proof: &Proof) -> Result<(), String> {
        if proof.method != Method::Dns01 {
            return Err(format!("a hook proves by {}, not by {}", Method::Dns01, proof.method));
        }
        let (program, arguments) = self.command.split_first().ok_or("the hook's command is empty")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(verb).arg(format!("_acme-challenge.{}", proof.host)).arg(&proof.dns_value);
        let shown = || plain(program);
        let (group, mut output) =
            Group::start(command).map_err(|why| format!("{} cannot be started: {why}", shown()))?;
        let mut tail = Vec::new();
        let ended = {
            let reading = read(&mut output, &mut tail);
            tokio::pin!(reading);
            let ending = group.end(self.timeout);
            tokio::pin!(ending);
            let (ended, closed) = tokio::select! {
                ended = &mut ending => (ended, false),
                () = &mut reading => (ending.await, true),
            };
            if !closed {
                let _ = tokio::time::timeout(LAST_OUTPUT, reading).await;
            }
            ended.map_err(|why| format!("{} cannot be waited for: {why}", shown()))?
        };
        let how = match ended {
            Ended::Exited(status) if status.success() => return Ok(()),
            Ended::Exited(status) => status.to_string(),
            Ended::TimedOut => format!("it took longer than {} s and was ended", self.timeout.as_secs()),
        };
        Err(format!("{} {verb}: {how}{}", shown(), last_line(&tail)))
    }
}

#[tonic::async_trait]
impl Prover for Hook {
    async fn show(&self, proof: &Proof) -> Result<(), String> {
        self.run("present", proof).await
    }

    async fn withdraw(&self, proof: &Proof) {
        if let Err(why) = self.run("cleanup", proof).await {
            tracing::warn!(host = %proof.host, %why, "a DNS record was perhaps not removed");
        }
    }
}

/// The last line that is not empty.
fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    line.map(|line| format!("; it said: {}", plain(line))).unwrap_or_default()
}

/// Reads to the end and keeps the last bytes.
async fn read(output: &mut pipe::Receiver, tail: &mut Vec<u8>) {
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = output.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..read]);
        let over = tail.len().saturating_sub(TAIL_BYTES);
        tail.drain(..over);
    }
}

enum Ended {
    Exited(ExitStatus),
    TimedOut,
}

/// A process group whose leader is our child. The leader is not reaped before the group was killed: until then its number
/// cannot be given to another process.
struct Group {
    child: Option<Child>,
    leader: Pid,
}

impl Group {
    /// Starts a command; both its outputs come through one pipe. The command is taken, because it holds the writing ends.
    fn start(mut command: Command) -> io::Result<(Self, pipe::Receiver)> {
        let (output, end) = io::pipe()?;
        command.env_clear().current_dir("/").process_group(0);
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::null()).stdout(end.try_clone()?).stderr(end);
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(output))?;
        let child = command.spawn()?;
        Ok((Self { leader: Pid::from_child(&child), child: Some(child) }, output))
    }

    /// Waits until the leader has exited, or kills it when it takes too long; then nothing of the group is left.
    async fn end(mut self, timeout: Duration) -> io::Result<Ended> {
        let process = pidfd_open(self.leader, PidfdFlags::empty())?;
        let exiting = tokio::task::spawn_blocking(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(process.as_fd()), options))
        });
        let in_time = tokio::time::timeout(timeout, exiting).await;
        let _ = kill_process_group(self.leader, Signal::KILL);
        let mut child = self.child.take().expect("ended once");
        // At once, unless a broken disk holds it within a system call.
        let status = tokio::task::spawn_blocking(move || child.wait()).await.map_err(io::Error::other)??;
        match in_time {
            Ok(exited) => exited.map_err(io::Error::other)?.map(|_| Ended::Exited(status)).map_err(io::Error::from),
            Err(_) => Ok(Ended::TimedOut),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process_group(self.leader, Signal::KILL);
        std::thread::spawn(move || drop(child.wait()));
    }
}
