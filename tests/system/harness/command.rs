//! The command as a person or script runs it, and what came back.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::PATIENCE;

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_pointsman");

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the command to its end; `context` is the operator file that it uses.
pub(crate) async fn run(
    context: Option<&Path>,
    folder: &Path,
    variables: &[(String, String)],
    arguments: &[&str],
) -> Said {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    // Nothing of the machine's own settings.
    command.env_remove("POINTSMAN_CONTEXT").env("POINTSMAN_CONFIG", folder.join("no-contexts.toml"));
    command.env("NO_COLOR", "1").env("USER", "anna");
    command.envs(variables.iter().cloned());
    if let Some(context) = context {
        command.env("POINTSMAN_CONTEXT", context);
    }
    let line = format!("pointsman {}", arguments.join(" "));
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("`{line}` does not end")).expect("the binary under test starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { line, code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Said {
    /// Asserts its exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        let Self { line, out, err, .. } = &self;
        assert_eq!(self.code, Some(code), "`{line}` ended otherwise\nstdout: {out}\nstderr: {err}");
        self
    }

    /// Asserts that its complaint contains all of these.
    #[track_caller]
    pub(crate) fn complains(self, expected: &[&str]) -> Self {
        for expected in expected {
            assert!(self.err.contains(expected), "`{}` does not say {expected:?}: {}", self.line, self.err);
        }
        self
    }

    /// Asserts that it says one sentence on stderr and nothing else.
    #[track_caller]
    pub(crate) fn complains_once(self, expected: &[&str]) -> Self {
        assert_eq!((self.err.lines().count(), self.out.as_str()), (1, ""), "`{}`: {}", self.line, self.err);
        self.complains(expected)
    }

    /// Its result, for programs.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let Self { line, out, .. } = self;
        serde_json::from_str(out).unwrap_or_else(|error| panic!("`{line}` did not print JSON ({error}): {out}"))
    }
}
