//! Programs in Python that stand for real clients and servers: started with what `scripts/setup` has installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::PATIENCE;

/// A program of `tests/clients`.
fn program(script: &str, arguments: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/clients/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup", python.display());
    let mut command = Command::new(python);
    let script: PathBuf = root.join("tests/clients").join(script);
    command.arg(script).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs one to its end: what it printed, when it ended well.
#[track_caller]
pub(crate) fn script(name: &str, arguments: &[&str]) -> impl Future<Output = String> {
    let (mut command, shown) = (program(name, arguments), format!("{name} {}", arguments.join(" ")));
    async move {
        let done = timeout(PATIENCE, command.output()).await.unwrap_or_else(|_| panic!("{shown}: did not end"));
        let done = done.expect("python starts");
        let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{shown}: {:?}\n{said}\n{errors}", done.status);
        said.into_owned()
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    _child: Child,
}

impl Server {
    /// Starts one on a free port and waits until it serves.
    pub(crate) async fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = program(name, &[&["--port", "0"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time").expect("text");
        let line = line.unwrap_or_else(|| panic!("{name} ended"));
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{name}: {line}")).to_owned();
        // What else it says is nobody's concern, but it must be able to say it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, _child: child }
    }
}
