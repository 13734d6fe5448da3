//! Child processes: on which core they run, when they are ready, and how they end.
//!
//! Must not know: what they are. Nothing here ends a process that it was not given.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Problem;

/// Longest wait for a child to listen.
const READY: Duration = Duration::from_secs(10);
/// Longest wait for a child to end after it was told to.
const END: Duration = Duration::from_secs(10);
/// Lines of a log that are shown with a failure.
const LAST_LINES: usize = 8;

/// A command that runs on one core alone and is told to end when the thread that started it is gone, however that went.
///
/// Both tools become the program: its process id is the child's.
pub fn pinned(program: impl AsRef<OsStr>, core: usize) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "taskset", "-c", &core.to_string()]).arg(program).stdin(Stdio::null());
    command
}

/// Ends a child: asks it, and after a while does not ask any more.
pub fn end(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let (Ok(None), Some(pid)) = (child.try_wait(), pid) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let deadline = Instant::now() + END;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // Nothing to do for one that has ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// A child that writes a log and ends with this.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; what it says goes to `log`.
    ///
    /// # Errors
    /// No such program, or a log that cannot be written.
    pub fn start(mut command: Command, log: &Path) -> Result<Self, Problem> {
        let file = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until it listens at an address.
    ///
    /// # Errors
    /// It ended, or does not listen in time.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<(), Problem> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it did not start: {status}").into());
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it does not listen at {address}").into())
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, Problem> {
        Ok(self.child.try_wait()?)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The last lines of a log, indented; empty without any.
pub fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n    {line}")).collect()
}
