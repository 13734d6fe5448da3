//! One connection of a client: who it is, what is in progress on it, and when it has to go.
//!
//! Main types: [`Listener`], what connections share; [`Connection`], the state that everything on one shares;
//! [`Flight`], an exchange in progress.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::admission::Admission;
use crate::access_log::{Entry, Log};
use crate::deadline::Deadlines;
use crate::explain::Place;
use crate::forwarded::Trusted;
use crate::request_id::{Block, Ids, RequestId};
use crate::settings::Limits;
use crate::totals::{Cut, Totals, Unshaken};

/// How often it is said that a certificate was refused; all are counted.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(1);

/// What all connections of one listener share on a worker.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) tls: bool,
    /// As `X-Forwarded-Port` has it.
    pub(crate) port: Box<str>,
    /// Trusted peers begin with a PROXY protocol header, and others are not served.
    pub(crate) proxy_protocol: bool,
    pub(crate) trusted: Trusted,
    pub(crate) limits: Rc<Limits>,
    pub(crate) deadlines: Deadlines,
    pub(crate) ids: Rc<Ids>,
    /// `None`: nobody wants an access log.
    pub(crate) log: Option<Rc<Log>>,
    /// Exchanges in progress on the whole worker.
    pub(crate) outstanding: Rc<Cell<u32>>,
    /// When it was last said that a certificate was refused.
    pub(crate) complained: Cell<Option<Instant>>,
    /// The worker's own. The handle is shared with those who read it, and cloned once per listener.
    pub(crate) totals: Arc<Totals>,
}

/// State of one connection. One thread owns it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) listener: Rc<Listener>,
    peer: RefCell<Peer>,
    /// The host that the TLS handshake named.
    sni: OnceCell<Box<str>>,
    /// By whom it was asked for a certificate, and what it showed.
    pub(crate) admission: Admission,
    /// When it is to take no further request.
    old: Instant,
    /// Something came on it.
    begun: Cell<bool>,
    exchanges: Cell<u32>,
    /// Exchanges that were ever begun on it.
    begun_exchanges: Cell<u64>,
    end: Cell<End>,
    waker: RefCell<Option<Waker>>,
}

/// Whose connection it is: the peer's, or that of whom it speaks for by the PROXY protocol.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// As `X-Forwarded-For` has it: made once.
    pub(crate) text: Rc<str>,
    /// What it says of those behind it is believed.
    pub(crate) is_trusted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Graceful,
    Now,
}

impl Connection {
    /// `spread`: a number that differs between connections, so that those opened together do not end together.
    pub(crate) fn new(address: SocketAddr, listener: Rc<Listener>, spread: u64) -> Self {
        let peer = Peer::new(address.ip(), &listener.trusted);
        let age = listener.limits.age;
        let old = Instant::now() + age - age / 10 + age / 5 * u32::from(spread as u8) / 255;
        Self {
            listener,
            peer: RefCell::new(peer),
            sni: OnceCell::new(),
            admission: Admission::default(),
            old,
            begun: Cell::new(false),
            exchanges: Cell::new(0),
            begun_exchanges: Cell::new(0),
            end: Cell::new(End::Open),
            waker: RefCell::default(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.listener.limits
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.listener.deadlines
    }

    /// Whose connection it is. The clone counts on this thread alone.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.borrow().clone()
    }

    /// The peer speaks for somebody else.
    pub(super) fn speaks_for(&self, address: IpAddr) {
        self.peer.replace(Peer::new(address, &self.listener.trusted));
    }

    /// The host that the TLS handshake named, in lower case.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.sni.get().map(|name| &**name)
    }

    pub(super) fn set_sni(&self, name: &str) {
        // A connection has one handshake.
        let _ = self.sni.set(name.to_ascii_lowercase().into());
    }

    /// Counts why hands were not shaken, and says so: about certificates of clients at most once a second on each worker.
    pub(super) fn count_unshaken(&self, reason: Unshaken, error: &std::io::Error) {
        let listener = &self.listener;
        listener.totals.unshaken(reason);
        let (peer, host) = (self.peer(), self.sni().unwrap_or_default());
        let now = Instant::now();
        let told = reason.is_of_client()
            && listener.complained.get().is_none_or(|last| now.duration_since(last) >= COMPLAIN_AGAIN);
        if told {
            listener.complained.set(Some(now));
            let reason = reason.label();
            tracing::info!(peer = %peer.text, host, reason, %error, "the certificate of a client was refused");
        } else {
            tracing::debug!(peer = %peer.text, host, reason = reason.label(), %error, "TLS handshake refused");
        }
    }

