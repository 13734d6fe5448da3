//! The bare mirror of a service's repository: fetched, looked into, checked out of.
//!
//! Must not know: releases, or why a commit is wanted. [`git`] is every call of git, [`remote`] asks a repository without
//! a mirror, [`history`] says how commits follow from each other. Texts from outside stand behind `--end-of-options` or within
//! full reference names.

mod git;
mod history;
mod remote;

use std::path::Path;

use api::{MemberName, ServiceName};
use tokio::sync::OwnedMutexGuard;

use crate::core::spec::Source;
use crate::files::{self, check_reference, check_repository};

use super::log::Log;
use super::process::{Ended, Kept, cancelled};
use super::{BuildFolders, BuildProblem, Cancel, Commit, Revision, told};

pub(crate) use git::{GitSettings, reason};
pub(crate) use history::{Between, plain};
pub(crate) use remote::{Remote, look};

use git::Git;

/// Finds a commit, after fetching what is new.
///
/// # Errors
/// One sentence: the repository cannot be reached, the branch, tag or commit does not exist, or its name is none.
pub async fn resolve(
    folders: &BuildFolders,
    service: &ServiceName,
    source: &Source,
    revision: &Revision,
) -> Result<Commit, BuildProblem> {
    check(revision)?;
    let (_canceller, cancel) = tokio::sync::watch::channel(false);
    let mut mirror = Mirror::open(folders, service, source, cancel).await?;
    Box::pin(mirror.fetch()).await?;
    let (spelling, what) = match revision {
        Revision::Commit(id) => (id.clone(), format!("the commit {id}")),
        Revision::Tag(tag) => (format!("refs/tags/{tag}"), format!("the tag {tag}")),
        Revision::Branch(branch) => (format!("refs/heads/{branch}"), format!("the branch {branch}")),
    };
    if let Revision::Commit(id) = revision
        && is_full(id)
    {
        mirror.need(id).await?;
    }
    let id = mirror.commit_id(&spelling).await?;
    let id = id.ok_or_else(|| BuildProblem::new(format!("{what} does not exist in {}", source.repository)))?;
    if matches!(revision, Revision::Commit(prefix) if !id.starts_with(prefix.as_str())) {
        return Err(BuildProblem::new(format!("{what} could also be a branch or tag: its full hash is needed")));
    }
    let (author, subject) = mirror.describe(&id).await?;
    let tag = match revision {
        Revision::Tag(tag) => Some(tag.clone()),
        _ => mirror.tag_at(&id).await?,
    };
    Ok(Commit { id, subject, author, tag })
}

/// What lies between two commits of a service, given by their full hashes, after fetching what is new.
///
/// # Errors
/// As [`resolve`].
pub(crate) async fn commits_between(
    folders: &BuildFolders,
    service: &ServiceName,
    source: &Source,
    from: &str,
    to: &str,
) -> Result<Between, BuildProblem> {
    let (_canceller, cancel) = tokio::sync::watch::channel(false);
    let mut mirror = Mirror::open(folders, service, source, cancel).await?;
    mirror.need(to).await?;
    // One that is gone counts as rewritten history.
    let _ = mirror.need(from).await;
    mirror.between(from, to).await
}

/// Refuses what could be anything else than a name or hash.
fn check(revision: &Revision) -> Result<(), BuildProblem> {
    match revision {
        Revision::Commit(id) => {
            let good = (7..=64).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            let shown: String = id.chars().take(64).collect();
            let wrong = || {
                let form = "7 to 64 lower-case hex digits, such as \"1a2b3c4\"";
                BuildProblem::new(format!("{shown:?} is not the hash of a commit: accepted are {form}"))
            };
            good.then_some(()).ok_or_else(wrong)
        }
        Revision::Tag(name) | Revision::Branch(name) => check_reference(name).map_err(BuildProblem::new),
    }
}

/// A tag names another commit than when it was first seen.
pub(crate) fn moved_tag(tag: &str, first: &str, now: &str) -> String {
    let short = |id: &str| id.get(..7).unwrap_or(id).to_owned();
    format!(
        "tag {tag} was at {} when it was first seen and is at {} now: a tag must not move; make a new one",
        short(first),
        short(now)
    )
}

/// Whether a hash is given whole (SHA-1 or SHA-256).
fn is_full(id: &str) -> bool {
    id.len() == 40 || id.len() == 64
}

/// A service's mirror, held for this caller.
pub(crate) struct Mirror<'m> {
    source: &'m Source,
    git: Git<'m>,
    log: Option<&'m mut Log>,
    _held: OwnedMutexGuard<()>,
}

impl<'m> Mirror<'m> {
    /// Opens or makes it, waiting for another caller who has it.
    pub(crate) async fn open(
        folders: &'m BuildFolders,
        service: &ServiceName,
        source: &'m Source,
        cancel: Cancel,
    ) -> Result<Self, BuildProblem> {
        Self::named(folders, service.to_string(), source, cancel).await
    }

