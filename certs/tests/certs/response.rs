//! What answers Pebble when it looks: small listeners as proxies will be.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pointsman_certs::acme::{PROTOCOL, Proof, Prover, challenge_certificate};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;

/// Answers HTTP-01 (RFC 8555 §8.3).
#[derive(Clone, Default)]
pub(crate) struct Files(Arc<Mutex<HashMap<String, String>>>);

impl Files {
    pub(crate) async fn serve(at: (Ipv4Addr, u16)) -> Self {
        let listener = TcpListener::bind(at).await.expect("a listener");
        let files = Self::default();
        let served = files.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let files = served.clone();
                let answer = hyper::service::service_fn(move |request| {
                    let answer = files.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        files
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().expect("whole").is_empty()
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let shown = self.0.lock().expect("whole");
        let mut answer = Response::new(String::new());
        match shown.get(request.uri().path()) {
            Some(text) => answer.body_mut().clone_from(text),
            None => *answer.status_mut() = StatusCode::NOT_FOUND,
        }
        answer
    }
}

fn path(proof: &Proof) -> String {
    format!("/.well-known/acme-challenge/{}", proof.token)
}

#[tonic::async_trait]
impl Prover for Files {
    async fn show(&self, proof: &Proof) -> Result<(), String> {
        self.0.lock().expect("whole").insert(path(proof), proof.key_authorization.clone());
        Ok(())
    }

    async fn withdraw(&self, proof: &Proof) {
        self.0.lock().expect("whole").remove(&path(proof)).expect("shown");
    }
}

/// Answers TLS-ALPN-01 (RFC 8737).
#[derive(Clone, Debug, Default)]
pub(crate) struct Handshakes(Arc<Mutex<HashMap<String, Arc<CertifiedKey>>>>);

impl Handshakes {
    pub(crate) async fn serve(at: (Ipv4Addr, u16)) -> Self {
        let listener = TcpListener::bind(at).await.expect("a listener");
        let handshakes = Self::default();
        let resolver = Arc::new(handshakes.clone());
        let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(acceptor.accept(stream));
            }
        });
        handshakes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().expect("whole").is_empty()
    }
}

impl ResolvesServerCert for Handshakes {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().expect("whole").get(hello.server_name()?).cloned()
    }
}

#[tonic::async_trait]
impl Prover for Handshakes {
    async fn show(&self, proof: &Proof) -> Result<(), String> {
        let made = challenge_certificate(&proof.host, &proof.key_authorization).map_err(|error| error.to_string())?;
        self.0.lock().expect("whole").insert(proof.host.to_string(), made);
        Ok(())
    }

    async fn withdraw(&self, proof: &Proof) {
        self.0.lock().expect("whole").remove(proof.host.as_str()).expect("shown");
    }
}
