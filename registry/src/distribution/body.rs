//! What is sent: nothing, a few bytes, or a piece of a file that is read as it goes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Body;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::progress::Share;

/// Read at once. One piece is on its way, the next is being read.
const PIECE: u64 = 64 * 1024;

/// The body of a request.
pub(super) struct Outgoing {
    size: u64,
    /// Bytes that were taken to be sent.
    moved: Arc<AtomicU64>,
    content: Content,
}

enum Content {
    Bytes(Bytes),
    File(Slice),
}

/// Bytes of a file, from `next` to before `end`.
struct Slice {
    file: Arc<File>,
    next: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    share: Share,
}

impl Outgoing {
    pub(super) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    pub(super) fn bytes(bytes: Bytes) -> Self {
        Self { size: bytes.len() as u64, moved: Arc::default(), content: Content::Bytes(bytes) }
    }

    /// The bytes of a file from `from` to before `end`; what is taken counts as done in `share`.
    pub(super) fn slice(file: Arc<File>, from: u64, end: u64, share: Share) -> Self {
        let slice = Slice { file, next: from, end, reading: None, share };
        Self { size: end - from, moved: Arc::default(), content: Content::File(slice) }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn moved(&self) -> Arc<AtomicU64> {
        self.moved.clone()
    }
}

impl Slice {
    /// Begins to read the next piece, unless one is being read or there is none.
    fn read_on(&mut self) {
        if self.reading.is_some() || self.next == self.end {
            return;
        }
        let (file, from) = (self.file.clone(), self.next);
        let size = usize::try_from(PIECE.min(self.end - from)).expect("64 KiB");
        self.next += size as u64;
        self.reading = Some(spawn_blocking(move || {
            let mut piece = vec![0; size];
            file.read_exact_at(&mut piece, from)?;
            Ok(piece.into())
        }));
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.read_on();
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        self.read_on();
        let piece = read.map_err(io::Error::other).flatten();
        Poll::Ready(Some(piece.inspect(|piece| self.share.add(piece.len() as u64))))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut self.content {
            Content::Bytes(bytes) if bytes.is_empty() => None,
            Content::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Content::File(slice) => ready!(slice.poll_piece(context)),
        };
        if let Some(Ok(piece)) = &piece {
            self.moved.fetch_add(piece.len() as u64, Relaxed);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.moved.load(Relaxed) == self.size
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size - self.moved.load(Relaxed))
    }
}
