//! gRPC through HTTP/2 on both sides: all kinds of calls, trailers, and a status for every failure.

use api::fleet::Protocol;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;

use crate::site::is_as_before;
use crate::support::{Body, Client, HOST, TestProxy, Upstream, fed, hello, until};

const GRPC: &str = "application/grpc";

fn message(text: &str) -> Frame<Bytes> {
    let mut bytes = vec![0, 0, 0, 0, text.len() as u8];
    bytes.extend_from_slice(text.as_bytes());
    Frame::data(bytes.into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_pass_with_their_trailers() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut client = Client::http2(proxy.http).await;
    for messages in [1, 5] {
        let answer = client.post("/call", GRPC, (0..messages).map(|_| message("hello")).collect()).await;
        assert_eq!((answer.status, answer.body.len()), (200, messages * 10));
        assert_eq!(answer.trailers["grpc-status"], "0");
        assert_eq!(answer.trailers["x-checksum"], "abc");
    }
    let (uri, headers) = upstream.last();
    assert_eq!((uri.authority().map(|a| a.as_str()), headers["te"].as_bytes()), (Some(HOST), &b"trailers"[..]));
    assert!(!headers.contains_key("host"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_streams_both_ways_at_once() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut client = Client::http2(proxy.http).await;
    let (feed, body) = fed();
    let request =
        client.request(HOST, "/call").method("POST").header("content-type", GRPC).body(body).expect("a request");
    let mut answer = client.open(request).await.expect("answered").into_body();
    for text in ["one", "two", "three"] {
        // The next message is sent only after the echo of the one before came back.
        feed.send(Ok(message(text))).await.expect("taken");
        let echoed = answer.frame().await.expect("a frame").expect("whole").into_data().expect("data");
        assert_eq!(&echoed[5..], text.as_bytes());
    }
    drop(feed);
    let trailers = answer.frame().await.expect("a frame").expect("whole").into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_every_failure_is_a_status() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (h2c, h1) = (Upstream::start("r1", Protocol::H2c).await, Upstream::start("r1", Protocol::H1).await);
    proxy.apply(hello(Protocol::H2c, &[(1, h2c.address, 1)]));
    let mut client = Client::http2(proxy.http).await;
    let status = |answer: crate::support::Answer| {
        assert_eq!(answer.status, 200);
        let status = answer.headers.get("grpc-status").or(answer.trailers.get("grpc-status"));
        status.expect("a status").to_str().expect("text").to_owned()
    };
    assert_eq!(status(client.post("/failed", GRPC, vec![message("x")]).await), "9");
    assert_eq!(status(client.post("/bare", GRPC, vec![message("x")]).await), "2", "the service forgot it");
    assert_eq!(status(client.post("/html", GRPC, vec![message("x")]).await), "2", "an answer that is no gRPC");
    assert_eq!(status(client.post("/break", GRPC, vec![message("x")]).await), "14");
    let request = client.request("nobody.example", "/call").method("POST").header("content-type", GRPC);
    let answer = client.send(request.body(fed().1).expect("a request")).await.expect("answered");
    assert_eq!(status(answer), "12", "unknown host");
    // A backend that speaks HTTP/1.1.
    proxy.apply(hello(Protocol::H1, &[(1, h1.address, 1)]));
    assert_eq!(status(client.post("/call", GRPC, vec![message("x")]).await), "12");
    // Nobody listens.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    proxy.apply(hello(Protocol::H2c, &[(1, free, 1)]));
    assert_eq!(status(client.post("/call", GRPC, vec![message("x")]).await), "14");
    drop(client);
    proxy.apply(hello(Protocol::H2c, &[(1, h2c.address, 1)]));
    is_as_before(&proxy, h2c.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h25_a_call_ends_when_its_caller_stops_waiting() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut client = Client::http2(proxy.http).await;
    let call = |client: &Client, path: &str, timeout: &str| {
        client.request(HOST, path).method("POST").header("content-type", GRPC).header("grpc-timeout", timeout)
    };
    // Nothing was answered: the status is all there is, and the service is told that nobody waits.
    let request = call(&client, "/hold", "50m").body(fed().1).expect("a request");
    let answer = client.send(request).await.expect("answered");
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"4".parse().expect("a value")));
    until("the stream was reset", || upstream.state.given_up.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    // Something was answered: the status comes as trailers, behind it.
    let (feed, body) = fed();
    let answer = client.open(call(&client, "/call", "500000u").body(body).expect("a request"));
    let mut answer = answer.await.expect("answered").into_body();
    feed.send(Ok(message("one"))).await.expect("taken");
    let echoed = answer.frame().await.expect("a frame").expect("whole").into_data().expect("data");
    assert_eq!(&echoed[5..], b"one");
    let trailers = answer.frame().await.expect("a frame").expect("whole").into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "4");
    until("that was reset too", || upstream.state.given_up.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
    // In time; and who waits for a time that is none does not get to the service.
    let request = call(&client, "/call", "99999999H").body(Body::default()).expect("a request");
    assert_eq!(client.send(request).await.expect("answered").trailers["grpc-status"], "0");
    let before = upstream.requests();
    for garbage in ["1s", "", "100000000S", "-1S", "1S, 1S"] {
        let request = call(&client, "/call", garbage).body(Body::default()).expect("a request");
        let answer = client.send(request).await.expect("answered");
        assert_eq!(
            (answer.status, &answer.headers["grpc-status"]),
            (200, &"13".parse().expect("a value")),
            "{garbage}"
        );
    }
    assert_eq!(upstream.requests(), before);
    drop((client, feed, answer));
    is_as_before(&proxy, upstream.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_many_streams_share_few_connections() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut calls = Vec::new();
    for _ in 0..60 {
        let address = proxy.http;
        calls.push(tokio::spawn(async move {
            let mut client = Client::http2(address).await;
            client.post("/call", GRPC, vec![message("x")]).await.trailers["grpc-status"].clone()
        }));
    }
    for call in calls {
        assert_eq!(call.await.expect("answered"), "0");
    }
    let connections = upstream.state.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(connections, 1, "60 calls fit on one connection");
}
