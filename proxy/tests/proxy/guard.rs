//! The guard of a rollout: what is counted for the judge, and the tripwire that stops a canary by itself.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use api::fleet::proxy_message::Kind as Up;
use api::fleet::{
    Guard, HeaderRule, Judged, Protocol, Resource, ResourceSet, Split, Stage, Sticky, Tripped, Tripwire,
    WeightedRelease, sticky,
};
use api::{Histogram, ReleaseNumber};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proxy::local::{LocalReply, LocalRequest, request};
use tokio::sync::mpsc::Receiver;

use crate::fleet::{Link, play};
use crate::recorder::{Peer, Recorder};
use crate::support::{Body, Client, HOST, TestProxy, Upstream, endpoints, hello, resource, set, stage, until, zone};
use crate::wire::PATIENCE;

const STAGE: &str = "hello/staging";
const CANARY: &str = "r2--hello.staging.example.com";
const GRPC: &str = "application/grpc";

/// The canary is r2, the stable release r1; everything is slow.
fn guard(rollout: u64) -> Guard {
    Guard {
        rollout,
        canary: 2,
        stable: 1,
        slow_us: 1,
        failure_header: "x-app-failed".into(),
        tripwire: Some(Tripwire { failures: 5, among: 10 }),
        epoch: 0,
    }
}

/// r1 and r2 with weights and a guard. Health is asked for at `/healthz`, and of HTTP/2 endpoints by a connection.
fn guarded(protocol: Protocol, backends: &[(u32, SocketAddr, u32)], guard: Option<Guard>) -> ResourceSet {
    sticky_guarded(protocol, backends, guard, None)
}

/// With callers who keep their release.
fn sticky_guarded(
    protocol: Protocol,
    backends: &[(u32, SocketAddr, u32)],
    guard: Option<Guard>,
    sticky: Option<Sticky>,
) -> ResourceSet {
    let weighted = backends.iter().map(|(release, _, weight)| WeightedRelease { release: *release, weight: *weight });
    // Insiders go to the canary.
    let insiders = HeaderRule { name: "x-insider".into(), value: "yes".into(), release: 2 };
    let rules = if guard.is_some() { vec![insiders] } else { Vec::new() };
    let split = Split { weights: weighted.collect(), guard, rules, sticky };
    let releases: Vec<u32> = backends.iter().map(|backend| backend.0).collect();
    let split = Resource { schema: api::SCHEMA_ROLLOUT, ..resource("split", STAGE, &split) };
    let mut all = vec![zone(), checked(protocol, &releases), split];
    all.extend(backends.iter().map(|(release, address, _)| endpoints(STAGE, *release, &[*address])));
    set(all)
}

fn checked(protocol: Protocol, releases: &[u32]) -> Resource {
    let mut body = Stage::decode(&*stage(STAGE, protocol, releases).body).expect("a stage");
    if protocol == Protocol::H1 {
        let checks = body.backends.iter_mut().filter_map(|backend| backend.health.as_mut());
        checks.for_each(|check| check.http_path = "/healthz".into());
    }
    resource("stage", STAGE, &body)
}

/// An HTTP/1 upstream that does what the path says; counts those that went away from `/never`.
async fn upstream(name: &'static str, gone: Arc<AtomicU64>) -> Recorder {
    Recorder::start(move |mut peer: Peer| {
        let gone = gone.clone();
        async move {
            while let Some(asked) = peer.request().await {
                let path = asked.head.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, field) = match path.split_once('=') {
                    Some(("/status", status)) => (status, String::new()),
                    Some(("/app", value)) => ("200", format!("X-App-Failed: {value}\r\n")),
                    _ => ("200", String::new()),
                };
                match path.as_str() {
                    "/reset" => return peer.reset(),
                    "/half" => return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").await,
                    "/never" => {
                        peer.ended().await;
                        gone.fetch_add(1, Relaxed);
                        return;
                    }
                    "/stream" => {
                        peer.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: x\n\n").await;
                        return peer.ended().await;
                    }
                    _ => {
                        let length = name.len();
                        peer.send(format!("HTTP/1.1 {status} X\r\n{field}content-length: {length}\r\n\r\n{name}"))
                            .await;
                    }
                }
            }
        }
    })
    .await
}

