//! h84: repositories in trouble, and commits that mean harm. A clear failure, and nothing outside a checkout is touched.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{GitServer, Hosting, House, Repository, until};

const ENVIRONMENT: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                           target = { kind = \"static\" }\n";

/// Has the house know a service whose repository is served over HTTP.
async fn over_http(house: &House) -> (Repository, GitServer) {
    let repository = Repository::new(house.path("hello"));
    let server = GitServer::start(house.path("")).await;
    let service = repository.service_at(&format!("{}/hello/.git", server.url));
    house.apply(&[("production.toml", ENVIRONMENT), ("pointsman.toml", &service)]).await;
    (repository, server)
}

async fn releases(house: &House) -> Vec<Value> {
    house.json(&["release", "list", "hello"]).await["releases"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h84_a_repository_in_trouble_makes_no_release_and_asks_nobody() {
    let mut house = House::empty();
    // Who would answer a question for a password.
    let (asks, asked) = (house.path("asks"), house.path("asked"));
    fs::write(&asks, format!("#!/bin/sh\ntouch {}\necho secret\n", asked.display())).expect("written");
    Command::new("chmod").arg("+x").arg(&asks).status().expect("chmod");
    for name in ["GIT_ASKPASS", "SSH_ASKPASS"] {
        house.give_all(name, asks.to_str().expect("text"));
    }
    house.start_controller(&[]).await;
    let (_repository, server) = over_http(&house).await;
    let private = Hosting::Private("anna:secret".to_owned());
    for (hosting, expected) in [
        (private, "wants credentials"),
        (Hosting::Answers(401), "wants credentials"),
        (Hosting::Answers(403), "403"),
        (Hosting::Answers(404), "not found"),
        (Hosting::Answers(503), "503"),
        (Hosting::Cut, "fetching from"),
    ] {
        server.is(hosting);
        let said = house.run(&["release", "build", "hello"]).await.ends(1);
        said.complains_once(&["fetching from http://127.0.0.1", expected]);
    }
    assert!(releases(&house).await.is_empty());
    assert!(!asked.exists() && server.credentials().is_empty(), "{:?}", server.credentials());
    // What was cut is no obstacle to what comes whole.
    server.is(Hosting::Well);
    house.run(&["release", "build", "hello"]).await.ends(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h84_what_was_forced_or_is_gone_is_told_and_what_was_released_can_be_built_again() {
    let house = House::with_controller().await;
    let (repository, server) = over_http(&house).await;
    let first = repository.commit("before the force");
    repository.git(&["branch", "topic"]);
    house.run(&["release", "build", "hello", "--branch", "topic"]).await.ends(0);
    repository.git(&["branch", "--delete", "--force", "topic"]);
    let said = house.run(&["release", "build", "hello", "--branch", "topic"]).await.ends(1);
    said.complains_once(&["the branch topic does not exist in http://"]);

    repository.git(&["checkout", "--quiet", "--orphan", "fresh"]);
    let forced = repository.commit("another history");
    repository.git(&["branch", "--force", "main", &forced]);
    repository.git(&["reflog", "expire", "--expire=now", "--all"]);
    repository.git(&["gc", "--quiet", "--prune=now"]);
    house.run(&["release", "build", "hello"]).await.ends(0);
    let built = releases(&house).await;
    assert!(built.iter().any(|release| release["commit"] == forced.as_str()), "{built:?}");
    // The repository has forgotten it, which is no reason not to know what was released.
    let other = house.run(&["release", "build", "hello", "--commit", &first]).await;
    assert!(matches!(other.code, Some(0 | 1)), "{other:?}");
    let built = releases(&house).await;
    let of_first = built.iter().filter(|release| release["commit"] == first.as_str());
    assert!(of_first.clone().count() > 0 && of_first.clone().all(|release| release["state"] == "ready"), "{built:?}");

    // All of it is gone: what is there is served on, and the sentence says where it was looked for.
    server.is(Hosting::Answers(404));
    house.run(&["release", "build", "hello"]).await.ends(1).complains_once(&["fetching from http://", "not found"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h84_a_repository_that_never_answers_holds_up_nobody_else() {
    let house = House::with_controller().await;
    let (_repository, server) = over_http(&house).await;
    let other = Repository::new(house.path("other"));
    let text = other.service().replace("service = \"hello\"", "service = \"other\"");
    other.write("pointsman.toml", &text);
    other.commit("another service");
    house.apply(&[("other.toml", &text)]).await;

    server.is(Hosting::Silent);
    let meanwhile = async {
        until("it was asked", async || (server.looks() == 1).then_some(())).await;
        house.run(&["release", "build", "other"]).await.ends(0);
    };
    tokio::select! {
        said = house.run(&["release", "build", "hello"]) => panic!("nobody has answered it: {said:?}"),
        () = meanwhile => {}
    }
    // Whoever asked has gone away, and with them what was held for them.
    server.is(Hosting::Well);
    house.run(&["release", "build", "hello"]).await.ends(0);
}

/// A file or folder of a commit as no honest git writes it.
enum Entry<'a> {
    File(&'a str),
    Link(&'a str),
    Folder(Vec<(&'a str, Entry<'a>)>),
    Submodule(&'a str),
}

/// Writes an object with what it is made of.
fn object(folder: &Path, verb: &[&str], bytes: &[u8]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(verb).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("git is installed");
    child.stdin.take().expect("piped").write_all(bytes).expect("written");
    let output = child.wait_with_output().expect("ended");
    assert!(output.status.success(), "git {verb:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn tree(folder: &Path, entries: &[(&str, Entry<'_>)]) -> String {
    let mut bytes = Vec::new();
    // In the order in which git keeps them, where a folder counts as if a slash stood behind its name.
    let name = |(name, entry): &(&str, Entry<'_>)| match entry {
        Entry::Folder(_) => format!("{name}/"),
        _ => (*name).to_owned(),
    };
    let sorted: BTreeMap<String, _> = entries.iter().map(|entry| (name(entry), entry)).collect();
    for (name, entry) in sorted.values() {
        let (mode, id) = match entry {
            Entry::File(text) => ("100755", object(folder, &["hash-object", "-w", "--stdin"], text.as_bytes())),
            Entry::Link(to) => ("120000", object(folder, &["hash-object", "-w", "--stdin"], to.as_bytes())),
            Entry::Folder(entries) => ("40000", tree(folder, entries)),
            Entry::Submodule(commit) => ("160000", (*commit).to_owned()),
        };
        bytes.extend(format!("{mode} {name}\0").into_bytes());
        let digits = id.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("hex"));
        bytes.extend(digits.map(|pair| u8::from_str_radix(pair, 16).expect("hex")));
    }
    object(folder, &["hash-object", "-w", "-t", "tree", "--stdin", "--literally"], &bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h84_commits_that_mean_harm_are_failed_releases_and_touch_nothing_outside() {
    let house = House::with_controller().await;
    let (repository, _server) = over_http(&house).await;
    let folder = house.path("hello");
    let outside = house.path("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("canary"), "alive").expect("written");
    let (to, toml) =
        (outside.to_str().expect("text"), fs::read_to_string(folder.join("pointsman.toml")).expect("read"));
    let harm = format!("#!/bin/sh\necho harm > {to}/harm\n");
    let harms = || Entry::File(&harm);
    let (nowhere, long, ansi) = ("1".repeat(40), "x".repeat(300), "a\nb \u{1b}[2J\u{1b}]0;title\u{7} \u{202e}");
    let within = |name: &'static str, entries| (name, Entry::Folder(entries));
    let hooks = |name| within(name, vec![("hooks", Entry::Folder(vec![("post-checkout", harms())]))]);
    let cases: Vec<(Vec<(&str, Entry<'_>)>, &str)> = vec![
        (vec![hooks(".git")], "invalid path '.git/"),
        (vec![hooks(".GIT")], "invalid path '.GIT/"),
        (vec![within("..", vec![("harm", harms())])], "invalid path '../"),
        (vec![("a", Entry::Link(to)), within("a", vec![("harm", harms())])], "*"),
        (vec![("pointsman.toml", Entry::Link("/etc/passwd"))], "is not a plain file"),
        (vec![("dist", Entry::Link(to)), ("build.sh", Entry::File("#!/bin/sh\n"))], "points out of the checkout"),
        (vec![(&long, harms())], "unable to create file x"),
        (vec![(ansi, harms())], ""),
        (vec![(".gitmodules", harms()), ("sub", Entry::Submodule(&nowhere))], "submodules"),
    ];
    let mut number = 0;
    for (mut entries, expected) in cases {
        for (name, text) in [("pointsman.toml", toml.as_str()), ("build.sh", "#!/bin/sh\nmkdir -p dist\nls > dist/x\n")]
        {
            if entries.iter().all(|(other, _)| *other != name) {
                entries.push((name, Entry::File(text)));
            }
        }
        let tree = tree(&folder, &entries);
        let commit = repository.git(&["commit-tree", &tree, "-m", "harm"]).trim().to_owned();
        repository.git(&["update-ref", "refs/heads/main", &commit]);
        let said = house.run(&["release", "build", "hello"]).await;
        number += 1;
        let release = format!("hello@r{number}");
        let shown = house.json(&["release", "show", &release]).await;
        let problem = shown["problem"].as_str().unwrap_or_default();
        match expected {
            "" => assert!(shown["state"] == "ready", "{said:?} {shown}"),
            // However git takes two of one name.
            "*" => assert!(shown["state"] == "ready" || !problem.is_empty(), "{said:?} {shown}"),
            _ => {
                assert!(shown["state"] == "failed" && problem.contains(expected), "{expected}: {said:?} {shown}");
                let log = house.run(&["release", "logs", &release]).await.ends(0).out;
                assert!(log.contains(expected), "{expected}: {log}");
            }
        }
        let left: Vec<_> = fs::read_dir(&outside).expect("a folder").flatten().map(|one| one.file_name()).collect();
        assert_eq!(left, ["canary"], "{expected}");
        assert_eq!(fs::read_to_string(outside.join("canary")).expect("read"), "alive");
    }
    let work = house.path("controller/work");
    assert_eq!(fs::read_dir(&work).into_iter().flatten().count(), 0, "nothing is left of them");
}
