//! How much likelier the canary's part of a block's failures is at given odds than without a difference.
//!
//! Must not know: other blocks.
//!
//! Main function: [`ln_ratio`]. Without a difference its exponential is 1 on average, or less, whatever the failure rate is at that
//! time: given all failures of a block, `F` of `N` requests, each falls on the canary with the canary's share `w` of the
//! requests (Lindon and Malek, *Anytime-Valid Inference for Multinomial Count Data*, arXiv 2011.03567; block by block as Turner,
//! Ly and Grünwald, *Generic E-Variables for Exact Sequential k-Sample Tests that allow for Optional Stopping*, arXiv
//! 2106.02693). With `f` of them the canary's, at odds `t`:
//!
//! ```text
//! few:   t^f / sum over k of P(k) t^k    P: hypergeometric, k of the canary's requests among F of N
//! many:  t^f / (1 - w + w t)^F           P: binomial
//! ```
//!
//! A request fails once at most, so `f` is hypergeometric; the binomial sum is larger (Hoeffding, *Probability Inequalities for
//! Sums of Bounded Random Variables*, 1963, Theorem 4: `t^k` is convex in `k`), so the second is on the safe side. Odds `t` that a
//! request fails are odds `1 / t` that it does not: the rarer of both are counted. Which form is taken hangs on the block's
//! totals alone.

use super::pair::Pair;

/// The exact sum is taken up to so many failures among so many requests: no term leaves the range of a number.
const FEW: f64 = 32.0;
const AMONG: f64 = 1_000.0;

/// Natural logarithm, for odds above 0. 0 where nothing or everything failed.
pub(super) fn ln_ratio(pair: &Pair, odds: f64) -> f64 {
    let (part, all, odds) = rarer(pair, odds);
    if all <= FEW && pair.requests() <= AMONG {
        part * odds.ln() - exact(pair.canary.requests, pair.stable.requests, all, odds).ln()
    } else {
        many(pair, part, all, odds)
    }
}

/// The same for counts that need not be whole, such as means: by the form for many.
pub(super) fn ln_gain(pair: &Pair, odds: f64) -> f64 {
    let (part, all, odds) = rarer(pair, odds);
    many(pair, part, all, odds)
}

/// Of failures and the rest the rarer: the canary's, both releases', and the odds of it.
fn rarer(pair: &Pair, odds: f64) -> (f64, f64, f64) {
    let Pair { canary, stable } = pair;
    let failed = canary.failed + stable.failed;
    let rest = pair.requests() - failed;
    if failed <= rest { (canary.failed, failed, odds) } else { (canary.requests - canary.failed, rest, 1.0 / odds) }
}

fn many(pair: &Pair, part: f64, all: f64, odds: f64) -> f64 {
    part * odds.ln() - all * (pair.share() * (odds - 1.0)).ln_1p()
}

/// Mean of `odds^k`, with `k` of `canary` among `all` of `canary + stable`, each as likely as any other.
fn exact(canary: f64, stable: f64, all: f64, odds: f64) -> f64 {
    let mut k = (all - stable).max(0.0);
    let last = all.min(canary);
    // Relative to the first term of each sum; the first power is put back at the end.
    let (mut chance, mut chances, mut powers, mut power) = (1.0, 1.0, 1.0, 1.0);
    let first = odds.powf(k);
    while k < last {
        chance *= (canary - k) * (all - k) / ((k + 1.0) * (stable - all + k + 1.0));
        power *= odds;
        chances += chance;
        powers += chance * power;
        k += 1.0;
    }
    first * powers / chances
}
