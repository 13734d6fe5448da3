//! HTTP/2, with prior knowledge or by ALPN: a few connections per endpoint, each with many streams.
//!
//! Streams are counted here, because the library queues without bound what the endpoint does not admit yet.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Failed, Pool};
use crate::codec::flow::Frames;
use crate::codec::http2::Local;
use crate::codec::upload::{Progress, Upload};
use crate::deadline::Deadline;

/// Most connections per endpoint and worker: with the usual 100 streams each, 1,600 requests at once.
const MOST_CONNECTIONS: usize = 16;
/// What an endpoint may send of one answer before its client takes it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// What it may send of all answers: as much as a hundred streams that stand still may hold, so that they hold up no other.
const CONNECTION_WINDOW: u32 = 128 * STREAM_WINDOW;
/// A connection without streams is closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// One connection is made at a time: a burst must not make one each.
    connecting: Semaphore,
}

impl Default for Shared {
    fn default() -> Self {
        Self { connections: RefCell::default(), connecting: Semaphore::new(1) }
    }
}

#[derive(Debug)]
struct Connection {
    sender: http2::SendRequest<Frames<Upload>>,
    streams: Cell<usize>,
    /// What the endpoint admits now.
    most: Rc<Cell<usize>>,
    used: Cell<Instant>,
}

/// A stream in use, until it is dropped: then nobody wants to send on it either.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Rc<Connection>,
    body: Option<Rc<Progress>>,
}

impl Stream {
    fn open(connection: Rc<Connection>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self { connection, body: None }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.give_up();
        }
        self.connection.streams.set(self.connection.streams.get() - 1);
        self.connection.used.set(Instant::now());
    }
}

impl Shared {
    /// The connection with the fewest streams that has room.
    fn roomy(&self) -> Option<Stream> {
        let connections = self.connections.borrow();
        let open = connections.iter().filter(|one| !one.sender.is_closed() && one.streams.get() < one.most.get());
        open.min_by_key(|one| one.streams.get()).cloned().map(Stream::open)
    }

    /// Closes what is idle; true while any is left.
    pub(super) fn prune(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        connections
            .retain(|one| !one.sender.is_closed() && (one.streams.get() > 0 || one.used.get().elapsed() <= IDLE));
        !connections.is_empty()
    }
}

/// Sends a request; one that an ending connection gives back unsent goes out once more. The request is put back when
/// there is no connection for it.
pub(super) async fn send(
    pool: &Pool,
    request: &mut Option<Box<Request<Frames<Upload>>>>,
    limit: Duration,
) -> Result<(Response<Incoming>, Stream), Failed> {
    let mut again = true;
    loop {
        let mut stream = match pool.http2.roomy() {
            Some(stream) => stream,
            None => connect(pool).await?,
        };
        let Some(mut taken) = request.take() else { return Err(Failed::Broken("the request is gone".into())) };
        // Allocates: the body is read by the connection's task while this one waits.
        let progress = taken.body_mut().0.progress();
        // The clone is a handle; its count is touched by this thread alone.
        let mut sender = stream.connection.sender.clone();
        let sent = tokio::select! {
            sent = sender.try_send_request(*taken) => sent,
            () = stands_still(pool.deadlines.deadline(), &progress, limit) => return Err(Failed::TooSlow),
        };
        match sent {
            Ok(answer) => {
                stream.body = Some(progress);
                return Ok((answer, stream));
            }
            Err(_) if let Some(fault) = progress.failed.get() => return Err(Failed::ClientBody(fault)),
            Err(mut error) => match error.take_message().filter(|_| again) {
                Some(unsent) => (*request, again) = (Some(Box::new(unsent)), false),
                None => return Err(Failed::Broken(error.into_error().to_string())),
            },
        }
    }
}

/// Completes when for `limit` neither an answer came nor anything of the request went on.
async fn stands_still(deadline: Deadline, progress: &Progress, limit: Duration) {
    loop {
        deadline.set(limit);
        deadline.over().await;
        if !progress.moved.replace(false) {
            return;
        }
    }
}

/// A stream on a fresh connection, or on one that somebody else made meanwhile.
async fn connect(pool: &Pool) -> Result<Stream, Failed> {
    let begun = Instant::now();
    let _turn = pool.http2.connecting.acquire().await.map_err(|_| Failed::Full)?;
    // Those who waited for a connection that did not come about would otherwise each wait as long again, one by one.
    if pool.refused.has_since(pool.key, begun) {
        return Err(Failed::Connect("another request has just found none".into()));
    }
    if let Some(stream) = pool.http2.roomy() {
        return Ok(stream);
    }
    pool.http2.connections.borrow_mut().retain(|one| !one.sender.is_closed());
    if pool.http2.connections.borrow().len() >= MOST_CONNECTIONS {
        return Err(Failed::Full);
    }
    let socket = TokioIo::new(pool.connect().await?);
    let handshake = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(32 * 1024)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(pool.limits.ping)
        .keep_alive_timeout(pool.limits.ping_answer)
        .handshake(socket);
    let (sender, connection) = match tokio::time::timeout(pool.limits.connect, handshake).await {
        Ok(done) => done.map_err(|error| Failed::Connect(error.to_string()))?,
        Err(_) => return Err(Failed::Connect("no HTTP/2 handshake".into())),
    };
    let most = Rc::new(Cell::new(connection.current_max_send_streams().max(1)));
    let limit = most.clone();
    tokio::task::spawn_local(async move {
        let mut connection = connection;
        std::future::poll_fn(|cx| {
            let done = std::pin::Pin::new(&mut connection).poll(cx);
            limit.set(connection.current_max_send_streams());
            done
        })
        .await
    });
    let one = Rc::new(Connection { sender, streams: Cell::new(0), most, used: Cell::new(Instant::now()) });
    pool.http2.connections.borrow_mut().push(one.clone());
    Ok(Stream::open(one))
}
