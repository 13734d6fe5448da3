//! Requests that two servers could read differently: refused as a whole, and the connection with them.

use crate::recorder::Recorder;
use crate::site::Site;
use crate::wire::{Wire, table};

/// Sent behind everything: a proxy that has lost count takes it for a request.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: hello.staging.example.com\r\n\r\n";

/// What went wrong on a connection that was sent something to be refused; `None`: nothing.
async fn mistake(wire: &mut Wire, expected: &str) -> Option<String> {
    let Some(answer) = wire.answer().await else { return Some("no answer".into()) };
    if answer.status.to_string() != expected {
        return Some(format!("{}: {}", answer.status, answer.text().trim_end()));
    }
    if answer.field("connection").as_deref() != Some("close") {
        return Some("the answer does not say that the connection ends".into());
    }
    let rest = wire.rest().await;
    if !rest.is_empty() {
        return Some(format!("a second answer: {}", String::from_utf8_lossy(&rest)));
    }
    None
}

/// The upstream saw nothing of it; of a body that turned out to be none in its middle it saw the head, and nothing that
/// could be taken for the end or for another request.
fn is_unharmed(seen: &str) -> bool {
    let mut parts = seen.split("POST /hostile");
    let before = parts.next().unwrap_or_default();
    let cut = |part: &str| {
        part.contains("transfer-encoding: chunked\r\n")
            && part.matches(" HTTP/1.1").count() == 1
            && !part.contains("\r\n0\r\n")
    };
    !before.contains("hostile") && !seen.contains("smuggled") && parts.all(cut)
}

/// Every line of a table is answered as it says, by a proxy that goes on to serve.
async fn refused(name: &str) {
    let site = Site::start(Recorder::ok().await).await;
    site.serves("nothing").await;
    let mut mistakes = Vec::new();
    for (expected, bytes) in table(name) {
        let shown = bytes.escape_ascii().to_string();
        // At once, and with the head alone first.
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        for cut in [0, head] {
            let mut wire = site.wire().await;
            if cut > 0 {
                wire.send(&bytes[..cut]).await;
                tokio::task::yield_now().await;
            }
            wire.send([&bytes[cut..], SMUGGLED.as_bytes()].concat()).await;
            if let Some(mistake) = mistake(&mut wire, &expected).await {
                mistakes.push(format!("{expected} {shown}: {mistake}"));
            }
        }
        site.serves(&shown).await;
    }
    for seen in site.upstream.connections() {
        assert!(is_unharmed(&seen), "{seen}");
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h01_a_length_that_is_not_one_number_is_refused() {
    refused("h01_lengths.txt").await;
}

#[tokio::test]
async fn hostile_h02_a_coding_that_is_not_chunked_is_refused() {
    refused("h02_codings.txt").await;
}

#[tokio::test]
async fn hostile_h03_a_chunk_with_two_readings_is_refused() {
    refused("h03_chunks.txt").await;
}

#[tokio::test]
async fn hostile_h04_a_head_that_is_none_is_refused() {
    refused("h04_heads.txt").await;
}

#[tokio::test]
async fn hostile_h05_a_host_that_is_none_is_refused_and_an_unknown_one_not_found() {
    refused("h05_hosts.txt").await;
}

#[tokio::test]
async fn hostile_h10_methods_and_versions_that_are_not_served_are_named() {
    refused("h10_methods.txt").await;
}

#[tokio::test]
async fn hostile_h40_a_target_with_two_readings_is_refused() {
    refused("h40_refused.txt").await;
}

#[tokio::test]
async fn hostile_h40_any_other_target_is_forwarded_byte_for_byte() {
    let site = Site::start(Recorder::ok().await).await;
    for (_, target) in table("h40_forwarded.txt") {
        let target = String::from_utf8(target).expect("text");
        let answer = site.asks(&format!("GET {target} HTTP/1.1"), "Connection: close\r\n").await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert_eq!(site.upstream.count(&format!("GET {target} HTTP/1.1\r\n")), 1, "{target}");
    }
    site.is_as_before().await;
}
