use super::*;
use crate::codec::testing::{connection, head};
use crate::codec::told::Calls;
use crate::request_id::RequestId;

fn prepare(text: &str, trusted: &[&str], protocol: Protocol) -> Prepared {
    let inbound = Box::new(Inbound { head: head(text), upload: Upload::nothing(), upgrade: None });
    let id = RequestId::given(b"id").expect("a name");
    let told = Told::new(inbound.head.view(), connection("192.0.2.7", trusted), id, Calls::default());
    Prepared::new(inbound, None, told, protocol, Scheme::HTTP).expect("it can be written")
}

/// The lines that go to an HTTP/1 endpoint.
fn sent_http1(text: &str, trusted: &[&str]) -> Vec<String> {
    let Prepared::Http1(mut outgoing) = prepare(text, trusted, Protocol::Http1) else { panic!("not prepared: {text}") };
    let mut out = Vec::new();
    outgoing.parts().0.write(Framing::Length(0), &mut out);
    let text = String::from_utf8(out).expect("text");
    let lines = text.strip_suffix("\r\n\r\n").expect("a head's end");
    lines.split("\r\n").map(str::to_owned).collect()
}

/// The fields that go to an HTTP/2 endpoint.
fn sent_http2(text: &str) -> Vec<String> {
    let Prepared::Http2(Some(request)) = prepare(text, &[], Protocol::Http2) else { panic!("not prepared: {text}") };
    let fields = request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")));
    // A map has no order between names.
    let mut lines: Vec<String> = fields.collect();
    lines.sort();
    lines.insert(0, format!("{} {}", request.method(), request.uri()));
    lines
}

const TRACE: &str = "traceparent: 00-00000000000000000000000000000001-0000000000000001-00";
const OURS: [&str; 7] = [
    "x-forwarded-for: 192.0.2.7",
    "forwarded: for=192.0.2.7;host=\"a\";proto=https",
    "x-forwarded-proto: https",
    "x-forwarded-host: a",
    "x-forwarded-port: 443",
    "x-request-id: id",
    TRACE,
];

/// These and ours, as a map has them.
fn with_ours(fields: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = fields.iter().chain(&OURS).map(|line| (*line).to_owned()).collect();
    all.sort();
    all
}

#[test]
fn a_request_goes_on_as_it_came() {
    let lines = sent_http1("GET /x?y=z HTTP/1.1\nHost: a\nAccept: b\naccept: c\nX-Empty: ", &[]);
    assert_eq!(lines[..5], ["GET /x?y=z HTTP/1.1", "host: a", "accept: b", "accept: c", "x-empty: "]);
    assert_eq!(lines[5..], OURS);
    let lines = sent_http1("GET http://a/x HTTP/1.1\nhost: a", &[]);
    assert_eq!(lines[..2], ["GET /x HTTP/1.1", "host: a"]);
    let lines = sent_http1("POST https://a/x HTTP/2\ncontent-length: 0\ncookie: a=1\naccept: b\ncookie: c=2", &[]);
    assert_eq!(lines[..5], ["POST /x HTTP/1.1", "host: a", "accept: b", "cookie: a=1; c=2", "content-length: 0"]);
    let lines = sent_http2("GET /x?y=z HTTP/1.1\nHost: a\nAccept: b");
    assert_eq!(lines[0], "GET http://a/x?y=z");
    assert_eq!(lines[1..], with_ours(&["accept: b"]));
}

#[test]
fn hostile_h08_what_connection_names_goes_and_identity_stays() {
    let fields = "connection: close, x-custom, authorization, X-Forwarded-For, cookie, host\nx-custom: 1\n\
        authorization: b\ncookie: c\nkeep-alive: 5\nproxy-connection: x\nproxy-authorization: y\nupgrade: websocket\n\
        te: trailers, gzip\naccept: d\nhttp2-settings: z";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"), &[]);
    let kept = ["host: a", "authorization: b", "cookie: c", "accept: d", "te: trailers", "connection: te"];
    assert_eq!(lines[1..7], kept);
    assert_eq!(lines[7..], OURS);
    let lines = sent_http2(&format!("GET / HTTP/1.1\nhost: a\n{fields}"));
    assert_eq!(lines[1..], with_ours(&["accept: d", "authorization: b", "cookie: c", "te: trailers"]));
}

