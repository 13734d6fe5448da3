//! Endpoints behind TLS: both protocols, bodies and upgrades through it, and connections that are used again.

use api::fleet::Protocol;
use bytes::Bytes;
use hyper::body::Frame;
use rustls::HandshakeKind;
use std::sync::atomic::Ordering::Relaxed;

use crate::front::{Authority, Front, NAME, Offer, behind_tls};
use crate::reading::Reading;
use crate::recorder::{OK, Recorder};
use crate::support::{Client, HOST, TestProxy, Upstream, until};
use crate::wire::Wire;

/// The protocol, what the server behind TLS speaks, and its name in ALPN.
const WAYS: [(Protocol, Protocol, &str); 2] =
    [(Protocol::H1Tls, Protocol::H1, "http/1.1"), (Protocol::H2Tls, Protocol::H2c, "h2")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_carries_both_protocols_to_the_endpoint_that_was_named() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    for (protocol, spoken, alpn) in WAYS {
        let upstream = Upstream::start("r1", spoken).await;
        let front = Front::before(upstream.address, authority.acceptor(Offer::of(&["h2", "http/1.1"]))).await;
        proxy.apply(behind_tls(protocol, &authority, &[front.address]));
        for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
            let answer = client.get(HOST, "/").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "r1"), "{alpn}");
            let (uri, headers) = upstream.last();
            // What the client used is told; what the endpoint is reached by is in the request itself.
            assert_eq!(headers["x-forwarded-proto"], "http");
            if protocol == Protocol::H2Tls {
                assert_eq!((uri.scheme_str(), uri.authority().map(|host| host.as_str())), (Some("https"), Some(HOST)));
            } else {
                assert_eq!((uri.scheme_str(), &headers["host"]), (None, &HOST.parse().expect("a value")));
            }
        }
        let shaken = front.shaken();
        assert_eq!(shaken.len(), 1, "{shaken:?}");
        assert_eq!((shaken[0].sni.as_deref(), shaken[0].alpn.as_deref()), (Some(NAME), Some(alpn.as_bytes())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_without_alpn_is_http_1_1_and_an_address_can_be_verified() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let offer = Offer { name: "127.0.0.1", version, ..Offer::of(&[]) };
        let front = Front::before(upstream.address, authority.acceptor(offer)).await;
        let mut state = behind_tls(Protocol::H1Tls, &authority, &[front.address]);
        let tls = Some(crate::front::trust(&authority.pem, "127.0.0.1"));
        state.upserts[1] = crate::front::secured("hello/staging", Protocol::H1Tls, tls);
        proxy.apply(state);
        assert_eq!(Client::http1(proxy.http).await.get(HOST, "/").await.body, "r1");
        assert_eq!(front.shaken()[0].sni, None, "an address is not sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_carries_grpc_with_its_trailers() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let front = Front::before(upstream.address, authority.acceptor(Offer::of(&["h2"]))).await;
    proxy.apply(behind_tls(Protocol::H2Tls, &authority, &[front.address]));
    let mut client = Client::http2(proxy.http).await;
    for _ in 0..3 {
        let message = Frame::data(Bytes::from_static(b"\0\0\0\0\x05hello"));
        let answer = client.post("/call", "application/grpc", vec![message]).await;
        assert_eq!((answer.status, answer.body.len()), (200, 10));
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.trailers["x-checksum"], "abc");
    }
    assert_eq!(front.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_carries_large_bodies_both_ways() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    let large: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|n| b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8).collect();
    let text = String::from_utf8(large.clone()).expect("letters");
    for (protocol, spoken, alpn) in WAYS {
        let upstream = Upstream::start("r1", spoken).await;
        let front = Front::before(upstream.address, authority.acceptor(Offer::of(&[alpn]))).await;
        proxy.apply(behind_tls(protocol, &authority, &[front.address]));
        for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
            let pieces = large.chunks(100_000).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect();
            let answer = client.post("/echo", "text/plain", pieces).await;
            assert!(answer.status == 200 && answer.body == text, "{alpn}: {} of {}", answer.body.len(), text.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_connections_are_used_again_and_sessions_resumed() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let upstream = Recorder::answering(|head| match head.contains("/last") {
            true => OK.replace("200 OK\r\n", "200 OK\r\nconnection: close\r\n"),
            false => OK.to_owned(),
        })
        .await;
        let offer = Offer { version, ..Offer::of(&["http/1.1"]) };
        let front = Front::before(upstream.address, authority.acceptor(offer)).await;
        proxy.apply(behind_tls(Protocol::H1Tls, &authority, &[front.address]));
        let mut client = Client::http1(proxy.http).await;
        for _ in 0..50 {
            assert_eq!(client.get(HOST, "/").await.body, "ok");
        }
        assert_eq!(front.accepted(), 1, "fifty requests on one connection");
        for path in ["/last", "/last", "/"] {
            assert_eq!(client.get(HOST, path).await.body, "ok");
        }
        let kinds: Vec<_> = front.shaken().iter().map(|shaken| shaken.kind).collect();
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed], "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_ends_what_is_idle_as_tls_wants_it() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Recorder::ok().await;
    let front = Front::before(upstream.address, authority.acceptor(Offer::of(&["http/1.1"]))).await;
    proxy.apply(behind_tls(Protocol::H1Tls, &authority, &[front.address]));
    assert_eq!(Client::http1(proxy.http).await.get(HOST, "/").await.body, "ok");
    let seen = front.seen.clone();
    until("the idle connection is ended", || seen.ended.load(Relaxed) + seen.cut.load(Relaxed) == 1).await;
    assert_eq!(seen.cut.load(Relaxed), 0, "a server would take it for cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_carries_an_upgraded_connection() {
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Recorder::start(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        assert!(head.contains("upgrade: websocket"), "{head}");
        peer.send(SWITCH).await;
        loop {
            let byte = peer.bytes(1).await;
            if byte.is_empty() {
                return peer.send("last").await;
            }
            peer.send(byte.to_ascii_uppercase()).await;
        }
    })
    .await;
    let front = Front::before(upstream.address, authority.acceptor(Offer::of(&["http/1.1"]))).await;
    proxy.apply(behind_tls(Protocol::H1Tls, &authority, &[front.address]));
    let mut wire = Wire::connect(proxy.http).await;
    wire.ask("GET /chat HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n").await;
    assert_eq!(wire.head().await.expect("a head").0, 101);
    for text in ["hello", "again"] {
        wire.send(text).await;
        assert_eq!(wire.bytes(5).await, text.to_ascii_uppercase().as_bytes());
    }
    // The client ends its direction; the other goes on.
    wire.shut().await;
    assert_eq!(wire.rest().await, b"last");
    until("its end was told", || front.seen.ended.load(Relaxed) == 1).await;
}
