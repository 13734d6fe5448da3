//! What the judge says, as tables, properties, and small simulations.

mod simulation;

use proptest::prelude::*;

use super::*;

fn errors_only() -> Terms {
    Terms { errors: ppm(1_000), slow: None, one_in: 1_000 }
}

fn both_measures() -> Terms {
    Terms { errors: ppm(1_000), slow: Some(ppm(50_000)), one_in: 1_000 }
}

fn ppm(ppm: u32) -> Share {
    Share::from_ppm(ppm).expect("at most everything")
}

/// One that knows from the beginning what slow is.
fn judging(terms: Terms) -> Judge {
    let mut judge = Judge::new(terms);
    judge.know_slow(0);
    judge
}

fn answered(requests: u64, failed: u64, slow: u64) -> Answered {
    Answered { requests, failed, slow }
}

/// Requests and failures of the canary, and of the stable release.
fn block(canary: (u64, u64), stable: (u64, u64)) -> Block {
    Block { canary: answered(canary.0, canary.1, 0), stable: answered(stable.0, stable.1, 0) }
}

/// The same block so many times.
fn after(terms: Terms, times: usize, block: &Block) -> Judge {
    let mut judge = judging(terms);
    for _ in 0..times {
        judge.add(0, block);
    }
    judge
}

fn likely(judge: &Judge) -> Option<u64> {
    match judge.verdict() {
        Verdict::NotYet { likely_requests } => likely_requests,
        verdict => panic!("{verdict:?}"),
    }
}

const NO_WORSE: fn(&Verdict) -> bool = |verdict| *verdict == Verdict::NoWorse;
const NOT_YET: fn(&Verdict) -> bool = |verdict| matches!(verdict, Verdict::NotYet { .. });
const BY_ERRORS: fn(&Verdict) -> bool = |verdict| *verdict == Verdict::Worse { by: Measure::Errors };
const BY_SLOW: fn(&Verdict) -> bool = |verdict| *verdict == Verdict::Worse { by: Measure::Slow };

#[test]
fn verdict_follows_what_was_counted() {
    let slow = |canary: u64, stable: u64| Block { canary: answered(100, 0, canary), stable: answered(900, 0, stable) };
    for (what, terms, times, block, expected) in [
        ("nothing", both_measures(), 0, Block::default(), NOT_YET),
        ("a few failures against one", errors_only(), 10, block((10, 3), (90, 0)), BY_ERRORS),
        ("one failure alone, at a small share", errors_only(), 1, block((1, 1), (1_000_000, 0)), NOT_YET),
        ("the same failures", errors_only(), 100, block((10, 1), (90, 9)), NOT_YET),
        ("stable alone fails", errors_only(), 100, block((10, 0), (90, 9)), NO_WORSE),
        ("half of the traffic, nothing failed", errors_only(), 100, block((200, 0), (200, 0)), NO_WORSE),
        ("nothing failed, too few to tell", errors_only(), 100, block((50, 0), (50, 0)), NOT_YET),
        ("everything failed for both", errors_only(), 100, block((50, 50), (50, 50)), NOT_YET),
        ("nearly everything failed, all of it the canary's", errors_only(), 20, block((50, 50), (50, 45)), BY_ERRORS),
        ("slow by far", both_measures(), 10, slow(30, 45), BY_SLOW),
        ("no slower, nothing failed", both_measures(), 200, slow(5, 45), NO_WORSE),
        ("no slower, but too few for errors", both_measures(), 50, slow(5, 45), NOT_YET),
    ] {
        let verdict = after(terms, times, &block).verdict();
        assert!(expected(&verdict), "{what}: {verdict:?}");
    }
}

#[test]
fn verdict_names_the_surer_of_both_measures() {
    let both = |failed, slow| Block { canary: answered(100, failed, slow), stable: answered(900, 0, 0) };
    assert!(BY_ERRORS(&after(both_measures(), 5, &both(40, 20)).verdict()));
    assert!(BY_SLOW(&after(both_measures(), 5, &both(20, 40)).verdict()));
}

