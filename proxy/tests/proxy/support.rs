//! The harness: [`TestProxy`], [`Upstream`], [`Client`], and resources in one line each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Version;
use api::fleet::{
    Backend, Endpoint, Endpoints, HealthCheck, Protocol, Resource, ResourceSet, Split, Stage, WeightedRelease, Zone,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proxy::{Engine, Settings};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub(crate) const HOST: &str = "hello.staging.example.com";

// === Resources ===

pub(crate) fn resource(kind: &str, name: &str, body: &impl Message) -> Resource {
    Resource { kind: kind.into(), name: name.into(), body: body.encode_to_vec().into(), schema: 1 }
}

pub(crate) fn zone() -> Resource {
    let domain = "staging.example.com";
    resource("zone", domain, &Zone { environment: "staging".into(), domain: domain.into(), ..Zone::default() })
}

pub(crate) fn stage(name: &str, protocol: Protocol, releases: &[u32]) -> Resource {
    let (service, environment) = name.split_once('/').expect("a stage's name");
    let health = HealthCheck { every_ms: 60_000, timeout_ms: 1_000, fall: 3, rise: 1, ..HealthCheck::default() };
    let backend = |release: &u32| Backend {
        release: *release,
        component: "web".into(),
        protocol: protocol.into(),
        health: Some(health.clone()),
        tls: None,
    };
    let backends = releases.iter().map(backend).collect();
    resource(
        "stage",
        name,
        &Stage { service: service.into(), environment: environment.into(), backends, ..Stage::default() },
    )
}

pub(crate) fn weights(name: &str, weights: &[(u32, u32)]) -> Resource {
    let weights = weights.iter().map(|(release, weight)| WeightedRelease { release: *release, weight: *weight });
    resource("split", name, &Split { weights: weights.collect(), ..Split::default() })
}

pub(crate) fn endpoints(stage: &str, release: u32, addresses: &[SocketAddr]) -> Resource {
    let endpoints = addresses.iter().map(|address| Endpoint { address: address.to_string() }).collect();
    resource("endpoints", &format!("{stage}/r{release}"), &Endpoints { endpoints })
}

pub(crate) fn set(upserts: Vec<Resource>) -> ResourceSet {
    ResourceSet { upserts, removals: Vec::new() }
}

/// `hello/staging` with a release per upstream and the given weights.
pub(crate) fn hello(protocol: Protocol, backends: &[(u32, SocketAddr, u32)]) -> ResourceSet {
    let releases: Vec<u32> = backends.iter().map(|backend| backend.0).collect();
    let split: Vec<(u32, u32)> = backends.iter().map(|backend| (backend.0, backend.2)).collect();
    let mut all = vec![zone(), stage("hello/staging", protocol, &releases), weights("hello/staging", &split)];
    all.extend(backends.iter().map(|(release, address, _)| endpoints("hello/staging", *release, &[*address])));
    set(all)
}

// === The proxy ===

pub(crate) struct TestProxy {
    pub(crate) engine: Engine,
    pub(crate) http: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// What every connection has to begin with.
    pub(crate) introduction: &'static str,
    number: AtomicU64,
}

pub(crate) fn settings(data: &Path, workers: usize) -> Settings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings { http: Some(any), admin: any, workers, software: "test".into(), ..Settings::new(data.to_owned()) }
}

impl TestProxy {
    pub(crate) async fn start(data: &Path, workers: usize) -> Self {
        Self::with(settings(data, workers)).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        certs::install_provider();
        let introduction = if settings.proxy_protocol { "PROXY UNKNOWN\r\n" } else { "" };
        let engine = Engine::start(settings).await.expect("started");
        let bound = engine.bound();
        let number = AtomicU64::new(engine.version().map_or(0, |version| version.number));
        Self { http: bound.http.expect("asked for"), admin: bound.admin, introduction, engine, number }
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.engine.bound().https.expect("asked for")
    }

    /// Applies a full state as the next version.
    pub(crate) fn apply(&self, set: ResourceSet) -> Version {
        let version = Version { term: 1, number: self.number.fetch_add(1, Relaxed) + 1 };
        self.engine.apply(version, set).expect("good resources");
        version
    }
}

// === An upstream ===

pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// A server that says its name and remembers what it was asked.
///
/// `/` answers with the name; `/echo` with the request's body; `/hold` answers after [`Upstream::release`]; `/half`
/// breaks off within the answer; `/call` is a gRPC method that echoes and ends with trailers; `/bare` is one that
/// forgets the status; `/flood` is one that says more than sockets hold, at `/flood/announced` with its length.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
}

#[derive(Default)]
pub(crate) struct State {
    name: String,
    pub(crate) requests: AtomicU64,
    pub(crate) connections: AtomicU32,
    /// Heads in the order they came.
    pub(crate) seen: Mutex<Vec<(http::Uri, HeaderMap)>>,
    hold: Notify,
    /// Requests at `/hold` whose client went away, and at `/call` whose body broke off.
    pub(crate) given_up: AtomicU64,
}

const FLOOD_PIECE: usize = 16 * 1024;
const FLOOD_PIECES: usize = 1_500;

/// Counts a request that is dropped before it was answered.
struct Held(Arc<State>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(1, Relaxed);
    }
}

