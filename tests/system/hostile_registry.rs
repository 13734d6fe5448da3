//! h85: bytes that are not what their digest says. One flipped byte is never run, wherever it was flipped.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Client, House, Registry, Repository, STAGE, Speech, flip_a_byte, until};
use crate::releases_images::releases_toml;

const AGENTS: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"agent\", group = \"prod\" }\n";

/// A house with an agent and a repository; r1 serves.
async fn serving_r1() -> (House, Repository) {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    house.apply(&[("production.toml", AGENTS), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    (house, repository)
}

/// The largest file of a folder: the layer, and not its manifest.
fn largest(folder: PathBuf) -> PathBuf {
    let files = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    files.max_by_key(|file| fs::metadata(file).map(|data| data.len()).unwrap_or_default()).expect("a file")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_one_flipped_byte_in_the_layout_is_never_run() {
    let (mut house, repository) = serving_r1().await;
    let proxy = house.proxy("p1", 1).await;
    let pid = Client::plain(proxy.http, Speech::Http1).asks().await.pid;
    // Some text that gzip cannot make small: the newest layer is the largest.
    repository.write("server.py", &(fs::read_to_string(house.path("hello/server.py")).expect("read") + &noise()));
    repository.commit("the second");
    house.run(&["release", "build", "hello"]).await.ends(0);
    let layer = largest(house.path("controller/artifacts/blobs/sha256"));
    flip_a_byte(&layer);
    house.run(&["promote", "hello@r2", "--to", "production", "--no-wait"]).await.ends(4);
    until("status says why", async || {
        let status = house.run(&["status", STAGE]).await.ends(0).out;
        status.contains("has another digest").then_some(())
    })
    .await;
    let answer = Client::plain(proxy.http, Speech::Http1).asks().await;
    assert_eq!((answer.release.as_str(), answer.pid), ("r1", pid));
    assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
    // Mended, it starts without being asked for again.
    flip_a_byte(&layer);
    until("r2 serves", async || (house.serving().await.of(STAGE, 2) == Some(("stable", 1_000_000))).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_one_flipped_byte_on_the_agents_disk_is_fetched_again_and_never_run() {
    let (mut house, _repository) = serving_r1().await;
    let proxy = house.proxy("p1", 1).await;
    let pid = Client::plain(proxy.http, Speech::Http1).asks().await.pid;
    let blobs = house.path("a1/artifacts/blobs");
    let layer = largest(blobs.clone());
    let whole = fs::read(&layer).expect("read");
    flip_a_byte(&layer);
    let process = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("not 0");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    // It starts from what the controller has.
    until("another process serves", async || {
        let answer = Client::plain(proxy.http, Speech::Http1).get().await.ok()?;
        (answer.status == 200 && answer.pid != pid).then_some(())
    })
    .await;
    assert_eq!(fs::read(&layer).expect("read"), whole);
}

/// Hex digits that no compression halves twice, as a comment.
fn noise() -> String {
    let mut dice = crate::harness::Dice::thrown();
    let digits: String = (0..4_000).map(|_| format!("{:016x}", dice.next())).collect();
    format!("# {digits}\n")
}

/// A house with an agent whose artifacts go to this registry; r1 is built.
async fn in_a_registry(registry: &Registry) -> (House, Repository) {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let releases = releases_toml(registry, "");
    house
        .apply(&[("production.toml", AGENTS), ("releases.toml", &releases), ("pointsman.toml", &repository.service())])
        .await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    (house, repository)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_what_the_disk_has_lost_comes_from_the_registry_and_not_with_a_flipped_byte() {
    let registry = Registry::start().await;
    let (mut house, _repository) = in_a_registry(&registry).await;
    let proxy = house.proxy("p1", 1).await;
    let blobs = house.path("controller/artifacts/blobs/sha256");
    let layer = largest(blobs.clone());
    let digest = format!("sha256:{}", layer.file_name().and_then(|name| name.to_str()).expect("hex"));
    for blob in fs::read_dir(&blobs).expect("a folder").flatten() {
        fs::remove_file(blob.path()).expect("removed");
    }
    flip_a_byte(&registry.blob(&digest));
    house.run(&["promote", "hello@r1", "--to", "production", "--no-wait"]).await.ends(4);
    until("status says why", async || {
        let status = house.run(&["status", STAGE]).await.ends(0).out;
        status.contains("digest").then_some(())
    })
    .await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.status, 503);
    assert!(!layer.exists(), "what does not match is not kept");
    flip_a_byte(&registry.blob(&digest));
    until("r1 serves", async || (house.serving().await.of(STAGE, 1) == Some(("stable", 1_000_000))).then_some(()))
        .await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.release, "r1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h85_a_registry_that_is_down_for_a_while_or_refuses_us_is_told() {
    let mut registry = Registry::start().await;
    let (house, repository) = in_a_registry(&registry).await;
    let pushed = registry.manifests("pointsman/hello/web");
    assert_eq!(pushed.len(), 1);
    // Down while it is pushed, and back.
    registry.kill();
    repository.write("server.py", "#!/bin/sh\necho another\n");
    repository.commit("the second");
    house.run(&["release", "build", "hello", "--no-wait"]).await.ends(4);
    until("it is packed", async || {
        house.run(&["release", "logs", "hello@r2"]).await.out.contains("packed web").then_some(())
    })
    .await;
    registry.starts_again().await;
    registry.has("pointsman/hello/web", 2).await;
    until("it is ready", async || {
        (house.json(&["release", "show", "hello@r2"]).await["state"] == "ready").then_some(())
    })
    .await;
    // Somebody else moves its tag: the digest counts.
    let shown = house.json(&["release", "show", "hello@r2"]).await;
    registry.copies("pointsman/hello/web:r1", "pointsman/hello/web:r2").await;
    house.run(&["release", "verify", "hello@r2"]).await.ends(0);
    assert_eq!(house.json(&["release", "show", "hello@r2"]).await["artifacts"], shown["artifacts"]);
    // Another password.
    let wrong = house.path("wrong");
    fs::write(&wrong, "not the password").expect("written");
    let right = registry.password().display().to_string();
    let text = releases_toml(&registry, "").replace(&right, wrong.to_str().expect("text"));
    house.apply(&[("releases.toml", &text)]).await;
    repository.write("server.py", "#!/bin/sh\necho a third\n");
    repository.commit("the third");
    house.run(&["release", "build", "hello"]).await.ends(1);
    let shown = house.json(&["release", "show", "hello@r3"]).await;
    let problem = shown["problem"].as_str().unwrap_or_default();
    assert!(shown["state"] == "failed" && shown["step"] == "push" && problem.contains(&registry.host()), "{shown}");
    let log = house.run(&["release", "logs", "hello@r3"]).await.ends(0).out;
    assert!(!log.contains("not the password") && log.contains("packed web"), "{log}");
}
