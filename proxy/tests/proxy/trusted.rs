//! Who the client is, as the peers before us say it: believed of listed networks, and of nobody else.

use std::time::Duration;

use crate::recorder::{Recorder, field};
use crate::site::Site;
use crate::support::HOST;

fn loopback(settings: &mut proxy::Settings) {
    settings.trusted = vec!["127.0.0.0/8".parse().expect("a network"), "10.0.0.0/8".parse().expect("a network")];
}

fn spoken_for(settings: &mut proxy::Settings) {
    loopback(settings);
    settings.proxy_protocol = true;
    settings.limits.first_bytes = Duration::from_millis(500);
}

fn last_head(site: &Site) -> String {
    let seen = site.upstream.all();
    seen[seen.rfind("GET ").expect("a request")..].to_owned()
}

#[tokio::test]
async fn hostile_h43_a_chain_is_believed_of_trusted_peers_only() {
    let trusted = Site::with(Recorder::ok().await, loopback).await;
    let others = Site::start(Recorder::ok().await).await;
    for (fields, chain) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1, 127.0.0.1"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n", "192.0.2.1, 127.0.0.1"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.1\r\n", "192.0.2.1, 10.0.0.1, 127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1, evil, 10.0.0.1\r\n", "10.0.0.1, 127.0.0.1"),
        ("X-Forwarded-For: 192.0.2.1 10.0.0.1\r\n", "127.0.0.1"),
        ("X-Forwarded-For: \r\n", "127.0.0.1"),
        ("X-Forwarded-For: ::ffff:192.0.2.1\r\n", "192.0.2.1, 127.0.0.1"),
        ("Forwarded: for=192.0.2.1\r\nX-Forwarded-For: 6.6.6.6\r\n", "192.0.2.1, 127.0.0.1"),
        ("Forwarded: for=\"[2001:db8::1]:80\"\r\n", "2001:db8::1, 127.0.0.1"),
        ("Forwarded: for=_hidden\r\n", "127.0.0.1"),
        ("X_Forwarded_For: 6.6.6.6\r\nx.forwarded.for: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n", "127.0.0.1"),
    ] {
        for (site, expected) in [(&trusted, chain), (&others, "127.0.0.1")] {
            let fields = format!(
                "{fields}X-Forwarded-Host: said.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n\
                                  X-Request-Id: said\r\n"
            );
            site.asks("GET / HTTP/1.1", &fields).await;
            let head = last_head(site);
            assert_eq!(field(&head, "x-forwarded-for").as_deref(), Some(expected), "{fields}");
            let believed = std::ptr::eq(site, &raw const trusted);
            assert_eq!(field(&head, "x-real-ip"), None);
            assert_eq!(field(&head, "x-request-id").as_deref() == Some("said"), believed, "{head}");
            // `Forwarded` stands alone: what it does not say, nobody said.
            if !fields.contains("\nForwarded") && !fields.starts_with("Forwarded") {
                let (host, proto) = if believed { ("said.example", "https") } else { (HOST, "http") };
                assert_eq!(field(&head, "x-forwarded-host").as_deref(), Some(host), "{head}");
                assert_eq!(field(&head, "x-forwarded-proto").as_deref(), Some(proto), "{head}");
                assert_eq!(field(&head, "x-forwarded-port").as_deref() == Some("8443"), believed, "{head}");
            }
        }
    }
    trusted.is_as_before().await;
    others.is_as_before().await;
}

/// A header of version 2 with these addresses.
fn binary(addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], addresses].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

#[tokio::test]
async fn hostile_h43_the_proxy_protocol_says_whose_connection_it_is() {
    let site = Site::with(Recorder::ok().await, spoken_for).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n\r\n");
    for (header, client) in [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "6.6.6.6, 127.0.0.1"),
        // The client of a trusted balancer may itself be a trusted proxy.
        (b"PROXY TCP4 10.0.0.9 10.0.0.1 4660 80\r\n".to_vec(), "6.6.6.6, 10.0.0.9"),
        (binary(&V4), "192.0.2.1"),
        (binary(&[&V4[..], &[4, 0, 3, 1, 2, 3]].concat()), "192.0.2.1"),
    ] {
        for piece in [header.len(), 5] {
            let mut wire = site.wire().await;
            for part in header.chunks(piece) {
                wire.send(part).await;
            }
            wire.send(&request).await;
            assert_eq!(wire.answer().await.expect("an answer").status, 200, "{header:?}");
            assert_eq!(field(&last_head(&site), "x-forwarded-for").as_deref(), Some(client), "{header:?}");
        }
    }
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h43_a_malformed_or_cut_header_serves_nothing() {
    let site = Site::with(Recorder::ok().await, spoken_for).await;
    let request = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut cases = vec![
        b"PROXY TCP4 192.0.2.300 10.0.0.1 4660 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\n".to_vec(),
        b"PROXY TCP5 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
        b"proxy TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.1\r\n".to_vec(),
        format!("PROXY TCP4 {} 10.0.0.1 4660 80\r\n", "1".repeat(200)).into_bytes(),
        binary(&V4[..4]),
        [b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c", &V4[..]].concat(),
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", &V4[..]].concat(),
    ];
    for case in &mut cases {
        case.extend_from_slice(request.as_bytes());
    }
    cases.extend([0, 5, 12, 14, 20].map(|length| binary(&V4)[..length].to_vec()));
    for case in cases {
        let mut wire = site.wire().await;
        wire.send(&case).await;
        wire.shut().await;
        assert!(wire.is_over().await, "{}", case.escape_ascii());
    }
    // And one that never goes on.
    let mut wire = site.wire().await;
    wire.send("PROXY TCP4 192").await;
    assert!(wire.is_over().await);
    assert_eq!(site.upstream.all(), "");
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h43_a_peer_that_is_not_trusted_speaks_for_nobody() {
    let site = Site::with(Recorder::ok().await, |settings| settings.proxy_protocol = true).await;
    let request = format!("PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert!(site.says(request).await.is_none());
    // Without the setting the header is no request.
    let plain = Site::with(Recorder::ok().await, loopback).await;
    let answer = plain.says("PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n\r\n").await.expect("an answer");
    assert_eq!((answer.status, site.upstream.all(), plain.upstream.all()), (505, String::new(), String::new()));
    plain.serves("a header that nobody asked for").await;
    plain.is_as_before().await;
}
