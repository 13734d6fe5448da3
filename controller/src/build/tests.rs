mod lasting;
mod releases;
mod served;

use std::collections::BTreeSet;
use std::process::Command;

use registry::Layout;
use rustix::process::Pid;
use tokio::sync::watch;

use super::process::tests::{runs, seconds, until};
use super::*;

const TOML: &str = "schema = 1\nservice = \"hello\"\n[build]\ncommand = [\"./build.sh\"]\ntimeout = \"60s\"\n\
                    environment = { SET = \"yes\" }\npass = [\"PASSED\", \"ABSENT\"]\n[component.web]\nfolder = \"dist\"\n\
                    run = [\"./hello\", \"{port}\"]\nprotocol = \"h1\"\n";
const SCRIPT: &str = "#!/bin/sh\nset -e\nmkdir dist\necho building\ncp source dist/hello\n";

/// A real repository, and folders to build in.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) folders: BuildFolders,
    pub(crate) shelf: Shelf,
    pub(crate) source: Source,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let inherited =
            [("PATH", std::env::var("PATH").expect("PATH")), ("PASSED", "on".into()), ("SECRET", "x".into())];
        let inherited = inherited.map(|(name, value)| (name.to_owned(), value)).into();
        let folders = BuildFolders::within(&folder.path().join("data"), inherited);
        let shelf = Shelf::new(Layout::open(&folder.path().join("layout")).expect("layout"));
        let repository = folder.path().join("repository").display().to_string();
        let bench =
            Self { folder, folders, shelf, source: Source { repository, branch: "main".to_owned(), tags: None } };
        std::fs::create_dir(bench.repository()).expect("folder");
        bench.git(&["init", "--quiet", "--initial-branch=main"]);
        bench
    }

    /// With a commit that builds.
    pub(crate) fn with_commit() -> (Self, String) {
        let bench = Self::new();
        let commit = bench.commit(&[("pointsman.toml", TOML), ("build.sh", SCRIPT), ("source", "one")]);
        (bench, commit)
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "protocol.file.allow=always"])
            .args(words)
            .current_dir(self.repository())
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .output()
            .expect("git");
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        use std::os::unix::fs::PermissionsExt;
        for (name, text) in files {
            let path = self.repository().join(name);
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "A subject\n\nand more"]);
        self.git(&["rev-parse", "HEAD"])
    }

    async fn resolve(&self, revision: Revision) -> Result<Commit, BuildProblem> {
        resolve(&self.folders, &"hello".parse().expect("service"), &self.source, &revision).await
    }

    fn job(&self, number: u32, commit: &str) -> Job {
        let release = format!("hello@r{number}").parse().expect("release");
        let (source, commit, secrets) = (self.source.clone(), commit.to_owned(), BTreeMap::new());
        Job { release, source, commit, hot_fix: None, tag: None, base: None, secrets, registry: None }
    }

    async fn build(&self, number: u32, commit: &str) -> Result<Built, BuildProblem> {
        self.build_job(&self.job(number, commit)).await
    }

    /// To its end, which is put on record.
    async fn build_job(&self, job: &Job) -> Result<Built, BuildProblem> {
        let (_canceller, cancel) = watch::channel(false);
        let built = self.run(job, cancel).await;
        clear(&self.folders, &job.release).await;
        let left = std::fs::read_dir(&self.folders.work).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "the workspace is removed in every case");
        built.map_err(|failed| failed.problem)
    }

    async fn run(&self, job: &Job, cancel: Cancel) -> Result<Built, NotBuilt> {
        let (transfers, _) = watch::channel(None);
        run(&self.folders, &self.shelf, job, cancel, &transfers).await
    }

    fn log(&self, number: u32) -> String {
        std::fs::read_to_string(self.folders.log(&self.job(number, "").release)).expect("log")
    }
}

fn web(built: &Built) -> &Artifact {
    &built.artifacts[&"web".parse::<ComponentName>().expect("component")]
}

