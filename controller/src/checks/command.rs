//! A check by a program on the controller's machine: exit status 0 is well.
//!
//! Must not know: what a check is for.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::http::HeaderValue;
use api::MemberName;
use policies::credential::api_key;
use tokio::io::AsyncReadExt;
use tracing::warn;

use super::ask::Outcome;
use super::wanted::Wanted;
use super::{http, line};
use crate::build::process::{End, Ended, Output, Program};
use crate::build::workspace::{self, MARK, Workspace};
use crate::build::{BuildFolders, Cancel};
use crate::core::spec::fill;

/// Between SIGTERM and SIGKILL: time to remove a lock file, not to finish.
const GRACE: Duration = Duration::from_secs(1);
/// Of the output the end is kept: its last line counts.
const OUTPUT_BYTES: usize = 16 * 1024;

/// Of a file with a key so much is read: a key, and lines around it.
const KEY_BYTES: u64 = 4 * 1024;

/// Where commands do their work.
#[derive(Debug, Clone)]
pub(crate) struct CheckFolders {
    /// Where programs with a slash in their name are looked for; people put them there.
    programs: PathBuf,
    /// Where the keys of applications are that http checks are: a folder for each service; people put them there.
    keys: PathBuf,
    /// A folder for each command while it runs; nothing else may be in it.
    work: PathBuf,
    /// Where the other programs are looked for.
    path: String,
}

impl CheckFolders {
    /// The usual ones within the controller's data folder; programs are looked for as builds look for theirs.
    pub(crate) fn within(data: &Path, builds: &BuildFolders) -> Self {
        let [programs, keys, work] = ["programs", "keys", "work"].map(|name| data.join("checks").join(name));
        Self { programs, keys, work, path: builds.path() }
    }

    /// Ends and removes what a controller left behind that died, and makes the folders for programs and keys.
    pub(super) async fn clear(&self) {
        let Self { programs, keys, work, .. } = self.clone();
        let cleared = tokio::task::spawn_blocking(move || {
            workspace::end_left_in(&work);
            std::fs::create_dir_all(&programs)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&keys)
        });
        let cleared = cleared.await.unwrap_or_else(|problem| Err(std::io::Error::other(problem)));
        if let Err(problem) = cleared {
            warn!(folder = %self.programs.display(), %problem, "the folders for programs and keys of checks were not made");
        }
    }

    /// The key of the application that a check is. It lies in a folder of the stage's: whoever put it there has said that
    /// files of this service and this environment may use it, and it goes to the stage's own hosts alone, behind TLS.
    ///
    /// # Errors
    /// One line: it is not there, is no key, or would go elsewhere.
    pub(super) async fn key_of(&self, one: &Wanted, url: &str, app: &MemberName) -> Result<HeaderValue, String> {
        let of = |why: String| line::one(&format!("the key of the application {app} is not sent: {why}"));
        if !url.starts_with("https://") || !one.is_own(&http::host_of(url)) {
            return Err(of("it is for the stage's own hosts by https".to_owned()));
        }
        let api::StageName { service, environment } = &one.stage;
        let path = [service.as_str(), environment.as_str(), app.as_str()]
            .iter()
            .fold(self.keys.clone(), |path, part| path.join(part));
        let said = |problem: std::io::Error| of(format!("{}: {problem}", path.display()));
        let mut text = String::new();
        let file = tokio::fs::File::open(&path).await.map_err(said)?;
        file.take(KEY_BYTES).read_to_string(&mut text).await.map_err(said)?;
        if text.trim().len() != api_key::LENGTH {
            return Err(of(format!("{} holds none", path.display())));
        }
        let mut key = HeaderValue::from_str(text.trim()).map_err(|_| of(format!("{} holds none", path.display())))?;
        key.set_sensitive(true);
        Ok(key)
    }
}

/// Runs it once; none: cancelled, and all of it has ended.
pub(super) async fn ask(
    folders: &CheckFolders,
    one: &Wanted,
    command: &[String],
    cancel: &mut Cancel,
) -> Option<Outcome> {
    // No name has two dashes in a row: no two checks share a folder.
    let name = format!("{}--{}--{}", one.stage.service, one.stage.environment, one.check.name);
    let workspace = match Workspace::within(folders.work.clone(), &name).await {
        Ok(workspace) => workspace,
        // A disk that is full, or no descriptor: it says nothing of the release.
        Err(problem) => return Some(Outcome::Silent(line::one(&problem.sentence))),
    };
    let mut end = End { output: Vec::new(), most: OUTPUT_BYTES };
    let program = program(folders, one, command, &workspace);
    let named = program.words.first().cloned().unwrap_or_default();
    let ended = program.run(cancel, Output::End(&mut end)).await;
    workspace.end_strays().await;
    workspace.remove().await;
    let timeout = one.check.timeout;
    let said = line::last(&end.output);
    let or = |otherwise: String| if said.is_empty() { otherwise } else { said.clone() };
    let problem = match ended {
        Ok(Ended::Cancelled) => return None,
        Ok(Ended::Exit(0)) => return Some(Outcome::Well),
        Ok(Ended::Exit(status)) => or(format!("exit status {status}")),
        Ok(Ended::Signal(signal)) => or(format!("ended by signal {signal}")),
        Ok(ended @ Ended::TooLarge(_)) => ended.to_string(),
        Ok(Ended::TimedOut) => format!("it took longer than {timeout} and was ended"),
        // Nothing has looked at the release.
        Err(problem) => return Some(Outcome::Silent(line::one(&format!("{named} could not be run: {problem}")))),
    };
    Some(Outcome::Failed(problem))
}

fn program(folders: &CheckFolders, one: &Wanted, command: &[String], workspace: &Workspace) -> Program {
    let mut words: Vec<String> = command.iter().map(|word| fill(word, &one.host, one.release)).collect();
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = folders.programs.join(&*program).display().to_string();
    }
    let home = workspace.home();
    let environment: BTreeMap<String, String> = [
        ("PATH", folders.path.clone()),
        ("LANG", "C.UTF-8".to_owned()),
        ("HOME", home.display().to_string()),
        ("POINTSMAN_STAGE", one.stage.to_string()),
        ("POINTSMAN_RELEASE", one.release.to_string()),
        ("POINTSMAN_HOST", one.host.to_string()),
        (MARK, workspace.folder().display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let timeout = Duration::from_millis(one.check.timeout.ms());
    let record = Some(workspace.record());
    Program { words, folder: home, environment, timeout, grace: GRACE, record }
}
