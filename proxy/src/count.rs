//! What happened, per release: each worker counts for itself, the admin runtime adds up.
//!
//! Must not know: what a request looks like, or who reads the sums.
//!
//! Main types: [`Block`], one release's counts on one worker; [`Counters`], a worker's blocks; [`Ledger`], all blocks
//! of all workers, on the admin runtime. Both are as large as the largest snapshot was, however long the proxy runs.
//! What a rollout is judged by is counted apart (`judged`).

mod judged;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};

use api::Histogram;
use judged::Epochs;

pub(crate) use judged::{Epoch, Judged, JudgedSums, Outcome};

/// Histogram buckets in one row: one power of two.
const ROW: usize = 8;
const ROWS: usize = Histogram::BUCKETS / ROW;

/// Counts of one release in one stage on one worker.
///
/// Written by that worker alone, with plain loads and stores, and read by the admin runtime at any time: a reader may
/// see a request in one field and not yet in another.
#[derive(Debug, Default)]
// A block of its own per cache line pair: the neighbour may belong to another worker.
#[repr(align(128))]
pub(crate) struct Block {
    requests: AtomicU64,
    by_class: [AtomicU64; 5],
    unanswered: AtomicU64,
    grpc_errors: AtomicU64,
    outstanding: AtomicU64,
    sum_us: AtomicU64,
    latency: Rows,
}

/// Rows are allocated when their first value comes: latencies of one release fall into a handful of them.
#[derive(Debug)]
struct Rows(Box<[OnceLock<Box<[AtomicU64; ROW]>>; ROWS]>);

impl Default for Rows {
    fn default() -> Self {
        Self(Box::new([const { OnceLock::new() }; ROWS]))
    }
}

impl Rows {
    fn add(&self, us: u64) {
        let bucket = Histogram::bucket(us);
        // Allocates 64 bytes on the first value in this power of two.
        let row = self.0[bucket / ROW].get_or_init(Box::default);
        add(&row[bucket % ROW], 1);
    }

    fn add_to(&self, histogram: &mut Histogram) {
        for (place, row) in self.0.iter().enumerate() {
            let Some(row) = row.get() else { continue };
            for (column, count) in row.iter().enumerate() {
                histogram.add(place * ROW + column, count.load(Relaxed));
            }
        }
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
}

impl Block {
    /// A request was sent to the release.
    pub(crate) fn begin(&self) {
        add(&self.requests, 1);
        add(&self.outstanding, 1);
    }

    /// The request is over, whatever came of it.
    pub(crate) fn end(&self) {
        add(&self.outstanding, 1u64.wrapping_neg());
    }

    /// The head of an answer came after `us` microseconds.
    pub(crate) fn answered(&self, status: u16, us: u64) {
        add(&self.by_class[usize::from(status / 100).clamp(1, 5) - 1], 1);
        add(&self.sum_us, us);
        self.latency.add(us);
    }

    /// No answer came, or it broke off.
    pub(crate) fn unanswered(&self) {
        add(&self.unanswered, 1);
    }

    /// The gRPC status was not OK.
    pub(crate) fn grpc_error(&self) {
        add(&self.grpc_errors, 1);
    }
}

/// A block with its name, on its way to the admin runtime.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stage: Arc<str>,
    pub(crate) release: u32,
    pub(crate) block: Fresh,
}

/// See [`Opened`].
#[derive(Debug)]
pub(crate) enum Fresh {
    Served(Arc<Block>),
    Judged(Epoch, Arc<Judged>),
}

/// The blocks of one worker, by release slot.
///
/// A slot is given to another release when its own is gone: the block is then let go, and once no request counts on it
/// any more the ledger is the only one that holds it.
#[derive(Debug)]
pub(crate) struct Counters {
    blocks: RefCell<Vec<Option<Own>>>,
    opened: mpsc::Sender<Opened>,
}

/// A block, and whose it is.
#[derive(Debug)]
struct Own {
    stage: Arc<str>,
    release: u32,
    block: Arc<Block>,
}

