//! HTTP/1 for those who speak no other: one request on each connection, with a deadline for all of it.
//!
//! Must not know: what is asked. Heads are read by hyper, within limits.
//!
//! A connection that stays open between requests would need a timer more, and its client would meet one that has just
//! ended. Who asks often speaks HTTP/2.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tonic::codegen::Service;
use tonic::transport::server::Connected;
use tracing::debug;

use crate::server::accept::Greeted;
use crate::server::web::{HEAD_BYTES, Web};

/// A request's head (limits by default: request head 10 s).
const HEAD: Duration = Duration::from_secs(10);
/// A whole exchange, also with one who reads nothing of the answer (limits by default: unary request 60 s).
const WHOLE: Duration = Duration::from_secs(60);
/// Serves each connection beside the others, until no more can come.
pub(in crate::server) async fn serve(mut connections: mpsc::Receiver<Greeted>, web: Web) {
    while let Some(connection) = connections.recv().await {
        tokio::spawn(exchange(connection, web.clone()));
    }
}

async fn exchange(connection: Greeted, web: Web) {
    let caller = connection.connect_info();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        web.clone().call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).keep_alive(false);
    let served = builder.serve_connection(TokioIo::new(connection), service);
    match tokio::time::timeout(WHOLE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => debug!(%problem, "an HTTP/1 connection ended"),
        Err(_) => debug!("an HTTP/1 connection took too long"),
    }
}