    /// As [`Mirror::open`], of a repository whose services are not known yet.
    pub(crate) async fn of_repository(
        folders: &'m BuildFolders,
        name: &MemberName,
        source: &'m Source,
        cancel: Cancel,
    ) -> Result<Self, BuildProblem> {
        // No service has such a name.
        Self::named(folders, format!("_{name}"), source, cancel).await
    }

    async fn named(
        folders: &'m BuildFolders,
        name: String,
        source: &'m Source,
        cancel: Cancel,
    ) -> Result<Self, BuildProblem> {
        check_repository(&source.repository).map_err(BuildProblem::new)?;
        let mut cancel = cancel;
        let held = tokio::select! {
            held = folders.mirror_lock(&name).lock_owned() => held,
            () = cancelled(&mut cancel) => return Err(BuildProblem::new("the build was cancelled")),
        };
        let folder = folders.mirrors.join(format!("{name}.git"));
        std::fs::create_dir_all(&folder).map_err(|error| BuildProblem::io("making the folder", &folder, &error))?;
        remove_leftovers(&folder);
        let git = Git { folders, folder, repository: &source.repository, cancel };
        let mut mirror = Self { source, git, log: None, _held: held };
        if !mirror.folder().join("HEAD").exists() {
            mirror.git(&["init", "--quiet", "--bare", "--template=", "."]).await?;
        }
        Ok(mirror)
    }

    /// From here on what is fetched and checked out is told there.
    pub(crate) fn log_to(&mut self, log: &'m mut Log) {
        self.log = Some(log);
    }

    /// Makes branches and tags what they are in the repository; moved and removed ones too.
    pub(crate) async fn fetch(&mut self) -> Result<(), BuildProblem> {
        let repository = self.source.repository.clone();
        let refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let verb = ["fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-write-fetch-head", "--end-of-options"];
        self.git(&[&verb[..], &[&repository], &refs].concat()).await?;
        self.tidy().await
    }

