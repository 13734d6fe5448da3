//! WebSocket over a stream of HTTP/2 (RFC 8441) to an endpoint on HTTP/1.1 (RFC 6455).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::reading::Reading;
use crate::recorder::Recorder;
use crate::site::Site;
use crate::support::{Body, Client, HOST, TestProxy, Upstream, hello, until};

/// Answers the handshake as its path wants, and then says everything in capitals.
async fn shouts() -> Recorder {
    Recorder::start(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        let accept = match head.split(' ').nth(1).unwrap_or_default() {
            "/ok" | "/normal" => return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await,
            "/no" => return peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await,
            "/wrong" => "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
            _ => accept(&head),
        };
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
        peer.send(format!("{switch}Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {accept}\r\n\r\nfirst")).await;
        loop {
            let byte = peer.bytes(1).await;
            if byte.is_empty() {
                return peer.send("last").await;
            }
            if byte == b"!" {
                return peer.reset();
            }
            peer.send(byte.to_ascii_uppercase()).await;
        }
    })
    .await
}

pub(crate) fn accept(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).expect("a key");
    assert_eq!(STANDARD.decode(key).expect("Base64").len(), 16, "RFC 6455 §4.1");
    let said = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, said.as_bytes()))
}

fn connect(path: &str, protocol: Option<&'static str>) -> Request<Body> {
    let uri = if protocol.is_some() { format!("http://{HOST}{path}") } else { format!("{HOST}:80") };
    let request = Request::builder().method(Method::CONNECT).uri(uri).header("sec-websocket-version", "13");
    let mut request = request.header("sec-websocket-protocol", "chat").body(Body::default()).expect("a request");
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

async fn opened(client: &mut Client, path: &str) -> (Response<Incoming>, TokioIo<Upgraded>) {
    let mut answer = client.open(connect(path, Some("websocket"))).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::OK);
    let stream = hyper::upgrade::on(&mut answer).await.expect("the protocol changed");
    (answer, TokioIo::new(stream))
}

/// A client that has heard that streams may change their protocol.
async fn told(site: &Site) -> Client {
    let mut client = Client::http2(site.proxy.http).await;
    assert_eq!(client.get(HOST, "/ok").await.status, 200);
    client
}

#[tokio::test]
async fn websocket_over_http2_carries_bytes_both_ways_until_both_ends_have_ended() {
    let site = Site::start(shouts().await).await;
    let mut client = told(&site).await;
    let (answer, mut stream) = opened(&mut client, "/chat").await;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    for gone in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let mut piece = [0; 5];
    stream.read_exact(&mut piece).await.expect("read");
    assert_eq!(&piece, b"first", "what stood behind the upstream's head");
    for text in ["hello", "again"] {
        stream.write_all(text.as_bytes()).await.expect("written");
        stream.read_exact(&mut piece).await.expect("read");
        assert_eq!(piece, *text.to_ascii_uppercase().as_bytes());
    }
    let head = site.upstream.connections().into_iter().find(|one| one.starts_with("GET /chat HTTP/1.1\r\n"));
    let head = head.expect("the request is a GET");
    for line in [
        "\r\nconnection: upgrade\r\n",
        "\r\nupgrade: websocket\r\n",
        "\r\nsec-websocket-version: 13\r\n",
        &format!("\r\nhost: {HOST}\r\n"),
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} {head}");
    }
    // Other streams of the connection go on meanwhile.
    assert_eq!(client.get(HOST, "/ok").await.status, 200);
    // The client ends its direction; the other goes on.
    stream.shutdown().await.expect("ended");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("read");
    assert_eq!(rest, b"last");
    drop((stream, client));
    site.settles().await;
}

#[tokio::test]
async fn websocket_over_http2_ends_with_either_side() {
    let site = Site::start(shouts().await).await;
    let mut client = told(&site).await;
    let (answer, mut stream) = opened(&mut client, "/chat").await;
    stream.write_all(b"!").await.expect("written");
    let mut rest = Vec::new();
    // Whether the end is told as one or as a reset is the library's business.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"first");
    drop((answer, stream));
    let (answer, stream) = opened(&mut client, "/chat").await;
    drop((answer, stream));
    until("the upstream's end is told", || site.upstream.open() <= 1).await;
    assert_eq!(client.get(HOST, "/ok").await.status, 200, "the connection survives");
    drop(client);
    site.settles().await;
}

#[tokio::test]
async fn hostile_h06_only_a_101_to_our_own_key_changes_the_protocol_of_a_stream() {
    let site = Site::start(shouts().await).await;
    let mut client = told(&site).await;
    for (path, protocol, status, text) in [
        ("/no", Some("websocket"), 403, "no"),
        // A client would take a 200 for the change of protocol.
        ("/ok", Some("websocket"), 502, "The service did not answer properly\n"),
        ("/wrong", Some("websocket"), 502, "The service did not answer properly\n"),
        ("/ok", Some("connect-udp"), 501, "Not implemented\n"),
        ("/ok", None, 501, "Not implemented\n"),
    ] {
        let answer = client.open(connect(path, protocol)).await.expect("answered");
        assert_eq!(answer.status(), status, "{path} {protocol:?}");
        let body = answer.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, text, "{path} {protocol:?}");
    }
    // As a gRPC caller it would be told everything with a 200, which means that the protocol has changed.
    for host in [HOST, "nobody.example"] {
        let mut request = connect("/no", Some("websocket"));
        *request.uri_mut() = format!("http://{host}/no").parse().expect("a target");
        request.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
        let answer = client.open(request).await.expect("answered");
        assert_eq!(answer.status(), if host == HOST { 403 } else { 404 }, "{host}");
    }
    assert_eq!(client.get(HOST, "/ok").await.status, 200, "the connection survives");
    assert!(!site.upstream.all().contains("CONNECT"));
    drop(client);
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_over_http2_is_not_asked_of_an_endpoint_on_http2() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", api::fleet::Protocol::H2c).await;
    proxy.apply(hello(api::fleet::Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut client = Client::http2(proxy.http).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let answer = client.send(connect("/", Some("websocket"))).await.expect("answered");
    assert_eq!((answer.status, answer.body.as_str()), (502, "The service does not speak WebSocket\n"));
    assert_eq!(upstream.requests(), 1);
}
