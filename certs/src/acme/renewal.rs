//! When to renew: by the authority's word (ARI, RFC 9773), else by the lifetime; and when to try again after a failure.
//!
//! Must not know: clocks, randomness or who renews. Seeds spread what would otherwise fall on one moment: the same seed
//! gives the same answer, so a controller that starts again keeps its appointments.
//!
//! Main items: [`due`] and [`next_try`].

use std::time::{Duration, SystemTime};

/// A failed renewal is tried again after this at first.
const FIRST: Duration = Duration::from_secs(60);
/// And after this at most.
const LONGEST: Duration = Duration::from_secs(6 * 3_600);
/// The longest that a server is believed when it says when to come back: the longest span that public authorities count
/// their rate limits over.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// When the authority suggests to renew (RFC 9773 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub start: SystemTime,
    /// Its end. One that does not lie after the beginning makes the window void.
    pub end: SystemTime,
    /// How long the suggestion holds until it is to be asked for again: 1 minute to 1 day.
    pub ask_again: Duration,
}

/// When a certificate is to be renewed; in the past when it is already time.
///
/// A point inside the authority's window, drawn by `seed` (RFC 9773 §4.2); without a window, or with a void one, two
/// thirds of the lifetime less up to 5 % of it, by `seed`. Never after nine tenths of the lifetime, whatever the window
/// says, so that there is time to try again.
///
/// `validity`: the certificate's `notBefore` and `notAfter`; one that ends before it begins is due at its beginning.
pub fn due(validity: (SystemTime, SystemTime), window: Option<Window>, seed: u64) -> SystemTime {
    let (not_before, not_after) = validity;
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    let by_lifetime = not_before + share(lifetime, 2, 3) - drawn(share(lifetime, 1, 20), seed);
    let Some(window) = window else { return by_lifetime };
    match window.end.duration_since(window.start) {
        Ok(length) if !length.is_zero() => {
            (window.start + drawn(length, seed)).min(not_before + share(lifetime, 9, 10))
        }
        _ => by_lifetime,
    }
}

/// How long to wait after so many failures in a row: doubles from 1 minute to 6 hours, less up to a fifth of it by `seed`.
///
/// `left`: until the certificate in use expires. The wait is never more than a tenth of that, while a tenth is more than a
/// minute; afterwards, and where nothing is left, it is at most a minute. `failures` of 0 counts as 1.
pub fn backoff(failures: u32, left: Duration, seed: u64) -> Duration {
    // 2^9 minutes are more than six hours.
    let doubled = FIRST * 2_u32.pow(failures.saturating_sub(1).min(9));
    let longest = doubled.min(LONGEST).min((left / 10).max(FIRST));
    longest - drawn(longest / 5, seed)
}

