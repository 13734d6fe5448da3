//! Exchanges that last are decided again: who may not go on is told so in the protocol's own way, and others go on.

use std::sync::Arc;

use api::fleet::{Protocol, Resource};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use policies::credential::api_key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::gates::{Gates, HELLO, POLICIES, SECRET, TOLD, application, policy};
use crate::reading::Reading;
use crate::recorder::Recorder;
use crate::support::{Body, Client, Upstream, fed, set, settings, until};
use crate::wire::{PATIENCE, Wire};

const GRPC: &str = "application/grpc";
const CLOSE: &[u8] = b"\x88\x13\x11\x31no longer allowed";

fn message(text: &str) -> Frame<Bytes> {
    let mut bytes = vec![0, 0, 0, 0, text.len() as u8];
    bytes.extend_from_slice(text.as_bytes());
    Frame::data(bytes.into())
}

/// The state with one resource more, or another.
fn with(gates: &Gates, one: Resource) -> Vec<Resource> {
    let mut state = gates.state();
    state.retain(|other| (&other.kind, &other.name) != (&one.kind, &one.name));
    state.push(one);
    state
}

fn without(gates: &Gates, kind: &str) -> Vec<Resource> {
    gates.state().into_iter().filter(|one| one.kind != kind).collect()
}

fn asks(gates: &Gates, client: &Client, host: &str, path: &str, token: &str) -> http::request::Builder {
    let request = client.request(host, path).header("x-api-key", &gates.key.text);
    request.header("authorization", format!("Bearer {token}"))
}

/// A call in both directions, one message in.
struct Call {
    feed: tokio::sync::mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>,
    answer: Incoming,
}

impl Call {
    async fn open(gates: &Gates, client: &mut Client, host: &str, token: &str) -> Self {
        let (feed, body) = fed();
        let request = asks(gates, client, host, "/call", token).method("POST").header("content-type", GRPC);
        let answer = client.open(request.body(body).expect("a request")).await.expect("answered");
        assert!(!answer.headers().contains_key("grpc-status"), "{answer:?}");
        let mut call = Self { feed, answer: answer.into_body() };
        call.echoes("begun").await;
        call
    }

    async fn echoes(&mut self, text: &str) {
        self.feed.send(Ok(message(text))).await.expect("taken");
        let echoed = self.answer.frame().await.expect("a frame").expect("whole").into_data().expect("data");
        assert_eq!(&echoed[5..], text.as_bytes());
    }

    /// The status with which it ended.
    async fn status(mut self) -> String {
        let frame = tokio::time::timeout(PATIENCE, self.answer.frame()).await.expect("it goes on for ever");
        let frame = frame.expect("a frame").expect("whole, and no reset");
        let trailers = frame.into_trailers().expect("trailers");
        assert!(trailers.contains_key("grpc-message"), "{trailers:?}");
        trailers["grpc-status"].to_str().expect("text").to_owned()
    }
}

/// The sum of all metrics that begin so.
async fn metric(gates: &Gates, begins: &str) -> u64 {
    let metrics = Client::http1(gates.proxy.admin).await.get("admin", "/metrics").await.body;
    let lines = metrics.lines().filter(|line| line.starts_with(begins));
    lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a number")).sum()
}

