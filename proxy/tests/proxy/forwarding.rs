//! What an endpoint is told of a request: what the client said, but for what ends here and what only we may say.

use api::fleet::Protocol;

use crate::recorder::{OK, Recorder, field, fields};
use crate::site::Site;
use crate::support::{Client, HOST, Upstream, hello};
use crate::wire::table;

/// The head that the upstream got of a request with these fields.
async fn head_of(site: &Site, line: &str, fields: &str) -> String {
    let answer = site.asks(line, &format!("{fields}Connection: close\r\n")).await;
    assert_eq!(answer.status, 200, "{fields}: {answer:?}");
    let seen = site.upstream.all();
    let at = seen.rfind(line.split(' ').next().expect("a method")).expect("a request");
    seen[at..].to_owned()
}

/// One of each, and ours.
fn is_ours(head: &str, port: u16) {
    for (name, value) in [
        ("host", HOST.to_owned()),
        ("x-forwarded-for", "127.0.0.1".into()),
        ("x-forwarded-proto", "http".into()),
        ("x-forwarded-host", HOST.into()),
        ("x-forwarded-port", port.to_string()),
        ("forwarded", format!("for=127.0.0.1;host=\"{HOST}\";proto=http")),
    ] {
        assert_eq!(fields(head, name).collect::<Vec<_>>(), [value], "{name} in {head}");
    }
    assert_eq!(field(head, "x-request-id").expect("a name").len(), 32, "{head}");
    assert!(!head.contains("evil"), "{head}");
}

fn names() -> Vec<String> {
    table("h41_names.txt").into_iter().map(|(_, name)| String::from_utf8(name).expect("text")).collect()
}