/// [`backoff`], and not before the time that the server named (`Retry-After`, RFC 8555 §6.6): asking sooner would only be
/// refused again. More than 7 days are not believed.
pub fn next_try(failures: u32, left: Duration, retry_after: Option<Duration>, seed: u64) -> Duration {
    backoff(failures, left, seed).max(retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

fn share(whole: Duration, numerator: u32, denominator: u32) -> Duration {
    // Divided first: a lifetime may be as long as its type holds.
    whole / denominator * numerator
}

/// From nothing up to `longest`, by the seed alone.
fn drawn(longest: Duration, seed: u64) -> Duration {
    // The longest duration has less than 2^94 nanoseconds.
    Duration::from_nanos_u128((longest.as_nanos() * u128::from(mixed(seed) >> 32)) >> 32)
}

/// SplitMix64 (Steele, Lea, Flood, 2014): neighbouring seeds are far apart.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn at(hours: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000 + HOUR * hours
    }

    fn window(start: u32, end: u32) -> Option<Window> {
        Some(Window { start: at(start), end: at(end), ask_again: HOUR })
    }

    #[test]
    fn acme_renewal_falls_where_it_should() {
        for (what, lifetime, window, earliest, latest) in [
            ("ninety days", 2_160, None, 1_332, 1_440),
            ("six days", 144, None, 88, 96),
            ("twelve hours", 12, None, 7, 8),
            ("no lifetime", 0, None, 0, 0),
            ("a window", 2_160, window(1_400, 1_450), 1_400, 1_450),
            ("a window that is over", 2_160, window(1, 2), 1, 2),
            ("a window of a short life", 12, window(5, 6), 5, 6),
            ("a window without length is void", 2_160, window(1_700, 1_700), 1_332, 1_440),
            ("a window turned round is void", 2_160, window(1_700, 1_600), 1_332, 1_440),
            ("a window after the end", 2_160, window(2_400, 2_500), 1_944, 1_944),
        ] {
            for seed in 0..200 {
                let due = due((at(0), at(lifetime)), window, seed);
                assert!((at(earliest)..=at(latest)).contains(&due), "{what}, seed {seed}: {due:?}");
            }
        }
    }

    #[test]
    fn acme_renewals_of_many_seeds_spread() {
        for window in [window(1_000, 1_010), None] {
            let mut points: Vec<_> = (0..100).map(|seed| due((at(0), at(2_160)), window, seed)).collect();
            points.sort();
            points.dedup();
            assert_eq!(points.len(), 100);
            let (first, last) = (points[0], points[99]);
            let length = if window.is_some() { HOUR * 10 } else { HOUR * 108 };
            assert!(last.duration_since(first).expect("sorted") > length * 9 / 10, "{first:?} {last:?}");
        }
    }

    #[test]
    fn acme_backoff_doubles_within_its_bounds() {
        let minute = FIRST;
        for (failures, left, longest) in [
            (0, DAY * 30, minute),
            (1, DAY * 30, minute),
            (2, DAY * 30, minute * 2),
            (5, DAY * 30, minute * 16),
            (9, DAY * 30, minute * 256),
            (10, DAY * 30, HOUR * 6),
            (u32::MAX, DAY * 30, HOUR * 6),
            (10, DAY, minute * 144),
            (10, minute * 20, minute * 2),
            (10, minute * 10, minute),
            (10, minute, minute),
            (10, Duration::ZERO, minute),
        ] {
            for seed in 0..200 {
                let wait = backoff(failures, left, seed);
                assert!(wait <= longest && wait >= longest * 4 / 5, "{failures} {left:?} {seed}: {wait:?}");
            }
        }
    }

    #[test]
    fn acme_a_rate_limit_is_respected() {
        for (retry_after, at_least, at_most) in [
            (None, Duration::ZERO, FIRST),
            (Some(Duration::from_secs(5)), Duration::from_secs(48), FIRST),
            (Some(HOUR * 34), HOUR * 34, HOUR * 34),
            (Some(DAY * 3_650), DAY * 7, DAY * 7),
        ] {
            let wait = next_try(1, DAY * 30, retry_after, 7);
            assert!((at_least..=at_most).contains(&wait), "{retry_after:?}: {wait:?}");
        }
    }

    proptest! {
        #[test]
        fn acme_renewal_is_always_within_the_life(life_s in 0_u64..4_000_000_000, start in 0_u64..5_000_000_000,
            length in 0_u64..5_000_000_000, some: bool, seed: u64) {
            let begin = at(0);
            let start = begin + Duration::from_secs(start);
            let window = Window { start, end: start + Duration::from_secs(length), ask_again: HOUR };
            let life = Duration::from_secs(life_s);
            let due = due((begin, begin + life), some.then_some(window), seed);
            prop_assert!(due >= begin && due <= begin + life);
            prop_assert!(life.is_zero() || due < begin + life);
        }

        #[test]
        fn acme_backoff_never_wastes_what_is_left(failures: u32, left_s in 0_u64..10_000_000, seed: u64) {
            let left = Duration::from_secs(left_s);
            let wait = backoff(failures, left, seed);
            prop_assert!(wait >= Duration::from_secs(48) && wait <= LONGEST);
            prop_assert!(wait <= (left / 10).max(FIRST));
        }
    }
}
