//! Parts that die: the others go on, and what comes back is as it was.

use rustix::process::Signal;

use crate::harness::{Changed, Client, House, Load, Repository, STAGE, Speech, alone, is_broken, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_controller_under_load_fails_no_request_and_loses_nothing() {
    let _alone = alone().await;
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxies = [house.proxy("p1", 2).await, house.proxy("p2", 2).await];
    let load = Load::start(&proxies.map(|proxy| proxy.https), &house.authority());
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "12.5%"]).await.ends(0);
    load.goes_on(1_000).await;

    let (serving, history) = (house.serving().await, house.history().await);
    let releases = house.json(&["release", "list", "hello"]).await;
    house.kill_controller();
    load.goes_on(2_000).await;
    house.start_controller(&[]).await;

    assert_eq!(house.serving().await, serving);
    assert_eq!(house.json(&["release", "list", "hello"]).await, releases);
    let after = house.history().await;
    assert_eq!(after[..history.len()], history, "nothing is lost and nothing is changed");
    let added: Vec<&str> = after[history.len()..].iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(added, ["started"]);

    for name in ["p1", "p2"] {
        house.follows(name).await;
    }
    house.operator().changes(Changed::rollback(), 2).await;
    for proxy in proxies {
        assert_eq!(Client::plain(proxy.http, Speech::Http2).counts(20).await.get("r1"), Some(&20));
    }
    load.goes_on(500).await;
    load.ends_without_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_controller_amid_changes_keeps_every_change_that_was_answered() {
    let _alone = alone().await;
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    let load = Load::start(&[proxy.https], &house.authority());
    house.operator().changes(Changed::promote(2, Some(1)), 1).await;
    let mut share = 1u32;
    for round in 0..5u32 {
        let mut operator = house.operator();
        let changes = tokio::spawn(async move {
            let mut answered = share;
            loop {
                let next = answered + 1;
                match operator.send(&format!("{round}-{next}"), Changed::weight(next)).await {
                    Ok(_) => answered = next,
                    Err(status) => return (answered, status),
                }
            }
        });
        load.goes_on(100 + u64::from(round) * 37).await;
        house.kill_controller();
        let (answered, status) = changes.await.expect("ended");
        assert!(is_broken(&status), "{status:?}");
        house.start_controller(&[]).await;
        let (role, weight) =
            house.serving().await.of(STAGE, 2).map(|(role, ppm)| (role.to_owned(), ppm)).expect("there");
        // The one that was under way may have been recorded before the crash.
        let possible = [u64::from(answered), u64::from(answered) + 1];
        assert!(role == "canary" && possible.contains(&weight), "answered {answered}, found {weight}");
        share = u32::try_from(weight).expect("parts per million");
        house.follows("p1").await;
    }
    let seen: Vec<u64> = house.history().await.iter().map(|entry| entry.event).collect();
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "the history has no gap");
    load.ends_without_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_a_proxy_without_controller_serves_the_last_weights_from_disk() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);
    house.run(&["rollout", "weight", STAGE, "12.5%"]).await.ends(0);
    house.kill_controller();
    for _ in 0..3 {
        house.kill("p1");
        house.start("p1").await;
        // The port, the certificate and the weights are those of before.
        let mut client = Client::tls(proxy.https, Speech::Http2, &house.authority());
        let counts = client.counts(400).await;
        assert!((49..=51).contains(&counts["r2"]), "{counts:?}");
    }
    house.start_controller(&[]).await;
    house.follows("p1").await;
    house.operator().changes(Changed::rollback(), 1).await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).counts(20).await["r1"], 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_a_proxy_right_after_a_rollback_never_undoes_it() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    for round in 0..6 {
        let mut operator = house.operator();
        operator.changes(Changed::promote(2, Some(900_000)), 1).await;
        if round % 2 == 1 {
            operator.changes(Changed::weight(1_000_000), 1).await;
        }
        operator.changes(Changed::rollback(), 1).await;
        house.kill("p1");
        house.kill_controller();
        house.start("p1").await;
        let counts = Client::plain(proxy.http, Speech::Http2).counts(40).await;
        assert_eq!(counts.get("r1"), Some(&40), "round {round}: {counts:?}");
        house.start_controller(&[]).await;
        house.follows("p1").await;
        house.operator().changes(Changed::unhold(2), 0).await;
    }
}