#[tokio::test]
async fn hostile_h41_no_spelling_of_what_we_say_passes() {
    let site =
        Site::start(Recorder::answering(|_| OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await).await;
    let port = site.proxy.http.port();
    for name in names() {
        let twice = format!("{name}: evil\r\n{name}: evil, evil\r\n");
        is_ours(&head_of(&site, "GET /one HTTP/1.1", &twice).await, port);
        let named = format!("{name}: evil\r\nConnection: {name}\r\nTE: trailers\r\n");
        is_ours(&head_of(&site, "GET /named HTTP/1.1", &named).await, port);
    }
    let all: String = names().iter().map(|name| format!("{name}: evil\r\n")).collect();
    is_ours(&head_of(&site, "GET /all HTTP/1.1", &all).await, port);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h41_no_spelling_of_it_passes_in_trailers() {
    let site = Site::start(Recorder::ok().await).await;
    for names in names().chunks(20) {
        let mut wire = site.wire().await;
        wire.ask("POST /trailers HTTP/1.1", "Transfer-Encoding: chunked\r\nTE: trailers\r\n").await;
        let trailers: String = names.iter().map(|name| format!("{name}: evil\r\n")).collect();
        wire.send(format!("0\r\nx-good: 1\r\n{trailers}\r\n")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200);
    }
    let seen = site.upstream.all();
    assert!(!seen.contains("evil") && seen.contains("\r\n0\r\nx-good: 1\r\n\r\n"), "{seen}");
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h41_no_spelling_of_it_passes_from_http_2_or_to_it() {
    let site = Site::start(Recorder::ok().await).await;
    let h2c = Upstream::start("r1", Protocol::H2c).await;
    for _ in 0..2 {
        for mut client in [Client::http1(site.proxy.http).await, Client::http2(site.proxy.http).await] {
            let mut request = client.request(HOST, "/");
            for name in names() {
                request = request.header(name.to_ascii_lowercase(), "evil");
            }
            let request = request.body(crate::support::fed().1).expect("a request");
            assert_eq!(client.send(request).await.expect("answered").status, 200);
        }
        if h2c.requests() == 0 {
            for head in site.upstream.all().split("GET ").skip(1) {
                is_ours(head, site.proxy.http.port());
            }
        }
        site.proxy.apply(hello(Protocol::H2c, &[(1, h2c.address, 1)]));
    }
    let seen = h2c.state.seen.lock().expect("whole").clone();
    assert_eq!(seen.len(), 2);
    for (_, headers) in seen {
        assert!(headers.values().all(|value| value != "evil"), "{headers:?}");
        assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["127.0.0.1"]);
        assert_eq!(headers.get_all("x-request-id").iter().count(), 1);
    }
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h08_hop_by_hop_fields_end_here_and_what_says_who_asks_never() {
    let site = Site::start(Recorder::ok().await).await;
    let identity = "Authorization: Bearer x\r\nCookie: a=b\r\nContent-Type: text/plain\r\nX-Kept: 1\r\n";
    for connection in [
        "authorization, cookie, host, content-type, x-forwarded-for, x-request-id, forwarded, x-gone",
        "Authorization,Cookie,Host,Content-Type,X-Forwarded-For,X-Gone",
        "x-gone\r\nConnection: authorization\r\nConnection: host, cookie",
        ", ,x-gone,, authorization",
    ] {
        let hop = "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nX-Gone: 1\r\n\
                   TE: gzip, trailers\r\nTrailer: X-Sum\r\nHTTP2-Settings: AAMAAABk\r\n";
        let head = head_of(&site, "GET / HTTP/1.1", &format!("{identity}{hop}Connection: {connection}\r\n")).await;
        is_ours(&head, site.proxy.http.port());
        for (name, value) in
            [("authorization", "Bearer x"), ("cookie", "a=b"), ("content-type", "text/plain"), ("x-kept", "1")]
        {
            assert_eq!(field(&head, name).as_deref(), Some(value), "{connection}: {head}");
        }
        for name in ["keep-alive", "proxy-connection", "proxy-authorization", "x-gone", "http2-settings"] {
            assert_eq!(field(&head, name), None, "{connection}: {head}");
        }
        assert_eq!(field(&head, "te").as_deref(), Some("trailers"), "{head}");
        assert_eq!(field(&head, "connection").as_deref(), Some("te"), "{head}");
    }
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h08_hop_by_hop_fields_of_an_answer_end_here_too() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: x-gone, content-length, set-cookie, keep-alive\r\n\
                  X-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nTE: x\r\nSet-Cookie: a=b\r\n\
                  Set-Cookie: c=d\r\nX-Request-Id: theirs\r\nServer: x\r\n\r\nok";
    let site = Site::start(Recorder::answering(|_| answer.to_owned()).await).await;
    let said = site.asks("GET / HTTP/1.1", "").await;
    for name in ["x-gone", "keep-alive", "proxy-connection", "upgrade", "te", "connection"] {
        assert_eq!(said.field(name), None, "{}", said.head);
    }
    assert_eq!(fields(&said.head, "set-cookie").collect::<Vec<_>>(), ["a=b", "c=d"]);
    assert_eq!((said.text().as_str(), said.field("server").as_deref()), ("ok", Some("x")));
    assert_eq!(said.field("x-request-id").expect("ours").len(), 32);
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h42_values_joined_by_a_comma_are_values_repeated() {
    let trusted = |settings: &mut proxy::Settings| settings.trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let site = Site::with(Recorder::ok().await, trusted).await;
    for (joined, repeated) in [
        ("Connection: x-a, x-b\r\n", "Connection: x-a\r\nConnection: x-b\r\n"),
        ("X-Forwarded-For: 192.0.2.1, 127.0.0.9\r\n", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 127.0.0.9\r\n"),
        ("X-Forwarded-Proto: http, https\r\n", "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n"),
        ("Forwarded: for=192.0.2.1, for=127.0.0.9\r\n", "Forwarded: for=192.0.2.1\r\nForwarded: for=127.0.0.9\r\n"),
        ("TE: gzip, trailers\r\n", "TE: gzip\r\nTE: trailers\r\n"),
        ("Upgrade: a, b\r\nConnection: upgrade\r\n", "Upgrade: a\r\nUpgrade: b\r\nConnection: upgrade\r\n"),
    ] {
        let mut heads = Vec::new();
        for fields in [joined, repeated] {
            let head =
                head_of(&site, "GET / HTTP/1.1", &format!("X-A: 1\r\nX-B: 2\r\nX-Request-Id: same\r\n{fields}")).await;
            heads.push(
                head.lines().filter(|line| !line.starts_with("traceparent")).map(str::to_owned).collect::<Vec<_>>(),
            );
        }
        assert_eq!(heads[0], heads[1], "{joined}");
    }
    // Two values where there may be one are refused in either form.
    for two in ["Expect: 100-continue, x\r\n", "Expect: 100-continue\r\nExpect: x\r\n"] {
        assert_eq!(site.asks("POST / HTTP/1.1", two).await.status, 417, "{two}");
    }
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h05_a_host_has_one_form_everywhere() {
    let site = Site::start(Recorder::ok().await).await;
    let port = site.proxy.http.port();
    for (target, host, expected) in [
        ("/", "HELLO.Staging.Example.COM", HOST.to_owned()),
        ("/", "hello.staging.example.com.", HOST.into()),
        ("/", "Hello.staging.example.com.:8080", format!("{HOST}:8080")),
        ("http://hello.staging.example.com/", HOST, HOST.into()),
        ("HTTP://HELLO.staging.example.com./", "hello.STAGING.example.com", HOST.into()),
        ("https://hello.staging.example.com", HOST, HOST.into()),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(site.says(request).await.expect("an answer").status, 200, "{target} {host}");
        let seen = site.upstream.all();
        let head = &seen[seen.rfind("GET ").expect("a request")..];
        assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(head, "host").as_ref(), Some(&expected), "{host}");
        assert_eq!(field(head, "x-forwarded-host").as_ref(), Some(&expected), "{host}");
        assert_eq!(field(head, "forwarded"), Some(format!("for=127.0.0.1;host=\"{expected}\";proto=http")), "{host}");
        assert_eq!(field(head, "x-forwarded-port"), Some(port.to_string()), "{host}");
    }
    site.is_as_before().await;
}

#[tokio::test]
async fn hostile_h10_methods_that_are_served_pass_as_they_are() {
    let site = Site::start(Recorder::ok().await).await;
    for line in ["PURGE /x", "M-SEARCH /x", "get /x", "OPTIONS /y", "PROPFIND /x", "a!#$%&'*+-.^_`|~9 /x"] {
        let answer = site.asks(&format!("{line} HTTP/1.1"), "Connection: close\r\n").await;
        assert_eq!(answer.status, 200, "{line}");
        assert_eq!(site.upstream.count(&format!("{line} HTTP/1.1\r\n")), 1, "{line}");
    }
    // RFC 9112 §3.2.4: without a path the server itself is asked.
    for (target, sent) in [("", "*"), ("/", "/"), ("/x", "/x")] {
        let answer = site.asks(&format!("OPTIONS http://{HOST}{target} HTTP/1.1"), "Connection: close\r\n").await;
        assert_eq!(answer.status, 200, "{target:?}");
        assert!(site.upstream.all().contains(&format!("OPTIONS {sent} HTTP/1.1\r\n")), "{target:?}");
    }
    // One empty line before a request is passed over (RFC 9112 §2.2).
    let answer = site.says(format!("\r\nGET /y HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(answer.expect("an answer").status, 200);
    site.is_as_before().await;
}
