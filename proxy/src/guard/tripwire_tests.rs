use super::*;
use crate::split::{Phase, Split};

/// Results in their order: `x` and `o` are failures and others of the canary, `X` and `.` those of the stable release.
fn window(results: &str) -> Window {
    let mut window = Window::default();
    results.chars().for_each(|one| match one {
        'x' | 'o' => window.add_canary(one == 'x'),
        _ => window.add_stable(one == 'X'),
    });
    window
}

#[test]
fn tripwire_trips_by_the_table() {
    let many = |one: &str, count: usize| one.repeat(count);
    let (well, good) = (many(".", 100), many(".....o", 20));
    for (failures, among, results, expected) in [
        // A disaster at one in six, from the first request on.
        (5, 10, many("x.....", 5), Some((5, 5))),
        (5, 10, many("x.....", 4), None),
        (5, 10, good.clone() + &many("x.....", 5), Some((5, 10))),
        (10, 20, good.clone() + &many("x.....", 10), Some((10, 20))),
        (10, 20, good.clone() + &many("x.....", 9), None),
        // Too few among the last ten.
        (5, 10, many("x.....", 4) + &many("o.....", 6) + "x.....", None),
        (5, 10, many("x........", 4) + &many("o........", 5) + "x", Some((5, 10))),
        // Enough, but half of them against as many good ones could be chance.
        (5, 10, many("x.....", 4) + &many("o.....", 5) + "x", None),
        // At one half; at three quarters there are three results of the other.
        (5, 10, many("x.", 7), None),
        (5, 10, many("x.", 9), Some((9, 9))),
        (5, 10, many("xxx.", 3), None),
        (5, 10, many("xxx.", 3) + "x", Some((10, 10))),
        // Nothing is known of the stable one, or nothing of the same time.
        (5, 10, many("x", 64), None),
        (5, 10, well.clone() + &many("x", 64), None),
        (5, 10, well.clone() + &many("x", 30) + ".", None),
        (5, 10, well.clone() + &many("x", 30) + "..", Some((10, 10))),
        // Both break, with many good results before.
        (5, 10, well.clone() + &many("x.....", 4) + "xX.X.X", None),
        (5, 10, good.clone() + &many("xX", 32), None),
        (5, 10, good.clone() + &many("xxxX", 16), None),
        // An eighth as often is another matter, and a seventh is not.
        (5, 10, good.clone() + &many("xX.......", 10), Some((10, 10))),
        (5, 10, good.clone() + &many("xX......", 10), None),
        // The stable release is well lately, but had as many failures before.
        (5, 10, many("X", 15) + &many(".", 65) + &many("x...", 12), None),
        (5, 10, many("X", 14) + &many(".", 66) + &many("x...", 12), Some((10, 10))),
        // Both broke for a while, at 1 % of the weight, and are well again but for one ordinary failure; or both go on and off.
        (
            5,
            10,
            many(&(many(".", 99) + "o"), 20)
                + &many(&(many("X", 99) + "x"), 6)
                + &many(&(many(".", 99) + "o"), 2)
                + &many(".", 99)
                + "x",
            None,
        ),
        (5, 10, many(&(many(&(many("X", 99) + "x"), 3) + &many(&(many(".", 99) + "o"), 3)), 30), None),
        // Odds are not had from one failure.
        (1, 1, good + "x.....", None),
        (64, 64, well.clone() + &many("x.", 64), Some((64, 64))),
        (64, 64, well + &many("x.", 63), None),
    ] {
        let tripped = Tripwire { failures, among }.trips(&window(&results));
        let tripped = tripped.map(|share| (share.failures, share.among));
        assert_eq!(tripped, expected, "{failures} of {among}: {results}");
    }
}

/// Rates of failures in thousandths.
#[derive(Debug, Clone, Copy)]
struct Rates {
    canary: u32,
    stable: u32,
}

/// Both are well.
const WELL: Rates = Rates { canary: 1, stable: 1 };

/// Numbers in [0, 1000), from a seed (S. Vigna, SplitMix64).
struct Chance(u64);

impl Chance {
    fn thousandths(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ z >> 31) * 1_000) >> 64) as u32
    }
}

