//! What a worker remembers of its last results, so that both releases can be compared over the same time.
//!
//! Must not know: requests, clocks, or when enough has been seen.
//!
//! Main types: [`Window`], the last results of both; [`Callers`], whose failures are among them.

/// The last results on one worker: 64 of the canary, and all of the stable release since the oldest of these.
///
/// What the stable release answered is counted between each two of the canary's, which is what makes it one time for both: at
/// 1 % of the weight a hundred results come between two, at 90 % a tenth of one.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Of the canary, the newest lowest. 1: it failed.
    canary: u64,
    seen: u32,
    /// Of the stable release, since each of the canary's that are remembered; a ring. At first, since the beginning.
    stable: [Share; Window::CANARY as usize],
    /// Where the newest stands.
    newest: usize,
}

/// Failures among so many results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Share {
    pub(crate) failures: u32,
    pub(crate) among: u32,
}

/// By whom the canary's failures in a [`Window`] were met, so that nobody is among them twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callers {
    /// A ring: as many as a window has results.
    met: [u32; 64],
    /// Where the next one goes.
    next: u8,
}

/// Who met a result: some bits of a sticky caller's place, or nobody in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallerId(u32);

// === impl Window ===

impl Window {
    /// Most results of the canary that are remembered.
    pub(super) const CANARY: u32 = u64::BITS;

    /// The canary has one more result; the oldest falls out, and what the stable release answered after it.
    pub(super) fn add_canary(&mut self, failed: bool) {
        self.canary = self.canary << 1 | u64::from(failed);
        self.seen = (self.seen + 1).min(Self::CANARY);
        self.newest = (self.newest + 1) % self.stable.len();
        self.stable[self.newest] = Share::default();
    }

    /// The stable release has one more result.
    pub(super) fn add_stable(&mut self, failed: bool) {
        let since = &mut self.stable[self.newest];
        *since = since.plus(Share { failures: failed.into(), among: 1 });
    }

    /// Failures among the canary's last `most` results, or among all that there are.
    pub(super) fn canary(&self, most: u32) -> Share {
        let among = most.min(self.seen);
        // Nothing stands above what was seen.
        let results = if among >= Self::CANARY { self.canary } else { self.canary & ((1 << among) - 1) };
        Share { failures: results.count_ones(), among }
    }

    /// Both since the canary's first failure that is remembered, which is one of its results; the canary first. It has failed.
    pub(super) fn since_first_failure(&self) -> (Share, Share) {
        let among = Self::CANARY - self.canary.leading_zeros();
        (Share { failures: self.canary.count_ones(), among }, self.stable_since(among as usize))
    }

    /// All that is known of the stable release.
    pub(super) fn stable(&self) -> Share {
        self.stable_since(self.stable.len())
    }

    /// Since so many results of the canary.
    fn stable_since(&self, results: usize) -> Share {
        let ring = self.stable.len();
        let newest = (0..results.min(ring)).map(|back| self.stable[(self.newest + ring - back) % ring]);
        newest.fold(Share::default(), Share::plus)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { canary: 0, seen: 0, stable: [Share::default(); Window::CANARY as usize], newest: 0 }
    }
}

impl Share {
    pub(super) fn plus(self, other: Self) -> Self {
        Self { failures: self.failures.saturating_add(other.failures), among: self.among.saturating_add(other.among) }
    }
}

// === impl Callers ===

impl Default for Callers {
    fn default() -> Self {
        Self { met: [0; 64], next: 0 }
    }
}

impl Callers {
    /// Remembers whoever meets a failure, of which `known` are in the window; false: it is among them already.
    pub(super) fn meets(&mut self, caller: CallerId, known: u32) -> bool {
        let ring = self.met.len();
        let newest = (1..=ring.min(known as usize)).map(|back| self.met[(usize::from(self.next) + ring - back) % ring]);
        if caller != CallerId::NOBODY && newest.into_iter().any(|met| met == caller.0) {
            return false;
        }
        self.met[usize::from(self.next)] = caller.0;
        self.next = (self.next + 1) % ring as u8;
        true
    }
}

