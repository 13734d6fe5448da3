//! Where workers knock for newer keys of one issuer.
//!
//! Must not know: keys, or fetches. Shared between workers and the admin runtime; whoever finds it shut writes nothing.
//!
//! Main type: [`Door`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::watch;
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    base: Instant,
    /// From when on a knock is heard, in microseconds since `base`. Written by the admin runtime, read by workers.
    open_us: AtomicU64,
    /// Somebody has knocked since it was last asked. Written by both.
    knocked: AtomicBool,
    /// Fetches that have ended, and knocks that began none.
    answers: watch::Sender<u64>,
}

impl Door {
    pub(super) fn new(now: Instant) -> Self {
        let (answers, _) = watch::channel(0);
        Self { base: now, open_us: AtomicU64::new(0), knocked: AtomicBool::new(false), answers }
    }

    /// Whether there may be something to wait for.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.us(now) >= self.open_us.load(Relaxed)
    }

    /// Asks for newer keys. The next change of what is given back is the answer; true: nobody else waits to be heard.
    pub(super) fn knock(&self) -> (watch::Receiver<u64>, bool) {
        let answers = self.answers.subscribe();
        (answers, !self.knocked.swap(true, Relaxed))
    }

    /// Whether somebody has knocked since this was last asked.
    pub(super) fn take_knock(&self) -> bool {
        self.knocked.swap(false, Relaxed)
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