    /// "https" or "http".
    pub(crate) fn scheme(&self) -> &'static str {
        if self.listener.tls { "https" } else { "http" }
    }

    /// Whether it has been there long enough. Asked when something has come or gone: one that only waits ends by its
    /// idle time, and so nobody's request meets a connection that closes.
    pub(crate) fn is_old(&self, now: Instant) -> bool {
        self.old <= now
    }

    /// Lets what is in progress finish, then closes.
    pub(crate) fn leave(&self) {
        if self.end.get() == End::Open {
            self.finish(End::Graceful);
        }
    }

    /// Counts why it, or a stream of it, was ended before its client had finished.
    pub(super) fn count(&self, cut: Cut) {
        self.listener.totals.cut(cut);
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

    pub(super) fn begun_exchanges(&self) -> u64 {
        self.begun_exchanges.get()
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

impl Peer {
    fn new(address: IpAddr, trusted: &Trusted) -> Self {
        let address = address.to_canonical();
        Self { address, text: address.to_string().into(), is_trusted: trusted.holds(address) }
    }
}

/// An exchange in progress, with its name and its line in the access log. The connection is busy and the worker has
/// outstanding work until it is dropped; then the line is written.
#[derive(Debug)]
pub(crate) struct Flight {
    connection: Rc<Connection>,
    /// When its head was here.
    pub(crate) begun: Instant,
    pub(crate) id: RequestId,
    /// The name that it has from us, whatever it is called in answers.
    pub(crate) own: Block,
    /// Where it stands among what was decided lately, if anything was.
    pub(crate) decided: Option<Place>,
    /// Who asks by address: the peer, or who a trusted peer says.
    pub(crate) client: IpAddr,
    /// It came over TLS, be it to a peer that is believed.
    pub(crate) is_https: bool,
    /// What the answer says of how long to ask over TLS only (`Strict-Transport-Security`).
    pub(crate) hsts_seconds: Option<NonZeroU32>,
    /// The page that may read the answer.
    pub(crate) cors: Option<Box<str>>,
    /// The cookie by which the caller will be known (`Set-Cookie`), with what an endpoint answers. Allocates: once per caller.
    pub(crate) set_cookie: Option<Box<str>>,
    /// The stage says which pages may read its answers, whatever the endpoint says.
    pub(crate) answers_cors: bool,
    /// There when there is a log.
    pub(crate) entry: Option<Box<Entry>>,
}

impl Flight {
    pub(crate) fn begin(connection: &Rc<Connection>) -> Self {
        let outstanding = &connection.listener.outstanding;
        connection.exchanges.set(connection.exchanges.get() + 1);
        connection.begun_exchanges.set(connection.begun_exchanges.get() + 1);
        outstanding.set(outstanding.get() + 1);
        let own = connection.listener.ids.next();
        let (id, client) = (RequestId::own(own), connection.peer.borrow().address);
        let begun = Instant::now();
        Self {
            connection: connection.clone(),
            begun,
            id,
            own,
            decided: None,
            client,
            is_https: false,
            hsts_seconds: None,
            cors: None,
            set_cookie: None,
            answers_cors: false,
            entry: None,
        }
    }

    pub(crate) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Adds to the line in the log, if there is one.
    pub(crate) fn log(&mut self, add: impl FnOnce(&mut Entry)) {
        if let Some(entry) = &mut self.entry {
            add(entry);
        }
    }

    /// Begins the line in the log, if anybody wants one.
    pub(crate) fn begin_log(&mut self, client: IpAddr) {
        if self.connection.listener.log.is_some() {
            self.entry = Some(Box::new(Entry::begin(self.id.as_bytes(), client)));
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Self { connection, entry, .. } = self;
        if let (Some(log), Some(entry)) = (&connection.listener.log, entry.take()) {
            log.add(*entry);
        }
        let outstanding = &connection.listener.outstanding;
        connection.exchanges.set(connection.exchanges.get() - 1);
        outstanding.set(outstanding.get() - 1);
        if connection.exchanges.get() == 0
            && let Some(waker) = &*connection.waker.borrow()
        {
            // Its deadline is another one now.
            waker.wake_by_ref();
        }
    }
}
