//! What is left of HTTP after a change of protocol: bytes both ways, until both sides have ended or nothing moves for too
//! long.
//!
//! Must not know: what the bytes say. Main functions: [`run`], for a client on HTTP/1; [`run_on`], for one on a stream of
//! HTTP/2.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::Buffer;
use super::client::Client;
use super::endpoint::Conn;
use crate::codec::flow::Sink;
use crate::codec::idle::Idle;
use crate::codec::relay::Relay;

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// The reader has ended; the writer is to be told.
    Ending,
    Ended,
}

/// Bytes between a client and an endpoint. The relay counts as outstanding as long as they pass.
#[derive(Debug)]
struct Tunnel {
    conn: Box<Conn>,
    relay: Box<Relay>,
    idle: Idle,
    up: Way,
    down: Way,
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
        Self { conn, relay, idle, up: Way::Open, down: Way::Open }
    }

    fn poll<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        input: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut moved = false;
        let Conn { stream: other, input: from_other, .. } = &mut *self.conn;
        let up = poll_way(&mut self.up, (stream, input), other, &mut moved, cx)?;
        let down = poll_way(&mut self.down, (other, from_other), stream, &mut moved, cx)?;
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

/// Moves what there is; true once this direction has ended.
fn poll_way(
    way: &mut Way,
    (from, held): (&mut (impl AsyncRead + Unpin), &mut Buffer),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &mut bool,
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
