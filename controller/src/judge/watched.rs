//! One measure, with both tests of it.
//!
//! Must not know: other measures.
//!
//! Main type: [`Watched`].

use super::no_worse::NoWorse;
use super::pair::{Pair, Side};
use super::worse::Worse;
use super::{Block, Measure, Test};

/// One measure of the two releases.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) measure: Measure,
    /// As a fraction.
    margin: f64,
    worse: Worse,
    no_worse: NoWorse,
    /// What was comparable since the step began, all together.
    pair: Option<Pair>,
    /// What the canary's failures would have been at the stable release's rates.
    expected: f64,
}

/// Which of both tests has enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Worse,
    NoWorse,
    Neither,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(measure: Measure, margin: f64) -> Self {
        Self { measure, margin, worse: Worse::new(), no_worse: NoWorse::new(margin), pair: None, expected: 0.0 }
    }

    /// What it knows tells no longer that the canary is no worse.
    pub(super) fn begin_step(&mut self) {
        self.no_worse.begin();
        (self.pair, self.expected) = (None, 0.0);
    }

    /// Takes in a stretch in which both answered. `of_step`: all of it was dealt out since the step began.
    pub(super) fn add(&mut self, block: &Block, of_step: bool) {
        let pair = block.pair(self.measure);
        self.worse.add(&pair);
        if !of_step {
            return;
        }
        self.no_worse.add(&pair);
        self.expected += pair.expected();
        self.pair = Some(self.pair.map_or(pair, |so_far| so_far.plus(&pair)));
    }

    /// What its tests say, when so much is enough. Worse within the margin is not worse, however sure it is.
    pub(super) fn found(&self, enough: f64) -> Found {
        if self.worse.ln() >= enough && self.worse.excess() > self.margin {
            Found::Worse
        } else if self.no_worse.ln() >= enough {
            Found::NoWorse
        } else {
            Found::Neither
        }
    }

    /// Natural logarithm of the evidence that it is worse.
    pub(super) fn surety(&self) -> f64 {
        self.worse.ln()
    }

    pub(super) fn test(&self, enough: f64) -> Test {
        Test {
            measure: self.measure,
            worse_milli: milli(self.worse.ln()),
            no_worse_milli: milli(self.no_worse.ln()),
            enough_milli: milli(enough),
        }
    }

    /// About how many more of the canary's requests until it is worse, and until it is no worse, at the rates so far; none: it
    /// does not come to that.
    pub(super) fn likely(&self, enough: f64) -> (Option<f64>, Option<f64>) {
        let Some(pair) = self.typical() else { return (None, None) };
        let beyond = pair.canary.failed - pair.stable.rate();
        let worse = if beyond > self.margin { self.worse.until(enough, &pair) } else { None };
        let no_worse = if beyond < self.margin { self.no_worse.until(enough, &pair) } else { None };
        (worse, no_worse)
    }

    #[cfg(test)]
    pub(super) fn is_finite(&self) -> bool {
        let likely = self.likely(1.0);
        let numbers = [self.worse.ln(), self.worse.excess(), self.no_worse.ln(), self.expected];
        numbers.into_iter().chain(likely.0).chain(likely.1).all(f64::is_finite)
    }

    /// What comes with one request of the canary, if both go on as they did. The stable release's rate is that of the times at
    /// which the canary answered.
    fn typical(&self) -> Option<Pair> {
        let Pair { canary, stable } = self.pair?;
        let others = stable.requests / canary.requests;
        let rate = (self.expected / canary.requests).clamp(0.0, 1.0);
        Some(Pair {
            canary: Side { requests: 1.0, failed: canary.rate() },
            stable: Side { requests: others, failed: others * rate },
        })
    }
}

/// In thousandths; what does not fit is the most or the least.
pub(super) fn milli(ln: f64) -> i64 {
    (ln * 1_000.0) as i64
}
