//! h81: a proxy whose last good state was damaged says so, and never serves an empty table as if it were right.

use std::fs;

use crate::harness::{Client, HOST, House, Proxy, Speech, Upstream, until};

/// A proxy that has served, and is stopped now like its controller.
async fn stopped() -> (House, Proxy, [Upstream; 2]) {
    let mut house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "100%"]).await.ends(0);
    house.kill("p1");
    house.kill_controller();
    (house, proxy, [r1, r2])
}

/// It serves nothing and says that it cannot, until the controller sends what should be.
async fn waits_for_the_controller(house: &mut House, proxy: Proxy, what: &str) {
    house.start("p1").await;
    let said = house.part("p1").log();
    assert!(said.contains("ERROR") || said.contains("WARN"), "{what}: {said}");
    assert!(said.contains("state/base") && said.contains("starting without routes"), "{what}: {said}");
    for (host, speech) in [(HOST, Speech::Http1), (HOST, Speech::Http2), ("other.localhost", Speech::Http1)] {
        let answer = Client::plain(proxy.http, speech).to(host).asks().await;
        assert_eq!(answer.status, 503, "{what}, {host}: {answer:?}");
    }
    house.start_controller(&[]).await;
    let mut client = Client::plain(proxy.http, Speech::Http1);
    until("the proxy serves again", async || {
        let answer = client.asks().await;
        assert!([200, 503].contains(&answer.status), "{what}: {answer:?}");
        (answer.release == "r2").then_some(())
    })
    .await;
    house.follows("p1").await;
    house.kill("p1");
    house.kill_controller();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h81_a_damaged_base_is_told_and_503_until_the_controller_is_there() {
    let (mut house, proxy, _releases) = stopped().await;
    let base = house.path("p1/state/base");
    fs::write(&base, b"garbage").expect("written");
    waits_for_the_controller(&mut house, proxy, "garbage").await;

    fs::write(&base, "").expect("written");
    waits_for_the_controller(&mut house, proxy, "empty").await;

    let mut bytes = fs::read(&base).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&base, bytes).expect("written");
    waits_for_the_controller(&mut house, proxy, "a flipped bit").await;

    // Something that cannot be read, also by root.
    fs::remove_file(&base).expect("removed");
    fs::create_dir(&base).expect("made");
    house.start("p1").await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h81_a_damaged_log_leaves_the_last_whole_state() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);
    house.run(&["rollback", "hello/production"]).await.ends(0);
    house.kill("p1");
    house.kill_controller();
    let log = house.path("p1/state/log");
    let whole = fs::read(&log).expect("read");
    assert!(!whole.is_empty(), "the last change is in the log");
    let mut flipped = whole.clone();
    flipped[whole.len() - 1] ^= 1;
    for (what, bytes) in
        [("cut", &whole[..whole.len() - 7]), ("flipped", &flipped), ("longer", &[&whole[..], b"x"].concat())]
    {
        fs::write(&log, bytes).expect("written");
        house.start("p1").await;
        let said = house.part("p1").log();
        assert!(said.contains("state/log is damaged"), "{what}: {said}");
        let counts = Client::plain(proxy.http, Speech::Http2).counts(40).await;
        let undone = counts.get("r2").copied().unwrap_or(0);
        // Only what was damaged is lost; the last whole state serves, and the loss was told above.
        assert_eq!(undone, if what == "longer" { 0 } else { 20 }, "{what}: {counts:?}");
        house.kill("p1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h81_a_proxy_that_never_had_a_state_answers_503() {
    let mut house = House::with_hello().await;
    let proxy = house.proxy("p1", 1).await;
    house.kill("p1");
    house.kill_controller();
    fs::remove_dir_all(house.path("p1/state")).expect("removed");
    house.start("p1").await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.status, 503);
}
