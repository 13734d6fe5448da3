//! The bare mirror of a service's repository, and every call of git.
//!
//! Git is told where it may look: no system configuration, no hooks, no prompts, no protocols but those that the grammar of
//! repositories accepts. Texts from outside stand behind `--end-of-options` or within full reference names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::ServiceName;
use tokio::sync::OwnedMutexGuard;

use crate::core::spec::Source;
use crate::files::{self, check_reference, check_repository};

use super::log::Log;
use super::process::{Ended, Kept, Output, Program, cancelled};
use super::{BuildFolders, BuildProblem, Cancel, Commit, GRACE, Revision, told, workspace};

/// Longest time for one git: the first fetch of a large repository over a slow line.
const GIT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Longest subject and author that are kept.
const TEXT_LENGTH: usize = 200;

/// Of the controller's environment, what git needs to reach other machines and find its credentials.
const PASSED: [&str; 10] = [
    "HOME",
    "SSH_AUTH_SOCK",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "no_proxy",
    "NO_PROXY",
    "GIT_SSL_CAINFO",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
];

/// Settings of every git, before its verb.
const SETTINGS: [&str; 13] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "fetch.recurseSubmodules=false",
    "advice.detachedHead=false",
    "log.showSignature=false",
];

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

/// Whether a hash is given whole (SHA-1 or SHA-256).
fn is_full(id: &str) -> bool {
    id.len() == 40 || id.len() == 64
}

/// A service's mirror, held for this caller.
pub(crate) struct Mirror<'m> {
    folders: &'m BuildFolders,
    source: &'m Source,
    folder: PathBuf,
    cancel: Cancel,
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
        check_repository(&source.repository).map_err(BuildProblem::new)?;
        let mut cancel = cancel;
        let held = tokio::select! {
            held = folders.mirror_lock(service).lock_owned() => held,
            () = cancelled(&mut cancel) => return Err(BuildProblem::new("the build was cancelled")),
        };
        let folder = folders.mirrors.join(format!("{service}.git"));
        std::fs::create_dir_all(&folder).map_err(|error| BuildProblem::io("making the folder", &folder, &error))?;
        remove_stale_locks(&folder);
        let mut mirror = Self { folders, source, folder, cancel, log: None, _held: held };
        if !mirror.folder.join("HEAD").exists() {
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
        self.git(&[&verb[..], &[&repository], &refs].concat()).await.map(drop)
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

    /// The full hash of the commit that a spelling names.
    async fn commit_id(&mut self, spelling: &str) -> Result<Option<String>, BuildProblem> {
        let commit = format!("{spelling}^{{commit}}");
        let found = self.quiet(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await?;
        Ok(found.map(|output| String::from_utf8_lossy(&output).trim().to_owned()).filter(|id| is_full(id)))
    }

    /// Author and subject.
    async fn describe(&mut self, id: &str) -> Result<(String, String), BuildProblem> {
        let output = self.git(&["log", "-1", "--encoding=UTF-8", "--format=%an%x00%s", "--end-of-options", id]).await?;
        let text = String::from_utf8_lossy(&output);
        let (author, subject) = text.split_once('\0').unwrap_or_default();
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).take(TEXT_LENGTH).collect();
        Ok((plain(author), plain(subject)))
    }

    /// The newest tag that points at a commit.
    async fn tag_at(&mut self, id: &str) -> Result<Option<String>, BuildProblem> {
        let points_at = format!("--points-at={id}");
        let verb = ["for-each-ref", "--count=1", "--sort=-creatordate", "--format=%(refname:strip=2)", &points_at];
        let output = self.git(&[&verb[..], &["refs/tags"]].concat()).await?;
        let tag = String::from_utf8_lossy(&output).trim().to_owned();
        Ok(Some(tag).filter(|tag| check_reference(tag).is_ok()))
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
        let mirror = format!("file://{}", self.folder.display());
        let folder = folder.display().to_string();
        self.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]).await?;
        self.git(&["init", "--quiet", "--template=", "--end-of-options", &folder]).await?;
        self.git(&["-C", &folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--end-of-options", &mirror, id])
            .await?;
        self.git(&["-C", &folder, "checkout", "--quiet", "--force", "--detach", id, "--"]).await.map(drop)
    }

    /// Runs git; its failure is a problem that names what it was to do.
    async fn git(&mut self, words: &[&str]) -> Result<Vec<u8>, BuildProblem> {
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
    async fn quiet(&mut self, words: &[&str]) -> Result<Option<Vec<u8>>, BuildProblem> {
        let (ended, kept) = self.run(words).await?;
        Ok((ended == Ended::Exit(0)).then_some(kept.output))
    }

    async fn run(&mut self, words: &[&str]) -> Result<(Ended, Kept), BuildProblem> {
        let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        let program = Program {
            words: ["git"].into_iter().chain(settings).chain(words.iter().copied()).map(str::to_owned).collect(),
            folder: self.folder.clone(),
            environment: environment(self.folders, words),
            timeout: GIT_TIMEOUT,
            grace: GRACE,
            record: None,
        };
        let mut kept = Kept { most: 2 * files::FILE_BYTES, ..Kept::default() };
        let ended = program.run(&mut self.cancel, Output::Keep(&mut kept)).await;
        let ended = ended.map_err(|error| BuildProblem::new(format!("git could not be started: {error}")))?;
        match ended {
            Ended::Cancelled => Err(BuildProblem::new("the build was cancelled")),
            ended => Ok((ended, kept)),
        }
    }
}

/// What git sees. Only where it talks to another machine does it see the user's own configuration, for its credentials.
fn environment(folders: &BuildFolders, words: &[&str]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("PATH".to_owned(), folders.path())]);
    let mut set = |name: &str, value: &str| drop(all.insert(name.to_owned(), value.to_owned()));
    for (name, value) in [
        ("LANG", "C.UTF-8"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_OPTIONAL_LOCKS", "0"),
        ("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20"),
    ] {
        set(name, value);
    }
    set(workspace::MARK, &folders.mirrors.display().to_string());
    if words.first() == Some(&"fetch") {
        for name in PASSED {
            folders.inherited.get(name).into_iter().for_each(|value| set(name, value));
        }
    } else {
        set("GIT_CONFIG_GLOBAL", "/dev/null");
        set("HOME", "/nonexistent");
    }
    all
}

/// Whether a call is worth a line in a build's log.
fn tells(words: &[&str]) -> bool {
    words.contains(&"fetch") || words.contains(&"checkout")
}

/// The line in which git says why, without its prefix.
fn reason(errors: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(errors);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .find(|line| line.starts_with("fatal:") || line.starts_with("error:"))
        .or_else(|| lines().next_back())?;
    let line = line.trim_start_matches("fatal:").trim_start_matches("error:").trim();
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// Removes lock files of a git that was killed. The mirror is held by this process alone, so nobody can be using them.
fn remove_stale_locks(mirror: &Path) {
    let mut folders = vec![mirror.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && name != "objects" {
                folders.push(path);
            } else if !is_folder && path.extension().is_some_and(|extension| extension == "lock") {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}
