//! How far a transfer has come: written by those who carry it out, read by whoever shows it.
//!
//! Must not know: what is transferred, or who looks.
//!
//! Main type: [`Progress`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes done of bytes to do. Clones share the numbers; a new one says 0 of 0.
///
/// What has to be sent again is not done any more: `done` may become less.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    done: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    /// Bytes that are where they should be.
    pub fn done(&self) -> u64 {
        self.0.done.load(Relaxed)
    }

    /// Bytes that there are to do, once that is known.
    pub fn all(&self) -> u64 {
        self.0.all.load(Relaxed)
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.0.all.fetch_add(bytes, Relaxed);
    }

    /// The share of one blob in it.
    pub(crate) fn share(&self) -> Share {
        Share { progress: self.clone(), done: Arc::default() }
    }
}

/// What one blob adds. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    progress: Progress,
    done: Arc<AtomicU64>,
}

impl Share {
    /// So many bytes of it are done, whatever was said before.
    pub(crate) fn set(&self, done: u64) {
        let before = self.done.swap(done, Relaxed);
        let all = &self.progress.0.done;
        if done >= before {
            all.fetch_add(done - before, Relaxed);
        } else {
            all.fetch_sub(before - done, Relaxed);
        }
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.set(self.done() + bytes);
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_counted_once() {
        let progress = Progress::default();
        progress.expect(100);
        let (a, b) = (progress.share(), progress.share());
        a.add(30);
        b.set(50);
        a.set(10);
        a.add(40);
        assert_eq!((progress.done(), progress.all(), a.done()), (100, 100, 50));
    }
}
