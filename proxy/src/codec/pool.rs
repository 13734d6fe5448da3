//! A worker's connections to endpoints: idle ones for HTTP/1.1, shared ones for HTTP/2.
//!
//! Must not know: stages, releases, which endpoint is to be asked.
//!
//! Main types: [`Pools`], by address; [`Lease`], the part of a connection that an answer still uses; [`Failed`], and
//! with it the request when it was certainly not sent.

mod http1;
mod http2;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::Upload;
use crate::snapshot::Protocol;

/// All connections of one worker.
#[derive(Debug)]
pub(crate) struct Pools {
    by_address: RefCell<HashMap<(SocketAddr, Protocol), Rc<Pool>>>,
    connect: Duration,
}

/// The connections to one address.
#[derive(Debug)]
struct Pool {
    address: SocketAddr,
    connect: Duration,
    outstanding: Cell<u32>,
    http1: http1::Idles,
    http2: http2::Shared,
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) answer: Response<Incoming>,
    pub(crate) lease: Lease,
}

/// What an answer still uses of a connection. Dropped before the end, the connection (HTTP/1.1) or stream is closed.
#[derive(Debug)]
pub(crate) struct Lease {
    occupied: Occupied,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Http1(http1::Sender),
    Http2 { _stream: http2::Stream },
}

/// Counts a request as outstanding at an endpoint until it is dropped.
#[derive(Debug)]
struct Occupied(Rc<Pool>);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// No connection; the request was not sent and may go elsewhere.
    Connect { why: String, request: Box<Request<Upload>> },
    /// Every connection carries as many streams as it may.
    Full,
    /// It broke after the request was, or may have been, sent.
    Broken(String),
}

impl Pools {
    pub(crate) fn new(connect: Duration) -> Self {
        Self { by_address: RefCell::default(), connect }
    }

    /// Requests in flight to an endpoint from this worker.
    pub(crate) fn outstanding(&self, address: SocketAddr, protocol: Protocol) -> u32 {
        self.by_address.borrow().get(&(address, protocol)).map_or(0, |pool| pool.outstanding.get())
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Cancel safety
    /// Dropping it ends the request: the stream is reset, or the connection closed.
    pub(crate) async fn forward(
        &self,
        address: SocketAddr,
        protocol: Protocol,
        request: Request<Upload>,
    ) -> Result<Answered, Failed> {
        let pool = self.pool(address, protocol);
        let occupied = Occupied::new(pool.clone());
        let (answer, kind) = match protocol {
            Protocol::Http1 => {
                let (answer, sender) = http1::send(&pool, request).await?;
                (answer, Kind::Http1(sender))
            }
            Protocol::Http2 => {
                let (answer, stream) = http2::send(&pool, request).await?;
                (answer, Kind::Http2 { _stream: stream })
            }
        };
        Ok(Answered { answer, lease: Lease { occupied, kind } })
    }

    /// Closes what has been idle for too long; called about once a second.
    pub(crate) fn prune(&self) {
        self.by_address.borrow_mut().retain(|_, pool| {
            let used = pool.http1.prune() | pool.http2.prune();
            used || pool.outstanding.get() > 0
        });
    }

    fn pool(&self, address: SocketAddr, protocol: Protocol) -> Rc<Pool> {
        // The clone counts on this thread alone; a pool is allocated once per endpoint.
        let mut pools = self.by_address.borrow_mut();
        let fresh = || {
            let connect = self.connect;
            let (outstanding, http1, http2) = Default::default();
            Rc::new(Pool { address, connect, outstanding, http1, http2 })
        };
        pools.entry((address, protocol)).or_insert_with(fresh).clone()
    }
}

impl Pool {
    async fn connect(&self) -> Result<TokioIo<TcpStream>, String> {
        let stream = match tokio::time::timeout(self.connect, TcpStream::connect(self.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no connection within {} ms", self.connect.as_millis())),
        };
        // Without it a head and its body may wait for each other's acknowledgement. It only fails on a dead socket.
        let _ = stream.set_nodelay(true);
        Ok(TokioIo::new(stream))
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
    /// The answer has ended properly: the connection may serve the next request.
    pub(crate) fn give_back(self) {
        if let Kind::Http1(sender) = self.kind {
            self.occupied.0.http1.put(sender);
        }
    }
}
