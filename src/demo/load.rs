//! Requests as clients send them: HTTP/1.1, HTTP/2 and gRPC over TLS, counted by the release that answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::exit::Failure;

/// Each client's pace: all together some 1,500 requests a second, which leaves a laptop usable.
const PAUSE: Duration = Duration::from_millis(3);
/// A request that takes longer counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
    Grpc,
}

/// Through what and for whom requests are sent; the same over HTTP and gRPC.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    /// An application's key.
    pub(super) api_key: String,
    /// A user's token.
    pub(super) token: String,
}

/// What a stranger is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) status: u16,
    /// All fields, in order, but for the request's id.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// `x-request-id`.
    pub(super) id: String,
}

/// Asks for a host without any credentials.
pub(super) async fn ask_as_stranger(address: SocketAddr, host: &str, authority_pem: &str) -> Result<Shown, Failure> {
    let (speech, counted) = (Speech::Http1, Arc::default());
    let tls = connector(authority_pem, speech)?;
    let client = Client { address, host: host.to_owned(), speech, tls, credentials: None, counted };
    let asked = async {
        let Connection::One(mut sender) = client.connect().await? else { return Err("no connection".to_owned()) };
        let answer = sender.send_request(client.request()).await.map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let id = head.headers.get("x-request-id").map(text).unwrap_or_default();
        let fields = head.headers.iter().filter(|(name, _)| *name != "x-request-id");
        let fields = fields.map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Shown { status: head.status.as_u16(), fields, body, id })
    };
    asked.await.map_err(|problem| Failure::refused(format!("{host}: {problem}")))
}

/// What came back, by release ("r1"); requests that nobody answered count under "none".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) requests: BTreeMap<String, u64>,
    pub(super) failed: BTreeMap<String, u64>,
    /// The first failures of each release, for people.
    pub(super) examples: Vec<String>,
}

/// Clients at work until dropped.
pub(super) struct Load {
    counted: Arc<Mutex<Counted>>,
    _clients: JoinSet<()>,
}

impl Load {
    /// Starts two clients of each kind at every proxy.
    pub(super) fn start(
        proxies: &[(String, SocketAddr)],
        host: &str,
        authority_pem: &str,
        credentials: &Credentials,
    ) -> Result<Self, Failure> {
        let counted = Arc::new(Mutex::new(Counted::default()));
        let mut clients = JoinSet::new();
        for (_, address) in proxies {
            for speech in [Speech::Http1, Speech::Http2, Speech::Grpc] {
                let client = Client {
                    address: *address,
                    host: host.to_owned(),
                    speech,
                    tls: connector(authority_pem, speech)?,
                    credentials: Some(credentials.clone()),
                    counted: counted.clone(),
                };
                clients.spawn(client.clone().run());
                clients.spawn(client.run());
            }
        }
        Ok(Self { counted, _clients: clients })
    }

    /// What was counted so far.
    pub(super) fn counted(&self) -> Counted {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counted {
    /// All requests.
    pub(super) fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// What was counted since an earlier state.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let less = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
            now.iter().map(|(release, count)| (release.clone(), count - before.get(release).unwrap_or(&0))).collect()
        };
        Self {
            requests: less(&self.requests, &earlier.requests),
            failed: less(&self.failed, &earlier.failed),
            examples: Vec::new(),
        }
    }

    fn count(&mut self, release: &str, problem: Option<String>) {
        *self.requests.entry(release.to_owned()).or_default() += 1;
        let Some(problem) = problem else { return };
        *self.failed.entry(release.to_owned()).or_default() += 1;
        let own = format!("{release}: ");
        if self.examples.iter().filter(|example| example.starts_with(&own)).count() < 5 {
            self.examples.push(own + &problem);
        }
    }
}

