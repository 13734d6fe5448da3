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
    /// Secrets that nothing names any more are still on disk, and that was told.
    is_too_much: bool,
}

impl Files {
    pub(super) fn new(journal: Journal, secrets: SecretsFile) -> Self {
        Self { journal, secrets, changes: Vec::new(), forgotten: Vec::new(), is_failing: false, is_too_much: false }
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
        if self.secrets.lacks_some()
            && let Err(error) = self.secrets.save()
        {
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
        if !self.is_failing {
            self.secrets.forget(&std::mem::take(&mut self.forgotten));
        }
        // The state is whole without that, and goes on: it is tried again.
        let shrunk = self.secrets.save();
        let was_told = std::mem::replace(&mut self.is_too_much, shrunk.is_err());
        if let (Err(error), false) = (shrunk, was_told) {
            tracing::warn!(%error, "secrets that nothing names any more are still on disk");
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

#[cfg(test)]
mod tests {
    use api::Fingerprint;
    use api::fleet::ResourceSet;

    use super::*;
    use crate::snapshot::{Delta, Resources, fixture};

    fn change(number: u64, resources: &mut Resources) -> Served {
        let upserts = vec![fixture::zone("staging", &format!("z{number}.example"))];
        let delta = Delta::read(ResourceSet { upserts, removals: Vec::new() }).expect("known kinds");
        resources.apply(&delta);
        Served { version: Version { term: 1, number }, delta, fingerprint: resources.fingerprint() }
    }

    #[test]
    fn a_file_of_secrets_that_only_cannot_be_shrunk_does_not_stop_the_journal() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("secrets.json");
        let secret = |id: &str| Secret { id: id.into(), ..Secret::default() };
        let mut files = Files::new(Journal::new(folder.path().join("state"), None), SecretsFile::load(&path).0);
        let (saved, told) = watch::channel(Saved::default());
        let mut resources = Resources::default();
        let mut write = |files: &mut Files, number| {
            files.changes.push(change(number, &mut resources));
            files.write(&saved);
            let told = told.borrow();
            (told.version.map(|version| version.number), told.problem.is_empty())
        };
        files.add(vec![secret("one")]);
        assert_eq!(write(&mut files, 1), (Some(1), true));
        // In the way of the file that is written first.
        let way = folder.path().join("secrets.json.new");
        std::fs::create_dir(&way).expect("made");
        std::fs::write(way.join("x"), "").expect("written");
        files.forgotten.push("one".into());
        assert_eq!(write(&mut files, 2), (Some(2), true));
        assert_eq!(write(&mut files, 3), (Some(3), true), "tried again in vain");
        assert!(files.secrets.is_behind());
        // One that has to be there is another matter.
        files.add(vec![secret("two")]);
        assert_eq!(write(&mut files, 4), (Some(3), false));
        std::fs::remove_dir_all(&way).expect("removed");
        assert_eq!(write(&mut files, 5), (Some(5), true));
        let kept: Vec<String> = SecretsFile::load(&path).0.secrets().into_iter().map(|secret| secret.id).collect();
        assert_eq!(kept, ["two"]);
    }

    #[test]
    fn secrets_are_there_before_what_names_them_and_go_after_what_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let (state, path) = (folder.path().join("state"), folder.path().join("secrets.json"));
        let secret = |id: &str| Secret { id: id.into(), encapsulated: vec![1], sealed: vec![2] };
        let on_disk = || SecretsFile::load(&path).0.secrets().into_iter().map(|one| one.id).collect::<Vec<_>>();
        let change = |number| {
            let (version, fingerprint) = (Version { term: 1, number }, Fingerprint::default());
            Served { version, delta: Delta::default(), fingerprint }
        };
        let saved = watch::Sender::new(Saved::default());
        let mut files = Files::new(Journal::new(state.clone(), None), SecretsFile::load(&path).0);
        files.add(vec![secret("a"), secret("b")]);
        files.write(&saved);
        assert_eq!(on_disk(), ["a", "b"]);
        // What no longer names one cannot be written: a start would find the state before.
        std::fs::write(&state, "in the way").expect("written");
        files.add(vec![secret("c")]);
        files.changes.push(change(1));
        files.forgotten.extend(["a".into(), "b".into()]);
        files.write(&saved);
        assert_eq!((on_disk(), saved.borrow().version), (vec!["a".into(), "b".into(), "c".into()], None));
        // One of them comes again meanwhile.
        files.add(vec![secret("b")]);
        std::fs::remove_file(&state).expect("removed");
        files.write(&saved);
        assert_eq!((on_disk(), saved.borrow().version), (vec!["b".into(), "c".into()], Some(change(1).version)));
    }
}
