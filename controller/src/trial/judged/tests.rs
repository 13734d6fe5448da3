//! What is new in reports, as a table.

use api::fleet::ReleaseCounts;

use super::*;

const STAGE: &str = "hello/production";
const GUARDED: Guarded = Guarded { number: 7, epoch: 9, unheard: None, canary: 2, stable: 1 };

fn judged(rollout: u64, epoch: u32, [requests, failed, slow]: [u64; 3]) -> Judged {
    let mut latency = Histogram::default();
    (0..requests.min(100)).for_each(|_| latency.record(1_000));
    Judged { rollout, epoch, requests, failed, slow, latency: Some((&latency).into()) }
}

fn release(release: u32, judged: Vec<Judged>) -> ReleaseCounts {
    ReleaseCounts { stage: STAGE.to_owned(), release, judged, ..ReleaseCounts::default() }
}

/// Epoch, requests and failures of the canary and of the stable release.
fn take(ledger: &mut Ledger, run: u64, releases: Vec<ReleaseCounts>) -> Vec<(u32, [u64; 4])> {
    let counts = Counts { run, releases, ..Counts::default() };
    let guarded = |stage: &str| (stage == STAGE).then_some(GUARDED);
    let found = ledger.take_in(&"p1".parse().expect("a name"), &counts, Instant::now(), guarded);
    let line = |(_, heard): &(String, Heard)| {
        let Block { canary, stable } = heard.block;
        (heard.epoch, [canary.requests, canary.failed, stable.requests, stable.failed])
    };
    found.iter().map(line).collect()
}

#[test]
fn rollout_counts_are_what_is_new_of_this_rollout_and_these_releases() {
    let mut ledger = Ledger::default();
    let canary = |counts| release(2, vec![judged(7, 9, counts)]);
    let stable = |counts| release(1, vec![judged(7, 9, counts)]);
    assert_eq!(take(&mut ledger, 1, vec![canary([50, 5, 0])]), [(9, [50, 5, 0, 0])], "all of it");
    assert_eq!(take(&mut ledger, 1, vec![stable([90, 1, 0]), canary([60, 6, 1])]), [(9, [10, 1, 90, 1])]);
    assert_eq!(take(&mut ledger, 1, vec![canary([60, 6, 1])]), [], "nothing is new");
    for (what, other) in [
        ("another rollout", release(2, vec![judged(6, 9, [99, 9, 0])])),
        ("another release", release(3, vec![judged(7, 9, [99, 9, 0])])),
        ("a stage that nobody watches", ReleaseCounts { stage: "hello/dev".to_owned(), ..canary([99, 9, 0]) }),
        ("nothing judged", release(2, Vec::new())),
    ] {
        assert_eq!(take(&mut ledger, 1, vec![other]), [], "{what}");
    }
    assert_eq!(take(&mut ledger, 2, vec![canary([3, 1, 0])]), [(9, [3, 1, 0, 0])], "it was restarted");
    assert_eq!(take(&mut ledger, 2, vec![canary([1, 0, 0])]), [], "counters that fall are not believed");
    assert_eq!(take(&mut ledger, 2, vec![canary([u64::MAX; 3])]).len(), 1);
    assert_eq!(take(&mut ledger, 2, vec![stable([5, 9, 9])]), [(9, [0, 0, 5, 5])], "no more than there were");
}

#[test]
fn rollout_counts_of_each_epoch_are_told_apart_and_of_the_newest_only() {
    let mut ledger = Ledger::default();
    let both = vec![
        release(1, vec![judged(7, 8, [40, 0, 0]), judged(7, 9, [4, 0, 0])]),
        release(2, vec![judged(7, 8, [60, 6, 0]), judged(7, 9, [6, 1, 0])]),
    ];
    assert_eq!(take(&mut ledger, 1, both), [(8, [60, 6, 40, 0]), (9, [6, 1, 4, 0])]);
    let late = vec![release(2, vec![judged(7, 8, [62, 8, 0]), judged(7, 9, [6, 1, 0])])];
    assert_eq!(take(&mut ledger, 1, late), [(8, [2, 2, 0, 0])], "what began under the epoch before");
    for (epoch, heard) in [(0, false), (1, false), (2, true), (10, false), (u32::MAX, false)] {
        let told = take(&mut ledger, 1, vec![release(2, vec![judged(7, epoch, [5, 0, 0])])]);
        assert_eq!(!told.is_empty(), heard, "{epoch}");
    }
}

