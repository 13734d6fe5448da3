//! Counts of what is judged: one epoch's part in one release, on each worker and over all.
//!
//! Must not know: why a request counts or has failed, or what makes an epoch.
//!
//! Main types: [`Judged`], a worker's block; [`Epochs`], all blocks of one release.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use api::Histogram;

use super::{Rows, add};

/// A reader that meets a writer looks again so often; what it has then may be torn by one request.
const LOOKS: u32 = 1_000;

/// A stretch of a rollout in which shares, and what is slow, are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Epoch {
    pub(crate) rollout: u64,
    pub(crate) number: u32,
}

/// Counts of judged requests of one release in one epoch on one worker.
///
/// Written by that worker alone, with plain loads and stores, and read by the admin runtime at any time. The version says
/// whether a request was written meanwhile (H. Boehm, "Can seqlocks get along with programming language memory models?",
/// 2012): the judge takes differences, and no failure may come without its request.
#[derive(Debug, Default)]
// As for `Block`.
#[repr(align(128))]
pub(crate) struct Judged {
    /// Odd while a request is being written.
    version: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
    sum_us: AtomicU64,
    latency: Rows,
}

/// What became of one judged request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Until the head of the answer; `None`: there was none.
    pub(crate) us: Option<u64>,
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// Sums of judged requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct JudgedSums {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) slow: u64,
}

impl Add for JudgedSums {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { requests: self.requests + more.requests, failed: self.failed + more.failed, slow: self.slow + more.slow }
    }
}

/// Counts of one release over all workers, by epoch: those of the rollout under way, and those of which requests are still in
/// flight.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// In order.
    known: Vec<Entry>,
    /// Of epochs that were forgotten though their rollout, which is this one, goes on.
    past: Option<(u64, JudgedSums)>,
}

/// One epoch.
#[derive(Debug)]
struct Entry {
    epoch: Epoch,
    /// Of blocks that nobody counts on any more.
    last: (JudgedSums, Histogram),
    blocks: Vec<Arc<Judged>>,
}

impl Judged {
    /// A request has ended.
    pub(crate) fn count(&self, Outcome { us, failed, slow }: Outcome) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        // Neither fence nor store is a locked instruction.
        fence(Release);
        add(&self.requests, 1);
        add(&self.failed, failed.into());
        add(&self.slow, slow.into());
        if let Some(us) = us {
            add(&self.sum_us, us);
            self.latency.add(us);
        }
        self.version.store(version.wrapping_add(2), Release);
    }

    /// Everything as it was between two requests.
    fn read(&self) -> (JudgedSums, Histogram) {
        for _ in 0..LOOKS {
            let version = self.version.load(Acquire);
            let read = self.look();
            fence(Acquire);
            if version.is_multiple_of(2) && self.version.load(Relaxed) == version {
                return read;
            }
            // The writer may not be running.
            std::thread::yield_now();
        }
        self.look()
    }

    fn look(&self) -> (JudgedSums, Histogram) {
        let [requests, failed, slow] = [&self.requests, &self.failed, &self.slow].map(|count| count.load(Relaxed));
        let mut latency = Histogram::default();
        latency.add_sum_us(self.sum_us.load(Relaxed));
        self.latency.add_to(&mut latency);
        (JudgedSums { requests, failed, slow }, latency)
    }
}

impl Epochs {
    /// Most epochs of a release that are kept, the newest. A request that began before these, and lasts still, is not counted:
    /// shares change by steps, which last longer than requests do.
    pub(super) const MOST: usize = 8;

    /// A worker has begun to count.
    pub(super) fn open(&mut self, epoch: Epoch, block: Arc<Judged>) {
        let place = self.known.binary_search_by_key(&epoch, |entry| entry.epoch).unwrap_or_else(|place| {
            self.known.insert(place, Entry { epoch, last: Default::default(), blocks: Vec::new() });
            place
        });
        self.known[place].blocks.push(block);
    }

    fn of(&self, rollout: u64) -> impl Iterator<Item = &Entry> {
        self.known.iter().filter(move |entry| entry.epoch.rollout == rollout)
    }

