//! HTTPS: the certificate comes with the snapshot, the protocol is agreed in the handshake.

use std::sync::Arc;
use std::time::SystemTime;

use api::fleet::{Certificate, Protocol, Resource};
use certs::development::DevelopmentCa;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::support::{HOST, TestProxy, Upstream, hello, resource, settings};

fn certificate(ca: &DevelopmentCa) -> Resource {
    let zone = "staging.example.com".parse().expect("a zone");
    let made = ca.wildcard(&zone, SystemTime::now()).expect("issued");
    let name = made.dns_names[0].clone();
    let body =
        Certificate { dns_names: made.dns_names.clone(), chain_der: made.chain_der.clone(), key_der: made.key_der };
    resource("certificate", &name, &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_serves_both_protocols_with_the_certificate_of_the_snapshot() {
    certs::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let ca = DevelopmentCa::open_or_create(&folder.path().join("ca")).expect("authority");
    let any = "127.0.0.1:0".parse().expect("an address");
    let proxy = TestProxy::with(proxy::Settings { https: Some(any), ..settings(&folder.path().join("data"), 1) }).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.push(certificate(&ca));
    proxy.apply(state);

    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("usable");
    for alpn in ["h2", "http/1.1"] {
        let mut config = rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let stream = TcpStream::connect(proxy.engine.bound().https.expect("asked for")).await.expect("connected");
        let name = ServerName::try_from(HOST).expect("a name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("trusted");
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
