//! The one thread that writes: what is served, and the overrides, in the order in which they came to be.
//!
//! Must not know: what a change means, or who waits for it. It blocks, so that the admin runtime does not.
//!
//! Main types: [`Job`], what is to be written; [`Saved`], how far it is.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use api::Version;
use api::fleet::Secret;
use tokio::sync::{oneshot, watch};

use super::secrets::SecretsFile;
use crate::journal::{Journal, Served};
use crate::overrides::Overrides;

/// How long after a failed write it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    /// A change that serves.
    Change(Served),
    /// Secrets that later changes name.
    Secrets(Vec<Secret>),
    /// Secrets that nothing names since the changes before this.
    Forget(Vec<Arc<str>>),
    /// All overrides as they are now, and who wants to know: the error is a sentence.
    Overrides(Overrides, oneshot::Sender<Result<(), String>>),
}

/// What is safe on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Last version that is safe.
    pub(crate) version: Option<Version>,
    /// Of the state that is safe: the same version may come again, mended.
    pub(crate) fingerprint: [u8; 32],
    /// Why later ones are not; empty: nothing went wrong.
    pub(crate) problem: String,
}

/// Runs until nobody can send any more: everything that waits is written with one fsync of each file.
pub(super) fn run(mut files: Files, overrides_path: &Path, queue: &mpsc::Receiver<Job>, saved: &watch::Sender<Saved>) {
    let mut unwritten: Option<Overrides> = None;
    loop {
        let first = if files.is_failing || files.secrets.is_behind() || unwritten.is_some() {
            match queue.recv_timeout(AGAIN) {
                Ok(job) => Some(job),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match queue.recv() {
                Ok(job) => Some(job),
                Err(mpsc::RecvError) => return,
            }
        };
        let mut waiting = Vec::new();
        for job in first.into_iter().chain(queue.try_iter()) {
            match job {
                Job::Change(change) => files.changes.push(change),
                Job::Secrets(new) => files.add(new),
                Job::Forget(ids) => files.forgotten.extend(ids),
                Job::Overrides(overrides, asked) => {
                    // The last one holds what those before it held.
                    unwritten = Some(overrides);
                    waiting.push(asked);
                }
            }
        }
        unwritten = unwritten.and_then(|overrides| write_overrides(overrides, overrides_path, waiting));
        files.write(saved);
    }
}

/// The journal and the secrets that its state names.
pub(super) struct Files {
    journal: Journal,
    secrets: SecretsFile,
    /// Not in the journal yet.
    changes: Vec<Served>,
    /// To go once the changes are.
    forgotten: Vec<Arc<str>>,
    is_failing: bool,
}

impl Files {
    pub(super) fn new(journal: Journal, secrets: SecretsFile) -> Self {
        Self { journal, secrets, changes: Vec::new(), forgotten: Vec::new(), is_failing: false }
    }

    fn add(&mut self, new: Vec<Secret>) {
        // One that was to go has come again.
        self.forgotten.retain(|id| new.iter().all(|secret| secret.id != **id));
        self.secrets.add(new);
    }

    /// Writes what is to be written.
    ///
    /// INVARIANT: a change is written when the secrets that it names are, and secrets go when the change is written since
    /// which nothing names them: whatever state a start finds, its secrets are there.
    fn write(&mut self, saved: &watch::Sender<Saved>) {
        if let Err(error) = self.secrets.save() {
            if !std::mem::replace(&mut self.is_failing, true) {
                tracing::error!(%error, "secrets cannot be saved: a restart would lack them");
            }
            saved.send_modify(|saved| saved.problem = format!("secrets cannot be saved: {error}"));
            return;
        }
        if self.is_failing || !self.changes.is_empty() {
            let changes = std::mem::take(&mut self.changes);
            self.is_failing = !write_changes(&mut self.journal, &changes, saved, self.is_failing);
        }
        if !self.is_failing && !self.forgotten.is_empty() {
            self.secrets.forget(&std::mem::take(&mut self.forgotten));
            // The state is whole without that: it is tried again, and told by then.
            if let Err(error) = self.secrets.save() {
                tracing::warn!(%error, "secrets that nothing names any more are still on disk");
            }
        }
    }
}

/// Gives back what could not be written.
fn write_overrides(
    overrides: Overrides,
    path: &Path,
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
) -> Option<Overrides> {
    let written = overrides.save(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut told = false;
    for one in waiting {
        told |= one.send(written.clone()).is_ok();
    }
    match written {
        Ok(()) => None,
        Err(problem) => {
            if !told {
                tracing::error!("the overrides in force are not safe on disk: {problem}");
            }
            Some(overrides)
        }
    }
}

/// Whether all changes are safe now.
fn write_changes(journal: &mut Journal, changes: &[Served], saved: &watch::Sender<Saved>, failed: bool) -> bool {
    match journal.save(changes) {
        Ok(()) => {
            if failed {
                tracing::info!("the state is safe on disk again");
            }
            let (version, fingerprint) = (journal.version(), journal.fingerprint().to_bytes());
            saved.send_replace(Saved { version, fingerprint, problem: String::new() });
            true
        }
        Err(error) => {
            if !failed {
                tracing::error!(%error, "the state cannot be saved: a restart would serve an older one");
            }
            saved.send_modify(|saved| saved.problem = error.to_string());
            false
        }
    }
}
