//! A body as the library reads it, piece by piece.
//!
//! Main type: [`Incoming`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;

use crate::codec::flow::{Source, SourceError};
use crate::codec::http1::chunked::{TRAILER_BYTES, TRAILER_FIELDS};

/// See the module.
#[derive(Debug)]
pub(crate) struct Incoming {
    inner: hyper::body::Incoming,
    piece: Bytes,
    trailers: Option<HeaderMap>,
    over: bool,
}

impl Incoming {
    pub(crate) fn new(inner: hyper::body::Incoming) -> Self {
        let over = inner.is_end_stream();
        Self { inner, piece: Bytes::new(), trailers: None, over }
    }

    /// Whether a piece was begun, or is there and was not looked at.
    pub(crate) fn has_piece(&self) -> bool {
        !self.piece.is_empty()
    }
}

fn is_too_much(trailers: &HeaderMap) -> bool {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    trailers.len() > TRAILER_FIELDS || bytes > TRAILER_BYTES
}

impl Source for Incoming {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        while self.piece.is_empty() && !self.over {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.piece = data,
                    Err(frame) => {
                        (self.trailers, self.over) = (frame.into_trailers().ok(), true);
                        if self.trailers.as_ref().is_some_and(is_too_much) {
                            return Poll::Ready(Err(SourceError::Trailers));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Err(SourceError::Broken(error.to_string())));
                }
                None => self.over = true,
            }
        }
        Poll::Ready(Ok(!self.piece.is_empty()))
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.piece)
    }

    fn consume(&mut self, count: usize) {
        self.piece.advance(count);
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.piece)
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn is_empty(&self) -> bool {
        self.piece.is_empty() && (self.over || self.inner.is_end_stream())
    }

    fn length(&self) -> Option<u64> {
        self.inner.size_hint().exact()
    }
}
