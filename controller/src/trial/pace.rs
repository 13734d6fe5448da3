//! How fast both releases of a rollout answer lately.
//!
//! Must not know: shares, steps, or clocks. `now` is an argument.
//!
//! Main type: [`Pace`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use api::Histogram;

use super::judged::Heard;

/// What is compared with what was before it, each so long: some reports of each proxy, which come a second apart.
const STRETCH: Duration = Duration::from_secs(5);
/// With fewer answers in a stretch its 95 % say nothing.
const LEAST: u64 = 20;
/// Of the stable release, before its 95 % become what is slow.
const STABLE_LEAST: u64 = 200;
/// Parts per million.
const P95: u64 = 950_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Of the release that enters, oldest first, no longer than two stretches.
    recent: VecDeque<(Instant, Histogram)>,
    /// Of the stable one, since it is looked at.
    stable: Histogram,
}

impl Pace {
    pub(super) fn take_in(&mut self, heard: &Heard, now: Instant) {
        self.stable.merge(&heard.stable_latency);
        if heard.latency.total() > 0 {
            self.recent.push_back((now, heard.latency.clone()));
        }
        while self.recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= 2 * STRETCH) {
            self.recent.pop_front();
        }
    }

    /// Whether the last stretch's 95 % are at most one and a half times those of the stretch before; true while there are too
    /// few answers in one of them.
    pub(super) fn is_flat(&self, now: Instant) -> bool {
        let (mut last, mut before) = (Histogram::default(), Histogram::default());
        for (at, latency) in &self.recent {
            match now.duration_since(*at) {
                age if age < STRETCH => last.merge(latency),
                age if age < 2 * STRETCH => before.merge(latency),
                _ => {}
            }
        }
        let p95 = |latency: &Histogram| latency.quantile_us(P95).filter(|_| latency.total() >= LEAST);
        p95(&last).zip(p95(&before)).is_none_or(|(last, before)| last.saturating_mul(2) <= before.saturating_mul(3))
    }

    /// 95 % of what the stable release answered took at most so long, in microseconds; `None`: too few to say.
    pub(super) fn stable_p95_us(&self) -> Option<u64> {
        self.stable.quantile_us(P95).filter(|_| self.stable.total() >= STABLE_LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(count: u64, canary_us: u64, stable_us: u64) -> Heard {
        let mut heard = Heard::default();
        (0..count).for_each(|_| heard.latency.record(canary_us));
        (0..count).for_each(|_| heard.stable_latency.record(stable_us));
        heard
    }

    #[test]
    fn rollout_latency_is_flat_until_it_rises_by_more_than_half() {
        let start = Instant::now();
        for (what, before, last, expected) in [
            ("the same", (100, 10_000), (100, 10_000), true),
            ("a bit slower", (100, 10_000), (100, 13_000), true),
            ("twice", (100, 10_000), (100, 20_000), false),
            ("faster", (100, 20_000), (100, 10_000), true),
            ("too few to say", (100, 10_000), (19, 90_000), true),
            ("too few before", (19, 10_000), (100, 90_000), true),
        ] {
            let mut pace = Pace::default();
            pace.take_in(&heard(before.0, before.1, 0), start);
            pace.take_in(&heard(last.0, last.1, 0), start + STRETCH);
            assert_eq!(pace.is_flat(start + STRETCH), expected, "{what}");
            assert!(pace.is_flat(start + 3 * STRETCH), "{what}: long ago");
        }
    }

    #[test]
    fn rollout_what_is_slow_needs_enough_answers_of_the_stable_release() {
        let mut pace = Pace::default();
        pace.take_in(&heard(STABLE_LEAST - 1, 0, 7_000), Instant::now());
        assert_eq!(pace.stable_p95_us(), None);
        pace.take_in(&heard(1, 0, 7_000), Instant::now());
        let p95 = pace.stable_p95_us().expect("enough");
        assert!((7_000..9_000).contains(&p95), "{p95}");
    }
}
