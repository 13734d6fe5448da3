//! Requests over verified connections, which are kept for a while; bounded in time and size.
//!
//! Must not know: what is asked for, or who we are. Nothing follows redirects here.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use certs::call::Clear;
use certs::endpoint::{Application, Authorities, Connector};
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::body::Outgoing;
use super::error::Why;

const AGENT: &str = concat!("pointsman/", env!("CARGO_PKG_VERSION"));
/// For a connection with its handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// A head of an answer, and at most as much of a body at once, in each direction.
const BUFFER: usize = 64 * 1024;
/// Servers close idle connections after a minute or more: one that is younger is still there.
const IDLE: Duration = Duration::from_secs(30);
/// Most idle connections to one server.
const MOST_IDLE: usize = 8;
/// The slowest that anybody waits for, once it moves at all.
const LEAST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// Sends requests and keeps connections.
pub(super) struct Connections {
    authorities: Authorities,
    clear: Clear,
    /// The longest time in which nothing moves.
    silence: Duration,
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
}

struct Idle {
    sender: SendRequest<Outgoing>,
    since: Instant,
}

/// Scheme, host and port: who is meant, and who may be told a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    is_clear: bool,
    host: String,
    port: u16,
}

/// An answer whose body was not read yet.
pub(super) struct Answer {
    pub(super) head: http::response::Parts,
    body: Incoming,
    origin: Origin,
    sender: SendRequest<Outgoing>,
    /// What let us in: not to be shown, also where it comes back.
    pub(super) pass: Option<HeaderValue>,
}

// === impl Origin ===

