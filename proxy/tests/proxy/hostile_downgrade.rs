//! HTTP/2 that HTTP/1 would read otherwise: it never reaches an HTTP/1 upstream.

use crate::frames::{DATA, END_STREAM, Ended, Fields, Frames, request};
use crate::recorder::Recorder;
use crate::site::Site;
use crate::support::HOST;
use crate::wire::table;

/// A good head, with these fields behind it.
fn post(more: &[(&'static str, &'static [u8])]) -> Fields {
    let mut all = request("POST", b"/hostile");
    all.extend(more.iter().map(|(name, value)| (name.as_bytes(), *value)));
    all
}

/// Only some of the pseudo-fields, in this order.
fn pseudo(names: &[&'static str]) -> Fields {
    let good = request("POST", b"/hostile");
    let find = |name: &&str| good.iter().find(|field| field.0 == name.as_bytes()).copied().expect("a pseudo-field");
    names.iter().map(find).collect()
}

/// A good head, with one pseudo-field changed.
fn changed(name: &str, value: &'static [u8]) -> Fields {
    let mut all = post(&[]);
    for field in &mut all {
        if field.0 == name.as_bytes() {
            field.1 = value;
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h24_what_http_1_would_read_otherwise_never_reaches_it() {
    let site = Site::start(Recorder::ok().await).await;
    let cases: Vec<(&str, Fields)> = vec![
        ("CR in a value", post(&[("x", b"a\rb")])),
        ("LF in a value", post(&[("x", b"a\nGET /smuggled HTTP/1.1")])),
        ("CR LF in a value", post(&[("x", b"a\r\ntransfer-encoding: chunked")])),
        ("NUL in a value", post(&[("x", b"a\0b")])),
        ("a blank before a value", post(&[("x", b" a")])),
        ("a blank behind a value", post(&[("x", b"a ")])),
        ("a control character", post(&[("x", b"\x01")])),
        ("8-bit characters", post(&[("x", b"\xc3\xbc")])),
        ("CR LF in a name", post(&[("x\r\ny", b"a")])),
        ("a colon in a name", post(&[("x:y", b"a")])),
        ("a blank in a name", post(&[("x y", b"a")])),
        ("a name in capitals", post(&[("X", b"a")])),
        ("an empty name", post(&[("", b"a")])),
        ("transfer-encoding", post(&[("transfer-encoding", b"chunked")])),
        ("connection", post(&[("connection", b"keep-alive")])),
        ("connection: close", post(&[("connection", b"close")])),
        ("keep-alive", post(&[("keep-alive", b"1")])),
        ("proxy-connection", post(&[("proxy-connection", b"x")])),
        ("upgrade", post(&[("upgrade", b"websocket")])),
        ("te: gzip", post(&[("te", b"gzip")])),
        ("te: trailers, gzip", post(&[("te", b"trailers, gzip")])),
        ("another host", post(&[("host", b"other.example")])),
        ("two hosts", post(&[("host", HOST.as_bytes()), ("host", HOST.as_bytes())])),
        ("two lengths", post(&[("content-length", b"0"), ("content-length", b"0")])),
        ("a length that is none", post(&[("content-length", b"+0")])),
        ("lengths joined", post(&[("content-length", b"0, 0")])),
        ("a length that promises more", post(&[("content-length", b"5")])),
        ("a pseudo-field behind others", post(&[("x", b"a"), (":path", b"/hostile")])),
        ("an unknown pseudo-field", post(&[(":x", b"a")])),
        ("a status", post(&[(":status", b"200")])),
        ("two methods", pseudo(&[":method", ":method", ":scheme", ":authority", ":path"])),
        ("two paths", pseudo(&[":method", ":scheme", ":authority", ":path", ":path"])),
        ("two authorities", pseudo(&[":method", ":scheme", ":authority", ":authority", ":path"])),
        ("no method", pseudo(&[":scheme", ":authority", ":path"])),
        ("no scheme", pseudo(&[":method", ":authority", ":path"])),
        ("no path", pseudo(&[":method", ":scheme", ":authority"])),
        ("no host at all", pseudo(&[":method", ":scheme", ":path"])),
        ("a blank in the path", changed(":path", b"/hostile x HTTP/1.1")),
        ("CR LF in the path", changed(":path", b"/hostile\r\nx: y")),
        ("a path that is none", changed(":path", b"hostile")),
        ("an empty path", changed(":path", b"")),
        ("a backslash in the path", changed(":path", b"/hostile\\x")),
        ("a blank in the method", changed(":method", b"GET /smuggled")),
        ("an empty method", changed(":method", b"")),
        ("user information", changed(":authority", b"evil@hello.staging.example.com")),
        ("a path in the authority", changed(":authority", b"hello.staging.example.com/x")),
        ("CR LF in the authority", changed(":authority", b"hello.staging.example.com\r\nx: y")),
        ("an empty authority", changed(":authority", b"")),
        ("a scheme that is none", changed(":scheme", b"x\r\ny")),
    ];
    let mut mistakes = Vec::new();
    for (what, fields) in cases {
        let mut frames = Frames::connect(site.proxy.http, &[]).await;
        frames.open(1, END_STREAM, &fields).await;
        let ended = frames.ended(1).await;
        if !matches!(ended, Ended::Reset | Ended::Closed | Ended::Answered(400)) {
            mistakes.push(format!("{what}: {ended:?}"));
        }
        site.serves(what).await;
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    let seen = site.upstream.all();
    assert!(!seen.contains("hostile") && !seen.contains("smuggled"), "{seen}");
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h24_a_body_is_as_long_as_it_says_and_trailers_end_it() {
    let site = Site::start(Recorder::ok().await).await;
    // More than was announced, less than was announced, and trailers that do not end the stream.
    for case in 0..3 {
        let mut frames = Frames::connect(site.proxy.http, &[]).await;
        frames.open(1, 0, &post(&[("content-length", b"5")])).await;
        match case {
            0 => frames.send(DATA, END_STREAM, 1, b"hello and more").await,
            1 => frames.send(DATA, END_STREAM, 1, b"hel").await,
            _ => {
                frames.send(DATA, 0, 1, b"hello").await;
                frames.open(1, 0, &[(b"x", b"y")]).await;
            }
        }
        let ended = frames.ended(1).await;
        assert!(matches!(ended, Ended::Reset | Ended::Closed | Ended::Answered(400)), "{case}: {ended:?}");
        site.serves("a body that lies").await;
    }
    let seen = site.upstream.all();
    assert!(!seen.contains("and more"), "{seen}");
    // What was announced is what the upstream was told, so half of it can be taken for nothing else.
    assert!(!seen.contains("transfer-encoding"), "{seen}");
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h40_a_path_of_http_2_is_forwarded_byte_for_byte_or_refused() {
    let site = Site::start(Recorder::ok().await).await;
    for (_, target) in table("h40_forwarded.txt") {
        let shown = target.escape_ascii().to_string();
        let mut frames = Frames::connect(site.proxy.http, &[]).await;
        let mut fields: Vec<(&[u8], &[u8])> = request("GET", b"");
        fields[3].1 = &target;
        frames.open(1, END_STREAM, &fields).await;
        let ended = frames.ended(1).await;
        let seen = site.upstream.count(&format!("GET {} HTTP/1.1\r\n", String::from_utf8_lossy(&target)));
        let refused = matches!(ended, Ended::Reset | Ended::Closed | Ended::Answered(400));
        assert!((ended == Ended::Answered(200) && seen == 1) || (refused && seen == 0), "{shown}: {ended:?}, {seen}");
    }
    assert!(site.upstream.count("GET ") > 20, "most of them are served");
    site.is_as_before().await;
}
