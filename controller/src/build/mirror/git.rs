//! Every call of git: its settings, its environment, its limits.
//!
//! Must not know: mirrors, releases, or why git is called.
//!
//! Git is told where it may look: no system configuration, no hooks, no prompts, no protocols but those that the grammar of
//! repositories accepts. Who we are at a server stands in the environment of the calls that talk to it, never in argv, and
//! then nothing else is asked who we are, and no redirection is followed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::build::contain::Containment;
use crate::build::process::{Ended, Kept, Output, Program};
use crate::build::{BuildFolders, BuildProblem, Cancel, GRACE, secrets, workspace};
use crate::core::spec::GitCredentials;
use crate::files;

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
const SETTINGS: [&str; 16] = [
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
    // Always a pack, which is written as it comes: few objects would be unpacked in memory, whatever their size.
    "fetch.unpackLimit=1",
    "advice.detachedHead=false",
    "log.showSignature=false",
    // A server that says nothing for so long is away.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// What every call of git goes by. Clones share who we are where.
#[derive(Clone)]
pub(crate) struct GitSettings {
    /// Longest time for one fetch: the first one of a large repository over a slow line. Default 30 min.
    pub(crate) fetch: Duration,
    /// Longest time for asking what branches and tags there are. Default 1 min.
    pub(crate) look: Duration,
    /// Most that a mirror may take on disk, in bytes. Default 5 GiB.
    pub(crate) mirror_bytes: u64,
    /// Packs that a mirror may have before they are put together: each fetch brings one. Default 50.
    pub(crate) packs: usize,
    credentials: Arc<Mutex<BTreeMap<String, GitCredentials>>>,
}

/// Git, to be run in a folder.
pub(crate) struct Git<'g> {
    pub(crate) folders: &'g BuildFolders,
    pub(crate) folder: PathBuf,
    /// Whose server it talks to.
    pub(crate) repository: &'g str,
    pub(crate) cancel: Cancel,
}

// === impl GitSettings ===

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            fetch: Duration::from_secs(30 * 60),
            look: Duration::from_secs(60),
            mirror_bytes: 5 * 1024 * 1024 * 1024,
            packs: 50,
            credentials: Arc::default(),
        }
    }
}

impl std::fmt::Debug for GitSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { fetch, look, mirror_bytes, packs, credentials: _ } = self;
        f.debug_struct("GitSettings")
            .field("fetch", fetch)
            .field("look", look)
            .field("mirror_bytes", mirror_bytes)
            .field("packs", packs)
            .finish_non_exhaustive()
    }
}

impl GitSettings {
    /// Says who we are at each of these repositories, by URL, and nobody in particular at all others.
    pub(crate) fn know(&self, credentials: BTreeMap<String, GitCredentials>) {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    fn credentials(&self, repository: &str) -> Option<GitCredentials> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned()
    }
}

// === impl Git ===

impl Git<'_> {
    /// Runs git with this verb and these words, and `more` in its environment.
    ///
    /// # Errors
    /// When it could not be started, was cancelled, or made its folder larger than a mirror may be.
    pub(crate) async fn run(&mut self, words: &[&str], more: &[(&str, &str)]) -> Result<(Ended, Kept), BuildProblem> {
        let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        let mut environment = self.environment(words);
        if talks(words) {
            environment.extend(Box::pin(self.introduction()).await?);
        }
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let limits = &self.folders.git;
        let program = Program {
            words: ["git"].into_iter().chain(settings).chain(words.iter().copied()).map(str::to_owned).collect(),
            folder: self.folder.clone(),
            environment,
            timeout: if words.first() == Some(&"ls-remote") { limits.look } else { limits.fetch },
            grace: GRACE,
            record: None,
        };
        // Not in a namespace of users: ssh would look for keys of root.
        let mut program = program.within(&Containment::GroupOnly("".into()));
        if words.first() == Some(&"fetch") {
            program = program.no_larger(self.folder.clone(), limits.mirror_bytes);
        }
        let mut kept = Kept { most: 2 * files::FILE_BYTES, ..Kept::default() };
        let ended = program.run(&mut self.cancel, Output::Keep(&mut kept)).await;
        match ended.map_err(|error| BuildProblem::new(format!("git could not be started: {error}")))? {
            Ended::Cancelled => Err(BuildProblem::new("the build was cancelled")),
            Ended::TooLarge(_) => {
                let (repository, most) = (self.repository, limits.mirror_bytes);
                Err(BuildProblem::new(format!("{repository} is larger than {most} bytes, the most that is fetched")))
            }
            ended => Ok((ended, kept)),
        }
    }

    /// What git sees. Only where it talks to another machine does it see the user's own configuration, for its credentials.
    fn environment(&self, words: &[&str]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([("PATH".to_owned(), self.folders.path())]);
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
        set(workspace::MARK, &self.folders.mirrors.display().to_string());
        if !talks(words) {
            set("GIT_CONFIG_GLOBAL", "/dev/null");
            set("HOME", "/nonexistent");
            return all;
        }
        for name in PASSED {
            self.folders.inherited.get(name).into_iter().for_each(|value| set(name, value));
        }
        all
    }

    /// Who we are at the server (RFC 7617), as git is told it; then nobody else is asked, and no redirection is followed.
    async fn introduction(&mut self) -> Result<Vec<(String, String)>, BuildProblem> {
        let Some(GitCredentials { user, password }) = self.folders.git.credentials(self.repository) else {
            return Ok(Vec::new());
        };
        let password = secrets::value(&password, self.folders, &self.folder, &mut self.cancel).await;
        let password =
            password.map_err(|problem| BuildProblem::new(format!("the password for {} {problem}", self.repository)))?;
        let header = format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let extra = format!("http.{}.extraHeader", self.repository);
        let settings =
            [(extra.as_str(), header.as_str()), ("http.followRedirects", "false"), ("credential.helper", "")];
        let mut all = vec![("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string())];
        for (number, (key, value)) in settings.into_iter().enumerate() {
            all.push((format!("GIT_CONFIG_KEY_{number}"), key.to_owned()));
            all.push((format!("GIT_CONFIG_VALUE_{number}"), value.to_owned()));
        }
        Ok(all)
    }
}

/// Whether a call goes to another machine.
pub(super) fn talks(words: &[&str]) -> bool {
    matches!(words.first(), Some(&"fetch" | &"ls-remote"))
}

/// The line in which git says why, without its prefix.
pub(crate) fn reason(errors: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(errors);
    if ["terminal prompts disabled", "Authentication failed for"].iter().any(|sign| text.contains(sign)) {
        return Some("the server wants credentials that it was not given, or refuses those that it was".to_owned());
    }
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .find(|line| line.starts_with("fatal:") || line.starts_with("error:"))
        .or_else(|| lines().next_back())?;
    let line = line.trim_start_matches("fatal:").trim_start_matches("error:").trim();
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}
