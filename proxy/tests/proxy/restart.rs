//! A proxy that starts again serves what it served, without anybody telling it.

use api::fleet::Protocol;

use crate::support::{Client, HOST, TestProxy, Upstream, hello};

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
