//! When a registry is asked again. The decision is pure; [`Tries`] waits by it.

use std::time::Duration;

use tokio::time::Instant;

use super::error::{Again, Why};

/// Attempts in a row that brought nothing.
const MOST_TRIES: u32 = 8;
/// Without anything new for so long, it is given up.
const LONGEST: Duration = Duration::from_secs(600);
/// The longest that a registry's own word is followed.
const MOST_ASKED_FOR: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);

/// How long to wait before attempt number `attempt` + 1 (the first failed one is 0), or that it is over.
///
/// Half a second, doubled to 30 seconds, and up to a quarter more by `seed`, so that many do not come at once; as long as the
/// registry asks for, up to a minute.
pub(crate) fn next(attempt: u32, error: &Why, seed: u64) -> Option<Duration> {
    let asked_for = match error.again() {
        Again::Later(asked_for) if attempt < MOST_TRIES => asked_for,
        _ => return None,
    };
    let doubled = FIRST.saturating_mul(1 << attempt.min(16)).min(MOST);
    let spread = seed.rotate_left(attempt * 8) % 256;
    let spread = doubled.mul_f64(0.25) * u32::try_from(spread).unwrap_or(0) / 256;
    Some((doubled + spread).max(asked_for.unwrap_or_default().min(MOST_ASKED_FOR)))
}

/// Attempts at one thing.
pub(crate) struct Tries {
    attempt: u32,
    seed: u64,
    since: Instant,
}

impl Tries {
    pub(crate) fn new(seed: u64) -> Self {
        Self { attempt: 0, seed, since: Instant::now() }
    }

    /// Something new came or went: the attempts are counted anew.
    pub(crate) fn moved(&mut self) {
        *self = Self::new(self.seed);
    }

    /// Waits until it is time for the next attempt.
    ///
    /// # Errors
    /// The error itself when there is none.
    pub(crate) async fn wait(&mut self, why: Why) -> Result<(), Why> {
        match next(self.attempt, &why, self.seed) {
            Some(pause) if self.since.elapsed() + pause < LONGEST => {
                tracing::debug!(%why, attempt = self.attempt, ?pause, "asked again");
                self.attempt += 1;
                tokio::time::sleep(pause).await;
                Ok(())
            }
            _ => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u64>) -> Why {
        let retry_after = retry_after.map(Duration::from_secs);
        Why::Refused { status, code: String::new(), message: String::new(), retry_after }
    }

    #[test]
    fn pauses_double_to_half_a_minute() {
        let pauses: Vec<_> = (0..9).map(|attempt| next(attempt, &Why::TooSlow, 0)).collect();
        let ms = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        let mut expected: Vec<_> = ms.map(|ms| Some(Duration::from_millis(ms))).into();
        expected.push(None);
        assert_eq!(pauses, expected);
        for seed in [1, 77, u64::MAX] {
            for attempt in 0..8 {
                let pause = next(attempt, &Why::TooSlow, seed).expect("again");
                let plain = next(attempt, &Why::TooSlow, 0).expect("again");
                assert!(plain <= pause && pause <= plain.mul_f64(1.25), "{pause:?}");
            }
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (why, again) in [
            (Why::Cut(String::new()), true),
            (Why::Unreachable(String::new()), true),
            (refused(408, None), true),
            (refused(429, None), true),
            (refused(500, None), true),
            (refused(503, None), true),
            (refused(400, None), false),
            (refused(403, None), false),
            (refused(404, None), false),
            (Why::Unauthorized, false),
            (Why::Unknown, false),
            (Why::TooLarge { most: 1 }, false),
            (Why::Strange(String::new()), false),
        ] {
            assert_eq!(next(0, &why, 0).is_some(), again, "{why}");
        }
        let pause = |seconds| next(0, &refused(429, Some(seconds)), 0);
        assert_eq!(pause(7), Some(Duration::from_secs(7)));
        assert_eq!(pause(7_000), Some(Duration::from_secs(60)), "not for ever");
        assert_eq!(pause(0), Some(FIRST));
    }
}
