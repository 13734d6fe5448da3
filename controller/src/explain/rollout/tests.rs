//! Ways told from their events.

use api::{ReleaseNumber, Share};

use super::*;
use crate::core::spec::{RolloutSpec, Step};
use crate::judge::{Block, Test};

const STAGE: &str = "hello/production";

fn stage() -> StageName {
    STAGE.parse().expect("a stage")
}

fn r(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).expect("above 0")
}

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}

fn happened(events: Vec<Event>) -> Vec<Happened> {
    let one = |(seq, event)| Happened { seq, at_ms: seq * 1_000, by: "anna".into(), reason: String::new(), event };
    (1..).zip(events).map(one).collect()
}

fn promoted(number: u32, rollback: bool) -> Event {
    let step = |text: &str| Step { share: Some(share(text)), ..Step::default() };
    let spec = RolloutSpec { strategy: Strategy::Canary(vec![step("10%"), step("100%")]), ..RolloutSpec::default() };
    let begun = Begun { number: 7, spec, phase: Phase::Step(0) };
    Event::Promoted {
        stage: stage(),
        release: r(number),
        share: share("10%"),
        starting_until_ms: None,
        rollback,
        bypass: false,
        rollout: (!rollback).then(|| Box::new(begun)),
        past: None,
    }
}

fn evidence() -> Evidence {
    let answered = |requests, failed| Answered { requests, failed, slow: 0 };
    Evidence {
        counted: Block { canary: answered(120, 6), stable: answered(1_080, 1) },
        tests: vec![Test { measure: Measure::Errors, worse_milli: 8_100, no_worse_milli: -3_000, enough_milli: 7_601 }],
    }
}

fn rolled_back(why: Option<Why>) -> Event {
    Event::RolledBack { stage: stage(), from: r(2), to: r(1), warm_until_ms: 9, bad: true, why: why.map(Box::new) }
}

fn completed() -> Event {
    Event::Completed { stage: stage(), release: r(2), warm_until_ms: 9, watching: None }
}

#[test]
fn rollout_that_is_worse_is_explained_with_numbers_test_threshold_and_decision() {
    let why = Why::Worse { by: Measure::Errors, evidence: evidence() };
    let explained = rollout(&stage(), &happened(vec![promoted(2, false), rolled_back(Some(why))])).expect("a way");
    assert_eq!((explained.outcome.as_str(), explained.release, explained.stable), ("rolled back", 2, 1));
    assert_eq!((explained.began_ms, explained.ended_ms), (1_000, 2_000));
    assert_eq!(explained.way, "canary: 10%, 100%");
    let last = explained.moments.last().expect("an end");
    assert_eq!((last.cause.as_str(), last.share_ppm), ("worse", Some(0)));
    let expected = [
        "counted at the same time: 6 failed and 0 slow of 120; the stable release 1 failed and 0 slow of 1080",
        "errors: 3,300 to 1 that it is worse, 1 to 20 no worse; 2,000 to 1 is enough",
        "the judge said: worse, by errors",
    ];
    assert_eq!(last.why, expected);
    assert_eq!(last.canary.as_ref().and_then(|counts| counts.error_share), Some(0.05));
}

#[test]
fn rollout_steps_are_explained_by_what_they_earned_or_that_somebody_skipped() {
    let earned = Earned {
        took_ms: 600_000,
        requests: 120,
        verdict: Verdict::NoWorse,
        evidence: evidence(),
        checks: vec!["smoke".into()],
        warmed_ms: 0,
    };
    let step = |earned: Option<Earned>| Event::StepTaken {
        stage: stage(),
        release: r(2),
        rollout: 7,
        step: 1,
        of: 2,
        share: share("100%"),
        earned: earned.map(Box::new),
    };
    let explained = rollout(&stage(), &happened(vec![promoted(2, false), step(Some(earned)), step(None), completed()]))
        .expect("a way");
    assert_eq!((explained.outcome.as_str(), explained.ended_ms), ("completed", 4_000));
    let [_, first, second, _] = explained.moments.as_slice() else { panic!("{explained:#?}") };
    assert_eq!((first.cause.as_str(), second.cause.as_str()), ("earned", "skipped"));
    assert!(
        first.what.ends_with("120 requests in 10m, no worse than the stable release, checks are well: smoke"),
        "{first:?}"
    );
    assert!(first.why[0].starts_with("counted at the same time: 6 failed"), "{first:?}");
    assert_eq!(
        first.why.last().map(String::as_str),
        Some("the judge said: no worse than the stable release, within the margins")
    );
    assert!(second.why.is_empty());
}

