//! A release that turns bad when it is told to, and remembers when it answered what.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::upstream;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// When its request had been read.
    pub at: Instant,
    /// It was a 500.
    pub failed: bool,
}

/// A server that runs as long as this process.
#[derive(Debug, Clone)]
pub struct Turning {
    /// Where it serves.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// 0: none.
    every: AtomicU64,
    answers: Mutex<Vec<Answer>>,
}

impl Turning {
    /// Starts one that is well.
    ///
    /// # Errors
    /// A system without free ports or threads.
    pub fn start(name: &'static str) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let [well, failed] = ["200 OK", "500 Internal Server Error"].map(|status| upstream::words(status, name).into());
        let heard = shared.clone();
        let port = upstream::start_with(name, move || {
            let bad = heard.answers();
            if bad { Arc::<str>::clone(&failed) } else { Arc::<str>::clone(&well) }
        })?;
        Ok(Self { address: upstream::address(0, port), shared })
    }

    /// From now on every so-many-th answer is a 500; 0: none.
    pub fn fails_every(&self, every: u64) {
        self.shared.every.store(every, Ordering::Relaxed);
    }

    /// All answers since this was asked last, oldest first.
    pub fn take(&self) -> Vec<Answer> {
        std::mem::take(&mut self.shared.lock())
    }
}

impl Shared {
    /// Whether the next answer fails.
    fn answers(&self) -> bool {
        let (at, every) = (Instant::now(), self.every.load(Ordering::Relaxed));
        let mut answers = self.lock();
        let number = answers.len() as u64 + 1;
        let failed = every > 0 && number.is_multiple_of(every);
        answers.push(Answer { at, failed });
        failed
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().expect("nobody panics while they hold it")
    }
}
