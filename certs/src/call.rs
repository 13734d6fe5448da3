//! One request to a server elsewhere: HTTP/1.1 over a connection of its own, verified, bounded in time and size.
//!
//! Must not know: what is asked or answered. Nothing follows redirects: whoever asks has named whom it trusts.
//!
//! Main types: [`Caller`], and what it is told: [`Clear`], [`Excess`]; [`Unanswered`], why there is no answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

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
    /// Who may be asked in clear.
    pub clear: Clear,
    /// Which addresses may be asked. A name is looked up first: what it leads to counts.
    pub may_reach: fn(IpAddr) -> bool,
    /// For one request, from looking up the name to the last byte.
    pub deadline: Duration,
    /// The longest body of an answer that is taken.
    pub most_bytes: usize,
    /// What becomes of a longer one.
    pub excess: Excess,
}

/// Who may be asked without TLS, by an `http` URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    /// Nobody.
    Never,
    /// Servers on this machine: `http://127.0.0.1`, `http://[::1]` and `http://localhost`.
    OnLoopback,
    /// Everybody: for what is no secret, and whose answer is not trusted further than its way here.
    Anywhere,
}

/// What becomes of an answer with a longer body than is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It is an error.
    Refused,
    /// It ends there, and the connection with it.
    Cut,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// In words, with the server's name.
    pub why: String,
    /// Nothing was asked, so that it says nothing of the server: its name leads nowhere, or where may not be asked, or this
    /// machine has no descriptors, memory, ports or network for it.
    pub is_ours: bool,
    /// A connection was there, encrypted where it is to be: what follows is the doing of whoever answers there.
    pub is_reached: bool,
}

impl From<String> for Unanswered {
    fn from(why: String) -> Self {
        Self { why, is_ours: false, is_reached: false }
    }
}

impl Unanswered {
    fn ours(why: String) -> Self {
        Self { why, is_ours: true, is_reached: false }
    }
}

/// How far a request has come.
#[derive(Debug, Default)]
struct Way {
    /// Its server's name was looked up.
    found: AtomicBool,
    /// As [`Unanswered::is_reached`].
    reached: AtomicBool,
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
        self.ask(request).await.map_err(|unanswered| unanswered.why)
    }

    /// As [`Caller::call`], for whom it matters whose doing it is that there is no answer.
    ///
    /// # Errors
    /// As [`Caller::call`].
    ///
    /// # Cancel safety
    /// As [`Caller::call`].
    pub async fn ask<B>(&self, request: Request<B>) -> Result<Response<Bytes>, Unanswered>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let way = Way::default();
        let answer = tokio::time::timeout(self.deadline, self.exchange(request, &way)).await;
        let late = |_| Unanswered {
            // Whoever serves names did not answer.
            is_ours: !way.found.load(Relaxed),
            ..Unanswered::from(format!("{host} took longer than {:?}", self.deadline))
        };
        let answer = answer.map_err(late).flatten();
        answer.map_err(|unanswered| Unanswered { is_reached: way.reached.load(Relaxed), ..unanswered })
    }

    async fn exchange<B>(&self, mut request: Request<B>, way: &Way) -> Result<Response<Bytes>, Unanswered>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        let authority = uri
            .authority()
            .filter(|authority| is_plain(authority))
            .ok_or_else(|| "it is no URL with a host".to_owned())?;
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
            let stream = self.connect(authority, 443, way).await?;
            let stream = connector.connect(stream).await.map_err(about)?;
            way.reached.store(true, Relaxed);
            return Ok(self.carry(stream, request).await.map_err(about)?);
        }
        let may = match self.clear {
            Clear::Never => false,
            Clear::OnLoopback => is_loopback(&uri),
            Clear::Anywhere => uri.scheme_str() == Some("http"),
        };
        if !may {
            return Err(Unanswered::ours(format!("{authority} is not asked in clear")));
        }
        let stream = self.connect(authority, 80, way).await?;
        way.reached.store(true, Relaxed);
        // A name says little: "localhost" is what the machine says that it is.
        let is_near = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
        if self.clear == Clear::OnLoopback && !is_near {
            return Err(Unanswered::ours(format!("{authority} is not on this machine, and is not asked in clear")));
        }
        Ok(self.carry(stream, request).await.map_err(about)?)
    }

    /// To the first of its addresses that answers, of those that may be asked.
    async fn connect(&self, authority: &Authority, default_port: u16, way: &Way) -> Result<TcpStream, Unanswered> {
        let port = authority.port_u16().unwrap_or(default_port);
        let lost = |error: &std::io::Error| format!("{authority} cannot be reached: {error}");
        let found = addresses(host(authority), port).await.map_err(|error| Unanswered::ours(lost(&error)))?;
        way.found.store(true, Relaxed);
        let may: Vec<SocketAddr> = found.iter().copied().filter(|address| (self.may_reach)(address.ip())).collect();
        match found.first() {
            Some(first) if may.is_empty() => {
                Err(Unanswered::ours(format!("{authority} leads to {}, which is not asked", first.ip())))
            }
            _ => first_that_answers(&may)
                .await
                .map_err(|error| Unanswered { is_ours: is_ours(&error), ..Unanswered::from(lost(&error)) }),
        }
    }

    /// Sends one request over a fresh connection and reads its answer.
    async fn carry<B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<B>,
    ) -> Result<Response<Bytes>, String>
    where
        B: Body + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut builder = hyper::client::conn::http1::Builder::new();
        let shaken = builder.max_buf_size(MOST_BUFFERED).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
        let exchange = async move {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (parts, body) = answer.into_parts();
            Ok(Response::from_parts(parts, self.read(body).await?))
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The exchange says what it was.
            _ = connection => exchange.await,
        }
    }

    /// The whole body, or as much of it as is taken.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, String> {
        if self.excess == Excess::Refused {
            let whole = Limited::new(body, self.most_bytes).collect().await;
            return whole.map(|whole| whole.to_bytes()).map_err(|error| error.to_string());
        }
        let mut read = BytesMut::new();
        while read.len() < self.most_bytes {
            let Some(frame) = body.frame().await else { break };
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            read.extend_from_slice(&data[..data.len().min(self.most_bytes - read.len())]);
        }
        Ok(read.freeze())
    }
}