/// Requests that the releases are to blame for.
async fn blamed(gates: &Gates) -> u64 {
    metric(gates, "pointsman_proxy_unanswered_total{").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_grpc_calls_end_with_a_status_when_who_asked_may_not_go_on() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H2c).await;
    let forbids = |stage: &str| {
        policy(&format!("{POLICIES}forbid (principal, action in Action::\"call\", resource == Stage::\"{stage}\");"))
    };
    let other_key = application("batch", &api_key::draw(&[9; 40]));
    let mut client = Client::http2(gates.proxy.http).await;
    for (what, host, state, expected) in [
        ("no application", HELLO, without(&gates, "application"), "16"),
        ("another key", HELLO, with(&gates, other_key), "16"),
        ("no issuer", HELLO, without(&gates, "issuer"), "16"),
        ("no policy", SECRET, without(&gates, "policy"), "12"),
        ("forbidden", HELLO, with(&gates, forbids("hello/staging")), "12"),
        ("forbidden, and told so", TOLD, with(&gates, forbids("told/staging")), "7"),
    ] {
        gates.proxy.apply(set(gates.state()));
        let mut call = Call::open(&gates, &mut client, host, &gates.staff()).await;
        // What concerns others ends nothing.
        gates.proxy.apply(set(with(&gates, application("other", &api_key::draw(&[3; 40])))));
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
        call.echoes("goes on").await;
        let given_up = upstream.state.given_up.load(std::sync::atomic::Ordering::Relaxed);
        gates.proxy.apply(set(state));
        assert_eq!(call.status().await, expected, "{what}");
        let told = || upstream.state.given_up.load(std::sync::atomic::Ordering::Relaxed) > given_up;
        until("the endpoint knows", told).await;
    }
    drop(client);
    assert_eq!(blamed(&gates).await, 0);
    gates.proxy.apply(set(gates.state()));
    gates.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_calls_end_with_their_token() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H2c).await;
    let mut client = Client::http2(gates.proxy.http).await;
    let mut longer = Call::open(&gates, &mut client, HELLO, &gates.staff()).await;
    let shorter = gates.issuer.token("alice", &["staff"], 5);
    let mut call = Call::open(&gates, &mut client, HELLO, &shorter).await;
    call.echoes("goes on").await;
    assert_eq!(call.status().await, "16");
    longer.echoes("goes on").await;
    // One that has no answer yet.
    for (content_type, expected) in [(GRPC, 200), ("text/plain", 401)] {
        let shorter = gates.issuer.token("alice", &["staff"], 5);
        let request =
            asks(&gates, &client, HELLO, "/hold", &shorter).method("POST").header("content-type", content_type);
        let answer = client.send(request.body(fed().1).expect("a request"));
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("it waits for ever").expect("answered");
        assert_eq!(answer.status, expected, "{answer:?}");
        assert_eq!(answer.headers.get("grpc-status").is_some_and(|status| status == "16"), expected == 200);
    }
    assert_eq!(blamed(&gates).await, 0);
}

