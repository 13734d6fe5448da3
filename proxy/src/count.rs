//! What happened, per release: each worker counts for itself, the admin runtime adds up.
//!
//! Must not know: what a request looks like, or who reads the sums.
//!
//! Main types: [`Block`], one release's counts on one worker; [`Counters`], a worker's blocks; [`Ledger`], all blocks
//! of all workers, on the admin runtime.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};

use api::Histogram;

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
        let bucket = Histogram::bucket(us);
        // Allocates 64 bytes on the first value in this power of two.
        let row = self.latency.0[bucket / ROW].get_or_init(Box::default);
        add(&row[bucket % ROW], 1);
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
    pub(crate) block: Arc<Block>,
}

/// The blocks of one worker, by release slot.
#[derive(Debug)]
pub(crate) struct Counters {
    blocks: RefCell<Vec<Option<Arc<Block>>>>,
    opened: mpsc::Sender<Opened>,
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
            blocks.resize(slot + 1, None);
        }
        blocks[slot]
            .get_or_insert_with(|| {
                // Allocates once per release and worker, and tells the admin runtime.
                let block: Arc<Block> = Arc::default();
                let opened = Opened { stage: stage.clone(), release, block: block.clone() };
                // It only fails when the admin runtime is gone, and then nobody reads.
                let _ = self.opened.send(opened);
                block
            })
            .clone()
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

/// All blocks by stage and release.
#[derive(Debug)]
pub(crate) struct Ledger {
    opened: mpsc::Receiver<Opened>,
    blocks: BTreeMap<(Arc<str>, u32), Vec<Arc<Block>>>,
}

impl Ledger {
    /// A ledger, and what workers tell it of new blocks by.
    pub(crate) fn new() -> (Self, mpsc::Sender<Opened>) {
        let (sender, opened) = mpsc::channel();
        (Self { opened, blocks: BTreeMap::new() }, sender)
    }

    /// Every release that was ever asked, with its sums now.
    pub(crate) fn fold(&mut self) -> impl Iterator<Item = (&Arc<str>, u32, Sums, &[Arc<Block>])> {
        for Opened { stage, release, block } in self.opened.try_iter() {
            self.blocks.entry((stage, release)).or_default().push(block);
        }
        self.blocks.iter().map(|((stage, release), blocks)| (stage, *release, sums(blocks), blocks.as_slice()))
    }
}

fn sums(blocks: &[Arc<Block>]) -> Sums {
    let sum = |field: fn(&Block) -> &AtomicU64| {
        blocks.iter().fold(0u64, |sum, block| sum.wrapping_add(field(block).load(Relaxed)))
    };
    let mut by_class = [0; 5];
    for block in blocks {
        by_class.iter_mut().zip(&block.by_class).for_each(|(sum, class)| *sum += class.load(Relaxed));
    }
    Sums {
        requests: sum(|block| &block.requests),
        by_class,
        unanswered: sum(|block| &block.unanswered),
        grpc_errors: sum(|block| &block.grpc_errors),
        outstanding: sum(|block| &block.outstanding),
    }
}

/// The latencies of a release over all workers.
pub(crate) fn latency(blocks: &[Arc<Block>]) -> Histogram {
    let mut histogram = Histogram::default();
    for block in blocks {
        histogram.add_sum_us(block.sum_us.load(Relaxed));
        for (place, row) in block.latency.0.iter().enumerate() {
            let Some(row) = row.get() else { continue };
            for (column, count) in row.iter().enumerate() {
                histogram.add(place * ROW + column, count.load(Relaxed));
            }
        }
    }
    histogram
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
            .map(|(stage, release, sums, blocks)| (stage.to_string(), release, sums, latency(blocks)))
            .collect();
        let [(name, 42, sums, latency)] = folded.as_slice() else { panic!("{folded:?}") };
        assert_eq!((name.as_str(), sums.requests, sums.unanswered, sums.outstanding), ("hello/production", 4, 2, 2));
        assert_eq!(sums.by_class, [0, 1, 0, 0, 1]);
        assert_eq!((latency.total(), latency.sum_us()), (2, 2_000));
    }

    #[test]
    fn a_block_stays_small_until_it_is_used() {
        // 5,000 releases on one worker: the fixed part must stay below 1 KiB each.
        assert!(size_of::<Block>() + ROWS * size_of::<OnceLock<Box<[AtomicU64; ROW]>>>() <= 1024);
    }
}
