//! One request after the other on a connection: expectations, early answers, interim ones, and ends in the middle.

use crate::reading::Reading;
use crate::recorder::{OK, Recorder};
use crate::site::Site;
use crate::support::{Client, HOST, until};

const EXPECTS: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n";

/// Does as the target says: `/early` answers before it has read the body, `/stream` begins to after the first chunk,
/// `/refuse/NNN` says so at once, `/invite` says
/// 100 and reads the body, `/hints` says 103 twice, everything else is answered when it was read.
async fn obliging() -> Recorder {
    Recorder::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            let target = head.split(' ').nth(1).expect("a target").to_owned();
            let length = crate::recorder::field(&head, "content-length").map_or(0, |n| n.parse().expect("a length"));
            if let Some(status) = target.strip_prefix("/refuse/") {
                // It does not wait for the body, and cannot know whether that comes.
                peer.send(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno")).await;
                peer.bytes(length).await;
                continue;
            }
            if target == "/early" {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
                peer.bytes(length).await;
                peer.send("ok").await;
                continue;
            }
            if target == "/stream" {
                peer.chunk().await;
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await;
                return peer.ended().await;
            }
            match target.as_str() {
                "/invite" => peer.send("HTTP/1.1 100 Continue\r\n\r\n").await,
                "/hints" => {
                    let hint =
                        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x\r\ncontent-length: 9\r\n\r\n";
                    peer.send(hint.repeat(2)).await;
                }
                _ => {}
            }
            if peer.bytes(length).await.len() == length {
                peer.send(OK).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn hostile_h09_pipelined_requests_are_answered_once_and_in_order() {
    let site = Site::start(
        Recorder::start(|mut peer| async move {
            while let Some(asked) = peer.request().await {
                let body = [asked.head.lines().next().unwrap_or_default().as_bytes(), b" ", &asked.body].concat();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                peer.send([head.as_bytes(), &body].concat()).await;
            }
        })
        .await,
    )
    .await;
    let mut pipeline = Vec::new();
    for n in 0..5 {
        let body = n.to_string().repeat(1 + n * 20_000);
        let framing = if n % 2 == 0 {
            format!("Content-Length: {}\r\n\r\n{body}", body.len())
        } else {
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
        };
        // RFC 9112 §2.2: an empty line behind a body, as old clients write it, is passed over.
        let behind = if n == 2 { "\r\n" } else { "" };
        pipeline.extend_from_slice(format!("POST /{n} HTTP/1.1\r\nHost: {HOST}\r\n{framing}{behind}").as_bytes());
    }
    let mut wire = site.wire().await;
    let sending = wire.send_meanwhile(pipeline);
    for n in 0..5 {
        let answer = wire.answer().await.expect("an answer");
        assert!(answer.text() == format!("POST /{n} HTTP/1.1 {}", n.to_string().repeat(1 + n * 20_000)), "{n}");
    }
    assert!(sending.await.expect("ended"));
    assert_eq!(site.upstream.count(" HTTP/1.1\r\n"), 5);
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h09_a_half_closed_client_gets_its_answers() {
    let site = Site::start(obliging().await).await;
    let mut wire = site.wire().await;
    wire.send(format!("GET /1 HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    wire.shut().await;
    for _ in 0..2 {
        assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    }
    assert!(wire.is_over().await);
    // In the middle of a head and of a body.
    for part in [
        "GET /3 HT",
        "GET /3 HTTP/1.1\r\nHost: x\r\n",
        "POST /3 HTTP/1.1\r\nHost: hello.staging.example.com\r\nContent-Length: 5\r\n\r\nhel",
    ] {
        let mut wire = site.wire().await;
        wire.send(part).await;
        wire.shut().await;
        let rest = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400 "), "{part:?}: {rest}");
    }
    site.serves("half-closed clients").await;
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h09_a_client_that_breaks_off_leaves_nothing_behind() {
    let site = Site::start(obliging().await).await;
    let body =
        format!("POST /broken HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(100_000));
    let early = format!("POST /early HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nx");
    for (bytes, seen) in [(body, "POST /broken"), (early, "POST /early"), ("GET /x HTTP/1.1\r\n".into(), "")] {
        for reset in [true, false] {
            let wire = site.wire().await;
            wire.send(&bytes).await;
            until("the upstream sees it", || site.upstream.all().contains(seen)).await;
            if reset {
                wire.reset()
            } else {
                drop(wire)
            }
            site.serves("a client that broke off").await;
        }
    }
    // After the answer has begun, which waits for the rest of the body; and with something that is no body.
    for rest in [None, Some("nonsense\r\n")] {
        let mut wire = site.wire().await;
        wire.ask("POST /stream HTTP/1.1", "Transfer-Encoding: chunked\r\n").await;
        wire.send("5\r\nhello\r\n").await;
        assert_eq!(wire.head().await.expect("a head").0, 200);
        match rest {
            None => wire.reset(),
            Some(rest) => {
                wire.send(rest).await;
                assert!(wire.answer().await.is_none(), "it was cut");
            }
        }
    }
    until("the upstream's connections are closed", || site.upstream.open() <= 1).await;
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h09_an_answer_before_the_request_is_complete() {
    let site = Site::start(obliging().await).await;
    let mut wire = site.wire().await;
    wire.ask("POST /early HTTP/1.1", "Content-Length: 5\r\n").await;
    assert_eq!(wire.head().await.expect("a head").0, 200);
    wire.send("hello").await;
    assert_eq!(wire.bytes(2).await, b"ok");
    // Both were complete in the end: the connection goes on.
    wire.ask("GET /next HTTP/1.1", "").await;
    assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    // An answer that is complete while the body is not ends the connection: where the next request begins is unknown.
    wire.ask("POST /refuse/401 HTTP/1.1", "Content-Length: 1000\r\n").await;
    wire.send("hello").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 401);
    wire.send(format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(wire.is_over().await);
    site.serves("early answers").await;
    assert!(!site.upstream.all().contains("\r\n\r\nGET /smuggled"));
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h07_the_upstream_is_asked_whether_the_body_may_come() {
    let site = Site::start(obliging().await).await;
    let mut wire = site.wire().await;
    wire.ask("POST /invite HTTP/1.1", EXPECTS).await;
    assert_eq!(wire.head().await.expect("a head"), (100, "HTTP/1.1 100 Continue\r\n\r\n".into()));
    assert!(site.upstream.all().contains("\r\nexpect: 100-continue\r\n"));
    wire.send("hello").await;
    assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    // Without a 100 the body may come as well (RFC 9110 §10.1.1), and the connection goes on.
    wire.ask("POST /x HTTP/1.1", EXPECTS).await;
    wire.send("hello").await;
    assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    wire.ask("GET /x HTTP/1.1", "").await;
    assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h07_a_body_that_is_refused_at_once_is_not_waited_for() {
    let site = Site::start(obliging().await).await;
    for status in [401, 404, 413, 417] {
        let mut wire = site.wire().await;
        wire.ask(&format!("POST /refuse/{status} HTTP/1.1"), EXPECTS).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (status, "no"));
        // The client may send the body all the same, or the next request instead: nobody can tell which.
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{status}");
        wire.send(format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert!(wire.is_over().await, "{status}");
    }
    site.serves("refused bodies").await;
    assert!(!site.upstream.all().contains("smuggled"));
    until("the upstream's connections are closed", || site.upstream.open() <= 1).await;
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h07_expectations_that_nobody_knows_are_refused() {
    let site = Site::start(obliging().await).await;
    for expected in
        ["100-continued", "100", "x", "", "100-continue, x", "100-continue;q=1", "100-continue\r\nExpect: 100-continue"]
    {
        let answer = site.asks("POST /hostile HTTP/1.1", &format!("Content-Length: 5\r\nExpect: {expected}\r\n")).await;
        assert_eq!((answer.status, answer.field("connection").as_deref()), (417, Some("close")), "{expected}");
    }
    // Its spelling is free, and HTTP/1.0 has none.
    let mut wire = site.wire().await;
    wire.ask("POST /invite HTTP/1.1", "Content-Length: 5\r\nexpect: 100-Continue\r\n").await;
    assert_eq!(wire.head().await.expect("a head").0, 100);
    drop(wire);
    let mut wire = site.wire().await;
    wire.ask("POST /old HTTP/1.0", "Content-Length: 5\r\nExpect: 100-continue\r\n").await;
    wire.send("hello").await;
    assert_eq!(wire.head().await.expect("a head").0, 200);
    let seen = site.upstream.all();
    let old = &seen[seen.find("POST /old").expect("a request")..];
    assert!(!seen.contains("hostile") && !old.contains("expect:"), "{seen}");
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interim_answers_reach_those_that_understand_them() {
    let site = Site::start(obliging().await).await;
    let mut wire = site.wire().await;
    wire.ask("GET /hints HTTP/1.1", "").await;
    for _ in 0..2 {
        let hint = wire.head().await.expect("a head");
        assert_eq!(hint, (103, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n".into()));
    }
    assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
    let mut wire = site.wire().await;
    wire.ask("GET /hints HTTP/1.0", "").await;
    assert_eq!(wire.head().await.expect("a head").0, 200, "HTTP/1.0 has none");
    assert_eq!(Client::http2(site.proxy.http).await.get(HOST, "/hints").await.body, "ok");
}
