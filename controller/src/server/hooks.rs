//! Webhooks: whoever may tell that a repository has changed has it looked at now.
//!
//! Must not know: what a delivery says. A body is hashed as it comes and dropped, never read: it is authenticated, not believed.
//! `signature` says whether it is.
//!
//! Main types: [`Hooks`]; [`serve_clear`] for a listener of their own, behind a proxy. An unknown name, a missing signature and
//! a wrong one get the same answer after the same work.

mod signature;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use api::MemberName;
use bytes::Buf;
use http::header::{ALLOW, CONTENT_LENGTH, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::web;
use crate::core::spec::WebhookKind;
use crate::sources::Sources;
use crate::status::clock_ms;
use signature::Check;

/// Where they are taken, before the name of the repository.
pub(super) const HOOKS: &str = "/v1/hooks/";

/// What GitHub says a delivery is about.
const EVENT: &str = "x-github-event";
/// Largest body: GitHub sends no more.
const BODY_BYTES: u64 = 25 * 1024 * 1024;
/// Deliveries at once.
const AT_ONCE: usize = 16;
/// Connections at once of the listener of their own.
const CONNECTIONS: usize = 64;
/// A request's head.
const HEAD: Duration = Duration::from_secs(10);
/// After a failed accept (no descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);

/// Takes webhooks. Clones share the places.
#[derive(Clone)]
pub(crate) struct Hooks {
    sources: Sources,
    places: Arc<Semaphore>,
    patience: Patience,
    /// The key of names that nobody knows: drawn, so that nobody can sign with it.
    nobody: Arc<[u8; 32]>,
}

/// How long a body may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Between two pieces.
    piece: Duration,
    /// All of it.
    whole: Duration,
}

/// Why a body could not be hashed to its end.
enum Cut {
    TooLarge,
    TooSlow,
    Broken,
}

// === impl Hooks ===

impl Hooks {
    /// Takes what concerns these sources.
    pub(crate) fn new(sources: Sources) -> Self {
        let mut nobody = [0; 32];
        aws_lc_rs::rand::fill(&mut nobody).expect("the operating system gives randomness");
        let patience = Patience { piece: Duration::from_secs(10), whole: Duration::from_secs(60) };
        Self { sources, places: Arc::new(Semaphore::new(AT_ONCE)), patience, nobody: Arc::new(nobody) }
    }

    /// One delivery.
    pub(super) async fn answer<B>(&self, head: Parts, body: B) -> Response<String>
    where
        B: Body<Data: Buf> + Send,
    {
        if head.method != Method::POST {
            let mut refused = web::text(StatusCode::METHOD_NOT_ALLOWED, "accepted is POST");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refused;
        }
        let Ok(_place) = self.places.try_acquire() else {
            let mut busy = web::text(StatusCode::SERVICE_UNAVAILABLE, "too many deliveries at once: try again");
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return busy;
        };
        let name = head.uri.path().strip_prefix(HOOKS).and_then(|name| name.parse::<MemberName>().ok());
        let known = name.and_then(|name| Some((self.sources.hook(&name)?, name)));
        let (kind, key) = match &known {
            Some((hook, _)) => (hook.kind, hook.key.as_slice()),
            None => (guessed(&head), self.nobody.as_slice()),
        };
        let check = Check::begin(kind, key, &head.headers, clock_ms() / 1000);
        let check = match self.hash(check, &head, body).await {
            Ok(check) => check,
            Err(Cut::TooLarge) => {
                return web::text(StatusCode::PAYLOAD_TOO_LARGE, &format!("accepted are {BODY_BYTES} bytes at most"));
            }
            Err(Cut::TooSlow) => return web::text(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
            Err(Cut::Broken) => return web::text(StatusCode::BAD_REQUEST, "the body did not come whole"),
        };
        let is_right = check.finish();
        let Some((_, name)) = known.filter(|_| is_right) else {
            // At a level that a flood does not fill the log with.
            debug!("a webhook was refused");
            return web::text(StatusCode::UNAUTHORIZED, "the signature is missing or wrong");
        };
        self.take(kind, &name, &head)
    }

    /// What follows from a delivery that comes from whom it should.
    fn take(&self, kind: WebhookKind, name: &MemberName, head: &Parts) -> Response<String> {
        let about = head.headers.get(EVENT).and_then(|about| about.to_str().ok()).unwrap_or_default();
        match (kind, about) {
            (WebhookKind::Github, "ping") => web::text(StatusCode::OK, "this is where deliveries are taken"),
            (WebhookKind::Signed, _) | (WebhookKind::Github, "push" | "release" | "create") => {
                info!(repository = %name, "a webhook asks for a look");
                self.sources.poke(name);
                web::text(StatusCode::ACCEPTED, "the repository is looked at")
            }
            _ => web::text(StatusCode::ACCEPTED, "nothing follows from deliveries of this kind"),
        }
    }

    /// Takes a body in, piece by piece, and keeps none of it.
    async fn hash<B>(&self, mut check: Check, head: &Parts, body: B) -> Result<Check, Cut>
    where
        B: Body<Data: Buf> + Send,
    {
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > BODY_BYTES) {
            return Err(Cut::TooLarge);
        }
        let mut body = std::pin::pin!(body);
        let mut bytes = 0;
        let whole = async {
            while let Some(frame) = next(body.as_mut(), self.patience.piece).await? {
                let Ok(mut data) = frame.into_data() else { continue };
                bytes += data.remaining() as u64;
                if bytes > BODY_BYTES {
                    return Err(Cut::TooLarge);
                }
                while data.has_remaining() {
                    let piece = data.chunk();
                    let length = piece.len();
                    check.update(piece);
                    data.advance(length);
                }
            }
            Ok(())
        };
        tokio::time::timeout(self.patience.whole, whole).await.map_err(|_| Cut::TooSlow)??;
        Ok(check)
    }
}

/// The next piece of a body.
async fn next<B: Body>(mut body: Pin<&mut B>, patience: Duration) -> Result<Option<hyper::body::Frame<B::Data>>, Cut> {
    let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
    match tokio::time::timeout(patience, frame).await {
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(_))) => Err(Cut::Broken),
        Ok(None) => Ok(None),
        Err(_) => Err(Cut::TooSlow),
    }
}

/// How somebody who names a repository that nobody knows would have signed.
fn guessed(head: &Parts) -> WebhookKind {
    if head.headers.contains_key(EVENT) { WebhookKind::Github } else { WebhookKind::Signed }
}

/// Takes webhooks without TLS, and nothing else, until it is dropped: for behind a proxy.
pub(crate) async fn serve_clear(listener: TcpListener, hooks: Hooks) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(problem) => {
                warn!(%problem, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let hooks = hooks.clone();
        tokio::spawn(async move {
            let _place = place;
            let whole = HEAD + hooks.patience.whole * 2;
            let service = service_fn(move |request: Request<Incoming>| {
                let hooks = hooks.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let answer = match head.uri.path().starts_with(HOOKS) {
                        true => Box::pin(hooks.answer(head, body)).await,
                        false => web::text(StatusCode::NOT_FOUND, &format!("nothing is here: accepted is {HOOKS}NAME")),
                    };
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(web::HEAD_BYTES).keep_alive(false);
            let served = builder.serve_connection(TokioIo::new(stream), service);
            if !matches!(tokio::time::timeout(whole, served).await, Ok(Ok(()))) {
                debug!("a connection for webhooks ended");
            }
        });
    }
}
