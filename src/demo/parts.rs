//! The processes of the demo: started as this same binary, asked by the command, ended in order.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::exit::Failure;

/// Longest wait for a part to be ready.
const READY: Duration = Duration::from_secs(30);
/// Longest wait for a part to end after it was told to.
const END: Duration = Duration::from_secs(45);

/// All processes of the demo.
pub(super) struct Parts {
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    /// In the order of their start.
    running: Vec<(String, Child)>,
    /// Where each proxy serves HTTPS.
    pub(super) proxies: Vec<(String, SocketAddr)>,
}

impl Parts {
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        // The same file even when it is replaced while the demo runs.
        let program = std::env::current_exe();
        let program = program.map_err(|error| Failure::system("this program cannot be found", &error))?;
        Ok(Self { program, folder: folder.to_owned(), running: Vec::new(), proxies: Vec::new() })
    }

    /// The file by which the command reaches the demo's controller.
    pub(super) fn context(&self) -> PathBuf {
        self.folder.join("controller/operator.toml")
    }

    /// Starts the controller on a free port.
    pub(super) async fn controller(&mut self) -> Result<(), Failure> {
        let data = self.folder.join("controller");
        let mut command = self.part("controller", &["controller", "--listen", "127.0.0.1:0"], &data)?;
        // Builds see neither HOME nor anything else that they do not ask for; this is how they find the compiler.
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, home.join(folder));
            }
        }
        self.start("controller", command)?;
        self.wait_for_file("controller", &data.join("operator.toml")).await.map(drop)
    }

    /// Has a proxy join and starts it on free ports.
    pub(super) async fn proxy(&mut self, name: &str) -> Result<(), Failure> {
        let token = self.join("proxy", name, &[]).await?;
        let data = self.folder.join(name);
        let mut command =
            self.part(name, &["proxy", "--https", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "2"], &data)?;
        command.env("POINTSMAN_JOIN", token);
        self.start(name, command)?;
        let listening = self.wait_for_file(name, &data.join("listening.json")).await?;
        let listening: Value = serde_json::from_str(&listening).map_err(|error| Failure::refused(error.to_string()))?;
        let https = listening["https"].as_str().and_then(|https| https.parse().ok());
        let https = https.ok_or_else(|| Failure::refused(format!("{name} does not say where it listens")))?;
        self.proxies.push((name.to_owned(), https));
        Ok(())
    }

    /// Has an agent join and starts it.
    pub(super) async fn agent(&mut self, name: &str, group: &str) -> Result<(), Failure> {
        let token = self.join("agent", name, &["--group", group]).await?;
        let mut command = self.part(name, &["agent", "--end-releases"], &self.folder.join(name))?;
        command.env("POINTSMAN_JOIN", token);
        self.start(name, command)
    }

    async fn join(&self, role: &str, name: &str, more: &[&str]) -> Result<String, Failure> {
        let mut arguments = vec!["join", role, "--name", name];
        arguments.extend(more);
        let reply = self.ask_json(&arguments).await?;
        reply["token"].as_str().map(str::to_owned).ok_or_else(|| Failure::refused(format!("no token came for {name}")))
    }

    fn part(&self, name: &str, arguments: &[&str], data: &Path) -> Result<Command, Failure> {
        let path = self.folder.join(format!("{name}.log"));
        let unwritten = |error| Failure::file(&path, &error);
        let log = File::create(&path).map_err(unwritten)?;
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--data")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(unwritten)?)
            .stderr(log)
            // Ctrl-C in the terminal is for the demo, which ends its parts in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }

    fn start(&mut self, name: &str, mut command: Command) -> Result<(), Failure> {
        let child = command.spawn().map_err(|error| Failure::refused(format!("{name} cannot be started: {error}")))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Waits until a part has written a file that says it is ready, and reads it.
    async fn wait_for_file(&mut self, name: &str, path: &Path) -> Result<String, Failure> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Ok(text) = std::fs::read_to_string(path) {
                return Ok(text);
            }
            let part = self.running.iter_mut().find(|(running, _)| running == name);
            if part.is_some_and(|(_, child)| matches!(child.try_wait(), Ok(Some(_)))) {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let log = std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        Err(Failure::refused(format!("{name} did not start: {}", log.lines().last().unwrap_or("it says nothing"))))
    }

    /// Runs a command and returns what it prints.
    ///
    /// # Errors
    /// When it ends with another code than 0: what it complained about.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.command(arguments).output().await;
        let output = output.map_err(|error| Failure::system("the command cannot be run", &error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::refused(format!("`pointsman {}` failed: {}", arguments.join(" "), said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command, hands each line to `told` as it is printed, and returns the exit code; None: it was still running after
    /// `limit`, and was ended.
    ///
    /// # Errors
    /// It cannot be run, or `told` fails.
    pub(super) async fn follow(
        &self,
        arguments: &[&str],
        limit: Duration,
        mut told: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<Option<i32>, Failure> {
        let unusable = |error| Failure::system("the command cannot be run", &error);
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(unusable)?;
        let mut lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let followed = async {
            while let Some(lines) = &mut lines
                && let Some(line) = lines.next_line().await.map_err(unusable)?
            {
                told(&line)?;
            }
            child.wait().await.map_err(unusable)
        };
        match tokio::time::timeout(limit, followed).await {
            Ok(ended) => Ok(ended?.code()),
            Err(_) => Ok(None),
        }
    }

    /// The command as a user has it.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("POINTSMAN_CONTEXT", self.context()).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command for its JSON.
    pub(super) async fn ask_json(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut with_json = vec!["-o", "json"];
        with_json.extend(arguments);
        let text = self.ask(&with_json).await?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::refused(format!("`pointsman {}` did not print JSON: {error}", with_json.join(" ")))
        })
    }

    /// Ends all parts, the last started first, so that nothing is left behind.
    pub(super) async fn end(&mut self) {
        while let Some((_, mut child)) = self.running.pop() {
            let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM); // It may have ended.
            }
            if tokio::time::timeout(END, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }
}
