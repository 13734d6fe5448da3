//! What is left of HTTP after a 101: bytes both ways, until both sides have ended or nothing moves for too long.
//!
//! Must not know: what the bytes say. Main function: [`run`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer::Buffer;
use super::client::Client;
use super::endpoint::Conn;
use crate::codec::flow::Sink;
use crate::codec::idle::Idle;
use crate::codec::relay::Relay;
use crate::codec::stream::Stream;

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// The reader has ended; the writer is to be told.
    Ending,
    Ended,
}

/// Passes bytes on. The head that changed the protocol goes out first. `relay` counts as outstanding until the end.
pub(super) async fn run(client: &Rc<Client>, mut conn: Conn, relay: Relay) {
    let connection = relay.flight().connection();
    let (idle, limit) = (Idle::new(connection.deadlines()), connection.limits().stream_idle);
    let mut head_is_out = false;
    let (mut up, mut down) = (Way::Open, Way::Open);
    let done = std::future::poll_fn(|cx| {
        if !head_is_out {
            ready!((&**client).poll_flush(cx))?;
            head_is_out = true;
        }
        let mut moved = false;
        let polled = client.with_stream(|stream, input| {
            let Conn { stream: other, input: from_other, .. } = &mut conn;
            let up_done = poll_way(&mut up, (stream, input), other, &mut moved, cx)?;
            let down_done = poll_way(&mut down, (other, from_other), stream, &mut moved, cx)?;
            Ok::<_, io::Error>(up_done && down_done)
        })?;
        if moved {
            idle.progress();
        }
        match polled {
            true => Poll::Ready(Ok::<_, io::Error>(())),
            false if idle.is_over(limit, cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            false => Poll::Pending,
        }
    });
    // However it ended: both connections are closed by dropping them, and neither ever carries a request again.
    if let Err(error) = done.await {
        tracing::debug!(%error, "an upgraded connection broke off");
    }
}

/// Moves what there is; true once this direction has ended.
fn poll_way(
    way: &mut Way,
    (from, held): (&mut Stream, &mut Buffer),
    to: &mut Stream,
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

fn flush(to: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
    match Pin::new(to).poll_flush(cx) {
        Poll::Ready(flushed) => flushed,
        Poll::Pending => Ok(()),
    }
}
