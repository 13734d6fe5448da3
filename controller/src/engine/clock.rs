//! The time of events: this machine's clock, except that it never goes back. Pure.

/// How far behind a clock may be without a word: what a time service corrects in passing.
const TOLERATED_MS: u64 = 1_000;

/// The time for the next event, and what an operator should know about the clock.
///
/// An event never carries an earlier time than the one before it, so that a clock that went back reorders nothing.
pub(super) fn event_time(clock_ms: u64, last_ms: u64) -> (u64, Option<String>) {
    let back_ms = last_ms.saturating_sub(clock_ms);
    let warning = (back_ms > TOLERATED_MS).then(|| {
        format!(
            "the clock of the controller is {} s before its last event; new events carry that event's time",
            back_ms / 1_000
        )
    });
    (clock_ms.max(last_ms), warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_a_clock_that_went_back_is_told_and_reorders_nothing() {
        assert_eq!(event_time(5_000, 0), (5_000, None));
        assert_eq!(event_time(5_000, 5_000), (5_000, None));
        assert_eq!(event_time(4_500, 5_000), (5_000, None), "half a second is no news");
        let (time, warning) = event_time(1_000, 3_601_000);
        assert_eq!(time, 3_601_000);
        assert!(warning.expect("told").contains("3600 s before"));
    }
}
