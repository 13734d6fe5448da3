//! The soak: everything at once for a long time, and nothing grows. Short in CI; `POINTSMAN_SOAK_MINUTES` makes it long.

use std::time::{Duration, Instant};

use crate::harness::{Changed, Client, House, Load, STAGE, Speech, alone};

const PROXIES: usize = 2;
/// Without the variable: long enough for each kind of round to come by.
const SHORT: Duration = Duration::from_secs(15);
/// Memory may differ by this much between a warm start and the end: allocators keep what they once had.
const SLACK_KIB: u64 = 16 * 1024;

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
}

impl Held {
    fn by(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        let resident_kib = line.trim().trim_end_matches(" kB").parse().expect("a number");
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
        Self { resident_kib, descriptors }
    }
}

fn length() -> Duration {
    match std::env::var("POINTSMAN_SOAK_MINUTES") {
        Ok(minutes) => Duration::from_secs(60 * minutes.parse::<u64>().expect("POINTSMAN_SOAK_MINUTES is a number")),
        Err(_) => SHORT,
    }
}

/// One round of a busy day: a release comes, gets weights, sometimes all of the traffic, and is rolled back.
///
/// `crashes`: the controller dies now and then as well.
async fn round(house: &mut House, number: u32, crashes: bool) {
    let mut operator = house.operator();
    operator.changes(Changed::promote(2, Some(10_000)), PROXIES).await;
    for share in [1, 250_000, 500_000 + number % 400_000] {
        operator.changes(Changed::weight(share), PROXIES).await;
    }
    if number.is_multiple_of(3) {
        operator.changes(Changed::weight(1_000_000), PROXIES).await;
    }
    if crashes && number % 5 == 1 {
        house.kill_controller();
        house.start_controller(&[]).await;
        operator = house.operator();
    }
    if number % 5 == 2 {
        house.kill("p2");
        house.start("p2").await;
    }
    for name in ["p1", "p2"] {
        house.follows(name).await;
    }
    operator.changes(Changed::rollback(), PROXIES).await;
    operator.send(&format!("soak-unhold-{number}"), Changed::unhold(2)).await.expect("unheld");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_weights_rollbacks_and_crashes_under_load_fail_no_request_and_nothing_grows() {
    let _alone = alone().await;
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    // The second one comes and goes: what is measured goes on beside it.
    house.proxy("p2", 1).await;
    let load = Load::start(&[proxy.https], &house.authority());

    let (begun, length) = (Instant::now(), length());
    let (mut warm, mut controller_warm, mut rounds) = (None, None, 0);
    while rounds < 6 || begun.elapsed() < length {
        // The controller dies in the first half only: it is measured within its last life.
        let crashes = rounds < 2 || begun.elapsed() < length / 2;
        round(&mut house, rounds, crashes).await;
        rounds += 1;
        if warm.is_none() && rounds >= 3 && begun.elapsed() >= length / 5 {
            warm = Some(Held::by(house.part("p1").pid()));
        }
        if controller_warm.is_none() && rounds >= 3 && !crashes {
            controller_warm = Some(Held::by(house.controller().pid()));
        }
    }
    let (warm, end) = (warm.expect("there were rounds enough"), Held::by(house.part("p1").pid()));
    let controller = (controller_warm.expect("there were rounds enough"), Held::by(house.controller().pid()));
    assert_eq!(Client::plain(proxy.http, Speech::Http1).counts(20).await.get("r1"), Some(&20));
    assert_eq!(house.serving().await.of(STAGE, 1).map(|(role, _)| role), Some("stable"));
    let counted = load.ends_without_failure();
    println!("soak: {} s, {rounds} rounds, {} requests, 0 failed", begun.elapsed().as_secs(), counted.requests,);
    for (who, (warm, end)) in [("proxy", (warm, end)), ("controller", controller)] {
        println!(
            "soak: the {who} held {} KiB and {} descriptors warm, {} KiB and {} at the end",
            warm.resident_kib, warm.descriptors, end.resident_kib, end.descriptors,
        );
        assert!(end.resident_kib <= warm.resident_kib + SLACK_KIB, "memory of the {who} grew: {warm:?} to {end:?}");
        assert!(end.descriptors <= warm.descriptors + 8, "descriptors of the {who} leak: {warm:?} to {end:?}");
    }
}
