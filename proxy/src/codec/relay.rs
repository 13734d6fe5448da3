//! An endpoint's answer on its way to the client, and what has to happen when it ends.
//!
//! Main type: [`Relay`]. However it ends, the connection goes back to its pool or is closed, the request is recorded
//! as over, and a gRPC caller gets a status.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};
use tokio::time::Sleep;

use super::connection::Flight;
use super::flow::{Source, SourceError};
use super::grpc_web::Web;
use super::http1::endpoint::Answer;
use super::http2::body::Incoming;
use super::idle::Idle;
use super::pool::Lease;
use super::rewrite::clean_trailers;
use crate::answer::{self, Own};
use crate::lasting::Watched;
use crate::record::Ticket;
use crate::totals::Cut;

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Gone once the answer has ended.
    body: Option<Download>,
    /// Between two pieces of the answer.
    limit: Duration,
    lease: Option<Lease>,
    ticket: Ticket,
    /// Keeps the client's connection busy as long as the answer lives.
    flight: Flight,
    grpc: Grpc,
    /// When the caller of a gRPC call stops waiting, if it said so.
    end: Option<Pin<Box<Sleep>>>,
    trailers: Option<HeaderMap>,
    /// The caller is a browser, which gets another form.
    web: Option<Web>,
    /// A piece in that form.
    piece: Bytes,
    /// It may have to end before its time.
    watched: Option<Watched>,
    /// After a change of protocol: to WebSocket.
    is_websocket: bool,
}

/// The body of an answer as it comes from an endpoint.
#[derive(Debug)]
pub(crate) enum Download {
    Http1(Box<Answer>),
    Http2(Box<Incoming>, Idle),
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
    /// `body`: none after a change of protocol.
    pub(crate) fn new(
        body: Option<Download>,
        lease: Lease,
        ticket: Ticket,
        flight: Flight,
        limit: Duration,
        grpc: Grpc,
    ) -> Self {
        let (lease, piece) = (Some(lease), Bytes::new());
        let (end, trailers, web, watched) = (None, None, None, None);
        Self { body, limit, lease, ticket, flight, grpc, end, trailers, web, piece, watched, is_websocket: false }
    }

    /// The call ends then, with a status that says so.
    pub(crate) fn end_at(&mut self, end: Option<Pin<Box<Sleep>>>) {
        self.end = end;
    }

    /// It ends when whoever asked may not go on.
    pub(crate) fn watch(&mut self, watched: Option<Watched>) {
        self.watched = watched;
    }

