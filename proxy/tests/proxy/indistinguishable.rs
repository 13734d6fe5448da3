//! Hidden is as not there: every byte and frame of the answers is compared, over every protocol and for every caller.
//!
//! What differs between any two answers, whoever they are for, is taken away first: the values of request ids, which have one
//! length. That the comparison would notice is shown with answers that leak.
//!
//! Main types: [`Seen`], an answer without what always differs; [`cases`], what is asked.

use api::fleet::Protocol;
use certs::development::DevelopmentCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{DATA, END_HEADERS, END_STREAM, Frame, Frames, HEADERS, RESET, block, frame};
use crate::gates::{Gates, HELLO, NOBODY, SECRET};
use crate::recorder::Recorder;
use crate::support::{set, settings};
use crate::tls::{certificate, roots_of, shaken};
use crate::wire::Wire;

/// Hosts that are not there, and stages that may not be known: to nobody of [`callers`].
const HIDDEN: [&str; 7] = [
    NOBODY,
    SECRET,
    "r1--secret.staging.example.com",
    "r7--secret.staging.example.com",
    "r1--nobody.staging.example.com",
    "nobody.elsewhere.example",
    "nobody",
];

/// Everything that an answer's reader sees, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen(Vec<String>);

impl Seen {
    /// Raw bytes of HTTP/1, ids taken away. `host`: of the same length for all.
    fn http1(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        Self(text.split_inclusive("\r\n").map(without_id).collect())
    }
}

/// A line, or a field; of an id its form alone is left.
fn without_id(line: &str) -> String {
    match line.split_once("x-request-id: ") {
        Some((before, id)) => {
            let form: String =
                id.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { '*' } else { c }).collect();
            format!("{before}x-request-id: {form}")
        }
        None => line.to_owned(),
    }
}

/// Fields of those who may not know of the stage: none, garbage, expired, good but not for this.
fn callers(gates: &Gates) -> Vec<String> {
    let expired = gates.issuer.token("alice", &["staff"], -600);
    let unknown = gates.issuer.signs(Some("never"), serde_json::json!({ "sub": "alice", "exp": 4_000_000_000_u64 }));
    vec![
        String::new(),
        "x-api-key: garbage\r\nauthorization: Bearer garbage\r\n".to_owned(),
        format!("x-api-key: {}\r\n", gates.key.text),
        gates.fields(&expired),
        gates.fields(&unknown),
        gates.fields(&gates.guest()),
        format!("authorization: Bearer {}\r\n", gates.guest()),
        "authorization: Bearer a\r\nauthorization: Bearer b\r\n".to_owned(),
    ]
}