#[tokio::test]
async fn a_commit_becomes_an_artifact() {
    let (bench, id) = Bench::with_commit();
    bench.git(&["tag", "v1"]);
    let commit = bench.resolve(Revision::Branch("main".into())).await.expect("resolve");
    let expected = Commit { id: id.clone(), subject: "A subject".into(), author: "Ada".into(), tag: Some("v1".into()) };
    assert_eq!(commit, expected);
    let built = bench.build(1, &id).await.expect("built");
    assert_eq!(built.spec.name.as_str(), "hello");
    assert!(web(&built).bytes > 0);
    let log = bench.log(1);
    for line in
        ["building hello@r1 from commit", "$ ./build.sh\nbuilding\nexit status 0\n", "packed web: sha256:", "built"]
    {
        assert!(log.contains(line), "{line:?} in:\n{log}");
    }
    // Again, from the same commit: the same digest.
    assert_eq!(web(&bench.build(2, &id).await.expect("built")), web(&built));
    // Another commit, another digest.
    let other = bench.commit(&[("source", "two")]);
    assert_ne!(web(&bench.build(3, &other).await.expect("built")).digest, web(&built).digest);
}

#[tokio::test]
async fn revisions_are_found_in_each_spelling() {
    let (bench, first) = Bench::with_commit();
    bench.git(&["tag", "--annotate", "v1", "--message", "first"]);
    let second = bench.commit(&[("source", "two")]);
    for (revision, id, tag) in [
        (Revision::Tag("v1".into()), &first, Some("v1")),
        (Revision::Commit(first.clone()), &first, Some("v1")),
        (Revision::Commit(first[..8].to_owned()), &first, Some("v1")),
        (Revision::Branch("main".into()), &second, None),
    ] {
        let found = bench.resolve(revision.clone()).await.expect("resolve");
        assert_eq!((&found.id, found.tag.as_deref()), (id, tag), "{revision:?}");
    }
}

#[tokio::test]
async fn hostile_h84_what_is_gone_or_was_moved_is_told() {
    let (bench, first) = Bench::with_commit();
    bench.git(&["branch", "topic"]);
    bench.git(&["tag", "v1"]);
    assert_eq!(bench.resolve(Revision::Branch("topic".into())).await.expect("there").id, first);
    bench.git(&["branch", "--delete", "--force", "topic"]);
    // Force-pushed branch, moved tag.
    bench.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    let second = bench.commit(&[("source", "two")]);
    bench.git(&["branch", "--force", "main", &second]);
    bench.git(&["tag", "--force", "v1", &second]);
    assert_eq!(bench.resolve(Revision::Branch("main".into())).await.expect("forced").id, second);
    assert_eq!(bench.resolve(Revision::Tag("v1".into())).await.expect("moved").id, second);
    // What was released before can be built again: the mirror still has it.
    bench.build(1, &first).await.expect("built");

    // Unless it was asked for by the tag.
    let by_tag = Job { tag: Some("v1".into()), ..bench.job(3, &first) };
    let problem = bench.build_job(&by_tag).await.expect_err("moved").sentence;
    let said = format!("tag v1 was at {} when it was first seen and is at {} now", &first[..7], &second[..7]);
    assert!(problem.starts_with(&said) && bench.log(3).contains(&problem), "{problem}");
    bench.build_job(&Job { tag: Some("v1".into()), ..bench.job(4, &second) }).await.expect("built");

    let unknown = "0123456789abcdef0123456789abcdef01234567";
    for (revision, what) in [
        (Revision::Branch("topic".into()), "the branch topic does not exist in /"),
        (Revision::Tag("v2".into()), "the tag v2 does not exist in /"),
        (Revision::Commit(unknown.into()), "the commit 0123456789abcdef0123456789abcdef01234567 does not exist in /"),
        (Revision::Commit("0123456".into()), "the commit 0123456 does not exist in /"),
    ] {
        let problem = bench.resolve(revision).await.expect_err(what);
        assert!(problem.sentence.starts_with(what), "{problem}");
    }
    let problem = bench.build(2, unknown).await.expect_err("unknown");
    assert!(problem.sentence.contains("does not exist"), "{problem}");
    assert!(bench.log(2).contains(&problem.sentence));

    std::fs::remove_dir_all(bench.repository()).expect("remove");
    let problem = bench.resolve(Revision::Branch("main".into())).await.expect_err("gone");
    assert!(problem.sentence.starts_with("fetching from /") && problem.exit == Some(128), "{problem:?}");
}

