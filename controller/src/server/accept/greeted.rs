//! A connection that has begun to speak: what was read of it is read again, and it can be told to end.
//!
//! Must not know: who may connect, or what calls mean.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// For the last answers on a connection that is ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who is at the other end of a connection; with each request that comes over it.
#[derive(Debug, Clone)]
pub(in crate::server) struct Caller {
    /// Verified, leaf first; none were shown.
    pub(in crate::server) certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
    pub(in crate::server) address: IpAddr,
    /// Whether the connection ends after what is on its way.
    ends: Arc<AtomicBool>,
}

impl Caller {
    /// Ends the connection shortly after the answer that is given now.
    pub(in crate::server) fn ends(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// A connection whose peer has begun to speak HTTP. It holds its place until it is dropped.
pub(in crate::server) struct Greeted {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    /// Runs once the connection is to end.
    last: Option<Pin<Box<tokio::time::Sleep>>>,
    /// What was read of it already and is read again.
    said: Bytes,
    _place: OwnedSemaphorePermit,
}

impl Connected for Greeted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.caller.clone()
    }
}

impl Greeted {
    /// Of a peer that has said `said` so far; it holds `place` until it is dropped.
    pub(super) fn new(
        stream: TlsStream<TcpStream>,
        certificates: Option<Arc<Vec<CertificateDer<'static>>>>,
        address: IpAddr,
        said: Bytes,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let caller = Caller { certificates, address, ends: Arc::default() };
        Self { stream, caller, last: None, said, _place: place }
    }

    /// Whether the connection was to end, and has had its last words. It is read after each answer.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if !self.caller.ends.load(Ordering::Relaxed) {
            return false;
        }
        let last = self.last.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
        last.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            if self.is_over(context) {
                return Poll::Ready(Ok(()));
            }
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let now = self.said.len().min(into.remaining());
        into.put_slice(&self.said.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
