//! HTTPS: the certificate comes with the snapshot, the protocol is agreed in the handshake.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::fleet::{Certificate, Protocol, Resource, Secret};
use certs::development::DevelopmentCa;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::site::is_as_before;
use crate::support::{HOST, TestProxy, Upstream, hello, resource, settings, zone};
use crate::wire::Wire;

pub(crate) fn certificate(ca: &DevelopmentCa) -> Resource {
    let zone = "staging.example.com".parse().expect("a zone");
    let made = ca.wildcard(&zone, SystemTime::now()).expect("issued");
    let name = made.dns_names[0].clone();
    let (dns_names, chain_der, key_der) = (made.dns_names.clone(), made.chain_der.clone(), made.key_der);
    let body = Certificate { dns_names, chain_der, key_der, ..Certificate::default() };
    resource("certificate", &name, &body)
}

/// The certificate of the zone without its key, and the key as it travels to one proxy.
pub(crate) fn sealed(ca: &DevelopmentCa, seal_key: &[u8]) -> (Resource, Secret) {
    let clear = certificate(ca);
    let mut body = Certificate::decode(&*clear.body).expect("a certificate");
    let key = std::mem::take(&mut body.key_der);
    let id = certs::secret::key_id(&body.chain_der[0]).expect("an id");
    let secret = certs::secret::seal(&id, &key, seal_key).expect("sealed");
    (Resource { schema: api::SCHEMA_SEALED, ..resource("certificate", &clear.name, &body) }, secret)
}

pub(crate) fn roots_of(ca: &DevelopmentCa) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("usable");
    roots
}

/// A proxy that serves HTTPS to those who trust `roots`.
async fn https(folder: &Path) -> (TestProxy, Upstream, rustls::RootCertStore) {
    https_with(folder, zone()).await
}

/// The same, with this zone.
pub(crate) async fn https_with(folder: &Path, zone: Resource) -> (TestProxy, Upstream, rustls::RootCertStore) {
    certs::install_provider();
    let ca = DevelopmentCa::open_or_create(&folder.join("ca")).expect("authority");
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut settings = proxy::Settings { https: Some(any), ..settings(&folder.join("data"), 1) };
    settings.limits.handshake = Duration::from_secs(1);
    let proxy = TestProxy::with(settings).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.retain(|resource| resource.kind != "zone");
    state.upserts.extend([zone, certificate(&ca)]);
    proxy.apply(state);
    (proxy, upstream, roots_of(&ca))
}

pub(crate) async fn shaken(
    https: SocketAddr,
    roots: rustls::RootCertStore,
    alpn: &str,
    name: &str,
) -> TlsStream<TcpStream> {
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(https).await.expect("connected");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("trusted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h05_a_host_other_than_the_one_of_the_handshake_is_misdirected() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = https(folder.path()).await;
    // A certificate for the whole zone is no leave to be served as anybody in it.
    for (host, status) in [
        (HOST, "200"),
        ("HELLO.staging.example.com.:443", "200"),
        ("other.staging.example.com", "421"),
        ("r1--hello.staging.example.com", "421"),
        ("nobody.example", "421"),
        ("127.0.0.1", "421"),
    ] {
        let mut stream = shaken(proxy.https(), roots.clone(), "http/1.1", HOST).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer and a proper end");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    // HTTP/2 clients use one connection for all names of its certificate: 421 tells them to open another.
    let stream = shaken(proxy.https(), roots, "h2", HOST).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("ready");
    tokio::spawn(connection);
    for (host, status) in [("other.staging.example.com", 421), (HOST, 200)] {
        let request = http::Request::get(format!("https://{host}/")).body(Empty::<bytes::Bytes>::new());
        let answer = sender.send_request(request.expect("a request")).await.expect("answered");
        assert_eq!(answer.status(), status, "{host}");
    }
    assert_eq!(upstream.requests(), 3);
    drop(sender);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_a_handshake_that_stands_still_or_is_none_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = https(folder.path()).await;
    let address = proxy.https();
    // The beginning of a ClientHello of 512 bytes.
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 32]].concat();
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for bytes in [&b""[..], &hello[..1], &hello, request.as_bytes(), &[0xff; 100], &[0x16; 70_000]] {
        let mut wire = Wire::connect(address).await;
        wire.send(bytes).await;
        // An alert, or nothing.
        assert!(!wire.rest().await.starts_with(b"HTTP"), "{}", bytes[..bytes.len().min(20)].escape_ascii());
    }
    assert_eq!(upstream.requests(), 0);
    let mut stream = shaken(proxy.https(), roots, "http/1.1", HOST).await;
    stream.write_all(request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_serves_both_protocols_with_the_certificate_of_the_snapshot() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = https(folder.path()).await;
    for alpn in ["h2", "http/1.1"] {
        let stream = shaken(proxy.https(), roots.clone(), alpn, HOST).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        let io = TokioIo::new(stream);
        let empty = Empty::<bytes::Bytes>::new();
        let answer = if alpn == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("ready");
            tokio::spawn(connection);
            let request = http::Request::get(format!("https://{HOST}/")).body(empty).expect("a request");
            sender.send_request(request).await.expect("answered")
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("ready");
            tokio::spawn(connection);
            let request = http::Request::get("/").header("host", HOST).body(empty).expect("a request");
            sender.send_request(request).await.expect("answered")
        };
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.expect("whole").to_bytes(), "r1");
        assert_eq!(upstream.last().1["x-forwarded-proto"], "https");
    }
}
