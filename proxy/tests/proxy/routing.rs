//! Hosts lead where they should, and nowhere else; heads are what we say they are.

use api::fleet::Protocol;
use http::HeaderMap;

use crate::support::{Client, HOST, TestProxy, Upstream, hello, raw, set, settings, stage, zone};

fn one(headers: &HeaderMap, name: &str) -> String {
    let all: Vec<&http::HeaderValue> = headers.get_all(name).iter().collect();
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all[0].to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_hosts_and_releases() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 2).await;
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    proxy.apply(hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 0)]));
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        assert_eq!(client.get(HOST, "/").await.body, "r1");
        assert_eq!(client.get("HELLO.staging.example.com:8080", "/").await.body, "r1");
        assert_eq!(client.get("r1--hello.staging.example.com", "/").await.body, "r1");
        // A release without weight is reached by its own host.
        assert_eq!(client.get("r2--hello.staging.example.com", "/").await.body, "r2");
        for unknown in ["r3--hello.staging.example.com", "nobody.staging.example.com", "example.com", "127.0.0.1"] {
            assert_eq!(client.get(unknown, "/").await.status, 404, "{unknown}");
        }
    }
    assert_eq!((r1.requests(), r2.requests()), (6, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_unknown_hosts_get_fixed_bytes() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(set(vec![zone()]));
    let fixed = "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 10\r\n";
    for host in ["a.staging.example.com", "b.example.com", "r1--c.staging.example.com"] {
        let answer =
            raw(proxy.http, format!("GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        // But for the request's name, which says nothing.
        let rest = answer.strip_prefix(&format!("{fixed}x-request-id: ")).expect("the fixed part");
        let (id, rest) = rest.split_at(policies::credential::denial::LENGTH);
        assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{id}");
        assert_eq!(rest, "\r\nconnection: close\r\n\r\nNot found\n", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_without_a_snapshot_nothing_is_served_as_if_it_were_right() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let mut client = Client::http1(proxy.http).await;
    let answer = client.get(HOST, "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "This proxy has no routes yet\n"));
    let mut admin = Client::http1(proxy.admin).await;
    assert_eq!(admin.get("admin", "/readyz").await.status, 503);
    assert_eq!(admin.get("admin", "/healthz").await.status, 200);
    proxy.apply(set(vec![zone(), stage("hello/staging", Protocol::H1, &[1])]));
    assert_eq!(admin.get("admin", "/readyz").await.body, "serving 1.1\n");
    let answer = client.get(HOST, "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "Nothing serves here now\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_hostile_h41_the_upstream_sees_one_of_each_and_it_is_ours() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    let request = format!(
        "GET /a/%2e%2e/b?q=1;2 HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 7.7.7.7\r\n\
         X-FORWARDED-HOST: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=1\r\nConnection: close, authorization, x-gone\r\n\
         Authorization: Bearer x\r\nx-gone: 1\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n"
    );
    assert!(raw(proxy.http, request.as_bytes()).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let (uri, headers) = upstream.last();
    assert_eq!(uri.to_string(), "/a/%2e%2e/b?q=1;2");
    assert_eq!(one(&headers, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(one(&headers, "x-forwarded-proto"), "http");
    assert_eq!(one(&headers, "x-forwarded-host"), HOST);
    assert_eq!(one(&headers, "host"), HOST);
    assert_eq!(one(&headers, "authorization"), "Bearer x");
    assert_eq!(one(&headers, "connection"), "te", "ours, which a TE has to have (RFC 9110 §10.1.4)");
    assert_eq!(one(&headers, "forwarded"), format!("for=127.0.0.1;host=\"{HOST}\";proto=http"));
    assert_eq!(one(&headers, "x-forwarded-port"), proxy.http.port().to_string());
    assert_eq!(one(&headers, "x-request-id").len(), 32);
    for gone in ["x_forwarded_for", "x-gone", "upgrade"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_hostile_heads_never_reach_the_upstream() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    for (status, head) in [
        ("400", "GET / HTTP/1.1\r\n".to_owned()),
        ("400", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n")),
        ("400", format!("GET / HTTP/1.1\r\nHost: user@{HOST}\r\n")),
        ("400", format!("GET http://other/ HTTP/1.1\r\nHost: {HOST}\r\n")),
        ("400", format!("GET /a\\b HTTP/1.1\r\nHost: {HOST}\r\n")),
        ("400", format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nContent-Length: 6\r\n")),
        ("400", format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: identity, chunked\r\n")),
        ("400", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: \u{fc}\r\n")),
        ("405", format!("TRACE / HTTP/1.1\r\nHost: {HOST}\r\n")),
        ("501", format!("CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}:80\r\n")),
        ("414", format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n", "x".repeat(9_000))),
        ("431", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\n", "x".repeat(33_000))),
        ("431", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}", "a: b\r\n".repeat(101))),
    ] {
        let answer = raw(proxy.http, format!("{head}\r\n").as_bytes()).await;
        let shown: String = head.chars().take(80).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{shown}: {answer}");
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(Client::http1(proxy.http).await.get(HOST, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_bodies_pass_in_both_directions() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        let piece = bytes::Bytes::from(vec![b'x'; 100_000]);
        let body = (0..10).map(|_| hyper::body::Frame::data(piece.clone())).collect();
        let answer = client.post("/echo", "text/plain", body).await;
        assert_eq!((answer.status, answer.body.len()), (200, 1_000_000));
        assert!(
            !answer.headers.contains_key("connection") && !answer.headers.contains_key("transfer-encoding")
                || matches!(client, Client::Http1(_))
        );
        let head = client.request(HOST, "/").method("HEAD").body(crate::support::fed().1).expect("a request");
        assert_eq!(client.send(head).await.expect("answered").status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_metrics_tell_what_happened() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 2).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    let mut client = Client::http1(proxy.http).await;
    client.count(5).await;
    assert_eq!(client.get(HOST, "/error").await.status, 500);
    assert_eq!(client.get(HOST, "/break").await.status, 502);
    client.get("nobody.example", "/").await;
    let text = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let labels = "{stage=\"hello/staging\",release=\"r1\"";
    for line in [
        format!("pointsman_proxy_requests_total{labels},class=\"2xx\"}} 5"),
        format!("pointsman_proxy_requests_total{labels},class=\"5xx\"}} 1"),
        format!("pointsman_proxy_unanswered_total{labels}}} 1"),
        format!("pointsman_proxy_outstanding{labels}}} 0"),
        format!("pointsman_proxy_request_duration_seconds_count{labels}}} 6"),
        "pointsman_proxy_refused_total{reason=\"unknown_host\"} 1".to_owned(),
        "pointsman_proxy_snapshot_number 1".to_owned(),
        format!("pointsman_proxy_endpoint_healthy{labels},address=\"{}\"}} 1", upstream.address),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_a_port_or_folder_in_use_is_one_clear_sentence() {
    let (one, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let proxy = TestProxy::start(one.path(), 1).await;
    let error = proxy::Engine::start(settings(one.path(), 1)).await.expect_err("in use");
    assert_eq!(error.to_string(), format!("{} is in use by another proxy", one.path().display()));
    let taken = proxy::Settings { http: Some(proxy.http), ..settings(other.path(), 1) };
    let error = proxy::Engine::start(taken).await.expect_err("in use");
    assert_eq!(error.to_string(), format!("cannot listen on {}: the port is in use by another process", proxy.http));
    let listening = std::fs::read_to_string(one.path().join("listening.json")).expect("written");
    assert!(listening.contains(&format!("\"http\":\"{}\"", proxy.http)), "{listening}");
}
