//! A process group of which nothing stays.
//!
//! The leader is not reaped before the group was killed: until then its number cannot be given to another process, so the
//! signal cannot reach a stranger.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::sync::oneshot;

use super::{Ended, parent};

/// How long the processes of a namespace may take to die: the system ends them, but not those that it waits for itself.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A process group whose leader is our child.
pub(super) struct Group {
    child: Option<Child>,
    pub(super) leader: Pid,
    /// Whether the leader waits for a PID namespace, which its only child began.
    namespace: bool,
    /// Told by a thread that waits for nothing else.
    exited: oneshot::Receiver<()>,
}

impl Group {
    /// The command is taken, because it holds the writing ends of the pipes.
    pub(super) fn start(mut command: Command, namespace: bool) -> io::Result<Self> {
        let mut child = command.spawn()?;
        let leader = Pid::from_child(&child);
        match pidfd_open(leader, PidfdFlags::empty()).map_err(io::Error::from).and_then(watch_exit) {
            Ok(exited) => Ok(Self { child: Some(child), leader, namespace, exited }),
            Err(error) => {
                let _ = kill_process_group(leader, Signal::KILL);
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Until the leader has exited; why, if it was not its own doing. `stop` says why it has to end before.
    pub(super) async fn wait(
        &mut self,
        grace: Duration,
        stop: impl Future<Output = Ended>,
    ) -> io::Result<Option<Ended>> {
        let why = tokio::select! {
            exited = &mut self.exited => return exited.map(|()| None).map_err(io::Error::other),
            why = stop => why,
        };
        let _ = kill_process_group(self.leader, Signal::TERM);
        if tokio::time::timeout(grace, &mut self.exited).await.is_err() {
            let first = self.namespace.then(|| first_of_namespace(self.leader)).flatten();
            let _ = kill_process_group(self.leader, Signal::KILL);
            if let Some(gone) = first.and_then(|first| watch_exit(first).ok()) {
                let _ = tokio::time::timeout(LAST_BREATH, gone).await;
            }
        }
        Ok(Some(why))
    }

    /// Kills what is left of the group, then reaps the leader.
    pub(super) fn finish(&mut self) -> io::Result<std::process::ExitStatus> {
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

/// The first process of the namespace that `leader` waits for: it dies when the leader does, and has exited when all others
/// of the namespace have.
fn first_of_namespace(leader: Pid) -> Option<OwnedFd> {
    let children = std::fs::read_to_string(format!("/proc/{leader}/task/{leader}/children")).ok()?;
    let child = Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)?;
    // Opened before it is looked at, so that it is the process that was looked at.
    let first = pidfd_open(child, PidfdFlags::empty()).ok()?;
    (parent(child) == Some(leader)).then_some(first)
}

/// Tells when a process has exited, without reaping it.
fn watch_exit(process: OwnedFd) -> io::Result<oneshot::Receiver<()>> {
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