impl Upstream {
    pub(crate) async fn start(name: &str, protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State { name: name.into(), ..State::default() });
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                stream.set_nodelay(true).expect("set");
                let state = shared.clone();
                state.connections.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    let service = service_fn(move |request| answer(state.clone(), request));
                    // However the other side ends it.
                    let _ = match protocol {
                        Protocol::H2c => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                        _ => {
                            hyper::server::conn::http1::Builder::new()
                                .half_close(true)
                                .serve_connection(io, service)
                                .await
                        }
                    };
                });
            }
        });
        Self { address, state }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }

    /// Lets those that wait at `/hold` go on.
    pub(crate) fn release(&self) {
        self.state.hold.notify_waiters();
    }

    /// Path of the last request; empty before the first.
    pub(crate) fn last_path(&self) -> String {
        self.state.seen.lock().expect("whole").last().map(|(uri, _)| uri.path().to_owned()).unwrap_or_default()
    }

    pub(crate) fn last(&self) -> (http::Uri, HeaderMap) {
        self.state.seen.lock().expect("whole").last().expect("a request").clone()
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = frames.into_iter().map(Ok);
    BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames)))
}

fn trailers(status: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().expect("a value"));
    trailers.insert("x-checksum", "abc".parse().expect("a value"));
    Frame::trailers(trailers)
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    state.requests.fetch_add(1, Relaxed);
    let (head, body) = request.into_parts();
    {
        let mut seen = state.seen.lock().expect("whole");
        if seen.len() < 1_000 {
            seen.push((head.uri.clone(), head.headers.clone()));
        }
    }
    let plain = |body| Response::builder().header("x-upstream", &state.name).body(body).expect("a response");
    let grpc = |body| Response::builder().header("content-type", "application/grpc").body(body).expect("a response");
    Ok(match head.uri.path() {
        "/echo" => plain(full(body.collect().await.map_err(std::io::Error::other)?.to_bytes())),
        "/hold" => {
            let held = Held(state.clone());
            state.hold.notified().await;
            std::mem::forget(held);
            plain(full(state.name.clone()))
        }
        "/break" => return Err(std::io::Error::other("on purpose")),
        "/error" => Response::builder().status(500).body(full("no")).expect("a response"),
        "/call" => {
            // As it comes, so that a stream in both directions works.
            let data = body.into_data_stream();
            // To its end: one that was reset says so for ever.
            let told = state.clone();
            let echoed = tokio_stream::StreamExt::map_while(data, move |piece| match piece {
                Ok(piece) => Some(Ok(Frame::data(piece))),
                Err(_) => {
                    told.given_up.fetch_add(1, Relaxed);
                    None
                }
            });
            let end = tokio_stream::iter([Ok(trailers("0"))]);
            grpc(passed_on(tokio_stream::StreamExt::chain(echoed, end)))
        }
        path @ ("/flood" | "/flood/announced") => {
            let piece = Frame::data(Bytes::from_static(&[b'x'; FLOOD_PIECE]));
            let flood = (0..FLOOD_PIECES).map(move |_| Frame::data(piece.data_ref().expect("data").clone()));
            let mut answer = grpc(frames(flood.chain([trailers("0")]).collect()));
            if path == "/flood/announced" {
                answer.headers_mut().insert("content-length", (FLOOD_PIECE * FLOOD_PIECES).into());
            }
            answer
        }
        "/failed" => grpc(frames(vec![trailers("9")])),
        "/bare" => grpc(frames(vec![Frame::data("x".into())])),
        "/html" => plain(full("<html>")),
        _ => plain(full(state.name.clone())),
    })
}

/// `boxed` wants `Sync`, which a body's stream is not: a task passes the frames on.
fn passed_on<S>(frames: S) -> Body
where
    S: tokio_stream::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut frames = Box::pin(frames);
        while let Some(frame) = tokio_stream::StreamExt::next(&mut frames).await {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    BodyExt::boxed(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

// === A client ===

/// One connection to the proxy.
pub(crate) enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(hyper::client::conn::http2::SendRequest<Body>),
}

/// What came back, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: HeaderMap,
}

impl Client {
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("ready");
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    pub(crate) async fn http2(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("ready");
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    pub(crate) fn request(&self, host: &str, path: &str) -> http::request::Builder {
        match self {
            Self::Http1(_) => Request::builder().uri(path).header("host", host),
            Self::Http2(_) => Request::builder().uri(format!("http://{host}{path}")),
        }
    }

    /// Sends and reads to the end.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let answer = self.open(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    }

    /// Sends and gives the answer before its body.
    pub(crate) async fn open(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Answer {
        let request = self.request(host, path).body(full("")).expect("a request");
        self.send(request).await.expect("answered")
    }

    pub(crate) async fn post(&mut self, path: &str, content_type: &str, body: Vec<Frame<Bytes>>) -> Answer {
        let request = self.request(HOST, path).method("POST").header("content-type", content_type);
        self.send(request.body(frames(body)).expect("a request")).await.expect("answered")
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    /// Requests one after the other; how often each name answered.
    pub(crate) async fn count(&mut self, requests: u64) -> HashMap<String, u64> {
        let mut counts = HashMap::new();
        for _ in 0..requests {
            let answer = self.get(HOST, "/").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            *counts.entry(answer.body).or_default() += 1;
        }
        counts
    }
}

/// A body that is fed by hand.
pub(crate) fn fed() -> (tokio::sync::mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    (sender, BodyExt::boxed(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver))))
}

/// Raw bytes to the proxy; everything that comes back until it closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes).await.expect("written");
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// See [`until`].
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so; fails after a time that no working machine needs.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let (begun, mut pause) = (std::time::Instant::now(), Duration::from_millis(1));
    while begun.elapsed() < PATIENCE {
        if so() {
            return;
        }
        // Looking may cost something: the kernel's table of sockets is long at times.
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(Duration::from_millis(50));
    }
    panic!("never came true: {what}");
}
