//! Connections to endpoints, kept by one worker for itself: no lock, nothing shared.
//!
//! Main types: [`Pools`], by [`Key`]; [`Lease`], the part of a connection that an answer still uses; [`Failed`].

mod http1;
mod http2;
mod sessions;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::http1::endpoint::{self, Answer};
use super::http2::body::Incoming;
use super::idle::Idle;
use super::prepared::Prepared;
use super::relay::Download;
use super::stream::Stream;
use super::view::AnswerHead;
use crate::answer::BodyFault;
use crate::deadline::Deadlines;
use crate::settings::Limits;
use crate::snapshot::{Backend, Protocol, Table};
use sessions::Sessions;

/// An endpoint that refused a connection is not asked again for so long, while there are others.
const REFUSED: Duration = Duration::from_secs(1);

/// What tells connections apart. INVARIANT: backends that verify an endpoint in different ways share none, whatever its
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    protocol: Protocol,
    /// Number of the way it is verified.
    tls: Option<u64>,
}

impl Key {
    fn new(address: SocketAddr, backend: &Backend) -> Self {
        Self { address, protocol: backend.protocol, tls: backend.tls.as_ref().map(|tls| tls.id) }
    }
}

/// All connections of one worker.
#[derive(Debug)]
pub(crate) struct Pools {
    by_key: RefCell<Table<Key, Rc<Pool>>>,
    refused: Rc<Refused>,
    limits: Rc<Limits>,
    deadlines: Deadlines,
}

/// Where a connection did not come about a moment ago, and when. Empty nearly always.
#[derive(Debug, Default)]
struct Refused(RefCell<Vec<(Key, Instant)>>);

/// The connections to one address in one way.
#[derive(Debug)]
struct Pool {
    key: Key,
    /// Of TLS; `None`: in clear.
    sessions: Option<Sessions>,
    limits: Rc<Limits>,
    deadlines: Deadlines,
    outstanding: Cell<u32>,
    refused: Rc<Refused>,
    http1: http1::Idles,
    http2: http2::Shared,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) head: AnswerHead,
    pub(crate) body: Download,
    pub(crate) lease: Lease,
}

/// What an answer still uses of an endpoint. Dropped before the end, the connection (HTTP/1) or stream is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    occupied: Occupied,
    _stream: Option<http2::Stream>,
}

/// Counts a request as outstanding at an endpoint until it is dropped.
#[derive(Debug)]
struct Occupied(Rc<Pool>);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// No connection; the request was not sent and may go elsewhere.
    Connect(String),
    /// Every connection carries as many streams as it may.
    Full,
    /// No answer in time.
    TooSlow,
    /// The client's body cannot be read to its end.
    ClientBody(BodyFault),
    /// It broke after the request was, or may have been, sent.
    Broken(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Full => f.write_str("every connection carries as many streams as it may"),
            Self::TooSlow => f.write_str("no answer in time"),
            Self::ClientBody(fault) => write!(f, "the client's body cannot be read to its end ({fault:?})"),
            Self::Broken(why) => write!(f, "broken: {why}"),
        }
    }
}

impl From<endpoint::Failed> for Failed {
    fn from(failed: endpoint::Failed) -> Self {
        match failed {
            endpoint::Failed::Stale => Self::Broken("the connection ended without an answer".into()),
            endpoint::Failed::TooSlow => Self::TooSlow,
            endpoint::Failed::ClientBody(fault) => Self::ClientBody(fault),
            endpoint::Failed::Broken(why) => Self::Broken(why),
        }
    }
}

impl Pools {
    pub(crate) fn new(limits: Rc<Limits>, deadlines: Deadlines) -> Self {
        Self { by_key: RefCell::default(), refused: Rc::default(), limits, deadlines }
    }

    /// Requests in flight to an endpoint from this worker.
    pub(crate) fn outstanding(&self, address: SocketAddr, backend: &Backend) -> u32 {
        self.by_key.borrow().get(&Key::new(address, backend)).map_or(0, |pool| pool.outstanding.get())
    }

    /// Whether a connection to an endpoint did not come about a moment ago: with nothing in flight it would look free.
    pub(crate) fn is_refused(&self, address: SocketAddr, backend: &Backend) -> bool {
        self.refused.holds(Key::new(address, backend))
    }