impl Origin {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let is_clear = match uri.scheme_str()? {
            "https" => false,
            "http" => true,
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if is_clear { 80 } else { 443 });
        (!host.is_empty()).then(|| Self { is_clear, host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(authorities: Authorities, clear: Clear, silence: Duration) -> Self {
        Self { authorities, clear, silence, idle: Mutex::default() }
    }

    /// Whether a URL may be asked as it is.
    pub(super) fn may_ask(&self, uri: &Uri) -> bool {
        match Origin::of(uri) {
            Some(origin) if origin.is_clear => match self.clear {
                Clear::Never => false,
                Clear::OnLoopback => certs::call::is_loopback(uri),
                Clear::Anywhere => true,
            },
            origin => origin.is_some(),
        }
    }

    /// The scheme in which a host is asked: in clear where that is allowed.
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        let clear = format!("http://{host}/").parse::<Uri>();
        if clear.is_ok_and(|uri| self.may_ask(&uri)) { "http" } else { "https" }
    }

    /// Sends a request with an absolute URL and waits for the head of its answer.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; the other side may have done what was asked.
    pub(super) async fn send(&self, mut request: Request<Outgoing>) -> Result<Answer, Why> {
        let uri = request.uri().clone();
        let origin = Origin::of(&uri).filter(|_| self.may_ask(&uri));
        let origin = origin.ok_or_else(|| Why::Strange("it leads where it is not asked".to_owned()))?;
        let authority = uri.authority().expect("an origin has one").as_str();
        let host = HeaderValue::from_str(authority).map_err(|error| Why::Strange(error.to_string()))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().expect("a part of a URL");
        loop {
            let (mut sender, is_used) = match self.take(&origin) {
                Some(sender) => (sender, true),
                None => (self.open(&origin).await?, false),
            };
            let (size, moved) = (request.body().size(), request.body().moved());
            let pass = request.headers().get(AUTHORIZATION).cloned();
            let sent = self.watch(sender.try_send_request(request), size, &moved).await?;
            match sent {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    return Ok(Answer { head, body, origin, sender, pass });
                }
                // It was closed while nobody looked: nothing of the request has gone.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_used => request = unsent,
                    _ => return Err(Why::Cut(in_words(error.error()))),
                },
            }
        }
    }

    /// Waits as long as something moves, within reason.
    async fn watch<T>(&self, sent: impl Future<Output = T>, size: u64, moved: &AtomicU64) -> Result<T, Why> {
        tokio::pin!(sent);
        let last = Instant::now() + self.most_for(size);
        loop {
            let before = moved.load(Relaxed);
            match timeout(self.silence, &mut sent).await {
                Ok(answer) => return Ok(answer),
                Err(_) if moved.load(Relaxed) != before && Instant::now() < last => {}
                Err(_) => return Err(Why::TooSlow),
            }
        }
    }

    fn most_for(&self, bytes: u64) -> Duration {
        self.silence + Duration::from_secs(bytes / LEAST_BYTES_PER_SECOND)
    }

    fn take(&self, origin: &Origin) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(origin)?;
        kept.retain(|idle| idle.since.elapsed() < IDLE && idle.sender.is_ready());
        kept.pop().map(|idle| idle.sender)
    }

    fn keep(&self, origin: Origin, sender: SendRequest<Outgoing>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
            !kept.is_empty()
        });
        let kept = idle.entry(origin).or_default();
        if kept.len() < MOST_IDLE {
            kept.push(Idle { sender, since: Instant::now() });
        }
    }

    async fn open(&self, origin: &Origin) -> Result<SendRequest<Outgoing>, Why> {
        let lost = |why: String| match why.contains("invalid peer certificate") {
            // Somebody has to change something: who asks again hears the same.
            true => Why::Untrusted(why),
            false => Why::Unreachable(format!("{origin}: {why}")),
        };
        let opened = timeout(CONNECT, async {
            let stream = certs::call::connect(&origin.host, origin.port).await.map_err(|error| error.to_string())?;
            // A request's head and its body are two writes.
            let _ = stream.set_nodelay(true);
            if origin.is_clear {
                // A name says little: "localhost" is what the machine says that it is.
                let is_near = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
                if self.clear == Clear::OnLoopback && !is_near {
                    return Err("it is not on this machine, and is not asked in clear".to_owned());
                }
                return shake(stream).await;
            }
            let connector = Connector::new(&self.authorities, &origin.host, Application::Http1);
            let connector = connector.map_err(|error| error.to_string())?;
            shake(connector.connect(stream).await?).await
        });
        opened.await.map_err(|_| lost(format!("no connection within {CONNECT:?}")))?.map_err(lost)
    }

    /// The whole body of an answer, of at most so many bytes.
    pub(super) async fn read(&self, answer: Answer, most: usize) -> Result<(http::response::Parts, Bytes), Why> {
        let last = Instant::now() + self.most_for(most as u64);
        let mut read = BytesMut::new();
        let mut reading = Reading::new(answer);
        while let Some(piece) = reading.next(self, last).await? {
            if read.len() + piece.len() > most {
                return Err(Why::TooLarge { most: most as u64 });
            }
            read.extend_from_slice(&piece);
        }
        Ok((reading.end(self), read.freeze()))
    }

    /// A body of so many bytes, to be read piece by piece.
    pub(super) fn pieces(&self, answer: Answer, bytes: u64) -> (Reading, Instant) {
        (Reading::new(answer), Instant::now() + self.most_for(bytes))
    }
}

/// An answer whose body is being read.
pub(super) struct Reading(Answer);

impl Reading {
    fn new(answer: Answer) -> Self {
        Self(answer)
    }

    /// The next bytes of the body; none at its end. `last`: when everybody has waited long enough.
    pub(super) async fn next(&mut self, connections: &Connections, last: Instant) -> Result<Option<Bytes>, Why> {
        loop {
            if Instant::now() > last {
                return Err(Why::TooSlow);
            }
            let frame = timeout(connections.silence, self.0.body.frame()).await.map_err(|_| Why::TooSlow)?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame.map_err(|error| Why::Cut(in_words(&error)))?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Gives the connection back when its body is at its end.
    pub(super) fn end(self, connections: &Connections) -> http::response::Parts {
        let Answer { head, body, origin, sender, .. } = self.0;
        if body.is_end_stream() {
            connections.keep(origin, sender);
        }
        head
    }
}

/// Shakes hands in HTTP/1.1. The connection's task ends with its sender.
async fn shake<S>(stream: S) -> Result<SendRequest<Outgoing>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|error| error.to_string())?;
    // Whoever waits for an answer is told what became of it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// With what caused it: the library's own words say little.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
