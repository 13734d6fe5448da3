//! Endpoints that misbehave: the client gets a clear answer or a cut one, never a wrong one, and others do not notice.

use std::time::Duration;

use api::fleet::Protocol;

use crate::recorder::{OK, Recorder};
use crate::site::Site;
use crate::support::{Client, HOST, endpoints, set, stage, weights, zone};
use crate::wire::table;

/// Answers `/normal` as it should and everything else with these bytes, and leaves the connection open.
async fn saying(bytes: Vec<u8>) -> Recorder {
    Recorder::start(move |mut peer| {
        let bytes = bytes.clone();
        async move {
            while let Some(asked) = peer.request().await {
                if asked.head.contains("/normal") { peer.send(OK).await } else { peer.send(&bytes).await }
            }
        }
    })
    .await
}

#[tokio::test]
async fn hostile_h26_an_answer_with_two_readings_is_a_bad_answer() {
    let mut mistakes = Vec::new();
    for (expected, bytes) in table("h26_answers.txt") {
        let shown = bytes.escape_ascii().to_string();
        let site = Site::start(saying(bytes).await).await;
        let mut wire = site.wire().await;
        wire.ask("GET /hostile HTTP/1.1", "").await;
        let answer = wire.answer().await;
        let got = answer.as_ref().map_or("cut".to_owned(), |answer| answer.status.to_string());
        if got != expected {
            mistakes.push(format!("{expected} {shown}: {answer:?}"));
        }
        if expected == "502" {
            // Nothing of ours is uncertain: the client's connection goes on.
            wire.ask("GET /normal HTTP/1.1", "").await;
            assert_eq!(wire.answer().await.map(|answer| answer.text()).as_deref(), Some("ok"), "{shown}");
        }
        drop(wire);
        site.serves(&shown).await;
        for connection in site.upstream.connections() {
            assert!(!connection.contains("hostile") || !connection.contains("normal"), "used again: {shown}");
        }
        site.is_as_before().await;
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_a_client_on_http_2_keeps_its_connection() {
    for (expected, bytes) in table("h26_answers.txt") {
        let shown = bytes.escape_ascii().to_string();
        let site = Site::start(saying(bytes).await).await;
        let mut client = Client::http2(site.proxy.http).await;
        let request = client.request(HOST, "/hostile").body(crate::support::fed().1).expect("a request");
        let answer = client.send(request).await.map(|answer| answer.status.to_string());
        assert_eq!(answer.unwrap_or("cut".into()), expected, "{shown}");
        assert_eq!(client.get(HOST, "/normal").await.body, "ok", "{shown}");
        drop(client);
        site.is_as_before().await;
    }
}

#[tokio::test]
async fn hostile_h26_an_endpoint_that_closes_says_nothing_or_half_of_it() {
    let upstream = Recorder::start(|mut peer| async move {
        while let Some(asked) = peer.request().await {
            let target = asked.head.split(' ').nth(1).expect("a target").to_owned();
            match target.as_str() {
                "/at-once" => return,
                "/reset" => return peer.reset(),
                "/half-head" => return peer.send("HTTP/1.1 200 OK\r\ncontent-le").await,
                "/after-100" => return peer.send("HTTP/1.1 100 Continue\r\n\r\n").await,
                "/half-body" => return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await,
                "/half-chunk" => {
                    return peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe").await;
                }
                "/no-last-chunk" => {
                    return peer.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
                }
                _ => peer.send(OK).await,
            }
        }
    })
    .await;
    let site = Site::start(upstream).await;
    for path in ["/at-once", "/reset", "/half-head", "/after-100"] {
        for method in ["GET", "POST"] {
            let mut wire = site.wire().await;
            wire.ask(&format!("{method} {path} HTTP/1.1"), "").await;
            let answer = wire.answer().await.expect("an answer");
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (502, "The service did not answer properly\n"),
                "{path}"
            );
            wire.ask("GET /normal HTTP/1.1", "").await;
            assert_eq!(wire.answer().await.expect("an answer").status, 200, "{path}");
        }
    }
    for path in ["/half-body", "/half-chunk", "/no-last-chunk"] {
        let mut wire = site.wire().await;
        wire.ask(&format!("GET {path} HTTP/1.1"), "").await;
        assert!(wire.answer().await.is_none(), "{path}: the client has to see that it was cut");
        assert!(wire.is_over().await, "{path}");
        if path != "/half-body" {
            // HTTP/1.0 has no framing that could be incomplete: only a reset tells.
            let mut wire = site.wire().await;
            wire.ask(&format!("GET {path} HTTP/1.0"), "").await;
            assert!(wire.is_reset().await, "{path}");
        }
        site.serves(path).await;
    }
    assert_eq!(site.upstream.count("POST /at-once"), 1, "it may have been acted on");
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h26_an_endpoint_that_never_answers_is_given_up() {
    let upstream = Recorder::start(|mut peer| async move {
        while let Some(asked) = peer.request().await {
            if asked.head.contains("/half") {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            } else if asked.head.contains("/normal") {
                peer.send(OK).await;
            }
        }
    })
    .await;
    let site = Site::with(upstream, |settings| settings.limits.answer = Duration::from_secs(1)).await;
    let mut wire = site.wire().await;
    wire.ask("GET /never HTTP/1.1", "").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (504, "The service did not answer in time\n"));
    wire.ask("POST /never HTTP/1.1", "Content-Length: 5\r\n").await;
    wire.send("hello").await;
    assert_eq!(wire.answer().await.expect("an answer").status, 504);
    wire.ask("GET /half HTTP/1.1", "").await;
    assert!(wire.answer().await.is_none(), "it was cut");
    site.serves("them").await;
    crate::support::until("the connections are closed", || site.upstream.open() <= 1).await;
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h26_garbage_behind_an_answer_is_nobodys_answer() {
    // Sent with the answer, and a moment later, when the connection is idle.
    let upstream = Recorder::start(|mut peer| async move {
        while let Some(asked) = peer.request().await {
            let garbage = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
            if asked.head.contains("/with") {
                peer.send(format!("{OK}{garbage}")).await;
            } else {
                peer.send(OK).await;
                if asked.head.contains("/later") {
                    peer.send(garbage).await;
                }
            }
        }
    })
    .await;
    let site = Site::start(upstream).await;
    let mut wire = site.wire().await;
    for _ in 0..20 {
        for path in ["/with", "/later"] {
            wire.ask(&format!("GET {path} HTTP/1.1"), "").await;
            assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
            // What is on its way is there when the next request is sent.
            tokio::time::sleep(Duration::from_millis(2)).await;
            wire.ask("GET /normal HTTP/1.1", "").await;
            assert_eq!(wire.answer().await.expect("an answer").text(), "ok");
        }
    }
    for connection in site.upstream.connections() {
        let behind = connection.split("GET /with").nth(1).or(connection.split("GET /later").nth(1)).unwrap_or_default();
        assert!(behind.matches("GET ").count() == 0, "used again: {connection}");
    }
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h07_a_body_where_none_may_be_is_nobodys_answer() {
    let answer = |head: &str| {
        let body = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
        let status = match head.split(' ').nth(1).expect("a target") {
            "/normal" => return OK.to_owned(),
            "/204" => "204 No Content",
            "/304" => "304 Not Modified",
            _ => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let site = Site::start(Recorder::answering(answer).await).await;
    let mut wire = site.wire().await;
    for line in ["HEAD / HTTP/1.1", "GET /204 HTTP/1.1", "GET /304 HTTP/1.1", "HEAD /304 HTTP/1.1"] {
        wire.ask(line, "").await;
        let (status, head) = wire.head().await.expect("a head");
        assert!(matches!(status, 200 | 204 | 304) && !head.contains("transfer-encoding"), "{line}: {head}");
        assert!(status != 204 || !head.contains("content-length"), "RFC 9110 §8.6: {head}");
        // The connection of the client goes on; the other carries no request again.
        wire.ask("GET /normal HTTP/1.1", "").await;
        assert_eq!(wire.answer().await.expect("an answer").text(), "ok", "{line}");
    }
    for connection in site.upstream.connections() {
        let lines: Vec<&str> = connection.lines().filter(|line| line.ends_with(" HTTP/1.1")).collect();
        let before = lines.split_last().map(|(_, before)| before).unwrap_or_default();
        assert!(before.iter().all(|line| line.contains("/normal")), "used again: {lines:?}");
    }
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h26_a_stale_connection_is_tried_again_only_when_that_is_harmless() {
    // Reads a second request on each connection, and closes without a word.
    let upstream = Recorder::start(|mut peer| async move {
        peer.request().await;
        peer.send(OK).await;
        peer.request().await;
    })
    .await;
    let site = Site::start(upstream).await;
    let mut wire = site.wire().await;
    for (line, fields, body, status) in [
        ("GET /1 HTTP/1.1", "", "", 200),
        ("GET /2 HTTP/1.1", "", "", 200),
        ("POST /3 HTTP/1.1", "Content-Length: 5\r\n", "hello", 502),
        ("GET /4 HTTP/1.1", "", "", 200),
        ("PUT /5 HTTP/1.1", "Content-Length: 5\r\n", "hello", 502),
        ("GET /6 HTTP/1.1", "", "", 200),
        ("DELETE /7 HTTP/1.1", "", "", 200),
        ("PATCH /8 HTTP/1.1", "", "", 502),
    ] {
        wire.ask(line, fields).await;
        wire.send(body).await;
        assert_eq!(wire.answer().await.expect("an answer").status, status, "{line}");
        // The first goes out on a fresh connection, and so does one after a failure.
        let harmless = line.starts_with("GET") || line.starts_with("DELETE");
        let times = site.upstream.count(line);
        assert!(times == 1 || (harmless && times == 2), "{line}: {times}");
    }
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h26_one_endpoint_that_refuses_fails_no_request() {
    let site = Site::start(Recorder::ok().await).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    site.proxy.apply(set(vec![
        zone(),
        stage("hello/staging", Protocol::H1, &[1]),
        weights("hello/staging", &[(1, 1)]),
        endpoints("hello/staging", 1, &[gone, site.upstream.address]),
    ]));
    for n in 0..20 {
        // Each on a connection of its own, with a body that has to survive the attempt.
        let mut wire = site.wire().await;
        wire.ask("POST / HTTP/1.1", "Content-Length: 5\r\nConnection: close\r\n").await;
        wire.send("hello").await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200, "request {n}");
    }
    assert_eq!(site.upstream.count("\r\n\r\nhello"), 20);
    site.is_as_before().await;
}
