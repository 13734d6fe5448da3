//! A client's socket on HTTP/2: the library has no deadlines, so this watches what comes and goes.
//!
//! Main types: [`Watched`], the socket; [`drive`], which runs the protocol and keeps the deadlines.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::codec::connection::{Connection, End};
use crate::codec::idle::Idle;
use crate::codec::server::Ahead;
use crate::codec::stream::Stream;
use crate::totals::Cut;

/// What came and went, shared by the socket and whoever watches it.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Bytes of the client since the protocol began; the preface is the first.
    read: Cell<u64>,
    /// The client takes nothing of what we write.
    stalled: Cell<bool>,
}

/// Runs a connection to its end. `finish` tells the protocol to take no further requests.
pub(super) async fn drive<P: Future<Output = hyper::Result<()>>>(
    protocol: P,
    finish: impl Fn(Pin<&mut P>),
    connection: &Connection,
    traffic: &Traffic,
) {
    let mut protocol = pin!(protocol);
    let (quiet, stalled) = (Idle::new(connection.deadlines()), Idle::new(connection.deadlines()));
    let limits = connection.limits();
    let (mut told, mut before) = (false, None);
    std::future::poll_fn(|cx| {
        connection.watch(cx);
        if connection.end() == End::Now {
            return Poll::Ready(());
        }
        if connection.is_old(Instant::now()) {
            connection.leave();
        }
        loop {
            if connection.is_leaving() && !told {
                told = true;
                quiet.progress();
                finish(protocol.as_mut());
            }
            if let Poll::Ready(result) = protocol.as_mut().poll(cx) {
                return ended(connection, result);
            }
            if !traffic.stalled.get() {
                stalled.progress();
            } else if stalled.is_over(limits.body, cx) {
                return closed(connection, "the client does not read", Some(Cut::Unread));
            }
            let Some(limit) = allowed(connection, traffic, told) else {
                quiet.progress();
                return Poll::Pending;
            };
            // A wait for something else, or after something was done, is a new one.
            let now = (limit, connection.begun_exchanges());
            if before.replace(now) != Some(now) {
                quiet.progress();
            }
            if !quiet.is_over(limit, cx) {
                return Poll::Pending;
            }
            if told || traffic.read.get() < PREFACE_BYTES {
                let cut = (!told).then_some(Cut::FirstBytes);
                return closed(connection, "its deadline is over", cut);
            }
            connection.leave();
        }
    })
    .await;
}

/// The protocol ended by itself. Its error says how the client ended the connection: nothing to act on.
fn ended(connection: &Connection, result: hyper::Result<()>) -> Poll<()> {
    tracing::debug!(peer = %connection.peer().text, ?result, "connection ended");
    if result.is_err_and(|error| is_ours(&error)) {
        connection.count(Cut::Http2);
    }
    Poll::Ready(())
}

/// We end it. `cut`: before its client had finished.
fn closed(connection: &Connection, why: &str, cut: Option<Cut>) -> Poll<()> {
    tracing::debug!(peer = %connection.peer().text, why, "connection closed");
    if let Some(cut) = cut {
        connection.count(cut);
    }
    Poll::Ready(())
}

/// Whether the library ended a connection because of what its client did: floods, broken frames, limits.
fn is_ours(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(h2::Error::is_library)
}

const PREFACE_BYTES: u64 = crate::codec::server::PREFACE.len() as u64;

/// How long the connection may stay as it is. `None`: exchanges are in progress, which have deadlines of their own.
fn allowed(connection: &Connection, traffic: &Traffic, told: bool) -> Option<Duration> {
    let limits = connection.limits();
    if connection.exchanges() > 0 {
        None
    } else if traffic.read.get() < PREFACE_BYTES {
        Some(limits.first_bytes)
    } else if told {
        Some(limits.body)
    } else {
        Some(limits.stream_idle)
    }
}

/// See the module. What was read to find the protocol comes first.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Stream,
    traffic: Rc<Traffic>,
    ahead: Ahead,
}

impl Watched {
    pub(super) fn new(inner: Stream, ahead: Ahead) -> (Self, Rc<Traffic>) {
        let traffic = Rc::<Traffic>::default();
        (Self { inner, traffic: traffic.clone(), ahead }, traffic)
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        self.traffic.stalled.set(result.is_pending());
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let held = self.ahead.take(buf.remaining());
        let result = if held.is_empty() {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        } else {
            buf.put_slice(held);
            Poll::Ready(Ok(()))
        };
        let read = buf.filled().len() - before;
        self.traffic.read.set(self.traffic.read.get().saturating_add(read as u64));
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
