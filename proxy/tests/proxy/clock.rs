//! Row h63: somebody sets the system's clock while the proxy serves.
//!
//! libfaketime stands between the proxy and the kernel and reads from a file how far off the clock is. As on a machine
//! whose clock is set, time that goes by is not touched: only what is asked as a date is another.

use std::path::PathBuf;
use std::time::Duration;

use api::ReleaseNumber;
use proxy::local::{LocalReply, LocalRequest, request};
use serde_json::Value;

use crate::apart::Apart;
use crate::recorder::{OK, Recorder};
use crate::support::{Client, HOST, until};
use crate::tls::shaken;

/// What scripts/setup has installed.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("a folder").flatten().map(|entry| entry.path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is there: scripts/setup installs it").to_str().expect("text").to_owned()
}

/// A proxy whose clock is as far off as a file says.
async fn start(first: Recorder, second: Recorder) -> (Apart, PathBuf) {
    let mut clock = PathBuf::new();
    let apart = Apart::with(vec![first, second], |how| {
        clock = how.path("clock");
        std::fs::write(&clock, "+0").expect("written");
        let file = clock.to_str().expect("text").to_owned();
        how.environment = [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
    });
    (apart.await, clock)
}

/// How many whole hours a line's time is away from now.
fn hours_off(line: &Value) -> i64 {
    let time: jiff::Timestamp = line["time"].as_str().expect("a text").parse().expect("a time");
    let seconds = time.as_second() - jiff::Timestamp::now().as_second();
    (seconds as f64 / 3600.0).round() as i64
}

fn overridden(for_ms: u64) -> LocalRequest {
    LocalRequest::Override {
        stage: "hello/staging".parse().expect("a stage"),
        release: ReleaseNumber::new(1).expect("a number"),
        for_ms,
        by: "ops".into(),
        reason: "r2 is broken".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h63_a_clock_that_jumps_by_an_hour_both_ways_changes_nothing() {
    let first = Recorder::answering(|_| OK.replace("ok", "r1")).await;
    let (apart, clock) = start(first, Recorder::ok().await).await;
    let mut client = Client::http2(apart.http).await;
    assert_eq!(client.get(HOST, "/").await.body, "ok");
    let minutes = 30;
    let reply = request(&apart.data(), overridden(minutes * 60_000)).await.expect("answered");
    assert!(matches!(reply, LocalReply::Done { .. }), "{reply:?}");

    for (offset, hours) in [("+3600", 1), ("-3600", -1), ("+3600", 1), ("+0", 0)] {
        let lines = apart.logged().len();
        std::fs::write(&clock, offset).expect("written");
        // Longer than the proxy goes without a look at what ends by itself.
        for _ in 0..15 {
            assert_eq!(client.get(HOST, "/").await.body, "r1", "the override is in force: {offset}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let is_there = || apart.logged()[lines..].iter().filter(|line| hours_off(line) == hours).count() >= 10;
        until("the log goes on, in the time of day that it is", is_there).await;
        // A new connection, whose certificate is looked at; and one that waits for its end, in real time.
        drop(shaken(apart.https, apart.roots(), "h2", HOST).await);
        apart.serves(offset).await;
    }

    // What ends by itself does so, though it is an hour earlier again.
    request(&apart.data(), overridden(1_000)).await.expect("answered");
    std::fs::write(&clock, "-3600").expect("written");
    while client.get(HOST, "/").await.body == "r1" {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(client);
    apart.is_as_before().await;
}
