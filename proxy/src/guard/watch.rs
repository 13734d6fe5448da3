//! A worker's guards: where what was dealt out goes, and what becomes of each request that is judged.
//!
//! Must not know: how requests are written, when enough has been seen, who reads the counts.
//!
//! Main types: [`Watches`], by stage; [`Watch`], one epoch of a rollout; [`Judging`], one request.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tokio::sync::mpsc::UnboundedSender;

use super::memory::Memory;
use super::window::CallerId;
use super::{Guard, Tripped};
use crate::count::{Fresh, Judged, Opened, Outcome};
use crate::snapshot::{Backend, Snapshot, Stage};

/// The guards of one worker, by the slot of their stage.
#[derive(Debug)]
pub(crate) struct Watches {
    by_slot: RefCell<Vec<Option<Rc<Watch>>>>,
    outlets: Rc<Outlets>,
}

/// What the admin runtime hears of it.
#[derive(Debug)]
struct Outlets {
    opened: mpsc::Sender<Opened>,
    tripped: UnboundedSender<Tripped>,
}

/// One epoch of a rollout as one worker sees it. One thread owns it, and requests that began within it keep it.
#[derive(Debug)]
pub(super) struct Watch {
    stage: Arc<str>,
    /// The newest of this epoch.
    guard: RefCell<Arc<Guard>>,
    memory: Rc<Memory>,
    canary: Side,
    stable: Side,
    outlets: Rc<Outlets>,
}

#[derive(Debug)]
struct Side {
    release: u32,
    /// Made with the first result.
    counts: OnceCell<Arc<Judged>>,
}

/// One request that is judged, until it is counted or left out.
#[derive(Debug)]
pub(crate) struct Judging {
    watch: Rc<Watch>,
    /// The head of the answer took so many microseconds.
    us: Cell<Option<u64>>,
    caller: CallerId,
    is_canary: bool,
    failed: Cell<bool>,
    again: Cell<bool>,
    settled: Cell<bool>,
}

impl Watches {
    pub(crate) fn new(opened: mpsc::Sender<Opened>, tripped: UnboundedSender<Tripped>) -> Self {
        Self { by_slot: RefCell::default(), outlets: Rc::new(Outlets { opened, tripped }) }
    }

    /// Where a request goes that was dealt out to `dealt`, and how it is judged. `place`: of a sticky caller in the stage's
    /// range. `is_check` is asked only if it would be judged.
    ///
    /// The handle counts on this thread alone; nothing is allocated but once per epoch.
    pub(crate) fn admit<'a>(
        &self,
        stage: &'a Stage,
        dealt: &'a Backend,
        place: Option<u64>,
        is_check: impl FnOnce() -> bool,
    ) -> (&'a Backend, Option<Judging>) {
        let Some(guard) = &stage.guard else { return (dealt, None) };
        let watch = self.of(stage, guard);
        let is_stopped = dealt.release == guard.canary && watch.memory.is_tripped(guard);
        let backend =
            guard.fallback.filter(|_| is_stopped).and_then(|place| stage.backends.get(place)).unwrap_or(dealt);
        let is_canary = backend.release == guard.canary;
        let is_judged = (is_canary || backend.release == guard.stable) && !is_check();
        (backend, is_judged.then(|| Judging::new(watch, is_canary, CallerId::at(place))))
    }

    /// The guards that somebody holds.
    #[cfg(test)]
    pub(super) fn known(&self) -> Vec<std::rc::Weak<Watch>> {
        self.by_slot.borrow().iter().flatten().map(Rc::downgrade).collect()
    }

    fn of(&self, stage: &Stage, guard: &Arc<Guard>) -> Rc<Watch> {
        let mut by_slot = self.by_slot.borrow_mut();
        let slot = stage.slot as usize;
        if slot >= by_slot.len() {
            by_slot.resize_with(slot + 1, || None);
        }
        let known = &mut by_slot[slot];
        let next = match known {
            Some(watch) if watch.keeps_up(&stage.text, guard) => return watch.clone(),
            Some(watch) if watch.is_of(&stage.text, guard) => watch.next(guard),
            _ => Watch::new(&stage.text, guard, Rc::new(Memory::new(guard)), &self.outlets),
        };
        known.insert(Rc::new(next)).clone()
    }

    /// Forgets guards that have ended; called about once a second.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        let number = |stage: &str| snapshot.stage_named(stage)?.guard.as_ref().map(|guard| guard.rollout);
        for place in self.by_slot.borrow_mut().iter_mut() {
            place.take_if(|watch| number(&watch.stage) != Some(watch.guard.borrow().rollout));
        }
    }
}

impl Watch {
    fn new(stage: &Arc<str>, guard: &Arc<Guard>, memory: Rc<Memory>, outlets: &Rc<Outlets>) -> Self {
        let side = |release| Side { release, counts: OnceCell::new() };
        Self {
            stage: stage.clone(),
            guard: RefCell::new(guard.clone()),
            memory,
            canary: side(guard.canary),
            stable: side(guard.stable),
            outlets: outlets.clone(),
        }
    }

