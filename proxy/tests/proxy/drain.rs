//! A stop cuts nothing that can still finish, and waits for nothing longer than it may.

use std::time::Duration;

use api::fleet::Protocol;

use crate::support::{Client, HOST, TestProxy, Upstream, hello, settings, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_lets_requests_finish_and_closes_idle_connections() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 2).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    let mut idle = [Client::http1(proxy.http).await, Client::http2(proxy.http).await];
    for client in &mut idle {
        client.get(HOST, "/").await;
    }
    let mut held = Vec::new();
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        held.push(tokio::spawn(async move { client.get(HOST, "/hold").await }));
    }
    until("both are under way", || upstream.requests() == 4).await;
    let address = proxy.http;
    let drained = tokio::spawn(proxy.engine.drain());
    until("the idle connections are closed", || idle.iter().all(Client::is_closed)).await;
    assert!(!drained.is_finished(), "two requests are still under way");
    upstream.release();
    for one in held {
        assert_eq!(one.await.expect("answered").status, 200);
    }
    assert_eq!(drained.await.expect("ended"), 0);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_cuts_at_its_deadline_and_says_how_many() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = proxy::Settings { drain: Duration::from_millis(100), ..settings(folder.path(), 1) };
    let proxy = TestProxy::with(settings).await;
    let upstream = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    let mut client = Client::http1(proxy.http).await;
    let request = client.request(HOST, "/hold").body(crate::support::fed().1).expect("a request");
    let held = tokio::spawn(async move { client.open(request).await });
    until("it is under way", || upstream.requests() == 1).await;
    assert_eq!(proxy.engine.drain().await, 1);
    assert!(held.await.expect("ended").is_err());
}
