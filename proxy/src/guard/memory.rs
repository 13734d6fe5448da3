//! What a worker remembers of a rollout, whatever becomes of its shares: the last results of both releases, and that it stopped
//! the canary.
//!
//! Must not know: counts, how requests are written, who is told.
//!
//! Main type: [`Memory`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Guard;
use super::window::{CallerId, Callers, Share, Window};

/// One rollout on one worker, over all its epochs. One thread owns it.
#[derive(Debug)]
pub(super) struct Memory {
    /// The newest of the rollout: late results are looked at by what counts now.
    pub(super) guard: RefCell<Arc<Guard>>,
    window: RefCell<Window>,
    callers: RefCell<Callers>,
    tripped: Cell<bool>,
}

impl Memory {
    pub(super) fn new(guard: &Arc<Guard>) -> Self {
        Self {
            guard: RefCell::new(guard.clone()),
            window: RefCell::default(),
            callers: RefCell::default(),
            tripped: Cell::new(false),
        }
    }

    pub(super) fn is_tripped(&self, guard: &Guard) -> bool {
        self.tripped.get() || guard.is_tripped()
    }

    /// The stable release has answered. A failure counts whoever met it: that errs on the side of stopping nothing.
    pub(super) fn stable(&self, failed: bool) {
        self.window.borrow_mut().add_stable(failed);
    }

    /// The canary has answered; what it is stopped for, if that is now. A failure counts once for each caller in the window.
    pub(super) fn canary(&self, failed: bool, caller: CallerId) -> Option<Share> {
        let mut window = self.window.borrow_mut();
        if failed && !self.callers.borrow_mut().meets(caller, window.canary(Window::CANARY).failures) {
            return None;
        }
        window.add_canary(failed);
        let guard = self.guard.borrow();
        if !failed || self.is_tripped(&guard) {
            return None;
        }
        let tripwire = guard.tripwire.filter(|_| guard.fallback.is_some())?;
        let share = tripwire.trips(&window);
        self.tripped.set(share.is_some());
        share
    }
}
