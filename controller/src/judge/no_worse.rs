//! Evidence that the canary fails no more often than the stable release at the same time, but for the margin.
//!
//! Must not know: thresholds, and what speaks for the opposite.
//!
//! Main type: [`NoWorse`], an e-process: while the canary is worse by the margin or more, the chance that it ever reaches `x`
//! is at most `1 / x`, however often one looks (Ville's inequality).
//!
//! # How
//! For a block of `n` requests of the canary and `m` of the stable release, any `0 < r < 1 - margin` and any small enough bet
//! `l >= 0`, fixed before the block, with `s = r + margin` and `k = l n / m`:
//!
//! ```text
//! a request of       that failed       that did not
//! the canary         1 - l (1 - s)     1 + l s
//! stable             1 + k (1 - r)     1 - k r
//! ```
//!
//! The product over the block is an e-variable: if requests fail with `p` (canary) and `q` (stable) on average, the factors'
//! means are `1 - l (p - s)` and `1 + k (q - r)`, so the product's is at most `exp(-l n (p - q - margin))`, which is at most 1
//! for every canary that is worse by the margin. How well `r` and `l` were chosen says how fast it grows, not whether it holds.
//! Best for given rates `a` (canary) and `b` (stable) is the point on the margin that is nearest to them, by relative entropy
//! weighted with the requests; this is then the e-variable of Turner and Grünwald, *Exact Anytime-valid Confidence Intervals
//! for Contingency Tables and Beyond*, arXiv 2203.09785.
//!
//! Rates are estimated from blocks before: once as if both had the same, once for each; half is put on either.

use super::pair::{Pair, Side};
use super::worse::ln_sum;

/// Evidence that it is no worse.
#[derive(Debug, Clone)]
pub(super) struct NoWorse {
    /// Above what the stable release has; `0..1`.
    margin: f64,
    canary: Rate,
    stable: Rate,
    /// Natural logarithms of what became of each half.
    ln_same: f64,
    ln_each: f64,
}

/// A failure rate, as it was lately.
#[derive(Debug, Clone, Copy)]
struct Rate {
    requests: f64,
    failed: f64,
}

/// A point on the margin and how much is put on the canary being below it.
#[derive(Debug, Clone, Copy)]
struct Bet {
    /// `r` and `s` above.
    stable: f64,
    canary: f64,
    /// `k` and `l` above.
    on_stable: f64,
    on_canary: f64,
}

/// So many requests make up a rate; then what was before counts half.
const MEMORY: f64 = 100_000.0;

/// What is put on either half.
const LN_HALF: f64 = -std::f64::consts::LN_2;

// === impl NoWorse ===

impl NoWorse {
    pub(super) fn new(margin: f64) -> Self {
        let unknown = Rate { requests: 0.0, failed: 0.0 };
        // A margin of everything is never reached, and has no point to bet on.
        Self { margin: margin.clamp(0.0, 0.999), canary: unknown, stable: unknown, ln_same: LN_HALF, ln_each: LN_HALF }
    }

    /// The evidence begins anew; what the rates are is a guess to bet on, and stays one.
    pub(super) fn begin(&mut self) {
        (self.ln_same, self.ln_each) = (LN_HALF, LN_HALF);
    }

    pub(super) fn add(&mut self, pair: &Pair) {
        let (same, each) = self.rates();
        for (ln, (canary, stable)) in [(&mut self.ln_same, same), (&mut self.ln_each, each)] {
            if let Some(bet) = Bet::best(pair.per_stable(), canary, stable, self.margin) {
                *ln += bet.ln_factor(pair);
            }
        }
        self.canary.learn(pair.canary);
        self.stable.learn(pair.stable);
    }

    /// Natural logarithm of the evidence.
    pub(super) fn ln(&self) -> f64 {
        ln_sum(self.ln_same, self.ln_each)
    }

    /// About how many stretches such as this one it takes to reach `enough`; none: it does not get there.
    pub(super) fn until(&self, enough: f64, pair: &Pair) -> Option<f64> {
        let both = pair.both();
        let until = |ln: f64, canary: f64, stable: f64| {
            let inside = |rate: f64| rate.clamp(LEAST, 1.0 - LEAST);
            let gain = Bet::best(pair.per_stable(), inside(canary), inside(stable), self.margin)?.ln_factor(pair);
            (gain > 0.0).then(|| ((enough - ln) / gain).max(0.0))
        };
        let halves = [until(self.ln_same, both, both), until(self.ln_each, pair.canary.rate(), pair.stable.rate())];
        halves.into_iter().flatten().min_by(f64::total_cmp)
    }

    /// Of the canary and of the stable release: as if both had the same, and for each.
    fn rates(&self) -> ((f64, f64), (f64, f64)) {
        let both = Rate {
            requests: self.canary.requests + self.stable.requests,
            failed: self.canary.failed + self.stable.failed,
        };
        ((both.estimate(), both.estimate()), (self.canary.estimate(), self.stable.estimate()))
    }
}

/// A rate that stands for none.
const LEAST: f64 = 1e-9;

// === impl Rate ===

impl Rate {
    /// Never 0 or 1, one half while nothing is known: half a failure more, and half another (Krichevsky and Trofimov).
    fn estimate(self) -> f64 {
        ((self.failed + 0.5) / (self.requests + 1.0)).clamp(LEAST, 1.0 - LEAST)
    }

    fn learn(&mut self, side: Side) {
        if self.requests > MEMORY {
            (self.requests, self.failed) = (self.requests / 2.0, self.failed / 2.0);
        }
        self.requests += side.requests;
        self.failed += side.failed;
    }
}

// === impl Bet ===

impl Bet {
    /// The best one for these rates, above 0 and below 1, and so many requests of the canary per one of the stable release.
    /// None where the canary's lies on the margin or above: there is nothing to win.
    fn best(per_stable: f64, canary: f64, stable: f64, margin: f64) -> Option<Self> {
        if canary - stable >= margin {
            return None;
        }
        // The distance has one minimum between the point where the canary's rate is kept and that where the stable one's is.
        let slope = |at: f64, rate: f64| (at - rate) / (at * (1.0 - at));
        let (mut low, mut high) = ((canary - margin).max(0.0), stable.min(1.0 - margin));
        for _ in 0..STEPS {
            let at = (low + high) / 2.0;
            if slope(at, stable) + per_stable * slope(at + margin, canary) > 0.0 {
                high = at;
            } else {
                low = at;
            }
        }
        let at = (low + high) / 2.0;
        // INVARIANT: no factor is 0 or below: `l (1 - s) < 1` and `k r < 1`.
        let on_canary = slope(at + margin, canary).min(0.999 / (1.0 - at - margin)).min(0.999 / (per_stable * at));
        let bet = Self { stable: at, canary: at + margin, on_stable: on_canary * per_stable, on_canary };
        (on_canary > 0.0).then_some(bet)
    }

    fn ln_factor(&self, pair: &Pair) -> f64 {
        let Pair { canary, stable } = pair;
        canary.failed * (-self.on_canary * (1.0 - self.canary)).ln_1p()
            + (canary.requests - canary.failed) * (self.on_canary * self.canary).ln_1p()
            + stable.failed * (self.on_stable * (1.0 - self.stable)).ln_1p()
            + (stable.requests - stable.failed) * (-self.on_stable * self.stable).ln_1p()
    }
}

/// Halvings on the way to the best bet: enough for six digits.
const STEPS: usize = 20;
