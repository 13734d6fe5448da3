//! Ways back: in the middle of a rollout and after it, twice, with another release that waits, and one that has to start first.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Client, HOST, House, Proxy, SERVICE, STAGE, Speech, Temper, Upstream, until};

/// Steps that wait for somebody, where the next release waits for the end of the one before.
const STEPS: &str = r#"strategy = "canary"
meanwhile = "queue"
steps = [{ share = "10%", pause = true }, { share = "100%" }]
"#;

/// Longer than anything here takes, and less than the proxy allows an answer.
const HELD: Duration = Duration::from_secs(50);

/// Three releases, the first of which has everything.
async fn house() -> (House, Proxy, [Upstream; 3]) {
    let mut house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    let r3 = Upstream::start("r3").await;
    assert_eq!(house.release(&r3).await, "hello@r3");
    house.apply(&[("pointsman.toml", &[SERVICE, STEPS].concat())]).await;
    let proxy = house.proxy("p1", 2).await;
    (house, proxy, [r1, r2, r3])
}

/// What `status` says of the stage.
async fn stage(house: &House) -> Value {
    house.json(&["status", STAGE]).await["services"][0]["stages"][0].clone()
}

async fn is_bad(house: &House, release: u64) -> bool {
    let stage = stage(house).await;
    let releases = stage["releases"].as_array().into_iter().flatten();
    releases.filter(|one| one["release"] == release).any(|one| one["bad"] == true)
}

async fn kinds(house: &House, kind: &str) -> usize {
    house.history().await.iter().filter(|entry| entry.kind == kind).count()
}

