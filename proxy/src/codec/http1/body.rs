//! Bodies of HTTP/1 messages as they are read: where they end, and how much of what was read belongs to them.
//!
//! Main type: [`Decoder`].

use std::io;
use std::task::{Context, Poll, ready};

use http::HeaderMap;

use super::buffer::Buffer;
use super::chunked::{self, Step};
use super::framing::Framing;
use crate::codec::flow::SourceError;
use crate::codec::stream::Stream;

/// A body or a piece of it of this size is read in large pieces.
const MUCH: u64 = 16 * 1024;

/// Reads a body of any framing.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    Chunked(chunked::Decoder),
    /// Until the connection ends; true: it has.
    Close(bool),
}

/// Why a body cannot be read to its end.
#[derive(Debug)]
pub(crate) enum Unread {
    Io(io::Error),
    /// The connection ended within the body.
    Cut,
    Chunk(chunked::Wrong),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Cut => f.write_str("the connection ended within the body"),
            Self::Chunk(wrong) => write!(f, "the chunked coding is malformed ({wrong:?})"),
        }
    }
}

impl From<Unread> for SourceError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Chunk(chunked::Wrong::TooManyExtensions) => Self::Extensions,
            Unread::Chunk(chunked::Wrong::TooManyTrailers) => Self::Trailers,
            other => Self::Broken(other.to_string()),
        }
    }
}

impl Decoder {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(chunked::Decoder::default()),
            Framing::Close => Self::Close(false),
        }
    }

    /// Whether all of the body was read.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(decoder) => decoder.is_over(),
            Self::Close(ended) => *ended,
        }
    }

    /// Waits until `input` begins with bytes of the body: how many; 0: the body is over.
    pub(super) fn poll(
        &mut self,
        stream: &mut Stream,
        input: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Unread>> {
        loop {
            if let Some(available) = self.available(input)? {
                return Poll::Ready(Ok(available));
            }
            match ready!(input.poll_fill(stream, cx)) {
                Ok(0) if matches!(self, Self::Close(_)) => *self = Self::Close(true),
                Ok(0) => return Poll::Ready(Err(Unread::Cut)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Unread::Io(error))),
            }
        }
    }

    /// So many bytes at the beginning of `input` belong to the body; 0: it is over; `None`: more has to be read.
    fn available(&mut self, input: &mut Buffer) -> Result<Option<usize>, Unread> {
        let much = match self {
            Self::Length(0) | Self::Close(true) => return Ok(Some(0)),
            Self::Length(left) if !input.is_empty() => {
                return Ok(Some(input.filled().len().min(usize::try_from(*left).unwrap_or(usize::MAX))));
            }
            Self::Close(false) if !input.is_empty() => return Ok(Some(input.filled().len())),
            Self::Length(left) => *left >= MUCH,
            Self::Close(false) => true,
            Self::Chunked(decoder) => loop {
                match decoder.step(input.filled()).map_err(Unread::Chunk)? {
                    Step::Skip(count) => input.consume(count),
                    Step::Data(count) => return Ok(Some(count)),
                    Step::End => return Ok(Some(0)),
                    Step::More => break decoder.left() >= MUCH,
                }
            },
        };
        if much {
            input.expect_much();
        }
        Ok(None)
    }

    /// So many bytes of the body were used.
    pub(super) fn took(&mut self, input: &mut Buffer, count: usize) {
        input.consume(count);
        match self {
            Self::Length(left) => *left = left.saturating_sub(count as u64),
            Self::Chunked(decoder) => decoder.took(count),
            Self::Close(_) => {}
        }
    }

    /// What stood behind the body.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        match self {
            Self::Chunked(decoder) => decoder.take_trailers(),
            _ => None,
        }
    }

    /// Whether the rest of the body was read already, so that it can be thrown away without waiting.
    pub(super) fn discard(&mut self, input: &mut Buffer) -> bool {
        while let Ok(Some(available)) = self.available(input) {
            if available == 0 {
                return true;
            }
            self.took(input, available);
        }
        false
    }
}