/// Requests in HTTP/1, with `{host}` and `{fields}`.
fn cases() -> Vec<(&'static str, String)> {
    let head = |line: &str, more: &str| format!("{line}\r\nHost: {{host}}\r\n{{fields}}{more}\r\n");
    let close = "Connection: close\r\n";
    vec![
        ("GET", head("GET /x HTTP/1.1", close)),
        ("HEAD", head("HEAD /x HTTP/1.1", close)),
        ("OPTIONS", head("OPTIONS /x HTTP/1.1", close)),
        ("OPTIONS *", head("OPTIONS * HTTP/1.1", close)),
        (
            "preflight",
            head(
                "OPTIONS /x HTTP/1.1",
                &format!("Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n{close}"),
            ),
        ),
        ("page", head("GET /x HTTP/1.1", &format!("Origin: https://a.example\r\n{close}"))),
        ("health", head("GET /healthz HTTP/1.1", close)),
        ("POST", head("POST /x HTTP/1.1", &format!("Content-Length: 5\r\n{close}")) + "hello"),
        (
            "chunked",
            head("POST /x HTTP/1.1", &format!("Transfer-Encoding: chunked\r\n{close}")) + "5\r\nhello\r\n0\r\n\r\n",
        ),
        ("half a body", head("POST /x HTTP/1.1", "Content-Length: 5\r\n") + "he"),
        ("expects", head("POST /x HTTP/1.1", "Content-Length: 5\r\nExpect: 100-continue\r\n")),
        (
            "upgrade",
            head(
                "GET /x HTTP/1.1",
                "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            ),
        ),
        ("HTTP/1.0", head("GET /x HTTP/1.0", "")),
        ("kept HTTP/1.0", head("GET /x HTTP/1.0", "Connection: keep-alive\r\n")),
        (
            "gRPC",
            head("POST /a.B/C HTTP/1.1", &format!("Content-Type: application/grpc\r\nContent-Length: 0\r\n{close}")),
        ),
        (
            "gRPC-Web",
            head(
                "POST /a.B/C HTTP/1.1",
                &format!("Content-Type: application/grpc-web\r\nContent-Length: 0\r\n{close}"),
            ),
        ),
        (
            "bad grpc-timeout",
            head(
                "POST /a.B/C HTTP/1.1",
                &format!("Content-Type: application/grpc\r\ngrpc-timeout: garbage\r\nContent-Length: 0\r\n{close}"),
            ),
        ),
        (
            "gRPC health",
            head(
                "POST /grpc.health.v1.Health/Check HTTP/1.1",
                &format!("Content-Type: application/grpc\r\nContent-Length: 0\r\n{close}"),
            ),
        ),
    ]
}

/// The answer, as far as it comes: to its end, or until the client ends it.
async fn http1(gates: &Gates, request: &str, host: &str, fields: &str) -> Seen {
    let mut wire = Wire::connect(gates.proxy.http).await;
    wire.send(request.replace("{host}", host).replace("{fields}", fields)).await;
    let said = wire.head().await.expect("answered").1;
    wire.shut().await;
    let rest = wire.rest().await;
    Seen::http1(&[said.as_bytes(), &rest].concat())
}

async fn start(folder: &std::path::Path, upstream: &Recorder) -> Gates {
    Gates::start(settings(folder, 1), upstream.address, Protocol::H1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h47_indistinguishable_in_every_byte_of_http_1() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let gates = start(folder.path(), &upstream).await;
    gates.serves_staff().await;
    let before = upstream.count("GET ");
    for (place, fields) in callers(&gates).iter().enumerate() {
        for (name, request) in cases() {
            let unknown = http1(&gates, &request, NOBODY, fields).await;
            // The first time, and when it is known.
            for host in HIDDEN.into_iter().chain(HIDDEN) {
                assert_eq!(http1(&gates, &request, host, fields).await, unknown, "{name} of caller {place} at {host}");
            }
            assert!(unknown.0[0].contains(" 404 ") || unknown.0.concat().contains("grpc-status: 12"), "{unknown:?}");
        }
    }
    // Who may know of a stage and not call it gets the same, too.
    let guest = gates.fields(&gates.guest());
    for (name, request) in cases() {
        assert_eq!(
            http1(&gates, &request, HELLO, &guest).await,
            http1(&gates, &request, NOBODY, &guest).await,
            "{name}"
        );
    }
    assert_eq!(upstream.count("GET "), before, "nothing of it reached the upstream");
    gates.is_as_before().await;
}

/// Two requests on one HTTP/2 connection, and all frames of their streams, in order. The second head is told by what was said
/// in the first.
async fn http2(gates: &Gates, fields: &[(&[u8], &[u8])], data: &[u8]) -> Seen {
    let mut frames = Frames::connect(gates.proxy.http, &[]).await;
    let mut seen = Vec::new();
    for stream in [1, 3] {
        let flags = if data.is_empty() { END_STREAM | END_HEADERS } else { END_HEADERS };
        let mut bytes = frame(HEADERS, flags, stream, &block(fields));
        if !data.is_empty() {
            bytes.extend(frame(DATA, END_STREAM, stream, data));
        }
        frames.send_all(bytes).await;
        loop {
            let frame = frames.next().await.expect("a frame");
            if frame.stream != stream {
                continue;
            }
            seen.push(shown(&frame));
            if frame.flags & END_STREAM != 0 || frame.kind == RESET {
                break;
            }
        }
    }
    Seen(seen)
}

/// A frame in words: kind, flags, stream, and its bytes but for an id: of that, how many letters it has.
fn shown(frame: &Frame) -> String {
    let Frame { kind, flags, stream, payload } = frame;
    if *kind != HEADERS {
        return format!("{kind} {flags} {stream} {payload:02x?}");
    }
    let fields = representations(payload);
    let (id, others) = fields.split_last().expect("fields");
    format!("{kind} {flags} {stream} {others:02x?} {:02x?} {}", id.0, letters(id.1))
}

/// Letters, digits, hyphens and underscores of a string literal (RFC 7541 §5.2, appendix B: those have 5 to 8 bits).
fn letters(literal: &[u8]) -> usize {
    let (length, size) = number(literal, 7);
    if literal[0] & 0x80 == 0 {
        return length;
    }
    let bits: Vec<u8> = literal[size..].iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut rest, mut count) = (&bits[..], 0);
    let of = |bits: &[u8]| bits.iter().fold(0, |n, bit| n << 1 | u32::from(*bit));
    // The last byte is filled up with ones, and no letter is.
    while rest.len() >= 8 || rest.contains(&0) {
        let lasts = [(5, 0x9), (6, 0x2d), (7, 0x7b), (8, 0xfd)];
        let taken = lasts.iter().find(|(bits, last)| rest.len() >= *bits && of(&rest[..*bits]) <= *last);
        rest = &rest[taken.expect("a letter").0..];
        count += 1;
    }
    count
}

/// Fields of a head as they are written (RFC 7541 §6): what stands before the value, and the value.
fn representations(block: &[u8]) -> Vec<(&[u8], &[u8])> {
    let (mut fields, mut rest) = (Vec::new(), block);
    while let Some(first) = rest.first() {
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let (index, mut at) = number(rest, prefix);
        if prefix == 7 || prefix == 5 {
            fields.push((&rest[..at], &rest[..0]));
            rest = &rest[at..];
            continue;
        }
        if index == 0 {
            let (length, size) = number(&rest[at..], 7);
            at += size + length;
        }
        let (length, size) = number(&rest[at..], 7);
        fields.push((&rest[..at], &rest[at..at + size + length]));
        rest = &rest[at + size + length..];
    }
    fields
}

/// RFC 7541 §5.1: the number, and how many bytes it takes.
fn number(bytes: &[u8], prefix: u32) -> (usize, usize) {
    let most = (1 << prefix) - 1;
    let first = usize::from(bytes[0]) & most;
    if first < most {
        return (first, 1);
    }
    let (mut value, mut at) = (first, 1);
    loop {
        value += usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
        at += 1;
        if bytes[at - 1] & 0x80 == 0 {
            return (value, at);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h47_indistinguishable_in_every_frame_of_http_2() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let gates = start(folder.path(), &upstream).await;
    for fields in callers(&gates) {
        let fields: Vec<(&str, &str)> = fields.split("\r\n").filter_map(|line| line.split_once(": ")).collect();
        for (method, path, kind, data) in [
            ("GET", "/x", "", ""),
            ("HEAD", "/x", "", ""),
            ("OPTIONS", "/x", "", ""),
            ("POST", "/x", "", "hello"),
            ("POST", "/a.B/C", "application/grpc", "\0\0\0\0\0"),
            ("POST", "/a.B/C", "application/grpc-web", "\0\0\0\0\0"),
            ("POST", "/a.B/C", "application/grpc-web-text", "AAAAAAA="),
            ("POST", "/grpc.health.v1.Health/Check", "application/grpc", "\0\0\0\0\0"),
        ] {
            let mut seen = Vec::new();
            // The first time, and when it is known.
            for host in HIDDEN.into_iter().chain(HIDDEN) {
                let pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)];
                let mut all: Vec<(&[u8], &[u8])> =
                    pseudo.iter().chain(&fields).map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
                if !kind.is_empty() {
                    all.push((b"content-type", kind.as_bytes()));
                }
                seen.push(http2(&gates, &all, data.as_bytes()).await);
            }
            assert!(seen.iter().all(|one| *one == seen[0]), "{method} {path} {kind}: {seen:#?}");
        }
    }
    gates.is_as_before().await;
}

/// What a handshake shows to a client that asks for a name: certificate, protocol, version and suite; and what is answered
/// then.
async fn over_tls(https: std::net::SocketAddr, roots: &rustls::RootCertStore, host: &str, alpn: &str) -> Seen {
    let mut stream = shaken(https, roots.clone(), alpn, host).await;
    let shown = {
        let (_, tls) = stream.get_ref();
        let chain: Vec<&[u8]> = tls.peer_certificates().expect("a certificate").iter().map(|one| &**one).collect();
        let (version, suite) = (tls.protocol_version(), tls.negotiated_cipher_suite());
        format!("{chain:02x?} {:?} {version:?} {suite:?}", tls.alpn_protocol())
    };
    if alpn == "h2" {
        return Seen(vec![shown]);
    }
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer and a proper end");
    let mut seen = Seen::http1(&answer);
    seen.0.push(shown);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h47_indistinguishable_in_the_handshake() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    certs::install_provider();
    let ca = DevelopmentCa::open_or_create(&folder.path().join("ca")).expect("authority");
    let any = "127.0.0.1:0".parse().expect("an address");
    let https = proxy::Settings { https: Some(any), ..settings(&folder.path().join("data"), 1) };
    let gates = Gates::start(https, upstream.address, Protocol::H1).await;
    gates.proxy.apply(set([gates.state(), vec![certificate(&ca)]].concat()));
    let (address, roots) = (gates.proxy.https(), roots_of(&ca));
    for alpn in ["http/1.1", "h2"] {
        let unknown = over_tls(address, &roots, NOBODY, alpn).await;
        for host in [SECRET, NOBODY, SECRET] {
            assert_eq!(over_tls(address, &roots, host, alpn).await, unknown, "{host} {alpn}");
        }
    }
    gates.is_as_before().await;
}

/// The comparison notices one header more, another order, another status, an id of another length, and an early end.
#[test]
fn indistinguishable_leaks_are_noticed() {
    let answer = |id: &str| {
        format!(
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 10\r\nx-request-id: {id}\r\n\
             connection: close\r\n\r\nNot found\n"
        )
    };
    let (one, other) = ("a".repeat(100), "Z-_9".repeat(25));
    let good = Seen::http1(answer(&one).as_bytes());
    assert_eq!(Seen::http1(answer(&other).as_bytes()), good, "ids differ always");
    for leak in [
        answer(&one).replace("\r\n\r\n", "\r\nvary: origin\r\n\r\n"),
        answer(&one).replace("404", "403"),
        answer(&one).replace("Not found\n", "Not here!\n"),
        answer(&one).replace("connection: close\r\n", ""),
        answer(&one).replacen(
            "content-type: text/plain; charset=utf-8\r\ncontent-length: 10",
            "content-length: 10\r\ncontent-type: text/plain; charset=utf-8",
            1,
        ),
        answer(&"a".repeat(32)),
        answer(&one)[..60].to_owned(),
    ] {
        assert_ne!(Seen::http1(leak.as_bytes()), good, "{leak}");
    }
}
