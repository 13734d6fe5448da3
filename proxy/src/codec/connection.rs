//! One connection of a client: who it is, what is in progress on it, and when it has to go.
//!
//! Main types: [`Connection`], the state that everything on the connection shares; [`Flight`], an exchange in progress.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;

use crate::deadline::Deadlines;
use crate::settings::Limits;

/// State of one connection. One thread owns it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The peer's address as `X-Forwarded-For` has it: made once.
    pub(crate) peer: HeaderValue,
    pub(crate) tls: bool,
    /// The host that the TLS handshake named.
    sni: OnceCell<Box<str>>,
    pub(crate) limits: Rc<Limits>,
    pub(crate) deadlines: Deadlines,
    /// Something came on it.
    begun: Cell<bool>,
    exchanges: Cell<u32>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
    /// Exchanges in progress on the whole worker.
    outstanding: Rc<Cell<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Graceful,
    Now,
}

impl Connection {
    pub(crate) fn new(
        peer: SocketAddr,
        tls: bool,
        limits: Rc<Limits>,
        deadlines: Deadlines,
        outstanding: Rc<Cell<u32>>,
    ) -> Self {
        let ip: IpAddr = peer.ip().to_canonical();
        Self {
            peer: HeaderValue::try_from(ip.to_string()).expect("an IP address is a header value"),
            tls,
            sni: OnceCell::new(),
            limits,
            deadlines,
            begun: Cell::new(false),
            exchanges: Cell::new(0),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
            outstanding,
        }
    }

    /// The host that the TLS handshake named, in lower case.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.sni.get().map(|name| &**name)
    }

    pub(super) fn set_sni(&self, name: &str) {
        // A connection has one handshake.
        let _ = self.sni.set(name.to_ascii_lowercase().into());
    }

    /// "https" or "http".
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Lets what is in progress finish, then closes.
    pub(crate) fn leave(&self) {
        if self.end.get() == End::Open {
            self.finish(End::Graceful);
        }
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

    /// Whether it takes no further request.
    pub(crate) fn is_leaving(&self) -> bool {
        self.end.get() != End::Open
    }

    pub(super) fn end(&self) -> End {
        self.end.get()
    }

    /// Whether its client has not sent anything yet: it may be about to.
    pub(crate) fn is_new(&self) -> bool {
        !self.begun.get()
    }

    pub(super) fn begin(&self) {
        self.begun.set(true);
    }

    pub(super) fn exchanges(&self) -> u32 {
        self.exchanges.get()
    }

    /// The task that is woken when the connection has to go.
    pub(super) fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Completes when the connection has to go, for phases that have nothing to finish.
    pub(super) async fn leaving(&self) {
        std::future::poll_fn(|cx| {
            self.watch(cx);
            if self.is_leaving() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs a protocol that asks [`Connection::is_leaving`] itself, until it ends or the connection is cut.
    pub(super) async fn run(&self, protocol: impl Future<Output = ()>) {
        let mut protocol = pin!(protocol);
        std::future::poll_fn(|cx| {
            self.watch(cx);
            if self.end.get() == End::Now { Poll::Ready(()) } else { protocol.as_mut().poll(cx) }
        })
        .await;
    }
}

/// An exchange in progress: the connection is busy and the worker has outstanding work until it is dropped.
#[derive(Debug)]
pub(crate) struct Flight(Rc<Connection>);

impl Flight {
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        connection.exchanges.set(connection.exchanges.get() + 1);
        connection.outstanding.set(connection.outstanding.get() + 1);
        Self(connection.clone())
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.0
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.exchanges.set(self.0.exchanges.get() - 1);
        self.0.outstanding.set(self.0.outstanding.get() - 1);
        if self.0.exchanges.get() == 0
            && let Some(waker) = &*self.0.waker.borrow()
        {
            // Its deadline is another one now.
            waker.wake_by_ref();
        }
    }
}
