//! How long to wait before a process that ended is started again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// Running for so long counts as a success: the next failure is a new one.
const WELL: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

impl Pace {
    /// The process has been running for `time`.
    pub(super) fn ran_for(&mut self, time: Duration) {
        if time >= WELL {
            self.failures = 0;
        }
    }

    /// The wait after one more failure: doubled each time.
    pub(super) fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_restarts_slow_down_and_recover() {
        let mut pace = Pace::default();
        let waits: Vec<u64> = (0..9).map(|_| u64::try_from(pace.next().as_millis()).expect("small")).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        pace.ran_for(Duration::from_secs(59));
        assert_eq!(pace.next(), LONGEST);
        pace.ran_for(Duration::from_secs(60));
        assert_eq!(pace.next(), FIRST);
    }
}
