//! One request to a server elsewhere: HTTP/1.1 over a connection of its own, verified, bounded in time and size.
//!
//! Must not know: what is asked or answered. Nothing follows redirects: whoever asks has named whom it trusts.
//!
//! Main type: [`Caller`].

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::endpoint::{Application, Authorities, Connector};

/// RFC 8555 §6.1 wants one; others like one.
const AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
/// A head of an answer, and at most as much of its body at once.
const MOST_BUFFERED: usize = 64 * 1024;

/// Sends requests.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who is believed about servers.
    pub authorities: Authorities,
    /// Servers on this machine may be asked in clear: `http://127.0.0.1`, `http://[::1]` and `http://localhost`.
    pub clear_on_loopback: bool,
    /// For one request, from looking up the name to the last byte.
    pub deadline: Duration,
    /// The longest body of an answer that is taken.
    pub most_bytes: usize,
}

impl Caller {
    /// Sends one request and reads the whole answer, whatever its status. The request's URL is absolute.
    ///
    /// # Errors
    /// In words, with the server's name: it cannot be reached, is not whom it should be, took too long or said too much.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn call<B>(&self, request: Request<B>) -> Result<Response<Bytes>, String>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = tokio::time::timeout(self.deadline, self.exchange(request)).await;
        answer.map_err(|_| format!("{host} took longer than {} s", self.deadline.as_secs()))?
    }

    async fn exchange<B>(&self, mut request: Request<B>) -> Result<Response<Bytes>, String>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        let authority = uri.authority().filter(|authority| is_plain(authority)).ok_or("it is no URL with a host")?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().expect("a part of a URL");
        let about = |why: String| format!("{authority}: {why}");

        let host = host(authority);
        if uri.scheme_str() == Some("https") {
            let connector = Connector::new(&self.authorities, host, Application::Http1);
            let connector = connector.map_err(|error| error.to_string())?;
            let stream = connect(authority, 443).await?;
            let stream = connector.connect(stream).await.map_err(about)?;
            return carry(stream, request, self.most_bytes).await.map_err(about);
        }
        if !self.clear_on_loopback || !is_loopback(&uri) {
            return Err(format!("{authority} is not asked in clear"));
        }
        let stream = connect(authority, 80).await?;
        // A name says little: "localhost" is what the machine says that it is.
        if !stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
            return Err(format!("{authority} is not on this machine, and is not asked in clear"));
        }
        carry(stream, request, self.most_bytes).await.map_err(about)
    }
}

/// Whether a URL is plain HTTP to a host that is this machine, by what it says.
pub fn is_loopback(url: &Uri) -> bool {
    let named = url.authority().map(host).unwrap_or_default();
    let is_local = named == "localhost" || named.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme_str() == Some("http") && is_local
}

/// With a host and without credentials.
pub(crate) fn is_plain(authority: &Authority) -> bool {
    !authority.as_str().contains('@') && !authority.host().is_empty()
}

fn host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

async fn connect(authority: &Authority, default_port: u16) -> Result<TcpStream, String> {
    let port = authority.port_u16().unwrap_or(default_port);
    let stream = TcpStream::connect((host(authority), port)).await;
    stream.map_err(|error| format!("{authority} cannot be reached: {error}"))
}

/// Sends one request over a fresh connection and reads the whole answer.
async fn carry<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<B>,
    most_bytes: usize,
) -> Result<Response<Bytes>, String>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shaken =
        hyper::client::conn::http1::Builder::new().max_buf_size(MOST_BUFFERED).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, most_bytes).collect().await.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The exchange says what it was.
        _ = connection => exchange.await,
    }
}
