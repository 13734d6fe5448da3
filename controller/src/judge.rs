//! Whether a release that enters a stage is worse than the stable one, from what both answered at the same time.
//!
//! Must not know: clocks, proxies, or what becomes of its verdict. No I/O, no randomness.
//!
//! What it cannot see: that a caller fails whatever serves it. Where callers keep their release, one who fails all the time and
//! keeps the canary counts as the canary's failure.
//!
//! # What matters about blocks
//! Each block is compared within itself, so both releases' requests of a block should be of the same time; the shorter, the
//! better. Blocks in which only one answered wait for the other. Evidence that it is worse may begin at any block, so
//! order and grouping change the numbers; they never change what the numbers promise.
//!
//! A block is of one epoch: of requests that were dealt out by the same shares, whenever they ended. Were what began at 50 % and
//! takes a minute to fail compared with what began at 1 %, a canary that is as good would look fifty times worse.
//!
//! Evidence that it is worse lasts; evidence that it is no worse is that of the step under way ([`Judge::begin_step`]),
//! because a release can be well with little traffic and not with more.
//!
//! # What a verdict costs
//! Canary requests in the median, simulated (`benches/src/bin/verdict.rs`); stable fails 0.1 %, both measures are judged:
//!
//! | share of the canary | 50 % fail | 5 % fail | 1 % fail |
//! |---|---|---|---|
//! | 0.1 % | 4 | 58 | 630 |
//! | 1 % | 5 | 66 | 651 |
//! | 10 % | 9 | 94 | 843 |
//! | 20 % | 12 | 128 | 997 |
//! | 50 % | 26 | 268 | 1,821 |
//!
//! Until a release without a difference is no worse, errors alone, share 10 %, 500 of its requests
//! a report; 15 rollouts each, so about a fifth off:
//!
//! | margin | none fails | 0.01 % | 0.1 % | 1 % | 5 % |
//! |---|---|---|---|---|---|
//! | 0.1 % | 8,400 | 10,000 | 25,000 | 150,000 | 470,000 |
//! | 1 % | 1,500 | 1,500 | 1,500 | 3,400 | 8,500 |
//!
//! So with no failures at all it takes 8 / margin requests and the first report or two, which teach what to bet: no failure
//! in fewer is no proof of less than the margin.
//!
//! Main types: [`Judge`]; [`Block`], what was counted; [`Verdict`]; [`Evidence`], all that it goes by.

mod no_worse;
mod odds;
mod pair;
mod promise;
#[cfg(test)]
mod tests;
mod watched;
mod worse;

use api::Share;
use serde::{Deserialize, Serialize};

use self::pair::Waitings;
use self::watched::{Found, Watched};

pub use promise::Promise;

/// What both releases answered in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The release that enters.
    pub canary: Answered,
    /// The one that it is compared with.
    pub stable: Answered,
}

/// Requests that were dealt out by weight, as they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// All.
    pub requests: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Of these, slower than the bound.
    pub slow: u64,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Failed requests.
    Errors,
    /// Slow requests.
    Slow,
}

/// By what it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Accepted share of failed requests beyond the stable one's.
    pub errors: Share,
    /// Accepted share of slow requests beyond the stable one's; none: time is not judged. With one, nothing is no worse before
    /// it is known what slow is ([`Judge::know_slow`]).
    pub slow: Option<Share>,
    /// Of how many rollouts without a difference one may be called worse; default 1,000.
    pub one_in: u32,
}

/// What can be said now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Worse.
    Worse {
        /// In this; of both, the one that is surer.
        by: Measure,
    },
    /// No worse than the margins, in everything that is judged, since the step began.
    NoWorse,
    /// It cannot be told yet.
    NotYet {
        /// About so many more requests of the release would tell, if both go on as they did; none: nobody can say, because
        /// one of them has no requests, or lies on the margin.
        likely_requests: Option<u64>,
    },
}

/// All that a verdict goes by, for the record. Logarithms are natural, in thousandths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// All blocks together.
    pub counted: Block,
    /// By measure.
    pub tests: Vec<Test>,
}

