//! When an issuer's keys are fetched.
//!
//! Must not know: issuers, keys, or the network. `now` and seeds are arguments.
//!
//! Main type: [`Plan`], of one issuer; each goes its own way.

use std::time::Duration;

use tokio::time::Instant;

/// First and longest wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(60);
/// An unknown key has keys fetched at most this often: anybody can make up names of keys (h45).
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(30);

/// When one issuer's keys are fetched. Never two fetches at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    refresh: Duration,
    /// When the next one begins; what it is while one is under way means nothing.
    due: Instant,
    under_way: bool,
    /// Failures in a row.
    failures: u32,
    /// From when on an unknown key may have one begun.
    asked_again: Instant,
}

impl Plan {
    /// Due at once.
    pub(super) fn new(refresh: Duration, now: Instant) -> Self {
        Self { refresh, due: now, under_way: false, failures: 0, asked_again: now }
    }

    /// Another pace. A fetch that is due sooner stays due then.
    pub(super) fn set_refresh(&mut self, refresh: Duration, now: Instant, seed: u64) {
        if self.refresh != refresh {
            self.refresh = refresh;
            self.due = self.due.min(now + spread(refresh, seed));
        }
    }

    /// When the next one is due; `None`: one is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.under_way).then_some(self.due)
    }

    /// Begins a fetch if one is due.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let begins = !self.under_way && self.due <= now;
        self.under_way |= begins;
        begins
    }

    /// A token names a key that is not there: a fetch is made due now if that is allowed. True if there is one to wait for.
    ///
    /// Not while fetches fail: those have a pace of their own.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        // One that is due anyway is not one that an unknown key asked for.
        if self.under_way || self.due <= now {
            return true;
        }
        if self.asks_from().is_none_or(|from| now < from) {
            return false;
        }
        (self.asked_again, self.due) = (now + ASKED_AGAIN, now);
        true
    }

    /// From when on an unknown key may have keys fetched; `None`: not before the next fetch has ended.
    pub(super) fn asks_from(&self) -> Option<Instant> {
        (!self.under_way && self.failures == 0).then_some(self.asked_again)
    }

    /// A fetch has ended, with keys or without.
    pub(super) fn ended(&mut self, well: bool, now: Instant, seed: u64) {
        self.under_way = false;
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        let wait = match self.failures {
            0 => self.refresh,
            failures => AGAIN.saturating_mul(1 << (failures - 1).min(16)).min(AGAIN_MOST).min(self.refresh),
        };
        self.due = now + spread(wait, seed);
    }
}

/// A tenth more or less, by `seed`: a fleet that was told at once does not ask at once for ever.
fn spread(wait: Duration, seed: u64) -> Duration {
    let tenth = wait / 10;
    wait - tenth + tenth * 2 * ((seed % 1_024) as u32) / 1_023
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(300);

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// One that has keys since `start`.
    fn with_keys(start: Instant) -> Plan {
        let mut plan = Plan::new(REFRESH, start);
        assert!(plan.begin(start));
        plan.ended(true, start, MIDDLE);
        plan
    }

    /// Spreads by nothing.
    const MIDDLE: u64 = 511;

    fn seconds(plan: &Plan, now: Instant) -> u64 {
        let wait = plan.next().expect("none is under way").saturating_duration_since(now);
        (wait + Duration::from_millis(500)).as_secs()
    }

    #[test]
    fn issuers_are_fetched_at_once_then_at_their_pace_never_twice_at_once() {
        let start = Instant::now();
        let mut plan = Plan::new(REFRESH, start);
        assert!(plan.begin(start) && !plan.begin(start), "one at once");
        assert_eq!(plan.next(), None);
        plan.ended(true, start, MIDDLE);
        assert_eq!(seconds(&plan, start), 300);
        assert!(!plan.begin(at(start, 299)) && plan.begin(at(start, 301)));
        for (seed, expected) in [(0, 270), (MIDDLE, 300), (1_023, 330), (u64::MAX, 330)] {
            let mut plan = Plan::new(REFRESH, start);
            plan.begin(start);
            plan.ended(true, start, seed);
            assert_eq!(seconds(&plan, start), expected, "{seed}");
        }
    }

    #[test]
    fn issuers_that_fail_are_asked_again_after_a_second_doubling_to_a_minute() {
        let start = Instant::now();
        let mut plan = Plan::new(REFRESH, start);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            plan.under_way = true;
            plan.ended(false, start, MIDDLE);
            assert_eq!(seconds(&plan, start), wait);
            assert!(!plan.ask(start), "an unknown key does not hurry it");
            assert_eq!(plan.asks_from(), None);
        }
        plan.under_way = true;
        plan.ended(true, start, MIDDLE);
        assert_eq!(seconds(&plan, start), 300);
        plan.under_way = true;
        plan.ended(false, start, MIDDLE);
        assert_eq!(seconds(&plan, start), 1, "it begins anew");
        // Failures never make it slower than it is.
        let mut plan = Plan { failures: u32::MAX, under_way: true, ..Plan::new(Duration::from_secs(30), start) };
        plan.ended(false, start, MIDDLE);
        assert_eq!(seconds(&plan, start), 30);
    }

    #[test]
    fn hostile_h45_unknown_keys_have_keys_fetched_once_in_thirty_seconds() {
        let start = Instant::now();
        let mut plan = with_keys(start);
        let (mut fetches, mut waited) = (0, 0);
        // 10,000 a second for two minutes; each fetch takes half a second.
        let mut ends = None;
        for n in 0..1_200_000_u64 {
            let now = start + Duration::from_micros(n * 100);
            if ends.is_some_and(|ends| ends <= now) {
                plan.ended(true, now, n);
                ends = None;
            }
            waited += u64::from(plan.ask(now));
            if plan.begin(now) {
                assert!(ends.is_none(), "two at once");
                fetches += 1;
                ends = Some(now + Duration::from_millis(500));
            }
        }
        assert_eq!(fetches, 4);
        assert_eq!(waited, 4 * 5_000, "those that came while one was under way");
    }

    #[test]
    fn hostile_h45_a_key_asked_for_before_the_first_fetch_takes_nobody_the_one_of_the_next_thirty_seconds() {
        let start = Instant::now();
        let mut plan = Plan::new(REFRESH, start);
        assert!(plan.ask(start), "the first of all is awaited");
        assert!(plan.begin(start));
        plan.ended(true, start, MIDDLE);
        assert!(plan.ask(at(start, 1)) && plan.begin(at(start, 1)), "a key rotated right after a start");
        plan.ended(true, at(start, 1), MIDDLE);
        assert!(!plan.ask(at(start, 2)));
    }

    #[test]
    fn issuers_whose_pace_changes_are_not_fetched_later_than_they_would_be() {
        let start = Instant::now();
        for (refresh, expected) in [(30, 30), (600, 300), (300, 300)] {
            let mut plan = with_keys(start);
            plan.set_refresh(Duration::from_secs(refresh), start, MIDDLE);
            assert_eq!(seconds(&plan, start), expected, "{refresh}");
            assert!(plan.begin(at(start, 301)));
            plan.ended(true, start, MIDDLE);
            assert_eq!(seconds(&plan, start), refresh);
        }
    }
}
