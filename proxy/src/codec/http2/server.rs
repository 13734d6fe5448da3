//! A client on HTTP/2: the library speaks, we answer each stream.
//!
//! Main function: [`serve`]. Limits are those of the table in `settings` and of RFC 9113 §10.5.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::Incoming;
use super::streams::{Streams, Taken};
use super::watched::{Watched, drive};
use crate::codec::connection::{Connection, Flight};
use crate::codec::flow::{Frames, SourceError};
use crate::codec::idle::Idle;
use crate::codec::relay::Relay;
use crate::codec::server::Ahead;
use crate::codec::stream::Stream;
use crate::codec::upload::Upload;
use crate::codec::view::Head;
use crate::codec::{Dialect, Exchange, Inbound, Outbound, rewrite};

/// Largest head, with 32 bytes per field on top (RFC 9113 §6.5.2): above what the head check lets through, which says why.
const HEADER_LIST: u32 = 40 * 1024;
/// Streams per connection.
const STREAMS: u32 = 100;
/// Written and not yet taken, per stream: a hundred stalled ones hold 3 MiB at most.
const SEND_BUFFER: usize = 32 * 1024;

/// What is sent to a client on HTTP/2.
enum Answer {
    /// Ours: a fixed text, or nothing.
    Fixed(Option<&'static str>),
    Relay(Box<Frames<Relay>>, Option<Rc<Taken>>),
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
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(io), service);
    drive(protocol, |protocol| protocol.graceful_shutdown(), &connection, &traffic).await;
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    connection: &Rc<Connection>,
    exchange: &impl Exchange,
) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let head_only = head.method == http::Method::HEAD;
    let head = Head::Http2(Box::new(head));
    let limits = connection.limits();
    let limit = if head.view().dialect() == Dialect::Http { limits.body } else { limits.stream_idle };
    let upload = Upload::http2(Incoming::new(body), || Idle::new(connection.deadlines()), limit);
    match exchange.answer(Inbound { head, upload, upgrade: None }, Flight::begin(connection)).await {
        Outbound::Own(notice, flight) => {
            let (answer, text) = rewrite::notice_to_http2(notice, &flight.id);
            answer.map(|()| Answer::Fixed((!head_only && !text.is_empty()).then_some(text)))
        }
        // No `Upgrade` goes out for a client on HTTP/2, so there is no tunnel.
        Outbound::Relay(head, mut relay) | Outbound::Tunnel(head, _, mut relay) => {
            let id = relay.flight().id.clone();
            relay.read_in_small_pieces();
            rewrite::to_http2(head, &id, Answer::Relay(Box::new(Frames(relay)), Taken::current()))
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = SourceError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SourceError>>> {
        match &mut *self {
            Self::Fixed(text) => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes())))))
            }
            Self::Relay(relay, taken) => {
                let polled = Pin::new(relay).poll_frame(cx);
                if let Some(taken) = taken {
                    taken.asked(matches!(polled, Poll::Ready(Some(Ok(_)))));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(text) => text.is_none(),
            Self::Relay(relay, _) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(text) => SizeHint::with_exact(text.map_or(0, |text| text.len() as u64)),
            Self::Relay(relay, _) => relay.size_hint(),
        }
    }
}
