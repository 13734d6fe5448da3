//! Weights are exact over real connections, also while they change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use api::fleet::Protocol;

use crate::support::{Client, HOST, TestProxy, Upstream, hello, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_is_exact_per_worker_over_http1_and_http2() {
    let folder = tempfile::tempdir().expect("folder");
    // One worker: all requests share one split, so the counts are exact to within one.
    let proxy = TestProxy::start(folder.path(), 1).await;
    let mut backends = Vec::new();
    let weights = [700_000, 250_000, 50_000];
    for (release, weight) in (1..).zip(weights) {
        backends.push((Upstream::start(&format!("r{release}"), Protocol::H1).await, release, weight));
    }
    let rows: Vec<_> =
        backends.iter().map(|(upstream, release, weight)| (*release, upstream.address, *weight)).collect();
    proxy.apply(hello(Protocol::H1, &rows));
    let mut clients = [Client::http1(proxy.http).await, Client::http2(proxy.http).await];
    for n in 1..=500u64 {
        let answer = clients[n as usize % 2].get(HOST, "/").await;
        assert_eq!(answer.status, 200);
        for (upstream, _, weight) in &backends {
            let off = (upstream.requests() * 1_000_000).abs_diff(n * u64::from(*weight));
            assert!(off <= 1_000_000, "after {n}: {} requests at weight {weight}", upstream.requests());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn split_a_thousand_weight_changes_under_load_fail_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 2).await;
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    proxy.apply(hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 0)]));
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for n in 0..4 {
        let (stop, served, address) = (stop.clone(), served.clone(), proxy.http);
        load.push(tokio::spawn(async move {
            let mut client = if n % 2 == 0 { Client::http1(address).await } else { Client::http2(address).await };
            while !stop.load(Relaxed) {
                let answer = client.get(HOST, "/").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                served.fetch_add(1, Relaxed);
            }
        }));
    }
    for n in 0..1_000u32 {
        let weight = n * 7_919 % 1_000_001;
        proxy.apply(hello(Protocol::H1, &[(1, r1.address, weight), (2, r2.address, 1_000_000 - weight)]));
        let before = served.load(Relaxed);
        until("a request between two changes", || {
            served.load(Relaxed) > before || load.iter().any(|one| one.is_finished())
        })
        .await;
    }
    stop.store(true, Relaxed);
    for one in load {
        one.await.expect("no request failed");
    }
    assert!(served.load(Relaxed) >= 1_000 && r1.requests() > 0 && r2.requests() > 0);
    assert_eq!(r1.requests() + r2.requests(), served.load(Relaxed));
}
