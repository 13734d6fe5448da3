//! Writing messages: heads and bodies in as few system calls as their pieces allow, and never beyond what was announced.
//!
//! Must not know: which fields go on. Main type: [`Writer`].

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::buffer::{give_bytes, take_bytes};
use super::chunked;
use super::framing::Framing;
use crate::codec::stream::Stream;

/// Up to here a copy is cheaper than a second piece in a system call, and small pieces go out together.
const TOGETHER: usize = 4 * 1024;

/// What is on its way out of a connection.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pending: Vec<u8>,
    sent: usize,
    chunked: bool,
    /// So much of the chunk whose size was written is still to come.
    chunk: usize,
    /// So much of the announced length is still to come.
    left: u64,
    ended: bool,
    /// It ended before all that was announced was there.
    cut: bool,
}

/// Writes a field's line.
pub(crate) fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the line of a field whose value comes in pieces.
pub(crate) fn pieces(name: &str, pieces: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
}

/// Writes a number in digits.
pub(crate) fn number(mut n: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut place = digits.len();
    loop {
        place -= 1;
        digits[place] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[place..]);
}

/// Writes the field that says where the body ends.
pub(crate) fn framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            number(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Close => {}
    }
}

impl Writer {
    /// Where heads are written.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        if self.pending.capacity() == 0 {
            self.pending = take_bytes();
        }
        &mut self.pending
    }

    /// A body of this framing follows the head.
    pub(super) fn begin(&mut self, framing: Framing) {
        self.chunked = framing == Framing::Chunked;
        (self.chunk, self.cut) = (0, false);
        self.left = if let Framing::Length(length) = framing { length } else { 0 };
        self.ended = matches!(framing, Framing::Length(0));
    }

    /// Whether the message was written to its end, but for what [`Writer::poll_flush`] still has.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes bytes of the body: how many. They may wait for more of them until [`Writer::poll_flush`].
    pub(super) fn poll_data(
        &mut self,
        stream: &mut Stream,
        data: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut data = data;
        if self.chunked {
            if self.chunk == 0 {
                self.chunk = data.len();
                chunked::write_size(data.len(), self.text());
            }
            data = &data[..data.len().min(self.chunk)];
        }
        if self.pending.len() - self.sent + data.len() <= TOGETHER {
            self.text().extend_from_slice(data);
            return Poll::Ready(Ok(self.wrote(data.len())));
        }
        loop {
            let head = &self.pending[self.sent..];
            let written = if head.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, data))?
            } else {
                let pieces = [IoSlice::new(head), IoSlice::new(data)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &pieces))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let beyond = written.saturating_sub(head.len());
            self.sent += written - beyond;
            if self.sent == self.pending.len() {
                self.pending.clear();
                self.sent = 0;
            }
            if beyond > 0 {
                return Poll::Ready(Ok(self.wrote(beyond)));
            }
        }
    }

    fn wrote(&mut self, count: usize) -> usize {
        self.left = self.left.saturating_sub(count as u64);
        if self.chunked {
            self.chunk -= count;
            if self.chunk == 0 {
                self.text().extend_from_slice(b"\r\n");
            }
        }
        count
    }

    /// The body is complete. Within a chunk or an announced length it is not, whatever the caller believes: then only the
    /// end of the connection tells, and [`Writer::poll_flush`] says so.
    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.cut = self.chunk > 0 || self.left > 0;
        if self.chunked && !self.ended && !self.cut {
            chunked::write_end(trailers, self.text());
        }
        self.ended = true;
    }

    /// Everything that was taken so far goes out.
    ///
    /// # Errors
    /// The connection broke, or the body ended too early: of kind `UnexpectedEof`.
    pub(super) fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.cut {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        while self.sent < self.pending.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.pending[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        self.pending.clear();
        self.sent = 0;
        Pin::new(stream).poll_flush(cx)
    }

    /// Gives the memory back. What was not written is lost.
    pub(super) fn rest(&mut self) {
        give_bytes(std::mem::take(&mut self.pending));
        self.sent = 0;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.rest();
    }
}
