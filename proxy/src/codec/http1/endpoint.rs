//! A connection to an endpoint: one request at a time, its answer read while the request's body may still go out.
//!
//! Must not know: pools, or what becomes of an answer.
//!
//! Main types: [`Conn`]; [`Answer`], what is still to come of an answer; [`Failed`].

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::body::Decoder;
use super::buffer::Buffer;
use super::framing::{self, Framing};
use super::head::{Parsed, ResponseHead};
use super::write::Writer;
use crate::answer::BodyFault;
use crate::codec::flow::{Sink, Source, SourceError, Stopped, poll_pump};
use crate::codec::idle::Idle;
use crate::codec::prepared::OutgoingHead;
use crate::codec::stream::Stream;
use crate::codec::upload::Upload;
use crate::deadline::Deadlines;
use crate::settings::Limits;

/// Interim answers to one request: more are a flood.
const INTERIM: usize = 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(super) stream: Stream,
    pub(super) input: Buffer,
    writer: Writer,
    /// Waiting for the endpoint to send.
    reads: Idle,
    /// Waiting for the endpoint to take.
    writes: Idle,
    limits: Rc<Limits>,
    /// The turn of its pool since which it is idle, when it is.
    pub(crate) idle_since: u32,
    reused: bool,
}

/// An answer of which the head is here.
#[derive(Debug)]
pub(crate) struct Answer {
    conn: Box<Conn>,
    body: Decoder,
    available: usize,
    /// What is left of the request, which goes on beside the answer.
    upload: Option<Upload>,
    /// The request will never be complete: the answer goes on as far as it is here.
    cut: bool,
    /// Nothing speaks against another request on this connection, once this one is over.
    persistent: bool,
}

/// A request whose answer is waited for.
struct Waiting<'a> {
    limit: Duration,
    interim: usize,
    request: &'a OutgoingHead<'a>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// A connection that was used before ended without a word: it may have been closed before the request came.
    Stale,
    /// No answer in time.
    TooSlow,
    /// The client's body cannot be read to its end.
    ClientBody(BodyFault),
    /// It broke, or the answer is malformed.
    Broken(String),
}

impl Conn {
    pub(crate) fn new(stream: Stream, deadlines: &Deadlines, limits: Rc<Limits>) -> Self {
        let (input, writer) = Default::default();
        let (reads, writes) = (Idle::new(deadlines), Idle::new(deadlines));
        Self { stream, input, writer, reads, writes, limits, idle_since: 0, reused: false }
    }

    /// Whether another request can be sent; costs no system call when nothing was heard of it.
    pub(crate) fn is_open(&mut self) -> bool {
        !self.stream.is_stale()
    }

    /// Tells the endpoint that this ends well: nothing is under way.
    pub(crate) fn say_end(&mut self) {
        self.stream.say_end();
    }

