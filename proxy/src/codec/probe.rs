//! One health check: a connection, or a GET in the endpoint's own protocol. Runs on the admin runtime.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::health::Check;
use crate::snapshot::Protocol;

/// Asks; the error says in words what was wrong. Its deadline is the caller's.
pub(crate) async fn ask(check: &Check) -> Result<(), String> {
    let said = |error: String| format!("no connection: {error}");
    let stream = TcpStream::connect(check.address).await.map_err(|error| said(error.to_string()))?;
    let Some(tls) = &check.tls else {
        let address = check.address.to_string();
        return ask_through(check, stream, format!("http://{address}"), &address).await;
    };
    // Verified anew each time, with no session resumed: a certificate that has expired shows here first.
    let mut stream = tls.connector.connect(stream).await.map_err(said)?;
    if check.path.is_none() {
        // It is verified already; a proper end only spares its log.
        let _ = stream.shutdown().await;
        return Ok(());
    }
    let authority = tls.connector.authority();
    ask_through(check, stream, format!("https://{authority}"), &authority).await
}

async fn ask_through<S>(check: &Check, stream: S, origin: String, host: &str) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(path) = &check.path else { return Ok(()) };
    let said = |error: hyper::Error| format!("no answer: {error}");
    let request = Request::get(match check.protocol {
        Protocol::Http1 => path.to_string(),
        Protocol::Http2 => origin + path,
    });
    let mut request = request
        .header(http::header::HOST, host)
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
            request.headers_mut().remove(http::header::HOST);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(said)?;
            let running = AbortOnDrop(tokio::spawn(async move { drop(connection.await) }));
            let answer = sender.send_request(request).await.map_err(said)?;
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
