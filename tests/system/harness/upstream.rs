//! A release that runs in the test: it says its name and remembers what it was asked. It may fail, or be slow.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::dice::{mixed, now_ms};

/// Heads that are remembered; a load sends far more.
const REMEMBERED: usize = 100;
/// Times that are remembered: those of a rollout are among them.
const TIMES: usize = 100_000;

/// How a release answers. Which of its requests it is that it does not answer well follows from `seed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Well,
    /// So many of a million have a 500.
    Fails {
        ppm: u64,
        seed: u64,
    },
    /// So many of a million are answered so much later.
    Slow {
        ppm: u64,
        seed: u64,
        by: Duration,
    },
}

/// A server that answers every request with its name.
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    failed: AtomicU64,
    /// Unix milliseconds.
    times: Mutex<Vec<u64>>,
    heads: Mutex<Vec<HeaderMap>>,
}

impl Upstream {
    pub(crate) async fn start(name: &str) -> Self {
        Self::tempered(name, Temper::Well).await
    }

    pub(crate) async fn tempered(name: &str, temper: Temper) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, seen) = (listener.local_addr().expect("bound"), Arc::<Seen>::default());
        let (own_name, shared) = (name.to_owned(), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true); // Only makes it slower.
                let (name, seen) = (own_name.clone(), shared.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (answer, later) = answer(&name, &seen, temper, &request);
                        async move {
                            if !later.is_zero() {
                                sleep(later).await;
                            }
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    // However the other side ends it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { name: name.to_owned(), address, seen }
    }

    /// Requests so far, health checks excluded: those of these tests only connect.
    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(Relaxed)
    }

    /// Answers so far that were a 500.
    pub(crate) fn failed(&self) -> u64 {
        self.seen.failed.load(Relaxed)
    }

    /// When the first 100,000 requests came, in milliseconds since the Unix epoch.
    pub(crate) fn times(&self) -> Vec<u64> {
        self.seen.times.lock().expect("whole").clone()
    }

    /// The first heads.
    pub(crate) fn heads(&self) -> Vec<HeaderMap> {
        self.seen.heads.lock().expect("whole").clone()
    }
}

fn answer(name: &str, seen: &Seen, temper: Temper, request: &Request<Incoming>) -> (Response<Full<Bytes>>, Duration) {
    let number = seen.requests.fetch_add(1, Relaxed);
    let mut times = seen.times.lock().expect("whole");
    if times.len() < TIMES {
        times.push(now_ms());
    }
    drop(times);
    let mut heads = seen.heads.lock().expect("whole");
    if heads.len() < REMEMBERED {
        heads.push(request.headers().clone());
    }
    let (status, later) = temper.of(number);
    seen.failed.fetch_add(u64::from(status != 200), Relaxed);
    let body = Full::from(name.to_owned());
    (Response::builder().status(status).header("x-release", name).body(body).expect("a response"), later)
}

impl Temper {
    pub(crate) fn is_bad(self) -> bool {
        self != Self::Well
    }

    /// Status of an answer, and by how much it is late.
    fn of(self, number: u64) -> (u16, Duration) {
        let is_hit = |seed: u64, ppm: u64| mixed(seed ^ mixed(number)) % 1_000_000 < ppm;
        match self {
            Self::Fails { ppm, seed } if is_hit(seed, ppm) => (500, Duration::ZERO),
            Self::Slow { ppm, seed, by } if is_hit(seed, ppm) => (200, by),
            _ => (200, Duration::ZERO),
        }
    }
}
