//! An endpoint's answer on its way to the client, and what has to happen when it ends.
//!
//! Main type: [`Relay`]. However it ends, the connection goes back to its pool or is closed, the request is recorded
//! as over, and a gRPC caller gets a status.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::{BodyError, Idle, clean};
use super::connection::Flight;
use super::pool::Lease;
use crate::answer;
use crate::record::Ticket;

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    inner: Incoming,
    idle: Idle,
    /// Present until the answer has ended; then the connection may serve again.
    lease: Option<Lease>,
    ticket: Ticket,
    /// Keeps the client's connection busy as long as the body lives.
    _flight: Flight,
    grpc: Grpc,
    ended: bool,
}

/// What a gRPC caller still has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grpc {
    /// Nothing: it is no gRPC, or the status was in the head or in trailers.
    Told,
    /// The status, in trailers.
    Owed,
}

impl Relay {
    pub(crate) fn new(
        inner: Incoming,
        lease: Lease,
        ticket: Ticket,
        flight: Flight,
        idle: Duration,
        grpc: Grpc,
    ) -> Self {
        Self { inner, idle: Idle::new(idle), lease: Some(lease), ticket, _flight: flight, grpc, ended: false }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending if self.idle.is_over(cx) => self.broken(BodyError::Idle),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.progress();
                match clean(frame) {
                    Ok(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            self.trailers(trailers);
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Err(error) => self.broken(error),
                }
            }
            Poll::Ready(Some(Err(error))) => self.broken(BodyError::Broken(error)),
            Poll::Ready(None) => self.end(),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended || (self.grpc == Grpc::Told && self.inner.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.grpc == Grpc::Owed
            && let Some(status) = trailers.get("grpc-status")
        {
            self.grpc = Grpc::Told;
            self.ticket.grpc_status(status.as_bytes());
        }
    }

    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
        if self.grpc == Grpc::Owed { self.status(answer::GRPC_NO_STATUS) } else { Poll::Ready(None) }
    }

    /// The answer broke off: the release is to blame. The connection is closed by dropping the lease.
    fn broken(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        self.lease = None;
        self.ticket.unanswered();
        if self.grpc == Grpc::Owed { self.status(answer::GRPC_BROKEN) } else { Poll::Ready(Some(Err(error))) }
    }

    fn status(&mut self, code: u8) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.grpc = Grpc::Told;
        self.ticket.grpc_status(b"-");
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The server does not ask again once the announced length was sent.
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}
