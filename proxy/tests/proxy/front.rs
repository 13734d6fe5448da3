//! TLS before a server in clear, so that every server of the harness can be an endpoint behind TLS; and the authority
//! that certifies it.
//!
//! Main types: [`Authority`]; [`Front`], which remembers every handshake; [`behind_tls`], a stage that trusts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use api::fleet::{Backend, EndpointTls, HealthCheck, Protocol, Resource, ResourceSet, Stage};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::HandshakeKind;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{endpoints, resource, set, weights, zone};

/// The name that endpoints are verified by, where a test does not say otherwise.
pub(crate) const NAME: &str = "hello.internal";

/// Certifies servers.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// How a server's certificate is made, and what it offers.
#[derive(Clone, Copy)]
pub(crate) struct Offer<'a> {
    pub(crate) name: &'a str,
    /// Its validity ended an hour ago.
    pub(crate) expired: bool,
    /// Beside the name.
    pub(crate) uris: &'a [&'a str],
    pub(crate) alpn: &'a [&'a str],
    pub(crate) version: &'static rustls::SupportedProtocolVersion,
}

impl<'a> Offer<'a> {
    pub(crate) fn of(alpn: &'a [&'a str]) -> Self {
        Self { name: NAME, expired: false, uris: &[], alpn, version: &rustls::version::TLS13 }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        certs::install_provider();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("signed");
        let pem = certificate.pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn acceptor(&self, offer: Offer<'_>) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![offer.name.to_owned()]).expect("a name");
        let (hour, now) = (Duration::from_secs(3_600), SystemTime::now());
        params.not_before = (now - 2 * hour).into();
        params.not_after = if offer.expired { now - hour } else { now + hour }.into();
        params.subject_alt_names.extend(offer.uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))));
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let config = rustls::ServerConfig::builder_with_protocol_versions(&[offer.version]);
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).expect("usable");
        config.alpn_protocols = offer.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }
}

/// A handshake that succeeded.
#[derive(Debug, Clone)]
pub(crate) struct Shaken {
    pub(crate) kind: HandshakeKind,
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// See the module.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) shaken: Mutex<Vec<Shaken>>,
    /// Connections, whatever became of them.
    pub(crate) accepted: AtomicUsize,
    /// Those that the proxy ended as TLS wants it.
    pub(crate) ended: AtomicUsize,
    /// Those that it just closed.
    pub(crate) cut: AtomicUsize,
}

impl Front {
    /// Before a server, which listens in clear.
    pub(crate) async fn before(server: SocketAddr, acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::<Seen>::default();
        let shared = seen.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                stream.set_nodelay(true).expect("set");
                shared.accepted.fetch_add(1, Relaxed);
                tokio::spawn(pass(stream, server, acceptor.clone(), shared.clone()));
            }
        });
        Self { address, seen }
    }

    /// Handshakes so far that succeeded.
    pub(crate) fn shaken(&self) -> Vec<Shaken> {
        self.seen.shaken.lock().expect("whole").clone()
    }

    pub(crate) fn accepted(&self) -> usize {
        self.seen.accepted.load(Relaxed)
    }
}

async fn pass(stream: TcpStream, server: SocketAddr, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    {
        let session = stream.get_ref().1;
        seen.shaken.lock().expect("whole").push(Shaken {
            kind: session.handshake_kind().expect("shaken"),
            sni: session.server_name().map(str::to_owned),
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        });
    }
    let behind = TcpStream::connect(server).await.expect("it listens");
    behind.set_nodelay(true).expect("set");
    let ((mut from_proxy, mut to_proxy), (mut from_server, mut to_server)) = (split(stream), behind.into_split());
    let up = async {
        let ended = if copy(&mut from_proxy, &mut to_server).await.is_ok() { &seen.ended } else { &seen.cut };
        ended.fetch_add(1, Relaxed);
        // However the other side has ended it.
        let _ = to_server.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut from_server, &mut to_proxy).await;
        let _ = to_proxy.shutdown().await;
    };
    tokio::join!(up, down);
}

/// What a backend says of its endpoints.
pub(crate) fn trust(ca: &str, name: &str) -> EndpointTls {
    EndpointTls { ca_pem: ca.into(), server_name: name.into(), ..EndpointTls::default() }
}

/// A stage whose one release is spoken to through TLS; its health is never asked for while a test runs.
pub(crate) fn secured(stage: &str, protocol: Protocol, tls: Option<EndpointTls>) -> Resource {
    let health = HealthCheck { every_ms: 3_600_000, timeout_ms: 1_000, fall: 100, rise: 1, http_path: String::new() };
    checked(stage, protocol, tls, health)
}

/// The same with a check of its health.
pub(crate) fn checked(stage: &str, protocol: Protocol, tls: Option<EndpointTls>, health: HealthCheck) -> Resource {
    let (service, environment) = stage.split_once('/').expect("a stage's name");
    let backend = Backend { release: 1, component: "web".into(), protocol: protocol.into(), health: Some(health), tls };
    let (service, environment) = (service.into(), environment.into());
    let body = Stage { service, environment, backends: vec![backend], ..Stage::default() };
    Resource { schema: api::SCHEMA_ENDPOINT_TLS, ..resource("stage", stage, &body) }
}

/// `hello/staging` with one release at these addresses, verified by [`NAME`].
pub(crate) fn behind_tls(protocol: Protocol, authority: &Authority, addresses: &[SocketAddr]) -> ResourceSet {
    set(vec![
        zone(),
        secured("hello/staging", protocol, Some(trust(&authority.pem, NAME))),
        weights("hello/staging", &[(1, 1)]),
        endpoints("hello/staging", 1, addresses),
    ])
}
