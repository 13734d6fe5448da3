//! A release that runs in the test: it says its name and remembers what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Heads that are remembered; a load sends far more.
const REMEMBERED: usize = 100;

/// A server that answers every request with its name.
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    heads: Mutex<Vec<HeaderMap>>,
}

impl Upstream {
    pub(crate) async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, seen) = (listener.local_addr().expect("bound"), Arc::<Seen>::default());
        let (own_name, shared) = (name.to_owned(), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true); // Only makes it slower.
                let (name, seen) = (own_name.clone(), shared.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&name, &seen, &request);
                        async { Ok::<_, Infallible>(answer) }
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

    /// The first heads.
    pub(crate) fn heads(&self) -> Vec<HeaderMap> {
        self.seen.heads.lock().expect("whole").clone()
    }
}

fn answer(name: &str, seen: &Seen, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    seen.requests.fetch_add(1, Relaxed);
    let mut heads = seen.heads.lock().expect("whole");
    if heads.len() < REMEMBERED {
        heads.push(request.headers().clone());
    }
    let body = Full::from(name.to_owned());
    Response::builder().header("x-release", name).body(body).expect("a response")
}
