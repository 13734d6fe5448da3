//! A client's connection: heads and bodies as they come in, and the bytes that go out.
//!
//! Must not know: what is answered. One task at a time works on it; a body that goes to an HTTP/2 endpoint is read by
//! that connection's task meanwhile. INVARIANT: the state is borrowed within one poll, never across two.
//!
//! Main types: [`Client`]; [`Next`], what it says next.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWrite;

use super::body::Decoder;
use super::buffer::Buffer;
use super::framing::Framing;
use super::head::{HEAD_BYTES, LINE_BYTES, Malformed, Parsed, RequestHead};
use super::write::Writer;
use crate::answer::Own;
use crate::codec::connection::Connection;
use crate::codec::flow::{Sink, SourceError};
use crate::codec::idle::Idle;
use crate::codec::stream::Stream;
use crate::head_check::Refusal;
use crate::totals::Cut;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Read and thrown away of a client that goes on sending after its answer, so that it can read that answer: closing at
/// once would reset the connection and the answer with it (RFC 9112 §9.6).
const LINGER_BYTES: usize = 1024 * 1024;
/// See [`LINGER_BYTES`].
const LINGER: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) connection: Rc<Connection>,
    io: RefCell<Io>,
    /// Waiting for the client to send.
    reads: Idle,
    /// Waiting for the client to take.
    writes: Idle,
}

#[derive(Debug)]
struct Io {
    stream: Stream,
    input: Buffer,
    body: Decoder,
    /// Of the body, what [`Client::poll_body`] found at the beginning of `input`.
    available: usize,
    writer: Writer,
    /// The client waits for a 100 before it sends the body.
    expects: bool,
}

/// What a client says next.
pub(super) enum Next {
    Request(RequestHead),
    /// Something that is no request: the answer to it, after which the connection ends.
    Refused(Own),
    /// Nothing more.
    Gone,
}

impl Io {
    fn may_skip_body(&self) -> bool {
        self.expects && !self.body.is_over()
    }
}

/// How far the next head was looked at.
#[derive(Default)]
struct Looked {
    /// An empty line was passed over.
    empty_line: bool,
    /// So many bytes in vain.
    bytes: Option<usize>,
}

impl Client {
    pub(super) fn new(stream: Stream, ahead: &[u8], connection: Rc<Connection>) -> Self {
        let (reads, writes) = (Idle::new(connection.deadlines()), Idle::new(connection.deadlines()));
        let io = Io {
            stream,
            input: Buffer::holding(ahead),
            body: Decoder::new(Framing::Length(0)),
            available: 0,
            writer: Writer::default(),
            expects: false,
        };
        Self { connection, io: RefCell::new(io), reads, writes }
    }

    /// Waits for the next request's head. `first`: there was none before on this connection.
    pub(super) async fn next(&self, first: bool) -> Next {
        self.reads.progress();
        let mut looked = Looked::default();
        std::future::poll_fn(|cx| self.poll_next(first, &mut looked, cx)).await
    }

