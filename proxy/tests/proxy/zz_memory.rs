//! temporary
use crate::support::*;
use api::fleet::Protocol;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zz_memory() {
    let rss = || {
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("VmRSS"))
            .unwrap()
            .to_owned()
    };
    let folder = tempfile::tempdir().expect("folder");
    let r1 = Upstream::start("r1", Protocol::H1).await;
    println!("before {}", rss());
    let proxy = TestProxy::start(folder.path(), 2).await;
    println!("started {}", rss());
    let mut all = vec![zone()];
    for n in 0..5000 {
        let name = format!("s{n}/staging");
        all.push(stage(&name, Protocol::H1, &[1, 2]));
        all.push(weights(&name, &[(1, 1)]));
        all.push(endpoints(&name, 1, &[r1.address]));
        all.push(endpoints(&name, 2, &[r1.address]));
    }
    let v = proxy.apply(set(all));
    proxy.engine.saved(v).await;
    println!("applied {}", rss());
    for c in 0..4 {
        let mut client = if c % 2 == 0 { Client::http1(proxy.http).await } else { Client::http2(proxy.http).await };
        for n in 0..5000 {
            assert_eq!(client.get(&format!("s{n}.staging.example.com"), "/").await.status, 200);
        }
    }
    println!("all asked {}", rss());
}