#[test]
fn verdict_is_not_worse_within_the_margin_however_sure() {
    // 5.5 % against 5 % with a margin of 5 %: certain, and accepted.
    let block = Block { canary: answered(1_000, 0, 55), stable: answered(1_000, 0, 50) };
    let judge = after(both_measures(), 2_000, &block);
    let slow = &judge.evidence().tests[1];
    assert!(slow.worse_milli > slow.enough_milli, "{slow:?}");
    assert_eq!(judge.verdict(), Verdict::NoWorse);
}

#[test]
fn verdict_without_traffic_of_both_is_neither_pass_nor_alarm() {
    for block in [block((0, 0), (10_000, 10)), block((10_000, 5_000), (0, 0)), Block::default()] {
        let judge = after(Terms { one_in: 0, ..both_measures() }, 1_000, &block);
        assert_eq!(judge.verdict(), Verdict::NotYet { likely_requests: None }, "{block:?}");
        assert!(judge.evidence().tests.iter().all(|test| test.worse_milli == 0 && test.no_worse_milli == 0));
    }
}

#[test]
fn verdict_finds_a_release_that_was_well_for_long() {
    let mut judge = after(errors_only(), 2_000, &block((100, 0), (900, 1)));
    assert_eq!(judge.verdict(), Verdict::NoWorse);
    let bad = (0..40).find(|_| {
        judge.add(0, &block((10, 1), (90, 0)));
        BY_ERRORS(&judge.verdict())
    });
    assert!(bad.is_some_and(|bad| bad < 20), "{bad:?}");
}

#[test]
fn verdict_compares_what_came_one_at_a_time() {
    let mut judge = judging(errors_only());
    for _ in 0..20 {
        for _ in 0..9 {
            judge.add(0, &block((0, 0), (1, 0)));
        }
        judge.add(0, &block((1, 1), (0, 0)));
    }
    assert!(BY_ERRORS(&judge.verdict()));
}

#[test]
fn verdict_forgets_what_stable_answered_long_before() {
    // An hour without failures and without the canary; then both fail.
    let mut judge = after(errors_only(), 3_600, &block((0, 0), (100_000, 0)));
    for _ in 0..5 {
        judge.add(0, &block((0, 0), (1_000, 200)));
    }
    judge.add(0, &block((100, 20), (900, 180)));
    assert!(NOT_YET(&judge.verdict()), "{:?}", judge.evidence());
}

#[test]
fn verdict_says_about_how_many_requests_would_tell() {
    let canary = |judge: &Judge| judge.evidence().counted.canary.requests;
    for (what, terms, block, start) in [
        ("nothing fails", errors_only(), block((10, 0), (90, 0)), 100),
        ("as stable", errors_only(), block((1_000, 1), (9_000, 9)), 5),
        ("worse", errors_only(), block((100, 1), (900, 1)), 2),
        ("worse, at half", errors_only(), block((100, 1), (100, 0)), 2),
        ("both measures", both_measures(), block((100, 0), (900, 0)), 20),
    ] {
        let mut judge = after(terms, start, &block);
        let (said, from) = (likely(&judge).expect(what), canary(&judge));
        while NOT_YET(&judge.verdict()) {
            judge.add(0, &block);
        }
        let needed = canary(&judge) - from;
        assert!(
            said <= needed * 2 && needed <= said * 2 + block.canary.requests,
            "{what}: {said} said, {needed} needed"
        );
    }
}

#[test]
fn verdict_cannot_say_how_many_requests_on_the_margin() {
    assert_eq!(likely(&after(errors_only(), 1, &block((1_000, 2), (1_000, 1)))), None);
    let none = Terms { errors: Share::NONE, ..errors_only() };
    assert_eq!(likely(&after(none, 100, &block((100, 0), (100, 0)))), None);
}

