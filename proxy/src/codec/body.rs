//! Bodies in both directions: streamed as they come, never inspected, never waited for without a deadline.
//!
//! Main types: [`Upload`], from the client to an endpoint; [`AnswerBody`], to the client.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::relay::Relay;
use crate::forward_headers::passes_in_trailers;

/// Most trailers, and their size in all.
const TRAILER_FIELDS: usize = 32;
const TRAILER_BYTES: usize = 8 * 1024;

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Nothing came for too long.
    Idle,
    /// The side it comes from broke off.
    Broken(hyper::Error),
    /// Trailers beyond the limits.
    Trailers,
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Idle => f.write_str("nothing came for too long"),
            Self::Broken(error) => write!(f, "the body broke off: {error}"),
            Self::Trailers => write!(f, "more than {TRAILER_FIELDS} trailers or {TRAILER_BYTES} bytes of them"),
        }
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// A deadline that starts anew with each piece.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    /// Allocated when a body is first waited for: one that is all there costs nothing.
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, sleep: None, armed: false }
    }

    /// Something came.
    pub(super) fn progress(&mut self) {
        self.armed = false;
    }

    /// Nothing is there now: has it been too long?
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let at = Instant::now() + self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if !std::mem::replace(&mut self.armed, true) {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// The client's body on its way to an endpoint.
#[derive(Debug)]
pub(crate) struct Upload {
    /// `None`: there is no body (a request that is sent a second time).
    inner: Option<Incoming>,
    idle: Idle,
    /// Set when the body failed on the client's side, so that the release is not blamed.
    failed: Option<Rc<Cell<bool>>>,
}

impl Upload {
    pub(crate) fn new(inner: Incoming, idle: Duration) -> Self {
        // Allocates only for a request with a body.
        let failed = (!inner.is_end_stream()).then(Rc::default);
        Self { inner: Some(inner), idle: Idle::new(idle), failed }
    }

    pub(crate) fn empty() -> Self {
        Self { inner: None, idle: Idle::new(Duration::MAX), failed: None }
    }

    /// Tells later whether the client broke off.
    pub(crate) fn failure(&self) -> Option<Rc<Cell<bool>>> {
        self.failed.clone()
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(failed) = &self.failed {
            failed.set(true);
        }
        self.inner = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Pending if this.idle.is_over(cx) => this.fail(BodyError::Idle),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.progress();
                match clean(frame) {
                    Ok(frame) => Poll::Ready(Some(Ok(frame))),
                    Err(error) => this.fail(error),
                }
            }
            Poll::Ready(Some(Err(error))) => this.fail(BodyError::Broken(error)),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Takes from trailers what may not stand there.
pub(super) fn clean(frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
    let trailers = match frame.into_trailers() {
        Ok(trailers) => trailers,
        Err(data) => return Ok(data),
    };
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if trailers.len() > TRAILER_FIELDS || bytes > TRAILER_BYTES {
        return Err(BodyError::Trailers);
    }
    // Trailers are rare outside gRPC and few there: a copy is simpler than taking fields out one by one.
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if passes_in_trailers(name.as_str()) {
            kept.append(name, value.clone());
        }
    }
    Ok(Frame::trailers(kept))
}

/// What is sent to the client.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    /// Ours: a fixed text, or nothing.
    Fixed(Option<&'static str>),
    /// An endpoint's.
    Relay(Relay),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Fixed(text) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
            }
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(text) => text.is_none(),
            Self::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(text) => SizeHint::with_exact(text.map_or(0, |text| text.len() as u64)),
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}
