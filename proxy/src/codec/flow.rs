//! Bodies on their way: where they come from, where they go, and how one is moved to the other without being held.
//!
//! Must not know: framings, protocols, or whose body it is.
//!
//! Main types: [`Source`] and [`Sink`]; [`poll_pump`], which moves; [`Frames`], a source as the HTTP/2 library wants it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::answer::BodyFault;

/// A body that comes piece by piece.
pub(crate) trait Source {
    /// Ready with true when there is a piece, with false at the end, which may be asked for again.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>>;

    /// Shows the piece.
    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R;

    /// So many bytes of the piece were used.
    fn consume(&mut self, count: usize);

    /// Takes the piece away: the HTTP/2 library wants to own what it sends.
    fn take(&mut self) -> Bytes;

    /// What stands behind the body, once, after its end.
    fn take_trailers(&mut self) -> Option<HeaderMap>;

    /// Whether nothing comes, known without asking.
    fn is_empty(&self) -> bool;

    /// Length of the whole body, when it is known.
    fn length(&self) -> Option<u64>;
}

impl<S: Source> Source for Box<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        (**self).poll_ready(cx)
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        (**self).with(look)
    }

    fn consume(&mut self, count: usize) {
        (**self).consume(count);
    }

    fn take(&mut self) -> Bytes {
        (**self).take()
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        (**self).take_trailers()
    }

    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }

    fn length(&self) -> Option<u64> {
        (**self).length()
    }
}

/// Where a body goes.
pub(crate) trait Sink {
    /// Takes bytes: how many. They may be held back until [`Sink::poll_flush`].
    fn poll_data(&mut self, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>>;

    /// Nothing is held back any more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// The body is complete.
    fn end(&mut self, trailers: Option<&HeaderMap>);

    fn is_ended(&self) -> bool;
}

/// Why a body ended early.
#[derive(Debug)]
pub(crate) enum SourceError {
    /// Nothing came for too long.
    Idle,
    /// It broke off or is malformed, as the text says.
    Broken(String),
    /// Chunk extensions beyond the limit.
    Extensions,
    /// Trailers beyond the limits.
    Trailers,
    /// The exchange that it belongs to is over.
    Over,
    /// Of an answer: the request broke off or is malformed.
    Request,
    /// Whoever it is for may not have it any more.
    NoLonger,
}

/// Why moving ended early.
#[derive(Debug)]
pub(crate) enum Stopped {
    Source(SourceError),
    Sink(io::Error),
}

impl SourceError {
    /// As it is told to the client whose body this is.
    pub(crate) fn fault(&self) -> BodyFault {
        match self {
            Self::Idle => BodyFault::TooSlow,
            Self::Extensions => BodyFault::Extensions,
            Self::Trailers => BodyFault::Trailers,
            Self::Broken(_) | Self::Over | Self::Request | Self::NoLonger => BodyFault::Broken,
        }
    }
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Idle => f.write_str("nothing came for too long"),
            Self::Broken(why) => write!(f, "the body broke off: {why}"),
            Self::Extensions => f.write_str("too many chunk extensions"),
            Self::Trailers => f.write_str("too many trailers"),
            Self::Over => f.write_str("the exchange is over"),
            Self::Request => f.write_str("the request broke off or is malformed"),
            Self::NoLonger => f.write_str("whoever it is for may not have it any more"),
        }
    }
}

impl std::error::Error for SourceError {}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Sink(error) => write!(f, "it is not taken any more: {error}"),
        }
    }
}

/// Moves a body as far as both sides go along. Ready when all of it has gone out.
///
/// Pieces go out at once when no more of them is there: an event stream is not held back.
pub(crate) fn poll_pump(
    source: &mut impl Source,
    sink: &mut impl Sink,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Stopped>> {
    while !sink.is_ended() {
        match source.poll_ready(cx) {
            Poll::Ready(Ok(true)) => {
                let taken = ready!(source.with(|data| sink.poll_data(data, cx))).map_err(Stopped::Sink)?;
                source.consume(taken);
            }
            Poll::Ready(Ok(false)) => sink.end(source.take_trailers().as_ref()),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Stopped::Source(error))),
            Poll::Pending => {
                ready!(sink.poll_flush(cx)).map_err(Stopped::Sink)?;
                return Poll::Pending;
            }
        }
    }
    sink.poll_flush(cx).map_err(Stopped::Sink)
}

/// A source as a body of the HTTP/2 library.
#[derive(Debug)]
pub(crate) struct Frames<S>(pub(crate) S);

impl<S: Source + Unpin> Body for Frames<S> {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        Poll::Ready(match ready!(self.0.poll_ready(cx)) {
            Ok(true) => Some(Ok(Frame::data(self.0.take()))),
            Ok(false) => self.0.take_trailers().map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
