//! Proxies that do not hear, and a controller that is not there.

use rustix::process::Signal;

use crate::harness::{Client, Happened, House, STAGE, Speech, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_proxy_that_does_not_answer_is_named_and_catches_up() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let (p1, p2) = (house.proxy("p1", 1).await, house.proxy("p2", 1).await);
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);

    house.part("p2").signal(Signal::STOP);
    let said = house.run(&["-o", "json", "rollback", STAGE, "--reason", "drill"]).await.ends(3).json();
    let names = |list: &serde_json::Value| -> Vec<String> {
        let entries = list.as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry["proxy"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(names(&said["outcome"]["switched"]), ["p1"]);
    assert_eq!(names(&said["outcome"]["lagging"]), ["p2"]);
    assert_eq!(Client::plain(p1.http, Speech::Http1).counts(20).await["r1"], 20);
    until("status names the one that is away", async || {
        let status = house.json(&["status"]).await;
        status["warnings"]
            .as_array()?
            .iter()
            .any(|warning| warning.as_str().unwrap_or_default().contains("p2"))
            .then_some(())
    })
    .await;

    house.part("p2").signal(Signal::CONT);
    house.follows("p2").await;
    assert_eq!(Client::plain(p2.http, Speech::Http1).counts(20).await["r1"], 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_lagging_proxy_is_named_in_words_with_the_way_back() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.proxy("p1", 1).await;
    house.part("p1").signal(Signal::STOP);
    let said = house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(3);
    let all = said.out + &said.err;
    assert!(all.contains("p1") && all.contains("pointsman rollback hello/production"), "{all}");
    house.part("p1").signal(Signal::CONT);
    house.follows("p1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_an_override_works_without_a_controller_and_is_recorded_when_it_is_back() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "25%"]).await.ends(0);
    house.kill_controller();
    let mut client = Client::plain(proxy.http, Speech::Http2);

    let set = ["proxy", "override", STAGE, "r2", "--for", "1h", "--reason", "controller is down", "--data", "p1"];
    house.run_bare(&set).await.ends(0);
    assert_eq!(client.counts(20).await["r2"], 20);
    // It outlives the proxy.
    house.kill("p1");
    house.start("p1").await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).counts(20).await["r2"], 20);
    house.run_bare(&["proxy", "override", STAGE, "r9", "--for", "1h", "--reason", "x", "--data", "p1"]).await.ends(1);

    house.start_controller(&[]).await;
    house.follows("p1").await;
    until("it is on record", async || (told(&house).await.len() == 1).then_some(())).await;
    let entry = told(&house).await.remove(0);
    assert_eq!((entry.by.as_str(), entry.reason.as_str()), ("anna on p1", "controller is down"));
    assert!(entry.what.contains("r2") && entry.about == STAGE, "{entry:?}");
    until("status shows it", async || shown(&house).await.contains("p1").then_some(())).await;
    // The controller's weights do not count on that proxy as long as it is in force.
    assert_eq!(house.run(&["rollback", STAGE]).await.code, Some(0));
    assert_eq!(client.counts(10).await["r2"], 10);

    house.run_bare(&["proxy", "override", STAGE, "--end", "--data", "p1"]).await.ends(0);
    assert_eq!(client.counts(20).await["r1"], 20);
    until("its end is on record", async || (told(&house).await.len() == 2).then_some(())).await;
    house.run_bare(&["proxy", "override", STAGE, "--end", "--data", "p1"]).await.ends(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_an_override_ends_by_itself() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "0%"]).await.ends(0);
    let mut client = Client::plain(proxy.http, Speech::Http1);
    let set = ["proxy", "override", STAGE, "r2", "--for", "1s", "--reason", "drill", "--data", "p1"];
    house.run_bare(&set).await.ends(0);
    until("the weights count again", async || (client.asks().await.release == "r1").then_some(())).await;
    until("beginning and end are on record", async || {
        let kinds = house.history().await.into_iter().filter(|entry| entry.kind == "override_told").count();
        (kinds == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_proxy_that_was_away_gets_what_it_missed() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let (p1, _p2) = (house.proxy("p1", 1).await, house.proxy("p2", 1).await);
    house.stop("p1").await;
    let said = house.run(&["-o", "json", "promote", "hello@r2", "--to", "production", "--weight", "10%"]).await;
    assert!(matches!(said.code, Some(0 | 3)), "{said:?}");
    for share in ["20%", "30%", "40%"] {
        house.run(&["rollout", "weight", STAGE, share]).await;
    }
    house.start("p1").await;
    house.follows("p1").await;
    assert_eq!(Client::plain(p1.http, Speech::Http2).counts(100).await["r2"], 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_an_override_is_recorded_once_however_often_the_controller_comes_back() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "0%"]).await.ends(0);
    let set = ["proxy", "override", STAGE, "r2", "--for", "1h", "--reason", "drill", "--data", "p1"];
    house.run_bare(&set).await.ends(0);
    until("it is on record", async || (told(&house).await.len() == 1).then_some(())).await;
    for _ in 0..3 {
        house.kill_controller();
        house.start_controller(&[]).await;
        house.follows("p1").await;
        until("status shows it", async || shown(&house).await.contains("p1").then_some(())).await;
    }
    house.run_bare(&["proxy", "override", STAGE, "--end", "--data", "p1"]).await.ends(0);
    until("its end is on record", async || told(&house).await.last()?.what.contains("ended").then_some(())).await;
    let told: Vec<String> = told(&house).await.into_iter().map(|entry| entry.what).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_an_override_that_begins_and_ends_without_a_controller_is_recorded_when_it_is_back() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "0%"]).await.ends(0);
    house.kill_controller();
    let set = ["proxy", "override", STAGE, "r2", "--for", "1h", "--reason", "controller is down", "--data", "p1"];
    house.run_bare(&set).await.ends(0);
    house.run_bare(&["proxy", "override", STAGE, "--end", "--data", "p1"]).await.ends(0);
    // The proxy tries to connect several times while nobody is there.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;

    house.start_controller(&[]).await;
    house.follows("p1").await;
    until("both are on record", async || (told(&house).await.len() == 2).then_some(())).await;
    let told = told(&house).await;
    assert!(told[0].what.contains("r2") && told[0].reason == "controller is down", "{told:#?}");
    assert!(told[1].what.contains("ended"), "{told:#?}");
}

/// What the history says about overrides.
async fn told(house: &House) -> Vec<Happened> {
    house.history().await.into_iter().filter(|entry| entry.kind == "override_told").collect()
}

/// What status says about overrides in force.
async fn shown(house: &House) -> String {
    house.json(&["status", STAGE]).await["services"][0]["stages"][0]["overrides"].to_string()
}
