//! HTTP/1.1: one request at a time per connection, idle ones kept for the next, the last used first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::time::Instant;

use super::{Failed, Pool};
use crate::codec::body::Upload;
use crate::codec::rewrite;

pub(super) type Sender = http1::SendRequest<Upload>;

/// Shorter than what common servers allow (Node.js: 5 s), so that it is nearly always we who close.
const IDLE: Duration = Duration::from_secs(4);
/// Most idle connections per endpoint and worker: beyond it a connection is closed after its answer.
const MOST_IDLE: usize = 256;
/// Bounds what an endpoint's head may take.
const BUFFER_BYTES: usize = 128 * 1024;

/// Idle connections, the last used at the back.
#[derive(Debug, Default)]
pub(super) struct Idles(RefCell<VecDeque<(Sender, Instant)>>);

impl Idles {
    pub(super) fn put(&self, sender: Sender) {
        let mut idles = self.0.borrow_mut();
        if !sender.is_closed() && idles.len() < MOST_IDLE {
            idles.push_back((sender, Instant::now()));
        }
    }

    /// The last used that is ready. One whose end the library has not noticed yet stays where it is.
    fn take(&self) -> Option<Sender> {
        let mut idles = self.0.borrow_mut();
        while let Some((last, since)) = idles.back() {
            if last.is_closed() || since.elapsed() > IDLE {
                idles.pop_back();
            } else {
                break;
            }
        }
        let place = idles.iter().rposition(|(sender, _)| sender.is_ready())?;
        idles.remove(place).map(|(sender, _)| sender)
    }

    /// Closes what is too old; true while any is left.
    pub(super) fn prune(&self) -> bool {
        let mut idles = self.0.borrow_mut();
        idles.retain(|(sender, since)| !sender.is_closed() && since.elapsed() <= IDLE);
        !idles.is_empty()
    }
}

/// Sends a request. One that a reused connection did not take, because the endpoint had closed it meanwhile, goes out
/// once more on a fresh connection: when it was certainly not sent, or may be sent twice without harm (RFC 9112 §9.3.1).
pub(super) async fn send(pool: &Pool, request: Request<Upload>) -> Result<(Response<Incoming>, Sender), Failed> {
    let request = match pool.http1.take() {
        None => request,
        Some(mut sender) => {
            // Allocates a copy of the head for requests without a body, which are most: the price of never failing
            // when an endpoint closes an idle connection at the wrong moment.
            let copy = rewrite::replay(&request);
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, sender)),
                Err(mut error) => {
                    let unsent = error.take_message();
                    let closed = is_closed(error.error());
                    match unsent.or(copy.filter(|_| closed)) {
                        Some(request) => request,
                        None => return Err(Failed::Broken(error.into_error().to_string())),
                    }
                }
            }
        }
    };
    let stream = match pool.connect().await {
        Ok(stream) => stream,
        Err(why) => return Err(Failed::Connect { why, request: Box::new(request) }),
    };
    let broken = |error: hyper::Error| Failed::Broken(error.to_string());
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(stream).await.map_err(broken)?;
    tokio::task::spawn_local(async move {
        // Whoever waits for an answer hears of the error; an idle connection has nobody to tell.
        let _ = connection.await;
    });
    match sender.try_send_request(request).await {
        Ok(answer) => Ok((answer, sender)),
        Err(error) => Err(broken(error.into_error())),
    }
}

/// Whether the endpoint closed the connection without a word.
fn is_closed(error: &hyper::Error) -> bool {
    use std::error::Error;
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || io.is_some_and(|io| {
            matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
        })
}
