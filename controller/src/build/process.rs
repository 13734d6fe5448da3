//! Running a program in a process group of its own, to its end: exit, timeout, too much on the disk, or cancellation;
//! nothing of the group stays, and, where it is contained, nothing that it started.

mod group;
mod output;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use tokio::net::unix::pipe;

use super::contain::{self, Containment};
use super::{Cancel, DEFAULT_PATH, limit, workspace};

use group::Group;
pub(crate) use output::{End, Kept, Output};

/// How long output is read after the group is gone: a process that left the group may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Exit statuses from which on a shell says that its command was ended by a signal.
const SIGNALLED: std::ops::RangeInclusive<i32> = 129..=192;

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

/// A program and what keeps it together.
pub(crate) struct Contained {
    program: Program,
    containment: Containment,
    size: Option<(PathBuf, u64)>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
    TimedOut,
    /// Its folder took more than it may: so many bytes.
    TooLarge(u64),
    Cancelled,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::TimedOut => f.write_str("took too long and was ended"),
            Self::TooLarge(bytes) => write!(f, "filled its folder with {bytes} bytes and was ended"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl Ended {
    fn of(status: ExitStatus, namespace: bool) -> Self {
        match (status.code(), status.signal()) {
            // It is the shell within that tells it.
            (Some(code), _) if namespace && SIGNALLED.contains(&code) => Self::Signal(code - 128),
            (Some(code), _) => Self::Exit(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl Program {
    /// Runs it to its end in a process group alone: for programs of ours.
    ///
    /// # Errors
    /// When it could not be started.
    pub(crate) async fn run(self, cancel: &mut Cancel, output: Output<'_>) -> io::Result<Ended> {
        self.within(&Containment::GroupOnly("".into())).run(cancel, output).await
    }

    /// Keeps all that it starts together.
    pub(crate) fn within(self, containment: &Containment) -> Contained {
        Contained { program: self, containment: containment.clone(), size: None }
    }

    /// Starts it; the ends of its pipes, the second when errors are apart.
    fn start(
        &self,
        containment: &Containment,
        apart: bool,
    ) -> io::Result<(Group, pipe::Receiver, Option<pipe::Receiver>)> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let path = self.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let words = containment.wrap(contain::find(program, &self.folder, path)?, arguments);
        let (program, arguments) = words.split_first().expect("there is a program");
        let (out, out_end) = io::pipe()?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.folder).env_clear().envs(&self.environment).process_group(0);
        command.stdin(Stdio::null()).stdout(out_end.try_clone()?);
        let errors = if apart {
            let (errors, errors_end) = io::pipe()?;
            command.stderr(errors_end);
            Some(output::receiver(errors)?)
        } else {
            command.stderr(out_end);
            None
        };
        let group = Group::start(command, containment.is_namespace())?;
        if let Some(record) = &self.record {
            workspace::record(record, group.leader)?;
        }
        Ok((group, output::receiver(out)?, errors))
    }
}

impl Contained {
    /// Ends it when `folder` takes more than so many bytes on the disk.
    pub(crate) fn no_larger(mut self, folder: PathBuf, bytes: u64) -> Self {
        self.size = Some((folder, bytes));
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it could not be started.
    ///
    /// # Cancel safety
    /// Dropping the future kills it and all that it started, without waiting for that.
    pub(crate) async fn run(self, cancel: &mut Cancel, mut output: Output<'_>) -> io::Result<Ended> {
        if *cancel.borrow() {
            return Ok(Ended::Cancelled);
        }
        let Self { program, containment, size } = self;
        let (mut group, mut out, mut errors) = program.start(&containment, matches!(output, Output::Keep(_)))?;
        let reading = output::read_all(&mut out, errors.as_mut(), &mut output);
        tokio::pin!(reading);
        let (ended, closed) = {
            let ending = group.wait(program.grace, stop(program.timeout, size, cancel));
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
        Ok(ended.unwrap_or_else(|| Ended::of(status, containment.is_namespace())))
    }
}

/// Until a program has to end: why.
async fn stop(timeout: Duration, size: Option<(PathBuf, u64)>, cancel: &mut Cancel) -> Ended {
    let too_large = async {
        match size {
            Some((folder, most)) => limit::watch(folder, most).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep(timeout) => Ended::TimedOut,
        bytes = too_large => Ended::TooLarge(bytes),
        () = cancelled(cancel) => Ended::Cancelled,
    }
}

/// Until the build is cancelled; for ever when nobody can cancel it any more.
pub(crate) async fn cancelled(cancel: &mut Cancel) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending().await
    }
}

/// The start time of a process, in ticks since the machine started: with the number it names one process.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    // Field 22 is the 20th after the name (proc_pid_stat(5)).
    stat(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// Which process started it.
fn parent(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat(pid)?.split_whitespace().nth(1)?.parse().ok()?)
}

/// What follows the name of a process, which may contain anything, in parentheses.
fn stat(pid: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
