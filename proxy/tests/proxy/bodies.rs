//! Bodies and the framing around them: what comes is what goes, in pieces, in order, and each answer has its end.

use api::fleet::Protocol;

use crate::reading::Reading;
use crate::recorder::{Recorder, field};
use crate::site::Site;
use crate::support::{Client, Upstream, hello};
use crate::wire::{Said, Wire};

/// Bytes that repeat with no period of a buffer's size.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n % 251) as u8).collect()
}

/// Answers with what it was sent: its length or its chunks, and its trailers.
async fn echo() -> Recorder {
    Recorder::start(|mut peer| async move {
        while let Some(asked) = peer.request().await {
            let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
            if field(&asked.head, "transfer-encoding").is_some() {
                answer.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                for chunk in asked.body.chunks(70_000) {
                    answer.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
                    answer.extend_from_slice(chunk);
                    answer.extend_from_slice(b"\r\n");
                }
                answer.extend_from_slice(format!("0\r\n{}\r\n", asked.trailers).as_bytes());
            } else {
                answer.extend_from_slice(format!("content-length: {}\r\n\r\n", asked.body.len()).as_bytes());
                answer.extend_from_slice(&asked.body);
            }
            peer.send(answer).await;
        }
    })
    .await
}

fn chunked(body: &[u8], piece: usize, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(piece) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

async fn exchange(site: &Site, bytes: Vec<u8>) -> Said {
    let mut wire = site.wire().await;
    let sending = wire.send_meanwhile(bytes);
    let answer = wire.answer().await.expect("an answer");
    assert!(sending.await.expect("ended"), "all of it was taken");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_ten_mebibytes_come_back_as_they_were() {
    let site = Site::start(echo().await).await;
    let body = pattern(10 * 1024 * 1024);
    let head = |framing: &str| format!("POST / HTTP/1.1\r\nHost: {}\r\n{framing}\r\n\r\n", crate::support::HOST);
    let length = head(&format!("Content-Length: {}", body.len()));
    let answer = exchange(&site, [length.as_bytes(), &body].concat()).await;
    assert!(answer.body == body && answer.field("content-length") == Some(body.len().to_string()));
    for piece in [1_000, 65_536, 3_000_000] {
        let bytes = [head("Transfer-Encoding: chunked").into_bytes(), chunked(&body, piece, "")].concat();
        let answer = exchange(&site, bytes).await;
        assert!(answer.body == body && answer.field("transfer-encoding").is_some(), "by {piece}");
    }
    site.settles().await;
}

#[tokio::test]
async fn bodies_of_a_few_bytes_are_framed_as_they_came() {
    let site = Site::start(echo().await).await;
    for (fields, sent, framing) in [
        ("Content-Length: 0\r\n", "", Some("content-length: 0")),
        ("Content-Length: 5\r\n", "hello", Some("content-length: 5")),
        ("", "", None),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n", Some("transfer-encoding: chunked")),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", Some("transfer-encoding: chunked")),
    ] {
        let mut wire = site.wire().await;
        wire.ask("POST /x HTTP/1.1", fields).await;
        wire.send(sent).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.text(), if sent.contains("hello") { "hello" } else { "" }, "{fields}");
        let seen = site.upstream.all();
        let head = &seen[seen.rfind("POST").expect("a request")..];
        let framings: Vec<&str> =
            head.lines().filter(|line| line.contains("encoding:") || line.contains("length:")).collect();
        assert_eq!(framings, Vec::from_iter(framing), "{head}");
    }
}

#[tokio::test]
async fn bodies_end_with_trailers_in_both_directions() {
    let site = Site::start(echo().await).await;
    let mut wire = site.wire().await;
    wire.ask("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n").await;
    // What frames, routes or says who asks may not stand there.
    let trailers = "X-Sum: 1\r\nx-sum: 2\r\nContent-Length: 7\r\nX-Forwarded-For: 6.6.6.6\r\nAuthorization: evil\r\nHost: evil\r\n";
    wire.send(chunked(b"hello", 2, trailers)).await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("hello", "x-sum: 1\r\nx-sum: 2\r\n"));
    let seen = site.upstream.all();
    assert!(seen.ends_with("\r\n0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n"), "{seen}");
    assert!(seen.contains("\r\ntrailer: X-Sum\r\n") && seen.contains("\r\nte: trailers\r\n"), "{seen}");
}

#[tokio::test]
async fn bodies_to_the_end_of_the_connection_get_a_framing() {
    let to_end = |_: &str| "HTTP/1.1 200 OK\r\nX: y\r\nconnection: close\r\n\r\nuntil the end".to_owned();
    let site = Site::start(Recorder::answering(to_end).await).await;
    let mut wire = site.wire().await;
    for _ in 0..2 {
        // The client's connection goes on.
        wire.ask("GET / HTTP/1.1", "").await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("until the end", None));
        assert_eq!(answer.field("transfer-encoding").as_deref(), Some("chunked"));
    }
    drop(wire);
    // HTTP/1.0 has no chunks.
    let answer = site.asks("GET / HTTP/1.0", "Connection: keep-alive\r\n").await;
    assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("until the end", Some("close")));
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(site.upstream.connections().len(), 3, "none was used twice");
    site.settles().await;
}

