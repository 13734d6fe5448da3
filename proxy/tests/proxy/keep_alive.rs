//! Connections to endpoints that end at the wrong moment are nobody's problem.

use std::net::SocketAddr;

use api::fleet::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Client, HOST, TestProxy, Upstream, endpoints, hello, set, settings, stage, weights, zone};

/// Answers `answers` requests on each connection and then closes it without a word, in the middle of keep-alive.
async fn closes_after(answers: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut left = answers;
                loop {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    head.push(byte[0]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    if left == 0 {
                        // The request was read whole: the worst moment.
                        return;
                    }
                    left -= 1;
                    head.clear();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.expect("written");
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_stale_connections_are_not_seen_by_clients() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(hello(Protocol::H1, &[(1, closes_after(1).await, 1)]));
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        for n in 0..100 {
            let answer = client.get(HOST, "/").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "request {n}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_a_request_that_may_have_been_acted_on_is_not_sent_twice() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(hello(Protocol::H1, &[(1, closes_after(1).await, 1)]));
    let mut client = Client::http1(proxy.http).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let answer = client.post("/", "text/plain", Vec::new()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(client.get(HOST, "/").await.status, 200, "the client's own connection goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_an_endpoint_that_refuses_is_passed_over() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let open = closes_after(1_000).await;
    proxy.apply(set(vec![
        zone(),
        stage("hello/staging", Protocol::H1, &[1]),
        weights("hello/staging", &[(1, 1)]),
        endpoints("hello/staging", 1, &[closed, open]),
    ]));
    let mut client = Client::http1(proxy.http).await;
    for n in 0..50 {
        assert_eq!(client.get(HOST, "/").await.status, 200, "request {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_an_old_connection_ends_between_requests_and_fails_none() {
    let folder = tempfile::tempdir().expect("folder");
    let mut settings = settings(folder.path(), 1);
    settings.limits.age = std::time::Duration::from_secs(2);
    let proxy = TestProxy::with(settings).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    // It is closed although it asks all the time: with the answer, never in the middle of a request.
    let mut client = tokio::net::TcpStream::connect(proxy.http).await.expect("connected");
    loop {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nr1") {
            let read = client.read_buf(&mut answer).await.expect("read");
            assert!(read > 0, "cut within an answer: {:?}", answer.escape_ascii().to_string());
        }
        if answer.windows(17).any(|part| part == b"connection: close") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(client.read(&mut [0]).await.expect("ended"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keep_alive_an_http2_connection_in_use_stays_longer_than_one_that_waits() {
    let folder = tempfile::tempdir().expect("folder");
    let mut settings = settings(folder.path(), 1);
    settings.limits.stream_idle = std::time::Duration::from_millis(300);
    let proxy = TestProxy::with(settings).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    // One connection, which is never replaced.
    let mut client = Client::http2(proxy.http).await;
    for _ in 0..100 {
        assert_eq!(client.get(HOST, "/").await.body, "r1");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
