//! What is left of HTTP after a change of protocol: bytes both ways, until both sides have ended or nothing moves for too
//! long.
//!
//! One that may not go on is ended between two frames where it is a WebSocket, and anywhere else where it is not.
//!
//! Must not know: what the bytes say, but for where frames end. Main functions: [`run`], for a client on HTTP/1; [`run_on`], for one on a stream of
//! HTTP/2.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::Buffer;
use super::client::Client;
use super::endpoint::Conn;
use crate::codec::flow::Sink;
use crate::codec::frames::{self, Frames};
use crate::codec::idle::Idle;
use crate::codec::relay::Relay;
use crate::deadline::Deadline;

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// The reader has ended; the writer is to be told.
    Ending,
    Ended,
}

/// What a WebSocket is closed with whose client may not go on: 4000 and above is for private use (RFC 6455 §7.4.2).
const CODE: u16 = 4401;
const REASON: &str = "no longer allowed";
/// The rest of a frame, the one that closes, and the client's answer to it may take so long.
const FAREWELL: Duration = Duration::from_secs(5);

/// The end of a WebSocket whose client may not go on.
#[derive(Debug)]
struct Farewell {
    step: Step,
    /// What is left to say.
    frame: Vec<u8>,
    deadline: Deadline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The endpoint's frame that has begun goes out to its end.
    Rest,
    Say,
    End,
    /// What the client still sends is read, so that what was said to it is not lost with a reset.
    Listen,
}

/// Bytes between a client and an endpoint. The relay counts as outstanding as long as they pass.
#[derive(Debug)]
struct Tunnel {
    conn: Box<Conn>,
    relay: Box<Relay>,
    idle: Idle,
    up: Way,
    down: Way,
    /// Where the endpoint's frames end, if that may be asked for.
    frames: Option<Frames>,
    farewell: Option<Farewell>,
}

/// Passes bytes on. The head that changed the protocol goes out first.
pub(super) async fn run(client: &Rc<Client>, conn: Box<Conn>, relay: Box<Relay>) {
    let mut tunnel = Tunnel::new(conn, relay);
    let mut head_is_out = false;
    let done = std::future::poll_fn(|cx| {
        if !head_is_out {
            ready!((&**client).poll_flush(cx))?;
            head_is_out = true;
        }
        client.with_stream(|stream, input| tunnel.poll(stream, input, cx))
    });
    note(done.await);
}

/// Passes bytes on between a stream and an endpoint.
pub(crate) async fn run_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, conn: Box<Conn>, relay: Box<Relay>) {
    let (mut tunnel, mut input) = (Tunnel::new(conn, relay), Buffer::default());
    note(std::future::poll_fn(|cx| tunnel.poll(&mut stream, &mut input, cx)).await);
}

/// However it ended: both connections are closed by dropping them, and neither ever carries a request again.
fn note(done: io::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(%error, "an upgraded connection broke off");
    }
}

impl Tunnel {
    fn new(conn: Box<Conn>, relay: Box<Relay>) -> Self {
        let idle = Idle::new(relay.flight().connection().deadlines());
        let frames = (relay.is_watched() && relay.is_websocket()).then(Frames::default);
        Self { conn, relay, idle, up: Way::Open, down: Way::Open, frames, farewell: None }
    }

    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        input: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.farewell.is_none() && self.relay.poll_no_longer(cx).is_ready() {
            let deadline = self.relay.flight().connection().deadlines().deadline();
            deadline.set(FAREWELL);
            self.farewell = Some(Farewell { step: Step::Rest, frame: frames::close(CODE, REASON), deadline });
        }
        if self.farewell.is_some() {
            return self.poll_farewell(stream, input, cx);
        }
        let mut moved = false;
        let Conn { stream: other, input: from_other, .. } = &mut *self.conn;
        let up = poll_way(&mut self.up, (stream, input), other, (&mut moved, None), cx)?;
        let down = poll_way(&mut self.down, (other, from_other), stream, (&mut moved, self.frames.as_mut()), cx)?;
        if moved {
            self.idle.progress();
        }
        // Where one side has ended, the other has only to finish; and nobody would see that side go.
        let limits = self.relay.flight().connection().limits();
        let limit = if up || down { limits.body } else { limits.stream_idle };
        match up && down {
            true => Poll::Ready(Ok(())),
            false if self.idle.is_over(limit, cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Poll::Pending,
        }
    }
}

