//! A client on HTTP/2: the library speaks, we answer each stream.
//!
//! Main function: [`serve`]. Limits are those of the table in `settings` and of RFC 9113 §10.5.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::Incoming;
use super::streams::{Streams, Taken};
use super::watched::{Watched, drive};
use super::websocket::Ask;
use crate::answer::Own;
use crate::codec::connection::{Connection, Flight};
use crate::codec::flow::{Frames, SourceError};
use crate::codec::idle::Idle;
use crate::codec::relay::Relay;
use crate::codec::server::Ahead;
use crate::codec::stream::Stream;
use crate::codec::upload::{Rest, Upload};
use crate::codec::view::Head;
use crate::codec::{Dialect, Exchange, Inbound, Notice, Outbound, rewrite};

/// Largest head, with 32 bytes per field on top (RFC 9113 §6.5.2): above what the head check lets through, which says why.
const HEADER_LIST: u32 = 40 * 1024;
/// Streams per connection.
const STREAMS: u32 = 100;
/// Written and not yet taken, per stream. With the piece that is written next a hundred stalled ones hold 6 MiB, where
/// the library's default would hold 40.
const SEND_BUFFER: usize = 32 * 1024;

/// What is sent to a client on HTTP/2.
struct Answer {
    body: Kind,
    /// Tells whether the client takes it.
    taken: Option<Rc<Taken>>,
    /// What is left of the request's body, if it has one.
    rest: Option<Left>,
}

struct Left {
    rest: Rc<Rest>,
    idle: Idle,
    thrown: usize,
    /// The answer's end waits for it. Not in gRPC: a status without messages has to end its stream itself.
    waits: bool,
}

enum Kind {
    /// Ours: a fixed text, or nothing.
    Fixed(Option<Bytes>),
    Relay(Frames<Box<Relay>>),
}

/// Serves a connection until it ends. `ahead`: what was read of it already.
pub(crate) async fn serve(stream: Stream, ahead: Ahead, connection: Rc<Connection>, exchange: impl Exchange) {
    let (io, traffic) = Watched::new(stream, ahead);
    let owner = connection.clone();
    let service = service_fn(move |request| {
        let (owner, exchange) = (owner.clone(), exchange.clone());
        async move { Ok::<_, Infallible>(answer(request, &owner, &exchange).await) }
    });
    let protocol = hyper::server::conn::http2::Builder::new(Streams(connection.clone()))
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .enable_connect_protocol()
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(connection.limits().ping)
        .keep_alive_timeout(connection.limits().ping_answer)
        .serve_connection(TokioIo::new(io), service);
    drive(protocol, |protocol| protocol.graceful_shutdown(), &connection, &traffic).await;
}

async fn answer(
    mut request: Request<hyper::body::Incoming>,
    connection: &Rc<Connection>,
    exchange: &impl Exchange,
) -> Response<Answer> {
    let (ask, upgrade) = Ask::read(&mut request).unzip();
    let (head, body) = request.into_parts();
    let head_only = head.method == http::Method::HEAD;
    let head = Head::Http2(Box::new(head));
    let limits = connection.limits();
    let waits = head.view().dialect() == Dialect::Http;
    let limit = if waits { limits.body } else { limits.stream_idle };
    let (upload, rest) = Upload::http2(Incoming::new(body), || Idle::new(connection.deadlines()), limit);
    let flight = Flight::begin(connection);
    let answered = match upgrade {
        // Streams that changed their protocol may end before what they led to: that is bounded as well.
        Some(_) if connection.exchanges() > STREAMS => refuse(exchange, flight),
        upgrade => exchange.answer(Box::new(Inbound { head, upload, upgrade }), flight).await,
    };
    let (head, body) = match (answered, ask) {
        (Outbound::Own(notice, flight), _) => {
            let (answer, text) = notice.to_http2(&flight);
            (answer, Kind::Fixed((!head_only && !text.is_empty()).then_some(text)))
        }
        (Outbound::Tunnel(head, conn, relay), Some(ask)) => (ask.accept(head, conn, relay), Kind::Fixed(None)),
        // Without being asked for no protocol changes, so there is no tunnel.
        (Outbound::Relay(head, mut relay) | Outbound::Tunnel(head, _, mut relay), _) => {
            let answer = rewrite::to_http2(head, relay.flight());
            relay.read_in_small_pieces();
            (answer, Kind::Relay(Frames(relay)))
        }
    };
    let rest = rest.map(|rest| Left { rest, idle: Idle::new(connection.deadlines()), thrown: 0, waits });
    head.map(|()| Answer { body, taken: Taken::current(), rest })
}

fn refuse(exchange: &impl Exchange, mut flight: Flight) -> Outbound {
    exchange.refused(Own::Overloaded, &mut flight);
    Outbound::Own(Notice::Http(Own::Overloaded), flight)
}

impl Body for Answer {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        let polled = match &mut self.body {
            Kind::Fixed(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Relay(relay) => Pin::new(relay).poll_frame(cx),
        };
        if let Some(taken) = &self.taken {
            taken.asked(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        if let (Poll::Ready(None), Some(Left { rest, idle, thrown, waits: true })) = (&polled, &mut self.rest) {
            ready!(rest.poll_end(idle, thrown, cx));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.rest.as_ref().is_some_and(|left| left.waits && left.rest.is_pending()) {
            return false;
        }
        match &self.body {
            Kind::Fixed(text) => text.is_none(),
            Kind::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Kind::Fixed(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Relay(relay) => relay.size_hint(),
        }
    }
}
