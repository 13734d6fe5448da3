//! Clocks that are off: said in words, by whom it concerns.

use serde_json::Value;

use super::{HOUR, proxy_stream};
use crate::harness::{Client, Clock, House, Speech, until};

/// Waits for a warning that says all of these.
async fn warns(house: &House, expected: &[&str]) -> String {
    until(&format!("status warns of {expected:?}"), async || {
        let warnings = house.json(&["status"]).await["warnings"].as_array()?.clone();
        let mut said = warnings.iter().filter_map(Value::as_str);
        said.find(|said| expected.iter().all(|expected| said.contains(expected))).map(str::to_owned)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_of_a_member_that_is_off_is_told_in_status() {
    let mut house = House::with_hello().await;
    let clock = Clock::new(&house.path("."), "clock");
    clock.moves(3 * HOUR + 150);
    house.give_clock(&clock);
    house.agent("a1", "prod").await;
    warns(&house, &["the clock of a1 is 3h 2m ahead of the controller's"]).await;
    let token = house.invite(&["proxy", "--name", "p1"]).await.parse().expect("a token");
    let identity = certs::fleet::join(&token, &house.path("p1"), "test").await.expect("joined");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
    let at_ms = u64::try_from(now.as_millis()).expect("a time") - 86_400_000;
    let mut stream = proxy_stream(identity.channel().expect("usable"), at_ms).await.expect("it belongs");
    stream.begins().await;
    warns(&house, &["the clock of p1 is 1d behind the controller's"]).await;
    // Set right, it is not warned of any more.
    house.kill("a1");
    clock.moves(0);
    house.start("a1").await;
    until("it is right", async || {
        let warnings = house.json(&["status"]).await["warnings"].to_string();
        (!warnings.contains("clock of a1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_that_is_off_by_a_day_is_reported_on_both_sides() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let clock = Clock::new(&house.path("."), "clock");
    house.give_clock(&clock);
    let proxy = house.proxy("p1", 1).await;
    for (seconds, name) in [(-24 * HOUR, "p1"), (48 * HOUR, "p1")] {
        house.kill(name);
        clock.moves(seconds);
        house.start(name).await;
        house.part(name).says("one of the two clocks is wrong").await;
        let said = house.part(name).log();
        let line = said.lines().find(|line| line.contains("one of the two clocks")).expect("said").to_owned();
        assert!(line.contains("the clock of this machine says 20") && line.contains("is valid until 20"), "{line}");
        assert!(line.contains("the controller is away"), "it is the link's reason: {line}");
        let warning = warns(&house, &["127.0.0.1", "refuses the controller's certificate as expired"]).await;
        assert!(warning.contains("from where p1 was heard last") && warning.contains("clock is probably wrong"));
        assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.status, 200, "it serves all the same");
        clock.moves(0);
        house.follows(name).await;
        until("nobody is warned any more", async || {
            let warnings = house.json(&["status"]).await["warnings"].to_string();
            (!warnings.contains("refuses")).then_some(())
        })
        .await;
    }
    // Who joins is told, and so is an operator.
    let token = house.invite(&["proxy", "--name", "p2"]).await;
    let wrong = Clock::new(&house.path("."), "wrong");
    wrong.moves(-24 * HOUR);
    house.live_by(&wrong);
    let line = ["proxy", "--data", "p2", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--join", &token];
    house.run_bare(&line).await.ends(1).complains(&["cannot be joined: the clock of this machine says"]);
    house.run(&["status"]).await.ends(1).complains_once(&["cannot be verified: the clock of this machine says"]);
}