/// Asserts that the text has these, in this order.
#[track_caller]
fn has(text: &str, expected: &[&str]) {
    let mut rest = text;
    for expected in expected {
        let (_, after) = rest.split_once(expected).unwrap_or_else(|| panic!("no {expected:?} in order in:\n{text}"));
        rest = after;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_in_the_middle_of_a_rollout_and_after_it_goes_back_once() {
    let (house, proxy, _upstreams) = house().await;
    for completed in [false, true] {
        house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
        if completed {
            house.run(&["rollout", "weight", STAGE, "100%"]).await.ends(0);
        }
        let plan = house.run(&["rollback", STAGE, "--plan"]).await.ends(0);
        has(&plan.out, &["nothing is changed", "hello/production was rolled back from r2 to r1"]);
        let said = house.run(&["rollback", STAGE, "--reason", "errors"]).await.ends(0);
        let lines = [
            "hello/production was rolled back from r2 to r1\n",
            "proxy p1 switched in ",
            "done: from r2 to r1, the proxy has switched\n",
            "r2 is kept warm until ",
            "to undo: pointsman unhold hello/production r2 && pointsman promote hello@r2 --to production\n",
        ];
        has(&said.out, &lines);
        let again = house.run(&["rollback", STAGE]).await.ends(0);
        has(&again.out, &["was rolled back from r2 to r1 already", "--to rN\n", "nothing had to change\n"]);
        assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
        let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(8).await;
        assert_eq!(counts.get("r1"), Some(&8), "{counts:?}");
        assert!(is_bad(&house, 2).await);
        house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(1).complains_once(&["pointsman unhold"]);
        house.run(&["unhold", STAGE, "r2"]).await.ends(0);
    }
    assert_eq!(kinds(&house, "rolled_back").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_drops_the_release_that_waits_and_says_so() {
    let (house, proxy, _upstreams) = house().await;
    for verb in [&["rollback", STAGE][..], &["rollout", "abort", STAGE][..]] {
        house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
        for said in ["r3 waits until the rollout under way", "r3 waits already"] {
            let waits = house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(4);
            let ends = "`pointsman rollout weight hello/production 100%` completes it";
            has(
                &waits.out,
                &[said, "it enters when the rollout of r2 has ended", ends, "waiting for the rollout of r2 to end\n"],
            );
        }
        assert_eq!(stage(&house).await["queued"]["release"], 3);
        let said = house.run(verb).await.ends(0);
        has(
            &said.out,
            &["rolled back from r2 to r1", "r3 no longer waits", "`pointsman promote hello@r3 --to production`"],
        );
        has(&said.out, &["done: from r2 to r1"]);
        // A second person, who saw the same.
        let again = house.run(&["rollback", STAGE]).await.ends(0);
        has(&again.out, &["already", "nothing had to change"]);
        let after = stage(&house).await;
        assert_eq!((&after["queued"], &after["rollout"]), (&Value::Null, &Value::Null), "{after}");
        assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
        if is_bad(&house, 2).await {
            house.run(&["unhold", STAGE, "r2"]).await.ends(0);
        }
    }
    assert_eq!((kinds(&house, "dropped").await, kinds(&house, "rolled_back").await), (2, 2));
    // It may enter like any other: nothing was found against it.
    house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(0);
    let counts = Client::plain(proxy.http, Speech::Http1).to(HOST).counts(40).await;
    assert!(counts.get("r3") > Some(&0) && !counts.contains_key("r2"), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_says_what_the_release_that_left_still_answers() {
    let mut house = House::with_hello().await;
    let r1 = Upstream::start("r1").await;
    let r2 = Upstream::tempered("r2", Temper::Slow { ppm: 1_000_000, seed: 1, by: HELD }).await;
    for (upstream, release) in [(&r1, "hello@r1"), (&r2, "hello@r2")] {
        assert_eq!(house.release(upstream).await, release);
        house.run(&["promote", release, "--to", "production"]).await.ends(0);
    }
    let proxy = house.proxy("p1", 1).await;
    let mut held = TcpStream::connect(proxy.http).await.expect("connected");
    held.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.expect("sent");
    let in_flight = async |house: &House, expected: u64| {
        until(&format!("{expected} requests of r2 are in flight"), async || {
            let stage = stage(house).await;
            let releases = stage["releases"].as_array()?.iter();
            releases.filter(|one| one["release"] == 2).any(|one| one["outstanding"] == expected).then_some(())
        })
        .await;
    };
    in_flight(&house, 1).await;
    let said = house.run(&["rollback", STAGE]).await.ends(0);
    has(
        &said.out,
        &["r2 is kept warm until ", "r2 still answers 1 request, as the proxies last told: `pointsman status`"],
    );
    let shown = house.run(&["status", STAGE]).await.ends(0);
    has(&shown.out, &["r2 r2", "1 in flight"]);
    // Whoever asked goes: nobody is answered any more.
    drop(held);
    in_flight(&house, 0).await;
    let shown = house.run(&["status", STAGE]).await.ends(0);
    assert!(!shown.out.contains("in flight"), "{}", shown.out);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_that_has_to_start_its_release_can_be_left_and_asked_for_again() {
    let mut house = House::with_a_cold_release().await;
    // What is served goes on without its agent, and nothing starts.
    house.kill("a1");
    let abort = async {
        until("r1 is being fetched back", async || (stage(&house).await["rollout"]["starting"] == true).then_some(()))
            .await;
        house.run(&["rollout", "abort", STAGE]).await
    };
    let (back, aborted) = tokio::join!(house.run(&["rollback", STAGE]), abort);
    let words = "r1 did not get into hello/production: it is not fetched back any more, r2 goes on serving";
    has(&aborted.ends(0).out, &[words]);
    let back = back.ends(1);
    has(
        &back.out,
        &["r1 is no longer warm in hello/production: it needs about", "failed: it is not fetched back any more"],
    );
    assert_eq!(kinds(&house, "rolled_back").await, 0, "nothing went back");
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));

    // It is not done already, and this time it is.
    house.start("a1").await;
    let back = house.run(&["rollback", STAGE]).await.ends(0);
    has(&back.out, &["r1 is no longer warm", "done: from r2 to r1"]);
    assert_eq!(house.serving().await.of(STAGE, 1), Some(("stable", 1_000_000)));
}