    /// Sends a request, prepared in the backend's form, and waits for the head of the answer, for at most `limit` after the
    /// last of the request went out.
    /// After [`Failed::Connect`] it can be sent elsewhere.
    ///
    /// # Cancel safety
    /// Dropping it ends the request: the stream is reset, or the connection closed.
    pub(crate) async fn forward(
        &self,
        address: SocketAddr,
        backend: &Backend,
        request: &mut Prepared,
        limit: Duration,
    ) -> Result<Answered, Failed> {
        let pool = self.pool(address, backend);
        match request {
            Prepared::Http1(outgoing) => {
                let occupied = Occupied::new(pool.clone());
                let (head, answer): (_, Answer) = http1::send(&pool, outgoing, limit).await?;
                let (head, body) = (AnswerHead::Http1(head), Download::Http1(Box::new(answer)));
                Ok(Answered { head, body, lease: Lease { occupied, _stream: None } })
            }
            Prepared::Http2(request) => {
                let occupied = Occupied::new(pool.clone());
                // Allocates: its state is large, and every client's connection would hold the room for it.
                let (answer, stream) = Box::pin(http2::send(&pool, request, limit)).await?;
                let (head, body) = answer.into_parts();
                let body = Download::Http2(Box::new(Incoming::new(body)), Idle::new(&self.deadlines));
                let head = AnswerHead::Http2(Box::new(head));
                Ok(Answered { head, body, lease: Lease { occupied, _stream: Some(stream) } })
            }
        }
    }

    /// Closes what has been idle for too long; called about once a second.
    pub(crate) fn prune(&self) {
        let now = Instant::now();
        self.by_key.borrow_mut().retain(|_, pool| {
            let used = pool.http1.prune() | pool.http2.prune();
            let resumable = pool.sessions.as_ref().is_some_and(|sessions| sessions.may_resume(now));
            used || pool.outstanding.get() > 0 || resumable
        });
        self.refused.prune();
    }

    fn pool(&self, address: SocketAddr, backend: &Backend) -> Rc<Pool> {
        // The clone counts on this thread alone; a pool is allocated once per endpoint.
        let mut pools = self.by_key.borrow_mut();
        let key = Key::new(address, backend);
        let fresh = || {
            let sessions = backend.tls.as_ref().map(|tls| Sessions::new(tls, Instant::now()));
            let (limits, deadlines) = (self.limits.clone(), self.deadlines.clone());
            let refused = self.refused.clone();
            let (outstanding, http1, http2) = Default::default();
            Rc::new(Pool { key, sessions, limits, deadlines, outstanding, refused, http1, http2 })
        };
        pools.entry(key).or_insert_with(fresh).clone()
    }
}

impl Refused {
    fn holds(&self, key: Key) -> bool {
        self.0.borrow().iter().any(|(known, since)| *known == key && since.elapsed() < REFUSED)
    }

    /// Whether one did not come about after `begun`.
    fn has_since(&self, key: Key, begun: Instant) -> bool {
        self.0.borrow().iter().any(|(known, since)| *known == key && *since > begun)
    }

    fn put(&self, key: Key) {
        let mut all = self.0.borrow_mut();
        all.retain(|(known, since)| *known != key && since.elapsed() < REFUSED);
        all.push((key, Instant::now()));
    }

    fn prune(&self) {
        self.0.borrow_mut().retain(|(_, since)| since.elapsed() < REFUSED);
    }
}

impl Pool {
    async fn connect(&self) -> Result<Stream, Failed> {
        self.open().await.map_err(|why| {
            self.refused.put(self.key);
            Failed::Connect(why)
        })
    }

    /// A connection over which nothing was sent but a handshake. The error says what was wrong.
    async fn open(&self) -> Result<Stream, String> {
        let limit = self.limits.connect;
        let late = |what: &str| format!("no {what} within {} ms", limit.as_millis());
        let connected = tokio::time::timeout(limit, TcpStream::connect(self.key.address)).await;
        let stream = connected.map_err(|_| late("connection"))?.map_err(|error| error.to_string())?;
        // Without it a head and its body may wait for each other's acknowledgement. It only fails on a dead socket.
        let _ = stream.set_nodelay(true);
        let Some(sessions) = &self.sessions else { return Ok(Stream::Clear(stream)) };
        let connector = sessions.connector(Instant::now());
        // As long again, so that a busy endpoint is told from one that is gone.
        let shaken = tokio::time::timeout(limit, connector.connect(stream)).await;
        let stream = shaken.map_err(|_| late("TLS handshake"))??;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

impl Occupied {
    fn new(pool: Rc<Pool>) -> Self {
        pool.outstanding.set(pool.outstanding.get() + 1);
        Self(pool)
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.0.outstanding.set(self.0.outstanding.get() - 1);
    }
}

impl Lease {
    /// The answer has ended: its connection serves the next request, when it can.
    pub(crate) fn give_back(self, answer: Answer) {
        if let Some(conn) = answer.into_reusable() {
            self.occupied.0.http1.put(conn);
        }
    }
}
