//! What is said of a rollout.

use api::Share;

use super::*;
use crate::core::spec::{RolloutSpec, Step, Strategy};
use crate::core::state::Entering;

/// In the first of two steps, since a second after the epoch.
fn rollout(step: Step) -> Rollout {
    let last = Step { share: Some(Share::ALL), ..Step::default() };
    let spec = RolloutSpec { strategy: Strategy::Canary(vec![step, last]), ..RolloutSpec::default() };
    Rollout::begin(7, spec, Phase::Step(0), 1_000)
}

#[test]
fn rollout_intervals_are_wilsons() {
    // Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    for (part, of, least, most) in
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
    {
        let (found_least, found_most) = wilson(part, of).expect("there were some");
        assert!(
            (found_least - least).abs() < 5e-5 && (found_most - most).abs() < 5e-5,
            "{part}/{of}: {found_least} {found_most}"
        );
    }
    assert_eq!(wilson(0, 0), None);
    assert_eq!(wilson(9, 9).map(|(_, most)| most), Some(1.0));
    assert_eq!(wilson(u64::MAX, 5).map(|(_, most)| most), Some(1.0), "no more than all");
}

#[test]
fn rollout_waits_are_told_with_numbers() {
    let step = Step {
        least_time: Span::from_ms(600_000),
        requests: Some(500),
        share: Share::from_ppm(100_000),
        ..Step::default()
    };
    let rollout = rollout(step);
    for (wait, rate, kind, what) in [
        (Wait::Time { left_ms: 250_000 }, 0.0, "time", "4m10s more of 10m"),
        (Wait::Requests { missing: 488 }, 12.2, "requests", "488 more of 500 requests, about 40s at 12.2 a second"),
        (Wait::Requests { missing: 488 }, 0.0, "requests", "488 more of 500 requests, and none come now"),
        (
            Wait::Verdict { likely_requests: Some(61) },
            12.2,
            "verdict",
            "the judge to say \"no worse\": about 61 more requests, about 5s at 12.2 a second",
        ),
        (Wait::Verdict { likely_requests: None }, 12.2, "verdict", "the judge to say \"no worse\""),
        (Wait::Paused, 1.0, "paused", "somebody to resume it: it is paused"),
    ] {
        let shown = shown_wait(&wait, &rollout, Some(500), Some(rate));
        assert_eq!((shown.kind.as_str(), shown.what.as_str()), (kind, what));
    }
}

#[test]
fn rollout_waits_are_told_without_a_rate_that_nobody_knows() {
    let rollout = rollout(Step { requests: Some(500), ..Step::default() });
    let shown = shown_wait(&Wait::Requests { missing: 488 }, &rollout, Some(500), None);
    assert_eq!(shown.what, "488 more of 500 requests");
    let shown = shown_wait(&Wait::Verdict { likely_requests: Some(61) }, &rollout, None, None);
    assert_eq!(shown.what, "the judge to say \"no worse\": about 61 more requests");
}

#[test]
fn rollout_without_a_share_says_whom_it_serves() {
    use crate::core::spec::{BlueGreen, Insiders};
    let insiders = Some(Insiders { header: "x-insider".into(), value: "yes".into() });
    let canary = |step| (rollout(step), Share::NONE);
    let flip = RolloutSpec {
        strategy: Strategy::BlueGreen(BlueGreen { pause: false, watch: None }),
        ..RolloutSpec::default()
    };
    let ten = Share::from_ppm(100_000);
    for ((rollout, share), expected) in [
        ((Rollout::begin(7, flip, Phase::BeforeFlip, 1_000), Share::NONE), "before the flip"),
        (canary(Step { insiders, pause: true, ..Step::default() }), "for insiders only"),
        // A tripwire has taken its share.
        (canary(Step { share: ten, ..Step::default() }), "at 0%"),
        ((rollout(Step { share: ten, ..Step::default() }), Share::from_ppm(100_000).expect("a share")), "at 10%"),
    ] {
        let entering = Entering {
            past: None,
            release: ReleaseNumber::FIRST,
            share,
            starting_until_ms: None,
            rollback: false,
            since_ms: 1_000,
            waited: false,
            rollout: Some(rollout),
        };
        assert_eq!(crate::status::reach(&entering), expected);
    }
}

#[test]
fn rollout_next_step_has_a_time_unless_it_is_somebodys() {
    let timed = rollout(Step { least_time: Span::from_ms(600_000), share: Share::from_ppm(1), ..Step::default() });
    let untimed = rollout(Step { share: Share::from_ppm(1), ..Step::default() });
    for (rollout, waits, expected) in [
        (&timed, vec![Wait::Time { left_ms: 5 }, Wait::Traffic], 601_000),
        (&timed, vec![Wait::Time { left_ms: 5 }, Wait::Paused], 0),
        (&timed, vec![Wait::Frozen], 0),
        (&timed, vec![Wait::Resume], 0),
        (&untimed, vec![Wait::Verdict { likely_requests: None }], 1_000),
    ] {
        assert_eq!(next_at_ms(rollout, &waits), expected, "{waits:?}");
    }
}

#[test]
fn rollout_status_names_place_and_share() {
    let step = Step { share: Share::from_ppm(100_000), requests: Some(500), ..Step::default() };
    let mut status = RolloutStatus::default();
    show_way(&mut status, &rollout(step));
    assert_eq!((status.place.as_str(), status.step, status.steps), ("step 1 of 2", 1, 2));
    assert_eq!((status.asks.as_str(), status.next_share_ppm), ("10% for 500 requests", Some(1_000_000)));
    assert_eq!((status.strategy.as_str(), status.on_worse.as_str(), status.number), ("canary", "rollback", 7));
}
