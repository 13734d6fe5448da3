//! One process: started in a group of its own, ended with its test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::until;

/// A running controller, proxy or agent.
pub(crate) struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Part {
    /// Starts `command`; what it says goes to `log`.
    pub(crate) fn start(name: &str, log: &Path, command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt;
        let file = File::create(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file).process_group(0);
        let child = command.spawn().expect("the binary under test starts");
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Waits until it says `line`.
    pub(crate) async fn says(&mut self, line: &str) {
        let what = format!("{} says {line:?}", self.name);
        until(&what, async || {
            let ended = self.child.try_wait().expect("waited for");
            let said = self.log().contains(line);
            assert!(said || ended.is_none(), "{} ended with {ended:?}:\n{}", self.name, self.log());
            said.then_some(())
        })
        .await;
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, async || self.child.try_wait().expect("waited for")).await
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("waited for").is_none()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("waited for");
    }

    /// Ends it with SIGTERM; its exit code.
    pub(crate) async fn stop(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.ended().await.code()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            // Without what stands indented below a panic, which would take all the room.
            let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with(' ')).collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            eprintln!("--- {} said last:\n{}", self.name, tail.join("\n"));
        }
        if let Ok(None) = self.child.try_wait() {
            // The group: what a build started ends with its controller.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
