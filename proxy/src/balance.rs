//! Which endpoint of a backend takes a request: the less busy of two.
//!
//! Must not know: addresses, connections, clocks, or where the seed comes from.
//!
//! Source: M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996). Unhealthy endpoints are
//! left out; when none is healthy all are used, because checks may be wrong and a refusal certainly is.

/// Place of the chosen endpoint; `None` when there is none, or only `except`.
///
/// `except` is an endpoint that has just failed for the same request: it is not asked a second time.
/// `outstanding` is asked for the two candidates only.
pub(crate) fn choose(
    count: usize,
    healthy: impl Fn(usize) -> bool,
    outstanding: impl Fn(usize) -> u32,
    seed: u64,
    except: Option<usize>,
) -> Option<usize> {
    if count == 1 {
        return (except != Some(0)).then_some(0);
    }
    let open = |place: usize| except != Some(place);
    let well = (0..count).filter(|place| open(*place) && healthy(*place)).count();
    let panic = well == 0;
    let pool = if panic { (0..count).filter(|place| open(*place)).count() } else { well };
    if pool == 0 {
        return None;
    }
    let candidate =
        |nth: usize| (0..count).filter(|place| open(*place) && (panic || healthy(*place))).nth(nth).unwrap_or_default();
    let first = below(seed as u32, pool);
    if pool == 1 {
        return Some(candidate(0));
    }
    // A second, different one: an offset from the first that is never zero.
    let second = (first + 1 + below((seed >> 32) as u32, pool - 1)) % pool;
    let (first, second) = (candidate(first), candidate(second));
    Some(if outstanding(second) < outstanding(first) { second } else { first })
}

/// Maps 32 uniform bits onto `0..bound` (D. Lemire, "Fast Random Integer Generation in an Interval", 2019).
fn below(bits: u32, bound: usize) -> usize {
    ((u64::from(bits) * bound as u64) >> 32) as usize
}

/// The `n`th number of a sequence that looks random: SplitMix64 (G. Steele et al., 2014). Never used for secrets.
pub(crate) fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_endpoints_nothing_is_chosen() {
        let unasked = |_| unreachable!("no endpoint to ask about");
        assert_eq!(choose(0, unasked, |_| 0, 1, None), None);
        assert_eq!(choose(1, |_| true, |_| 0, 1, None), Some(0));
        assert_eq!(choose(1, |_| true, |_| 0, 1, Some(0)), None);
    }

    #[test]
    fn equal_endpoints_get_equal_shares() {
        let mut counts = [0u32; 7];
        for n in 0..70_000 {
            counts[choose(7, |_| true, |_| 0, mix(n), None).expect("one")] += 1;
        }
        // 10,000 expected each; 500 is more than five standard deviations.
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
    }

    proptest! {
        #[test]
        fn only_healthy_ones_unless_there_are_none(
            healthy in proptest::collection::vec(any::<bool>(), 1..20), seed in any::<u64>(), except in 0usize..40,
        ) {
            let except = (except < healthy.len()).then_some(except);
            let chosen = choose(healthy.len(), |place| healthy[place], |_| 0, seed, except);
            let open: Vec<usize> = (0..healthy.len()).filter(|place| Some(*place) != except).collect();
            match chosen {
                None => prop_assert!(open.is_empty()),
                Some(place) => {
                    prop_assert!(open.contains(&place));
                    prop_assert!(healthy[place] || open.iter().all(|place| !healthy[*place]));
                }
            }
        }

        #[test]
        fn the_busiest_of_all_is_never_chosen(busy in 0usize..10, seed in any::<u64>()) {
            let outstanding = |place| if place == busy { 9 } else { 1 };
            prop_assert_ne!(choose(10, |_| true, outstanding, seed, None), Some(busy));
        }
    }
}
