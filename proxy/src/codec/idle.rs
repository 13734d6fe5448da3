//! A wait that may last so long and starts anew whenever something moves.
//!
//! Main type: [`Idle`].

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll};
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

    /// Passes what a write gave on; one that stood still for `limit` is an error.
    pub(crate) fn bound<T>(
        &self,
        result: Poll<io::Result<T>>,
        limit: Duration,
        cx: &Context<'_>,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Pending if self.is_over(limit, cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            ready => {
                self.progress();
                ready
            }
        }
    }

    /// Nothing moves now: has that been so for `limit`? Wakes the task when it has.
    pub(crate) fn is_over(&self, limit: Duration, cx: &Context<'_>) -> bool {
        if !self.armed.replace(true) {
            self.deadline.set(limit);
        }
        self.deadline.poll(cx).is_ready()
    }
}
