//! Weights and rollbacks under load: nothing fails, and every split is exact.

use api::Share;
use api::operator::change_request::Verb;

use crate::harness::{Changed, Client, HOST, House, Load, Operator, Proxy, STAGE, Speech, alone, burst};

const PROXIES: usize = 4;
const ROUNDS: u32 = 100;
const WEIGHTS_PER_ROUND: u32 = 10;
const REQUESTS: u64 = 100_000;

/// A house with as many proxies as the whole fleet of the first test has.
async fn fleet(house: &mut House) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for number in 1..=PROXIES {
        proxies.push(house.proxy(&format!("p{number}"), 2).await);
    }
    proxies
}

/// Weights that differ from each other and from round to round, from parts of a per mille to nearly everything.
fn weights(round: u32) -> impl Iterator<Item = u32> {
    (1..=WEIGHTS_PER_ROUND).map(move |step| 1 + (round * 7_919 + step * 104_729) % 999_998)
}

/// Rolls back, every tenth time as a person does; afterwards nobody gets the release that was left.
async fn roll_back(house: &House, operator: &mut Operator, proxies: &[Proxy], round: u32) {
    if round.is_multiple_of(10) {
        let said = house.run(&["-o", "json", "rollback", STAGE, "--reason", "round"]).await.ends(0).json();
        assert_eq!(said["outcome"]["switched"].as_array().map(Vec::len), Some(PROXIES), "{said}");
    } else {
        operator.changes(Changed::rollback(), PROXIES).await;
    }
    for proxy in proxies {
        let counts = Client::plain(proxy.http, Speech::Http1).counts(4).await;
        assert_eq!(counts.get("r1"), Some(&4), "round {round}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_thousand_weights_and_a_hundred_rollbacks_under_load_fail_no_request() {
    let _alone = alone().await;
    let mut house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    let proxies = fleet(&mut house).await;
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.https).collect();
    let load = Load::start(&addresses, &house.authority());
    load.reaches(500).await;

    let mut operator = house.operator();
    for round in 0..ROUNDS {
        operator.changes(Changed::promote(2, Some(500_000)), PROXIES).await;
        for share in weights(round) {
            operator.changes(Changed::weight(share), PROXIES).await;
        }
        if round % 10 == 5 {
            // The rollout completes: the way back is as short as before.
            operator.changes(Changed::weight(Share::ALL.ppm()), PROXIES).await;
        }
        roll_back(&house, &mut operator, &proxies, round).await;
        operator.send(&format!("unhold-{round}"), Changed::unhold(2)).await.expect("unheld");
    }

    load.reaches(REQUESTS).await;
    let counted = load.ends_without_failure();
    assert!(counted.by_release.keys().all(|release| ["r1", "r2"].contains(&release.as_str())), "{counted:?}");
    assert!(counted.by_release["r2"] > 0 && r1.requests() > 0 && r2.requests() > 0);
    let forwarded =
        r1.heads().iter().all(|head| head["x-forwarded-proto"] == "https" && head["x-forwarded-host"] == HOST);
    assert!(forwarded, "{:?}", r1.heads().first());

    // All of it is on record, once.
    let history = house.history().await;
    let kinds = |kind: &str| history.iter().filter(|entry| entry.kind == kind).count();
    assert_eq!(kinds("rolled_back"), ROUNDS as usize);
    assert_eq!(kinds("share_set"), (ROUNDS * (WEIGHTS_PER_ROUND + 1)) as usize);
    assert_eq!(kinds("completed"), 1 + ROUNDS as usize / 10);
}

/// Sends `count` requests and asserts at every step that each release has its share of all so far, but for one.
async fn is_exact(client: &mut Client, share: Share, count: u64, at_once: usize) {
    let (mut sent, mut canary) = (0u64, 0u64);
    while sent < count {
        let counts = burst(client, at_once).await;
        sent += at_once as u64;
        canary += counts.get("r2").copied().unwrap_or(0);
        // In parts per million, so that nothing is rounded.
        let exact = sent * u64::from(share.ppm());
        let off = (canary * 1_000_000).abs_diff(exact);
        assert!(off <= 1_000_000, "{share}: {canary} of {sent} requests");
    }
    assert!(canary > 0, "{share}: none of {sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_split_is_within_one_request_of_its_share_on_a_worker() {
    let _alone = alone().await;
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);
    let mut client = Client::plain(proxy.http, Speech::Http2);
    // Requests by share: enough for two of the canary, so that both its first and its distance show.
    for (share, count, at_once) in
        [("1%", 1_000, 1), ("12.5%", 1_000, 1), ("0.01%", 20_480, 64), ("33.3333%", 2_000, 8)]
    {
        house.run(&["rollout", "weight", STAGE, share]).await.ends(0);
        is_exact(&mut client, share.parse().expect("a share"), count, at_once).await;
    }
    for (share, none) in [("0%", "r2"), ("100%", "r1")] {
        house.run(&["rollout", "weight", STAGE, share]).await.ends(0);
        let counts = burst(&mut client, 512).await;
        assert_eq!(counts.get(none), None, "{share}: {counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_weight_counts_once_for_http1_and_http2_together() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "25%"]).await.ends(0);
    let authority = house.authority();
    let mut clients = [
        Client::tls(proxy.https, Speech::Http1, &authority),
        Client::tls(proxy.https, Speech::Http2, &authority),
        Client::plain(proxy.http, Speech::Http1),
        Client::plain(proxy.http, Speech::Http2),
    ];
    let (mut sent, mut canary) = (0u64, 0u64);
    for round in 0..400 {
        let answer = clients[round % 4].asks().await;
        sent += 1;
        canary += u64::from(answer.release == "r2");
        assert!((canary * 4).abs_diff(sent) <= 4, "{canary} of {sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_every_release_has_a_host_of_its_own_and_others_do_not_exist() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "0%"]).await.ends(0);
    // That anybody may call the stage does not show its releases.
    for (host, status) in [(HOST, 200), ("r1--hello.production.localhost", 404)] {
        assert_eq!(Client::plain(proxy.http, Speech::Http1).to(host).asks().await.status, status, "{host}");
    }
    house.shows_releases().await;
    house.follows("p1").await;
    for (host, status, release) in [
        (HOST, 200, "r1"),
        ("r1--hello.production.localhost", 200, "r1"),
        ("r2--hello.production.localhost", 200, "r2"),
        ("r3--hello.production.localhost", 404, ""),
        ("other.production.localhost", 404, ""),
        ("hello.staging.localhost", 404, ""),
    ] {
        let answer = Client::plain(proxy.http, Speech::Http1).to(host).asks().await;
        assert_eq!((answer.status, answer.release.as_str()), (status, release), "{host}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_two_operators_at_once_get_one_order() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let _proxy = house.proxy("p1", 1).await;
    let (mut one, mut other) = (house.operator(), house.operator());
    one.changes(Changed::promote(2, Some(10_000)), 1).await;
    for round in 0..20u32 {
        let weigh = |share: u32| -> Verb { Changed::weight(share) };
        let (first, second) = (format!("one-{round}"), format!("other-{round}"));
        let (mine, theirs) = (20_000 + round * 2, 30_000 + round * 2);
        let (a, b) = tokio::join!(one.send(&first, weigh(mine)), other.send(&second, weigh(theirs)));
        let (a, b) = (a.expect("decided").decided.event, b.expect("decided").decided.event);
        assert!(a > 0 && b > 0 && a != b, "round {round}: {a} {b}");
        let last = if a > b { mine } else { theirs };
        assert_eq!(house.serving().await.of(STAGE, 2), Some(("canary", u64::from(last))));
    }
}
