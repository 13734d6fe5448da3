//! A rollout on one screen, in a line, and as it was.

use api::operator::{RolloutCheck, RolloutCounts, RolloutExplained, RolloutMoment, RolloutQueued, RolloutTest};

use super::*;
use crate::render::plain;

fn counts(requests: u64, failed: u64, [share, least, most]: [f64; 3]) -> RolloutCounts {
    let (error_share, error_least, error_most) = (Some(share), Some(least), Some(most));
    RolloutCounts { requests, failed, slow: 0, error_share, error_least, error_most }
}

/// In its second step, with everything that can be said.
fn full() -> StageStatus {
    let now = View::of_tests().now_ms;
    let wait = |kind: &str, what: &str| RolloutWait { kind: kind.into(), what: what.into() };
    let rollout = RolloutStatus {
        release: 42,
        stable: 41,
        strategy: "canary".into(),
        place: "step 2 of 5".into(),
        asks: "10% for 10m and 500 requests".into(),
        since_ms: now - 180_000,
        share_ppm: 100_000,
        next_share_ppm: Some(500_000),
        waits: vec![
            wait("time", "7m more of 10m"),
            wait("requests", "380 more of 500 requests, about 31s at 12.2 a second"),
        ],
        next_at_ms: now + 420_000,
        canary: Some(counts(120, 0, [0.0, 0.0, 0.031])),
        stable_counts: Some(counts(1_080, 1, [0.000_93, 0.000_16, 0.005_2])),
        verdict: "not yet".into(),
        likely_requests: Some(1_400),
        tests: vec![RolloutTest {
            measure: "errors".into(),
            worse_milli: -400,
            no_worse_milli: 1_260,
            enough_milli: 7_601,
            words: "1 to 1 that it is worse, 4 to 1 no worse; 2,000 to 1 is enough".into(),
        }],
        slow_us: 300_000,
        checks: vec![RolloutCheck { name: "smoke".into(), state: "well".into(), ..RolloutCheck::default() }],
        on_worse: "rollback".into(),
        ..RolloutStatus::default()
    };
    let release = |number, role: &str, weight_ppm, measured_ppm, rate| StageRelease {
        release: number,
        role: role.into(),
        version: "2.1.0".into(),
        weight_ppm,
        measured_ppm: Some(measured_ppm),
        rate,
        p50_us: Some(1_230),
        p95_us: Some(4_100),
        p99_us: Some(14_320),
        outstanding: 3,
        ..StageRelease::default()
    };
    let warm =
        StageRelease { release: 40, role: "warm".into(), warm_until_ms: now + 3_600_000, ..StageRelease::default() };
    StageStatus {
        stage: "hello/production".into(),
        releases: vec![
            release(42, "canary", 100_000, 100_200, 12.2),
            release(41, "stable", 900_000, 899_800, 109.8),
            warm,
        ],
        rollout: Some(rollout),
        queued: Some(RolloutQueued { release: 43, since_ms: now - 60_000, share_ppm: None }),
        ..StageStatus::default()
    }
}

#[test]
fn rollout_on_one_screen_of_80_by_24() {
    let view = View { width: Some(80), ..View::of_tests() };
    let lines = rollout(&full(), &view);
    let expected = "\
canary     r42 step 2 of 5 at 10%, next 50% at 12:07:00 at the earliest  for 3m
asks for   10% for 10m and 500 requests
waits for  7m more of 10m
           380 more of 500 requests, about 31s at 12.2 a second

release    role                       set  measured   rate/s  in flight
r42 2.1.0  canary    █·········       10%    10.02%     12.2          3
r41 2.1.0  stable    █████████·       90%    89.98%    109.8          3

judged     requests  failed  errors      95 % between     p50     p95     p99
r42             120       0   0.00%   0.00% and 3.10%  1.23ms  4.10ms  14.3ms
r41           1,080       1   0.09%   0.02% and 0.52%  1.23ms  4.10ms  14.3ms
verdict    not yet: about 1,400 more requests of r42 would tell
  errors   1 to 1 that it is worse, 4 to 1 no worse; 2,000 to 1 is enough
           slow is over 300ms; if worse: rollback
checks     smoke well
queued     r43 waits for the end of this, since 1m ago
warm       r40 until 13:00 (1h), nothing in flight
";
    assert_eq!(plain(&lines), expected);
    // Head and blank line stand above it.
    assert!(lines.len() + 2 <= 24);
}