/// One measure's test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// What is compared.
    pub measure: Measure,
    /// Evidence that it is worse. Where it is enough and the excess lies within the margin, the verdict is not worse.
    pub worse_milli: i64,
    /// Evidence that it is no worse than the margin, since the step began.
    pub no_worse_milli: i64,
    /// Either is enough from here on.
    pub enough_milli: i64,
}

/// Folds blocks. The same blocks in the same order give the same verdict.
#[derive(Debug, Clone)]
pub struct Judge {
    counted: Block,
    waiting: Waitings,
    watched: Vec<Watched>,
    /// The epoch with which the step began.
    step_since: u32,
    /// The epoch from which it is known what slow is; none: it is not.
    slow_since: Option<u32>,
    /// Natural logarithm of the evidence that is enough.
    enough: f64,
}

// === impl Judge ===

impl Judge {
    /// Nothing was counted yet.
    pub fn new(terms: Terms) -> Self {
        let fraction = |share: Share| f64::from(share.ppm()) / f64::from(Share::ALL.ppm());
        let errors = Watched::new(Measure::Errors, fraction(terms.errors));
        let slow = terms.slow.map(|share| Watched::new(Measure::Slow, fraction(share)));
        let watched: Vec<_> = std::iter::once(errors).chain(slow).collect();
        // Evidence begins at 1, which must never be enough.
        let enough = (f64::from(terms.one_in.max(2)) * watched.len() as f64).ln();
        let (counted, waiting) = (Block::default(), Waitings::default());
        Self { counted, waiting, watched, step_since: 0, slow_since: None, enough }
    }

    /// A step begins with this epoch: what was dealt out before no longer shows that the release is no worse. Again with the
    /// same epoch, or with an older one: nothing changes.
    pub fn begin_step(&mut self, epoch: u32) {
        if epoch > self.step_since {
            self.step_since = epoch;
            self.watched.iter_mut().for_each(Watched::begin_step);
        }
    }

    /// It is known what slow is: requests of this epoch and later ones are counted by that. The first word counts.
    pub fn know_slow(&mut self, epoch: u32) {
        self.slow_since.get_or_insert(epoch);
    }

    /// Takes in what was counted next of an epoch.
    pub fn add(&mut self, epoch: u32, block: &Block) {
        let block = block.capped();
        self.counted = self.counted.plus(&block);
        let Some(comparable) = self.waiting.add(epoch, &block) else { return };
        let knows_slow = self.slow_since.is_some_and(|since| epoch >= since);
        for watched in self.watched.iter_mut().filter(|watched| watched.measure == Measure::Errors || knows_slow) {
            watched.add(&comparable, epoch >= self.step_since);
        }
    }

    /// What can be said now. Asking often costs nothing: the test is valid at every look.
    pub fn verdict(&self) -> Verdict {
        let worse = self.watched.iter().filter(|watched| watched.found(self.enough) == Found::Worse);
        if let Some(surest) = worse.max_by(|one, other| one.surety().total_cmp(&other.surety())) {
            return Verdict::Worse { by: surest.measure };
        }
        if self.watched.iter().all(|watched| watched.found(self.enough) == Found::NoWorse) {
            return Verdict::NoWorse;
        }
        Verdict::NotYet { likely_requests: self.likely_requests() }
    }

    /// What it goes by.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            counted: self.counted,
            tests: self.watched.iter().map(|watched| watched.test(self.enough)).collect(),
        }
    }

    /// Until the first measure is worse, or until the last is no worse.
    fn likely_requests(&self) -> Option<u64> {
        let likely = self.watched.iter().map(|watched| watched.likely(self.enough));
        let worse = likely.clone().filter_map(|(worse, _)| worse).min_by(f64::total_cmp);
        let no_worse = likely.map(|(_, no_worse)| no_worse).try_fold(0.0_f64, |most, one| Some(most.max(one?)));
        let first = worse.into_iter().chain(no_worse).min_by(f64::total_cmp)?;
        Some((first.ceil() as u64).max(1))
    }
}
