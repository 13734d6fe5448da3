//! A server between the client and Pebble that changes answers: what Pebble does not speak, and what a server should not
//! say.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pointsman_certs::acme::Settings;
use pointsman_certs::endpoint::{Application, Connector};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::pebble::Pebble;

/// What a client asked, and Pebble answered without an error.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    /// Of its JWS; null when it is not JSON.
    pub(crate) payload: Value,
}

/// Changes what Pebble answered.
type Change = dyn Fn(&Asked, &mut Response<Bytes>) + Send + Sync;

pub(crate) struct Front {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Front {
    pub(crate) async fn start(
        pebble: &Pebble,
        change: impl Fn(&Asked, &mut Response<Bytes>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((pebble.address, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (certificate, key) = pebble.server_certificate();
        let key = PrivatePkcs8KeyDer::from(key).into();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![CertificateDer::from(certificate)], key).expect("a certificate");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let host = pebble.address.to_string();
        let behind = Behind {
            address: pebble.directory_address(),
            connector: Connector::new(&pebble.trusted(), &host, Application::Http1).expect("a connector"),
            change: Arc::new(change),
            seen: Arc::default(),
        };
        let seen = behind.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = hyper::service::service_fn(move |request| {
                        let behind = behind.clone();
                        async move { Ok::<_, Infallible>(behind.answer(request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn settings(&self, pebble: &Pebble) -> Settings {
        Settings { directory: self.url("/dir"), ..pebble.settings() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// What was asked of a path, and answered without an error.
    pub(crate) fn seen(&self, path: &str) -> Vec<Asked> {
        self.seen.lock().expect("whole").iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }
}

#[derive(Clone)]
struct Behind {
    address: SocketAddr,
    connector: Connector,
    change: Arc<Change>,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Behind {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.expect("whole").to_bytes();
        let asked = Asked { path: parts.uri.path().to_owned(), payload: payload(&body) };
        // The Host stays, so that Pebble's URLs lead back here.
        parts.headers.remove(CONTENT_LENGTH);
        let stream = TcpStream::connect(self.address).await.expect("Pebble");
        let stream = self.connector.connect(stream).await.expect("verified");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
        tokio::spawn(connection);
        let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await.expect("an answer");
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(CONTENT_LENGTH);
        let mut answer = Response::from_parts(parts, body.collect().await.expect("whole").to_bytes());
        (self.change)(&asked, &mut answer);
        if answer.status().as_u16() < 400 {
            self.seen.lock().expect("whole").push(asked);
        }
        answer.map(Full::new)
    }
}

fn payload(body: &[u8]) -> Value {
    let jws: Value = serde_json::from_slice(body).unwrap_or_default();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(jws["payload"].as_str().unwrap_or_default()).unwrap_or_default();
    serde_json::from_slice(&payload).unwrap_or_default()
}

/// Changes an answer that is JSON.
pub(crate) fn edit(answer: &mut Response<Bytes>, change: impl FnOnce(&mut Value)) {
    if let Ok(mut value) = serde_json::from_slice(answer.body()) {
        change(&mut value);
        *answer.body_mut() = value.to_string().into();
    }
}

/// Answers something else.
pub(crate) fn replace(answer: &mut Response<Bytes>, status: u16, retry_after: Option<&str>, body: impl Into<Bytes>) {
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer.headers_mut().remove(RETRY_AFTER);
    if let Some(retry_after) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, retry_after.parse().expect("a value"));
    }
    *answer.body_mut() = body.into();
}
