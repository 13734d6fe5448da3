//! Row h25: gRPC that is broken or lies. Messages are not the proxy's: what they say goes on byte for byte, in whatever
//! pieces, and it holds nothing back to see more of them; a caller is always told a status.

use api::fleet::Protocol;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Frame;

use crate::reading::Reading;
use crate::site::is_as_before;
use crate::support::{Answer, Client, HOST, TestProxy, Upstream, fed, hello};
use crate::wire::Wire;

const GRPC: &str = "application/grpc";
const TEXT: &str = "application/grpc-web-text";

async fn calls(folder: &std::path::Path) -> (TestProxy, Upstream) {
    let proxy = TestProxy::start(folder, 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    (proxy, upstream)
}

fn status(answer: &Answer) -> Option<&str> {
    let found = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
    found.map(|status| status.to_str().expect("text"))
}

/// The same for a browser, which may find it in the last frame of the text.
fn text_status(answer: &Answer) -> Option<String> {
    let groups = answer.body.as_bytes().chunks(4).filter_map(|group| STANDARD.decode(group).ok());
    let said = String::from_utf8_lossy(&groups.collect::<Vec<_>>().concat()).into_owned();
    let framed = said.split_once("grpc-status:").and_then(|(_, rest)| Some(rest.split_once("\r\n")?.0.to_owned()));
    status(answer).map(str::to_owned).or(framed)
}

fn pieces(bytes: &[u8], size: usize) -> Vec<Frame<Bytes>> {
    bytes.chunks(size).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_messages_are_passed_on_as_they_are_in_any_pieces() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = calls(folder.path()).await;
    let mut client = Client::http2(proxy.http).await;
    for (what, message) in [
        ("two messages", &b"\0\0\0\0\x05hello\0\0\0\0\x01x"[..]),
        ("a compressed one of which nobody said how", b"\x01\0\0\0\x05hello"),
        ("a flag that is none", b"\x7f\0\0\0\x01x"),
        ("a length of 4 GiB and nothing of it", b"\0\xff\xff\xff\xff"),
        ("a length of 4 GiB and a little of it", b"\0\xff\xff\xff\xffhello"),
        ("half a prefix", b"\0\0\0"),
        ("half a message", b"\0\0\0\0\x05he"),
        ("no message", b""),
    ] {
        for size in [1, 3, 5, 100] {
            let answer = client.post("/call", GRPC, pieces(message, size)).await;
            // What a service makes of it is its own affair: this one sends back what it got.
            assert_eq!((answer.status, status(&answer)), (200, Some("0")), "{what} in pieces of {size}: {answer:?}");
            assert_eq!(answer.body, String::from_utf8_lossy(message), "{what} in pieces of {size}");
        }
    }
    drop(client);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_a_caller_that_does_not_take_trailers_is_called_as_one_that_does() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = calls(folder.path()).await;
    let mut client = Client::http2(proxy.http).await;
    for te in [None, Some("trailers")] {
        let mut request = client.request(HOST, "/call").method("POST").header("content-type", GRPC);
        if let Some(te) = te {
            request = request.header("te", te);
        }
        let request = request.body(fed().1).expect("a request");
        let answer = client.send(request).await.expect("answered");
        assert_eq!((answer.status, status(&answer)), (200, Some("0")), "{te:?}");
        assert_eq!(upstream.last().1["te"], "trailers", "{te:?}: a service refuses a call without it");
    }
    drop(client);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_what_is_no_grpc_by_its_content_type_is_answered_as_http() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = calls(folder.path()).await;
    let mut client = Client::http2(proxy.http).await;
    for (kind, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc+json", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", true),
        ("application/grpc-web-text+proto", true),
        ("application/json", false),
        ("application/octet-stream", false),
        ("text/html; application/grpc", false),
    ] {
        // Nobody serves this host: the answer is the proxy's own.
        let request = client.request("nobody.example", "/call").method("POST").header("content-type", kind);
        let request = request.body(fed().1).expect("a request");
        let answer = client.send(request).await.expect("answered");
        let expected = if is_grpc { (200, Some("12")) } else { (404, None) };
        assert_eq!((answer.status, status(&answer)), expected, "{kind}: {answer:?}");
    }
    drop(client);
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_text_that_is_no_base64_is_told_as_a_status() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = calls(folder.path()).await;
    for text in ["A", "AAA", "AAAA$AAA", "====", "AAAAA===", "AA=A", "AAAA\r\nAAAA"] {
        for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
            let answer = client.post("/call", TEXT, pieces(text.as_bytes(), 2)).await;
            let told = text_status(&answer).expect("a status");
            // INTERNAL, or UNAVAILABLE when the service had begun to answer.
            assert!(answer.status == 200 && matches!(told.as_str(), "13" | "14"), "{text:?}: {told} {answer:?}");
        }
    }
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_a_call_that_ends_while_its_answer_is_on_the_way_leaves_no_doubt_where_that_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream) = calls(folder.path()).await;
    for (path, kind, whole) in [
        ("/flood", "application/grpc-web+proto", true),
        ("/flood", GRPC, true),
        // What was announced does not come: only the end of the connection can say so.
        ("/flood/announced", GRPC, false),
    ] {
        let mut wire = Wire::connect(proxy.http).await;
        wire.ask(&format!("POST {path} HTTP/1.1"), &format!("Content-Type: {kind}\r\ngrpc-timeout: 300m\r\n")).await;
        // Nobody reads meanwhile: the call ends with a piece half way to the client.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        let (status, head) = wire.head().await.expect("a head");
        assert_eq!(status, 200);
        let Some(Some((body, trailers))) = wire.framed(&head).await else {
            assert!(!whole, "{kind} at {path} was cut");
            continue;
        };
        assert!(whole, "{kind} at {path} was not cut: {} bytes", body.len());
        let messages = body.iter().take_while(|b| **b == b'x').count();
        let rest = String::from_utf8_lossy(&body[messages..]);
        assert!(messages > 0 && messages < 1_500 * 16 * 1024, "{messages}");
        assert!(
            format!("{rest}{trailers}").contains("grpc-status:4") || trailers.contains("grpc-status: 4"),
            "{rest:?} {trailers:?}"
        );
        assert!(!rest.contains('x') || kind != GRPC, "{rest:?}");
        wire.ask("GET /normal HTTP/1.1", "Connection: close\r\n").await;
        assert_eq!(wire.answer().await.expect("the next answer").text(), "r1", "{kind} at {path}");
    }
    is_as_before(&proxy, upstream.address).await;
}
