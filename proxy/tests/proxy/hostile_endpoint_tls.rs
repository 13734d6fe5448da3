//! Endpoints that are not who they must be, or speak no TLS as it should be: they get nothing of a request, and another
//! endpoint is asked where there is one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use api::fleet::{EndpointTls, HealthCheck, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::front::{Authority, Front, NAME, Offer, behind_tls, checked, secured, trust};
use crate::health::metric;
use crate::recorder::Recorder;
use crate::site;
use crate::support::{Client, HOST, TestProxy, Upstream, endpoints, hello, set, settings, until, weights, zone};
use crate::wire::Wire;

/// A proxy that waits for handshakes as long as a busy test machine may take for a good one.
async fn patient(folder: &std::path::Path) -> TestProxy {
    let mut settings = settings(folder, 1);
    settings.limits.connect = Duration::from_secs(2);
    TestProxy::with(settings).await
}

/// An endpoint that is not the right one.
struct Wrong {
    what: &'static str,
    address: SocketAddr,
    /// Connections that it was offered.
    asked: Box<dyn Fn() -> usize + Send>,
}

/// A server without TLS that says this to every connection once it got anything, and then closes or keeps it.
async fn saying(what: &'static str, bytes: &'static [u8], closes: bool) -> Wrong {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let accepted = Arc::<AtomicUsize>::default();
    let asked = accepted.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Relaxed);
            // Whatever the other side does.
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
            if !closes {
                kept.push(stream);
            }
        }
    });
    Wrong { what, address, asked: Box::new(move || asked.load(Relaxed)) }
}

