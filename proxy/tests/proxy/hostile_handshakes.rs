//! Row h60: handshakes as a client of ours would never begin them, byte by byte where it matters.
//!
//! Main type: [`Hello`], a ClientHello in the making.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::client_certificates::{Anyone, counted};
use crate::reading::Reading;
use crate::site::is_as_before;
use crate::support::{HOST, TestProxy, Upstream, zone};
use crate::tls::https_with;
use crate::wire::Wire;

/// A ClientHello (RFC 8446 §4.1.2), by default one of TLS 1.3 that is served.
#[derive(Clone)]
struct Hello {
    legacy_version: u16,
    suites: Vec<u16>,
    /// In `supported_versions`; none: without the extension.
    versions: Vec<u16>,
    /// As `server_name`, whatever it is.
    name: Option<Vec<u8>>,
    /// Bytes of `padding`.
    padding: usize,
    more: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    fn new() -> Self {
        let name = Some(HOST.as_bytes().to_vec());
        Self {
            legacy_version: 0x0303,
            suites: vec![0x1301, 0x1302],
            versions: vec![0x0304],
            name,
            padding: 0,
            more: Vec::new(),
        }
    }

    fn named(name: &[u8]) -> Self {
        Self { name: Some(name.to_vec()), ..Self::new() }
    }

    /// Of a version before 1.3, with its suites.
    fn old(version: u16, suites: &[u16]) -> Self {
        Self { legacy_version: version, suites: suites.to_vec(), versions: Vec::new(), ..Self::new() }
    }

    fn extensions(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut put = |kind: u16, body: &[u8]| {
            all.extend_from_slice(&kind.to_be_bytes());
            all.extend_from_slice(&prefixed(body));
        };
        if let Some(name) = &self.name {
            put(0, &prefixed(&[&[0], &prefixed(name)[..]].concat()));
        }
        // Groups (X25519, P-256), signatures (ECDSA, RSA-PSS, RSA), and a share that is the base point.
        put(10, &prefixed(&[0, 29, 0, 23]));
        put(13, &prefixed(&[4, 3, 8, 4, 4, 1, 5, 3]));
        put(51, &prefixed(&[&[0, 29][..], &prefixed(&[9; 32])].concat()));
        if !self.versions.is_empty() {
            let versions: Vec<u8> = self.versions.iter().flat_map(|version| version.to_be_bytes()).collect();
            put(43, &[&[versions.len() as u8], &versions[..]].concat());
        }
        if self.padding > 0 {
            put(21, &vec![0; self.padding]);
        }
        for (kind, body) in &self.more {
            put(*kind, body);
        }
        all
    }

    /// The handshake message.
    fn message(&self) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend_from_slice(&[7; 32]);
        body.push(0);
        body.extend_from_slice(&prefixed(&suites));
        body.extend_from_slice(&[1, 0]);
        body.extend_from_slice(&prefixed(&self.extensions()));
        [&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }

    /// In records of at most so many bytes.
    fn records(&self, size: usize) -> Vec<u8> {
        self.message().chunks(size).flat_map(|piece| [&[22, 3, 1], &prefixed(piece)[..]].concat()).collect()
    }

    fn bytes(&self) -> Vec<u8> {
        self.records(16 * 1024)
    }
}

/// Behind its length, in two bytes.
fn prefixed(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [&length[..], body].concat()
}

/// How a server answers first.
#[derive(Debug, PartialEq, Eq)]
enum First {
    ServerHello,
    Alert(u8),
    Closed,
}

const PROTOCOL_VERSION: First = First::Alert(70);
const ILLEGAL_PARAMETER: First = First::Alert(47);
const HANDSHAKE_FAILURE: First = First::Alert(40);

async fn first(wire: &mut Wire) -> First {
    while wire.ahead().len() < 7 {
        if !wire.more().await {
            return First::Closed;
        }
    }
    match wire.ahead()[..] {
        [22, _, _, _, _, 2, ..] => First::ServerHello,
        [21, _, _, 0, 2, 2, alert, ..] => First::Alert(alert),
        ref other => panic!("neither: {}", other[..other.len().min(40)].escape_ascii()),
    }
}

async fn says(address: SocketAddr, bytes: &[u8]) -> First {
    let mut wire = Wire::connect(address).await;
    wire.send(bytes).await;
    first(&mut wire).await
}

