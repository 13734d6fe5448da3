use std::net::SocketAddr;

use super::*;
use crate::codec::testing::head;
use crate::deadline::Deadlines;
use crate::settings::Limits;

fn connection() -> Rc<Connection> {
    let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
    Rc::new(Connection::new(peer, true, Rc::new(Limits::default()), Deadlines::new(), Rc::default()))
}

fn inbound(text: &str) -> Inbound {
    Inbound { head: head(text), upload: Upload::nothing(), upgrade: None }
}

/// The lines that go to an HTTP/1 endpoint.
fn sent_http1(text: &str) -> Vec<String> {
    let Ok(Prepared::Http1(outgoing)) = Prepared::new(inbound(text), None, &connection(), Protocol::Http1) else {
        panic!("not prepared: {text}");
    };
    let mut out = Vec::new();
    outgoing.head.write(Framing::Length(0), &mut out);
    let text = String::from_utf8(out).expect("text");
    let lines = text.strip_suffix("\r\n\r\n").expect("a head's end");
    lines.split("\r\n").map(str::to_owned).collect()
}

/// The fields that go to an HTTP/2 endpoint.
fn sent_http2(text: &str) -> Vec<String> {
    let prepared = Prepared::new(inbound(text), None, &connection(), Protocol::Http2);
    let Ok(Prepared::Http2(Some(request))) = prepared else { panic!("not prepared: {text}") };
    let fields = request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
    // A map has no order between names.
    let mut lines: Vec<String> = fields.collect();
    lines.sort();
    lines.insert(0, format!("{} {}", request.method(), request.uri()));
    lines
}

const OURS: [&str; 3] = ["x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https", "x-forwarded-host: a"];

#[test]
fn a_request_goes_on_as_it_came() {
    let lines = sent_http1("GET /x?y=z HTTP/1.1\nHost: a\nAccept: b\naccept: c\nX-Empty: ");
    assert_eq!(lines[..5], ["GET /x?y=z HTTP/1.1", "host: a", "accept: b", "accept: c", "x-empty: "]);
    assert_eq!(lines[5..], OURS);
    let lines = sent_http1("GET http://a/x HTTP/1.1\nhost: a");
    assert_eq!(lines[..2], ["GET /x HTTP/1.1", "host: a"]);
    let lines = sent_http1("POST https://a/x HTTP/2\ncontent-length: 0\ncookie: a=1\naccept: b\ncookie: c=2");
    assert_eq!(lines[..5], ["POST /x HTTP/1.1", "host: a", "accept: b", "cookie: a=1; c=2", "content-length: 0"]);
    let lines = sent_http2("GET /x?y=z HTTP/1.1\nHost: a\nAccept: b");
    assert_eq!(lines[..2], ["GET http://a/x?y=z", "accept: b"]);
}

#[test]
fn hostile_h08_what_connection_names_goes_and_identity_stays() {
    let fields = "connection: close, x-custom, authorization, X-Forwarded-For, cookie, host\nx-custom: 1\n\
        authorization: b\ncookie: c\nkeep-alive: 5\nproxy-connection: x\nproxy-authorization: y\nupgrade: websocket\n\
        te: trailers, gzip\naccept: d\nhttp2-settings: z";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"));
    let kept = ["host: a", "authorization: b", "cookie: c", "accept: d", "te: trailers", "connection: te"];
    assert_eq!(lines[1..7], kept);
    assert_eq!(lines[7..], OURS);
    let lines = sent_http2(&format!("GET / HTTP/1.1\nhost: a\n{fields}"));
    let kept = ["accept: d", "authorization: b", "cookie: c", "te: trailers"];
    assert_eq!(lines[1..5], kept);
}

#[test]
fn hostile_h41_no_copy_of_ours_passes() {
    let fields = "X-Forwarded-For: 1\nx_forwarded_for: 2\nx.forwarded.host: 3\nX-FORWARDED-PROTO: 4\nForwarded: 5\n\
        x-forwarded-for: 6\naccept: d";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"));
    assert_eq!(lines[1..], [&["host: a", "accept: d"][..], &OURS].concat());
    for text in
        [format!("GET / HTTP/1.1\nhost: a\n{fields}"), format!("GET https://a/ HTTP/2\n{}", fields.to_lowercase())]
    {
        let mut expected = [&["accept: d"][..], &OURS].concat();
        expected.sort_unstable();
        assert_eq!(sent_http2(&text)[1..], expected, "{text}");
    }
}
