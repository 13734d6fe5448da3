//! Zones that are for https: requests in clear are sent there, and browsers are told to remember it.

use api::fleet::{Https, Protocol, Resource, Zone};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::recorder::Recorder;
use crate::site::Site;
use crate::support::{Body, Client, HOST, hello, raw, resource, set};
use crate::tls::{https_with, shaken};

fn zone(redirect_port: u32, hsts_seconds: u32) -> Resource {
    let https = Some(Https { redirect_port, hsts_seconds });
    let zone = Zone { environment: "staging".into(), domain: "staging.example.com".into(), https, ..Zone::default() };
    Resource { schema: api::SCHEMA_HTTPS, ..resource("zone", "staging.example.com", &zone) }
}

/// What a hidden stage would be asked as well: a host that leads nowhere, a release that is none.
const HOSTS: [&str; 3] = [HOST, "nobody.staging.example.com", "r9--hello.staging.example.com"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_sends_every_host_of_the_zone_to_https() {
    let folder = tempfile::tempdir().expect("folder");
    for port in [443, 8443] {
        let (proxy, upstream, _) = https_with(&folder.path().join(port.to_string()), zone(port, 0)).await;
        let shown = if port == 443 { String::new() } else { format!(":{port}") };
        let mut told = std::collections::HashSet::new();
        for host in HOSTS {
            for (line, path) in [
                ("GET /a?b=c%20d HTTP/1.1", "/a?b=c%20d"),
                ("POST //evil.example/ HTTP/1.1", "//evil.example/"),
                ("OPTIONS * HTTP/1.1", "/"),
                ("GET / HTTP/1.0", "/"),
                ("HEAD /h HTTP/1.1", "/h"),
            ] {
                let upper = host.to_uppercase();
                let request = format!("{line}\r\nHost: {upper}.:80\r\nConnection: close\r\n\r\n");
                let answer = raw(proxy.http, request.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{line} {answer}");
                let location = format!("\r\nlocation: https://{host}{shown}{path}\r\n");
                assert!(answer.contains(&location), "{line}: {location} in {answer}");
                assert!(!answer.contains("strict-transport-security"), "RFC 6797 §7.2: {answer}");
                let id = answer.split("x-request-id: ").nth(1).expect("a name")[..32].to_owned();
                told.insert((line, answer.replace(&id, "ID").replace(host, "HOST")));
            }
            let answer = Client::http2(proxy.http).await.get(host, "/x").await;
            assert_eq!((answer.status, answer.body.as_str()), (308, "This host is served over https only\n"));
            assert_eq!(answer.headers["location"], format!("https://{host}{shown}/x"));
        }
        assert_eq!(told.len(), 5, "a host that leads nowhere is told the same, byte for byte: {told:?}");
        // A gRPC client follows no redirects, and is told in its own words.
        let mut client = Client::http2(proxy.http).await;
        let answer = client.post("/call", "application/grpc", vec![]).await;
        assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"9".parse().expect("a value")));
        // Elsewhere nothing is known of https.
        assert_eq!(client.get("hello.example.com", "/").await.status, 404);
        assert_eq!(upstream.requests(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_is_remembered_over_tls_only_and_said_once() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = https_with(folder.path(), zone(443, 31_536_000)).await;
    const SAID: &str = "max-age=31536000";
    for host in HOSTS {
        let mut stream = shaken(proxy.https(), roots.clone(), "http/1.1", host).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let line = format!("\r\nstrict-transport-security: {SAID}\r\n");
        assert_eq!(answer.matches("strict-transport-security").count(), 1, "{answer}");
        assert!(answer.contains(&line), "{answer}");
        let io = TokioIo::new(shaken(proxy.https(), roots.clone(), "h2", host).await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), io).await.expect("ready");
        tokio::spawn(connection);
        let answer = Client::Http2(sender).get(host, "/").await;
        assert_eq!(answer.headers.get_all("strict-transport-security").iter().collect::<Vec<_>>(), [SAID], "{host}");
    }
    assert_eq!(upstream.requests(), 2, "served, and not sent away");
}

#[tokio::test]
async fn redirect_believes_trusted_peers_that_end_tls() {
    let said = "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\ncontent-length: 2\r\n\r\nok";
    let upstream = Recorder::answering(|_| said.into()).await;
    let address = upstream.address;
    let trusts = |settings: &mut proxy::Settings| {
        settings.trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    };
    let (trusting, other) = (Site::with(upstream, trusts).await, Site::start(Recorder::ok().await).await);
    for site in [&trusting, &other] {
        let mut state = hello(Protocol::H1, &[(1, address, 1)]).upserts;
        state.retain(|resource| resource.kind != "zone");
        state.push(zone(443, 60));
        site.proxy.apply(set(state));
    }
    let told = "X-Forwarded-Proto: https\r\n";
    let answer = trusting.asks("GET / HTTP/1.1", told).await;
    assert_eq!((answer.status, answer.field("strict-transport-security").as_deref()), (200, Some("max-age=60")));
    assert_eq!(trusting.asks("GET / HTTP/1.1", "").await.status, 308);
    assert_eq!(other.asks("GET / HTTP/1.1", told).await.status, 308, "anybody can write that");
}