async fn start(folder: &Path) -> (TestProxy, Upstream) {
    let (proxy, upstream, _) = https_with(folder, zone()).await;
    (proxy, upstream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_old_versions_and_weak_suites_are_refused_and_all_names_are_served() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    let https = proxy.https();
    // Those of TLS 1.2 that are good, and those that are not: CBC, RC4, 3DES, NULL, export, static RSA.
    let (good, weak) = ([0xc02b, 0xc02c, 0xcca9], [0xc009, 0xc007, 0xc008, 0xc006, 0x002f, 0x0035, 0x0003, 0x009c]);
    let longest = [&[b'a'; 63][..]; 4].join(&b'.');
    for (what, hello, expected) in [
        ("TLS 1.3", Hello::new(), First::ServerHello),
        ("TLS 1.2", Hello::old(0x0303, &good), First::ServerHello),
        ("SSL 3", Hello::old(0x0300, &weak), PROTOCOL_VERSION),
        ("TLS 1.0", Hello::old(0x0301, &[0xc009, 0xc00a]), PROTOCOL_VERSION),
        ("TLS 1.1", Hello::old(0x0302, &[0xc009, 0xc00a]), PROTOCOL_VERSION),
        ("1.0 and 1.1 by name", Hello { versions: vec![0x0301, 0x0302], ..Hello::new() }, PROTOCOL_VERSION),
        ("a version to come", Hello { versions: vec![0x0305], ..Hello::new() }, PROTOCOL_VERSION),
        ("weak suites", Hello::old(0x0303, &weak), HANDSHAKE_FAILURE),
        ("no suite", Hello { suites: vec![], ..Hello::new() }, First::Alert(50)),
        ("no name", Hello { name: None, ..Hello::new() }, First::ServerHello),
        ("unknown", Hello::named(b"nobody.example"), First::ServerHello),
        ("hidden", Hello::named(b"nobody.staging.example.com"), First::ServerHello),
        ("IPv4", Hello::named(b"127.0.0.1"), First::ServerHello),
        ("IPv6", Hello::named(b"::1"), First::ServerHello),
        ("253 bytes", Hello::named(&longest[..253]), First::ServerHello),
        ("255 bytes", Hello::named(&longest), ILLEGAL_PARAMETER),
        ("NUL", Hello::named(b"hello.staging.example.com\0.example"), ILLEGAL_PARAMETER),
        ("empty", Hello::named(b""), First::Alert(50)),
        ("blanks", Hello::named(b"hello staging"), ILLEGAL_PARAMETER),
    ] {
        assert_eq!(says(https, &hello.bytes()).await, expected, "{what}");
    }
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_a_hello_in_pieces_is_read_and_one_without_end_is_not() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    let https = proxy.https();
    // Byte by byte, in as many segments as the kernel makes of that.
    let mut wire = Wire::connect(https).await;
    for byte in Hello::new().bytes() {
        assert!(wire.send([byte]).await);
    }
    assert_eq!(first(&mut wire).await, First::ServerHello);
    let mut wire = Wire::connect(https).await;
    let long = Hello { padding: 3_000, ..Hello::new() }.bytes();
    for piece in long.chunks(long.len().div_ceil(1_000)) {
        assert!(wire.send(piece).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(first(&mut wire).await, First::ServerHello);
    // In many records, of which no one holds a whole anything.
    for size in [1, 3, 100] {
        assert_eq!(says(https, &Hello::new().records(size)).await, First::ServerHello, "{size}");
    }
    // As large as one can be, almost.
    let large = Hello { padding: 60_000, ..Hello::new() };
    assert_eq!(says(https, &large.bytes()).await, First::ServerHello);
    // More than one can be: announced, and sent.
    let mut announced = Hello::new().bytes();
    announced[6] = 1;
    assert_ne!(says(https, &announced).await, First::ServerHello);
    let mut sent = Hello { padding: 65_000, ..Hello::new() }.message();
    sent.resize(70_000, 0);
    let length = (sent.len() - 4) as u32;
    sent[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
    let records: Vec<u8> = sent.chunks(16_000).flat_map(|piece| [&[22, 3, 1], &prefixed(piece)[..]].concat()).collect();
    assert_ne!(says(https, &records).await, First::ServerHello);
    // Records without anything in them, and ones that are too long.
    let empty: Vec<u8> = [22, 3, 1, 0, 0].repeat(1_000);
    assert_ne!(says(https, &empty).await, First::ServerHello);
    assert_ne!(says(https, &[&[22, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat()).await, First::ServerHello);
    assert_eq!(upstream.requests(), 0);
    is_as_before(&proxy, upstream.address).await;
}

/// Sends so many bytes at a time, each piece for itself, and lets others run in between.
struct InPieces {
    stream: TcpStream,
    size: usize,
    has_waited: bool,
}

impl AsyncRead for InPieces {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for InPieces {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let size = self.size.min(bytes.len());
        Pin::new(&mut self.stream).poll_write(cx, &bytes[..size])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_a_whole_handshake_in_pieces_is_served() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = https_with(folder.path(), zone()).await;
    let mut served = 0;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        // Byte by byte, within each head of a record, and with a hello of two records in a thousand pieces.
        for (size, protocols) in [(1, 1), (3, 1), (20, 2_000)] {
            let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]);
            let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = (1..protocols).map(|number| format!("other{number:05}").into_bytes()).collect();
            config.alpn_protocols.push(b"http/1.1".to_vec());
            let stream = TcpStream::connect(proxy.https()).await.expect("connected");
            stream.set_nodelay(true).expect("set");
            let stream = InPieces { stream, size, has_waited: false };
            let name = ServerName::try_from(HOST).expect("a name");
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect(name, stream).await.expect("shaken hands");
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("taken");
            stream.flush().await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{version:?}, {size}: {answer}");
            served += 1;
            assert_eq!(upstream.requests(), served);
        }
    }
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_a_handshake_that_stops_in_the_middle_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    for (count, hello) in [Hello::new(), Hello::old(0x0303, &[0xc02b])].into_iter().enumerate() {
        let mut wire = Wire::connect(proxy.https()).await;
        wire.send(hello.bytes()).await;
        assert_eq!(first(&mut wire).await, First::ServerHello);
        // The one deadline is for all of it.
        wire.rest().await;
        counted(&proxy, "cut_total{cause=\"handshake_too_slow\"}", count as u64 + 1).await;
    }
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_early_data_is_not_taken() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    // early_data, the modes, and a ticket of somebody's with a binder; the last has to be the last.
    let ticket =
        [&prefixed(&[&prefixed(&[5; 200])[..], &[0; 4]].concat())[..], &prefixed(&[&[32], &[6; 32][..]].concat())];
    let more = vec![(42, vec![]), (45, vec![1, 1]), (41, ticket.concat())];
    let hello = Hello { more, ..Hello::new() };
    let mut wire = Wire::connect(proxy.https()).await;
    wire.send(hello.bytes()).await;
    assert_eq!(first(&mut wire).await, First::ServerHello);
    // A request in early data, under whatever key.
    wire.send([&[23, 3, 3][..], &prefixed(&[8; 200])].concat()).await;
    wire.send([&[23, 3, 3][..], &prefixed(&[8; 200])].concat()).await;
    // It ends, and nothing of that was a request.
    wire.rest().await;
    assert_eq!(upstream.requests(), 0);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_renegotiation_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    let address = proxy.https().to_string();
    let mut client = tokio::process::Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", HOST, "-tls1_2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl is installed");
    let mut stdin = client.stdin.take().expect("piped");
    // A line that begins so asks for it.
    stdin.write_all(b"R\n").await.expect("written");
    let output = tokio::time::timeout(crate::wire::PATIENCE, client.wait_with_output()).await;
    let output = output.expect("it gives up").expect("ended");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("RENEGOTIATING") && text.contains("no renegotiation"), "{text}");
    assert_eq!(upstream.requests(), 0);
    drop(stdin);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_names_that_lead_nowhere_are_shown_what_others_are() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    let shown = async |name: &str| {
        let config = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anyone));
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(proxy.https()).await.expect("connected");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("shaken");
        let session = stream.get_ref().1;
        let chain: Vec<Vec<u8>> =
            session.peer_certificates().expect("shown").iter().map(|one| one.as_ref().to_vec()).collect();
        (chain, session.alpn_protocol().map(<[u8]>::to_vec), session.negotiated_cipher_suite())
    };
    let known = shown(HOST).await;
    for name in
        ["nobody.staging.example.com", "a.b.staging.example.com", "nobody.example", "staging.example.com", "127.0.0.1"]
    {
        assert!(shown(name).await == known, "{name}");
    }
    is_as_before(&proxy, upstream.address).await;
}

/// What it finds that is not about how we shake hands, with why.
const BESIDE: &[(&str, &str)] = &[
    ("cert_trust", "the development authority is nobody's but the developer's"),
    ("cert_chain_of_trust", "as before"),
    ("cert_caCN", "as before"),
    ("cert_crlDistributionPoints", "such an authority publishes no list"),
    ("cert_ocspURL", "nor answers"),
    ("cert_revocation", "nor anything else"),
    ("OCSP_stapling", "as before"),
    ("cert_mustStapleExtension", "as before"),
    ("certificate_transparency", "its certificates are in no public log"),
    ("DNS_CAArecord", "localhost has no zone"),
    ("engine_problem", "the program with which it looks lacks an engine"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h60_testssl_finds_nothing_above_low() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = start(folder.path()).await;
    let found = folder.path().join("found.json");
    let address = proxy.https().to_string();
    let checks = ["--protocols", "--std", "--pfs", "--server-preference", "--server-defaults", "--vulnerable"];
    let options = ["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--jsonfile"];
    let run = tokio::process::Command::new("testssl")
        .args(options)
        .arg(&found)
        .args(checks)
        .arg(&address)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("testssl is installed");
    let text = std::fs::read_to_string(&found).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
    });
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let of = |one: &serde_json::Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let severe: Vec<_> = findings
        .iter()
        .filter(|one| matches!(&*of(one, "severity"), "MEDIUM" | "HIGH" | "CRITICAL" | "WARN" | "FATAL"))
        .filter(|one| !BESIDE.iter().any(|(id, _)| of(one, "id").starts_with(id)))
        .collect();
    assert!(severe.is_empty(), "{severe:#?}");
    // It did look.
    for (id, said) in [("TLS1", "not offered"), ("TLS1_2", "offered"), ("TLS1_3", "offered"), ("heartbleed", "not")] {
        let one = findings.iter().find(|one| of(one, "id") == id).unwrap_or_else(|| panic!("no {id}: {text}"));
        assert!(of(one, "finding").contains(said), "{one}");
    }
    is_as_before(&proxy, upstream.address).await;
}
