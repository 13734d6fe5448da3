//! Where workers knock for newer keys of one issuer.
//!
//! Must not know: keys, or fetches. Shared between workers and the admin runtime; whoever finds it shut writes nothing.
//!
//! Main type: [`Door`].

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use tokio::sync::watch;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    base: Instant,
    /// From when on a knock is heard, in microseconds since `base`. Written by the admin runtime, read by workers.
    open_us: AtomicU64,
    /// The generation of the ring with which this issuer's keys last became other ones. Written by the admin runtime after
    /// the ring is there, read by both.
    brought: AtomicU64,
    /// The newest generation of the ring that somebody who knocked has seen, plus one; 0: nobody has since this was last
    /// asked. Written by both.
    knocked: AtomicU64,
    /// Fetches that have ended, and knocks that began none.
    answers: watch::Sender<u64>,
}

impl Door {
    pub(super) fn new(now: Instant) -> Self {
        let (answers, _) = watch::channel(0);
        Self { base: now, open_us: AtomicU64::new(0), brought: AtomicU64::new(0), knocked: AtomicU64::new(0), answers }
    }

    /// Whether there may be something to wait for.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.us(now) >= self.open_us.load(Relaxed)
    }

    /// Whether this issuer has other keys than in the ring with this generation.
    pub(super) fn has_newer(&self, seen_generation: u64) -> bool {
        self.brought.load(Acquire) > seen_generation
    }

    /// The ring with this generation, which has other keys of this issuer than the one before, can be read.
    pub(super) fn bring(&self, generation: u64) {
        self.brought.store(generation, Release);
    }

    /// Asks for newer keys than those of the ring with this generation. The next change of what is given back is the
    /// answer; true: nobody else waits to be heard.
    pub(super) fn knock(&self, seen_generation: u64) -> (watch::Receiver<u64>, bool) {
        let answers = self.answers.subscribe();
        let knock = seen_generation.saturating_add(1);
        (answers, self.knocked.fetch_max(knock, Relaxed) < knock)
    }

    /// Whether somebody has knocked since this was last asked, and if so, whether there are no newer keys yet.
    pub(super) fn take_knock(&self) -> Option<bool> {
        let knock = self.knocked.swap(0, Relaxed);
        knock.checked_sub(1).map(|seen| !self.has_newer(seen))
    }

    /// Opens it from `at` on; `None`: until further notice it stays shut.
    pub(super) fn open_from(&self, at: Option<Instant>) {
        self.open_us.store(at.map_or(u64::MAX, |at| self.us(at)), Relaxed);
    }

    /// Answers everybody who waits.
    pub(super) fn answer(&self) {
        self.answers.send_modify(|count| *count += 1);
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }
}
