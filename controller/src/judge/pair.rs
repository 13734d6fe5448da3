//! What both releases answered, made comparable: nothing is learnt from a stretch in which only one of them answered.
//!
//! Must not know: measures' bounds, tests. Counts alone say when a stretch ends, never failures: a stretch that ended
//! because of what went wrong in it would be no fair sample.
//!
//! Main types: [`Pair`], one measure of one stretch; [`Waitings`], what one of them answered while the other had nothing, by epoch.

use super::{Answered, Block, Measure};

/// One measure of one stretch in which both answered. Whole numbers from 0 up; each failed is at most its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) canary: Side,
    pub(super) stable: Side,
}

/// One release's part in a [`Pair`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    /// At least 1.
    pub(super) requests: f64,
    /// Failed, or slow.
    pub(super) failed: f64,
}

/// What waits to become comparable, by epoch: the newest ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Waitings {
    /// By epoch, oldest first.
    by_epoch: Vec<(u32, Waiting)>,
}

/// What one release answered while the other had nothing; it becomes comparable with the other's next answers.
///
/// Kept are the last 1,000 to 2,000 requests, or the last report where that is more: older ones are of another time, and
/// more of them would say nothing more, for no odds beyond 1,000 are looked for.
#[derive(Debug, Clone, Default)]
struct Waiting {
    older: Block,
    newer: Block,
}

const KEPT: u64 = 1_000;

// === impl Waitings ===

impl Waitings {
    /// Adds a block of an epoch; gives what has become comparable of it.
    pub(super) fn add(&mut self, epoch: u32, block: &Block) -> Option<Block> {
        let place = self.by_epoch.binary_search_by_key(&epoch, |(epoch, _)| *epoch).unwrap_or_else(|place| {
            self.by_epoch.insert(place, (epoch, Waiting::default()));
            place
        });
        let comparable = self.by_epoch.get_mut(place)?.1.add(block);
        let excess = self.by_epoch.len().saturating_sub(api::EPOCHS_MOST);
        self.by_epoch.drain(..excess);
        comparable
    }
}

// === impl Waiting ===

impl Waiting {
    /// Adds a block; gives what has become comparable.
    fn add(&mut self, block: &Block) -> Option<Block> {
        self.newer = self.newer.plus(block);
        let all = self.older.plus(&self.newer);
        if all.canary.requests > 0 && all.stable.requests > 0 {
            *self = Self::default();
            return Some(all);
        }
        if self.newer.canary.requests.max(self.newer.stable.requests) >= KEPT {
            self.older = std::mem::take(&mut self.newer);
        }
        None
    }
}

// === impl Block ===

impl Block {
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self { canary: self.canary.plus(other.canary), stable: self.stable.plus(other.stable) }
    }

    /// No more failed, and no more slow, than requests.
    pub(super) fn capped(&self) -> Self {
        Self { canary: self.canary.capped(), stable: self.stable.capped() }
    }

    /// Both have requests.
    pub(super) fn pair(&self, measure: Measure) -> Pair {
        Pair { canary: self.canary.side(measure), stable: self.stable.side(measure) }
    }
}

impl Answered {
    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failed: self.failed.saturating_add(other.failed),
            slow: self.slow.saturating_add(other.slow),
        }
    }

    fn capped(self) -> Self {
        Self { failed: self.failed.min(self.requests), slow: self.slow.min(self.requests), ..self }
    }

    fn side(self, measure: Measure) -> Side {
        let failed = match measure {
            Measure::Errors => self.failed,
            Measure::Slow => self.slow,
        };
        Side { requests: self.requests as f64, failed: failed as f64 }
    }
}

// === impl Pair ===

impl Pair {
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self { canary: self.canary.plus(other.canary), stable: self.stable.plus(other.stable) }
    }

    /// The canary's share of the requests, above 0 and below 1 but for rounding.
    pub(super) fn share(&self) -> f64 {
        self.canary.requests / self.requests()
    }

    /// Of both.
    pub(super) fn requests(&self) -> f64 {
        self.canary.requests + self.stable.requests
    }

    /// The canary's requests for one of the stable release.
    pub(super) fn per_stable(&self) -> f64 {
        self.canary.requests / self.stable.requests
    }

    /// The rate of both together.
    pub(super) fn both(&self) -> f64 {
        (self.canary.failed + self.stable.failed) / self.requests()
    }

    /// How many of the canary's requests would have failed, had they failed as often as the stable release's.
    pub(super) fn expected(&self) -> f64 {
        self.canary.requests * self.stable.rate()
    }
}

// === impl Side ===

impl Side {
    fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, failed: self.failed + other.failed }
    }

    pub(super) fn rate(&self) -> f64 {
        self.failed / self.requests
    }
}