    fn poll_next(&self, first: bool, looked: &mut Looked, cx: &mut Context<'_>) -> Poll<Next> {
        let limits = self.connection.limits();
        let io = &mut *self.io.borrow_mut();
        if io.input.is_empty() {
            if self.connection.is_leaving() {
                return Poll::Ready(Next::Gone);
            }
            io.input.rest();
            io.writer.rest();
            match io.stream.poll_readable(cx) {
                Poll::Ready(Ok(())) => {
                    self.connection.begin();
                    self.reads.progress();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Next::Gone),
                Poll::Pending => return self.poll_idle(first, cx),
            }
        }
        loop {
            // One is passed over, for clients that write it behind a body (RFC 9112 §2.2).
            if !looked.empty_line && io.input.filled().starts_with(b"\r\n") {
                io.input.consume(2);
                *looked = Looked { empty_line: true, bytes: None };
            }
            let is_half = !looked.empty_line && io.input.filled() == b"\r";
            if !is_half && has_end(io.input.filled(), looked.bytes) {
                match RequestHead::parse(io.input.filled()) {
                    Ok(Parsed::Whole(head, length)) => {
                        io.input.consume(length);
                        self.reads.progress();
                        return Poll::Ready(Next::Request(head));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(malformed) => return Poll::Ready(Next::Refused(refusal(malformed))),
                }
            }
            looked.bytes = (!io.input.is_empty()).then(|| io.input.filled().len());
            match io.input.poll_fill(&mut io.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Next::Gone),
                // What became readable was nothing of the application's, such as a TLS key update.
                Poll::Pending if io.input.is_empty() => {
                    io.input.rest();
                    return self.poll_idle(first, cx);
                }
                Poll::Pending if self.reads.is_over(limits.head, cx) => {
                    return Poll::Ready(Next::Refused(Own::HeadTooSlow));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Nothing is there: for how long that may be so.
    fn poll_idle(&self, first: bool, cx: &Context<'_>) -> Poll<Next> {
        let limits = self.connection.limits();
        let limit = if first { limits.first_bytes } else { limits.idle };
        if !self.reads.is_over(limit, cx) {
            return Poll::Pending;
        }
        if first {
            self.connection.count(Cut::FirstBytes);
        }
        Poll::Ready(Next::Gone)
    }

    /// A body of this framing follows the head. `expects`: only after a 100.
    pub(super) fn begin_body(&self, framing: Framing, expects: bool) {
        let io = &mut *self.io.borrow_mut();
        (io.body, io.available, io.expects) = (Decoder::new(framing), 0, expects);
    }

    /// Waits for a piece of the request's body; false at its end.
    pub(crate) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        let io = &mut *self.io.borrow_mut();
        if io.available > 0 {
            return Poll::Ready(Ok(true));
        }
        match io.body.poll(&mut io.stream, &mut io.input, cx) {
            Poll::Ready(Ok(available)) => {
                io.available = available;
                // Whoever sends its body does not wait for a 100 any more (RFC 9110 §10.1.1).
                io.expects = false;
                self.reads.progress();
                Poll::Ready(Ok(available > 0))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if self.reads.is_over(self.connection.limits().body, cx) => {
                Poll::Ready(Err(SourceError::Idle))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn with_body<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        let io = self.io.borrow();
        look(&io.input.filled()[..io.available])
    }

    pub(crate) fn consume_body(&self, count: usize) {
        let io = &mut *self.io.borrow_mut();
        io.available -= count;
        io.body.took(&mut io.input, count);
    }

    /// Allocates and copies: the HTTP/2 library wants to own what it sends.
    pub(crate) fn take_body(&self) -> Bytes {
        let piece = self.with_body(Bytes::copy_from_slice);
        self.consume_body(piece.len());
        piece
    }

    pub(crate) fn take_trailers(&self) -> Option<HeaderMap> {
        self.io.borrow_mut().body.take_trailers()
    }

    /// Lets the client send its body, when it waits for that.
    pub(crate) fn invite(&self, cx: &mut Context<'_>) {
        let io = &mut *self.io.borrow_mut();
        if std::mem::take(&mut io.expects) && io.input.is_empty() {
            io.writer.text().extend_from_slice(CONTINUE);
            // What does not go out now goes with the answer; an error shows there.
            let _ = io.writer.poll_flush(&mut io.stream, cx);
        }
    }

    /// Passes an interim answer on, at once.
    pub(crate) fn inform(&self, write: impl FnOnce(&mut Vec<u8>), cx: &mut Context<'_>) {
        let io = &mut *self.io.borrow_mut();
        write(io.writer.text());
        let _ = io.writer.poll_flush(&mut io.stream, cx);
    }

    /// The client was told to go on.
    pub(crate) fn was_invited(&self) {
        self.io.borrow_mut().expects = false;
    }

    /// Writes a head; a body of this framing follows.
    pub(super) fn begin_answer(&self, framing: Framing, write: impl FnOnce(&mut Vec<u8>)) {
        let io = &mut *self.io.borrow_mut();
        write(io.writer.text());
        io.writer.begin(framing);
        self.writes.progress();
    }

    /// Whether all of the request was read, or can be thrown away without waiting: else nobody knows where the next
    /// one begins.
    pub(super) fn has_read_all(&self) -> bool {
        let io = &mut *self.io.borrow_mut();
        io.available = 0;
        !io.may_skip_body() && io.body.discard(&mut io.input)
    }

    /// Whether the client still waits for its 100: once it has an answer it may send the body, or the next request.
    pub(super) fn may_skip_body(&self) -> bool {
        self.io.borrow().may_skip_body()
    }

    /// Ends the connection so that the client can still read its answer.
    pub(super) async fn close(&self, linger: bool) {
        self.reads.progress();
        let limit = LINGER;
        let shut = std::future::poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            let done = Pin::new(&mut io.stream).poll_shutdown(cx);
            if done.is_pending() && self.reads.is_over(limit, cx) { Poll::Ready(Ok(())) } else { done }
        });
        if shut.await.is_err() || !linger {
            return;
        }
        let mut left = LINGER_BYTES;
        std::future::poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            loop {
                io.input.consume(usize::MAX);
                match io.input.poll_fill(&mut io.stream, cx) {
                    Poll::Ready(Ok(count @ 1..)) if count <= left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    // Not set anew by what comes: it is given so much time and no more.
                    Poll::Pending if self.reads.is_over(limit, cx) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// Closing will be a reset: where the end of the connection is the end of the answer, only that tells that it was cut.
    pub(super) fn will_reset(&self) {
        self.io.borrow().stream.will_reset();
    }

    /// Gives the connection away, with what was read of it and not used.
    pub(super) fn with_stream<R>(&self, work: impl FnOnce(&mut Stream, &mut Buffer) -> R) -> R {
        let io = &mut *self.io.borrow_mut();
        work(&mut io.stream, &mut io.input)
    }
}

/// An answer's body goes to the client.
impl Sink for &Client {
    fn poll_data(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let io = &mut *self.io.borrow_mut();
        self.writes.bound(io.writer.poll_data(&mut io.stream, data, cx), self.connection.limits().body, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.io.borrow_mut();
        self.writes.bound(io.writer.poll_flush(&mut io.stream, cx), self.connection.limits().body, cx)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.io.borrow_mut().writer.end(trailers);
    }

    fn is_ended(&self) -> bool {
        self.io.borrow().writer.is_ended()
    }
}

/// Whether a whole head may be there, or too much of one: parsing again for each byte of a slow one would cost its square.
fn has_end(bytes: &[u8], seen: Option<usize>) -> bool {
    let Some(seen) = seen else { return !bytes.is_empty() };
    let from = seen.saturating_sub(3);
    let ends = [&b"\n\r\n"[..], b"\n\n"];
    let reaches = |size| seen < size && bytes.len() >= size;
    reaches(LINE_BYTES)
        || reaches(HEAD_BYTES)
        || ends.iter().any(|end| memchr::memmem::find(&bytes[from..], end).is_some())
}

fn refusal(malformed: Malformed) -> Own {
    Own::Refused(match malformed {
        Malformed::Syntax(why) => Refusal::Ambiguous(why),
        Malformed::Version => Refusal::Version,
        Malformed::Line => Refusal::TargetTooLong,
        Malformed::Size => Refusal::HeadTooLarge,
    })
}
