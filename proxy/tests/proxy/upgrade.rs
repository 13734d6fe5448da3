//! A change of protocol: asked for, refused, ignored, and carried out.

use crate::reading::Reading;
use crate::recorder::Recorder;
use crate::site::Site;
use crate::support::{HOST, until};

const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

/// Changes the protocol and sends everything back, in capitals; ends when the client does.
async fn shouts() -> Recorder {
    Recorder::start(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        if head.contains("upgrade: websocket") {
            peer.send(format!("{SWITCH}Sec-WebSocket-Accept: y\r\n\r\nfirst")).await;
            loop {
                let byte = peer.bytes(1).await;
                if byte.is_empty() {
                    return peer.send("last").await;
                }
                peer.send(byte.to_ascii_uppercase()).await;
            }
        }
        peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    })
    .await
}

#[tokio::test]
async fn upgrade_carries_bytes_both_ways_until_both_ends_have_ended() {
    let site = Site::start(shouts().await).await;
    let mut wire = site.wire().await;
    wire.ask("GET /chat HTTP/1.1", ASK).await;
    let (status, head) = wire.head().await.expect("a head");
    assert_eq!(status, 101);
    let head = head.to_ascii_lowercase();
    for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: y\r\n"] {
        assert_eq!(head.matches(line).count(), 1, "{line} {head}");
    }
    assert_eq!(wire.bytes(5).await, b"first", "what stood behind the upstream's head");
    for text in ["hello", "again"] {
        wire.send(text).await;
        assert_eq!(wire.bytes(5).await, text.to_ascii_uppercase().as_bytes());
    }
    // The client ends its direction; the other goes on.
    wire.shut().await;
    assert_eq!(wire.rest().await, b"last");
    site.serves("an upgraded connection").await;
    assert_eq!(site.upstream.connections().len(), 2, "it carried no other request");
    site.settles().await;
}

#[tokio::test]
async fn upgrade_ends_with_either_side() {
    let upstream = Recorder::start(|mut peer| async move {
        let head = peer.head().await.unwrap_or_default();
        peer.send(format!("{SWITCH}\r\n")).await;
        if head.contains("/ends") {
            peer.bytes(5).await;
            return peer.send("bye").await;
        }
        if head.contains("/resets") {
            peer.bytes(5).await;
            return peer.reset();
        }
        peer.ended().await;
    })
    .await;
    let site = Site::start(upstream).await;
    for (path, rest) in [("/ends", &b"bye"[..]), ("/resets", b"")] {
        let mut wire = site.wire().await;
        wire.ask(&format!("GET {path} HTTP/1.1"), ASK).await;
        assert_eq!(wire.head().await.expect("a head").0, 101);
        wire.send("hello").await;
        assert_eq!(wire.rest().await, rest, "{path}");
    }
    let mut wire = site.wire().await;
    wire.ask("GET /waits HTTP/1.1", ASK).await;
    assert_eq!(wire.head().await.expect("a head").0, 101);
    wire.reset();
    until("the upstream's end is told", || site.upstream.open() == 0).await;
    site.settles().await;
}

#[tokio::test]
async fn hostile_h06_no_byte_reaches_the_upstream_before_its_101() {
    let (go, wait) = (std::sync::Arc::new(tokio::sync::Notify::new()), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (told, waited) = (go.clone(), wait.clone());
    let upstream = Recorder::start(move |mut peer| {
        let (go, wait) = (told.clone(), waited.clone());
        async move {
            if peer.head().await.is_some_and(|head| head.contains("/normal")) {
                return peer.send(crate::recorder::OK).await;
            }
            wait.notify_one();
            go.notified().await;
            peer.send(format!("{SWITCH}\r\n")).await;
            let early = peer.bytes(5).await;
            peer.send(early).await;
        }
    })
    .await;
    let site = Site::start(upstream).await;
    let mut wire = site.wire().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{ASK}\r\nearly")).await;
    wait.notified().await;
    // Nothing would keep the proxy from sending more meanwhile.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(site.upstream.all().ends_with("\r\n\r\n"), "{}", site.upstream.all());
    go.notify_one();
    assert_eq!(wire.head().await.expect("a head").0, 101);
    assert_eq!(wire.bytes(5).await, b"early");
    drop(wire);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h06_a_refused_upgrade_ends_both_connections() {
    // The upstream may still take what comes next for the other protocol, and so may the client.
    let site = Site::start(Recorder::ok().await).await;
    let mut wire = site.wire().await;
    wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{ASK}\r\nGET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
    assert!(wire.is_over().await);
    site.serves("a refused upgrade").await;
    let connections = site.upstream.connections();
    assert_eq!(connections.len(), 2, "the connection was used again: {connections:?}");
    assert!(!connections.concat().contains("smuggled"));
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h06_an_upgrade_that_may_not_be_is_ignored() {
    let site = Site::start(Recorder::ok().await).await;
    for (line, fields, body) in [
        ("POST / HTTP/1.1", format!("{ASK}Content-Length: 5\r\n"), "hello"),
        ("GET / HTTP/1.1", format!("{ASK}Content-Length: 5\r\n"), "hello"),
        ("GET / HTTP/1.1", format!("{ASK}Transfer-Encoding: chunked\r\n"), "5\r\nhello\r\n0\r\n\r\n"),
        ("GET / HTTP/1.0", format!("{}, keep-alive\r\n", ASK.trim_end()), ""),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket, x\r\n".into(), ""),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n".into(), ""),
        (
            "GET / HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n".into(),
            "",
        ),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n".into(), ""),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n".into(), ""),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade:\r\n".into(), ""),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n".into(), ""),
    ] {
        let mut wire = site.wire().await;
        wire.ask(line, &fields).await;
        wire.send(body).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("{line} {fields}: no answer"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{line} {fields}");
    }
    let seen = site.upstream.all().to_ascii_lowercase();
    assert!(!seen.contains("\r\nupgrade:") && !seen.contains("http2-settings"), "{seen}");
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h06_a_101_that_nobody_asked_for_is_a_bad_answer() {
    let site = Site::start(
        Recorder::answering(|head| {
            if head.contains("/normal") { crate::recorder::OK.into() } else { format!("{SWITCH}\r\nsmuggled") }
        })
        .await,
    )
    .await;
    let mut wire = site.wire().await;
    wire.ask("GET / HTTP/1.1", "").await;
    let answer = wire.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (502, "The service did not answer properly\n"));
    site.serves("it").await;
    assert_eq!(site.upstream.connections().len(), 2);
    // HTTP/2 has no upgrades: none is asked for, and none is taken.
    let mut client = crate::support::Client::http2(site.proxy.http).await;
    assert_eq!(client.get(HOST, "/").await.status, 502);
    assert_eq!(client.get(HOST, "/normal").await.status, 200, "the connection survives");
    drop((wire, client));
    site.is_as_before().await;
}
