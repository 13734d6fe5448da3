//! Every limit from both sides: just below it passes, just above it the answer says which one it was.

use std::time::Duration;

use api::fleet::Protocol;

use crate::frames::{END_STREAM, Ended, Frames, PING, SETTINGS, frame, request};
use crate::reading::Reading;
use crate::recorder::{OK, Recorder};
use crate::site::Site;
use crate::support::{Client, HOST, TestProxy, fed, hello, raw, zone};
use crate::wire::Wire;

const URI: (u16, &str) = (414, "The target is longer than 8 KiB\n");
const HEAD: (u16, &str) = (431, "The head has more than 32 KiB or 100 fields\n");
const HOST_NAME: (u16, &str) = (400, "The host is longer than 255 bytes\n");
const TRAILERS: (u16, &str) = (431, "The trailers have more than 8 KiB or 32 fields\n");
const EXTENSIONS: (u16, &str) = (400, "The chunk extensions have more than 1 KiB\n");
const PASSES: (u16, &str) = (200, "ok");

fn get(target: &str, host: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

/// A value that makes a head of `size` bytes of path, names and values, 4 on top for each field.
fn value(size: usize) -> String {
    "v".repeat(size - "/".len() - "host".len() - HOST.len() - "x".len() - 8)
}

#[tokio::test]
async fn limits_of_heads_and_bodies_in_http_1() {
    let site = Site::start(Recorder::ok().await).await;
    let path = |length: usize| format!("/{}", "p".repeat(length - 1));
    let one = |name: &str, length: usize| format!("{name}: {}\r\n", "v".repeat(length));
    let long = |labels: usize| format!("{}{}", "a.".repeat(labels), "staging.example.com");
    let extended = |length: usize| chunked(&format!("1;{}\r\nx\r\n1;a\r\ny\r\n0\r\n\r\n", "e".repeat(length - 3)));
    let trailed = |trailers: &str| chunked(&format!("1\r\nx\r\n0\r\n{trailers}\r\n"));
    let unknown = (404, "Not found\n");
    let table = [
        ("a target", get(&path(8192), HOST, ""), PASSES),
        ("a target", get(&path(8193), HOST, ""), URI),
        ("a target", get(&path(8100), HOST, ""), PASSES),
        ("a target", get(&path(60_000), HOST, ""), URI),
        ("a target without end", format!("GET {}", path(9_000)), URI),
        ("fields", get("/", HOST, &one("x", 1).repeat(99)), PASSES),
        ("fields", get("/", HOST, &one("x", 1).repeat(100)), HEAD),
        ("fields", get("/", HOST, &one("x", 1).repeat(2_000)), HEAD),
        ("a head", get("/", HOST, &format!("x: {}\r\n", value(32 * 1024))), PASSES),
        ("a head", get("/", HOST, &format!("x: {}\r\n", value(32 * 1024 + 1))), HEAD),
        ("a head", get("/", HOST, &one("x", 500).repeat(64)), PASSES),
        ("a head", get("/", HOST, &one("x", 500).repeat(65)), HEAD),
        ("a head", get("/", HOST, &one("x", 100_000)), HEAD),
        ("a head without end", format!("GET / HTTP/1.1\r\nx: {}", "v".repeat(50_000)), HEAD),
        ("a host", get("/", &long(118), ""), unknown),
        ("a host", get("/", &format!("a{}", long(118)), ""), HOST_NAME),
        ("a host with a port", get("/", &format!("{}:65535", long(118)), ""), unknown),
        ("a host", get("/", &"a".repeat(30_000), ""), HOST_NAME),
        ("trailers", trailed(&one("x", 1).repeat(32)), PASSES),
        ("trailers", trailed(&one("x", 1).repeat(33)), TRAILERS),
        ("a trailer", trailed(&one("x", 8 * 1024 - 3)), PASSES),
        ("a trailer", trailed(&one("x", 8 * 1024)), TRAILERS),
        ("trailers without end", chunked(&format!("0\r\nx: {}", "v".repeat(9_000))), TRAILERS),
        ("chunk extensions", extended(1024), PASSES),
        ("chunk extensions", extended(1025), EXTENSIONS),
        ("a chunk extension without end", chunked(&format!("1;{}", "e".repeat(2_000))), EXTENSIONS),
    ];
    for (what, request, expected) in &table {
        let (what, expected) = (*what, *expected);
        let answer = site.says(request).await.unwrap_or_else(|| panic!("no answer: {what}"));
        assert_eq!((answer.status, answer.text().as_str()), expected, "{what} of {} bytes", request.len());
        let ends = answer.field("connection").as_deref() == Some("close");
        assert_eq!(ends, expected != PASSES && expected != unknown, "{what}: {}", answer.head);
    }
    for (reason, said) in [
        ("target_too_long", URI),
        ("head_too_large", HEAD),
        ("host_too_long", HOST_NAME),
        ("trailers", TRAILERS),
        ("chunk_extensions", EXTENSIONS),
    ] {
        let count = table.iter().filter(|(_, _, expected)| *expected == said).count();
        counted(&site.proxy, &format!("refused_total{{reason=\"{reason}\"}} {count}")).await;
    }
    site.settles().await;
}

/// A line of the metrics, which may come a moment after what it tells of.
async fn counted(proxy: &TestProxy, line: &str) {
    let mut said = String::new();
    for _ in 0..1_000 {
        said = raw(proxy.admin, b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        if said.lines().any(|one| one.strip_prefix("pointsman_proxy_") == Some(line)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{line} is not in {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_waiting_and_floods_are_counted_by_their_cause() {
    let short = |settings: &mut proxy::Settings| {
        settings.limits.first_bytes = Duration::from_millis(200);
        settings.limits.body = Duration::from_millis(500);
    };
    let large = Recorder::start(|mut peer| async move {
        peer.head().await;
        peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20)).await;
        peer.send(vec![b'x'; 64 << 20]).await;
    });
    let site = Site::with(large.await, short).await;
    let silent = site.wire().await;
    counted(&site.proxy, "cut_total{cause=\"first_bytes_too_slow\"} 1").await;
    drop(silent);
    // A frame of the first stream where the settings have to come.
    let broken = site.wire().await;
    broken.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x08\x06\0\0\0\0\x0112345678").await;
    counted(&site.proxy, "cut_total{cause=\"http2\"} 1").await;
    let unread = site.wire().await;
    unread.ask("GET / HTTP/1.1", "").await;
    counted(&site.proxy, "cut_total{cause=\"unread\"} 1").await;
    let mut client = Client::http2(site.proxy.http).await;
    let answer = client.open(client.request(HOST, "/").body(fed().1).expect("a request")).await.expect("answered");
    counted(&site.proxy, "cut_total{cause=\"unread_stream\"} 1").await;
    drop(answer);
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, _upstream, _) = crate::tls::https_with(folder.path(), zone()).await;
    let silent = Wire::connect(proxy.https()).await;
    counted(&proxy, "cut_total{cause=\"handshake_too_slow\"} 1").await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_heads_and_bodies_in_http_2() {
    let site = Site::start(Recorder::ok().await).await;
    let mut client = Client::http2(site.proxy.http).await;
    let path = |length: usize| format!("/{}", "p".repeat(length - 1));
    // Without a field for the host there is room for its name in the head.
    let largest = 32 * 1024 - "/".len() - "x".len() - 4;
    for (what, target, fields, length, expected) in [
        ("a target", path(8192), 0, 0, PASSES),
        ("a target", path(8193), 0, 0, URI),
        ("fields", path(1), 100, 1, PASSES),
        ("fields", path(1), 101, 1, HEAD),
        ("a head", path(1), 1, largest, PASSES),
        ("a head", path(1), 1, largest + 1, HEAD),
    ] {
        let mut request = client.request(HOST, &target);
        for _ in 0..fields {
            request = request.header("x", "v".repeat(length));
        }
        let request = request.body(fed().1).expect("a request");
        let answer = client.send(request).await.expect("answered");
        assert_eq!((answer.status, answer.body.as_str()), expected, "{what} of {length} bytes");
    }
    for (crumbs, expected) in [(100, PASSES), (101, HEAD)] {
        let mut request = client.request(HOST, "/");
        for n in 0..crumbs {
            request = request.header("cookie", format!("c{n}=1"));
        }
        let request = request.body(fed().1).expect("a request");
        let answer = client.send(request).await.expect("answered");
        assert_eq!((answer.status, answer.body.as_str()), expected, "{crumbs} crumbs of a cookie");
    }
    let seen = site.upstream.all();
    assert!(seen.contains("; c98=1; c99=1\r\n") && !seen.contains("c100=1"), "crumbs arrive as one field");
    for (fields, length, expected) in [(32, 1, PASSES), (33, 1, TRAILERS), (1, 8191, PASSES), (1, 8192, TRAILERS)] {
        let mut trailers = http::HeaderMap::new();
        for _ in 0..fields {
            trailers.append("x", "v".repeat(length).parse().expect("a value"));
        }
        let answer = client.post("/", "text/plain", vec![hyper::body::Frame::trailers(trailers)]).await;
        assert_eq!((answer.status, answer.body.as_str()), expected, "{fields} trailers of {length} bytes");
    }
    assert_eq!(client.get(HOST, "/").await.status, 200, "the connection goes on");
}

fn short(settings: &mut proxy::Settings) {
    let limits = &mut settings.limits;
    for limit in [&mut limits.first_bytes, &mut limits.head, &mut limits.body, &mut limits.idle, &mut limits.handshake]
    {
        *limit = Duration::from_millis(500);
    }
    limits.connect = Duration::from_millis(200);
}

/// A normal request meanwhile: nobody waits for a slow one.
async fn ends_with(site: &Site, mut wire: Wire, what: &str, expected: Option<(u16, &str)>) {
    site.serves(what).await;
    let answer = wire.answer().await;
    let said = answer.as_ref().map(|answer| (answer.status, answer.text()));
    assert_eq!(said.as_ref().map(|(status, text)| (*status, text.as_str())), expected, "{what}");
    assert!(wire.is_over().await, "{what}");
}

#[tokio::test]
async fn limits_of_time_end_what_stands_still() {
    let site = Site::with(Recorder::ok().await, short).await;
    let late = |text: &'static str| Some((408, text));
    let body = |fields: &str| format!("POST /slow HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    for (what, bytes, expected) in [
        ("silence", String::new(), None),
        ("half a preface", "PRI * HTTP/2.0\r\n".into(), None),
        ("half a line", "GET / HT".into(), late("The request's head did not come in time\n")),
        (
            "half a head",
            get("/", HOST, "x: y\r\n").trim_end().into(),
            late("The request's head did not come in time\n"),
        ),
        ("a head without a body", body("Content-Length: 5\r\n"), late("The request's body did not come in time\n")),
        ("half a body", body("Content-Length: 5\r\n") + "hel", late("The request's body did not come in time\n")),
        (
            "a body that is waited for",
            body("Content-Length: 5\r\nExpect: 100-continue\r\n"),
            late("The request's body did not come in time\n"),
        ),
        (
            "half a chunk",
            body("Transfer-Encoding: chunked\r\n") + "5\r\nhel",
            late("The request's body did not come in time\n"),
        ),
        (
            "half a chunk's size",
            body("Transfer-Encoding: chunked\r\n") + "5",
            late("The request's body did not come in time\n"),
        ),
        (
            "no last chunk",
            body("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n",
            late("The request's body did not come in time\n"),
        ),
        (
            "half of the trailers",
            body("Transfer-Encoding: chunked\r\n") + "0\r\nx: y\r\n",
            late("The request's body did not come in time\n"),
        ),
        ("an idle connection", get("/", HOST, ""), Some(PASSES)),
        (
            "an idle connection of HTTP/1.0",
            get("/", HOST, "Connection: keep-alive\r\n").replace("1.1", "1.0"),
            Some(PASSES),
        ),
    ] {
        let wire = site.wire().await;
        wire.send(bytes).await;
        ends_with(&site, wire, what, expected).await;
    }
    site.settles().await;
}

#[tokio::test]
async fn limits_of_time_count_from_a_heads_first_byte_and_between_two_of_a_body() {
    let site = Site::with(Recorder::ok().await, short).await;
    // A head that comes byte by byte is late however steadily it comes.
    let mut wire = site.wire().await;
    let head = get("/", HOST, &"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(90));
    let dripping = wire.drip(head.into_bytes());
    assert_eq!(wire.answer().await.expect("an answer").status, 408);
    dripping.abort();
    assert!(!site.upstream.all().contains("yyy"));
    // A body may take as long as it wants, when it goes on.
    let mut wire = site.wire().await;
    wire.ask("POST /steady HTTP/1.1", "Content-Length: 150\r\n").await;
    wire.drip(vec![b'x'; 150]).await.expect("sent");
    assert_eq!(wire.answer().await.expect("an answer").status, 200);
    drop(wire);
    site.settles().await;
}

#[tokio::test]
async fn hostile_h62_a_client_that_never_reads_is_cut_off() {
    const MUCH: usize = 16 * 1024 * 1024;
    let upstream = Recorder::start(|mut peer| async move {
        while let Some(asked) = peer.request().await {
            if asked.head.contains("/normal") {
                peer.send(OK).await;
                continue;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n")).await;
            peer.send(vec![b'x'; MUCH]).await;
        }
    })
    .await;
    let site = Site::with(upstream, short).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let wire = Wire::narrow(site.proxy.http).await;
        wire.ask("GET /much HTTP/1.1", "").await;
        stalled.push(wire);
        site.serves("a client that does not read").await;
    }
    crate::support::until("their answers are given up", || site.upstream.open() <= 1).await;
    for mut wire in stalled {
        assert!(wire.answer().await.is_none(), "it was cut");
    }
    site.serves("them").await;
    site.is_as_before().await;
}

#[tokio::test]
async fn limits_of_time_end_streams_that_stand_still() {
    let upstream = Recorder::start(|mut peer| async move {
        let events =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n2\r\n:\n\r\n";
        peer.head().await;
        peer.send(events).await;
        peer.ended().await;
    })
    .await;
    let change = |settings: &mut proxy::Settings| settings.limits.stream_idle = Duration::from_millis(500);
    let site = Site::with(upstream, change).await;
    let mut wire = site.wire().await;
    wire.ask("GET /events HTTP/1.1", "").await;
    assert_eq!(wire.head().await.expect("a head").0, 200);
    assert_eq!(wire.chunk().await.expect("an event"), b":\n");
    assert!(wire.is_over().await, "it was cut");
    site.settles().await;
}

#[tokio::test]
async fn limits_of_silence_end_http_2_connections_that_answer_no_ping() {
    // Longer than an answer takes on a machine that is merely slow.
    let change = |settings: &mut proxy::Settings| {
        (settings.limits.ping, settings.limits.ping_answer) = (Duration::from_millis(100), Duration::from_secs(3));
    };
    let site = Site::with(Recorder::ok().await, change).await;
    let (mut lively, mut silent) =
        (Frames::connect(site.proxy.http, &[]).await, Frames::connect(site.proxy.http, &[]).await);
    let mut pings = 0;
    while pings < 5 {
        let frame = lively.next().await.expect("it is not closed");
        if frame.kind == PING && frame.flags == 0 {
            lively.send(PING, 1, 0, &frame.payload).await;
            pings += 1;
        }
    }
    let mut asked = 0;
    while let Some(frame) = silent.next().await {
        asked += u32::from(frame.kind == PING);
    }
    assert_eq!(asked, 1, "asked once, and not again before the answer");
    lively.open(1, END_STREAM, &request("GET", b"/")).await;
    assert_eq!(lively.ended(1).await, Ended::Answered(200), "who answers goes on");
    drop(lively);
    site.is_as_before().await;
}

#[tokio::test]
async fn limits_of_silence_end_http_2_connections_of_endpoints_that_answer_no_ping() {
    // It takes everything, says its settings and then nothing any more.
    let upstream = Recorder::start(|mut peer| async move {
        peer.send(frame(SETTINGS, 0, 0, &[])).await;
        peer.ended().await;
    })
    .await;
    let change = |settings: &mut proxy::Settings| {
        (settings.limits.ping, settings.limits.ping_answer) = (Duration::from_millis(100), Duration::from_millis(500));
    };
    let site = Site::with(upstream, change).await;
    site.proxy.apply(hello(Protocol::H2c, &[(1, site.upstream.address, 1)]));
    let mut wire = site.wire().await;
    wire.ask("GET / HTTP/1.1", "").await;
    assert_eq!(wire.answer().await.expect("an answer, long before the deadline of a minute").status, 502);
}

#[tokio::test]
async fn limits_of_connecting_end_in_a_clear_answer() {
    // A queue that is full: the kernel drops what asks for more.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    socket.listen(0).expect("listens");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    let filling: Vec<_> = (0..4).map(|_| tokio::net::TcpStream::connect(address)).map(tokio::spawn).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let site = Site::with(Recorder::ok().await, short).await;
    site.proxy.apply(hello(Protocol::H1, &[(1, address, 1)]));
    let mut wire = site.wire().await;
    wire.ask("GET / HTTP/1.1", "").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (502, "The service cannot be reached\n"));
    filling.into_iter().for_each(|one| one.abort());
}