#[test]
fn rollout_counts_of_before_the_start_are_no_news() {
    let mut ledger = Ledger::default();
    let mut tell = |run, epoch, requests| {
        let releases = vec![release(2, vec![judged(7, epoch, [requests, 0, 0])])];
        let counts = Counts { run, releases, ..Counts::default() };
        let found = ledger.take_in(&"p1".parse().expect("a name"), &counts, Instant::now(), |_| {
            Some(Guarded { unheard: Some(8), ..GUARDED })
        });
        found.iter().map(|(_, heard)| heard.block.canary.requests).sum::<u64>()
    };
    assert_eq!(tell(1, 8, 1_000), 0, "nobody knows when that was");
    assert_eq!(tell(1, 8, 1_004), 4);
    assert_eq!(tell(1, 7, 5), 0, "nor that");
    assert_eq!(tell(1, 9, 3), 3, "that epoch began since");
    assert_eq!(tell(2, 8, 6), 6, "it was restarted, and has counted since");
}

#[test]
fn rollout_counts_of_a_proxy_that_was_out_of_touch_are_no_news() {
    let start = Instant::now();
    let mut ledger = Ledger::default();
    let mut tell = |proxy: &str, run, after_s, requests| {
        let releases = vec![release(2, vec![judged(7, 9, [requests, 0, 0])])];
        let counts = Counts { run, releases, ..Counts::default() };
        let now = start + Duration::from_secs(after_s);
        let found = ledger.take_in(&proxy.parse().expect("a name"), &counts, now, |_| Some(GUARDED));
        found.iter().map(|(_, heard)| heard.block.canary.requests).sum::<u64>()
    };
    assert_eq!(tell("p1", 1, 0, 10), 10);
    assert_eq!(tell("p1", 1, 9, 30), 20, "late, and of one time");
    assert_eq!(tell("p1", 1, 30, 5_000), 0, "nobody knows when that was");
    assert_eq!(tell("p1", 1, 31, 5_003), 0, "another piece of it, perhaps");
    assert_eq!(tell("p1", 1, 32, 5_010), 7);
    assert_eq!(tell("p1", 2, 60, 900), 0, "it was restarted meanwhile, and nobody knows when");
    assert_eq!(tell("p1", 2, 63, 901), 1);
    assert_eq!(tell("p1", 3, 64, 8), 8, "it was restarted just now");
    assert_eq!(tell("p2", 1, 64, 700), 0, "it was never heard before, and others were for a minute");
    assert_eq!(tell("p2", 1, 67, 703), 3);
}

#[test]
fn rollout_counts_of_what_nobody_watches_any_more_are_forgotten() {
    let mut ledger = Ledger::default();
    let proxy: MemberName = "p1".parse().expect("a name");
    let mut tell = |guarded: Option<Guarded>| {
        let (number, epoch) = guarded.map_or((1, 1), |guarded| (guarded.number, guarded.epoch));
        let releases = [1, 2].map(|of| release(of, vec![judged(number, epoch, [5, 0, 0])]));
        let counts = Counts { run: 1, releases: releases.to_vec(), ..Counts::default() };
        ledger.take_in(&proxy, &counts, Instant::now(), |_| guarded);
        ledger.proxies[&proxy].said.get(STAGE).map_or(0, |said| said.sums.len())
    };
    for number in 1..50 {
        assert_eq!(tell(Some(Guarded { number, ..GUARDED })), 2, "of one rollout");
    }
    for epoch in 1..1_000 {
        let kept = (epoch as usize).min(api::EPOCHS_MOST) * 2;
        assert_eq!(tell(Some(Guarded { number: 50, epoch, ..GUARDED })), kept);
    }
    assert_eq!(tell(None), 0);
}
