//! Simulated rollouts with fixed seeds, few enough for a debug build; `benches/src/bin/verdict.rs` is the full one.

use super::*;

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn binomial(&mut self, tries: u64, chance: f64) -> u64 {
        if chance <= 0.0 {
            return 0;
        }
        let (mut at, mut successes) = (0.0, 0);
        loop {
            let fraction = ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            at += (fraction.ln() / (-chance).ln_1p()).floor() + 1.0;
            if at > tries as f64 {
                return successes;
            }
            successes += 1;
        }
    }

    fn report(&mut self, requests: u64, share: f64, canary: f64, stable: f64) -> Block {
        let of_canary = self.binomial(requests, share);
        let failed = (self.binomial(of_canary, canary), self.binomial(requests - of_canary, stable));
        block((of_canary, failed.0), (requests - of_canary, failed.1))
    }
}

#[test]
fn verdict_gives_no_false_alarm_without_a_difference() {
    // 4 shares, 4 rates, 40 rollouts each of 100,000 requests: 640, at 1 in 1,000 at most 3 in all but 1 of 200 such tests.
    let mut alarms = Vec::new();
    for (place, share) in [0.001, 0.01, 0.1, 0.5].into_iter().enumerate() {
        for seed in 0..160 {
            let mut dice = Dice((place * 1_000 + seed) as u64);
            let mut judge = judging(errors_only());
            let mut requests = 0;
            while requests < 100_000 {
                let size = [1, 10, 100, 2_000][(dice.next() % 4) as usize];
                requests += size;
                let drifting = 0.1 + 0.1 * (requests as f64 / 10_000.0).sin();
                let rate = [0.0, 0.001, 0.01, drifting][seed % 4];
                judge.add(0, &dice.report(size, share, rate, rate));
                if matches!(judge.verdict(), Verdict::Worse { .. }) {
                    alarms.push((share, seed));
                    break;
                }
            }
        }
    }
    assert!(alarms.len() <= 3, "{alarms:?}");
}

#[test]
fn verdict_stops_a_bad_release_in_time() {
    // 101 rollouts each: a median is within a fifth of the true one; both measures share what is accepted.
    for (share, errors, median) in [
        (0.01, 0.5, 10),
        (0.01, 0.05, 150),
        (0.01, 0.01, 2_000),
        (0.1, 0.5, 10),
        (0.1, 0.05, 150),
        (0.1, 0.01, 2_000),
        (0.5, 0.5, 30),
        (0.5, 0.05, 300),
        (0.5, 0.01, 2_500),
    ] {
        let mut needed: Vec<u64> = (0..101).map(|seed| canary_requests_until_worse(seed, share, errors)).collect();
        needed.sort_unstable();
        assert!(needed[50] <= median, "{share} {errors}: {} of {median}", needed[50]);
    }
}

fn canary_requests_until_worse(seed: u64, share: f64, errors: f64) -> u64 {
    let (mut dice, mut judge) = (Dice(seed), judging(both_measures()));
    while !matches!(judge.verdict(), Verdict::Worse { .. }) {
        judge.add(0, &dice.report(20, share, errors, 0.001));
        assert!(judge.evidence().counted.canary.requests < 100_000, "never");
    }
    judge.evidence().counted.canary.requests
}

#[test]
fn verdict_of_no_worse_is_honest() {
    // 40 rollouts at each of 5 settings, worse by twice the margin: with 1 in 1,000 one wrong pass in 5 such tests.
    let mut wrong = Vec::new();
    for (share, stable) in [(0.01, 0.001), (0.1, 0.0), (0.1, 0.001), (0.5, 0.001), (0.5, 0.01)] {
        for seed in 0..40 {
            let (mut dice, mut judge) = (Dice(seed), judging(errors_only()));
            for _ in 0..200 {
                judge.add(0, &dice.report((200.0 / share) as u64, share, stable + 0.002, stable));
                if judge.verdict() == Verdict::NoWorse {
                    wrong.push((share, stable, seed));
                    break;
                }
            }
        }
    }
    assert!(wrong.len() <= 1, "{wrong:?}");
}

#[test]
fn verdict_of_no_worse_comes_in_time() {
    for (share, rate, most) in [(0.1, 0.0, 9_500), (0.5, 0.0, 10_500), (0.1, 0.001, 45_000), (0.5, 0.001, 50_000)] {
        let mut needed: Vec<u64> = (0..21).map(|seed| canary_requests_until_no_worse(seed, share, rate)).collect();
        needed.sort_unstable();
        assert!(needed[10] <= most, "{share} {rate}: {} of {most}", needed[10]);
    }
}

fn canary_requests_until_no_worse(seed: u64, share: f64, rate: f64) -> u64 {
    let (mut dice, mut judge) = (Dice(seed), judging(errors_only()));
    while judge.verdict() != Verdict::NoWorse {
        judge.add(0, &dice.report((100.0 / share) as u64, share, rate, rate));
        assert!(judge.evidence().counted.canary.requests < 1_000_000, "never");
    }
    judge.evidence().counted.canary.requests
}

#[test]
fn verdict_gives_no_alarm_when_shares_change_while_requests_are_on_their_way() {
    let alarms = |epoch: fn(u32) -> u32| (0..40).filter(|seed| is_called_worse_at_a_change(*seed, epoch)).count();
    assert_eq!(alarms(|epoch| epoch), 0);
    // What was dealt out at 50 % and fails a minute later, counted with what is dealt out at 1 %.
    let mixed = alarms(|_| 0);
    assert!(mixed > 20, "the change shows nothing: {mixed} of 40");
}

/// 100 requests a second; 5 % of both releases' fail, after a minute. The canary has 50 % for two minutes, and then 1 %.
fn is_called_worse_at_a_change(seed: u64, counted_as: fn(u32) -> u32) -> bool {
    const SECONDS: usize = 300;
    let mut dice = Dice(seed);
    let mut judge = Judge::new(errors_only());
    // What ends in each second, by the epoch in which it began.
    let mut ends = vec![[Block::default(); 2]; SECONDS + 61];
    for second in 0..SECONDS {
        let (epoch, share) = if second < 120 { (0, 0.5) } else { (1, 0.01) };
        let begun = dice.report(100, share, 0.05, 0.05);
        let (canary, stable) = (begun.canary, begun.stable);
        let well = block((canary.requests - canary.failed, 0), (stable.requests - stable.failed, 0));
        let failed = block((canary.failed, canary.failed), (stable.failed, stable.failed));
        ends[second][epoch] = ends[second][epoch].plus(&well);
        ends[second + 60][epoch] = ends[second + 60][epoch].plus(&failed);
        for (epoch, ended) in ends[second].iter().enumerate() {
            judge.add(counted_as(epoch as u32), ended);
        }
        if matches!(judge.verdict(), Verdict::Worse { .. }) {
            return true;
        }
    }
    false
}