#[tokio::test]
async fn hostile_h84_names_never_become_options() {
    let (bench, _) = Bench::with_commit();
    for name in
        ["", "-x", "--upload-pack=touch /tmp/x", "a..b", "a b", "a\nb", "a\0", "@{-1}", "a:b", "x.lock", "/a", "a~1"]
    {
        for revision in [Revision::Branch(name.into()), Revision::Tag(name.into()), Revision::Commit(name.into())] {
            let problem = bench.resolve(revision).await.expect_err(name);
            assert!(problem.sentence.contains(" is not the ") && problem.exit.is_none(), "{name:?}: {problem}");
        }
    }
    for commit in ["--help", "HEAD", "main", "0123456", "g123456789abcdef0123456789abcdef0123456789"] {
        assert!(bench.build(1, commit).await.is_err(), "{commit}");
    }
    let mut bench = bench;
    for repository in ["-oProxyCommand=x", "ext::sh -c x", "ssh://-oProxyCommand=x/y", "relative/path", "git@-x:y"] {
        bench.source.repository = repository.to_owned();
        let problem = bench.resolve(Revision::Branch("main".into())).await.expect_err(repository);
        assert!(problem.sentence.contains("is not a repository"), "{repository}: {problem}");
    }
}

#[tokio::test]
async fn a_failed_command_tells_its_status_and_keeps_its_log() {
    let (bench, _) = Bench::with_commit();
    let id = bench.commit(&[("build.sh", "#!/bin/sh\necho it is broken >&2\nexit 7\n")]);
    let problem = bench.build(1, &id).await.expect_err("fails");
    assert_eq!((problem.sentence.as_str(), problem.exit), ("the build command ended with exit status 7", Some(7)));
    let log = bench.log(1);
    assert!(log.contains("it is broken\nexit status 7\nfailed: the build command ended"), "{log}");
    // The next attempt goes on in the same log.
    bench.build(1, &id).await.expect_err("fails");
    assert_eq!(bench.log(1).matches("it is broken").count(), 2);

    let id = bench.commit(&[("pointsman.toml", &TOML.replace("./build.sh", "./none.sh"))]);
    let problem = bench.build(2, &id).await.expect_err("no program");
    assert!(problem.sentence.starts_with("the build command \"./none.sh\" could not be started"), "{problem}");
}

