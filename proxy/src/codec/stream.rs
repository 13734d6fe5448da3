//! A connection's bytes, in clear or through TLS.
//!
//! Main type: [`Stream`]. An enum and not a parameter: everything above it is compiled once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// See the module. The TLS state is large and lives on the heap: one allocation per connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Ready when there is something to read, or nothing will come any more. Holds no buffer meanwhile.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Clear(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => {
                let polled = Pin::new(&mut **stream).poll_fill_buf(cx).map_ok(drop);
                // The library has an answer of its own, such as that there is no renegotiation, and only a write tells it.
                if polled.is_pending() && stream.get_ref().1.wants_write() {
                    let _ = Pin::new(&mut **stream).poll_flush(cx);
                }
                polled
            }
        }
    }

    /// Closing will be a reset. Within TLS an end that is none is seen by its missing alert (RFC 8446 §6.1).
    pub(crate) fn will_reset(&self) {
        if let Self::Clear(stream) = self {
            // It only fails on a dead socket.
            let _ = stream.set_zero_linger();
        }
    }

    /// Tells the other side that what it got is whole (RFC 8446 §6.1), where that can be told: one attempt, nothing is
    /// waited for.
    pub(crate) fn say_end(&mut self) {
        if let Self::Tls(stream) = self {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // It only fails on a dead socket, or one that takes nothing.
            let _ = Pin::new(stream).poll_shutdown(&mut cx);
        }
    }

    /// Whether the other side has closed, or sent what nobody asked for: one look, nothing is waited for.
    pub(crate) fn is_stale(&mut self) -> bool {
        // A socket that the last turn of the reactor saw nothing on is answered without a system call.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self {
            Self::Clear(stream) => {
                !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => Pin::new(stream).poll_fill_buf(&mut cx).is_ready(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
