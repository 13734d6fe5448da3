//! Break glass: one release takes a stage on this proxy, whatever the snapshot says.

use api::ReleaseNumber;
use api::fleet::Protocol;
use proxy::local::{LocalReply, LocalRequest, request};

use crate::support::{Client, TestProxy, Upstream, hello};

fn ask(release: u32, for_ms: u64) -> LocalRequest {
    LocalRequest::Override {
        stage: "hello/staging".parse().expect("a stage"),
        release: ReleaseNumber::new(release).expect("a number"),
        for_ms,
        by: "ops".into(),
        reason: "r2 is broken".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn override_wins_over_snapshots_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    let state = || hello(Protocol::H1, &[(1, r1.address, 0), (2, r2.address, 1)]);
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(state());
    assert_eq!(Client::http1(proxy.http).await.count(5).await["r2"], 5);
    let reply = request(folder.path(), ask(1, 3_600_000)).await.expect("answered");
    assert!(matches!(reply, LocalReply::Done { until_ms } if until_ms > 0), "{reply:?}");
    assert_eq!(Client::http1(proxy.http).await.count(5).await["r1"], 5);
    let last = proxy.apply(state());
    assert_eq!(Client::http1(proxy.http).await.count(5).await["r1"], 5);
    proxy.engine.saved(last).await;
    proxy.engine.drain().await;

    let again = TestProxy::start(folder.path(), 1).await;
    assert_eq!(Client::http1(again.http).await.count(5).await["r1"], 5);
    let LocalReply::Status(status) = request(folder.path(), LocalRequest::Status).await.expect("answered") else {
        panic!("a status");
    };
    assert_eq!((status.version, status.saved), (Some(last), Some(last)));
    assert!(status.stages[0].overridden && status.overrides[0].reason == "r2 is broken");
    let end = LocalRequest::End { stage: "hello/staging".parse().expect("a stage"), by: "ops".into() };
    assert_eq!(request(folder.path(), end.clone()).await.expect("answered"), LocalReply::Done { until_ms: 0 });
    assert_eq!(Client::http1(again.http).await.count(5).await["r2"], 5);
    assert!(matches!(request(folder.path(), end).await.expect("answered"), LocalReply::Refused { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn override_ends_by_itself_and_refuses_what_cannot_be() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(hello(Protocol::H1, &[(1, r1.address, 0), (2, r2.address, 1)]));
    for (asked, sentence) in
        [(ask(7, 1_000), "r7 does not run in hello/staging; there are r1, r2"), (ask(1, 0), "past")]
    {
        let reply = request(folder.path(), asked).await.expect("answered");
        assert!(matches!(&reply, LocalReply::Refused { reason } if reason.contains(sentence)), "{reply:?}");
    }
    request(folder.path(), ask(1, 300)).await.expect("answered");
    let mut client = Client::http1(proxy.http).await;
    let mut names = Vec::new();
    while names.last().is_none_or(|name| name != "r2") {
        names.push(client.get(crate::support::HOST, "/").await.body);
    }
    assert_eq!(names[0], "r1");
    let nobody = tempfile::tempdir().expect("folder");
    let error = request(nobody.path(), LocalRequest::Status).await.expect_err("nobody listens");
    assert!(error.to_string().contains("is it running with this data folder?"), "{error}");
}
