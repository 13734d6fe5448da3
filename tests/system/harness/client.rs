//! Requests as clients send them, over HTTP/1.1 and HTTP/2, in clear and over TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::HOST;

/// A request that takes longer counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Http1,
    Http2,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The release that answered, by its own word; empty: it was not one.
    pub(crate) release: String,
    pub(crate) body: String,
    pub(crate) pid: String,
    /// `x-request-id`.
    pub(crate) id: String,
    /// `www-authenticate`.
    pub(crate) challenge: String,
}

/// One client with one connection at a time.
pub(crate) struct Client {
    address: SocketAddr,
    host: String,
    speech: Speech,
    tls: Option<TlsConnector>,
    /// What every request carries besides its host.
    fields: Vec<(&'static str, String)>,
    kept: Option<Connection>,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// In clear.
    pub(crate) fn plain(address: SocketAddr, speech: Speech) -> Self {
        Self { address, host: HOST.to_owned(), speech, tls: None, fields: Vec::new(), kept: None }
    }

    /// Over TLS; trusts `authority` (PEM).
    pub(crate) fn tls(address: SocketAddr, speech: Speech, authority: &str) -> Self {
        Self { tls: Some(connector(authority, speech)), ..Self::plain(address, speech) }
    }

    pub(crate) fn to(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Has every request carry these, in place of what it carried before.
    pub(crate) fn by(mut self, key: Option<&str>, token: Option<&str>) -> Self {
        self.carry(key, token);
        self
    }

    /// The same from now on, on the same connection.
    pub(crate) fn carry(&mut self, key: Option<&str>, token: Option<&str>) {
        let token = token.map(|token| ("authorization", format!("Bearer {token}")));
        self.fields = key.map(|key| ("x-api-key", key.to_owned())).into_iter().chain(token).collect();
    }

    /// Sends a field with every request from now on.
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    /// Sends one request and reads the answer to its end.
    pub(crate) async fn get(&mut self) -> Result<Answer, String> {
        let answer = match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        if answer.is_err() {
            self.kept = None;
        }
        answer
    }

    /// Sends one request that has to be answered.
    pub(crate) async fn asks(&mut self) -> Answer {
        self.get().await.expect("answered")
    }

    /// How often each release answered `count` requests, all of which must succeed.
    pub(crate) async fn counts(&mut self, count: u64) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            let answer = self.asks().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            *counts.entry(answer.release).or_default() += 1;
        }
        counts
    }

    async fn ask(&mut self) -> Result<Answer, String> {
        // A connection that was closed in good order is replaced, as every client does.
        let ready = match &mut self.kept {
            Some(Connection::One(sender)) => sender.ready().await.is_ok(),
            Some(Connection::Two(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.kept = Some(self.connect().await?);
        }
        let request = self.request();
        let answer = match &mut self.kept {
            Some(Connection::One(sender)) => sender.send_request(request).await,
            Some(Connection::Two(sender)) => sender.send_request(request).await,
            None => return Err("no connection".into()),
        };
        read(answer.map_err(|error| format!("{error:?}"))?).await
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = match self.speech {
            Speech::Http1 => Request::get("/").header("host", &self.host),
            Speech::Http2 => Request::get(format!("https://{}/", self.host)).version(Version::HTTP_2),
        };
        for (name, value) in &self.fields {
            request = request.header(*name, value);
        }
        request.body(Full::default()).expect("a request")
    }

    async fn connect(&self) -> Result<Connection, String> {
        let tcp = TcpStream::connect(self.address).await.map_err(|error| format!("connecting: {error}"))?;
        let _ = tcp.set_nodelay(true); // Only makes it slower.
        let Some(tls) = &self.tls else { return handshake(self.speech, TokioIo::new(tcp)).await };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let tls = tls.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
        handshake(self.speech, TokioIo::new(tls)).await
    }
}

async fn handshake<T: Read + Write + Unpin + Send + 'static>(speech: Speech, io: T) -> Result<Connection, String> {
    if speech == Speech::Http1 {
        let (sender, connection) = http1::handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(async { drop(connection.await) });
        return Ok(Connection::One(sender));
    }
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(|error| error.to_string())?;
    tokio::spawn(async { drop(connection.await) });
    Ok(Connection::Two(sender))
}

async fn read(answer: Response<Incoming>) -> Result<Answer, String> {
    let (head, body) = answer.into_parts();
    let text = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let body = body.collect().await.map_err(|error| format!("the body broke off: {error:?}"))?.to_bytes();
    let (release, pid) = (text("x-release"), text("x-pid"));
    let (id, challenge) = (text("x-request-id"), text("www-authenticate"));
    let (status, body) = (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned());
    Ok(Answer { status, release, pid, id, challenge, body })
}

fn connector(authority: &str, speech: Speech) -> TlsConnector {
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).expect("an authority");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let protocol: &[u8] = if speech == Speech::Http1 { b"http/1.1" } else { b"h2" };
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// `count` requests at once on one HTTP/2 connection in clear: how often each release answered.
pub(crate) async fn burst(client: &mut Client, count: usize) -> BTreeMap<String, u64> {
    client.asks_nothing().await;
    let Some(Connection::Two(sender)) = &client.kept else { panic!("a burst needs HTTP/2") };
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (mut sender, request) = (sender.clone(), client.request());
        requests.spawn(async move {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            read(answer).await
        });
    }
    let mut counts = BTreeMap::new();
    for answer in requests.join_all().await {
        let answer = answer.expect("answered");
        assert_eq!(answer.status, 200, "{answer:?}");
        *counts.entry(answer.release).or_default() += 1;
    }
    counts
}

impl Client {
    /// Connects, if there is no connection yet.
    async fn asks_nothing(&mut self) {
        if self.kept.is_none() {
            self.kept = Some(self.connect().await.expect("connected"));
        }
    }
}
