//! One health check: a TCP connection, or a GET in the endpoint's own protocol. Runs on the admin runtime.

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::health::Check;
use crate::snapshot::Protocol;

/// Asks; the error says in words what was wrong. Its deadline is the caller's.
pub(crate) async fn ask(check: &Check) -> Result<(), String> {
    let stream = TcpStream::connect(check.address).await.map_err(|error| format!("no connection: {error}"))?;
    let Some(path) = &check.path else { return Ok(()) };
    let said = |error: hyper::Error| format!("no answer: {error}");
    let uri = match check.protocol {
        Protocol::Http1 => path.to_string(),
        Protocol::Http2 => format!("http://{}{path}", check.address),
    };
    let request = http::Request::get(uri)
        .header(http::header::HOST, check.address.to_string())
        .header(http::header::USER_AGENT, "pointsman-health")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let io = TokioIo::new(stream);
    let answer = match check.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(said)?;
            let running = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
            let answer = sender.send_request(request).await.map_err(said)?;
            drop(running);
            answer
        }
        Protocol::Http2 => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(said)?;
            let running = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
            let (mut head, body) = request.into_parts();
            head.headers.remove(http::header::HOST);
            let answer = sender.send_request(http::Request::from_parts(head, body)).await.map_err(said)?;
            drop(running);
            answer
        }
    };
    if answer.status().is_success() { Ok(()) } else { Err(format!("GET {path} answered {}", answer.status().as_u16())) }
}

/// A check that runs into its deadline leaves nothing behind.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
