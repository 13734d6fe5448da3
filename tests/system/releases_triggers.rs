//! What asks for releases by itself: heads of branches, tags, times, webhooks; and repositories whose services register
//! themselves.

use std::fs;

use serde_json::Value;

use crate::harness::{
    Client, Clock, GitServer, HOST, House, Repository, STAGE, Speech, Upstream, Webhook, now_ms, until,
};

const STATIC: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                      target = { kind = \"static\" }\n";
const SECRET: &str = "a secret of both sides";

/// The releases of hello, the newest first.
async fn releases(house: &House) -> Vec<Value> {
    let list = house.json(&["release", "list", "hello", "--all"]).await;
    list["releases"].as_array().cloned().unwrap_or_default()
}

/// Waits until a release is ready.
async fn ready(house: &House, number: u32) -> Value {
    let name = format!("hello@r{number}");
    until(&format!("{name} is ready"), async || {
        let said = house.run(&["-o", "json", "release", "show", &name]).await;
        let shown = (said.code == Some(0)).then(|| said.json())?;
        assert!(shown["state"] != "failed", "{shown}");
        (shown["state"] == "ready").then_some(shown)
    })
    .await
}

/// A repository over HTTP that the operator has listed, with a webhook.
struct Listed {
    house: House,
    repository: Repository,
    server: GitServer,
    webhook: Webhook,
}

impl Listed {
    /// hello is in it, and builds as `trigger` and `build` say.
    async fn new(kind: &str, trigger: &str, build: &str) -> Self {
        let house = House::with_controller().await;
        let repository = Repository::new(house.path("hello"));
        let server = GitServer::start(house.path("")).await;
        let url = format!("{}/hello/.git", server.url);
        repository.write("pointsman.toml", &format!("{}[trigger]\n{trigger}\n", repository.service_at(&url)));
        repository.write("build.sh", build);
        repository.commit("commit 1");
        let secret = house.path("hook-secret");
        fs::write(&secret, SECRET).expect("written");
        let releases = format!(
            "schema = 1\n[repository.shop]\nurl = \"{url}\"\nservices = [\"hello\"]\n\
             webhook = {{ kind = \"{kind}\", secret = {{ file = {secret:?} }} }}\n"
        );
        house.apply(&[("production.toml", STATIC), ("releases.toml", &releases)]).await;
        let webhook = Webhook::new(&house, "shop", SECRET);
        Self { house, repository, server, webhook }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_a_hundred_commits_within_a_minute_make_at_most_two_builds() {
    let gate = tempfile::tempdir().expect("a folder");
    let open = gate.path().join("open");
    let build = format!(
        "#!/bin/sh\nset -eu\necho waiting\nwhile [ ! -e {} ]; do sleep 0.05; done\nmkdir -p dist\ncp server.py dist/\n",
        open.display()
    );
    let listed = Listed::new("signed", "commits = true", &build).await;
    let house = &listed.house;
    until("the first of them is being built", async || {
        let said = house.run(&["release", "logs", "hello@r1"]).await;
        said.out.contains("waiting").then_some(())
    })
    .await;
    let mut last = String::new();
    for number in 2..=100 {
        last = listed.repository.commit(&format!("commit {number}"));
        assert_eq!(listed.webhook.tells().await, "202");
    }
    fs::write(&open, "").expect("written");
    let shown = ready(house, 2).await;
    assert_eq!((&shown["commit"], &shown["subject"]), (&last.as_str().into(), &"commit 100".into()), "{shown}");
    let overtook: Vec<_> =
        shown["overtook"].as_array().expect("a list").iter().map(|one| one["subject"].clone()).collect();
    let expected: Vec<Value> = (2..100).rev().map(|number| format!("commit {number}").into()).collect();
    assert_eq!((overtook, &shown["overtook_more"]), (expected, &0.into()));
    // All is quiet: another look finds nothing to build.
    let looks = listed.server.looks();
    assert_eq!(listed.webhook.tells().await, "202");
    until("it was looked at once more", async || (listed.server.looks() > looks).then_some(())).await;
    assert_eq!(releases(house).await.len(), 2);
    let begun = house.history().await.iter().filter(|one| one.kind == "build_started").count();
    assert_eq!(begun, 2);
    assert!(looks < 100, "{looks} looks for a hundred commits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_register_themselves_and_their_address_exists_before_anything_serves() {
    let listed = Listed::new("github", "commits = false", "#!/bin/sh\nmkdir -p dist\ncp server.py dist/\n").await;
    let mut house = listed.house;
    until("hello has registered itself", async || {
        let said = house.run(&["-o", "json", "service", "list"]).await.ends(0).json();
        said["services"].as_array()?.iter().any(|service| service["registered_by"] == "shop").then_some(())
    })
    .await;
    let proxy = house.proxy("p1", 1).await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).to(HOST).asks().await.status, 503);
    assert_eq!(Client::plain(proxy.http, Speech::Http1).to("other.production.localhost").asks().await.status, 404);
    let resolved = house.json(&["service", "resolve", STAGE]).await;
    assert_eq!((&resolved["public"], &resolved["registered_by"]), (&true.into(), &"shop".into()), "{resolved}");
    assert!(resolved["hosts"].to_string().contains(HOST), "{resolved}");
    // It serves like any other.
    let upstream = Upstream::start("r1").await;
    assert_eq!(house.release(&upstream).await, "hello@r1");
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    assert_eq!(Client::plain(proxy.http, Speech::Http1).to(HOST).asks().await.status, 200);
    // What the file says, the repository says: nobody applies another one.
    let text = listed.repository.service_at(&format!("{}/hello/.git", listed.server.url));
    fs::write(house.path("pointsman.toml"), &text).expect("written");
    house.run(&["apply", "-f", "pointsman.toml"]).await.ends(1).complains(&["shop"]);
    // A name that is not its own.
    listed.repository.write("pointsman.toml", &text.replace("service = \"hello\"", "service = \"bank\""));
    listed.repository.commit("take over the bank");
    assert_eq!(listed.webhook.tells_as_github("push").await, "202");
    until("it is told", async || {
        let said = house.json(&["repository", "list"]).await.to_string();
        (said.contains("bank") && said.contains("may register hello")).then_some(())
    })
    .await;
    let services = house.json(&["service", "list"]).await;
    assert_eq!(services["services"].as_array().map(Vec::len), Some(1), "{services}");
    assert_eq!(Client::plain(proxy.http, Speech::Http1).to(HOST).asks().await.status, 200);
    // Somebody who does not know the secret.
    let other = Webhook::new(&house, "shop", "another secret");
    assert_eq!((other.tells_as_github("push").await.as_str(), other.tells().await.as_str()), ("401", "401"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_by_tags_of_their_form_and_no_tag_that_has_moved() {
    let house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let service = repository
        .service()
        .replace(" }\n[build]", ", tags = \"v{semver}\" }\n[trigger]\ntags = true\npoll = \"5s\"\n[build]");
    assert_ne!(service, repository.service());
    repository.write("pointsman.toml", &service);
    let first = repository.commit("the service");
    repository.git(&["tag", "v0.9.0"]);
    house.apply(&[("production.toml", STATIC), ("pointsman.toml", &service)]).await;
    until("what was there before is on record", async || {
        house.history().await.iter().any(|one| one.kind == "tags_seen").then_some(())
    })
    .await;
    assert!(releases(&house).await.is_empty(), "nothing old is released");
    let second = repository.commit("another");
    for tag in ["nightly", "v1", "v1.0.0+build", "v1.0.0"] {
        repository.git(&["tag", tag]);
    }
    let shown = ready(&house, 1).await;
    assert_eq!((&shown["trigger"], &shown["version"]), (&"tag v1.0.0".into(), &"v1.0.0".into()), "{shown}");
    assert_eq!(shown["commit"], second.as_str());
    // A tag that moves is no tag.
    repository.git(&["tag", "--force", "v1.0.0", &first]);
    let said = house.run(&["release", "build", "hello", "--tag", "v1.0.0"]).await.ends(1);
    said.complains_once(&["v1.0.0", &first[..7], &second[..7]]);
    house.run(&["release", "verify", "hello@r1"]).await.ends(1);
    assert_eq!(releases(&house).await.len(), 1, "the others are of no form, or were moved");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_by_schedule_take_the_head_once_and_only_if_it_is_new() {
    let mut house = House::empty();
    let clock = Clock::new(&house.path(""), "clock");
    house.live_by(&clock);
    house.start_controller(&[]).await;
    let repository = Repository::new(house.path("hello"));
    let trigger = "[trigger]\nschedule = \"0 3 * * *\"\ntime_zone = \"Australia/Sydney\"\npoll = \"5s\"\n";
    let service = format!("{}{trigger}", repository.service());
    repository.write("pointsman.toml", &service);
    repository.commit("by night");
    house.apply(&[("production.toml", STATIC), ("pointsman.toml", &service)]).await;
    assert!(releases(&house).await.is_empty());
    let started_ms = now_ms();
    // Three nights go by while nobody looks: they count once.
    clock.moves(3 * 86_400);
    let shown = ready(&house, 1).await;
    assert_eq!((&shown["trigger"], &shown["subject"]), (&"schedule".into(), &"by night".into()), "{shown}");
    assert!(shown["created_ms"].as_u64() > Some(started_ms + 2 * 86_400_000), "by the clock of the house: {shown}");
    // The next night finds nothing new; the one after it does.
    clock.moves(4 * 86_400);
    repository.git(&["commit", "--quiet", "--allow-empty", "--message", "by day"]);
    clock.moves(5 * 86_400);
    let shown = ready(&house, 2).await;
    assert_eq!(shown["subject"], "by day");
    assert_eq!(releases(&house).await.len(), 2);
}