    /// See [`super::Entry::judged`].
    pub(super) fn sums(&self, rollout: u64) -> Option<JudgedSums> {
        let past = self.past.filter(|past| past.0 == rollout).map(|past| past.1);
        let sums = self.of(rollout).map(|entry| entry.total().0);
        past.into_iter().chain(sums).reduce(|all, more| all + more)
    }

    /// See [`super::Entry::epochs`].
    pub(super) fn newest(&self, rollout: u64) -> impl Iterator<Item = (Epoch, JudgedSums, Histogram)> {
        let older = self.of(rollout).count().saturating_sub(Self::MOST);
        self.of(rollout).skip(older).map(|entry| {
            let (sums, latency) = entry.total();
            (entry.epoch, sums, latency)
        })
    }

    /// See [`super::Ledger::forget_judged`]. Of too many, those go first whose rollout is over.
    pub(super) fn forget(&mut self, is_over: impl Fn(u64) -> bool) {
        self.known.retain(|entry| !entry.blocks.is_empty() || !is_over(entry.epoch.rollout));
        self.past.take_if(|past| is_over(past.0));
        for over_only in [true, false] {
            let mut too_many = self.known.len().saturating_sub(Self::MOST);
            let gone = self.known.extract_if(.., |entry| {
                let goes = too_many > 0 && (!over_only || is_over(entry.epoch.rollout));
                too_many -= usize::from(goes);
                goes
            });
            for entry in gone.filter(|_| !over_only) {
                let (rollout, sums) = (entry.epoch.rollout, entry.total().0);
                let before = self.past.filter(|past| past.0 == rollout).map(|past| past.1).unwrap_or_default();
                self.past = Some((rollout, before + sums));
            }
        }
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.known.len()
    }

    /// Whether somebody counts.
    pub(super) fn are_held(&self) -> bool {
        self.known.iter().any(|entry| !entry.blocks.is_empty())
    }

    /// Adds up blocks that only the ledger holds, and lets them go.
    pub(super) fn settle(&mut self) {
        self.known.iter_mut().for_each(Entry::settle);
    }
}

impl Entry {
    /// The counts now, over all workers.
    fn total(&self) -> (JudgedSums, Histogram) {
        let mut total = self.last.clone();
        self.blocks.iter().for_each(|block| join(&mut total, block));
        total
    }

    fn settle(&mut self) {
        for block in self.blocks.extract_if(.., |block| Arc::get_mut(block).is_some()) {
            join(&mut self.last, &block);
        }
    }
}

fn join((sums, latency): &mut (JudgedSums, Histogram), block: &Judged) {
    let (more, latencies) = block.read();
    *sums = *sums + more;
    latency.merge(&latencies);
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const COUNTS: u64 = 20_000;

    #[test]
    fn judged_counts_are_whole_whenever_they_are_read() {
        let block = Arc::<Judged>::default();
        let writer = block.clone();
        let writing = std::thread::spawn(move || {
            for us in 0..COUNTS {
                writer.count(Outcome { us: Some(us % 100), failed: true, slow: true });
                // As far apart as requests are at the least.
                let next = Instant::now() + Duration::from_micros(20);
                while Instant::now() < next {}
            }
        });
        let mut looks = 0u64;
        while !writing.is_finished() || looks == 0 {
            let (JudgedSums { requests, failed, slow }, latency) = block.read();
            assert_eq!((failed, slow, latency.total()), (requests, requests, requests));
            looks += 1;
        }
        writing.join().expect("it ended");
        let (sums, latency) = block.read();
        assert_eq!((sums.requests, latency.total()), (COUNTS, COUNTS));
        assert_eq!(latency.sum_us(), (0..COUNTS).map(|us| us % 100).sum::<u64>());
    }

    #[test]
    fn judged_requests_without_an_answer_have_no_latency() {
        let block = Judged::default();
        block.count(Outcome { us: None, failed: true, slow: false });
        block.count(Outcome { us: Some(7), failed: false, slow: true });
        let (sums, latency) = block.read();
        assert_eq!(sums, JudgedSums { requests: 2, failed: 1, slow: 1 });
        assert_eq!((latency.total(), latency.sum_us()), (1, 7));
    }
}