/// Answers with an upgrade or an event stream; half of something, and the rest when it is told.
async fn begins(rest: Arc<Notify>) -> Recorder {
    Recorder::start(move |mut peer| {
        let rest = rest.clone();
        async move {
            let Some(head) = peer.head().await else { return };
            let upgraded = |protocol: &str, key: &str| {
                let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
                format!("{switch}Upgrade: {protocol}\r\nSec-WebSocket-Accept: {key}\r\n\r\n")
            };
            match head.split(' ').nth(1).unwrap_or_default() {
                "/normal" => return peer.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await,
                "/events" => {
                    peer.send(
                        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
                    )
                    .await;
                    peer.send("9\r\ndata: 1\n\n\r\n").await;
                    tokio::select! {
                        () = peer.ended() => {}
                        () = rest.notified() => {}
                    }
                    return;
                }
                "/other" => peer.send(format!("{}hello", upgraded("other", "-"))).await,
                _ => {
                    let accept = crate::websocket::accept(&head);
                    peer.send(format!("{}\x02\x05hello\x01\x08half", upgraded("websocket", &accept))).await;
                    rest.notified().await;
                    // The rest of the frame, and another one that must not arrive.
                    peer.send("rest\x02\x05never").await;
                }
            }
            peer.ended().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_websockets_are_closed_between_two_frames() {
    let folder = tempfile::tempdir().expect("folder");
    let rest = Arc::<Notify>::default();
    let upstream = begins(rest.clone()).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H1).await;
    let token = gates.staff();
    let mut wire = Wire::connect(gates.proxy.http).await;
    let ask = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    wire.send(format!("GET /chat HTTP/1.1\r\nHost: {HELLO}\r\n{ask}{}\r\n", gates.fields(&token))).await;
    assert_eq!(wire.head().await.expect("a head").0, 101);
    assert_eq!(wire.bytes(13).await, b"\x02\x05hello\x01\x08half");
    // Over HTTP/2 it is the same.
    let mut client = Client::http2(gates.proxy.http).await;
    assert_eq!(client.get(HELLO, "/normal").await.status, 401);
    let mut request = http::Request::connect(format!("http://{HELLO}/chat"))
        .header("x-api-key", &gates.key.text)
        .header("authorization", format!("Bearer {token}"))
        .body(Body::default())
        .expect("a request");
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let mut answer = client.open(request).await.expect("answered");
    assert_eq!(answer.status(), 200);
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("the protocol changed"));
    let mut begun = [0; 13];
    stream.read_exact(&mut begun).await.expect("frames");

    gates.proxy.apply(set(without(&gates, "application")));
    // The frame that has begun goes on to its end, when it comes.
    let ended = async {
        while metric(&gates, "pointsman_proxy_cut_total{cause=\"no_longer_allowed\"}").await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("they go on for ever");
    rest.notify_waiters();
    assert_eq!(wire.rest().await, [&b"rest"[..], CLOSE].concat(), "and then it is over");
    let mut over = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut over)).await;
    end.expect("it goes on for ever").expect("an end");
    assert_eq!(over, [&b"rest"[..], CLOSE].concat());
    stream.shutdown().await.expect("both have ended");
    drop((wire, stream, client));
    assert_eq!(blamed(&gates).await, 0);
    gates.proxy.apply(set(gates.state()));
    gates.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_answers_of_other_kinds_are_cut() {
    let folder = tempfile::tempdir().expect("folder");
    let rest = Arc::<Notify>::default();
    let upstream = begins(rest.clone()).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H1).await;
    let fields = gates.fields(&gates.staff());
    let mut events = Wire::connect(gates.proxy.http).await;
    events.send(format!("GET /events HTTP/1.1\r\nHost: {HELLO}\r\n{fields}\r\n")).await;
    assert_eq!(events.head().await.expect("a head").0, 200);
    assert_eq!(events.bytes(14).await, b"9\r\ndata: 1\n\n\r\n");
    let mut other = Wire::connect(gates.proxy.http).await;
    let ask = "Connection: Upgrade\r\nUpgrade: other\r\n";
    other.send(format!("GET /other HTTP/1.1\r\nHost: {HELLO}\r\n{ask}{fields}\r\n")).await;
    assert_eq!(other.head().await.expect("a head").0, 101);
    assert_eq!(other.bytes(5).await, b"hello");
    let mut client = Client::http2(gates.proxy.http).await;
    let request = asks(&gates, &client, HELLO, "/events", &gates.staff()).body(Body::default()).expect("a request");
    let mut stream = client.open(request).await.expect("answered").into_body();
    assert_eq!(stream.frame().await.expect("a frame").expect("whole").into_data().expect("data"), "data: 1\n\n");
    // One that anybody may read goes on.
    let mut open = Wire::connect(gates.proxy.http).await;
    open.send(format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", crate::gates::OPEN)).await;
    assert_eq!(open.head().await.expect("a head").0, 200);

    gates.proxy.apply(set(without(&gates, "application")));
    assert_eq!(events.rest().await, b"", "no last chunk");
    assert_eq!(other.rest().await, b"");
    let end = tokio::time::timeout(PATIENCE, stream.frame()).await.expect("it goes on for ever");
    let error = end.expect("an end").expect_err("a reset");
    let reset = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<h2::Error>());
    assert!(reset.is_some_and(h2::Error::is_reset), "{error:?}");
    assert!(!client.is_closed(), "the connection stays");
    assert_eq!(open.bytes(14).await, b"9\r\ndata: 1\n\n\r\n");
    assert_eq!(metric(&gates, "pointsman_proxy_cut_total{cause=\"no_longer_allowed\"}").await, 3);
    assert_eq!(blamed(&gates).await, 0);
    rest.notify_waiters();
    assert_eq!(open.rest().await, b"", "its endpoint has broken off");
    drop((events, other, stream, client, open));
    gates.proxy.apply(set(gates.state()));
    gates.is_as_before().await;
}