    /// The protocol has changed to WebSocket.
    pub(crate) fn turn_into_websocket(&mut self) {
        self.is_websocket = true;
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    /// Whether it is one that may have to end before its time.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Ready once it may not go on; says so.
    pub(crate) fn poll_no_longer(&mut self, cx: &Context<'_>) -> Poll<Own> {
        let Some(watched) = &self.watched else { return Poll::Pending };
        let own = ready!(watched.poll(cx));
        self.watched = None;
        self.flight.connection().count(Cut::NoLonger);
        self.flight.log(|entry| {
            let why = format!("ended, because it may not go on: {}", own.reason());
            entry.text("why", why.as_bytes());
        });
        Poll::Ready(own)
    }

    /// The caller gets gRPC-Web.
    pub(crate) fn turn_into_web(&mut self, web: Web) {
        self.web = Some(web);
    }

    /// The request that is answered.
    pub(crate) fn flight(&self) -> &Flight {
        &self.flight
    }

    /// The client's library holds whole pieces until the client takes them.
    pub(crate) fn read_in_small_pieces(&mut self) {
        if let Some(Download::Http1(answer)) = &mut self.body {
            answer.read_in_small_pieces();
        }
    }

    /// Whether a message's piece has gone in part: behind the rest of it there may be a status.
    fn is_within(&self) -> bool {
        matches!(&self.body, Some(Download::Http2(incoming, _)) if self.grpc == Grpc::Owed && incoming.has_piece())
    }

    fn end(&mut self) -> Poll<Result<bool, SourceError>> {
        let Some(mut body) = self.body.take() else { return Poll::Ready(Ok(false)) };
        let trailers = match &mut body {
            Download::Http1(answer) => answer.take_trailers(),
            Download::Http2(incoming, _) => incoming.take_trailers(),
        };
        self.trailers = trailers.and_then(clean_trailers);
        if let Some(status) = self.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"))
            && self.grpc == Grpc::Owed
        {
            self.grpc = Grpc::Told;
            self.ticket.grpc_status(status.as_bytes());
        }
        if let Some(trailers) = &self.trailers {
            self.ticket.look(trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
        }
        self.give_back(body);
        if self.grpc == Grpc::Owed {
            self.ticket.grpc_status(b"-");
            self.owe(answer::GRPC_NO_STATUS);
        }
        self.ticket.over();
        self.last()
    }

    /// The end, but for trailers that go as a piece.
    fn last(&mut self) -> Poll<Result<bool, SourceError>> {
        if let Some(web) = self.web
            && let Some(trailers) = self.trailers.take()
        {
            self.piece = web.trailers(&trailers);
        }
        Poll::Ready(Ok(!self.piece.is_empty()))
    }

    fn give_back(&mut self, body: Download) {
        if let (Some(lease), Download::Http1(answer)) = (self.lease.take(), body) {
            lease.give_back(*answer);
        }
    }

    /// The answer broke off: the release is to blame, unless the client is. The connection is closed by dropping it.
    fn broken(&mut self, error: SourceError) -> Poll<Result<bool, SourceError>> {
        (self.body, self.lease) = (None, None);
        if !matches!(error, SourceError::Request) {
            self.ticket.unanswered();
        }
        self.flight.log(|entry| entry.text("why", error.to_string().as_bytes()));
        if self.grpc == Grpc::Owed {
            // Counted as unanswered, and once is enough.
            self.owe(answer::GRPC_BROKEN);
            return self.last();
        }
        Poll::Ready(Err(error))
    }

    /// The caller does not wait any longer. The endpoint's stream is reset by dropping what is left of it.
    fn late(&mut self) -> Poll<Result<bool, SourceError>> {
        (self.body, self.lease) = (None, None);
        self.ticket.late();
        self.flight.log(|entry| entry.text("why", b"the call took longer than its grpc-timeout"));
        self.owe(answer::GRPC_LATE);
        self.last()
    }

    /// Whoever asked may not go on: that is not the release's fault.
    fn no_longer(&mut self, own: Own) -> Poll<Result<bool, SourceError>> {
        (self.body, self.lease) = (None, None);
        if self.grpc == Grpc::Owed {
            self.owe(own.grpc_code());
            let message = HeaderValue::from_static(own.text().trim_end());
            self.trailers.get_or_insert_default().insert("grpc-message", message);
            return self.last();
        }
        Poll::Ready(Err(SourceError::NoLonger))
    }

    fn owe(&mut self, code: u8) {
        self.grpc = Grpc::Told;
        self.trailers.get_or_insert_default().insert("grpc-status", HeaderValue::from(u16::from(code)));
    }
}

impl Source for Relay {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, SourceError>> {
        if !self.piece.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.watched.is_some()
            && self.body.is_some()
            && !self.is_within()
            && let Poll::Ready(own) = self.poll_no_longer(cx)
        {
            return self.no_longer(own);
        }
        // Not within a piece: to an HTTP/1 client its length was told already.
        if let (Some(end), Grpc::Owed, Some(Download::Http2(incoming, _))) = (&mut self.end, self.grpc, &self.body)
            && !incoming.has_piece()
            && end.as_mut().poll(cx).is_ready()
        {
            return self.late();
        }
        let (polled, idle) = match &mut self.body {
            None => return Poll::Ready(Ok(false)),
            Some(Download::Http1(answer)) => (answer.poll_ready(cx), answer.idle()),
            Some(Download::Http2(incoming, idle)) => (incoming.poll_ready(cx), &*idle),
        };
        match polled {
            Poll::Pending if idle.is_over(self.limit, cx) => self.broken(SourceError::Idle),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(true)) => {
                idle.progress();
                if let Some(web @ Web::Text) = self.web {
                    self.piece = web.encode(self.take());
                }
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(false)) => self.end(),
            Poll::Ready(Err(error)) => self.broken(error),
        }
    }

    fn with<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> R {
        if !self.piece.is_empty() {
            return look(&self.piece);
        }
        match &mut self.body {
            Some(Download::Http1(answer)) => answer.with(look),
            Some(Download::Http2(incoming, _)) => incoming.with(look),
            None => look(&[]),
        }
    }

    fn consume(&mut self, count: usize) {
        if !self.piece.is_empty() {
            return self.piece.advance(count);
        }
        match &mut self.body {
            Some(Download::Http1(answer)) => answer.consume(count),
            Some(Download::Http2(incoming, _)) => incoming.consume(count),
            None => {}
        }
    }

    fn take(&mut self) -> Bytes {
        if !self.piece.is_empty() {
            return std::mem::take(&mut self.piece);
        }
        match &mut self.body {
            Some(Download::Http1(answer)) => answer.take(),
            Some(Download::Http2(incoming, _)) => incoming.take(),
            None => Bytes::new(),
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    fn is_empty(&self) -> bool {
        let body = match &self.body {
            Some(Download::Http1(answer)) => answer.is_empty(),
            Some(Download::Http2(incoming, _)) => incoming.is_empty(),
            None => true,
        };
        body && self.grpc == Grpc::Told && self.trailers.is_none() && self.piece.is_empty()
    }

    fn length(&self) -> Option<u64> {
        if self.web.is_some() {
            return None;
        }
        match &self.body {
            Some(Download::Http1(answer)) => answer.length(),
            Some(Download::Http2(incoming, _)) => incoming.length(),
            None => Some(0),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Nobody asks again once the announced length was sent.
        if self.body.is_some()
            && self.is_empty()
            && let Some(body) = self.body.take()
        {
            self.ticket.over();
            self.give_back(body);
        }
    }
}