#[tokio::test]
async fn bodies_of_http_1_0_end_the_connection_unless_it_asks() {
    let chunked = |_: &str| "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned();
    for (answer, keeps) in [(Recorder::ok().await, true), (Recorder::answering(chunked).await, false)] {
        let site = Site::start(answer).await;
        let mut wire = site.wire().await;
        wire.ask("GET / HTTP/1.0", "").await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.text().as_str(), answer.field("connection").as_deref()), ("ok", Some("close")));
        assert!(wire.is_over().await);
        let mut wire = site.wire().await;
        wire.ask("GET / HTTP/1.0", "Connection: keep-alive\r\n").await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!(answer.field("connection").as_deref(), Some(if keeps { "keep-alive" } else { "close" }));
        assert_eq!((answer.text().as_str(), answer.field("transfer-encoding")), ("ok", None));
        if keeps {
            wire.ask("GET / HTTP/1.0", "").await;
            assert_eq!(wire.answer().await.expect("an answer").status, 200);
        }
        assert!(wire.is_over().await);
        assert_eq!(site.upstream.count("GET / HTTP/1.1\r\n"), if keeps { 3 } else { 2 }, "we speak HTTP/1.1");
        site.settles().await;
    }
}

#[tokio::test]
async fn bodies_of_head_204_and_304_are_none_whatever_the_fields_say() {
    let answer = |head: &str| match head.split(' ').nth(1).expect("a target") {
        "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\netag: \"x\"\r\n\r\n".to_owned(),
        "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n".to_owned(),
    };
    let site = Site::start(Recorder::answering(answer).await).await;
    let mut wire = site.wire().await;
    for (line, status, length) in [
        ("HEAD / HTTP/1.1", 200, Some("7")),
        ("HEAD /chunked HTTP/1.1", 200, None),
        ("GET /204 HTTP/1.1", 204, None),
        ("GET /304 HTTP/1.1", 304, Some("7")),
        ("HEAD /304 HTTP/1.1", 304, Some("7")),
    ] {
        wire.ask(line, "").await;
        let (got, head) = wire.head().await.expect("a head");
        assert_eq!((got, field(&head, "content-length").as_deref()), (status, length), "{line}: {head}");
        assert_eq!(field(&head, "connection"), None, "{head}");
    }
    // All of it on one connection each, so nothing stood between the heads.
    assert_eq!(site.upstream.connections().len(), 1);
    wire.ask("HEAD /nowhere HTTP/1.1", "X: y\r\n").await;
    wire.head().await.expect("a head");
}

#[tokio::test]
async fn bodies_come_piece_by_piece_as_the_upstream_sends_them() {
    let upstream = Recorder::start(|mut peer| async move {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n").await;
        peer.send("transfer-encoding: chunked\r\n\r\n").await;
        // The next event only after the client, which asks in its own body, has read the one before.
        while let Some(chunk) = peer.chunk().await {
            let event = format!("data: {}\n\n", String::from_utf8_lossy(&chunk));
            peer.send(if chunk.is_empty() { "0\r\n\r\n".into() } else { format!("{:x}\r\n{event}\r\n", event.len()) })
                .await;
        }
    })
    .await;
    let site = Site::start(upstream).await;
    let mut wire = site.wire().await;
    wire.ask("POST /events HTTP/1.1", "Transfer-Encoding: chunked\r\n").await;
    assert_eq!(wire.head().await.expect("a head").0, 200);
    for text in ["one", "two", "three"] {
        wire.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
        assert_eq!(wire.chunk().await.expect("a chunk"), format!("data: {text}\n\n").as_bytes());
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.chunk().await.expect("the last chunk"), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_and_trailers_pass_from_http_2_to_http_1() {
    let site = Site::start(echo().await).await;
    let mut client = Client::http2(site.proxy.http).await;
    let (feed, body) = crate::support::fed();
    let request = client.request(crate::support::HOST, "/").method("POST").header("te", "trailers").body(body);
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            feed.send(Ok(hyper::body::Frame::data(pattern(10_000).into()))).await.expect("taken");
        }
        let trailers = [("x-sum", "1"), ("content-length", "7"), ("x-forwarded-for", "6.6.6.6")];
        let trailers = trailers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        feed.send(Ok(hyper::body::Frame::trailers(trailers.into_iter().collect()))).await.expect("taken");
    });
    let answer = client.send(request.expect("a request")).await.expect("answered");
    sending.await.expect("sent");
    assert_eq!((answer.status, answer.trailers.len()), (200, 1));
    assert_eq!(answer.trailers["x-sum"], "1");
    let seen = site.upstream.all();
    assert!(seen.ends_with("\r\n0\r\nx-sum: 1\r\n\r\n"), "{}", &seen[seen.len() - 100..]);
    assert_eq!(seen.matches("transfer-encoding: chunked\r\n").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_from_http_1_to_http_2_with_the_100_that_was_waited_for() {
    let site = Site::start(Recorder::ok().await).await;
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    site.proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut wire = Wire::connect(site.proxy.http).await;
    wire.ask("POST /echo HTTP/1.1", "Content-Length: 5\r\nExpect: 100-continue\r\n").await;
    assert_eq!(wire.head().await.expect("a head").0, 100);
    wire.send("hello").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    // The same connection, chunked, with trailers and without an expectation.
    wire.ask("POST /call HTTP/1.1", "Transfer-Encoding: chunked\r\nTE: trailers\r\n").await;
    wire.send(chunked(&pattern(300_000), 5_000, "x-sum: 1\r\n")).await;
    let answer = wire.answer().await.expect("an answer");
    assert!(answer.body == pattern(300_000) && answer.trailers.contains("x-checksum: abc\r\n"), "{}", answer.head);
    let (_, headers) = upstream.last();
    assert!(!headers.contains_key("expect") && !headers.contains_key("transfer-encoding"), "{headers:?}");
}