#[test]
fn verdict_evidence_holds_what_it_went_by() {
    let mut judge = judging(both_measures());
    judge.add(0, &Block { canary: answered(10, 99, 99), stable: answered(90, 1, 2) });
    judge.add(0, &Block { canary: answered(0, 7, 7), stable: answered(10, 0, 1) });
    let evidence = judge.evidence();
    let counted = Block { canary: answered(10, 10, 10), stable: answered(100, 1, 3) };
    assert_eq!(evidence.counted, counted, "no more failed than there were");
    let measures: Vec<_> = evidence.tests.iter().map(|test| (test.measure, test.enough_milli)).collect();
    assert_eq!(measures, [(Measure::Errors, 7_600), (Measure::Slow, 7_600)], "ln 2000");
    assert_eq!(after(errors_only(), 0, &counted).evidence().tests[0].enough_milli, 6_907, "ln 1000");
}

/// Small, large, and the largest.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..4, 0_u64..2_000, any::<u64>(), Just(u64::MAX)]
}

fn any_block() -> impl Strategy<Value = Block> {
    let side = || (count(), count(), count()).prop_map(|(requests, failed, slow)| answered(requests, failed, slow));
    (side(), side()).prop_map(|(canary, stable)| Block { canary, stable })
}

fn any_terms() -> impl Strategy<Value = Terms> {
    let margin = || prop_oneof![Just(0), Just(1_000_000), 0_u32..=1_000_000];
    (margin(), proptest::option::of(margin()), any::<u32>()).prop_map(|(errors, slow, one_in)| Terms {
        errors: ppm(errors),
        slow: slow.map(ppm),
        one_in,
    })
}

proptest! {
    #[test]
    fn hostile_verdict_takes_counts_of_any_size(terms in any_terms(), blocks in proptest::collection::vec(any_block(), 0..40)) {
        let (mut judge, mut again) = (judging(terms), judging(terms));
        for block in &blocks {
            judge.add(0, block);
            again.add(0, block);
            for watched in &judge.watched {
                prop_assert!(watched.is_finite(), "{watched:?}");
            }
            prop_assert_eq!(judge.verdict(), again.verdict());
        }
        prop_assert_eq!(judge.evidence(), again.evidence());
    }

    #[test]
    fn verdict_weighs_failures_alike_whichever_is_rarer(
        canary in 1_u64..600, stable in 1_u64..600, failed in 0_u64..600, other in 0_u64..600,
    ) {
        // Odds that it fails are one over the odds that it does not.
        let (failed, other) = (failed.min(canary), other.min(stable));
        // With as many of both the failures are counted, whichever they are called.
        prop_assume!(2 * (failed + other) != canary + stable);
        let pair = |failed, other| block((canary, failed), (stable, other)).pair(Measure::Errors);
        let one = odds::ln_ratio(&pair(failed, other), 6.0);
        let mirrored = odds::ln_ratio(&pair(canary - failed, stable - other), 1.0 / 6.0);
        prop_assert!((one - mirrored).abs() < 1e-6 * (1.0 + one.abs()), "{one} {mirrored}");
    }

    #[test]
    fn verdict_evidence_of_a_block_is_one_on_average(
        canary in 1_u64..400, stable in 1_u64..400, all in 0_u64..60, odds in 1.1_f64..1_000.0,
    ) {
        // Over every way in which `all` failures can fall on the two, with the chance of each.
        let all = all.min(canary + stable);
        let ways = (all.saturating_sub(stable)..=all.min(canary)).map(|part| {
            let pair = block((canary, part), (stable, all - part)).pair(Measure::Errors);
            let chance = ln_choose(canary, part) + ln_choose(stable, all - part) - ln_choose(canary + stable, all);
            (chance + odds::ln_ratio(&pair, odds)).exp()
        });
        let mean: f64 = ways.sum();
        prop_assert!(mean < 1.0 + 1e-6, "{mean}");
        if all <= 32 && canary + stable > 2 * all {
            prop_assert!(mean > 1.0 - 1e-6, "{mean}: exact");
        }
    }
}

fn ln_choose(of: u64, some: u64) -> f64 {
    (0..some).map(|at| ((of - at) as f64 / (at + 1) as f64).ln()).sum()
}
