//! The queue of builds: one at a time of each service, ended and tried again by hand, held up by limits.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Clock, GitServer, House, Repository, running_in, until};

const STATIC: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"static\" }\n";

/// A build that says that it waits, and does until the gate is there.
fn waits_for(gate: &std::path::Path) -> String {
    format!(
        "#!/bin/sh\nset -eu\necho waiting\nwhile [ ! -e {} ]; do sleep 0.05; done\nmkdir -p dist\ncp server.py dist/\n",
        gate.display()
    )
}

async fn shown(house: &House, release: &str) -> Value {
    house.json(&["release", "show", release]).await
}

async fn becomes(house: &House, release: &str, state: &str) -> Value {
    until(&format!("{release} is {state}"), async || {
        Some(shown(house, release).await).filter(|one| one["state"] == state)
    })
    .await
}

async fn is_waiting(house: &House, release: &str) {
    until(&format!("{release} is being built"), async || {
        house.run(&["release", "logs", release]).await.out.contains("waiting").then_some(())
    })
    .await;
}

/// A house whose service builds when the gate is there.
async fn gated() -> (House, Repository, PathBuf) {
    let house = House::with_controller().await;
    let (repository, gate) = (Repository::new(house.path("hello")), house.path("gate"));
    repository.write("build.sh", &waits_for(&gate));
    repository.commit("a slow build");
    house.apply(&[("production.toml", STATIC), ("pointsman.toml", &repository.service())]).await;
    (house, repository, gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_are_cancelled_in_the_queue_and_amid_their_build_and_tried_again() {
    let (house, repository, gate) = gated().await;
    house.run(&["release", "build", "hello", "--no-wait"]).await.ends(4);
    is_waiting(&house, "hello@r1").await;
    repository.commit("the next");
    house.run(&["release", "build", "hello", "--no-wait"]).await.ends(4);
    let waits = shown(&house, "hello@r2").await;
    assert!(waits["state"] == "queued" && waits["waits"].as_str().is_some_and(|why| why.contains("r1")), "{waits}");

    // What waits ends at once, what is built with its processes.
    house.run(&["release", "cancel", "hello@r2", "--reason", "not needed"]).await.ends(0);
    assert_eq!(shown(&house, "hello@r2").await["state"], "cancelled");
    house.run(&["release", "cancel", "hello@r1"]).await.ends(4);
    becomes(&house, "hello@r1", "cancelled").await;
    until("its processes are gone", async || running_in(&house.path("controller/work")).is_empty().then_some(())).await;
    let log = house.run(&["release", "logs", "hello@r1"]).await.ends(0).out;
    assert!(log.contains("waiting") && log.contains("cancelled"), "{log}");

    house.run(&["release", "retry", "hello@r1", "--no-wait"]).await.ends(4);
    is_waiting(&house, "hello@r3").await;
    fs::write(&gate, "").expect("written");
    let retried = becomes(&house, "hello@r3", "ready").await;
    let first = shown(&house, "hello@r1").await;
    assert_eq!((&retried["retry_of"], &retried["commit"]), (&1.into(), &first["commit"]), "{retried}");
    for done in [["release", "retry", "hello@r3"], ["release", "cancel", "hello@r3"]] {
        house.run(&done).await.ends(1);
    }
    // The same commit is that release, unless somebody wants it built once more.
    repository.git(&["reset", "--quiet", "--hard", first["commit"].as_str().expect("a commit")]);
    let again = house.run(&["release", "build", "hello"]).await.ends(0);
    assert!((again.out + &again.err).contains("hello@r3"));
    house.run(&["release", "build", "hello", "--again"]).await.ends(0);
    assert_eq!(shown(&house, "hello@r4").await["state"], "ready");
    let kinds: Vec<String> = house.history().await.into_iter().map(|one| one.kind).collect();
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("build_started"), count("release_cancelled"), count("release_built")), (3, 2, 2), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_that_begin_by_themselves_wait_for_their_hour_and_those_by_hand_do_not() {
    let mut house = House::empty();
    let clock = Clock::new(&house.path(""), "clock");
    house.live_by(&clock);
    house.start_controller(&[]).await;
    let repository = Repository::new(house.path("hello"));
    let server = GitServer::start(house.path("")).await;
    let trigger = "[trigger]\ncommits = true\npoll = \"5s\"\nlimits = { hour = 1 }\n";
    let service = format!("{}{trigger}", repository.service_at(&format!("{}/hello/.git", server.url)));
    repository.write("pointsman.toml", &service);
    repository.commit("one");
    house.apply(&[("production.toml", STATIC), ("pointsman.toml", &service)]).await;
    until("the first is ready", async || {
        let said = house.run(&["-o", "json", "release", "show", "hello@r1"]).await;
        (said.code == Some(0) && said.json()["state"] == "ready").then_some(())
    })
    .await;
    let second = repository.commit("two");
    let looks = server.looks();
    until("it was looked at twice", async || (server.looks() > looks + 1).then_some(())).await;
    let begun = async || house.history().await.iter().filter(|one| one.kind == "build_started").count();
    assert_eq!(begun().await, 1, "one an hour");
    // A person is not held up.
    repository.git(&["branch", "other", "HEAD~1"]);
    house.run(&["release", "build", "hello", "--branch", "other", "--again"]).await.ends(0);
    assert_eq!(begun().await, 2);
    clock.moves(3_700);
    until("the second is ready", async || {
        let list = house.json(&["release", "list", "hello"]).await;
        let all = list["releases"].as_array().cloned().unwrap_or_default();
        all.iter().any(|one| one["commit"] == second.as_str() && one["state"] == "ready").then_some(())
    })
    .await;
    assert_eq!(begun().await, 3);
}
