//! Which backend serves the next request of a stage, so that every count is its exact share.
//!
//! Must not know: requests, clocks, randomness, or what a backend is beyond its place in a list of weights.
//!
//! Main types: [`Split`], the state of one stage on one worker; [`Placed`], how a request came to its release.
//!
//! Source: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980) 323-330. With `k` backends,
//! `q = 2k - 2` and `S` the sum of weights, after any `n` requests each count is within `1 - 1/q` of `n * w / S`. Each
//! worker starts at a phase of its own, which moves a count by at most `1/q` more: within 1 in all.

/// State of one stage's split on one worker: how far each backend is ahead of or behind its share.
///
/// All numbers are in units of `1 / (q * S)` request, so that nothing is ever rounded.
#[derive(Debug, Clone)]
pub(crate) struct Split {
    /// Only weights above zero: a zero is never chosen.
    entries: Box<[Entry]>,
    sum: i64,
    q: i64,
}

#[derive(Debug, Clone)]
struct Entry {
    weight: i64,
    credit: i64,
}

/// Where a worker stands in the cycle: `(2 * index + 1) / (2 * workers)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) index: u32,
    pub(crate) workers: u32,
}

/// How a request came to its release. What is judged of a release is what was dealt out to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// A break-glass override said which one.
    Override,
    /// It was asked for at its own host.
    Host,
    /// A header rule said which one.
    Rule,
    /// By its share, and the caller's place in the stage's range, which is this one.
    Sticky(u64),
    /// By its share, in turn.
    Weight,
}

impl Placed {
    /// Whether somebody said which one, and nothing was dealt out.
    pub(crate) fn is_forced(self) -> bool {
        match self {
            Self::Override | Self::Host | Self::Rule => true,
            Self::Sticky(_) | Self::Weight => false,
        }
    }

    /// The caller's place; `None`: it was not asked for one.
    pub(crate) fn caller(self) -> Option<u64> {
        match self {
            Self::Sticky(place) => Some(place),
            Self::Override | Self::Host | Self::Rule | Self::Weight => None,
        }
    }

    /// One word for the access log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Host => "host",
            Self::Rule => "rule",
            Self::Sticky(_) => "sticky",
            Self::Weight => "weight",
        }
    }
}

impl Split {
    /// Largest number of backends with weight; keeps every product below within 63 bits.
    pub(crate) const MOST: usize = 64;

    /// A fresh state for `weights`, all above zero and at most 1,000,000, at most [`Split::MOST`] of them.
    pub(crate) fn new(weights: impl Iterator<Item = u32>, phase: Phase) -> Self {
        let mut entries: Box<[Entry]> = weights.map(|weight| Entry { weight: weight.into(), credit: 0 }).collect();
        let sum = entries.iter().map(|entry| entry.weight).sum();
        let q = (2 * entries.len() as i64 - 2).max(1);
        // `credit = e * q * S` with `|e| <= 1/q` lies within `[-S, S]`; pairs take opposite signs, so the sum is zero.
        let workers = i64::from(phase.workers.max(1));
        let step = 2 * i64::from(phase.index) + 1 - workers; // (2 * phase - 1) * workers, within (-workers, workers)
        for pair in entries.chunks_exact_mut(2) {
            pair[0].credit = sum * step / workers;
            pair[1].credit = -pair[0].credit;
        }
        Self { entries, sum, q }
    }

