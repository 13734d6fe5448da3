//! Hot fixes and picks: a released commit with exactly what was asked for on top; and what differs between releases.

use serde_json::Value;

use crate::harness::{House, Repository, flip_a_byte};

const STATIC: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"static\" }\n";
/// Says what is in the checkout.
const BUILD: &str =
    "#!/bin/sh\nset -eu\necho \"has $(echo *.txt) and says $(cat a.txt)\"\nmkdir -p dist\ncp *.txt dist/\n";

/// r1 of a.txt; main goes on with a feature in another file, a change of a.txt, and a fix in a third file.
async fn released() -> (House, Repository, [String; 4]) {
    let house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    repository.write("build.sh", BUILD);
    repository.write("a.txt", "one\n");
    let base = repository.commit("the base");
    house.apply(&[("production.toml", STATIC), ("pointsman.toml", &repository.service())]).await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    repository.write("feature.txt", "new\n");
    let feature = repository.commit("a feature");
    repository.write("a.txt", "two\n");
    repository.commit("two");
    repository.write("a.txt", "three\n");
    let changed = repository.commit("three");
    repository.write("fix.txt", "mended\n");
    let fix = repository.commit("the fix");
    (house, repository, [base, feature, changed, fix])
}

async fn log(house: &House, release: &str) -> String {
    house.run(&["release", "logs", release]).await.ends(0).out
}

fn count(list: &Value) -> usize {
    list["releases"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_hot_fix_and_picks_hold_what_was_asked_for_and_nothing_else() {
    let (house, repository, [base, feature, changed, fix]) = released().await;
    repository.git(&["checkout", "--quiet", "-b", "fix/x", &base]);
    repository.write("b.txt", "mended\n");
    let head = repository.commit("mend it");
    house.run(&["release", "build", "hello", "--from", "r1", "--branch", "fix/x"]).await.ends(0);
    let shown = house.json(&["release", "show", "hello@r2"]).await;
    assert_eq!((&shown["commit"], &shown["hot_fix"]["of"]), (&head.as_str().into(), &1.into()), "{shown}");
    assert!(log(&house, "hello@r2").await.contains("has a.txt b.txt and says one"));
    // A branch that has more than the release.
    let said = house.run(&["release", "build", "hello", "--from", "r2", "--branch", "main"]).await.ends(1);
    said.complains_once(&["main"]);

    house.run(&["release", "build", "hello", "--from", "r1", "--pick", &fix[..12]]).await.ends(0);
    let picked = house.json(&["release", "show", "hello@r3"]).await;
    let picks = &picked["hot_fix"]["picks"];
    assert_eq!((&picks[0]["id"], &picks[0]["subject"]), (&fix.as_str().into(), &"the fix".into()), "{picked}");
    assert!(log(&house, "hello@r3").await.contains("has a.txt fix.txt and says one"));
    // The same picks are the same commit, wherever and whenever they are made.
    house.run(&["release", "build", "hello", "--from", "r1", "--pick", &fix, "--again"]).await.ends(0);
    assert_eq!(house.json(&["release", "show", "hello@r4"]).await["commit"], picked["commit"]);
    // A conflict is shown as one, and makes no release.
    let before = count(&house.json(&["release", "list", "hello"]).await);
    let said = house.run(&["release", "build", "hello", "--from", "r1", "--pick", &feature, "--pick", &changed]).await;
    said.ends(1).complains(&["a.txt", &changed[..7]]);
    assert_eq!(count(&house.json(&["release", "list", "hello"]).await), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_diff_and_verify_say_what_changed_and_what_is_damaged() {
    let (house, repository, [base, feature, ..]) = released().await;
    let service = repository.service().replace("stop = \"2s\"", "stop = \"3s\"");
    repository.write("pointsman.toml", &service);
    let newest = repository.commit("stop later");
    house.run(&["release", "build", "hello"]).await.ends(0);
    let diff = house.json(&["release", "diff", "hello@r1", "r2"]).await;
    let added: Vec<_> = diff["added"].as_array().expect("a list").iter().map(|one| one["id"].clone()).collect();
    assert_eq!((added.first(), added.len()), (Some(&newest.as_str().into()), 5), "{diff}");
    assert!(added.contains(&feature.as_str().into()) && !added.contains(&base.as_str().into()), "{diff}");
    let settings = diff["configuration"].as_array().expect("a list");
    assert_eq!(settings.len(), 1, "{diff}");
    assert_eq!((&settings[0]["from"], &settings[0]["to"]), (&"2s".into(), &"3s".into()), "{diff}");
    assert_eq!(diff["artifacts"].as_array().map(Vec::len), Some(1), "{diff}");
    let said = house.run(&["release", "diff", "hello@r2", "r1"]).await.ends(0).out;
    assert!(said.contains("a feature") && said.contains("stop later"), "{said}");

    house.run(&["release", "verify", "hello@r2"]).await.ends(0);
    let digest = house.json(&["release", "show", "hello@r2"]).await["artifacts"][0]["digest"].clone();
    let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest").to_owned();
    let manifest = house.path("controller/artifacts/blobs/sha256").join(hex);
    flip_a_byte(&manifest);
    let said = house.run(&["release", "verify", "hello@r2"]).await.ends(1);
    assert!((said.out + &said.err).contains("web"));
    flip_a_byte(&manifest);
    house.run(&["release", "verify", "hello@r2"]).await.ends(0);
}
