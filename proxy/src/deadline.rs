//! Deadlines of one worker: cheap to set and to move, which happens several times a request, and late by a tick at most.
//!
//! Must not know: what is waited for. A deadline that moves to a later time costs a store: its entry is looked at when
//! the earlier time comes, and moved on then. So a connection is touched here once in some seconds, not once a request.
//!
//! Main types: [`Deadline`], one thing that must not wait for ever; [`Deadlines`], all of a thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Deadlines within one tick end together. The shortest limit anywhere is a second.
const TICK: Duration = Duration::from_millis(32);
const NEVER: u64 = u64::MAX;

/// All deadlines of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Deadlines(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    begun: Instant,
    /// Entries by the tick at which they are looked at.
    slots: RefCell<BTreeMap<u64, Vec<Rc<Entry>>>>,
    /// A slot came before all others.
    earlier: Notify,
}

/// One thing that must not wait for ever. Not set at first.
#[derive(Debug)]
pub(crate) struct Deadline {
    all: Deadlines,
    entry: Rc<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The tick at which it is over.
    at: Cell<u64>,
    /// The tick at which it is looked at; never later than `at` while it is set.
    seen: Cell<u64>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Deadlines {
    /// The thread's own. [`Deadlines::run`] has to run beside whatever uses them.
    pub(crate) fn new() -> Self {
        Self(Rc::new(Inner { begun: Instant::now(), slots: RefCell::default(), earlier: Notify::new() }))
    }

    /// A deadline that is not set.
    pub(crate) fn deadline(&self) -> Deadline {
        let entry = Entry { at: NEVER.into(), seen: NEVER.into(), over: Cell::default(), waker: RefCell::default() };
        Deadline { all: self.clone(), entry: Rc::new(entry) }
    }

    /// Ends deadlines when they are due, for ever.
    pub(crate) async fn run(self) {
        loop {
            let first = self.0.slots.borrow().first_key_value().map(|(tick, _)| *tick);
            let due = async {
                match first {
                    Some(tick) => {
                        tokio::time::sleep_until(self.0.begun + TICK * u32::try_from(tick).unwrap_or(u32::MAX)).await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.turn(),
                () = self.0.earlier.notified() => {}
            }
        }
    }

    fn tick(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.0.begun);
        // Rounded up: a deadline is never early.
        u64::try_from(since.as_millis() / TICK.as_millis()).unwrap_or(NEVER - 1).saturating_add(1)
    }

    fn put(&self, entry: Rc<Entry>, tick: u64) {
        entry.seen.set(tick);
        let mut slots = self.0.slots.borrow_mut();
        if slots.first_key_value().is_none_or(|(first, _)| tick < *first) {
            self.0.earlier.notify_one();
        }
        slots.entry(tick).or_default().push(entry);
    }

    /// Looks at every entry whose time has come.
    fn turn(&self) {
        // `tick` rounds up, so what is due now lies before it.
        let now = self.tick(Instant::now());
        loop {
            let mut slots = self.0.slots.borrow_mut();
            let Some(first) = slots.first_entry().filter(|first| *first.key() < now) else { return };
            let (tick, entries) = first.remove_entry();
            drop(slots);
            for entry in entries {
                self.look(entry, tick, now);
            }
        }
    }

    fn look(&self, entry: Rc<Entry>, tick: u64, now: u64) {
        if entry.seen.get() != tick {
            return; // An earlier slot has it as well, or had it.
        }
        entry.seen.set(NEVER);
        let at = entry.at.get();
        if at == NEVER {
            return;
        }
        if at >= now {
            return self.put(entry, at);
        }
        entry.at.set(NEVER);
        entry.over.set(true);
        if let Some(waker) = entry.waker.take() {
            waker.wake();
        }
    }
}

impl Deadline {
    /// From now on it is over after `limit`.
    pub(crate) fn set(&self, limit: Duration) {
        let tick = Instant::now().checked_add(limit).map_or(NEVER, |at| self.all.tick(at));
        self.entry.over.set(false);
        self.entry.at.set(tick);
        if tick < self.entry.seen.get() {
            self.all.put(self.entry.clone(), tick);
        }
    }

    /// Ready once it is over. The last task that asked is woken.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.entry.over.get() {
            return Poll::Ready(());
        }
        let mut waker = self.entry.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Completes when it is over.
    pub(crate) async fn over(&self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // The entry leaves its slot when that is looked at; it must not hold a task until then.
        self.entry.at.set(NEVER);
        self.entry.waker.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn with<F: Future>(test: impl FnOnce(Deadlines) -> F) {
        let all = Deadlines::new();
        tokio::select! {
            () = all.clone().run() => {}
            _ = test(all) => {}
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn deadline_is_over_after_its_limit_and_late_by_two_ticks_at_most() {
        with(|all| async move {
            for limit in [SECOND, 10 * SECOND, 3_000 * SECOND, Duration::from_millis(1)] {
                let (deadline, begun) = (all.deadline(), Instant::now());
                deadline.set(limit);
                deadline.over().await;
                let took = begun.elapsed();
                assert!(took >= limit && took <= limit + 2 * TICK, "{limit:?} took {took:?}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_moves_both_ways() {
        with(|all| async move {
            let (deadline, begun) = (all.deadline(), Instant::now());
            deadline.set(10 * SECOND);
            deadline.set(60 * SECOND);
            assert!(tokio::time::timeout(59 * SECOND, deadline.over()).await.is_err());
            deadline.set(2 * SECOND);
            deadline.over().await;
            assert!(begun.elapsed() <= 61 * SECOND + 2 * TICK);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_that_only_moves_on_leaves_one_entry() {
        with(|all| async move {
            let deadline = all.deadline();
            for _ in 0..10_000 {
                deadline.set(10 * SECOND);
                deadline.set(60 * SECOND);
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            let entries: usize = all.0.slots.borrow().values().map(Vec::len).sum();
            assert!(entries <= 10, "{entries}");
        })
        .await;
    }
}