#[test]
fn rollout_in_a_line_says_what_it_waits_for() {
    let view = View::of_tests();
    let line = rollout_line(&full(), view.now_ms, &view).text();
    assert_eq!(
        line,
        "12:00:00 r42 step 2 of 5 at 10%, next 50% at 12:07:00 at the earliest; waits for 7m more of 10m; 380 more of 500 \
         requests, about 31s at 12.2 a second; verdict: not yet"
    );
    let told = summary(&full(), &view);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].text().starts_with("r42 step 2 of 5 at 10%, next 50%"), "{told:?}");
}

#[test]
fn rollout_without_a_share_says_whom_it_serves() {
    let line = |change: &dyn Fn(&mut RolloutStatus)| {
        let mut stage = full();
        let rollout = stage.rollout.as_mut().expect("one");
        (rollout.share_ppm, rollout.next_at_ms) = (0, 0);
        change(rollout);
        rollout_line(&stage, 0, &View::of_tests()).text()
    };
    let insiders = |rollout: &mut RolloutStatus| rollout.insiders = vec!["x-insider: yes".into()];
    let flip = |rollout: &mut RolloutStatus| {
        (rollout.strategy, rollout.place) = ("blue-green".into(), "before the flip".into());
    };
    let stopped = |rollout: &mut RolloutStatus| {
        insiders(rollout);
        rollout.frozen = "p1 stopped it".into();
    };
    for (change, expected) in [
        (&insiders as &dyn Fn(&mut RolloutStatus), "r42 step 2 of 5, for insiders only, next 50%;"),
        (&flip, "r42 before the flip, next 50%;"),
        (&stopped, "r42 step 2 of 5 at 0%, next 50%;"),
        (&|_: &mut RolloutStatus| (), "r42 step 2 of 5 at 0%, next 50%;"),
    ] {
        let line = line(change);
        assert!(line.contains(expected), "{line}");
    }
}

#[test]
fn rollout_lines_are_new_only_when_something_else_is_so() {
    let (before, mut after) = (full(), full());
    let rollout = after.rollout.as_mut().expect("one");
    rollout.waits[0].what = "6m more of 10m".into();
    rollout.step_requests = 9;
    rollout.waits.push(RolloutWait { kind: "flat".into(), what: "flat latency".into() });
    assert_eq!(rollout_now(&before), rollout_now(&after), "numbers always move");
    after.rollout.as_mut().expect("one").paused = true;
    assert_ne!(rollout_now(&before), rollout_now(&after));
    after.rollout = None;
    assert_eq!(rollout_now(&after), "");
}

#[test]
fn rollout_that_is_frozen_says_why() {
    let mut stage = full();
    let rollout = stage.rollout.as_mut().expect("one");
    rollout.frozen = "it is worse: 6 of 120 (5%) of its requests failed".into();
    let shown = plain(&super::rollout(&stage, &View::of_tests()));
    assert!(shown.contains("frozen     it is worse: 6 of 120 (5%)"), "{shown}");
    let line = rollout_line(&stage, 0, &View::of_tests()).text();
    assert!(line.contains("; frozen: it is worse"), "{line}");
}

#[test]
fn rollout_explained_tells_numbers_test_and_decision() {
    let at_ms = View::of_tests().now_ms;
    let moment = RolloutMoment {
        event: 9,
        at_ms,
        by: "controller".into(),
        kind: "rolled_back".into(),
        what: "hello/production was rolled back from r42 to r41".into(),
        cause: "worse".into(),
        why: vec!["errors: 3,300 to 1 that it is worse".into(), "the judge said: worse, by errors".into()],
        canary: Some(counts(120, 6, [0.05, 0.023_1, 0.104_8])),
        ..RolloutMoment::default()
    };
    let explained = RolloutExplained {
        stage: "hello/production".into(),
        release: 42,
        way: "canary: 10%, 100%".into(),
        outcome: "rolled back".into(),
        began_ms: at_ms - 65_000,
        ended_ms: at_ms,
        moments: vec![moment],
        ..RolloutExplained::default()
    };
    let expected = "\
hello/production   r42 rolled back at 2026-03-01 12:00:00, after 1m
  canary: 10%, 100%

12:00:00  hello/production was rolled back from r42 to r41  by controller
          errors: 3,300 to 1 that it is worse
          the judge said: worse, by errors
          its errors: 5.00%, with 95 % between 2.31% and 10.48%
";
    let view = View::of_tests();
    assert_eq!(plain(&rollout_explained(&explained, &view)), expected);
    let ended = plain(&rollout_ended(&explained, &view));
    assert!(ended.ends_with("  hello/production was rolled back from r42 to r41\n"), "{ended}");
}

