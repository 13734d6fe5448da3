//! A controller and proxies as real processes of the `pointsman` binary, on free ports, in a folder of their own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::operator::Operator;
use crate::{Problem, process};

/// Longest wait for a part to be ready.
const READY: Duration = Duration::from_secs(30);

/// The processes; they end with this.
#[derive(Debug)]
pub struct Fleet {
    binary: PathBuf,
    folder: PathBuf,
    running: Vec<(String, Child)>,
    /// The core on which parts run that are started from now on; without one wherever the system likes.
    pub core: Option<usize>,
    /// Whether proxies that are started from now on serve HTTPS, too.
    pub tls: bool,
    /// Where each proxy serves plain HTTP, in the order of their start.
    pub proxies: Vec<SocketAddr>,
    /// Where each proxy that does serves HTTPS.
    pub tls_proxies: Vec<SocketAddr>,
}

/// Resident memory of a process, in KiB, as the kernel counts it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// `VmRSS`: now.
    pub rss_kib: u64,
    /// `VmHWM`: the most it ever was.
    pub peak_kib: u64,
}

/// What a proxy writes about itself.
#[derive(Deserialize)]
struct Listening {
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
}

impl Fleet {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// There is no such binary.
    pub fn new(binary: &Path, folder: &Path) -> Result<Self, Problem> {
        let binary = binary.canonicalize().map_err(|error| {
            format!(
                "{}: {error}; build it with `cargo build --release -p pointsman` or name another with --binary",
                binary.display()
            )
        })?;
        Ok(Self {
            binary,
            folder: folder.to_owned(),
            running: Vec::new(),
            core: None,
            tls: false,
            proxies: Vec::new(),
            tls_proxies: Vec::new(),
        })
    }

    /// Starts the controller and returns its API.
    ///
    /// # Errors
    /// It did not start; with its last words.
    pub fn controller(&mut self) -> Result<Operator, Problem> {
        let data = self.folder.join("controller");
        self.start("controller", &["controller", "--listen", "127.0.0.1:0", "--data"], &data, None)?;
        self.wait_for_file("controller", &self.operator_file())?;
        Operator::from_file(&self.operator_file())
    }

    /// The file with which the command reaches the controller.
    pub fn operator_file(&self) -> PathBuf {
        self.folder.join("controller/operator.toml")
    }

    /// Has a proxy join and starts it.
    ///
    /// # Errors
    /// It could not join or start; with its last words.
    pub async fn proxy(&mut self, operator: &Operator, name: &str, workers: u16) -> Result<(), Problem> {
        let token = operator.join_proxy(name).await?;
        let (data, workers) = (self.folder.join(name), workers.to_string());
        let mut arguments = vec!["proxy", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--drain", "1s"];
        if self.tls {
            arguments.extend(["--https", "127.0.0.1:0"]);
        }
        arguments.extend(["--workers", &workers, "--data"]);
        self.start(name, &arguments, &data, Some(&token))?;
        let listening: Listening = serde_json::from_str(&self.wait_for_file(name, &data.join("listening.json"))?)?;
        self.proxies.push(listening.http.ok_or_else(|| format!("{name} does not say where it serves HTTP"))?);
        self.tls_proxies.extend(listening.https);
        Ok(())
    }

    /// Runs the command against the controller; what it printed, and how long it took.
    ///
    /// # Errors
    /// It ended with another code than 0.
    pub fn ask(&self, arguments: &[&str]) -> Result<(Vec<u8>, Duration), Problem> {
        let begun = Instant::now();
        let mut command = Command::new(&self.binary);
        let output =
            command.args(arguments).arg("--context").arg(self.operator_file()).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
        }
        Ok((output.stdout, begun.elapsed()))
    }

    /// Memory of a part.
    ///
    /// # Errors
    /// It does not run.
    pub fn memory(&self, name: &str) -> Result<Memory, Problem> {
        let part = self.running.iter().find(|(running, _)| running == name);
        let (_, child) = part.ok_or_else(|| format!("there is no {name}"))?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        };
        let missing = || format!("the kernel does not tell the memory of {name}");
        Ok(Memory { rss_kib: kib("VmRSS").ok_or_else(missing)?, peak_kib: kib("VmHWM").ok_or_else(missing)? })
    }

    /// The process id of a part, for a profiler.
    pub fn pids(&self) -> impl Iterator<Item = (&str, u32)> {
        self.running.iter().map(|(name, child)| (name.as_str(), child.id()))
    }

    fn start(&mut self, name: &str, arguments: &[&str], data: &Path, token: Option<&str>) -> Result<(), Problem> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let mut command = match self.core {
            Some(core) => process::pinned(&self.binary, core),
            None => Command::new(&self.binary),
        };
        command.args(arguments).arg(data).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(token) = token {
            command.env("POINTSMAN_JOIN", token);
        }
        self.running.push((name.to_owned(), command.spawn()?));
        Ok(())
    }

    fn wait_for_file(&mut self, name: &str, path: &Path) -> Result<String, Problem> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Ok(text) = std::fs::read_to_string(path) {
                return Ok(text);
            }
            let ended = self.running.iter_mut().find(|(running, _)| running == name);
            if ended.is_some_and(|(_, child)| matches!(child.try_wait(), Ok(Some(_)))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = std::fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
        Err(format!("{name} did not start: {}", log.lines().last().unwrap_or("it says nothing")).into())
    }
}

impl Drop for Fleet {
    /// Ends the parts, the last started first.
    fn drop(&mut self) {
        while let Some((_, mut child)) = self.running.pop() {
            process::end(&mut child);
        }
    }
}