fn connector(authority_pem: &str, speech: Speech) -> Result<TlsConnector, Failure> {
    let unusable = |error: String| Failure::refused(format!("the development CA is not usable: {error}"));
    let authority =
        CertificateDer::from_pem_slice(authority_pem.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).map_err(|error| unusable(error.to_string()))?;
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let protocol: &[u8] = if speech == Speech::Http1 { b"http/1.1" } else { b"h2" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One client with one connection at a time.
#[derive(Clone)]
struct Client {
    address: SocketAddr,
    host: String,
    speech: Speech,
    tls: TlsConnector,
    /// None: a stranger.
    credentials: Option<Credentials>,
    counted: Arc<Mutex<Counted>>,
}

/// A connection that requests can be sent on.
enum Connection {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Client {
    async fn run(self) {
        let mut connection = None;
        loop {
            let (release, problem) = match tokio::time::timeout(PATIENCE, self.ask(&mut connection)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(problem)) => ("none".to_owned(), Some(problem)),
                Err(_) => ("none".to_owned(), Some(format!("no answer within {} s", PATIENCE.as_secs()))),
            };
            if release == "none" {
                connection = None;
            }
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).count(&release, problem);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends one request: which release answered, and what was wrong with the answer.
    async fn ask(&self, kept: &mut Option<Connection>) -> Result<(String, Option<String>), String> {
        // A connection that the proxy has closed in good order is replaced, as every client does.
        let ready = match kept {
            Some(Connection::One(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Two(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            *kept = Some(self.connect().await?);
        }
        let request = self.request();
        let answer = match kept {
            Some(Connection::One(sender)) => sender.send_request(request).await,
            Some(Connection::Two(sender)) => sender.send_request(request).await,
            None => return Err("no connection".into()),
        };
        self.judge(answer.map_err(|error| error.to_string())?).await
    }

    async fn connect(&self) -> Result<Connection, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        let _ = tcp.set_nodelay(true); // Only makes it slower.
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let tls = TokioIo::new(self.tls.connect(name, tcp).await.map_err(|error| error.to_string())?);
        if self.speech == Speech::Http1 {
            let (sender, connection) =
                hyper::client::conn::http1::handshake(tls).await.map_err(|error| error.to_string())?;
            tokio::spawn(async { drop(connection.await) });
            return Ok(Connection::One(sender));
        }
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), tls).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(async { drop(connection.await) });
        Ok(Connection::Two(sender))
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = match self.speech {
            Speech::Http1 => Request::get("/").header("host", &self.host).body(Full::default()),
            Speech::Http2 => {
                Request::get(format!("https://{}/", self.host)).version(Version::HTTP_2).body(Full::default())
            }
            Speech::Grpc => Request::post(format!("https://{}/hello.v1.Greeter/Greet", self.host))
                .version(Version::HTTP_2)
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                // GreetRequest { name: "you" } in its frame.
                .body(Full::from(&b"\0\0\0\0\x05\x0a\x03you"[..])),
        };
        if let (Ok(request), Some(Credentials { api_key, token })) = (&mut request, &self.credentials) {
            let fields = [("x-api-key", api_key.clone()), ("authorization", format!("Bearer {token}"))];
            for (name, value) in fields {
                request.headers_mut().insert(name, value.parse().expect("credentials are ASCII"));
            }
        }
        request.expect("the host was taken from a certificate")
    }

    async fn judge(&self, answer: Response<Incoming>) -> Result<(String, Option<String>), String> {
        let (head, body) = answer.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let release = text("x-release").unwrap_or_else(|| "none".into());
        let collected = body.collect().await.map_err(|error| error.to_string())?;
        if head.status.as_u16() >= 500 || release == "none" {
            return Ok((release, Some(format!("status {}", head.status.as_u16()))));
        }
        if self.speech != Speech::Grpc {
            return Ok((release, None));
        }
        let trailer =
            collected.trailers().and_then(|trailers| trailers.get("grpc-status")).and_then(|value| value.to_str().ok());
        let status = trailer.map(str::to_owned).or(text("grpc-status"));
        Ok((
            release,
            (status.as_deref() != Some("0")).then(|| format!("gRPC status {}", status.as_deref().unwrap_or("missing"))),
        ))
    }
}
