//! One connection of a client: what it is doing, until when it may, and when it has to go.
//!
//! Main types: [`Connection`], the state that everything on the connection shares; [`Watched`], the socket, which
//! tells it of bytes; [`drive`], which runs the protocol and keeps the deadlines. There is one timer per connection;
//! when it fires too early, because something moved in between, it is set anew.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::settings::Limits;

/// What a client sends first on HTTP/2 (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// State of one connection. One thread owns it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The peer's address as `X-Forwarded-For` has it: made once.
    pub(crate) peer: HeaderValue,
    pub(crate) tls: bool,
    http_2: Cell<bool>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    exchanges: Cell<u32>,
    /// Since when the client takes nothing of what we write.
    stalled: Cell<Option<Instant>>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
    /// Exchanges in progress on the whole worker.
    outstanding: Rc<Cell<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing came yet.
    First,
    /// A head has begun.
    Head,
    /// At least one exchange is in progress.
    Busy,
    /// Between exchanges.
    Idle,
    /// Told to go.
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Graceful,
    Now,
}

/// What the timer has to do.
enum Due {
    At(Instant),
    Leave,
    Over(&'static str),
}

impl Connection {
    pub(crate) fn new(peer: SocketAddr, tls: bool, outstanding: Rc<Cell<u32>>) -> Self {
        let ip: IpAddr = peer.ip().to_canonical();
        Self {
            peer: HeaderValue::try_from(ip.to_string()).expect("an IP address is a header value"),
            tls,
            http_2: Cell::new(false),
            phase: Cell::new(Phase::First),
            since: Cell::new(Instant::now()),
            exchanges: Cell::new(0),
            stalled: Cell::new(None),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
            outstanding,
        }
    }

    /// Lets what is in progress finish, then closes.
    pub(crate) fn leave(&self) {
        self.finish(End::Graceful);
    }

    /// Closes at once.
    pub(crate) fn cut(&self) {
        self.finish(End::Now);
    }

    fn finish(&self, end: End) {
        self.end.set(end);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Completes when the connection has to go, for phases that have nothing to finish.
    pub(super) async fn leaving(&self) {
        std::future::poll_fn(|cx| {
            self.waker.replace(Some(cx.waker().clone()));
            if self.end.get() == End::Open { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    pub(super) fn is_http_2(&self) -> bool {
        self.http_2.get()
    }

    /// HTTP/2 was chosen; `preface`: the client has already said so itself.
    pub(super) fn set_http_2(&self, preface: bool) {
        self.http_2.set(true);
        if preface {
            self.enter(Phase::Idle);
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    fn read(&self) {
        match self.phase.get() {
            // In HTTP/2 the first bytes are the preface and later ones may be PINGs: no head has begun.
            Phase::First if self.is_http_2() => self.enter(Phase::Idle),
            Phase::First | Phase::Idle if !self.is_http_2() => self.enter(Phase::Head),
            _ => {}
        }
    }

    fn due(&self, now: Instant, limits: &Limits) -> Due {
        let deadline = self.since.get() + self.allowed(limits);
        let stall = self.stalled.get().map(|since| since + limits.body);
        if stall.is_some_and(|at| at <= now) {
            return Due::Over("the client does not read");
        }
        // Never later than this: a head may begin right after the timer was set, and has less time than an idle wait.
        let again = now + limits.head;
        match self.phase.get() {
            // An exchange has its own deadlines.
            Phase::Busy => Due::At(stall.map_or(again, |at| at.min(again))),
            _ if deadline > now => Due::At(deadline.min(again)),
            Phase::First => Due::Over("nothing came"),
            Phase::Head => Due::Over("the head did not come"),
            Phase::Idle => Due::Leave,
            Phase::Leaving => Due::Over("did not leave"),
        }
    }

    fn allowed(&self, limits: &Limits) -> Duration {
        match self.phase.get() {
            Phase::First => limits.first_bytes,
            Phase::Head => limits.head,
            Phase::Idle if self.is_http_2() => limits.stream_idle,
            Phase::Idle => limits.idle,
            Phase::Busy | Phase::Leaving => limits.body,
        }
    }
}

/// An exchange in progress: the connection is busy and the worker has outstanding work until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight(Rc<Connection>);

impl Flight {
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        connection.exchanges.set(connection.exchanges.get() + 1);
        connection.outstanding.set(connection.outstanding.get() + 1);
        connection.phase.set(Phase::Busy);
        Self(connection.clone())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let left = self.0.exchanges.get() - 1;
        self.0.exchanges.set(left);
        self.0.outstanding.set(self.0.outstanding.get() - 1);
        if left == 0 {
            self.0.enter(Phase::Idle);
        }
    }
}

/// Runs a connection to its end. `finish` tells the protocol to take no further requests.
pub(super) async fn drive<P: Future<Output = hyper::Result<()>>>(
    protocol: P,
    finish: impl Fn(Pin<&mut P>),
    connection: &Connection,
    limits: &Limits,
) {
    let mut protocol = pin!(protocol);
    let mut alarm = pin!(tokio::time::sleep_until(Instant::now() + limits.first_bytes));
    let mut told = false;
    std::future::poll_fn(|cx| {
        let mut waker = connection.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        match connection.end.get() {
            End::Now => return Poll::Ready(()),
            End::Graceful if !told => {
                told = true;
                finish(protocol.as_mut());
            }
            _ => {}
        }
        if let Poll::Ready(result) = protocol.as_mut().poll(cx) {
            // Its error says how the client ended the connection: nothing to act on.
            tracing::debug!(peer = ?connection.peer, ?result, "connection ended");
            return Poll::Ready(());
        }
        while alarm.as_mut().poll(cx).is_ready() {
            match connection.due(Instant::now(), limits) {
                Due::At(at) => alarm.as_mut().reset(at),
                Due::Leave => {
                    connection.enter(Phase::Leaving);
                    finish(protocol.as_mut());
                    told = true;
                    if protocol.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Due::Over(why) => {
                    tracing::debug!(peer = ?connection.peer, why, "connection closed at its deadline");
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    })
    .await;
}

/// The client's socket: what was read to find the protocol comes first, and the connection hears of every byte.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    connection: Rc<Connection>,
    ahead: Ahead,
}

/// Bytes that were read before the protocol was known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ahead {
    pub(super) bytes: [u8; PREFACE.len()],
    pub(super) start: usize,
    pub(super) end: usize,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S, connection: Rc<Connection>, ahead: Ahead) -> Self {
        Self { inner, connection, ahead }
    }

    fn wrote(&self, result: &Poll<std::io::Result<usize>>) {
        let stalled = match result {
            Poll::Pending => self.connection.stalled.get().or_else(|| Some(Instant::now())),
            Poll::Ready(_) => None,
        };
        self.connection.stalled.set(stalled);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = &mut *self;
        let Ahead { bytes, start, end } = &mut this.ahead;
        if *start < *end {
            let length = buf.remaining().min(*end - *start);
            buf.put_slice(&bytes[*start..*start + length]);
            *start += length;
            this.connection.read();
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.connection.read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