impl CallerId {
    const NOBODY: Self = Self(0);

    /// Of the caller at this place of a stage's range; `None`: it has none, and each request is somebody else's.
    pub(super) fn at(place: Option<u64>) -> Self {
        // The lower half: callers of one release have much the same upper one. Two in 2^32 are taken for one.
        place.map_or(Self::NOBODY, |place| Self((place as u32).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(results: &[(bool, bool)]) -> Window {
        let mut window = Window::default();
        for (is_canary, failed) in results {
            match is_canary {
                true => window.add_canary(*failed),
                false => window.add_stable(*failed),
            }
        }
        window
    }

    fn share<'a>(results: impl Iterator<Item = &'a (bool, bool)>) -> Share {
        results.fold(Share::default(), |share, (_, failed)| share.plus(Share { failures: (*failed).into(), among: 1 }))
    }

    /// The same, by hand: the last 64 of the canary, and all of the stable release since the oldest of them.
    fn by_hand(results: &[(bool, bool)]) -> (Share, Share, Share) {
        let canary: Vec<usize> = (0..results.len()).filter(|n| results[*n].0).collect();
        let canary = &canary[canary.len().saturating_sub(64)..];
        let stable = |from: usize| share(results[from..].iter().filter(|(is_canary, _)| !is_canary));
        let all = stable(if canary.len() < 64 { 0 } else { canary[0] });
        let Some(first) = canary.iter().copied().find(|n| results[*n].1) else {
            return (Share::default(), Share::default(), all);
        };
        (share(results[first..].iter().filter(|(is_canary, _)| *is_canary)), stable(first), all)
    }

    proptest! {
        #[test]
        fn tripwire_windows_hold_both_releases_over_the_same_time(
            results in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..400), skew in 1usize..20, most in 1u32..=64,
        ) {
            // One of both has few.
            let keeps = |(n, _): &(usize, &(bool, bool))| n % skew == 0;
            for which in [true, false] {
                let all = results.iter().enumerate().filter(|one| one.1.0 != which || keeps(one));
                let results: Vec<_> = all.map(|(_, one)| *one).collect();
                let window = window(&results);
                let (canary, stable) = window.since_first_failure();
                prop_assert_eq!((canary, stable, window.stable()), by_hand(&results));
                let last: Vec<_> = results.iter().filter(|one| one.0).collect();
                let last = last[last.len().saturating_sub(most as usize)..].iter().copied();
                prop_assert_eq!(window.canary(most), share(last));
            }
        }

        #[test]
        fn tripwire_windows_hold_a_caller_once(met in proptest::collection::vec((1u64..100, any::<bool>()), 0..400)) {
            let (mut callers, mut window, mut kept) = (Callers::default(), Window::default(), Vec::new());
            for (place, failed) in met {
                if failed && !callers.meets(CallerId::at(Some(place)), window.canary(64).failures) {
                    let in_window = &kept[kept.len().saturating_sub(64usize)..];
                    prop_assert!(in_window.contains(&Some(place)), "{} is not among them", place);
                    continue;
                }
                window.add_canary(failed);
                kept.push(failed.then_some(place));
                let mut failures: Vec<u64> = kept[kept.len().saturating_sub(64)..].iter().copied().flatten().collect();
                let count = failures.len();
                failures.sort_unstable();
                failures.dedup();
                prop_assert_eq!((failures.len(), count), (window.canary(64).failures as usize, failures.len()));
            }
        }
    }

    #[test]
    fn tripwire_windows_take_those_without_a_place_for_somebody_else_each() {
        let mut callers = Callers::default();
        assert!((0..200).all(|known| callers.meets(CallerId::at(None), known.min(64))));
        // Nobody's place is nobody's.
        assert!(callers.meets(CallerId::at(Some(0)), 64));
        assert!(!callers.meets(CallerId::at(Some(0)), 64));
        assert!(!callers.meets(CallerId::at(Some(1 << 32)), 64), "some bits");
    }
}