    /// Puts packs together when there are many: looking into hundreds of them is slow. Nothing is removed that a commit needs.
    async fn tidy(&mut self) -> Result<(), BuildProblem> {
        let entries =
            std::fs::read_dir(self.folder().join("objects/pack")).into_iter().flatten().filter_map(Result::ok);
        let packs = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "pack")).count();
        if packs > self.git.folders.git.packs {
            self.git(&["repack", "--quiet", "--geometric=2", "-d", "--no-write-bitmap-index"]).await?;
        }
        Ok(())
    }

    /// Makes sure that a commit, given by its full hash, is there.
    pub(crate) async fn need(&mut self, id: &str) -> Result<(), BuildProblem> {
        if !is_full(id) {
            return Err(BuildProblem::new(format!("{id:?} is not the full hash of a commit")));
        }
        if self.commit_id(id).await?.is_some() {
            return Ok(());
        }
        self.fetch().await?;
        if self.commit_id(id).await?.is_some() {
            return Ok(());
        }
        // On no branch any more; some servers give it by its hash.
        let repository = self.source.repository.clone();
        let verb = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options", &repository, id];
        let fetched = self.git(&verb).await;
        if fetched.is_ok() && self.commit_id(id).await?.is_some() {
            return Ok(());
        }
        Err(BuildProblem::new(format!("the commit {id} does not exist in {repository}")))
    }

    /// Makes sure that a tag names the commit that it named when it was first seen.
    pub(crate) async fn need_tag(&mut self, tag: &str, commit: &str) -> Result<(), BuildProblem> {
        self.fetch().await?;
        let sentence = match self.commit_id(&format!("refs/tags/{tag}")).await? {
            Some(now) if now == commit => return Ok(()),
            Some(now) => moved_tag(tag, commit, &now),
            None => format!("the tag {tag} does not exist in {} any more", self.source.repository),
        };
        Err(BuildProblem::new(sentence))
    }

    /// Makes sure that the newest commit of the source's branch is there, alone: what came before it is not fetched.
    pub(crate) async fn need_newest(&mut self, id: &str) -> Result<(), BuildProblem> {
        if self.commit_id(id).await?.is_some() {
            return Ok(());
        }
        let (repository, branch) = (self.source.repository.clone(), &self.source.branch);
        let branch = format!("+refs/heads/{branch}:refs/heads/{branch}");
        let verb = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--end-of-options"];
        self.git(&[&verb[..], &[&repository, &branch]].concat()).await?;
        self.tidy().await?;
        match self.commit_id(id).await? {
            Some(_) => Ok(()),
            None => Err(BuildProblem::new(format!("{repository} has moved on from {id}: it is looked at again"))),
        }
    }

    /// The content of a file on top of a commit; a link or folder of that name is refused.
    pub(crate) async fn file(&mut self, id: &str, name: &str) -> Result<Option<Vec<u8>>, BuildProblem> {
        let listed = self.git(&["ls-tree", "-l", "-z", id, "--", name]).await?;
        let listed = String::from_utf8_lossy(&listed);
        let mut words = listed.split_whitespace();
        let Some(mode) = words.next() else { return Ok(None) };
        let size: Option<usize> = words.nth(2).and_then(|word| word.parse().ok());
        if !["100644", "100755"].contains(&mode) {
            return Err(BuildProblem::new(format!("{name} of commit {id} is not a plain file")));
        }
        if size.is_none_or(|size| size > files::FILE_BYTES) {
            let sentence = format!("{name} of commit {id} has more than {} bytes", files::FILE_BYTES);
            return Err(BuildProblem::new(sentence));
        }
        self.git(&["cat-file", "blob", &format!("{id}:{name}")]).await.map(Some)
    }

    /// Puts exactly this commit into an empty folder, as a small repository of its own.
    pub(crate) async fn check_out(&mut self, id: &str, folder: &Path) -> Result<(), BuildProblem> {
        let mirror = format!("file://{}", self.folder().display());
        let folder = folder.display().to_string();
        self.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]).await?;
        self.git(&["init", "--quiet", "--template=", "--end-of-options", &folder]).await?;
        self.git(&["-C", &folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", &mirror, id])
            .await?;
        self.git(&["-C", &folder, "checkout", "--quiet", "--force", "--detach", id, "--"]).await.map(drop)
    }

    /// Runs git; its failure is a problem that names what it was to do.
    pub(super) async fn git(&mut self, words: &[&str]) -> Result<Vec<u8>, BuildProblem> {
        let verb: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let shown = told(&[&["git".to_owned()], &verb[..]].concat());
        if let Some(log) = self.log.as_deref_mut().filter(|_| tells(words)) {
            log.line(&format!("$ {shown}"));
        }
        let (ended, kept) = self.run(words).await?;
        if let Some(log) = self.log.as_deref_mut() {
            log.output(&kept.errors);
        }
        if ended == Ended::Exit(0) && !kept.over {
            return Ok(kept.output);
        }
        let ended_text = ended.to_string();
        if let Some(log) = self.log.as_deref_mut() {
            log.line(&ended_text);
        }
        let exit = if let Ended::Exit(status) = ended { Some(status) } else { None };
        let why = reason(&kept.errors).unwrap_or(ended_text);
        let sentence = match words.contains(&"fetch") && words.contains(&self.source.repository.as_str()) {
            true => format!("fetching from {} failed: {why}", self.source.repository),
            false => format!("{shown} failed: {why}"),
        };
        Err(BuildProblem { sentence, exit })
    }

    /// Runs git; `None` when it says no.
    pub(super) async fn quiet(&mut self, words: &[&str]) -> Result<Option<Vec<u8>>, BuildProblem> {
        let (ended, kept) = self.run(words).await?;
        Ok((ended == Ended::Exit(0)).then_some(kept.output))
    }

    async fn run(&mut self, words: &[&str]) -> Result<(Ended, Kept), BuildProblem> {
        self.run_with(words, &[]).await
    }

    /// Runs git with more in its environment.
    pub(super) async fn run_with(
        &mut self,
        words: &[&str],
        more: &[(&str, &str)],
    ) -> Result<(Ended, Kept), BuildProblem> {
        Box::pin(self.git.run(words, more)).await
    }

    /// Has another repository look for objects here, too.
    pub(super) fn lend_objects(&self, checkout: &Path) -> Result<(), BuildProblem> {
        let folder = checkout.join(".git/objects/info");
        let lend = || {
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join("alternates"), format!("{}\n", self.folder().join("objects").display()))
        };
        lend().map_err(|error| BuildProblem::io("writing into", &folder, &error))
    }

    fn folder(&self) -> &Path {
        &self.git.folder
    }
}

/// Whether a call is worth a line in a build's log.
fn tells(words: &[&str]) -> bool {
    words.contains(&"fetch") || words.contains(&"checkout")
}

/// Removes what a git left that was killed: its locks, and packs that did not come whole. The mirror is held by this process
/// alone, so nobody can be using them.
fn remove_leftovers(mirror: &Path) {
    let mut folders = vec![mirror.to_owned()];
    while let Some(folder) = folders.pop() {
        let within_objects = folder.starts_with(mirror.join("objects"));
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_unfinished = within_objects && name.as_encoded_bytes().starts_with(b"tmp_");
            if is_folder && (!within_objects || name == "pack") {
                folders.push(path);
            } else if is_unfinished || path.extension().is_some_and(|extension| extension == "lock") {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