/// A release of a real repository on an agent, and what runs it.
async fn on_an_agent(house: &mut House) -> Repository {
    let repository = Repository::new(house.path("hello"));
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                       target = { kind = \"agent\", group = \"prod\" }\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    repository
}

async fn healthy_endpoints(house: &House) -> u64 {
    let status = house.json(&["status", STAGE]).await;
    let releases = status["services"][0]["stages"][0]["releases"].as_array().cloned().unwrap_or_default();
    let endpoints = releases.iter().flat_map(|release| release["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|endpoint| endpoint["state"] == "healthy").count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_agent_leaves_releases_running_and_finds_them_again() {
    let mut house = House::with_controller().await;
    let repository = on_an_agent(&mut house).await;
    house.shows_releases().await;
    let proxy = house.proxy("p1", 2).await;
    let load = Load::start(&[proxy.https], &house.authority());
    let mut client = Client::plain(proxy.http, Speech::Http1);
    let pid = client.asks().await.pid;
    load.goes_on(200).await;

    house.kill("a1");
    load.goes_on(300).await;
    house.start("a1").await;
    until("the release is healthy again", async || (healthy_endpoints(&house).await == 1).then_some(())).await;
    assert_eq!(client.asks().await.pid, pid, "the same process serves");

    // The agent that came back is a whole one: it starts the next release and ends the one before.
    repository.commit("the second");
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);
    let answer = Client::plain(proxy.http, Speech::Http1).to("r2--hello.production.localhost").asks().await;
    assert_eq!((answer.status, answer.release.as_str()), (200, "r2"));
    house.operator().changes(Changed::rollback(), 1).await;
    assert_eq!(client.asks().await.pid, pid);
    load.goes_on(200).await;
    load.ends_without_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_controller_and_agent_together_leaves_releases_running() {
    let mut house = House::with_controller().await;
    let _repository = on_an_agent(&mut house).await;
    let proxy = house.proxy("p1", 2).await;
    let mut client = Client::plain(proxy.http, Speech::Http1);
    let pid = client.asks().await.pid;
    house.kill_controller();
    house.kill("a1");
    house.kill("p1");
    house.start("p1").await;
    assert_eq!(client.asks().await.pid, pid);
    // The agent finds its release before any controller tells it what to run.
    house.start("a1").await;
    house.start_controller(&[]).await;
    until("the release is healthy again", async || (healthy_endpoints(&house).await == 1).then_some(())).await;
    assert_eq!(client.asks().await.pid, pid);
    let history = house.history().await;
    assert_eq!(history.iter().filter(|entry| entry.kind == "placed").count(), 1, "{history:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_a_release_is_mended_by_its_agent() {
    let mut house = House::with_controller().await;
    let _repository = on_an_agent(&mut house).await;
    let proxy = house.proxy("p1", 2).await;
    let mut client = Client::plain(proxy.http, Speech::Http1);
    let pid = client.asks().await.pid;
    let process = rustix::process::Pid::from_raw(pid.parse().expect("a number")).expect("not 0");
    rustix::process::kill_process(process, Signal::KILL).expect("it runs");
    until("another process serves", async || {
        let answer = client.get().await.ok()?;
        (answer.status == 200 && answer.pid != pid).then_some(())
    })
    .await;
    // The process may serve before the agent has told of it.
    until("the controller knows of one start more", async || {
        let status = house.json(&["status", STAGE]).await;
        (status["services"][0]["stages"][0]["releases"][0]["endpoints"][0]["restarts"] == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_of_the_controller_amid_a_build_builds_once_more_and_only_once() {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                       target = { kind = \"agent\", group = \"prod\" }\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
    let gate = house.path("gate");
    let wait = format!("#!/bin/sh\nset -eu\necho waiting\nwhile [ ! -e {} ]; do sleep 0.05; done\n", gate.display());
    repository.write("build.sh", &(wait + "mkdir -p dist\ncp server.py dist/\n"));
    repository.commit("a slow build");
    house.run(&["release", "build", "hello", "--no-wait"]).await.ends(4);
    until("the build runs", async || {
        house.run(&["release", "logs", "hello@r1"]).await.out.contains("waiting").then_some(())
    })
    .await;
    house.kill_controller();
    std::fs::write(gate, "").expect("written");
    house.start_controller(&[]).await;
    until("the release is ready", async || {
        (house.json(&["release", "show", "hello@r1"]).await["state"] == "ready").then_some(())
    })
    .await;
    let kinds: Vec<String> = house.history().await.into_iter().map(|entry| entry.kind).collect();
    for kind in ["release_requested", "build_started", "release_built"] {
        assert_eq!(kinds.iter().filter(|found| *found == kind).count(), 1, "{kind}: {kinds:?}");
    }
}
