//! When a worker has seen enough: so many failures among the last results of the canary, and by far fewer of the stable one
//! in the same time.
//!
//! Must not know: requests, clocks, who is told.
//!
//! Main type: [`Tripwire`].
//!
//! How sure it is, is a likelihood ratio: what was seen is so many times likelier if both have a rate of failures of their own,
//! each the likeliest one, than if they have one together (S. Wilks, "The large-sample distribution of the likelihood ratio",
//! 1938). A worker looks at every failure of the canary, so the odds that it asks for are set by what they let through: see the
//! tables of its tests.

use super::window::{Share, Window};

/// The stable release fails at most so many times more seldom: with less between them it is for the judge.
const SELDOMER: u64 = 8;

/// So many results of the stable release are few. Above three quarters of the weight there are no more when the canary has failed
/// ten times.
const FEW: u32 = 5;

/// Likelihood ratios asked for, with few results of the stable release and with more. That of 10 failures of 10 against 3 results
/// that are good is 1,122.
const ODDS: [f64; 2] = [1_000.0, 50_000.0];

/// See `fleet::Tripwire`. INVARIANT: 1 <= failures <= among <= 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tripwire {
    pub(crate) failures: u32,
    pub(crate) among: u32,
}

// === impl Tripwire ===

impl Tripwire {
    /// What the canary is stopped for; `None`: it goes on.
    ///
    /// The stable release is looked at twice: since the canary began to fail, because what breaks both is no fault of the
    /// canary's, however good the results before; and over all that is known, because a few good ones can be chance. Without
    /// results of the same time nothing is compared, and nothing is stopped.
    pub(super) fn trips(self, window: &Window) -> Option<Share> {
        let seen = window.canary(self.among);
        if seen.failures < self.failures {
            return None;
        }
        let (canary, stable) = window.since_first_failure();
        let is_worse = |canary: Share, stable: Share| seen.is_far_above(stable) && canary.is_other_than(stable);
        (is_worse(canary, stable) && is_worse(seen, window.stable())).then_some(seen)
    }
}

impl Share {
    /// Whether it is at least [`SELDOMER`] times the other one, of which something is known.
    fn is_far_above(self, other: Self) -> bool {
        let [failures, among, others] = [self.failures, self.among, other.failures].map(u64::from);
        // At most 8 * 2^32 * 64.
        other.among > 0 && SELDOMER * others * among <= failures * u64::from(other.among)
    }

    /// Whether chance does not explain the difference.
    fn is_other_than(self, other: Self) -> bool {
        let together = self.plus(other);
        let ratio = self.log_likelihood() + other.log_likelihood() - together.log_likelihood();
        ratio >= ODDS[usize::from(other.among >= FEW)].ln()
    }

    /// Logarithm of how likely this is when its own rate is the true one.
    fn log_likelihood(self) -> f64 {
        let [failed, good, among] = [self.failures, self.among - self.failures, self.among].map(f64::from);
        // 0 * ln 0 is 0.
        let term = |count: f64| if count > 0.0 { count * (count / among).ln() } else { 0.0 };
        term(failed) + term(good)
    }
}

#[cfg(test)]
#[path = "tripwire_tests.rs"]
mod tests;
