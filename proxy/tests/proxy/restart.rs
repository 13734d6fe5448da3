//! A proxy that starts again serves what it served, without anybody telling it.

use api::fleet::Protocol;

use crate::gates::{Gates, HELLO};
use crate::support::{Body, Client, HOST, TestProxy, Upstream, hello, set, settings, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_serves_the_last_weights_from_disk() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 0)]));
    let last = proxy.apply(hello(Protocol::H1, &[(1, r1.address, 0), (2, r2.address, 1)]));
    proxy.engine.saved(last).await;
    // Nothing is written on the way out: what was saved is what there is.
    proxy.engine.drain().await;
    let again = TestProxy::start(folder.path(), 1).await;
    assert_eq!(again.engine.version(), Some(last));
    assert_eq!(Client::http1(again.http).await.count(10).await["r2"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_hostile_h81_a_damaged_state_is_not_served() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let version = proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    proxy.engine.saved(version).await;
    proxy.engine.drain().await;
    let base = folder.path().join("state/base");
    let mut bytes = std::fs::read(&base).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&base, bytes).expect("written");
    let again = TestProxy::start(folder.path(), 1).await;
    assert_eq!(again.engine.version(), None);
    assert_eq!(Client::http1(again.http).await.get(HOST, "/").await.status, 503);
    // What comes next is taken, and is safe again.
    let version = again.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    again.engine.saved(version).await;
    assert_eq!(Client::http1(again.http).await.get(HOST, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_users_are_known_while_their_issuer_is_down() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H1).await;
    let version = gates.proxy.apply(set(gates.state()));
    gates.serves_staff().await;
    let token = gates.staff();
    until("keys are on disk", || folder.path().join("keys.json").exists()).await;
    let Gates { proxy, issuer, key, .. } = gates;
    proxy.engine.saved(version).await;
    proxy.engine.drain().await;
    issuer.stop().await;
    let again = TestProxy::start(folder.path(), 1).await;
    let mut client = Client::http1(again.http).await;
    let request = client.request(HELLO, "/").header("x-api-key", &key.text);
    let request = request.header("authorization", format!("Bearer {token}"));
    let answer = client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
    assert_eq!(answer.status, 200, "{answer:?}");
    // It was asked in vain, and that can be seen.
    let mut admin = Client::http1(again.admin).await;
    let seen = "pointsman_proxy_issuer_fetches_total{issuer=\"corp\",outcome=\"unreachable\"} ";
    loop {
        let metrics = admin.get("admin", "/metrics").await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(seen)).expect("counted");
        if line != "0" {
            assert!(metrics.contains("pointsman_proxy_issuer_keys_age_seconds{issuer=\"corp\"} "), "{metrics}");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