    /// Sends a request and waits for the head of its answer. `upload` is taken once any of it was used.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: &OutgoingHead<'_>,
        upload: &mut Upload,
        limit: Duration,
    ) -> Result<(ResponseHead, Answer), Failed> {
        request.write(upload.framing(), self.writer.text());
        self.writer.begin(upload.framing());
        self.reads.progress();
        self.writes.progress();
        let mut waiting = Waiting { limit, interim: 0, request };
        let head = std::future::poll_fn(|cx| self.poll_head(upload, &mut waiting, cx)).await?;
        self.into_answer(head, request, upload)
    }

    fn poll_head(
        &mut self,
        upload: &mut Upload,
        waiting: &mut Waiting<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Failed>> {
        let sent = match poll_pump(upload, &mut Outgoing(self), cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(Stopped::Source(error))) => return Poll::Ready(Err(Failed::ClientBody(error.fault()))),
            Poll::Ready(Err(Stopped::Sink(error))) if error.kind() == io::ErrorKind::TimedOut => {
                return Poll::Ready(Err(Failed::TooSlow));
            }
            // An endpoint may answer early and close: what it said is still to be read.
            Poll::Ready(Err(Stopped::Sink(_))) => true,
        };
        loop {
            match ready!(self.poll_parsed(sent.then_some(waiting.limit), cx))? {
                head if head.status >= 200 || (head.status == 101 && waiting.request.is_upgrade()) => {
                    return Poll::Ready(match waiting.request.is_answered_by(&head) {
                        true => Ok(head),
                        false => {
                            Err(Failed::Broken("no change of protocol that belongs to our key, and no refusal".into()))
                        }
                    });
                }
                head if head.status == 101 => {
                    return Poll::Ready(Err(Failed::Broken("101 without being asked".into())));
                }
                head => {
                    // It was there when the request came.
                    self.reused = false;
                    waiting.interim += 1;
                    if waiting.interim > INTERIM {
                        return Poll::Ready(Err(Failed::Broken("a flood of interim answers".into())));
                    }
                    upload.inform(&head, cx);
                }
            }
        }
    }

    /// `limit`: how long nothing may come; `None` while the request still goes out, whose body has its own deadline.
    fn poll_parsed(&mut self, limit: Option<Duration>, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Failed>> {
        loop {
            if !self.input.is_empty() {
                match ResponseHead::parse(self.input.filled()) {
                    Ok(Parsed::Whole(head, length)) => {
                        self.input.consume(length);
                        return Poll::Ready(Ok(head));
                    }
                    Ok(Parsed::Partial) => {}
                    Err(malformed) => return Poll::Ready(Err(Failed::Broken(format!("{malformed:?}")))),
                }
            }
            match self.input.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(1..)) => self.reads.progress(),
                Poll::Ready(_) if self.reused && self.input.is_empty() => return Poll::Ready(Err(Failed::Stale)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failed::Broken("the connection ended".into()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Broken(error.to_string()))),
                Poll::Pending if limit.is_some_and(|limit| self.reads.is_over(limit, cx)) => {
                    return Poll::Ready(Err(Failed::TooSlow));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn into_answer(
        self: Box<Self>,
        head: ResponseHead,
        request: &OutgoingHead<'_>,
        upload: &mut Upload,
    ) -> Result<(ResponseHead, Answer), Failed> {
        let framing =
            framing::of_response(&head, request.is_head()).map_err(|unclear| Failed::Broken(unclear.0.to_owned()))?;
        // Whatever an endpoint says to an upgrade, it may take what comes next for the other protocol.
        let persistent =
            framing != Framing::Close && !request.is_upgrade() && framing::is_persistent(head.fields(), head.minor);
        let upload = (!self.writer.is_ended()).then(|| upload.take_over());
        let body = Decoder::new(framing);
        Ok((head, Answer { conn: self, body, available: 0, upload, cut: false, persistent }))
    }
}

/// A request's body goes to the endpoint.
struct Outgoing<'a>(&'a mut Conn);

impl Sink for Outgoing<'_> {
    fn poll_data(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let result = self.0.writer.poll_data(&mut self.0.stream, data, cx);
        self.0.writes.bound(result, self.0.limits.body, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.0.writer.poll_flush(&mut self.0.stream, cx);
        self.0.writes.bound(result, self.0.limits.body, cx)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.0.writer.end(trailers);
    }

    fn is_ended(&self) -> bool {
        self.0.writer.is_ended()
    }
}

impl Answer {
    /// What is read of it is copied and kept for a while: more than a little at a time would be held twice.
    pub(crate) fn read_in_small_pieces(&mut self) {
        self.conn.input.stay_small();
    }

    /// How long nothing came.
    pub(crate) fn idle(&self) -> &Idle {
        &self.conn.reads
    }

    /// The connection, when it can serve again: the answer was read to its end, and so was the request sent.
    pub(crate) fn into_reusable(self) -> Option<Box<Conn>> {
        let Self { mut conn, body, upload, persistent, .. } = self;
        if !persistent || !body.is_over() || upload.is_some() || !conn.input.is_empty() || !conn.writer.is_ended() {
            return None;
        }
        conn.input = Buffer::default();
        conn.writer.rest();
        conn.reused = true;
        Some(conn)
    }

    /// The connection after a 101: what was read behind the head stays in it.
    pub(crate) fn into_tunnel(self) -> Box<Conn> {
        self.conn
    }

    /// Sends on what is left of the request. What goes wrong at the endpoint shows in the answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Some(upload) = &mut self.upload
            && let Poll::Ready(done) = poll_pump(upload, &mut Outgoing(&mut self.conn), cx)
        {
            self.upload = None;
            self.persistent &= done.is_ok();
            // One that only stopped may be of a client that waits for the answer.
            self.cut = matches!(done, Err(Stopped::Source(error)) if !matches!(error, SourceError::Idle));
        }
    }
}

impl Source for Answer {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        self.poll_upload(cx);
        if self.available > 0 {
            return Poll::Ready(Ok(true));
        }
        let Self { conn, body, available, .. } = self;
        let Conn { stream, input, .. } = &mut **conn;
        match body.poll(stream, input, cx) {
            Poll::Ready(Ok(count)) => {
                *available = count;
                Poll::Ready(Ok(count > 0))
            }
            Poll::Ready(Err(unread)) => Poll::Ready(Err(unread.into())),
            Poll::Pending if self.cut => Poll::Ready(Err(SourceError::Request)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.conn.input.filled()[..self.available])
    }

    fn consume(&mut self, count: usize) {
        self.available -= count;
        self.body.took(&mut self.conn.input, count);
    }

    fn take(&mut self) -> Bytes {
        // Allocates and copies: only for clients on HTTP/2, whose library wants to own what it sends.
        let piece = self.with(Bytes::copy_from_slice);
        self.consume(piece.len());
        piece
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.body.take_trailers()
    }

    fn is_empty(&self) -> bool {
        self.body.is_over()
    }

    fn length(&self) -> Option<u64> {
        match self.body {
            Decoder::Length(left) => Some(left),
            _ => None,
        }
    }
}
