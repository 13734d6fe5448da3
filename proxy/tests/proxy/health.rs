//! Endpoints that fail their checks are left out, and come back.

use std::time::Duration;

use api::fleet::{Backend, HealthCheck, Protocol, ResourceSet, Stage};

use crate::support::{Client, HOST, TestProxy, Upstream, endpoints, hello, resource, set, until, weights, zone};

/// `hello/staging` at these addresses, each asked ten times a second.
fn checked(addresses: &[std::net::SocketAddr]) -> ResourceSet {
    let health = HealthCheck { http_path: "/healthz".into(), every_ms: 100, timeout_ms: 1_000, fall: 2, rise: 1 };
    let backend =
        Backend { release: 1, component: "web".into(), protocol: Protocol::H1.into(), health: Some(health), tls: None };
    let body =
        Stage { service: "hello".into(), environment: "staging".into(), backends: vec![backend], ..Stage::default() };
    set(vec![
        zone(),
        resource("stage", "hello/staging", &body),
        weights("hello/staging", &[(1, 1)]),
        endpoints("hello/staging", 1, addresses),
    ])
}

pub(crate) async fn metric(proxy: &TestProxy, address: std::net::SocketAddr) -> Option<u32> {
    let text = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let line = text.lines().find(|line| line.contains("endpoint_healthy") && line.contains(&address.to_string()))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_an_endpoint_that_fails_its_check_gets_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let good = Upstream::start("good", Protocol::H1).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    proxy.apply(checked(&[good.address, gone]));
    while metric(&proxy, gone).await != Some(0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(metric(&proxy, good.address).await, Some(1));
    let before = good.requests();
    assert_eq!(Client::http1(proxy.http).await.count(20).await["good"], 20);
    assert!(good.requests() >= before + 20);
    // It starts: the same check finds it.
    let listener = tokio::net::TcpListener::bind(gone).await.expect("still free");
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        }
    });
    while metric(&proxy, gone).await != Some(1) {
        tokio::task::yield_now().await;
    }
    assert!(Client::http1(proxy.http).await.get(HOST, "/").await.status < 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_an_endpoint_that_is_gone_is_asked_no_more() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (stays, goes) = (Upstream::start("stays", Protocol::H1).await, Upstream::start("goes", Protocol::H1).await);
    proxy.apply(checked(&[stays.address, goes.address]));
    until("both are asked", || stays.requests() > 2 && goes.requests() > 2).await;
    proxy.apply(checked(&[stays.address]));
    // One that was under way may still come in.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (stayed, gone) = (stays.requests(), goes.requests());
    until("the other is asked on", || stays.requests() >= stayed + 10).await;
    assert_eq!(goes.requests(), gone);
    // It comes back.
    proxy.apply(checked(&[stays.address, goes.address]));
    until("it is asked again", || goes.requests() > gone + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_a_proxy_that_drains_is_not_ready() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let (http, admin) = (proxy.http, proxy.admin);
    assert_eq!(Client::http1(admin).await.get("admin", "/readyz").await.status, 503, "nothing was applied");
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    assert_eq!(Client::http1(admin).await.get("admin", "/readyz").await.status, 200);
    let held = tokio::spawn(async move { Client::http1(http).await.get(HOST, "/hold").await });
    until("a request is under way", || upstream.last_path() == "/hold").await;
    let drained = tokio::spawn(proxy.engine.drain());
    until("it drains", || std::net::TcpStream::connect(http).is_err()).await;
    let answer = Client::http1(admin).await.get("admin", "/readyz").await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "draining\n"));
    assert_eq!(Client::http1(admin).await.get("admin", "/healthz").await.status, 200, "it is alive");
    upstream.release();
    assert_eq!(held.await.expect("answered").status, 200);
    assert_eq!(drained.await.expect("ended"), 0);
}