    /// Another epoch of the same rollout: its counts begin at 0, and what the tripwire remembers goes on.
    fn next(&self, guard: &Arc<Guard>) -> Self {
        *self.memory.guard.borrow_mut() = guard.clone();
        Self::new(&self.stage, guard, self.memory.clone(), &self.outlets)
    }

    /// Takes over a newer guard of the same epoch; false: it is another one.
    fn keeps_up(&self, stage: &Arc<str>, guard: &Arc<Guard>) -> bool {
        // The same pointer, but after a change of the stage.
        if Arc::ptr_eq(&self.guard.borrow(), guard) {
            return true;
        }
        let same = self.guard.borrow().epoch == guard.epoch && self.is_of(stage, guard);
        if same {
            *self.guard.borrow_mut() = guard.clone();
            *self.memory.guard.borrow_mut() = guard.clone();
        }
        same
    }

    /// Whether a guard is of the same rollout.
    fn is_of(&self, stage: &Arc<str>, guard: &Guard) -> bool {
        self.stage == *stage && self.guard.borrow().is_about_the_same(guard)
    }

    fn side(&self, is_canary: bool) -> &Side {
        if is_canary { &self.canary } else { &self.stable }
    }

    /// Whether so many microseconds are too many.
    fn is_slow(&self, us: u64) -> bool {
        let bound = self.guard.borrow().slow_us;
        bound > 0 && us > bound
    }

    /// A request has ended, and says of its release whether it failed.
    fn count(&self, is_canary: bool, us: Option<u64>, failed: bool, caller: CallerId) {
        let slow = us.is_some_and(|us| self.is_slow(us));
        self.side(is_canary).counts(self).count(Outcome { us, failed, slow });
        if !is_canary {
            return self.memory.stable(failed);
        }
        if let Some(share) = self.memory.canary(failed, caller) {
            // Allocates, once per rollout and worker. It only fails when the admin runtime is gone.
            let guard = self.memory.guard.borrow().clone();
            let _ = self.outlets.tripped.send(Tripped { stage: self.stage.clone(), guard, share });
        }
    }
}

impl Side {
    /// The block of counts, which is made, and told to the admin runtime, with the first result.
    fn counts(&self, watch: &Watch) -> &Judged {
        self.counts.get_or_init(|| {
            let (stage, block) = (watch.stage.clone(), Arc::<Judged>::default());
            let block_of = Fresh::Judged(watch.guard.borrow().epoch(), block.clone());
            // It only fails when the admin runtime is gone, and then nobody reads.
            let _ = watch.outlets.opened.send(Opened { stage, release: self.release, block: block_of });
            block
        })
    }
}

impl Judging {
    fn new(watch: Rc<Watch>, is_canary: bool, caller: CallerId) -> Self {
        let (failed, again, settled) = Default::default();
        Self { watch, us: Cell::new(None), caller, is_canary, failed, again, settled }
    }

    /// It is sent once more, elsewhere: if that is answered, the answer says nothing about the release.
    pub(crate) fn tries_again(&self) {
        self.again.set(true);
    }

    /// The head of an answer came after `us` microseconds.
    pub(crate) fn answered(&self, us: u64) {
        self.us.set(Some(us));
    }

    /// Whether an answer with these fields has failed by what the application says. Names are in lower case.
    pub(crate) fn look<'a>(&self, mut fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let guard = self.watch.guard.borrow();
        let Some(header) = &guard.failure_header else { return };
        if fields.any(|(name, value)| name == &**header && !matches!(value.trim_ascii(), b"0" | b"false")) {
            self.failed();
        }
    }

    /// No answer came, it broke off, or it says that the release has failed.
    pub(crate) fn failed(&self) {
        self.failed.set(true);
    }

    /// It ends for a reason that is not the release's: unless that had failed by then, it says nothing.
    pub(crate) fn says_nothing(&self) {
        if !self.failed.get() {
            self.settled.set(true);
        }
    }

    /// It has ended as it should, or nobody can tell when it will.
    pub(crate) fn over(&self) {
        if self.settled.replace(true) || (self.again.get() && self.us.get().is_some()) {
            return;
        }
        self.watch.count(self.is_canary, self.us.get(), self.failed.get(), self.caller);
    }

    /// Its client left, `us` microseconds after it began; asked only if that matters.
    ///
    /// Whoever waits for an answer longer than is slow, and leaves without one, has met a slow request: otherwise a release
    /// that answers nobody would have no slow ones but those of patient clients. How long it would have taken nobody knows, so
    /// it has no latency; nor does it say that the release is well, so the tripwire does not hear of it. Whoever leaves earlier,
    /// or within the answer, says nothing.
    pub(crate) fn left(&self, us: impl FnOnce() -> u64) {
        let is_open = !self.settled.get() && !self.failed.get() && !self.again.get() && self.us.get().is_none();
        if is_open && self.watch.guard.borrow().slow_us > 0 && self.watch.is_slow(us()) {
            self.settled.set(true);
            self.watch.side(self.is_canary).counts(&self.watch).count(Outcome { us: None, failed: false, slow: true });
        }
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        // Whatever its client did: it had failed by then.
        if self.failed.get() {
            self.over();
        }
    }
}
