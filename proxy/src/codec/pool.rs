//! Connections to endpoints, kept by one worker for itself: no lock, nothing shared.
//!
//! Main types: [`Pools`], by address; [`Lease`], the part of a connection that an answer still uses; [`Failed`].

mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

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
use crate::snapshot::{Protocol, Table};

/// An endpoint that refused a connection is not asked again for so long, while there are others.
const REFUSED: Duration = Duration::from_secs(1);

/// All connections of one worker.
#[derive(Debug)]
pub(crate) struct Pools {
    by_address: RefCell<Table<(SocketAddr, Protocol), Rc<Pool>>>,
    refused: Rc<Refused>,
    limits: Rc<Limits>,
    deadlines: Deadlines,
}

/// Addresses at which a connection did not come about a moment ago, and when. Empty nearly always.
#[derive(Debug, Default)]
struct Refused(RefCell<Vec<(SocketAddr, Instant)>>);

/// The connections to one address.
#[derive(Debug)]
struct Pool {
    address: SocketAddr,
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
        Self { by_address: RefCell::default(), refused: Rc::default(), limits, deadlines }
    }

    /// Requests in flight to an endpoint from this worker.
    pub(crate) fn outstanding(&self, address: SocketAddr, protocol: Protocol) -> u32 {
        self.by_address.borrow().get(&(address, protocol)).map_or(0, |pool| pool.outstanding.get())
    }

    /// Whether a connection to an endpoint did not come about a moment ago: with nothing in flight it would look free.
    pub(crate) fn is_refused(&self, address: SocketAddr) -> bool {
        self.refused.holds(address)
    }

    /// Sends a request and waits for the head of the answer, for at most `limit` after the last of the request went out.
    /// After [`Failed::Connect`] it can be sent elsewhere.
    ///
    /// # Cancel safety
    /// Dropping it ends the request: the stream is reset, or the connection closed.
    pub(crate) async fn forward(
        &self,
        address: SocketAddr,
        request: &mut Prepared,
        limit: Duration,
    ) -> Result<Answered, Failed> {
        match request {
            Prepared::Http1(outgoing) => {
                let pool = self.pool(address, Protocol::Http1);
                let occupied = Occupied::new(pool.clone());
                let (head, answer): (_, Answer) = http1::send(&pool, outgoing, limit).await?;
                let (head, body) = (AnswerHead::Http1(head), Download::Http1(Box::new(answer)));
                Ok(Answered { head, body, lease: Lease { occupied, _stream: None } })
            }
            Prepared::Http2(request) => {
                let pool = self.pool(address, Protocol::Http2);
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
        self.by_address.borrow_mut().retain(|_, pool| {
            let used = pool.http1.prune() | pool.http2.prune();
            used || pool.outstanding.get() > 0
        });
        self.refused.prune();
    }

    fn pool(&self, address: SocketAddr, protocol: Protocol) -> Rc<Pool> {
        // The clone counts on this thread alone; a pool is allocated once per endpoint.
        let mut pools = self.by_address.borrow_mut();
        let fresh = || {
            let (limits, deadlines) = (self.limits.clone(), self.deadlines.clone());
            let refused = self.refused.clone();
            let (outstanding, http1, http2) = Default::default();
            Rc::new(Pool { address, limits, deadlines, outstanding, refused, http1, http2 })
        };
        pools.entry((address, protocol)).or_insert_with(fresh).clone()
    }
}

impl Refused {
    fn holds(&self, address: SocketAddr) -> bool {
        self.0.borrow().iter().any(|(known, since)| *known == address && since.elapsed() < REFUSED)
    }

    fn put(&self, address: SocketAddr) {
        let mut all = self.0.borrow_mut();
        all.retain(|(known, since)| *known != address && since.elapsed() < REFUSED);
        all.push((address, Instant::now()));
    }

    fn prune(&self) {
        self.0.borrow_mut().retain(|(_, since)| since.elapsed() < REFUSED);
    }
}

impl Pool {
    async fn connect(&self) -> Result<Stream, Failed> {
        let limit = self.limits.connect;
        let connected = match tokio::time::timeout(limit, TcpStream::connect(self.address)).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {} ms", limit.as_millis())),
        };
        match connected {
            Ok(stream) => {
                // Without it a head and its body may wait for each other's acknowledgement. It only fails on a dead
                // socket.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Clear(stream))
            }
            Err(why) => {
                self.refused.put(self.address);
                Err(Failed::Connect(why))
            }
        }
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
