//! Bytes that were read and not used yet. Memory comes from a free list of the thread and goes back to it when a
//! connection waits, so that an idle one holds none.
//!
//! Main types: [`Buffer`]; [`take_bytes`] and [`give_bytes`], growing memory for what is written.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// For heads and small bodies.
const SMALL: usize = 8 * 1024;
/// For bodies that go on, and for the largest heads: a system call moves this much.
const LARGE: usize = 64 * 1024;
/// Kept of each kind for the next connection that needs one: 1 MiB a thread at most.
const KEPT_SMALL: usize = 128;
const KEPT_LARGE: usize = 16;
const KEPT_GROWING: usize = 256;
/// Growing memory is not kept when it has grown beyond this.
const KEPT_BYTES: usize = 4 * 1024;
/// Growing memory begins with room for most heads.
const GROWING: usize = 1024;

#[derive(Default)]
struct Free {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    growing: Vec<Vec<u8>>,
}

thread_local! {
    /// One list per worker: nothing of it is shared.
    static FREE: RefCell<Free> = RefCell::default();
}

fn block(large: bool) -> Box<[u8]> {
    let kept = FREE.with_borrow_mut(|free| if large { free.large.pop() } else { free.small.pop() });
    // Allocates, and clears, only when no connection gave one back.
    kept.unwrap_or_else(|| vec![0; if large { LARGE } else { SMALL }].into())
}

fn keep(block: Box<[u8]>) {
    FREE.with_borrow_mut(|free| match block.len() {
        SMALL if free.small.len() < KEPT_SMALL => free.small.push(block),
        LARGE if free.large.len() < KEPT_LARGE => free.large.push(block),
        _ => {}
    });
}

/// Empty memory that grows.
pub(super) fn take_bytes() -> Vec<u8> {
    FREE.with_borrow_mut(|free| free.growing.pop()).unwrap_or_else(|| Vec::with_capacity(GROWING))
}

/// Gives memory back. What it held is gone.
pub(super) fn give_bytes(mut bytes: Vec<u8>) {
    bytes.clear();
    if (1..=KEPT_BYTES).contains(&bytes.capacity()) {
        FREE.with_borrow_mut(|free| {
            if free.growing.len() < KEPT_GROWING {
                free.growing.push(bytes);
            }
        });
    }
}

/// What was read of a connection and not used yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    small: bool,
}

impl Buffer {
    /// With what was read before.
    pub(super) fn holding(ahead: &[u8]) -> Self {
        let mut buffer = Self::default();
        if !ahead.is_empty() {
            buffer.bytes = block(ahead.len() > SMALL);
            buffer.bytes[..ahead.len()].copy_from_slice(ahead);
            buffer.end = ahead.len();
        }
        buffer
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes were used.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the memory back. Nothing may be left in it.
    pub(super) fn rest(&mut self) {
        debug_assert!(self.is_empty(), "bytes would be lost");
        if self.is_empty() && !self.bytes.is_empty() {
            keep(std::mem::take(&mut self.bytes));
        }
    }

    /// What comes from now on is more than a little: reads in large pieces once what is there was used.
    pub(super) fn expect_much(&mut self) {
        if !self.small && self.is_empty() && self.bytes.len() < LARGE {
            keep(std::mem::replace(&mut self.bytes, block(true)));
        }
    }

    /// From now on it does not grow for speed.
    pub(super) fn stay_small(&mut self) {
        self.small = true;
    }

    /// Reads what is there, behind what is there already; 0 at the end of the stream.
    ///
    /// Full, it grows to the large size; beyond that it is an error of kind `FileTooLarge`.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.make_room()?;
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            self.bytes = block(false);
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.bytes.len() < LARGE {
            let mut larger = block(true);
            larger[..self.end].copy_from_slice(&self.bytes);
            keep(std::mem::replace(&mut self.bytes, larger));
        } else {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            keep(std::mem::take(&mut self.bytes));
        }
    }
}