#[tokio::test]
async fn the_environment_is_cleared() {
    let (bench, _) = Bench::with_commit();
    let script =
        "#!/bin/sh\nmkdir dist && env | sort > dist/env && cat dist/env && touch \"$HOME/x\" \"$POINTSMAN_CACHE/y\"\n";
    let id = bench.commit(&[("build.sh", script)]);
    bench.build(1, &id).await.expect("built");
    let log = bench.log(1);
    let (_, environment) = log.split_once("$ ./build.sh\n").expect("command");
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let expected = "HOME LANG PASSED PATH POINTSMAN_CACHE POINTSMAN_COMMIT POINTSMAN_RELEASE POINTSMAN_SERVICE \
                    POINTSMAN_WORKSPACE PWD SET";
    let names: Vec<&str> = names.into_iter().filter(|name| !["_", "OLDPWD", "SHLVL"].contains(name)).collect();
    assert_eq!(names.join(" "), expected);
    assert!(environment.contains("POINTSMAN_RELEASE=hello@r1\n") && environment.contains("PASSED=on\n"));
    assert!(log.contains("ABSENT is to be passed on, but the controller does not have it"));
    assert!(bench.folders.cache.join("hello/y").exists(), "the cache stays");
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_and_who_left_it() {
    let (bench, _) = Bench::with_commit();
    let toml = TOML.replace("60s", "3s");
    let (inside, outside) = (seconds(), seconds());
    let script = format!(
        "#!/bin/sh\nsleep {inside} &\nenv -i setsid sh -c 'echo > outside; exec sleep {outside}' &\n\
         while [ ! -e outside ]; do sleep 0.01; done\ncp outside \"$POINTSMAN_CACHE\"\nwait\n"
    );
    let id = bench.commit(&[("build.sh", &script), ("pointsman.toml", &toml)]);
    let problem = bench.build(1, &id).await.expect_err("too long");
    assert_eq!(problem.sentence, "the build command took longer than 3s and was ended");
    assert!(bench.folders.cache.join("hello/outside").exists(), "both had started");
    assert!(!runs(&inside) && !runs(&outside));
}

#[tokio::test]
async fn a_process_that_a_command_leaves_is_ended() {
    let (bench, _) = Bench::with_commit();
    let (inside, outside) = (seconds(), seconds());
    let script = format!("{SCRIPT}sleep {inside} &\nenv -i setsid sleep {outside} &\n");
    let id = bench.commit(&[("build.sh", &script)]);
    bench.build(1, &id).await.expect("built");
    assert!(!runs(&inside) && !runs(&outside));
}

#[tokio::test]
async fn a_build_can_be_cancelled_and_a_dropped_one_is_ended_at_the_next_start() {
    let (bench, _) = Bench::with_commit();
    let seconds = seconds();
    let id = bench.commit(&[("build.sh", &format!("#!/bin/sh\nenv -i setsid sleep {seconds} &\nwait\n"))]);
    let started = || until("it sleeps", || runs(&seconds));
    let (canceller, cancel) = watch::channel(false);
    let job = bench.job(1, &id);
    let (built, ()) = tokio::join!(bench.run(&job, cancel), async {
        started().await;
        canceller.send(true).expect("listening");
    });
    assert_eq!(built.expect_err("cancelled").problem.sentence, "the build was cancelled");
    assert!(!runs(&seconds));

    let (_canceller, cancel) = watch::channel(false);
    let job = bench.job(2, &id);
    tokio::select! {
        _ = bench.run(&job, cancel) => panic!("it never ends by itself"),
        () = started() => {}
    }
    assert!(bench.folders.work.join("hello-r2").exists());
    end_leftovers(&bench.folders);
    until("it is gone", || !runs(&seconds)).await;
    clear_leftovers(&bench.folders, &BTreeSet::from([job.release.clone()])).await;
    assert!(bench.folders.work.join("hello-r2").exists(), "somebody goes on with it");
    clear_leftovers(&bench.folders, &BTreeSet::new()).await;
    assert!(!bench.folders.work.join("hello-r2").exists());
}

#[test]
fn leftovers_of_a_dead_controller_end_only_what_was_recorded() {
    use std::os::unix::process::CommandExt;
    let (bench, _) = Bench::with_commit();
    let sleeper = || Command::new("sleep").arg("1000").process_group(0).spawn().expect("sleep");
    let (mut ours, mut stranger) = (sleeper(), sleeper());
    for (name, child, start_off) in [("hello-r1", &ours, 0), ("hello-r2", &stranger, 1)] {
        let folder = bench.folders.work.join(name);
        std::fs::create_dir_all(&folder).expect("folder");
        let pid = Pid::from_child(child);
        workspace::record(&folder.join("process"), pid).expect("record");
        if start_off > 0 {
            // The number was given to another process since.
            let text = std::fs::read_to_string(folder.join("process")).expect("record");
            let mut words: Vec<&str> = text.split_whitespace().collect();
            words[1] = "1";
            std::fs::write(folder.join("process"), words.join(" ")).expect("record");
        }
    }
    end_leftovers(&bench.folders);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(ours.wait().expect("wait").signal(), Some(9));
    assert_eq!(stranger.try_wait().expect("wait"), None, "somebody else's process");
    stranger.kill().and_then(|()| stranger.wait()).expect("end");
}

#[tokio::test]
async fn what_the_commit_says_is_checked() {
    let (bench, _) = Bench::with_commit();
    for (number, file, text, expected) in [
        (1, "pointsman.toml", "schema = 1\nservice = \"hello\"\nbranch = 1\nfoo = 2\n", "has 2 mistakes, the first"),
        (2, "pointsman.toml", &TOML.replace("\"hello\"", "\"other\""), "describes the service other, not hello"),
        (3, "pointsman.toml", "schema = 1\nservice = \"hello\"\n", "has no [component.NAME]"),
        (4, "pointsman.toml", &TOML.replace("dist", "missing"), "the build left no folder \"missing\""),
        (5, ".gitmodules", "", "has submodules, which are not supported"),
    ] {
        let id = bench.commit(&[("pointsman.toml", TOML), (file, text)]);
        let problem = bench.build(number, &id).await.expect_err(expected);
        assert!(problem.sentence.contains(expected), "{problem}");
        assert!(bench.log(number).contains(&format!("failed: {problem}")), "{}", bench.log(number));
    }
    assert!(bench.log(1).contains("pointsman.toml:4:1: the file has no key `foo`"), "{}", bench.log(1));
    bench.git(&["rm", "--quiet", "-r", "."]);
    let problem = bench.build(6, &bench.commit(&[("README", "")])).await.expect_err("no file");
    assert!(problem.sentence.ends_with("has no pointsman.toml on top"), "{problem}");
}

#[tokio::test]
async fn hostile_h84_links_out_of_the_tree_are_refused() {
    use std::os::unix::fs::symlink;
    let (bench, _) = Bench::with_commit();
    let secret = bench.folder.path().join("secret");
    std::fs::create_dir(&secret).expect("folder");
    for (number, script, expected) in [
        (1, "mkdir dist; ln -s ../../../secret dist/x".to_owned(), "the symbolic link x -> ../../../secret points out"),
        (2, format!("ln -s {} dist", secret.display()), "is a link that points out of the checkout"),
        (3, "mkdir dist; mkfifo dist/pipe".to_owned(), "pipe is a pipe"),
    ] {
        let id = bench.commit(&[("build.sh", &format!("#!/bin/sh\n{script}\n"))]);
        let problem = bench.build(number, &id).await.expect_err(expected);
        assert!(problem.sentence.contains(expected), "{problem}");
    }
    // The spec itself as a link to a file of the controller.
    std::fs::remove_file(bench.repository().join("pointsman.toml")).expect("remove");
    symlink("/etc/passwd", bench.repository().join("pointsman.toml")).expect("link");
    let problem = bench.build(4, &bench.commit(&[("source", "x")])).await.expect_err("link");
    assert!(problem.sentence.contains("is not a plain file"), "{problem}");
    assert!(secret.exists());
}

#[tokio::test]
async fn hostile_h84_hooks_and_filters_do_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let (mut bench, _) = Bench::with_commit();
    let home = bench.folder.path().join("home");
    let mark = home.join("ran");
    std::fs::create_dir_all(home.join("hooks")).expect("folder");
    for name in ["post-checkout", "reference-transaction", "post-index-change"] {
        let path = home.join("hooks").join(name);
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("hook");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    }
    // The controller's user has both; a commit chooses which filter its files go through.
    let config = format!(
        "[core]\nhooksPath = {}\n[filter \"evil\"]\nsmudge = touch {}; cat\n",
        home.join("hooks").display(),
        mark.display()
    );
    std::fs::write(home.join(".gitconfig"), config).expect("config");
    bench.folders.inherited.insert("HOME".to_owned(), home.display().to_string());
    let id = bench.commit(&[(".gitattributes", "* filter=evil\n"), ("source", "three")]);
    bench.build(1, &id).await.expect("built");
    assert!(!mark.exists());
}

#[tokio::test]
async fn a_lock_that_a_killed_git_left_does_not_matter() {
    let (bench, _) = Bench::with_commit();
    bench.resolve(Revision::Branch("main".into())).await.expect("resolve");
    let second = bench.commit(&[("source", "two")]);
    let mirror = bench.folders.mirrors.join("hello.git");
    for lock in ["packed-refs.lock", "refs/heads/main.lock", "config.lock"] {
        std::fs::write(mirror.join(lock), "").expect("lock");
    }
    assert_eq!(bench.resolve(Revision::Branch("main".into())).await.expect("resolve").id, second);
    bench.build(1, &second).await.expect("built");
}

#[tokio::test]
async fn folders_that_a_build_made_read_only_are_removed() {
    let (bench, _) = Bench::with_commit();
    let script = format!("{SCRIPT}mkdir -p $HOME/go/mod && touch $HOME/go/mod/x && chmod -R a-w $HOME/go\n");
    let id = bench.commit(&[("build.sh", &script)]);
    bench.build(1, &id).await.expect("built");
}