impl Counters {
    pub(crate) fn new(opened: mpsc::Sender<Opened>) -> Self {
        Self { blocks: RefCell::default(), opened }
    }

    /// The block of a release.
    ///
    /// The clone is an atomic increment on a line that only this worker writes.
    pub(crate) fn block(&self, slot: u32, stage: &Arc<str>, release: u32) -> Arc<Block> {
        let mut blocks = self.blocks.borrow_mut();
        let slot = slot as usize;
        if slot >= blocks.len() {
            blocks.resize_with(slot + 1, || None);
        }
        match &blocks[slot] {
            // Names are compared where they differ only: within one snapshot it is the same pointer.
            Some(own) if own.release == release && own.stage == *stage => own.block.clone(),
            _ => {
                // Allocates once per release and worker, and tells the admin runtime.
                let block: Arc<Block> = Arc::default();
                let opened = Opened { stage: stage.clone(), release, block: Fresh::Served(block.clone()) };
                // It only fails when the admin runtime is gone, and then nobody reads.
                let _ = self.opened.send(opened);
                blocks[slot] = Some(Own { stage: stage.clone(), release, block: block.clone() });
                block
            }
        }
    }
}

/// Sums over all workers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) requests: u64,
    pub(crate) by_class: [u64; 5],
    pub(crate) unanswered: u64,
    pub(crate) grpc_errors: u64,
    pub(crate) outstanding: u64,
}

/// Counts by stage and release.
#[derive(Debug)]
pub(crate) struct Ledger {
    opened: mpsc::Receiver<Opened>,
    releases: BTreeMap<Key, Entry>,
    /// What was forgotten, newest last: a release that comes back goes on where it was, because its counts only grow.
    past: VecDeque<(Key, Final)>,
}

/// Stage and release.
type Key = (Arc<str>, u32);

/// Forgotten releases whose counts are kept, some hundred bytes each. One that comes back after so many others begins at
/// zero.
const MOST_PAST: usize = 10_000;

/// Counts of one release.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Of blocks that nobody counts on any more.
    last: Final,
    blocks: Vec<Arc<Block>>,
    judged: Epochs,
}

/// Counts that do not change.
#[derive(Debug, Default)]
struct Final {
    sums: Sums,
    /// In its sparse form.
    latency: api::fleet::Histogram,
}

impl Ledger {
    /// A ledger, and what workers tell it of new blocks by.
    pub(crate) fn new() -> (Self, mpsc::Sender<Opened>) {
        let (sender, opened) = mpsc::channel();
        (Self { opened, releases: BTreeMap::new(), past: VecDeque::new() }, sender)
    }

    /// Every release that was asked and not forgotten, with its counts now.
    pub(crate) fn fold(&mut self) -> impl Iterator<Item = (&Arc<str>, u32, &Entry)> {
        for Opened { stage, release, block } in self.opened.try_iter() {
            let (key, past) = ((stage, release), &mut self.past);
            let entry = self.releases.entry(key.clone()).or_insert_with(|| {
                let place = past.iter().position(|((stage, release), _)| *release == key.1 && *stage == key.0);
                let last = place.and_then(|place| past.remove(place)).map(|(_, last)| last).unwrap_or_default();
                Entry { last, ..Entry::default() }
            });
            match block {
                Fresh::Served(block) => entry.blocks.push(block),
                Fresh::Judged(epoch, block) => entry.judged.open(epoch, block),
            }
        }
        self.releases.values_mut().for_each(Entry::settle);
        self.releases.iter().map(|((stage, release), entry)| (stage, *release, entry))
    }

    /// Forgets releases that nobody counts on any more and that are over; gives which.
    pub(crate) fn forget(&mut self, is_over: impl Fn(&Key) -> bool) -> Vec<Key> {
        let over = |key: &Key, entry: &mut Entry| entry.is_left() && is_over(key);
        let forgotten: Vec<(Key, Entry)> = self.releases.extract_if(.., over).collect();
        let keys = forgotten.iter().map(|(key, _)| key.clone()).collect();
        self.past.extend(forgotten.into_iter().map(|(key, entry)| (key, entry.last)));
        self.past.drain(..self.past.len().saturating_sub(MOST_PAST));
        keys
    }

