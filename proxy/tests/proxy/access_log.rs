//! The access log of a real proxy: one line for each request that ends, whatever was asked.

use std::path::Path;

use proxy::LogTarget;
use serde_json::Value;

use crate::recorder::{OK, Recorder};
use crate::site::Site;
use crate::support::{Client, HOST, until};

/// The lines, each JSON.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn logging(upstream: Recorder, path: &Path) -> Site {
    let target = LogTarget::File(path.to_owned());
    Site::with(upstream, |settings| settings.access_log = Some(target)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_log_has_a_line_for_each_request_with_what_became_of_it() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("access.log");
    let upstream =
        Recorder::answering(|head| if head.contains("/bad") { "nonsense\r\n\r\n".into() } else { OK.into() });
    let site = logging(upstream.await, &path).await;
    let served = site.asks("GET /a?b HTTP/1.1", "User-Agent: curl/8\r\nConnection: close\r\n").await;
    assert_eq!(Client::http2(site.proxy.http).await.get(HOST, "/two").await.status, 200);
    site.asks("GET /bad HTTP/1.0", "").await;
    site.says("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").await;
    site.says("GET / HTTP/1.1\r\nHost: a b\r\n\r\n").await;
    site.says(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5, 5\r\n\r\n")).await;
    site.says(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n")).await;
    until("all lines are there", || lines(&path).len() == 7).await;
    let lines = lines(&path);
    let find = |name: &str, value: &str| {
        lines.iter().find(|line| line[name] == value).unwrap_or_else(|| panic!("no {name} {value}: {lines:?}"))
    };
    let first = find("target", "/a?b");
    for (name, expected) in [
        ("method", "GET"),
        ("version", "1.1"),
        ("scheme", "http"),
        ("host", HOST),
        ("client", "127.0.0.1"),
        ("user_agent", "curl/8"),
        ("stage", "hello/staging"),
        ("upstream", &site.upstream.address.to_string()),
        ("request_id", &served.field("x-request-id").expect("a name")),
    ] {
        assert_eq!(first[name], expected, "{first}");
    }
    assert_eq!((&first["status"], &first["release"]), (&200.into(), &1.into()), "{first}");
    assert_eq!(first["placed"], "weight", "{first}");
    assert!(first["us"].is_u64() && first["time"].is_string(), "{first}");
    assert_eq!(find("target", "/two")["version"], "2");
    let bad = find("target", "/bad");
    assert_eq!((&bad["status"], &bad["why"]), (&502.into(), &"The service did not answer properly".into()), "{bad}");
    let nobody = find("host", "nobody.example");
    assert_eq!((&nobody["why"], nobody.get("placed")), (&"no stage has this host".into(), None), "{nobody}");
    // What was no request has no target, but a status and a reason.
    for (why, status) in [
        ("the host is not a name", 400),
        ("content-length is not a number", 400),
        ("The request's body is malformed or was cut", 400),
    ] {
        assert_eq!(find("why", why)["status"], status);
    }
}

#[tokio::test]
async fn hostile_h48_nothing_that_a_client_says_breaks_a_line_of_the_log() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("access.log");
    let site = logging(Recorder::ok().await, &path).await;
    for agent in
        [&b"a\"},{\"status\":200,\"x\":\""[..], b"\\", b"\xff\xfe\x9b31m", b"tab\there", "ü\u{2028}".as_bytes()]
    {
        let head = format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nUser-Agent: ", "%0a%1b[31m\"'<>");
        site.says([head.as_bytes(), agent, b"\r\n\r\n"].concat()).await;
    }
    until("all lines are there", || lines(&path).len() == 5).await;
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{text:?}");
    for line in lines(&path) {
        assert_eq!(line["target"], "/%0a%1b[31m\"'<>", "{line}");
        assert!(line.get("x").is_none() && line["user_agent"].is_string(), "{line}");
    }
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h63_a_log_on_a_full_disk_loses_lines_which_are_counted_and_no_request() {
    let site = logging(Recorder::ok().await, Path::new("/dev/full")).await;
    let mut client = Client::http1(site.proxy.http).await;
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    let lost = async || {
        let metrics = Client::http1(site.proxy.admin).await.get("admin", "/metrics").await.body;
        metrics.lines().any(|line| line == "pointsman_proxy_access_log_dropped_total 5")
    };
    let begun = std::time::Instant::now();
    while !lost().await {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "five lines are never counted");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(client.get(HOST, "/").await.status, 200);
    drop(client);
    site.is_as_before().await;
}