#[test]
fn hostile_h41_no_copy_of_ours_passes() {
    let fields = "X-Forwarded-For: 1\nx_forwarded_for: 2\nx.forwarded.host: 3\nX-FORWARDED-PROTO: 4\nForwarded: 5\n\
        x-forwarded-for: 6\naccept: d\nX-Request-Id: 7\nx_request_id: 8\nx-forwarded-port: 9\nx-real-ip: 10\n\
        X-Api-Key: 11\nx_api_key: 12\nX.Api.Key: 13\nX-Pointsman-Assertion: 14\nx_pointsman_assertion: 15\n\
        x.pointsman.user: 16\nConnection: x-api-key, x-pointsman-assertion";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"), &[]);
    assert_eq!(lines[1..], [&["host: a", "accept: d"][..], &OURS].concat());
    let (one, two) = (format!("GET / HTTP/1.1\nhost: a\n{fields}"), fields.to_lowercase());
    let two = two.rsplit_once('\n').expect("lines").0;
    for text in [one, format!("GET https://a/ HTTP/2\n{two}")] {
        assert_eq!(sent_http2(&text)[1..], with_ours(&["accept: d"]), "{text}");
    }
}

#[test]
fn hostile_h43_a_trusted_peer_is_believed_and_named() {
    let fields = "x-forwarded-for: 6.6.6.6, 198.51.100.9, 192.0.2.8\nx-forwarded-proto: http\nx-forwarded-host: b.example\n\
        x-forwarded-port: 80";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"), &["192.0.2.0/24"]);
    let told = [
        "host: a",
        "x-forwarded-for: 198.51.100.9, 192.0.2.8, 192.0.2.7",
        "forwarded: for=198.51.100.9, for=192.0.2.8, for=192.0.2.7;host=\"b.example\";proto=http",
        "x-forwarded-proto: http",
        "x-forwarded-host: b.example",
        "x-forwarded-port: 80",
        "x-request-id: id",
        TRACE,
    ];
    assert_eq!(lines[1..], told);
    let untrusted = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"), &["10.0.0.0/8"]);
    assert_eq!(untrusted[2..], OURS);
}

#[test]
fn a_trace_goes_on_and_one_that_is_none_begins_anew() {
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{trace}\ntracestate: x=y"), &[]);
    assert_eq!(lines[2..4], [trace, "tracestate: x=y"]);
    assert!(!lines.contains(&TRACE.to_owned()));
    for fields in ["traceparent: evil\ntracestate: x=y".to_owned(), format!("{trace}\n{trace}\ntracestate: x=y")] {
        let lines = sent_http1(&format!("GET / HTTP/1.1\nhost: a\n{fields}"), &[]);
        assert_eq!(lines[1..], [&["host: a"][..], &OURS].concat(), "{fields}");
    }
}

#[test]
fn an_endpoint_is_told_who_calls_once_and_by_us_and_gets_no_token_that_was_for_us() {
    let text = "GET / HTTP/1.1\nhost: a\nauthorization: Bearer x\nx-pointsman-assertion: forged\naccept: d";
    for (spent, kept) in [(true, &["accept: d"][..]), (false, &["authorization: Bearer x", "accept: d"][..])] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let inbound = Box::new(Inbound { head: head(text), upload: Upload::nothing(), upgrade: None });
            let id = RequestId::given(b"id").expect("a name");
            let calls = Calls { assertion: Some("signed".into()), spent_authorization: spent };
            let told = Told::new(inbound.head.view(), connection("192.0.2.7", &[]), id, calls);
            let prepared = Prepared::new(inbound, None, told, protocol, Scheme::HTTP).expect("it can be written");
            let mut lines: Vec<String> = match prepared {
                Prepared::Http1(mut outgoing) => {
                    let mut out = Vec::new();
                    outgoing.parts().0.write(Framing::Length(0), &mut out);
                    let text = String::from_utf8(out).expect("text");
                    text.lines().skip(2).filter(|line| !line.is_empty()).map(str::to_owned).collect()
                }
                Prepared::Http2(request) => {
                    let request = request.expect("it is here");
                    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
                    request.headers().iter().map(|(name, value)| format!("{name}: {}", text(value))).collect()
                }
            };
            lines.sort();
            let expected = [kept, &["x-pointsman-assertion: signed"]].concat();
            assert_eq!(lines, with_ours(&expected), "{protocol:?}");
        }
    }
}
