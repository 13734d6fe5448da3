//! Against real git, over files and over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;

use crate::build::{Fix, Fixed, fix};
use crate::core::spec::{GitCredentials, SecretRef};

use super::*;

/// Repositories over HTTP, by a process of their own (`tests/clients/git_server.py` says how paths misbehave).
pub(crate) struct GitServer {
    child: Child,
    port: u16,
}

impl GitServer {
    /// Serves the folders within `root`; `/basic/` to ada with the password "long enough".
    pub(crate) fn start(root: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/clients/git_server.py");
        let mut command = Command::new("python3");
        command.args([script, "--port", "0"]).arg(root).args(["ada", "long enough"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its port");
        let port = line.trim().rsplit_once(':').expect("its address").1.parse().expect("a port");
        Self { child, port }
    }

    /// The repository of this name, served in this way.
    pub(crate) fn url(&self, how: &str, name: &str) -> String {
        format!("http://127.0.0.1:{}/{how}/{name}", self.port)
    }

    /// How often the references of a repository were asked for.
    pub(crate) fn asked(&self, how: &str, name: &str) -> u64 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("connected");
        stream.write_all(b"GET /asked HTTP/1.0\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let all: BTreeMap<String, u64> = serde_json::from_str(body).expect("JSON");
        all.get(&format!("/{how}/{name}")).copied().unwrap_or(0)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository that is worked in, and folders to mirror it.
pub(crate) struct Repository {
    pub(crate) root: tempfile::TempDir,
    pub(crate) folders: BuildFolders,
    pub(crate) source: Source,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        let path = root.path().join("repository");
        std::fs::create_dir(&path).expect("folder");
        let inherited = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").expect("PATH"))]);
        let folders = BuildFolders::within(&root.path().join("data"), inherited);
        let repository = Self { source: source(&path.display().to_string()), root, folders };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("repository")
    }

    pub(crate) fn git(&self, words: &[&str]) -> String {
        self.git_as("Ada", words)
    }

    fn git_as(&self, name: &str, words: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", &format!("user.name={name}"), "-c", "user.email=ada@example.com"])
            .args(words)
            .current_dir(self.path())
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .output()
            .expect("git");
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A commit with these files, on whatever is checked out.
    pub(crate) fn commit(&self, subject: &str, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            std::fs::write(path, text).expect("write");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Who we are, with the password in a file.
    pub(crate) fn credentials(&self, user: &str, password: &str) -> GitCredentials {
        let file = self.root.path().join("password");
        std::fs::write(&file, format!("{password}\n")).expect("write");
        GitCredentials { user: user.to_owned(), password: SecretRef::File(file.display().to_string()) }
    }

    async fn mirror<'m>(&'m self, source: &'m Source) -> Mirror<'m> {
        Mirror::open(&self.folders, &service(), source, nobody()).await.expect("opened")
    }
}

pub(crate) fn source(repository: &str) -> Source {
    Source { repository: repository.to_owned(), branch: "main".to_owned(), tags: None }
}

fn service() -> ServiceName {
    "hello".parse().expect("service")
}

/// A build that nobody cancels.
pub(crate) fn nobody() -> Cancel {
    watch::channel(false).1
}

#[tokio::test]
async fn a_look_tells_branches_and_tags_without_fetching() {
    let repository = Repository::new();
    let first = repository.commit("one", &[("a", "1")]);
    repository.git(&["tag", "--annotate", "v1.0.0", "--message", "first"]);
    repository.git(&["branch", "fix/x"]);
    let second = repository.commit("two", &[("a", "2")]);
    let server = GitServer::start(repository.root.path());
    for url in [repository.source.repository.clone(), server.url("well", "repository/.git")] {
        let remote = look(&repository.folders, &url, nobody()).await.expect(&url);
        let branches = [("fix/x", &first), ("main", &second)].map(|(name, id)| (name.to_owned(), id.clone()));
        assert_eq!(remote.branches, branches.into());
        assert_eq!(remote.tags, [("v1.0.0".to_owned(), first.clone())].into());
    }
    assert_eq!(std::fs::read_dir(&repository.folders.mirrors).expect("folder").count(), 0, "nothing was fetched");
}

#[tokio::test]
async fn hostile_h84_a_server_that_refuses_or_fails_is_a_sentence() {
    let mut repository = Repository::new();
    repository.commit("one", &[("a", "1")]);
    let server = GitServer::start(repository.root.path());
    // Whoever asks would be seen: a helper that answers, a prompt that waits.
    let (home, canary) = (repository.root.path().join("home"), repository.root.path().join("asked"));
    std::fs::create_dir(&home).expect("folder");
    let helper = format!("[credential]\nhelper = \"!touch {}; echo password=x\"\n", canary.display());
    std::fs::write(home.join(".gitconfig"), helper).expect("config");
    repository.folders.inherited.insert("HOME".to_owned(), home.display().to_string());
    repository.folders.git.look = Duration::from_secs(1);
    let wrong = repository.credentials("ada", "hunter2-hunter2");
    let known = ["basic", "refused", "moved"].map(|how| (server.url(how, "repository/.git"), wrong.clone()));
    repository.folders.git.know(known.into());
    for (how, said) in [
        ("basic", "wants credentials that it was not given, or refuses"),
        ("refused", "The requested URL returned error: 403"),
        ("broken", "The requested URL returned error: 503"),
        ("html", "not valid: is this a git repository?"),
        ("moved", "The requested URL returned error: 302"),
        ("silent", "took too long and was ended"),
        ("absent", "not found"),
    ] {
        let url = server.url(how, "repository/.git");
        let problem = look(&repository.folders, &url, nobody()).await.expect_err(how);
        assert!(problem.sentence.starts_with(&format!("looking at {url} failed: ")), "{how}: {problem}");
        assert!(problem.sentence.contains(said), "{how}: {problem}");
        let hidden = ["hunter2", "YWRhOm"].iter().all(|secret| !problem.sentence.contains(secret));
        assert!(hidden, "{problem}");
    }
    assert!(!canary.exists(), "somebody was asked who we are");
}

#[tokio::test]
async fn a_repository_is_fetched_as_whom_we_are_there() {
    let repository = Repository::new();
    let id = repository.commit("one", &[("a", "1")]);
    let server = GitServer::start(repository.root.path());
    let source = source(&server.url("basic", "repository/.git"));
    let refused = look(&repository.folders, &source.repository, nobody()).await.expect_err("nobody in particular");
    assert!(refused.sentence.contains("wants credentials"), "{refused}");
    let ada = repository.credentials("ada", "long enough");
    repository.folders.git.know([(source.repository.clone(), ada)].into());
    assert_eq!(look(&repository.folders, &source.repository, nobody()).await.expect("ada").branches["main"], id);
    let mut mirror = repository.mirror(&source).await;
    mirror.need(&id).await.expect("fetched");
    // Another repository of the same server is none of theirs.
    let other = server.url("basic", "repository/.git/");
    look(&repository.folders, &other, nobody()).await.expect_err("not that one");
    let config = std::fs::read_to_string(mirror.folder().join("config")).expect("config");
    assert!(!config.contains("Authorization"), "{config}");
}

#[tokio::test]
async fn hostile_h84_two_gigabytes_are_not_fetched() {
    let mut repository = Repository::new();
    repository.commit("one", &[("a", "1")]);
    let server = GitServer::start(repository.root.path());
    repository.folders.git.mirror_bytes = 8 * 1024 * 1024;
    let source = source(&server.url("endless", "repository/.git"));
    let mut mirror = repository.mirror(&source).await;
    let problem = tokio::time::timeout(Duration::from_secs(60), mirror.fetch()).await.expect("it ends");
    let problem = problem.expect_err("too large").sentence;
    assert!(problem.ends_with("is larger than 8388608 bytes, the most that is fetched"), "{problem}");
    drop(mirror);
    // What came of it is gone with the next use, and a smaller one is fetched again.
    let well = self::source(&server.url("well", "repository/.git"));
    let mut mirror = repository.mirror(&well).await;
    let unfinished = std::fs::read_dir(mirror.folder().join("objects/pack")).expect("folder");
    let unfinished =
        unfinished.filter_map(Result::ok).filter(|one| one.file_name().to_string_lossy().starts_with("tmp_"));
    assert_eq!(unfinished.count(), 0);
    mirror.fetch().await.expect("small");
}

#[tokio::test]
async fn hostile_h84_a_pack_that_is_cut_is_a_sentence_and_fetched_again() {
    let repository = Repository::new();
    let text: String = (0..20_000).map(|n| format!("{}\n", n * 7919)).collect();
    let id = repository.commit("one", &[("a", &text)]);
    let server = GitServer::start(repository.root.path());
    let cut = source(&server.url("cut", "repository/.git"));
    let problem = repository.mirror(&cut).await.need(&id).await.expect_err("cut").sentence;
    assert!(problem.starts_with(&format!("fetching from {} failed: ", cut.repository)), "{problem}");
    let well = source(&server.url("well", "repository/.git"));
    repository.mirror(&well).await.need(&id).await.expect("whole");
}

#[tokio::test]
async fn hostile_h84_a_tag_that_moved_or_is_gone_is_refused() {
    let repository = Repository::new();
    let first = repository.commit("first", &[("a", "1")]);
    repository.git(&["tag", "--annotate", "v1.0.0", "--message", "x"]);
    let mut mirror = repository.mirror(&repository.source).await;
    mirror.need_tag("v1.0.0", &first).await.expect("as it was");
    let second = repository.commit("second", &[("a", "2")]);
    repository.git(&["tag", "--force", "v1.0.0", &second]);
    let moved = mirror.need_tag("v1.0.0", &first).await.expect_err("moved").sentence;
    let said = format!("tag v1.0.0 was at {} when it was first seen and is at {} now: ", &first[..7], &second[..7]);
    assert!(moved.starts_with(&said), "{moved}");
    repository.git(&["tag", "--delete", "v1.0.0"]);
    let gone = mirror.need_tag("v1.0.0", &first).await.expect_err("gone").sentence;
    assert!(gone.starts_with("the tag v1.0.0 does not exist in ") && gone.ends_with(" any more"), "{gone}");
}

#[tokio::test]
async fn many_fetches_are_few_packs() {
    let mut repository = Repository::new();
    repository.folders.git.packs = 3;
    let base = repository.commit("base", &[("a", "0\n")]);
    let fixed = repository.commit("a fix", &[("b", "1\n")]);
    let picks = Fix::Picks(vec![fixed]);
    let picked = fix(&repository.folders, &service(), &repository.source, &base, &picks).await.expect("made").commit;
    let mut ids = vec![base, picked.id];
    for n in 1..=12 {
        ids.push(repository.commit(&format!("number {n}"), &[("a", &format!("{n}\n"))]));
        repository.mirror(&repository.source).await.fetch().await.expect("fetched");
    }
    let mut mirror = repository.mirror(&repository.source).await;
    let packs = std::fs::read_dir(mirror.folder().join("objects/pack")).expect("folder").filter_map(Result::ok);
    let packs = packs.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "pack")).count();
    assert!((1..=4).contains(&packs), "{packs} packs");
    for id in ids {
        assert!(mirror.file(&id, "a").await.expect("readable").is_some(), "{id} is whole");
    }
}

#[tokio::test]
async fn what_lies_between_is_named() {
    let repository = Repository::new();
    let first = repository.commit("first", &[("a", "0")]);
    let mut ids: Vec<String> =
        (1..=3).map(|n| repository.commit(&format!("number {n}"), &[("a", &n.to_string())])).collect();
    let last = ids.pop().expect("three");
    let mut mirror = repository.mirror(&repository.source).await;
    mirror.need(&last).await.expect("there");
    let between = mirror.between(&first, &last).await.expect("named");
    let named = [(ids[1].clone(), "number 2".to_owned()), (ids[0].clone(), "number 1".to_owned())];
    assert_eq!(between, Between { commits: named.to_vec(), more: 0, rewritten: false });
    assert_eq!(mirror.between(&last, &last).await.expect("nothing"), Between::default());
    drop(mirror);

    repository.git(&["checkout", "--quiet", "--detach", &first]);
    for n in 0..103 {
        repository.commit(&format!("other {n}"), &[]);
    }
    let tip = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["branch", "--force", "main", &tip]);
    let mut mirror = repository.mirror(&repository.source).await;
    mirror.need(&tip).await.expect("there");
    let between = mirror.between(&last, &tip).await.expect("named");
    assert!(between.rewritten, "the branch was forced");
    assert_eq!((between.commits.len(), between.more), (100, 2), "without the last one itself");
    assert_eq!(between.commits[0].1, "other 101");
    let gone = mirror.between(&"a".repeat(40), &tip).await.expect("gone");
    assert_eq!(gone, Between { rewritten: true, ..Between::default() });
}

#[tokio::test]
async fn picks_have_the_same_commit_id_each_time() {
    let repository = Repository::new();
    let base = repository.commit("base", &[("a", "1\n"), ("b", "1\n")]);
    let good = repository.commit("good\n\nwith a body", &[("a", "2\n")]);
    repository.commit("unwanted", &[("c", "1\n")]);
    repository
        .git_as("Grace", &["commit", "--quiet", "--allow-empty", "--message", "empty", "--date=1700000000 +1030"]);
    let empty = repository.git(&["rev-parse", "HEAD"]);
    let wanted = Fix::Picks(vec![good[..9].to_owned(), empty.clone()]);
    let mut made = Vec::new();
    for user in ["Eve", "Mallory"] {
        let mut other = Repository { source: repository.source.clone(), ..Repository::new() };
        let home = other.root.path().join("home");
        std::fs::create_dir(&home).expect("folder");
        std::fs::write(
            home.join(".gitconfig"),
            format!("[user]\nname = {user}\nemail = x@y\n[commit]\ngpgSign = true\n"),
        )
        .expect("config");
        other.folders.inherited.insert("HOME".to_owned(), home.display().to_string());
        let fixed: Fixed = fix(&other.folders, &service(), &other.source, &base, &wanted).await.expect("made");
        assert_eq!(std::fs::read_dir(&other.folders.work).expect("folder").count(), 0, "nothing is left");
        made.push((fixed, other));
    }
    let (fixed, other) = &made[0];
    assert_eq!(*fixed, made[1].0, "the same on every machine, at any time");
    let picks = [(good.clone(), "good".to_owned()), (empty.clone(), "empty".to_owned())];
    assert_eq!((fixed.commit.subject.as_str(), fixed.commit.author.as_str()), ("empty", "Grace"));
    assert_eq!(fixed.picks, picks);
    // What it is made of, and nothing else that came since.
    let mut mirror = other.mirror(&other.source).await;
    let between = mirror.between(&base, &fixed.commit.id).await.expect("on top");
    assert_eq!((between.commits.len(), between.rewritten), (1, false));
    assert_eq!(mirror.file(&fixed.commit.id, "a").await.expect("there"), Some(b"2\n".to_vec()));
    assert_eq!(mirror.file(&fixed.commit.id, "c").await.expect("not there"), None);
    let message = mirror.git(&["log", "-1", "--format=%B", &format!("{}^", fixed.commit.id)]).await.expect("log");
    let message = String::from_utf8_lossy(&message);
    assert!(message.contains("with a body") && message.contains(&format!("(cherry picked from commit {good})")));
    drop(mirror);

    // The mirror was lost since: a build makes it again.
    std::fs::remove_dir_all(&other.folders.mirrors).expect("removed");
    let mut mirror = other.mirror(&other.source).await;
    let ids = [good.clone(), empty];
    let need = super::super::picks::need;
    need(&mut mirror, &other.folders, &service(), &fixed.commit.id, &base, &ids).await.expect("made again");
    mirror.need(&fixed.commit.id).await.expect("there now");
    let problem = need(&mut mirror, &other.folders, &service(), &"a".repeat(40), &base, &ids).await;
    assert!(problem.expect_err("another").sentence.contains("gave aaaa"));
}

#[tokio::test]
async fn a_conflict_is_shown() {
    let repository = Repository::new();
    let canary = repository.root.path().join("canary");
    std::fs::write(&canary, "whole").expect("write");
    let base = repository.commit("base", &[("a", "1\n"), ("d/\n\u{1b}[31mb", "1\n")]);
    repository.commit("between", &[("a", "2\n"), ("d/\n\u{1b}[31mb", "2\n")]);
    let pick = repository.commit("changes it again", &[("a", "3\n"), ("d/\n\u{1b}[31mb", "3\n")]);
    let picks = |pick: &str| Fix::Picks(vec![pick.to_owned()]);
    let refused = |wanted: Fix| {
        let (repository, base) = (&repository, &base);
        async move {
            let fixed = fix(&repository.folders, &service(), &repository.source, base, &wanted).await;
            assert_eq!(std::fs::read_dir(&repository.folders.work).map(Iterator::count).unwrap_or(0), 0);
            fixed.expect_err("refused")
        }
    };
    let problem = refused(picks(&pick)).await;
    let said = format!("picking {} (changes it again) on top of {} conflicts in a, d/[31mb: ", &pick[..7], &base[..7]);
    assert!(problem.sentence.starts_with(&said), "{problem}");
    assert_eq!(problem.exit, Some(1));

    repository.git(&["checkout", "--quiet", "-b", "side", &base]);
    repository.commit("aside", &[("e", "1")]);
    repository.git(&["merge", "--quiet", "--no-ff", "--strategy=ours", "--message", "a merge", "main"]);
    let merge = repository.git(&["rev-parse", "HEAD"]);
    assert!(refused(picks(&merge)).await.sentence.ends_with("is a merge: pick what it merged"));
    assert!(refused(picks("1234567")).await.sentence.contains("the commit 1234567 does not exist"));
    assert!(refused(picks("--continue")).await.sentence.contains("is not the hash of a commit"));
    assert_eq!(std::fs::read_to_string(canary).expect("there"), "whole");
}

#[tokio::test]
async fn a_hot_fix_contains_only_itself() {
    let repository = Repository::new();
    let first = repository.commit("first", &[("a", "1\n")]);
    let base = repository.commit("released", &[("a", "2\n")]);
    repository.git(&["checkout", "--quiet", "-b", "fix/x"]);
    let fixed = repository.commit("the fix", &[("a", "3\n")]);
    repository.git(&["checkout", "--quiet", "-b", "fix/early", &first]);
    repository.commit("too early", &[("b", "1\n")]);
    repository.git(&["checkout", "--quiet", "--orphan", "fix/apart"]);
    repository.commit("nothing in common", &[("c", "1\n")]);
    let wanted = |branch: &str| {
        let wanted = Fix::Branch(branch.to_owned());
        let (repository, base) = (&repository, &base);
        async move { fix(&repository.folders, &service(), &repository.source, base, &wanted).await }
    };
    let found = wanted("fix/x").await.expect("on top");
    assert_eq!((found.commit.id, found.picks), (fixed, Vec::new()));
    let early = wanted("fix/early").await.expect_err("without the release").sentence;
    assert!(early.contains(&format!("commit {base}: they part at {}; begin it there", &first[..7])), "{early}");
    let apart = wanted("fix/apart").await.expect_err("something else").sentence;
    assert!(apart.contains("they have nothing in common"), "{apart}");
    assert!(wanted("fix/none").await.expect_err("none").sentence.contains("the branch fix/none does not exist"));
}