/// After the end: the objective is broken, and somebody was told.
fn asked() -> StageStatus {
    let now = View::of_tests().now_ms;
    let watched = RolloutWatched {
        release: 42,
        before: 41,
        objective: "0.1% errors, otherwise ask".into(),
        warm_until_ms: now + 3_600_000,
        breach: "50 of 1000 (5%) of its requests failed, and the objective allows 0.1%".into(),
        told: true,
        told_ms: now - 180_000,
        ..RolloutWatched::default()
    };
    StageStatus { stage: "hello/production".into(), watched: Some(watched), ..StageStatus::default() }
}

const ASKED: &str = "broken: 50 of 1000 (5%) of its requests failed, and the objective allows 0.1%, told 3m ago; \
                     `pointsman rollback hello/production` goes back to r41";

#[test]
fn rollout_that_breaks_its_objective_shows_what_was_told_and_the_way_back() {
    let view = View::of_tests();
    let watched = "r42 is watched until 13:00 (1h): 0.1% errors, otherwise ask";
    assert_eq!(plain(&summary(&asked(), &view)), format!("{watched}\n{ASKED}\n"));
    let shown = plain(&rollout(&asked(), &view));
    assert!(shown.starts_with(&format!("after      {watched}\n           {ASKED}\n")), "{shown}");
    assert!(rollout_line(&asked(), view.now_ms, &view).text().ends_with(ASKED));

    let explained = RolloutExplained {
        stage: "hello/production".into(),
        release: 42,
        outcome: "completed".into(),
        watched: asked().watched,
        ..RolloutExplained::default()
    };
    for lines in [rollout_ended(&explained, &view), rollout_explained(&explained, &view)] {
        assert!(plain(&lines).contains(ASKED), "{lines:?}");
    }

    // Why nothing was done, where the stage does not say so; and what was told before any of it was kept.
    let mut problem = asked();
    problem.watched.as_mut().expect("one").problem = "no agent of group prod has joined".into();
    assert!(plain(&summary(&problem, &view)).contains("told 3m ago; no agent of group prod has joined; `pointsman"));
    let mut old = asked();
    let watched = old.watched.as_mut().expect("one");
    (watched.breach, watched.told_ms) = (String::new(), 0);
    assert!(
        plain(&summary(&old, &view)).ends_with("\nbroken; `pointsman rollback hello/production` goes back to r41\n")
    );
    // What is seen and not told yet is about to be.
    let mut seen = asked();
    seen.watched.as_mut().expect("one").told = false;
    assert_eq!(plain(&summary(&seen, &view)).lines().count(), 1);
}

#[test]
fn rollback_that_needs_a_start_says_so_where_warmth_is_told() {
    let back = |start: &str| StageBack {
        release: 41,
        starts: !start.is_empty(),
        start_ms: None,
        start: start.into(),
        ..StageBack::default()
    };
    let view = View::of_tests();
    let needs = "r41 is no longer warm: it needs about 12s to start (as long as last time)";
    let stage = |start| StageStatus { back: Some(back(start)), ..full() };
    assert!(plain(&summary(&stage(needs), &view)).ends_with(&format!("rollback: {needs}\n")));
    assert!(plain(&rollout(&stage(needs), &view)).ends_with(&format!("rollback   {needs}\n")));
    let explained = RolloutExplained { back: Some(back(needs)), ..RolloutExplained::default() };
    assert!(plain(&rollout_explained(&explained, &view)).ends_with(&format!("rollback: {needs}\n")));
    // What is instant goes without saying.
    let shown = [plain(&summary(&stage(""), &view)), plain(&rollout(&stage(""), &view))];
    assert!(shown.iter().all(|text| !text.contains("rollback ") && !text.contains("rollback:")), "{shown:?}");
}