/// A connection to the first address of a name that answers. Its deadline is the caller's.
///
/// `host`: a name or an address, without brackets.
///
/// # Errors
/// The name leads nowhere, or nothing answers there.
pub async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    first_that_answers(&addresses(host, port).await?).await
}

/// Where a name leads. What ends in `.localhost` is this machine, whether or not its resolver knows (RFC 6761 §6.3).
async fn addresses(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    if host.to_ascii_lowercase().ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(lookup_host((host, port)).await?.collect())
}

/// The error is that of an address that was tried, if there is any: a machine without IPv6 says nothing of a server.
async fn first_that_answers(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut lost: Option<std::io::Error> = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if lost.as_ref().is_none_or(is_ours) => lost = Some(error),
            Err(_) => {}
        }
    }
    Err(lost.unwrap_or_else(|| std::io::Error::other("its name has no address")))
}

/// Whether a connection failed before anything left this machine.
fn is_ours(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        // No port of ours is left.
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        // A filter of ours.
        Errno::PERM,
        Errno::ACCESS,
    ];
    error.raw_os_error().is_some_and(|number| ours.contains(&Errno::from_raw_os_error(number)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_below_localhost_are_this_machine() {
        let own = [(Ipv4Addr::LOCALHOST, 8443).into(), (Ipv6Addr::LOCALHOST, 8443).into()];
        for name in ["a.localhost", "r2--hello.production.localhost", "A.LOCALHOST"] {
            assert_eq!(addresses(name, 8443).await.expect(name), own, "{name}");
        }
        assert_eq!(addresses("10.0.0.7", 1).await.expect("an address"), [SocketAddr::from(([10, 0, 0, 7], 1))]);
        assert!(addresses("a.invalid", 1).await.is_err());
        assert!(addresses("alocalhost.invalid", 1).await.is_err());
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_a_server() {
        use rustix::io::Errno;
        for (number, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::NETUNREACH, true),
            (Errno::ACCESS, true),
            (Errno::CONNREFUSED, false),
            (Errno::CONNRESET, false),
            (Errno::TIMEDOUT, false),
            (Errno::HOSTUNREACH, false),
        ] {
            assert_eq!(is_ours(&std::io::Error::from_raw_os_error(number.raw_os_error())), expected, "{number:?}");
        }
        assert!(!is_ours(&std::io::Error::other("no number")));
    }

    #[tokio::test]
    async fn who_was_not_asked_has_not_failed() {
        crate::install_provider();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port");
        let caller = |may_reach: fn(IpAddr) -> bool| Caller {
            authorities: Authorities::default(),
            clear: Clear::Anywhere,
            may_reach,
            deadline: Duration::from_secs(20),
            most_bytes: 1,
            excess: Excess::Cut,
        };
        let anywhere: fn(IpAddr) -> bool = |_| true;
        for (url, may_reach, expected) in [
            (format!("http://{closed}/"), anywhere, false),
            (format!("http://{closed}/"), |address| !address.is_loopback(), true),
            (format!("http://a.localhost:{}/", closed.port()), |address| !address.is_loopback(), true),
            ("http://a.invalid/".to_owned(), anywhere, true),
            ("ftp://127.0.0.1/".to_owned(), anywhere, true),
        ] {
            let request = Request::get(&url).body(String::new()).expect("a request");
            let unanswered = caller(may_reach).ask(request).await.expect_err(&url);
            assert_eq!(unanswered.is_ours, expected, "{url}: {unanswered:?}");
        }
    }
}
