//! What a certificate authority asks before it certifies a host: answered for exactly that, and nothing else of a host
//! shows.

use std::sync::Arc;

use api::fleet::{Challenge, Https, Protocol, Resource, Zone, challenge::Kind};
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client_certificates::refused;
use crate::site::is_as_before;
use crate::support::{Client, HOST, TestProxy, Upstream, hello, resource, settings};
use crate::tls::certificate;

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
const ANSWER: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI";

fn challenge(kind: Kind, host: &str) -> Resource {
    let (token, key_authorization) = (TOKEN.into(), ANSWER.into());
    let body = Challenge { kind: kind.into(), host: host.into(), token, key_authorization };
    let name = format!("{}/{host}", kind.as_str_name());
    Resource { schema: api::SCHEMA_SEALED, ..resource("challenge", &name, &body) }
}

/// A proxy whose zone is for https alone, with these challenges.
async fn start(folder: &std::path::Path, challenges: &[Resource]) -> (TestProxy, Upstream) {
    certs::install_provider();
    let ca = certs::development::DevelopmentCa::open_or_create(&folder.join("ca")).expect("authority");
    let any = "127.0.0.1:0".parse().expect("an address");
    let settings = proxy::Settings { https: Some(any), ..settings(&folder.join("data"), 1) };
    let proxy = TestProxy::with(settings).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.retain(|one| one.kind != "zone");
    let https = Some(Https { redirect_port: 443, hsts_seconds: 0 });
    let (environment, domain) = ("staging".to_owned(), "staging.example.com".to_owned());
    let zone = Zone { environment, domain, https, ..Zone::default() };
    state.upserts.extend([resource("zone", "staging.example.com", &zone), certificate(&ca)]);
    state.upserts.extend_from_slice(challenges);
    proxy.apply(state);
    (proxy, upstream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_in_clear_are_answered_at_their_host_and_path_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let unknown = "nobody.staging.example.com";
    let all =
        [challenge(Kind::Http01, HOST), challenge(Kind::Http01, unknown), challenge(Kind::TlsAlpn01, "tls.example")];
    let (proxy, upstream) = start(folder.path(), &all).await;
    let path = format!("/.well-known/acme-challenge/{TOKEN}");
    let mut clients = [Client::http1(proxy.http).await, Client::http2(proxy.http).await];
    for client in &mut clients {
        // Also of a host that does not exist: it shows nothing of that.
        for host in [HOST, unknown, "HELLO.staging.example.com.:80"] {
            let answer = client.get(host, &path).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, ANSWER), "{host}");
            assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
            assert_eq!(answer.headers["content-length"], ANSWER.len().to_string());
        }
        let head = client.request(HOST, &path).method("HEAD").body(crate::support::fed().1).expect("a request");
        let head = client.send(head).await.expect("answered");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        for (host, path) in [
            (HOST, "/.well-known/acme-challenge/"),
            (HOST, "/.well-known/acme-challenge/other"),
            (HOST, &format!("{path}/")),
            (HOST, &format!("{path}?x")),
            (HOST, &path.replace("acme", "ACME")),
            (HOST, &format!("/.{path}")),
            (HOST, &path.to_lowercase()),
            ("other.staging.example.com", &path),
        ] {
            assert_eq!(client.get(host, path).await.status, 308, "{host} {path}");
        }
        assert_eq!(client.get("tls.example", &path).await.status, 404);
        let post = client.request(HOST, &path).method("POST").header("content-length", "0");
        let post = post.body(crate::support::fed().1).expect("a request");
        assert_eq!(client.send(post).await.expect("answered").status, 308);
    }
    assert_eq!(upstream.requests(), 0);
    // Gone with the certificate's order.
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.push(challenge(Kind::TlsAlpn01, HOST));
    proxy.apply(state);
    assert_eq!(Client::http1(proxy.http).await.get(unknown, &path).await.status, 404);
    assert_eq!(Client::http1(proxy.http).await.get(HOST, &path).await.body, "r1");
}

/// What a handshake that offers these protocols leads to: the certificate that is shown, and the protocol.
async fn offer(proxy: &TestProxy, name: &str, protocols: &[&str]) -> std::io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let config = rustls::ClientConfig::builder().dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(crate::client_certificates::Anyone));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(proxy.https()).await.expect("connected");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let session = stream.get_ref().1;
    let leaf = session.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec();
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    if protocols == ["acme-tls/1"] {
        // It ends there, properly.
        assert_eq!(stream.read_to_end(&mut Vec::new()).await?, 0);
    }
    Ok((leaf, protocol))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_in_the_handshake_are_answered_for_their_host_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let all = [challenge(Kind::TlsAlpn01, HOST), challenge(Kind::Http01, "http.staging.example.com")];
    let (proxy, upstream) = start(folder.path(), &all).await;
    let (leaf, protocol) = offer(&proxy, HOST, &["acme-tls/1"]).await.expect("shaken");
    assert_eq!(protocol.as_deref(), Some(&b"acme-tls/1"[..]));
    // RFC 8737 §3: acmeIdentifier, critical, an OCTET STRING with the digest, and the one name.
    let digest = api::Digest::of(ANSWER.as_bytes());
    let identifier =
        [&b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff\x04\x22\x04\x20"[..], digest.as_bytes()].concat();
    assert!(leaf.windows(identifier.len()).any(|part| part == identifier), "{}", leaf.escape_ascii());
    let name = [&[0x30, 2 + HOST.len() as u8, 0x82, HOST.len() as u8], HOST.as_bytes()].concat();
    assert!(leaf.windows(name.len()).any(|part| part == name), "{}", leaf.escape_ascii());

    for name in ["other.staging.example.com", "http.staging.example.com", "nobody.example", "127.0.0.1"] {
        let error = offer(&proxy, name, &["acme-tls/1"]).await.expect_err(name);
        assert!(error.to_string().contains("NoApplicationProtocol"), "{name}: {error}");
    }
    // Who offers more is served as ever.
    let (shown, protocol) = offer(&proxy, HOST, &["h2", "acme-tls/1"]).await.expect("shaken");
    assert_eq!(protocol.as_deref(), Some(&b"h2"[..]));
    assert_ne!(shown, leaf);
    refused(&proxy, "no_application_protocol", 4).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    assert!(offer(&proxy, HOST, &["acme-tls/1"]).await.is_err());
    is_as_before(&proxy, upstream.address).await;
}
