//! Running a program in a process group of its own, to its end: exit, timeout or cancellation; nothing of the group stays.
//!
//! The leader is not reaped before the group was killed: until then its number cannot be given to another process, so the
//! signal cannot reach a stranger.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::log::Log;
use super::{Cancel, workspace};

/// How long output is read after the group is gone: a process that left the group may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A program, its surroundings and its limits.
pub(crate) struct Program {
    /// Program and arguments; a program with a slash is relative to `folder`.
    pub(crate) words: Vec<String>,
    pub(crate) folder: PathBuf,
    /// All of its environment.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// Where its number is written, so that a later controller can end it.
    pub(crate) record: Option<PathBuf>,
}

/// Where a program's output goes.
pub(crate) enum Output<'o> {
    /// Both streams into a log, in the order in which they come.
    Log(&'o mut Log),
    /// Standard output is kept, up to a bound that fails the program; of the errors the beginning.
    Keep(&'o mut Kept),
    /// The end of both streams, in the order in which they come.
    End(&'o mut End),
}

/// Output that was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
    /// Bound on each.
    pub(crate) most: usize,
    /// Whether output went over the bound.
    pub(crate) over: bool,
}

/// The end of what was put out.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) output: Vec<u8>,
    /// Bound on it.
    pub(crate) most: usize,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
    TimedOut,
    Cancelled,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("took too long and was ended"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl Output<'_> {
    fn take(&mut self, bytes: &[u8], is_error: bool) {
        match self {
            Self::Log(log) => log.output(bytes),
            Self::Keep(kept) => {
                let most = kept.most;
                let place = if is_error { &mut kept.errors } else { &mut kept.output };
                let room = most.saturating_sub(place.len()).min(bytes.len());
                place.extend_from_slice(&bytes[..room]);
                kept.over |= room < bytes.len() && !is_error;
            }
            Self::End(end) => {
                end.output.extend_from_slice(bytes);
                end.output.drain(..end.output.len().saturating_sub(end.most));
            }
        }
    }
}

impl Program {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn run(self, cancel: &mut Cancel, mut output: Output<'_>) -> io::Result<Ended> {
        if *cancel.borrow() {
            return Ok(Ended::Cancelled);
        }
        let (mut group, mut out, mut errors) = self.start(matches!(output, Output::Keep(_)))?;
        let reading = read_all(&mut out, errors.as_mut(), &mut output);
        tokio::pin!(reading);
        let (ended, closed) = {
            let ending = group.wait(self.timeout, self.grace, cancel);
            tokio::pin!(ending);
            tokio::select! {
                ended = &mut ending => (ended?, false),
                () = &mut reading => (ending.await?, true),
            }
        };
        let status = group.finish()?;
        if !closed {
            let _ = tokio::time::timeout(LAST_OUTPUT, reading).await;
        }
        Ok(ended.unwrap_or_else(|| match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exit(code),
            (None, signal) => Ended::Signal(signal.unwrap_or_default()),
        }))
    }

    /// Starts it; the ends of its pipes, the second when errors are apart.
    fn start(&self, apart: bool) -> io::Result<(Group, pipe::Receiver, Option<pipe::Receiver>)> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let program = if program.contains('/') { self.folder.join(program) } else { PathBuf::from(program) };
        let (out, out_end) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env_clear().envs(&self.environment).process_group(0);
        command.stdin(Stdio::null()).stdout(out_end.try_clone()?);
        let errors = if apart {
            let (errors, errors_end) = io::pipe()?;
            command.stderr(errors_end);
            Some(receiver(errors)?)
        } else {
            command.stderr(out_end);
            None
        };
        let group = Group::start(command)?;
        if let Some(record) = &self.record {
            workspace::record(record, group.leader)?;
        }
        Ok((group, receiver(out)?, errors))
    }
}

fn receiver(end: io::PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(end))
}

/// Reads both pipes to their ends.
async fn read_all(out: &mut pipe::Receiver, errors: Option<&mut pipe::Receiver>, output: &mut Output<'_>) {
    let (mut out, mut errors) = (Some(out), errors);
    let (mut chunk, mut error_chunk) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    while out.is_some() || errors.is_some() {
        tokio::select! {
            read = read_some(&mut out, &mut chunk) => match read {
                0 => out = None,
                read => output.take(&chunk[..read], false),
            },
            read = read_some(&mut errors, &mut error_chunk) => match read {
                0 => errors = None,
                read => output.take(&error_chunk[..read], true),
            },
        }
    }
}

