//! WebSocket over a stream (RFC 8441), which an endpoint is asked for as HTTP/1.1 has it (RFC 6455 §4).
//!
//! Must not know: endpoints, or what is said once the protocol has changed. Endpoints on HTTP/2 are not asked: that would
//! need theirs to take extended CONNECT as well, which hardly any does.
//!
//! Main type: [`Ask`].

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::codec::Upgrade;
use crate::codec::connection::Flight;
use crate::codec::http1::endpoint::Conn;
use crate::codec::http1::tunnel;
use crate::codec::relay::Relay;
use crate::codec::rewrite;
use crate::codec::view::AnswerHead;

/// What servers answer to a key (RFC 6455 §1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A client that wants to change to WebSocket.
pub(super) struct Ask {
    upgraded: OnUpgrade,
}

impl Ask {
    /// Makes a GET of an extended CONNECT for WebSocket, as HTTP/1.1 has it. Any other CONNECT is left as it is, and is
    /// refused.
    pub(super) fn read(request: &mut Request<Incoming>) -> Option<(Self, Upgrade)> {
        let protocol = request.extensions().get::<Protocol>()?;
        if request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
            return None;
        }
        let mut nonce = [0; 16];
        // Without random bytes the system could not have made a TLS connection either. A key need not be secret.
        let _ = rand::fill(&mut nonce);
        let key = STANDARD.encode(nonce);
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()?);
        // There is no body that it could be the type of; and nobody shall be answered as a gRPC client, with a 200.
        headers.remove(CONTENT_TYPE);
        let upgraded = hyper::upgrade::on(&mut *request);
        *request.method_mut() = Method::GET;
        Some((Self { upgraded }, Upgrade { protocol: "websocket".into(), accept: Some(accept(&key).into()) }))
    }

    /// The answer that changes the protocol; from then on bytes pass between the stream and the endpoint.
    pub(super) fn accept(self, head: AnswerHead, conn: Box<Conn>, relay: Box<Relay>) -> Response<()> {
        let answer = to_http2(head, relay.flight());
        tokio::task::spawn_local(async move {
            match self.upgraded.await {
                Ok(stream) => tunnel::run_on(TokioIo::new(stream), conn, relay).await,
                Err(error) => tracing::debug!(%error, "a stream ended before its protocol changed"),
            }
        });
        answer
    }
}

fn to_http2(head: AnswerHead, flight: &Flight) -> Response<()> {
    let mut answer = rewrite::to_http2(head, flight);
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
    // A stream has no length; what HTTP/1.1 says of one means nothing in a 101 (RFC 9110 §8.6).
    answer.headers_mut().remove(CONTENT_LENGTH);
    answer
}

fn accept(key: &str) -> String {
    let said = [key.as_bytes(), MAGIC].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &said))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_answer_to_a_key_is_that_of_the_standard() {
        // RFC 6455 §1.3.
        assert_eq!(super::accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