#[test]
fn rollout_explained_leaves_out_what_is_about_other_releases() {
    let other = Event::WarmthEnded { stage: stage(), release: r(1), until_ms: 5 };
    let theirs = Event::RolledBack { stage: stage(), from: r(3), to: r(2), warm_until_ms: 9, bad: false, why: None };
    let explained = rollout(&stage(), &happened(vec![promoted(2, false), completed(), other, theirs])).expect("a way");
    let kinds: Vec<_> = explained.moments.iter().map(|moment| moment.kind.as_str()).collect();
    assert_eq!((kinds, explained.outcome.as_str()), (vec!["promoted", "completed"], "completed"));
}

#[test]
fn rollout_of_a_release_that_was_replaced_is_told_as_that() {
    let replaced = Event::Replaced { stage: stage(), release: r(2), by: r(3), warm_until_ms: 9 };
    let explained = rollout(&stage(), &happened(vec![promoted(2, false), replaced])).expect("a way");
    assert_eq!((explained.outcome.as_str(), explained.ended_ms), ("replaced", 2_000));
}

#[test]
fn rollout_is_none_without_a_promotion() {
    assert_eq!(rollout(&stage(), &[]), None);
    assert_eq!(rollout(&stage(), &happened(vec![promoted(2, true)])), None, "to be fetched back is none");
    assert_eq!(rollout(&stage(), &happened(vec![completed()])), None);
}

#[test]
fn rollout_s_watch_is_explained_by_why_it_ended() {
    let saw = Earned {
        took_ms: 600_000,
        requests: 120,
        verdict: Verdict::NotYet { likely_requests: None },
        evidence: Evidence::default(),
        checks: vec![],
        warmed_ms: 0,
    };
    for (cause, earned, expected) in [
        (WatchEnd::Earned, Some(saw.clone()), "earned"),
        // From before causes were kept.
        (WatchEnd::Earned, None, "skipped"),
        (WatchEnd::Skipped, None, "skipped"),
        (WatchEnd::Replaced, None, "replaced"),
        (WatchEnd::WarmthEnded, Some(saw), "warmth ended"),
    ] {
        let end = Event::WatchEnded {
            stage: stage(),
            release: r(2),
            rollout: 8,
            earned: earned.map(Box::new),
            took_ms: 600_000,
            cause,
        };
        let explained = rollout(&stage(), &happened(vec![promoted(2, false), completed(), end])).expect("a way");
        let last = explained.moments.last().expect("an end");
        assert_eq!((last.cause.as_str(), explained.outcome.as_str()), (expected, "completed"), "{cause:?}");
        assert!(last.why.is_empty(), "no step asked for anything: {last:?}");
    }
}

#[test]
fn rollback_that_could_not_be_fetched_is_part_of_the_way() {
    let problem = "it is not fetched back any more, r2 goes on serving".to_owned();
    let failed = Event::PromotionFailed { stage: stage(), release: r(1), problem, until_ms: 9 };
    let way = vec![promoted(2, false), completed(), promoted(1, true), failed];
    let explained = rollout(&stage(), &happened(way)).expect("a way");
    let kinds: Vec<_> = explained.moments.iter().map(|moment| moment.kind.as_str()).collect();
    assert_eq!(kinds, ["promoted", "completed", "promoted", "promotion_failed"]);
    assert_eq!((explained.outcome.as_str(), explained.ended_ms), ("completed", 2_000), "that is another's");
}
