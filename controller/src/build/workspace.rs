//! The folder of one build or check, and what they leave behind: processes that outlived them, folders of a controller that died.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use api::ReleaseName;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::process::start_time;
use super::{BuildFolders, BuildProblem};

/// The variable in every process of a build by which it is found again when it has left its process group.
pub(crate) const MARK: &str = "POINTSMAN_WORKSPACE";

/// Rounds of looking for processes to end: one that forks while it is looked for is found in the next.
const ROUNDS: usize = 10;

/// A fresh folder with `checkout` and `home`.
pub(crate) struct Workspace {
    folder: PathBuf,
}

impl Workspace {
    /// Makes it; what an earlier build of the same release left is ended and removed first.
    pub(crate) async fn make(folders: &BuildFolders, release: &ReleaseName) -> Result<Self, BuildProblem> {
        Self::within(folders.work.clone(), &name_of(release)).await
    }

    /// The one that an earlier build of the release left, with what it was doing ended; none: there is none.
    pub(crate) async fn left(folders: &BuildFolders, release: &ReleaseName) -> Option<Self> {
        let workspace = Self { folder: folders.work.join(name_of(release)) };
        let folder = workspace.folder.clone();
        let ended = tokio::task::spawn_blocking(move || {
            end_recorded(&folder);
            end_marked(&folder);
            folder.is_dir()
        });
        ended.await.unwrap_or(false).then_some(workspace)
    }

    /// Makes one of this name in `work`; what an earlier one left is ended and removed first.
    pub(crate) async fn within(work: PathBuf, name: &str) -> Result<Self, BuildProblem> {
        let workspace = Self { folder: work.join(name) };
        let folder = workspace.folder.clone();
        let made = tokio::task::spawn_blocking(move || {
            end_recorded(&folder);
            end_marked(&folder);
            remove_now(&folder)?;
            std::fs::create_dir_all(&work)?;
            for folder in [&folder, &folder.join("checkout"), &folder.join("home")] {
                DirBuilder::new().mode(0o700).create(folder)?;
            }
            Ok(())
        });
        let made = made.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        made.map_err(|error| BuildProblem::io("making the folder", &workspace.folder, &error))?;
        Ok(workspace)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn checkout(&self) -> PathBuf {
        self.folder.join("checkout")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// Where the command finds its secrets.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    /// Where the build finds its right to push.
    pub(crate) fn login(&self) -> PathBuf {
        self.folder.join("registry")
    }

    /// Removes what is secret: no longer there than the commands that need it.
    pub(crate) async fn forget_secrets(&self) {
        for folder in [self.secrets(), self.login()] {
            if let Err(error) = remove_folder(folder.clone()).await {
                tracing::warn!(folder = %folder.display(), %error, "a folder with secrets was not removed");
            }
        }
    }

    /// Makes a folder for its owner alone, empty.
    pub(crate) async fn private(&self, folder: &Path) -> Result<(), BuildProblem> {
        let problem = |error| BuildProblem::io("making the folder", folder, &error);
        remove_folder(folder.to_owned()).await.map_err(problem)?;
        DirBuilder::new().mode(0o700).create(folder).map_err(problem)
    }

    /// Where the number of the running command is written.
    pub(crate) fn record(&self) -> PathBuf {
        record_of(&self.folder)
    }

    /// Ends processes that left the command's group.
    pub(crate) async fn end_strays(&self) {
        let folder = self.folder.clone();
        // A panic within is none of this build's business.
        let _ = tokio::task::spawn_blocking(move || end_marked(&folder)).await;
    }

    /// Removes it. What cannot be removed stays, with a warning.
    pub(crate) async fn remove(self) {
        let folder = self.folder;
        if let Err(error) = remove_folder(folder.clone()).await {
            tracing::warn!(folder = %folder.display(), %error, "a folder of work was not removed");
        }
    }
}

/// Ends processes of builds that were under way when a controller died. To be called at the start.
///
/// Only what is surely ours is touched: a process group whose leader has the recorded number and start time, and
/// processes that carry the mark of a folder within `folders.work` or of the mirrors. Folders stay: what a build has done is
/// not done again; see `clear_leftovers`.
pub fn end_leftovers(folders: &BuildFolders) {
    end_marked(&folders.mirrors);
    for folder in folders_in(&folders.work) {
        tracing::info!(folder = %folder.display(), "ending what a controller left behind");
        end_recorded(&folder);
        end_marked(&folder);
    }
}

/// Removes folders of builds that nobody goes on with.
pub(crate) async fn clear_leftovers(folders: &BuildFolders, goes_on: &BTreeSet<ReleaseName>) {
    let names: BTreeSet<_> = goes_on.iter().map(name_of).collect();
    for folder in folders_in(&folders.work) {
        if folder.file_name().and_then(|name| name.to_str()).is_none_or(|name| !names.contains(name)) {
            Workspace { folder }.remove().await;
        }
    }
}

fn name_of(release: &ReleaseName) -> String {
    format!("{}-{}", release.service, release.number)
}

fn folders_in(work: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(work).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

/// Ends processes and removes folders of all that a controller left behind in `work`.
pub(crate) fn end_left_in(work: &Path) {
    for folder in folders_in(work) {
        tracing::info!(folder = %folder.display(), "ending what a controller left behind");
        end_recorded(&folder);
        end_marked(&folder);
        if let Err(error) = remove_now(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "a folder of work was not removed");
        }
    }
}

/// Writes down which process leads a group.
pub(crate) fn record(path: &Path, leader: Pid) -> io::Result<()> {
    let start = start_time(leader).unwrap_or_default();
    std::fs::write(path, format!("{leader} {start} {}\n", boot().unwrap_or_default()))
}

/// Removes a folder with all that is in it, off this thread; one that is not there is removed.
pub(crate) async fn remove_folder(folder: PathBuf) -> io::Result<()> {
    tokio::task::spawn_blocking(move || remove_now(&folder)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn remove_now(folder: &Path) -> io::Result<()> {
    let missing_is_done = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    if missing_is_done(std::fs::remove_dir_all(folder)).is_ok() {
        return Ok(());
    }
    // Some tools make their folders read-only (Go's module cache).
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&folder)?.filter_map(Result::ok) {
            // The entry's own type: links are not followed.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    missing_is_done(std::fs::remove_dir_all(folder))
}

fn record_of(folder: &Path) -> PathBuf {
    folder.join("process")
}

/// Kills the recorded group, if its leader is still the process that was recorded.
fn end_recorded(folder: &Path) {
    let Ok(text) = std::fs::read_to_string(record_of(folder)) else { return };
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok()).and_then(Pid::from_raw);
    let start: Option<u64> = words.next().and_then(|word| word.parse().ok());
    if let (Some(pid), Some(boot_then)) = (pid, words.next())
        && start_time(pid) == start
        && boot().is_some_and(|boot| boot == boot_then)
    {
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

/// Kills every process that carries the mark of `folder`.
fn end_marked(folder: &Path) {
    let mark = format!("{MARK}={}", folder.display()).into_bytes();
    for _ in 0..ROUNDS {
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        let pids =
            processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
        if pids.filter(|pid| end_if_marked(*pid, &mark)).count() == 0 {
            return;
        }
    }
}

/// Opened before it is looked at, so that the signal goes to the process that was looked at.
fn end_if_marked(pid: Pid, mark: &[u8]) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let marked = environment.split(|byte| *byte == 0).any(|variable| variable == mark);
    marked && pidfd_send_signal(&process, Signal::KILL).is_ok()
}

/// Which start of the machine this is: start times mean nothing in another.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}