/// A pipe that fails has ended; one that has ended never gives anything.
async fn read_some(end: &mut Option<&mut pipe::Receiver>, chunk: &mut [u8]) -> usize {
    match end {
        Some(end) => end.read(chunk).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

/// A process group whose leader is our child.
struct Group {
    child: Option<Child>,
    leader: Pid,
    /// Told by a thread that waits for nothing else.
    exited: oneshot::Receiver<()>,
}

impl Group {
    /// The command is taken, because it holds the writing ends of the pipes.
    fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let leader = Pid::from_child(&child);
        match watch_exit(leader) {
            Ok(exited) => Ok(Self { child: Some(child), leader, exited }),
            Err(error) => {
                let _ = kill_process_group(leader, Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Until the leader has exited; why, if it was not its own doing.
    async fn wait(&mut self, timeout: Duration, grace: Duration, cancel: &mut Cancel) -> io::Result<Option<Ended>> {
        let why = tokio::select! {
            exited = &mut self.exited => return exited.map(|()| None).map_err(io::Error::other),
            () = tokio::time::sleep(timeout) => Ended::TimedOut,
            () = cancelled(cancel) => Ended::Cancelled,
        };
        let _ = kill_process_group(self.leader, Signal::TERM);
        let _ = tokio::time::timeout(grace, &mut self.exited).await;
        Ok(Some(why))
    }

    /// Kills what is left of the group, then reaps the leader.
    fn finish(&mut self) -> io::Result<std::process::ExitStatus> {
        let _ = kill_process_group(self.leader, Signal::KILL);
        let mut child = self.child.take().expect("finished once");
        child.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process_group(self.leader, Signal::KILL);
        // A process within a system call of a broken disk dies late: not on this thread.
        std::thread::spawn(move || drop(child.wait()));
    }
}

/// Tells when a process has exited, without reaping it.
fn watch_exit(leader: Pid) -> io::Result<oneshot::Receiver<()>> {
    let process = pidfd_open(leader, PidfdFlags::empty())?;
    let (tell, exited) = oneshot::channel();
    std::thread::Builder::new().name("build-exit".to_owned()).spawn(move || {
        // Readable when it has exited (pidfd_open(2)). Any other failure drops `tell`, which ends the wait with an error.
        let mut watched = [PollFd::new(&process, PollFlags::IN)];
        loop {
            match poll(&mut watched, None) {
                Ok(_) => {
                    let _ = tell.send(());
                    return;
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(exited)
}

/// Until the build is cancelled; for ever when nobody can cancel it any more.
pub(crate) async fn cancelled(cancel: &mut Cancel) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending().await
    }
}

/// The start time of a process, in ticks since the machine started: with the number it names one process.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name in parentheses may contain anything; field 22 is the 20th after it (proc_pid_stat(5)).
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str, timeout_ms: u64) -> Program {
        Program {
            words: ["sh", "-c", script].map(str::to_owned).to_vec(),
            folder: "/".into(),
            environment: BTreeMap::from([("PATH".to_owned(), super::super::DEFAULT_PATH.to_owned())]),
            timeout: Duration::from_millis(timeout_ms),
            grace: Duration::from_millis(50),
            record: None,
        }
    }

    #[tokio::test]
    async fn programs_end_in_every_way() {
        let (_canceller, mut cancel) = tokio::sync::watch::channel(false);
        for (script, timeout_ms, expected, output, errors) in [
            ("echo out; echo err >&2", 60_000, Ended::Exit(0), "out\n", "err\n"),
            ("exit 7", 60_000, Ended::Exit(7), "", ""),
            ("kill -9 $$", 60_000, Ended::Signal(9), "", ""),
            ("exec >&- 2>&-; exit 3", 60_000, Ended::Exit(3), "", ""),
            ("trap '' TERM; while :; do sleep 1; done", 300, Ended::TimedOut, "", ""),
            ("head -c 5000 /dev/zero | tr '\\0' x", 60_000, Ended::Exit(0), &"x".repeat(1000), ""),
        ] {
            let mut kept = Kept { most: 1000, ..Kept::default() };
            let ended = program(script, timeout_ms).run(&mut cancel, Output::Keep(&mut kept)).await.expect(script);
            assert_eq!(ended, expected, "{script}");
            assert_eq!((String::from_utf8_lossy(&kept.output).as_ref(), kept.over), (output, output.len() == 1000));
            assert_eq!(String::from_utf8_lossy(&kept.errors), errors, "{script}");
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let (_canceller, mut cancel) = tokio::sync::watch::channel(false);
        let missing = Program { words: vec!["./not-there".to_owned()], ..program("", 1000) };
        assert!(missing.run(&mut cancel, Output::Keep(&mut Kept::default())).await.is_err());
    }
}
