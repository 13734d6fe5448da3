//! One connection of a client, from the socket to the last answer: TLS, which protocol, and the protocol itself.
//!
//! Main function: [`serve`]. WebSocket and other upgrades do not pass yet: `upgrade` and `connection` end here, so that
//! an upgrade can never smuggle bytes past the checks.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connection::{Ahead, Connection, Flight, PREFACE, Watched, drive};
use super::{Inbound, Local, Outbound};
use crate::settings::Limits;

/// Above the head check's 32 KiB, so that most oversized heads are answered with our text and not the library's.
const HTTP_1_BUFFER: usize = 64 * 1024;
/// HTTP/2 counts 32 bytes per field on top (RFC 9113 §6.5.2).
const HEADER_LIST: u32 = 32 * 1024;
/// Streams per connection.
const STREAMS: u32 = 100;

/// Serves a connection until it ends. `exchange` answers one request.
pub(crate) async fn serve<X, F>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: Rc<Connection>,
    limits: &Limits,
    exchange: X,
) where
    X: Fn(Inbound, Flight) -> F + Clone + 'static,
    F: Future<Output = Outbound> + 'static,
{
    // It only fails on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return plain(stream, connection, limits, exchange).await;
    };
    let handshake = async {
        tokio::select! {
            shaken = tokio::time::timeout(limits.handshake, tls.accept(stream)) => shaken.ok(),
            () = connection.leaving() => None,
        }
    };
    match handshake.await {
        Some(Ok(stream)) => {
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                connection.set_http_2(false);
            }
            run(stream, Ahead::default(), connection, limits, exchange).await;
        }
        Some(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        None => {}
    }
}

async fn plain<X, F>(mut stream: TcpStream, connection: Rc<Connection>, limits: &Limits, exchange: X)
where
    X: Fn(Inbound, Flight) -> F + Clone + 'static,
    F: Future<Output = Outbound> + 'static,
{
    // Nothing of the protocol's state exists before the first byte: a connection that only waits stays small.
    let ahead = tokio::select! {
        ahead = tokio::time::timeout(limits.first_bytes, look_ahead(&mut stream)) => ahead,
        () = connection.leaving() => return,
    };
    let Ok(Ok(ahead)) = ahead else { return };
    if ahead.bytes == *PREFACE {
        connection.set_http_2(true);
    }
    run(stream, ahead, connection, limits, exchange).await;
}

/// Reads until the bytes are the preface or cannot become it.
async fn look_ahead(stream: &mut TcpStream) -> std::io::Result<Ahead> {
    let mut ahead = Ahead::default();
    while ahead.end < PREFACE.len() && ahead.bytes[..ahead.end] == PREFACE[..ahead.end] {
        match stream.read(&mut ahead.bytes[ahead.end..]).await? {
            0 if ahead.end == 0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            read => ahead.end += read,
        }
    }
    Ok(ahead)
}

async fn run<S, X, F>(stream: S, ahead: Ahead, connection: Rc<Connection>, limits: &Limits, exchange: X)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    X: Fn(Inbound, Flight) -> F + Clone + 'static,
    F: Future<Output = Outbound> + 'static,
{
    let io = TokioIo::new(Watched::new(stream, connection.clone(), ahead));
    let owner = connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = exchange(Inbound::new(request), Flight::begin(&owner));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    if connection.is_http_2() {
        let protocol = hyper::server::conn::http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIST)
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .serve_connection(io, service);
        drive(protocol, |protocol| protocol.graceful_shutdown(), &connection, limits).await;
    } else {
        let protocol = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .auto_date_header(false)
            .header_read_timeout(None)
            .max_buf_size(HTTP_1_BUFFER)
            .serve_connection(io, service);
        drive(protocol, |protocol| protocol.graceful_shutdown(), &connection, limits).await;
    }
}