/// How many requests the canary gets until it is stopped, of those after `well` with which all was well; `None`: it is not. From
/// `until` on all is well again.
/// Requests are dealt out as workers do, one after the other.
fn stopped(
    tripwire: Tripwire,
    percent: u32,
    (well, until, rates): (u32, u32, Rates),
    requests: u32,
    chance: &mut Chance,
) -> Option<u32> {
    let phase = Phase { index: chance.thousandths(), workers: 1_000 };
    let mut split = Split::new([100 - percent, percent].into_iter(), phase);
    let (mut window, mut got) = (Window::default(), 0);
    for n in 0..requests {
        let Rates { canary, stable } = if (well..until).contains(&n) { rates } else { WELL };
        if split.next() == Some(0) {
            window.add_stable(chance.thousandths() < stable);
            continue;
        }
        let failed = chance.thousandths() < canary;
        window.add_canary(failed);
        got += u32::from(n >= well);
        if failed && tripwire.trips(&window).is_some() {
            return Some(got);
        }
    }
    None
}

const OF_TEN: Tripwire = Tripwire { failures: 5, among: 10 };
const OF_TWENTY: Tripwire = Tripwire { failures: 10, among: 20 };

#[test]
fn tripwire_stops_what_is_the_canarys_own_within_the_requests_of_the_table() {
    // Requests of the canary until it is stopped, in the median; 0: half of the runs end without.
    const PERCENT: [u32; 7] = [1, 10, 25, 50, 75, 80, 90];
    for (canary, stable, of_ten, of_twenty) in [
        (1_000, 1, [5, 5, 6, 9, 10, 12, 23], [10, 10, 10, 10, 12, 14, 23]),
        (1_000, 50, [5, 5, 7, 9, 10, 13, 23], [10, 10, 10, 10, 12, 14, 23]),
        (500, 1, [10, 10, 14, 27, 85, 190, 0], [19, 19, 20, 26, 72, 191, 0]),
        (50, 1, [0; 7], [0; 7]),
    ] {
        for (tripwire, medians) in [(OF_TEN, of_ten), (OF_TWENTY, of_twenty)] {
            for (percent, expected) in PERCENT.into_iter().zip(medians) {
                let mut chance = Chance(7);
                let mut run = || {
                    let after = (500, u32::MAX, Rates { canary, stable });
                    let stopped = stopped(tripwire, percent, after, 500 + 20_000 / percent, &mut chance);
                    stopped.unwrap_or(u32::MAX)
                };
                let mut all: Vec<u32> = (0..201).map(|_| run()).collect();
                all.sort_unstable();
                let median = if all[100] == u32::MAX { 0 } else { all[100] };
                assert_eq!(median, expected, "{canary} and {stable} in 1000 at {percent} %: {tripwire:?}");
            }
        }
    }
}

#[test]
fn tripwire_leaves_a_canary_alone_that_fails_like_the_stable_release() {
    // In at most so many of the runs, each of so many requests. `POINTSMAN_LONG`: those that the claim is about, one in 1,000.
    let (runs, requests, most) =
        if std::env::var_os("POINTSMAN_LONG").is_some() { (1_000, 10_000, 1) } else { (100, 1_000, 0) };
    for tripwire in [OF_TEN, OF_TWENTY] {
        for rate in [10, 50, 200, 500, 1_000] {
            for percent in [1, 5, 10, 25, 50, 75, 90] {
                // Ever since; and from one moment on, as when something breaks that both need.
                for well in [0, requests / 5] {
                    let mut chance = Chance(99);
                    let rates = Rates { canary: rate, stable: rate };
                    let trips = (0..runs)
                        .filter(|_| {
                            stopped(tripwire, percent, (well, u32::MAX, rates), requests, &mut chance).is_some()
                        })
                        .count();
                    assert!(trips <= most, "{trips} at {percent} %, {rate} in 1000 after {well}: {tripwire:?}");
                }
            }
        }
    }
}

#[test]
fn tripwire_leaves_a_canary_alone_when_what_broke_both_is_mended() {
    for (percent, of_canary) in
        [1, 3, 10, 50, 90].into_iter().flat_map(|percent| [(percent, 6), (percent, 10), (percent, 40)])
    {
        for rate in [500, 1_000] {
            let broken = of_canary * 100 / percent;
            let mut chance = Chance(5);
            let rates = Rates { canary: rate, stable: rate };
            let during = (2_000, 2_000 + broken, rates);
            let trips =
                (0..100).filter(|_| stopped(OF_TEN, percent, during, 4_000 + broken * 3, &mut chance).is_some());
            assert_eq!(trips.count(), 0, "{of_canary} failures or half of them at {percent} %");
        }
    }
}