/// What an endpoint may be instead of the right one, where HTTP/1.1 or HTTP/2 is asked for.
async fn wrong_ones(protocol: Protocol, authority: &Authority, behind: &Recorder) -> Vec<Wrong> {
    let alpn: &[&str] = if protocol == Protocol::H1Tls { &["http/1.1"] } else { &["h2"] };
    let other: &[&str] = if protocol == Protocol::H1Tls { &["h2"] } else { &["http/1.1"] };
    let good = Offer::of(alpn);
    let mut offers: Vec<(&str, TlsAcceptor)> = vec![
        ("another authority", Authority::new().acceptor(good)),
        ("expired", authority.acceptor(Offer { expired: true, ..good })),
        ("another name", authority.acceptor(Offer { name: "other.internal", ..good })),
        ("a name within", authority.acceptor(Offer { name: "hello.hello.internal", ..good })),
        ("another protocol", authority.acceptor(Offer { alpn: other, ..good })),
    ];
    if protocol == Protocol::H2Tls {
        offers.push(("no ALPN", authority.acceptor(Offer { alpn: &[], ..good })));
    }
    let mut all = Vec::new();
    for (what, acceptor) in offers {
        let front = Front::before(behind.address, acceptor).await;
        all.push(Wrong { what, address: front.address, asked: Box::new(move || front.accepted()) });
    }
    let clear = behind.clone();
    all.push(Wrong { what: "in clear", address: behind.address, asked: Box::new(move || clear.connections().len()) });
    all.push(saying("silent", b"", false).await);
    all.push(saying("closing", b"", true).await);
    // A ServerHello's beginning.
    all.push(saying("closing in the middle", b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03abcdef", true).await);
    all.push(saying("standing still", b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03abcdef", false).await);
    all.push(saying("garbage", b"SSH-2.0-OpenSSH_9.2\r\n", false).await);
    all.push(saying("an alert", b"\x15\x03\x03\x00\x02\x02\x28", true).await);
    all
}

/// Whatever it met, the proxy serves an endpoint in clear, and nothing of its clients is left.
async fn is_as_before(proxy: &TestProxy) {
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    site::is_as_before(proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_an_endpoint_that_is_not_verified_gets_nothing_and_another_is_asked() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = patient(folder.path()).await;
    // Keeps every byte that comes through in clear, whichever front it stands behind.
    let recorder = Recorder::ok().await;
    for (protocol, spoken, alpn) in
        [(Protocol::H1Tls, Protocol::H1, "http/1.1"), (Protocol::H2Tls, Protocol::H2c, "h2")]
    {
        let upstream = Upstream::start("good", spoken).await;
        let good = Front::before(upstream.address, authority.acceptor(Offer::of(&[alpn]))).await.address;
        for Wrong { what, address, asked } in wrong_ones(protocol, &authority, &recorder).await {
            let before = asked();
            proxy.apply(behind_tls(protocol, &authority, &[address, good]));
            let mut client = Client::http1(proxy.http).await;
            // Until it was tried first: from then on it is passed over for a while.
            let mut tries = 0;
            while asked() == before {
                let secret = vec![hyper::body::Frame::data("secret".into())];
                let answer = client.post("/echo", "text/plain", secret).await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "secret"), "{what}");
                tries += 1;
                assert!(tries < 1_000, "{what} was never tried");
            }
            proxy.apply(behind_tls(protocol, &authority, &[address]));
            let answer = client.get(HOST, "/secret").await;
            assert_eq!((answer.status, answer.body.as_str()), (502, "The service cannot be reached\n"), "{what}");
            // The client's connection goes on, and is served as soon as there is somebody who may.
            proxy.apply(behind_tls(protocol, &authority, &[good]));
            assert_eq!(client.count(1).await["good"], 1, "{what}");
        }
    }
    let got = recorder.all();
    assert!(!got.contains("secret") && !got.contains("HTTP/"), "{got:?}");
    is_as_before(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_an_endpoint_is_who_its_one_uri_says_whatever_its_name() {
    let (folder, authority, other) = (tempfile::tempdir().expect("folder"), Authority::new(), Authority::new());
    let proxy = patient(folder.path()).await;
    let (id, trusted) = ("spiffe://example.com/hello", authority.pem.clone());
    for (protocol, spoken, alpn) in
        [(Protocol::H1Tls, Protocol::H1, &["http/1.1"]), (Protocol::H2Tls, Protocol::H2c, &["h2"])]
    {
        let upstream = Upstream::start("good", spoken).await;
        let good = Offer { uris: &[id], ..Offer::of(alpn) };
        let two = [id, "spiffe://example.com/other"];
        for (what, offer, authority, status) in [
            ("right", good, &authority, 200),
            ("right, TLS 1.2", Offer { version: &rustls::version::TLS12, ..good }, &authority, 200),
            ("of another name", Offer { name: "elsewhere.internal", ..good }, &authority, 200),
            ("no URI", Offer { uris: &[], ..good }, &authority, 502),
            ("another", Offer { uris: &two[1..], ..good }, &authority, 502),
            ("one that begins so", Offer { uris: &["spiffe://example.com/hello/x"], ..good }, &authority, 502),
            ("two", Offer { uris: &two, ..good }, &authority, 502),
            ("twice the same", Offer { uris: &[id, id], ..good }, &authority, 502),
            ("another authority", good, &other, 502),
            ("expired", Offer { expired: true, ..good }, &authority, 502),
        ] {
            let front = Front::before(upstream.address, authority.acceptor(offer)).await;
            let tls = EndpointTls { spiffe_id: id.into(), ..trust(&trusted, NAME) };
            proxy.apply(set(vec![
                zone(),
                secured("hello/staging", protocol, Some(tls)),
                weights("hello/staging", &[(1, 1)]),
                endpoints("hello/staging", 1, &[front.address]),
            ]));
            let answer = Client::http1(proxy.http).await.get(HOST, "/").await;
            assert_eq!(answer.status, status, "{what}, {protocol:?}");
            if status == 200 {
                assert_eq!(front.shaken()[0].sni.as_deref(), Some(NAME), "{what}");
            }
        }
    }
    is_as_before(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_those_who_wait_for_one_handshake_fail_with_it() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = patient(folder.path()).await;
    let Wrong { address, asked, .. } = saying("silent", b"", false).await;
    proxy.apply(behind_tls(Protocol::H2Tls, &authority, &[address]));
    // All of them are there long before the first has waited in vain.
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = Client::http1(proxy.http).await;
        requests.spawn(async move { client.get(HOST, "/").await.status });
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|status| *status == 502), "{answers:?}");
    // One, or a few on a machine that stood still meanwhile; not one each.
    assert!((1..=4).contains(&asked()), "{} handshakes", asked());
    is_as_before(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_two_stages_at_one_address_share_neither_connection_nor_trust() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = patient(folder.path()).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let front = Front::before(upstream.address, authority.acceptor(Offer::of(&["http/1.1"]))).await;
    let stages: [(&str, Option<EndpointTls>, u16); 5] = [
        ("trusting", Some(trust(&authority.pem, NAME)), 200),
        ("same", Some(trust(&authority.pem, NAME)), 200),
        ("wary", Some(trust(&Authority::new().pem, NAME)), 502),
        ("misnamed", Some(trust(&authority.pem, "other.internal")), 502),
        ("plain", None, 502),
    ];
    let mut all = vec![zone()];
    for (service, tls, _) in &stages {
        let stage = format!("{service}/staging");
        let protocol = if tls.is_some() { Protocol::H1Tls } else { Protocol::H1 };
        all.push(secured(&stage, protocol, tls.clone()));
        all.push(weights(&stage, &[(1, 1)]));
        all.push(endpoints(&stage, 1, &[front.address]));
    }
    proxy.apply(set(all));
    let mut client = Client::http1(proxy.http).await;
    // Again and again: each finds the idle connections, the sessions and the failures of all others.
    for round in 0..3 {
        for (service, _, expected) in &stages {
            let answer = client.get(&format!("{service}.staging.example.com"), "/").await;
            assert_eq!(answer.status, *expected, "{service} in round {round}");
        }
    }
    assert_eq!((upstream.requests(), front.shaken().len()), (6, 1), "those who trust alike share a connection");
    drop(client);
    is_as_before(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_an_answer_that_is_cut_within_tls_is_never_taken_for_whole() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = patient(folder.path()).await;
    let acceptor = authority.acceptor(Offer::of(&["http/1.1"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            // The answer ends with the connection, which anybody on the way could end.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nwhole").await;
            let _ = stream.flush().await;
            if head[..length].windows(7).any(|part| part == b"/proper") {
                let _ = stream.shutdown().await;
            }
        }
    });
    proxy.apply(behind_tls(Protocol::H1Tls, &authority, &[address]));
    for (path, whole) in [("/proper", true), ("/cut", false), ("/proper", true)] {
        let mut wire = Wire::connect(proxy.http).await;
        wire.ask(&format!("GET {path} HTTP/1.1"), "").await;
        let answer = wire.answer().await.map(|answer| answer.text());
        assert_eq!(answer.as_deref(), whole.then_some("whole"), "{path}");
    }
    is_as_before(&proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_an_endpoint_behind_tls_is_verified() {
    let (folder, authority) = (tempfile::tempdir().expect("folder"), Authority::new());
    let proxy = patient(folder.path()).await;
    for (protocol, spoken, alpn) in
        [(Protocol::H1Tls, Protocol::H1, "http/1.1"), (Protocol::H2Tls, Protocol::H2c, "h2")]
    {
        let upstream = Upstream::start("good", spoken).await;
        let front = async |offer| Front::before(upstream.address, authority.acceptor(offer)).await;
        let offered = [alpn];
        let good = front(Offer::of(&offered)).await;
        let expired = front(Offer { expired: true, ..Offer::of(&offered) }).await;
        // With a request, and where the handshake is enough.
        for path in ["/healthz", ""] {
            let health = HealthCheck { http_path: path.into(), every_ms: 100, timeout_ms: 5_000, fall: 2, rise: 1 };
            let before = upstream.requests();
            proxy.apply(set(vec![
                zone(),
                checked("hello/staging", protocol, Some(trust(&authority.pem, NAME)), health),
                weights("hello/staging", &[(1, 1)]),
                endpoints("hello/staging", 1, &[good.address, expired.address]),
            ]));
            let mut looks = 0;
            while metric(&proxy, expired.address).await != Some(0) {
                looks += 1;
                assert!(looks < 3_000, "its certificate has expired: {alpn} {path:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(metric(&proxy, good.address).await, Some(1), "{alpn} {path:?}");
            if !path.is_empty() {
                until("it is asked", || upstream.requests() > before + 2).await;
                let (uri, headers) = upstream.last();
                let host = headers.get("host").map_or(uri.host(), |host| host.to_str().ok());
                assert_eq!((uri.path(), host), ("/healthz", Some(NAME)), "{alpn}");
            }
            let resumed = good.shaken().iter().any(|shaken| shaken.kind == rustls::HandshakeKind::Resumed);
            assert!(!resumed, "each check looks at the certificate");
        }
    }
}
