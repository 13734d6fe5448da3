//! Evidence that the canary fails more often than the stable release does at the same time.
//!
//! Must not know: margins and thresholds.
//!
//! Main type: [`Worse`], an e-process: while the canary is no worse, the chance that it ever reaches `x` is at most `1 / x`,
//! however often one looks (Ville's inequality).
//!
//! # How
//! [`odds`](super::odds) says for one block and odds fixed beforehand how much likelier the canary's part of the failures is at
//! these odds than without a difference. The product over blocks is an e-process for each of the odds in [`ODDS`], and
//! starts anew with each block that can tell anything: a release that was well for a million requests and then is not, is found as
//! if it had begun later. All are averaged with weights fixed beforehand, which keeps the average an e-process (the method
//! of mixtures).

use super::odds::{ln_gain, ln_ratio};
use super::pair::Pair;

/// Odds that are looked for, and how much is put on each; the parts sum to 1. None is above 1,000, so that one failure alone
/// is never enough at 1 in 1,000.
const ODDS: [(f64, f64); 7] =
    [(1.2, 0.03), (1.5, 0.04), (2.5, 0.06), (6.0, 0.14), (20.0, 0.28), (100.0, 0.28), (1_000.0, 0.17)];

/// Put on starts after the first; `LATER / sqrt(k)` of it is left after `k` of them.
const LATER: f64 = 0.1;

/// Evidence that it is worse.
#[derive(Debug, Clone)]
pub(super) struct Worse {
    bets: [Bet; ODDS.len()],
    /// Blocks so far that could tell anything.
    telling: f64,
    /// Natural logarithm of all together, with what is not started yet.
    ln: f64,
}

/// What was put on one of the odds, and what became of it.
#[derive(Debug, Clone, Copy)]
struct Bet {
    /// Natural logarithm of what it is worth, over all starts.
    ln: f64,
    /// The canary's requests since the start that is worth most.
    requests: f64,
    /// Of these, failed beyond what the stable release's rate lets expect.
    excess: f64,
}

// === impl Worse ===

impl Worse {
    pub(super) fn new() -> Self {
        let bet = |(_, part): (f64, f64)| Bet { ln: ((1.0 - LATER) * part).ln(), requests: 0.0, excess: 0.0 };
        Self { bets: ODDS.map(bet), telling: 0.0, ln: 0.0 }
    }

    pub(super) fn add(&mut self, pair: &Pair) {
        let excess = pair.canary.failed - pair.expected();
        let started = self.start(pair);
        for (bet, (odds, part)) in self.bets.iter_mut().zip(ODDS) {
            if let Some(ln_started) = started {
                let fresh = ln_started + part.ln();
                if fresh > bet.ln {
                    (bet.requests, bet.excess) = (0.0, 0.0);
                }
                bet.ln = ln_sum(bet.ln, fresh) + ln_ratio(pair, odds);
            }
            bet.requests += pair.canary.requests;
            bet.excess += excess;
        }
        if started.is_some() {
            self.ln = self.bets.iter().fold(left(self.telling).ln(), |sum, bet| ln_sum(sum, bet.ln));
        }
    }

    /// Natural logarithm of the evidence.
    pub(super) fn ln(&self) -> f64 {
        self.ln
    }

    /// Share of the canary's requests that failed beyond the stable release's, since the evidence began to grow.
    pub(super) fn excess(&self) -> f64 {
        let first = self.bets[0];
        let surest = self.bets.into_iter().fold(first, |best, bet| if bet.ln > best.ln { bet } else { best });
        if surest.requests > 0.0 { surest.excess / surest.requests } else { 0.0 }
    }

    /// About how many stretches such as this one it takes to reach `enough`; none: it does not get there.
    pub(super) fn until(&self, enough: f64, pair: &Pair) -> Option<f64> {
        let until = |(bet, (odds, _)): (&Bet, (f64, f64))| {
            let gain = ln_gain(pair, odds);
            (gain > 0.0).then(|| ((enough - bet.ln) / gain).max(0.0))
        };
        self.bets.iter().zip(ODDS).filter_map(until).min_by(f64::total_cmp)
    }

    /// Natural logarithm of what starts with this block, where the block can tell anything: one without failures, and one
    /// with nothing else, says nothing about who has more of them.
    fn start(&mut self, pair: &Pair) -> Option<f64> {
        let failed = pair.canary.failed + pair.stable.failed;
        if failed <= 0.0 || failed >= pair.requests() {
            return None;
        }
        let before = left(self.telling);
        self.telling += 1.0;
        Some((before - left(self.telling)).ln())
    }
}

/// What is not started yet after so many telling blocks.
fn left(telling: f64) -> f64 {
    LATER / (telling + 1.0).sqrt()
}

/// `ln(e^a + e^b)`.
pub(super) fn ln_sum(a: f64, b: f64) -> f64 {
    let (more, less) = if a > b { (a, b) } else { (b, a) };
    more + (less - more).exp().ln_1p()
}
