//! When a repository is looked at again (pure).

use std::time::{Duration, Instant};

/// Never more than one look within this, whoever asks.
pub(super) const LEAST: Duration = Duration::from_secs(1);
/// Longest wait after failures.
const MOST: Duration = Duration::from_secs(15 * 60);

/// How long after a look the next one comes by itself: `poll`, doubled with each failure in a row up to 15 minutes, and never
/// less than `poll`.
pub(super) fn wait(poll: Duration, failures: u32) -> Duration {
    let doubled = poll.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    if failures == 0 { poll } else { doubled.min(MOST).max(poll) }
}

/// When the next look may begin: the last one began then, it comes by itself at `due`, and somebody may have asked for it.
pub(super) fn next(last: Option<Instant>, due: Instant, is_asked: bool, now: Instant) -> Instant {
    let wanted = if is_asked { now } else { due };
    last.map_or(wanted, |last| wanted.max(last + LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waited_out_and_pokes_are_not_heaped() {
        let s = Duration::from_secs;
        for (poll, failures, expected) in [
            (60, 0, 60),
            (60, 1, 120),
            (60, 3, 480),
            (60, 4, 900),
            (60, 31, 900),
            (60, 32, 900),
            (60, u32::MAX, 900),
            (5, 2, 20),
            (3600, 0, 3600),
            (3600, 1, 3600),
            (86_400, 9, 86_400),
        ] {
            assert_eq!(wait(s(poll), failures), s(expected), "{poll} {failures}");
        }
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        for (last, due, is_asked, now, expected) in [
            (None, 0, false, 0, 0),
            (Some(0), 60_000, false, 100, 60_000),
            (Some(0), 60_000, true, 100, 1_000),
            (Some(0), 60_000, true, 5_000, 5_000),
            (Some(0), 500, false, 400, 1_000),
        ] {
            assert_eq!(next(last.map(at), at(due), is_asked, at(now)), at(expected));
        }
    }
}