    /// Forgets what was judged in rollouts that are over, once no request counts on it any more, and all but the newest
    /// [`Epochs::MOST`] of each release.
    pub(crate) fn forget_judged(&mut self, is_over: impl Fn(&str, u64) -> bool) {
        for ((stage, _), entry) in &mut self.releases {
            entry.judged.forget(|rollout| is_over(stage, rollout));
        }
    }
}

impl Entry {
    /// What is judged in a rollout over all its epochs; `None`: nothing was yet.
    pub(crate) fn judged(&self, rollout: u64) -> Option<JudgedSums> {
        self.judged.sums(rollout)
    }

    /// What is judged in the newest epochs of a rollout, at most [`Epochs::MOST`], with the latencies; oldest first.
    pub(crate) fn epochs(&self, rollout: u64) -> impl Iterator<Item = (Epoch, JudgedSums, Histogram)> {
        self.judged.newest(rollout)
    }

    /// Epochs of which something is kept.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.judged.kept()
    }

    /// Whether nobody counts on it any more.
    fn is_left(&self) -> bool {
        self.blocks.is_empty() && !self.judged.are_held()
    }

    /// The sums now.
    pub(crate) fn sums(&self) -> Sums {
        let mut sums = self.last.sums.clone();
        self.blocks.iter().for_each(|block| sums.add(block));
        sums
    }

    /// The latencies now, over all workers.
    pub(crate) fn latency(&self) -> Histogram {
        let mut histogram = Histogram::from(&self.last.latency);
        self.blocks.iter().for_each(|block| add_latency(&mut histogram, block));
        histogram
    }

    /// Adds up blocks that only the ledger holds, and lets them go: no worker can count on them any more.
    fn settle(&mut self) {
        let settled = self.blocks.extract_if(.., |block| Arc::get_mut(block).is_some());
        for block in settled {
            self.last.sums.add(&block);
            let mut latency = Histogram::from(&self.last.latency);
            add_latency(&mut latency, &block);
            self.last.latency = (&latency).into();
        }
        self.judged.settle();
    }
}