impl Tunnel {
    /// Nothing of the client goes to the endpoint any more, and of the endpoint only the frame that has begun to the client.
    fn poll_farewell<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        input: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { conn, frames, farewell, down, .. } = self;
        let cut = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        // Of any other protocol nobody knows how it ends.
        let (Some(farewell), Some(frames)) = (farewell, frames) else { return cut() };
        let stepped = loop {
            let step = match farewell.step {
                Step::Rest if *down != Way::Open || frames.is_lost() => return cut(),
                Step::Rest if frames.is_between() => Poll::Ready(Ok(true)),
                Step::Rest => poll_rest((&mut conn.stream, &mut conn.input), stream, frames, cx),
                // Nothing may follow what the endpoint closed it with.
                Step::Say if frames.is_closed() || farewell.frame.is_empty() => Poll::Ready(Ok(true)),
                Step::Say => poll_say(&mut farewell.frame, stream, cx),
                Step::End => Pin::new(&mut *stream).poll_shutdown(cx).map_ok(|()| true),
                Step::Listen => poll_listen(stream, input, cx),
            };
            match (step, farewell.step) {
                (Poll::Ready(Ok(false)), _) => {}
                (Poll::Ready(Ok(true)), Step::Rest) => farewell.step = Step::Say,
                (Poll::Ready(Ok(true)), Step::Say) => farewell.step = Step::End,
                (Poll::Ready(Ok(true)), Step::End) => farewell.step = Step::Listen,
                (Poll::Ready(Ok(true)), Step::Listen) => break Poll::Ready(Ok(())),
                (Poll::Ready(Err(error)), _) => break Poll::Ready(Err(error)),
                (Poll::Pending, _) => break Poll::Pending,
            }
        };
        match stepped {
            Poll::Pending if farewell.deadline.poll(cx).is_ready() => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            stepped => stepped,
        }
    }
}

/// Moves a piece of the frame that has begun.
fn poll_rest(
    (from, held): (&mut (impl AsyncRead + Unpin), &mut Buffer),
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut Frames,
    cx: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    if held.is_empty() {
        let Poll::Ready(read) = held.poll_fill(from, cx)? else {
            flush(to, cx)?;
            return Poll::Pending;
        };
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    let rest = frames.rest(held.filled());
    let written = ready!(Pin::new(to).poll_write(cx, &held.filled()[..rest]))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    frames.pass(&held.filled()[..written]);
    held.consume(written);
    Poll::Ready(Ok(false))
}

fn poll_say(frame: &mut Vec<u8>, to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
    let written = ready!(Pin::new(to).poll_write(cx, frame))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    frame.drain(..written);
    Poll::Ready(Ok(false))
}

/// Reads and throws away; true at the end.
fn poll_listen(from: &mut (impl AsyncRead + Unpin), held: &mut Buffer, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
    held.consume(held.filled().len());
    let read = ready!(held.poll_fill(from, cx))?;
    Poll::Ready(Ok(read == 0))
}

/// Moves what there is; true once this direction has ended.
fn poll_way(
    way: &mut Way,
    (from, held): (&mut (impl AsyncRead + Unpin), &mut Buffer),
    to: &mut (impl AsyncWrite + Unpin),
    (moved, mut frames): (&mut bool, Option<&mut Frames>),
    cx: &mut Context<'_>,
) -> io::Result<bool> {
    while *way == Way::Open {
        if held.is_empty() {
            match held.poll_fill(from, cx) {
                Poll::Pending => {
                    held.rest();
                    return flush(to, cx).map(|()| false);
                }
                Poll::Ready(read) => {
                    *moved = true;
                    if read? == 0 {
                        *way = Way::Ending;
                        continue;
                    }
                }
            }
        }
        match Pin::new(&mut *to).poll_write(cx, held.filled()) {
            Poll::Pending => return Ok(false),
            Poll::Ready(written) => match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => {
                    *moved = true;
                    if let Some(frames) = &mut frames {
                        frames.pass(&held.filled()[..count]);
                    }
                    held.consume(count);
                }
            },
        }
    }
    if *way == Way::Ending
        && let Poll::Ready(shut) = Pin::new(to).poll_shutdown(cx)
    {
        shut?;
        *way = Way::Ended;
    }
    Ok(*way == Way::Ended)
}

fn flush(to: &mut (impl AsyncWrite + Unpin), cx: &mut Context<'_>) -> io::Result<()> {
    match Pin::new(to).poll_flush(cx) {
        Poll::Ready(flushed) => flushed,
        Poll::Pending => Ok(()),
    }
}