    /// Place of the backend that takes the next request, among the weights above zero; `None` when there is none.
    pub(crate) fn next(&mut self) -> Option<usize> {
        if self.entries.len() <= 1 {
            return (!self.entries.is_empty()).then_some(0);
        }
        let (sum, q) = (self.sum, self.q);
        let mut best: Option<(usize, i64, i64)> = None;
        for (place, entry) in self.entries.iter_mut().enumerate() {
            entry.credit += q * entry.weight;
            // Not before its release date: one more now would put it too far ahead.
            if entry.credit < sum {
                continue;
            }
            // Requests until its deadline are `slack / (q * weight)`; the common `q` falls out of the comparison.
            let slack = q * sum - sum - entry.credit;
            let earlier = best.is_none_or(|(_, other_slack, other_weight)| {
                // Within 2^63: slack < 2^34 (q <= 126, S <= 64e6, credit < q * S), weight < 2^20.
                slack * other_weight < other_slack * entry.weight
            });
            if earlier {
                best = Some((place, slack, entry.weight));
            }
        }
        // Credits sum to `q * S` here, so with k entries the largest is at least `q * S / k >= S` for k >= 2.
        let (place, ..) = best.expect("at least one entry is eligible");
        self.entries[place].credit -= q * sum;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs `n` requests and checks after each that every count is within 1 of its share.
    fn within_one(weights: &[u32], phase: Phase, n: u64) -> Result<(), String> {
        let mut split = Split::new(weights.iter().copied(), phase);
        let sum: i128 = weights.iter().map(|w| i128::from(*w)).sum();
        let mut counts = vec![0i128; weights.len()];
        for done in 1..=n {
            counts[split.next().ok_or("nothing chosen")?] += 1;
            for (place, weight) in weights.iter().enumerate() {
                let off = (counts[place] * sum - i128::from(done) * i128::from(*weight)).abs();
                if off > sum {
                    return Err(format!("{weights:?} {phase:?}: after {done} backend {place} has {}", counts[place]));
                }
            }
        }
        Ok(())
    }

    #[test]
    fn one_in_a_million_is_possible_and_exact() {
        for phase in [Phase { index: 0, workers: 1 }, Phase { index: 0, workers: 8 }, Phase { index: 7, workers: 8 }] {
            let mut split = Split::new([1, 999_999].into_iter(), phase);
            let first = (0..2_000_000).filter(|_| split.next() == Some(0)).count();
            assert_eq!(first, 2, "{phase:?}");
        }
    }

    #[test]
    fn one_backend_takes_everything_and_none_nothing() {
        let phase = Phase { index: 0, workers: 1 };
        let mut one = Split::new([3].into_iter(), phase);
        assert!((0..100).all(|_| one.next() == Some(0)));
        assert_eq!(Split::new(std::iter::empty(), phase).next(), None);
    }

    #[test]
    fn a_small_canary_over_many_workers_neither_bursts_nor_starves() {
        // 100 workers at 1 %: the first canary request of each comes at a different place of the cycle of 100.
        let workers = 100;
        let mut first: Vec<u64> = (0..workers)
            .map(|index| {
                let mut split = Split::new([10_000, 990_000].into_iter(), Phase { index, workers });
                (1..).find(|_| split.next() == Some(0)).expect("the canary gets its turn")
            })
            .collect();
        first.sort_unstable();
        assert!(*first.last().expect("workers") <= 101, "{first:?}");
        for (nth, at) in (1u64..).zip(&first) {
            assert!(at.abs_diff(nth) <= 2, "the {nth}th comes at {at}: {first:?}");
        }
    }

    #[test]
    fn a_round_over_workers_is_as_exact_as_one_worker() {
        // One request per worker in turn: what 1 % of rare requests looks like.
        let workers = 100;
        let mut splits: Vec<Split> =
            (0..workers).map(|index| Split::new([10_000, 990_000].into_iter(), Phase { index, workers })).collect();
        for round in 1..=200u32 {
            let canary = splits.iter_mut().filter_map(|split| split.next()).filter(|place| *place == 0).count();
            assert!(canary <= 3, "round {round} sent {canary} of 100 to the canary");
        }
    }

    #[test]
    fn many_equal_backends_stay_exact() {
        for k in [3, 5, 16, 64] {
            within_one(&vec![1_000_000; k], Phase { index: 3, workers: 4 }, 5_000).expect("within one");
        }
    }

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        let weight = prop_oneof![1u32..=10, 1u32..=1_000_000, Just(1u32), Just(1_000_000u32)];
        proptest::collection::vec(weight, 1..=16)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: std::env::var("POINTSMAN_LONG").map_or(96, |_| 5_000), ..ProptestConfig::default() })]

        #[test]
        fn every_count_is_within_one_of_its_share(weights in weights(), workers in 1u32..200, seed in any::<u32>(), n in 1u64..20_000) {
            let phase = Phase { index: seed % workers, workers };
            prop_assert_eq!(within_one(&weights, phase, n), Ok(()));
        }
    }
}
