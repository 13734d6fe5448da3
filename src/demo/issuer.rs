//! Somebody who says who people are: an issuer of tokens, as small as one can be (OpenID Connect Discovery 1.0, RFC 7517).
//!
//! Main type: [`Issuer`].

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use policies::credential::assertion::{Key, Signer, jwks};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::exit::Failure;

/// Whom its tokens are for.
pub(super) const AUDIENCE: &str = "pointsman-demo";
const KEY_ID: &str = "demo";
/// As long as anybody lets the demo run.
const LIFETIME_S: u64 = 12 * 3_600;

/// Issues tokens, and shows its keys, until dropped.
pub(super) struct Issuer {
    /// What `iss` says: where it is reached.
    pub(super) url: String,
    signer: Signer,
    _server: JoinSet<()>,
}

impl Issuer {
    /// Draws a key and listens on a free port.
    pub(super) async fn start() -> Result<Self, Failure> {
        let failed = |error| Failure::system("the demo's issuer cannot listen", &error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let key = Key::draw();
        let signer = Signer::new(&url(address), KEY_ID, &key.pkcs8).map_err(Failure::refused)?;
        let told = Arc::new(Told {
            configuration: json!({ "issuer": url(address), "jwks_uri": format!("{}/keys", url(address)) }).to_string(),
            keys: jwks(&[(KEY_ID.to_owned(), key.public)]),
        });
        let mut server = JoinSet::new();
        server.spawn(serve(listener, told));
        Ok(Self { url: url(address), signer, _server: server })
    }

    /// A token that says who somebody is, and to which groups they belong.
    pub(super) fn token(&self, subject: &str, groups: &[&str]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.signer.sign_json(&json!({ "iss": self.url, "aud": AUDIENCE, "sub": subject, "groups": groups, "iat": now,
                                       "exp": now + LIFETIME_S }))
    }
}

/// What it tells everybody.
struct Told {
    configuration: String,
    keys: String,
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

async fn serve(listener: TcpListener, told: Arc<Told>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let told = told.clone();
        let answer = service_fn(move |request| answer(told.clone(), request));
        connections.spawn(async move {
            // Whoever goes away in the middle asks again.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(told: Arc<Told>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/.well-known/openid-configuration" => (StatusCode::OK, told.configuration.clone()),
        "/keys" => (StatusCode::OK, told.keys.clone()),
        _ => (StatusCode::NOT_FOUND, "{}".to_owned()),
    };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(answer)
}