/// What a proxy shows: requests, failures, slow ones of a release, or nothing.
async fn shown(proxy: &TestProxy, release: &str) -> Option<(u64, u64, u64)> {
    let page = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let value = |name: &str| {
        let start = format!("pointsman_proxy_{name}_total{{stage=\"{STAGE}\",release=\"{release}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    };
    Some((value("judged")?, value("judged_failed")?, value("judged_slow")?))
}

/// Waits until a proxy shows this. The counts of a request are there soon after its answer.
async fn shows(proxy: &TestProxy, release: &str, expected: Option<(u64, u64, u64)>) {
    let (begun, mut seen) = (std::time::Instant::now(), shown(proxy, release).await);
    while seen != expected {
        assert!(begun.elapsed() < Duration::from_secs(20), "{release}: {seen:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen = shown(proxy, release).await;
    }
}

async fn is_tripped(proxy: &TestProxy) -> bool {
    let page = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let line = format!("pointsman_proxy_rollout_tripped{{stage=\"{STAGE}\"}} ");
    let value = page.lines().find_map(|line_seen| line_seen.strip_prefix(&line)).expect("it is shown");
    value == "1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_counts_what_weights_deal_out_and_nothing_else() {
    let folder = tempfile::tempdir().expect("folder");
    let gone = Arc::<AtomicU64>::default();
    let (r1, r2) = (upstream("r1", gone.clone()).await, upstream("r2", gone.clone()).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    let state = |weights: [u32; 2], guard| {
        guarded(Protocol::H1, &[(1, r1.address, weights[0]), (2, r2.address, weights[1])], guard)
    };
    let patient = Guard { slow_us: 3_600_000_000, ..guard(7) };
    proxy.apply(state([0, 1], Some(patient)));
    let mut client = Client::http1(proxy.http).await;
    // What is not counted comes first: it would show beside what is.
    for _ in 0..4 {
        assert_eq!(client.get(CANARY, "/status=500").await.status, 500, "forced by its host");
    }
    let insider = client.request(HOST, "/status=500").header("x-insider", "yes").body(Body::default());
    let answer = client.send(insider.expect("a request")).await.expect("answered");
    assert_eq!((answer.status, &*answer.body), (500, "r2"), "forced by a header");
    assert_eq!(client.get(HOST, "/healthz").await.body, "r2", "as a health check is");
    assert_eq!(client.get(HOST, "/healthz?from=elsewhere").await.status, 200);
    let mut leaving = Client::http2(proxy.http).await;
    let never = leaving.request(HOST, "/never").body(Body::default()).expect("a request");
    let never = tokio::spawn(async move { leaving.send(never).await });
    until("it is asked", || r2.all().contains("/never")).await;
    never.abort();
    until("its client went away", || gone.load(Relaxed) == 1).await;
    let (stage, reason) = (STAGE.parse().expect("a stage"), "drill".to_owned());
    let release = ReleaseNumber::new(2).expect("a number");
    let glass = LocalRequest::Override { stage, release, for_ms: 3_600_000, by: "ops".into(), reason };
    assert!(matches!(request(folder.path(), glass).await.expect("answered"), LocalReply::Done { .. }));
    assert_eq!(client.get(HOST, "/status=500").await.status, 500, "forced by an override");
    let end = LocalRequest::End { stage: STAGE.parse().expect("a stage"), by: "ops".into() };
    assert!(matches!(request(folder.path(), end).await.expect("answered"), LocalReply::Done { .. }));
    assert_eq!(shown(&proxy, "r2").await, None, "nothing is judged");
    proxy.apply(state([0, 1], Some(guard(7))));

    for (path, status) in [
        ("/", 200),
        ("/status=404", 404),
        ("/status=500", 500),
        ("/status=503", 503),
        ("/app=1", 200),
        ("/app=", 200),
        ("/app=0", 200),
        ("/app=false", 200),
        ("/reset", 502),
    ] {
        assert_eq!(client.get(HOST, path).await.status, status, "{path}");
    }
    // It breaks off.
    let half = client.request(HOST, "/half").body(Body::default()).expect("a request");
    client.send(half).await.expect_err("half an answer");
    // A reset has no latency, and nobody else's is in question.
    shows(&proxy, "r2", Some((10, 6, 9))).await;
    // A stream counts when it begins.
    let mut client = Client::http1(proxy.http).await;
    let stream = client.request(HOST, "/stream").body(Body::default()).expect("a request");
    let stream = client.open(stream).await.expect("answered");
    shows(&proxy, "r2", Some((11, 6, 10))).await;
    drop((stream, client));
    assert_eq!(shown(&proxy, "r1").await, None);
    assert!(!is_tripped(&proxy).await, "it has all the weight");

    // Of the stable release the same is counted, and what is slow is said with the guard.
    let fast = Guard { slow_us: 3_600_000_000, ..guard(7) };
    proxy.apply(state([1, 0], Some(fast)));
    let mut client = Client::http1(proxy.http).await;
    client.get(HOST, "/").await;
    client.get(HOST, "/status=500").await;
    shows(&proxy, "r1", Some((2, 1, 0))).await;
    shows(&proxy, "r2", Some((11, 6, 10))).await;
    // Another rollout begins at 0, and without one nothing is counted.
    proxy.apply(state([0, 1], Some(guard(8))));
    shows(&proxy, "r2", None).await;
    client.get(HOST, "/").await;
    shows(&proxy, "r2", Some((1, 0, 1))).await;
    assert_eq!(shown(&proxy, "r1").await, None);
    proxy.apply(state([0, 1], None));
    client.get(HOST, "/").await;
    shows(&proxy, "r2", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_counts_of_all_workers_add_up() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (upstream("r1", Arc::default()).await, upstream("r2", Arc::default()).await);
    let proxy = TestProxy::start(folder.path(), 2).await;
    let unarmed = Guard { tripwire: None, ..guard(1) };
    proxy.apply(guarded(Protocol::H1, &[(1, r1.address, 9), (2, r2.address, 1)], Some(unarmed)));
    let mut answered = [0, 0];
    for _ in 0..40 {
        let mut client = Client::http1(proxy.http).await;
        for path in ["/", "/", "/", "/", "/status=500"] {
            let answer = client.get(HOST, path).await;
            answered[usize::from(answer.body == "r2")] += 1;
        }
    }
    assert_eq!(answered.iter().sum::<u64>(), 200);
    let (begun, mut sum) = (std::time::Instant::now(), Vec::new());
    while sum != answered && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
        sum = vec![shown(&proxy, "r1").await.unwrap_or_default().0, shown(&proxy, "r2").await.unwrap_or_default().0];
    }
    assert_eq!(sum, answered);
    let failed = shown(&proxy, "r1").await.expect("counts").1 + shown(&proxy, "r2").await.expect("counts").1;
    assert_eq!(failed, 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_requests_that_were_tried_again_are_left_out_unless_nobody_answers() {
    let folder = tempfile::tempdir().expect("folder");
    let r2 = upstream("r2", Arc::default()).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let dead = free().await;
    let with = |addresses: &[SocketAddr]| {
        let mut state = guarded(Protocol::H1, &[(2, r2.address, 1)], Some(guard(1)));
        state.upserts.retain(|one| one.kind != "endpoints");
        state.upserts.push(endpoints(STAGE, 2, addresses));
        state
    };
    proxy.apply(with(&[dead, r2.address]));
    // One that meets the dead endpoint first is answered by the other. It is not asked again for a second then.
    let (begun, mut sent) = (std::time::Instant::now(), 0);
    let mut client = Client::http1(proxy.http).await;
    loop {
        assert_eq!(client.get(HOST, "/").await.body, "r2");
        sent += 1;
        // The count of the last one may be on its way: one more than that is missing.
        let counted = shown(&proxy, "r2").await.unwrap_or_default();
        if counted.0 + 1 < sent && tried_again(&proxy, sent).await {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "each of {sent} was counted");
    }
    // Nobody answers at all.
    let other = free().await;
    proxy.apply(with(&[dead, other]));
    let before = shown(&proxy, "r2").await.unwrap_or_default();
    assert_eq!(client.get(HOST, "/").await.status, 502);
    shows(&proxy, "r2", Some((before.0 + 1, before.1 + 1, before.2))).await;
    // Nobody is there to be asked.
    proxy.apply(with(&[]));
    assert_eq!(client.get(HOST, "/").await.status, 503);
    shows(&proxy, "r2", Some((before.0 + 2, before.1 + 2, before.2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_requests_that_went_out_twice_are_left_out() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    // It answers one request on each connection, and ends with the next.
    let r2 = Recorder::start(|mut peer: Peer| async move {
        let Some(_) = peer.request().await else { return };
        peer.send(crate::recorder::OK).await;
        peer.request().await;
    })
    .await;
    // Its health is asked for by a connection.
    let mut state = guarded(Protocol::H1, &[(2, r2.address, 1)], Some(guard(1)));
    state.upserts.retain(|one| one.kind != "stage");
    state.upserts.push(stage(STAGE, Protocol::H1, &[2]));
    proxy.apply(state);
    let mut client = Client::http1(proxy.http).await;
    for _ in 0..4 {
        assert_eq!(client.get(HOST, "/").await.body, "ok");
    }
    assert_eq!(r2.count("GET / "), 7, "all but the first went out twice");
    // It may not go out twice: nobody has answered.
    assert_eq!(client.post("/", "text/plain", Vec::new()).await.status, 502);
    shows(&proxy, "r2", Some((2, 1, 1))).await;
}

/// Whether fewer requests stay counted than were answered.
async fn tried_again(proxy: &TestProxy, answered: u64) -> bool {
    let page = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    let all = format!("pointsman_proxy_requests_total{{stage=\"{STAGE}\",release=\"r2\",class=\"2xx\"}} {answered}");
    page.contains(&all) && shown(proxy, "r2").await.unwrap_or_default().0 < answered
}

/// An address at which nobody listens.
async fn free() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound")
}

type Answer = http::Response<BoxBody<Bytes, std::convert::Infallible>>;

/// A gRPC service with the status that the path says, in the head or behind a message: `/head/14`, `/trailers/14`.
async fn grpc_upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                Ok::<Answer, std::convert::Infallible>(grpc_answer(request.uri().path()))
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { serving.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

fn grpc_answer(path: &str) -> Answer {
    let (place, status) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let head = http::Response::builder();
    if place == "bare" {
        return head.status(status).body(Empty::new().boxed()).expect("an answer");
    }
    let head = head.header("content-type", GRPC);
    if place == "head" {
        return head.header("grpc-status", status).body(Empty::new().boxed()).expect("an answer");
    }
    let mut trailers = http::HeaderMap::new();
    if place == "app" {
        trailers.insert("x-app-failed", status.parse().expect("a value"));
        trailers.insert("grpc-status", "0".parse().expect("a value"));
    } else if !status.is_empty() {
        trailers.insert("grpc-status", status.parse().expect("a value"));
    }
    let frames = [Frame::data(Bytes::from_static(b"\0\0\0\0\0")), Frame::trailers(trailers)];
    let body = StreamBody::new(tokio_stream::iter(frames.map(Ok)));
    head.body(BodyExt::boxed(body)).expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_failures_of_grpc_are_those_of_the_server_wherever_they_are_said() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (r1, r2) = (grpc_upstream().await, grpc_upstream().await);
    proxy.apply(guarded(Protocol::H2c, &[(1, r1, 0), (2, r2, 1)], Some(guard(1))));
    let mut client = Client::http2(proxy.http).await;
    let (mut requests, mut failed) = (0, 0);
    for place in ["head", "trailers"] {
        for status in 0..=16 {
            client.post(&format!("/{place}/{status}"), GRPC, Vec::new()).await;
            requests += 1;
            failed += u64::from([2, 4, 8, 12, 13, 14, 15].contains(&status));
            shows(&proxy, "r2", Some((requests, failed, requests))).await;
        }
    }
    // None at all; answers that are no gRPC; what the application says behind its messages.
    for (path, has_failed) in [
        ("/trailers/", true),
        ("/bare/200", true),
        ("/bare/404", true),
        ("/bare/403", false),
        ("/bare/503", true),
        ("/app/1", true),
        ("/app/0", false),
    ] {
        client.post(path, GRPC, Vec::new()).await;
        requests += 1;
        failed += u64::from(has_failed);
        shows(&proxy, "r2", Some((requests, failed, requests))).await;
    }
    // A health check of somebody else's, and one that is no call.
    client.post("/grpc.health.v1.Health/Check", GRPC, Vec::new()).await;
    client.post("/grpc.health.v1.Health/Check", "text/plain", Vec::new()).await;
    shows(&proxy, "r2", Some((requests + 1, failed, requests + 1))).await;
    // It speaks HTTP/1 now: no call can be made.
    let r2 = upstream("r2", Arc::default()).await;
    proxy.apply(guarded(Protocol::H1, &[(1, r1, 0), (2, r2.address, 1)], Some(guard(1))));
    client.post("/head/0", GRPC, Vec::new()).await;
    shows(&proxy, "r2", Some((requests + 2, failed + 1, requests + 1))).await;
}

/// A canary that fails every request, or every second, and the most requests that a worker gives it.
async fn is_stopped(name: &'static str, every: u64, most: u64) {
    let folder = tempfile::tempdir().expect("folder");
    let count = Arc::<AtomicU64>::default();
    let asked = count.clone();
    let r1 = upstream("r1", Arc::default()).await;
    let r2 = Recorder::answering(move |head| {
        if head.starts_with("GET /healthz") {
            return "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into();
        }
        let status = if asked.fetch_add(1, Relaxed).is_multiple_of(every) { 500 } else { 200 };
        format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nr2")
    })
    .await;
    let workers = 2;
    let proxy = TestProxy::start(folder.path(), workers).await;
    let state = |weights: [u32; 2], rollout| {
        let backends = [(1, r1.address, weights[0]), (2, r2.address, weights[1])];
        guarded(Protocol::H1, &backends, Some(guard(rollout)))
    };
    proxy.apply(state([9, 1], 7));
    // Each connection stays on one worker: a canary that is stopped there gets nothing by it any more.
    let mut after = None;
    for _ in 0..1_000 {
        let mut client = Client::http1(proxy.http).await;
        let mut failures = 0;
        for _ in 0..20 {
            failures += u64::from(client.get(HOST, "/").await.status == 500);
        }
        match after {
            Some(0) => break,
            Some(left) => {
                assert_eq!(failures, 0, "{name}: it is stopped");
                after = Some(left - 1);
            }
            None if is_tripped(&proxy).await => after = Some(20),
            None => {}
        }
    }
    assert_eq!(after, Some(0), "{name}: it is not stopped");
    let dealt = count.load(Relaxed);
    assert!(dealt <= most * workers as u64, "{name}: {dealt} requests went to it");

    // Who says where still gets there, and a change of weights changes nothing.
    let mut client = Client::http1(proxy.http).await;
    assert_eq!(client.get(CANARY, "/").await.body, "r2");
    let insider = client.request(HOST, "/").header("x-insider", "yes").body(Body::default());
    assert_eq!(client.send(insider.expect("a request")).await.expect("answered").body, "r2");
    proxy.apply(state([1, 1], 7));
    for _ in 0..5 {
        let mut client = Client::http1(proxy.http).await;
        for _ in 0..20 {
            let answer = client.get(HOST, "/").await;
            assert_eq!((answer.status, &*answer.body), (200, "r1"), "{name}");
        }
    }
    assert!(is_tripped(&proxy).await);
    proxy.apply(state([1, 1], 8));
    assert!(!is_tripped(&proxy).await, "another rollout");
    let bodies: BTreeSet<String> = [client.get(HOST, "/").await.body, client.get(HOST, "/").await.body].into();
    assert!(bodies.contains("r2"), "{name}: {bodies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_canary_that_always_fails_is_stopped_within_a_handful_of_requests() {
    is_stopped("always", 1, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_canary_that_fails_every_second_time_is_stopped_within_ten_requests() {
    // Two workers share its every second failure: with the worst order one of them sees few at first.
    is_stopped("every second", 2, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_a_canary_is_not_stopped_while_the_stable_release_fails_alike() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (upstream("r1", Arc::default()).await, upstream("r2", Arc::default()).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(guarded(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 1)], Some(guard(7))));
    let mut client = Client::http1(proxy.http).await;
    let bodies = |counts: &std::collections::HashMap<String, u64>| counts.get("r2").copied();
    // All was well, and then something breaks that both need.
    assert_eq!(bodies(&client.count(100).await), Some(50));
    for _ in 0..100 {
        assert_eq!(client.get(HOST, "/status=500").await.status, 500);
    }
    shows(&proxy, "r2", Some((100, 50, 100))).await;
    assert!(!is_tripped(&proxy).await);
    assert_eq!(bodies(&client.count(100).await), Some(50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_one_sticky_caller_cannot_stop_the_canary_and_as_many_as_the_tripwire_says_can() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (upstream("r1", Arc::default()).await, upstream("r2", Arc::default()).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    let by = sticky::By::Cookie.into();
    let sticky = Sticky { by, key: vec![7; 16], order: vec![2, 1], cookie: "release".into() };
    let backends = [(1, r1.address, 1), (2, r2.address, 1)];
    proxy.apply(sticky_guarded(Protocol::H1, &backends, Some(guard(7)), Some(sticky)));
    let mut client = Client::http1(proxy.http).await;
    let mut ask = async |caller: usize, path: &str| {
        let request = client.request(HOST, path).header("cookie", format!("release={caller:021}A"));
        client.send(request.body(Body::default()).expect("a request")).await.expect("answered")
    };
    let (mut of_r1, mut of_r2) = (Vec::new(), Vec::new());
    for caller in 0..100 {
        let release = ask(caller, "/").await.body;
        if release == "r1" { of_r1.push(caller) } else { of_r2.push(caller) }
    }
    for n in 0..60 {
        assert_eq!(ask(of_r1[n % of_r1.len()], "/").await.body, "r1");
        assert_eq!(ask(of_r2[n % 4], "/status=500").await.body, "r2");
    }
    assert!(!is_tripped(&proxy).await, "they are four");
    assert_eq!(ask(of_r1[0], "/").await.body, "r1");
    assert_eq!(ask(of_r2[4], "/status=500").await.body, "r2");
    assert_eq!(ask(of_r2[0], "/").await.body, "r1", "it is stopped");
    shows(&proxy, "r2", Some((of_r2.len() as u64 + 61, 61, of_r2.len() as u64 + 61))).await;
}

/// The next trip that is told.
async fn tripped(link: &mut Link) -> Tripped {
    let told = async {
        loop {
            if let Some(Up::Tripped(tripped)) = link.next().await {
                return tripped;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("a trip is told")
}

/// What is judged of the canary, once it is so many requests.
async fn judged(link: &mut Link, requests: u64) -> Judged {
    loop {
        let Some(Up::Counts(counts)) = link.next().await else { continue };
        let of_canary = counts.releases.into_iter().find(|one| one.release == 2).and_then(|mut one| one.judged.pop());
        if let Some(judged) = of_canary.filter(|judged| judged.requests >= requests) {
            return judged;
        }
    }
}

async fn connected(links: &mut Receiver<Link>) -> Link {
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    link
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_counts_and_trips_are_told_to_the_controller_and_trips_again_on_each_connection() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (upstream("r1", Arc::default()).await, upstream("r2", Arc::default()).await);
    let proxy = Arc::new(TestProxy::start(folder.path(), 1).await);
    let state = |rollout| {
        let backends = [(1, r1.address, 1), (2, r2.address, 1)];
        guarded(Protocol::H1, &backends, Some(Guard { slow_us: 3_600_000_000, ..guard(rollout) }))
    };
    proxy.apply(state(7));
    let mut client = Client::http1(proxy.http).await;
    client.count(20).await;
    let (channel, mut links) = play().await;
    let following = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.engine.follow(channel, || {}).await }
    });
    let mut link = connected(&mut links).await;
    let told = judged(&mut link, 10).await;
    assert_eq!((told.rollout, told.requests, told.failed, told.slow), (7, 10, 0, 0));
    assert_eq!(Histogram::from(&told.latency.expect("a histogram")).total(), 10);

    // Only the canary fails.
    let mut dealt = 0;
    while !is_tripped(&proxy).await {
        let answer = client.get(HOST, "/").await;
        if answer.body == "r1" {
            dealt += u64::from(client.get(HOST, "/reset").await.status == 502);
        }
        assert!(dealt < 20, "it is not stopped");
    }
    let first = tripped(&mut link).await;
    let expected = Tripped { stage: STAGE.into(), rollout: 7, release: 2, ..first.clone() };
    assert_eq!(first, expected);
    assert!((5..=10).contains(&first.failures) && first.among == 10, "{first:?}");
    assert!(first.at_ms > 1_700_000_000_000, "{first:?}");
    let told = judged(&mut link, 10 + first.failures as u64).await;
    assert_eq!(told.failed, u64::from(first.failures));
    for _ in 0..2 {
        drop(link);
        link = connected(&mut links).await;
        assert_eq!(tripped(&mut link).await, first, "told again");
    }
    // With another number there is nothing to tell, on this connection or the next.
    proxy.apply(state(8));
    drop(link);
    link = connected(&mut links).await;
    client.count(20).await;
    loop {
        match link.next().await {
            Some(Up::Tripped(tripped)) => panic!("{tripped:?}"),
            Some(Up::Counts(counts)) => {
                let mut judged = counts.releases.into_iter().flat_map(|one| one.judged);
                if judged.any(|judged| (judged.rollout, judged.requests) == (8, 10)) {
                    break;
                }
            }
            _ => {}
        }
    }
    // Nobody is judged without a guard.
    proxy.apply(hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 1)]));
    loop {
        let Some(Up::Counts(counts)) = link.next().await else { continue };
        if counts.releases.iter().any(|one| one.release == 2 && one.judged.is_empty()) {
            break;
        }
    }
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_websockets_count_when_they_begin() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let r2 = Recorder::start(|mut peer: Peer| async move {
        let Some(_) = peer.head().await else { return };
        peer.send("HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        peer.ended().await;
    })
    .await;
    let unused = Upstream::start("r1", Protocol::H1).await;
    proxy.apply(guarded(Protocol::H1, &[(1, unused.address, 0), (2, r2.address, 1)], Some(guard(1))));
    let mut client = Client::http1(proxy.http).await;
    let asked = client.request(HOST, "/").header("connection", "upgrade").header("upgrade", "websocket");
    let answer = client.open(asked.body(Body::default()).expect("a request")).await.expect("answered");
    assert_eq!(answer.status(), 101);
    shows(&proxy, "r2", Some((1, 0, 1))).await;
    drop((answer, client));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_callers_that_leave_one_that_never_answers_have_met_a_slow_one() {
    let folder = tempfile::tempdir().expect("folder");
    let gone = Arc::<AtomicU64>::default();
    let (r1, r2) = (upstream("r1", Arc::default()).await, upstream("r2", gone.clone()).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    let state = |guard| guarded(Protocol::H1, &[(1, r1.address, 0), (2, r2.address, 1)], Some(guard));
    // Over HTTP/1 a client that left is noticed when there is something to send it.
    let leave = async |count: u64| {
        let mut client = Client::http2(proxy.http).await;
        let never = client.request(HOST, "/never").body(Body::default()).expect("a request");
        let asking = tokio::spawn(async move { client.send(never).await });
        until("it is asked", || r2.all().matches("/never").count() as u64 == count).await;
        asking.abort();
        until("its client went away", || gone.load(Relaxed) == count).await;
    };
    // They leave early, and say nothing.
    proxy.apply(state(Guard { slow_us: 3_600_000_000, ..guard(7) }));
    leave(1).await;
    assert_eq!(shown(&proxy, "r2").await, None);
    // Whatever is slow, with one microsecond: ended, slow, and no failure.
    proxy.apply(state(Guard { epoch: 1, ..guard(7) }));
    leave(2).await;
    shows(&proxy, "r2", Some((1, 0, 1))).await;
    leave(3).await;
    shows(&proxy, "r2", Some((2, 0, 2))).await;
    // Nor does one that broke off itself; nothing else is counted after it.
    let socket = sent(&proxy, "POST /half-sent HTTP/1.1\r\nhost: HOST\r\ncontent-length: 9\r\n\r\nhal").await;
    until("it is asked", || r2.all().contains("/half-sent")).await;
    drop(socket);
    let idle = format!("pointsman_proxy_outstanding{{stage=\"{STAGE}\",release=\"r2\"}} 0");
    let begun = std::time::Instant::now();
    while !Client::http1(proxy.admin).await.get("admin", "/metrics").await.body.contains(&idle) {
        assert!(begun.elapsed() < PATIENCE, "it is in flight");
    }
    Client::http1(proxy.http).await.get(HOST, "/").await;
    shows(&proxy, "r2", Some((3, 0, 3))).await;
    assert!(!is_tripped(&proxy).await);
}

/// A connection on which this went to the proxy.
async fn sent(proxy: &TestProxy, text: &str) -> tokio::net::TcpStream {
    let mut socket = tokio::net::TcpStream::connect(proxy.http).await.expect("connected");
    let text = text.replace("HOST", HOST);
    tokio::io::AsyncWriteExt::write_all(&mut socket, text.as_bytes()).await.expect("sent");
    socket
}

/// What is judged of the canary by epoch (epoch, requests, failed, slow), once it is so many epochs with so many requests.
async fn epochs(link: &mut Link, epochs: usize, requests: u64) -> Vec<(u32, u64, u64, u64)> {
    let told = async {
        loop {
            let Some(Up::Counts(counts)) = link.next().await else { continue };
            let Some(canary) = counts.releases.into_iter().find(|one| one.release == 2) else { continue };
            assert!(canary.judged.iter().all(|judged| judged.rollout == 7));
            if canary.judged.len() == epochs && canary.judged.iter().map(|one| one.requests).sum::<u64>() == requests {
                let all = canary.judged.iter().map(|one| (one.epoch, one.requests, one.failed, one.slow));
                return all.collect();
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("they are told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_requests_count_under_the_epoch_in_which_they_began() {
    let folder = tempfile::tempdir().expect("folder");
    let now = Arc::<tokio::sync::Notify>::default();
    let r1 = upstream("r1", Arc::default()).await;
    let wait = now.clone();
    let r2 = Recorder::start(move |mut peer: Peer| {
        let wait = wait.clone();
        async move {
            while let Some(asked) = peer.request().await {
                if asked.head.starts_with("GET /later") {
                    wait.notified().await;
                }
                let status = if asked.head.starts_with("GET /fails") { 500 } else { 200 };
                peer.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\nr2")).await;
            }
        }
    })
    .await;
    let proxy = Arc::new(TestProxy::start(folder.path(), 1).await);
    let state = |epoch, slow_us| {
        let guard = Guard { epoch, slow_us, ..guard(7) };
        guarded(Protocol::H1, &[(1, r1.address, 0), (2, r2.address, 1)], Some(guard))
    };
    proxy.apply(state(1, 1));
    let (channel, mut links) = play().await;
    let following = tokio::spawn({
        let proxy = proxy.clone();
        async move { proxy.engine.follow(channel, || {}).await }
    });
    let mut link = connected(&mut links).await;
    // It begins under the first epoch, in which all is slow, and ends under the second, in which nothing is.
    let mut client = Client::http1(proxy.http).await;
    let later = client.request(HOST, "/later").body(Body::default()).expect("a request");
    let later = tokio::spawn(async move { client.send(later).await });
    until("it is asked", || r2.all().contains("/later")).await;
    proxy.apply(state(2, 3_600_000_000));
    let mut client = Client::http1(proxy.http).await;
    client.get(HOST, "/").await;
    client.get(HOST, "/fails").await;
    assert_eq!(epochs(&mut link, 1, 2).await, [(2, 2, 1, 0)]);
    now.notify_one();
    assert_eq!(later.await.expect("no panic").expect("answered").status, 200);
    assert_eq!(epochs(&mut link, 2, 3).await, [(1, 1, 0, 1), (2, 2, 1, 0)]);
    // An epoch of which nothing has ended is not told of; those before are, and so they are on another connection.
    proxy.apply(state(3, 1));
    drop(link);
    link = connected(&mut links).await;
    assert_eq!(epochs(&mut link, 2, 3).await, [(1, 1, 0, 1), (2, 2, 1, 0)]);
    for epoch in 4..=12 {
        proxy.apply(state(epoch, 1));
        client.get(HOST, "/").await;
    }
    let newest: Vec<_> = (5..=12).map(|epoch| (epoch, 1, 0, 1)).collect();
    assert_eq!(epochs(&mut link, 8, 8).await, newest, "the newest eight");
    // Metrics count on.
    shows(&proxy, "r2", Some((12, 1, 10))).await;
    following.abort();
}