impl Sums {
    fn add(&mut self, block: &Block) {
        let Self { requests, by_class, unanswered, grpc_errors, outstanding } = self;
        by_class.iter_mut().zip(&block.by_class).for_each(|(sum, class)| *sum += class.load(Relaxed));
        for (sum, counter) in [
            (requests, &block.requests),
            (unanswered, &block.unanswered),
            (grpc_errors, &block.grpc_errors),
            (outstanding, &block.outstanding),
        ] {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
    }
}

fn add_latency(histogram: &mut Histogram, block: &Block) {
    histogram.add_sum_us(block.sum_us.load(Relaxed));
    block.latency.add_to(histogram);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_workers_add_up() {
        let (mut ledger, opened) = Ledger::new();
        let workers = [Counters::new(opened.clone()), Counters::new(opened)];
        let stage: Arc<str> = "hello/production".into();
        for (worker, status) in workers.iter().zip([200, 503]) {
            let block = worker.block(7, &stage, 42);
            block.begin();
            block.answered(status, 1_000);
            block.end();
            worker.block(7, &stage, 42).begin();
            worker.block(7, &stage, 42).unanswered();
        }
        let folded: Vec<_> = ledger
            .fold()
            .map(|(stage, release, entry)| (stage.to_string(), release, entry.sums(), entry.latency()))
            .collect();
        let [(name, 42, sums, latency)] = folded.as_slice() else { panic!("{folded:?}") };
        assert_eq!((name.as_str(), sums.requests, sums.unanswered, sums.outstanding), ("hello/production", 4, 2, 2));
        assert_eq!(sums.by_class, [0, 1, 0, 0, 1]);
        assert_eq!((latency.total(), latency.sum_us()), (2, 2_000));
    }

    #[test]
    fn a_release_that_is_gone_is_forgotten_and_one_that_comes_back_goes_on() {
        let (mut ledger, opened) = Ledger::new();
        let workers = [Counters::new(opened.clone()), Counters::new(opened)];
        let stage: Arc<str> = "hello/production".into();
        let ask = |release: u32| {
            for worker in &workers {
                // One slot, as when each release goes before the next one comes. (An old snapshot names another pointer.)
                let block = worker.block(0, &stage.to_string().into(), release);
                block.begin();
                block.answered(200, 100);
                block.end();
            }
        };
        let requests = |ledger: &mut Ledger| -> Vec<(u32, u64, u64)> {
            ledger.fold().map(|(_, release, entry)| (release, entry.sums().requests, entry.latency().total())).collect()
        };
        ask(1);
        // A request that is still under way holds its block.
        let held = workers[0].block(0, &stage, 1);
        ask(2);
        held.begin();
        assert_eq!(requests(&mut ledger), [(1, 3, 2), (2, 2, 2)]);
        assert_eq!(ledger.forget(|_| true), [], "it is still counted on");
        held.end();
        drop(held);
        assert_eq!(requests(&mut ledger), [(1, 3, 2), (2, 2, 2)]);
        assert_eq!(ledger.forget(|_| false), [], "not over");
        assert_eq!(ledger.forget(|_| true), [(stage.clone(), 1)]);
        assert_eq!(requests(&mut ledger), [(2, 2, 2)]);
        ask(1);
        assert_eq!(requests(&mut ledger), [(1, 5, 4), (2, 2, 2)]);

        for release in 3..11_000 {
            ask(release);
            ledger.fold().for_each(drop);
            ledger.forget(|_| true);
        }
        assert_eq!((ledger.releases.len(), ledger.past.len()), (1, MOST_PAST));
        assert!(workers.iter().all(|worker| worker.blocks.borrow().len() == 1));
    }

    #[test]
    fn a_block_stays_small_until_it_is_used() {
        // 5,000 releases on one worker: the fixed part must stay below 1 KiB each.
        assert!(size_of::<Block>() + ROWS * size_of::<OnceLock<Box<[AtomicU64; ROW]>>>() <= 1024);
    }

    #[test]
    fn rollout_counts_begin_at_0_and_are_forgotten_when_they_are_over() {
        let (mut ledger, opened) = Ledger::new();
        let stage: Arc<str> = "hello/production".into();
        let open = |rollout| {
            let block = Arc::<Judged>::default();
            let (stage, fresh) = (stage.clone(), Fresh::Judged(Epoch { rollout, number: 0 }, block.clone()));
            opened.send(Opened { stage, release: 2, block: fresh }).expect("somebody listens");
            block
        };
        let requests = |ledger: &mut Ledger, rollout| {
            ledger.fold().next().and_then(|(_, _, entry)| Some(entry.judged(rollout)?.requests))
        };
        let one = Outcome { us: Some(5), failed: false, slow: false };
        let workers = [open(7), open(7)];
        workers.iter().for_each(|block| block.count(one));
        assert_eq!((requests(&mut ledger, 7), requests(&mut ledger, 8)), (Some(2), None));
        let next = open(8);
        next.count(one);
        assert_eq!((requests(&mut ledger, 7), requests(&mut ledger, 8)), (Some(2), Some(1)));
        ledger.forget_judged(|_, rollout| rollout != 8);
        assert_eq!(requests(&mut ledger, 7), Some(2), "requests of it are in flight");
        drop(workers);
        assert_eq!(requests(&mut ledger, 7), Some(2), "settled");
        ledger.forget_judged(|_, rollout| rollout != 8);
        assert_eq!((requests(&mut ledger, 7), requests(&mut ledger, 8)), (None, Some(1)));
        assert_eq!(ledger.forget(|_| true), [], "it is still counted on");
        drop(next);
        ledger.fold().for_each(drop);
        ledger.forget_judged(|_, rollout| rollout != 8);
        assert_eq!(requests(&mut ledger, 8), Some(1), "it is the one under way");
        assert_eq!(ledger.forget(|_| true), [(stage.clone(), 2)]);
    }
}
