//! A wait that may last so long and starts anew whenever something moves.
//!
//! Main type: [`Idle`].

use std::cell::Cell;
use std::task::Context;
use std::time::Duration;

use crate::deadline::{Deadline, Deadlines};

/// See the module. Nothing is touched while things move: only a wait that begins sets the deadline.
#[derive(Debug)]
pub(crate) struct Idle {
    deadline: Deadline,
    armed: Cell<bool>,
}

impl Idle {
    pub(crate) fn new(deadlines: &Deadlines) -> Self {
        Self { deadline: deadlines.deadline(), armed: Cell::new(false) }
    }

    /// Something moved.
    pub(crate) fn progress(&self) {
        self.armed.set(false);
    }

    /// Nothing moves now: has that been so for `limit`? Wakes the task when it has.
    pub(crate) fn is_over(&self, limit: Duration, cx: &Context<'_>) -> bool {
        if !self.armed.replace(true) {
            self.deadline.set(limit);
        }
        self.deadline.poll(cx).is_ready()
    }
}
