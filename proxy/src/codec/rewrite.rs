//! Answers on their way to the client: what ends here, what goes on, and what we say ourselves.
//!
//! Main functions: [`write_answer`] and [`write_notice`] for HTTP/1, [`to_http2`] and [`notice_to_http2`] for HTTP/2.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::http1::framing::Framing;
use super::http1::head::ResponseHead;
use super::http1::write;
use super::view::AnswerHead;
use super::{Dialect, Notice};
use crate::answer::Own;
use crate::forward_headers::passes_in_trailers;
use crate::request_id::RequestId;

const X_REQUEST_ID: &str = "x-request-id";

/// What becomes of the client's connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It goes on, and the client knows without being told (HTTP/1.1).
    Open,
    /// It goes on, as the client asked for (HTTP/1.0).
    Asked,
    Close,
}

/// Fields of an answer that belong to the endpoint's connection alone.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(name, "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" | "te")
}

/// The request's name is ours to tell.
fn is_ours(name: &str) -> bool {
    name == X_REQUEST_ID
}

/// Whether `Connection` names a field of an answer. Usually it says `close`, or nothing.
fn is_named(head: &AnswerHead, name: &str) -> bool {
    let values = head.fields().filter(|(name, _)| *name == "connection").map(|(_, value)| value);
    let mut tokens = values.flat_map(|value| value.split(|b| *b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes())) && !is_kept(name)
}

/// Without these an answer means something else.
fn is_kept(name: &str) -> bool {
    matches!(name, "content-length" | "content-type" | "set-cookie" | "location" | "www-authenticate" | "trailer")
}

fn write_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write::number(status.into(), out);
    out.push(b' ');
    let known = || StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    out.extend_from_slice(if reason.is_empty() { known() } else { reason }.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_end(keep: Keep, id: &RequestId, out: &mut Vec<u8>) {
    write::field(X_REQUEST_ID, id.as_bytes(), out);
    out.extend_from_slice(match keep {
        Keep::Open => b"\r\n",
        Keep::Asked => b"connection: keep-alive\r\n\r\n",
        Keep::Close => b"connection: close\r\n\r\n",
    });
}

/// How the head of an answer is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) framing: Framing,
    /// The answer has no body, whatever its fields say.
    pub(crate) bodiless: bool,
    pub(crate) keep: Keep,
    pub(crate) id: &'a RequestId,
}

/// Writes the head of an endpoint's answer.
pub(crate) fn write_answer(head: &AnswerHead, written: Written<'_>, out: &mut Vec<u8>) {
    let Written { framing, bodiless, keep, id } = written;
    let reason = if let AnswerHead::Http1(head) = head { head.reason() } else { "" };
    write_line(head.status(), reason, out);
    let names = head.first("connection").is_some();
    for (name, value) in head.fields() {
        // The length of what a GET would have got (RFC 9110 §8.6).
        let told = bodiless && name == "content-length" && head.status() != 204;
        let ends = name == "content-length" || is_ours(name) || is_hop_by_hop(name);
        let passes = told || !(ends || (names && is_named(head, name)));
        if passes {
            write::field(name, value, out);
        }
    }
    if !bodiless {
        write::framing(framing, out);
    }
    write_end(keep, id, out);
}

/// Writes the head that changes the protocol.
pub(crate) fn write_upgrade(head: &AnswerHead, id: &RequestId, out: &mut Vec<u8>) {
    write_line(101, "", out);
    for (name, value) in head.fields() {
        if name == "upgrade" || !(is_hop_by_hop(name) || is_ours(name) || name == "content-length") {
            write::field(name, value, out);
        }
    }
    write::field(X_REQUEST_ID, id.as_bytes(), out);
    out.extend_from_slice(b"connection: upgrade\r\n\r\n");
}

/// Writes an interim answer.
pub(crate) fn write_interim(head: &ResponseHead, out: &mut Vec<u8>) {
    write_line(head.status, head.reason(), out);
    for (name, value) in head.fields().iter() {
        if !is_hop_by_hop(name) && name != "content-length" {
            write::field(name, value, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// An endpoint's answer as the HTTP/2 library takes it.
pub(crate) fn to_http2<B>(head: AnswerHead, id: &RequestId, body: B) -> Response<B> {
    let mut answer = Response::new(body);
    let named = head.first("connection").is_some();
    let status = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    match head {
        AnswerHead::Http2(parts) => *answer.headers_mut() = parts.headers,
        AnswerHead::Http1(_) => {
            // Allocates: names, values and the map, for an HTTP/2 client of an HTTP/1 endpoint.
            let mut headers = HeaderMap::with_capacity(16);
            for (name, value) in head.fields() {
                if is_hop_by_hop(name) || (named && is_named(&head, name)) {
                    continue;
                }
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
                {
                    headers.append(name, value);
                }
            }
            *answer.headers_mut() = headers;
        }
    }
    *answer.status_mut() = status;
    name_request(answer.headers_mut(), id);
    answer
}

fn name_request(headers: &mut HeaderMap, id: &RequestId) {
    // Allocates: the library wants to own the value.
    if let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

// === What we say ourselves ===

/// How an error is told to this caller.
pub(crate) fn notice(own: Own, dialect: Dialect) -> Notice {
    match dialect {
        Dialect::Http => Notice::Http(own),
        _ => Notice::Grpc {
            code: own.grpc_code(),
            message: Some(own.text().trim_end()),
            web: dialect == Dialect::GrpcWeb,
        },
    }
}

impl Notice {
    /// Status of the answer.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Http(own) => own.status(),
            Self::Grpc { .. } => 200,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Http(own) => own.text(),
            Self::Grpc { .. } => "",
        }
    }

    /// Whether the connection ends with it: what cannot be read for certain has no certain end either.
    pub(crate) fn ends(self) -> bool {
        matches!(self, Self::Http(Own::Refused(_) | Own::HeadTooSlow | Own::ClientBody(_)))
    }

    fn each_field(self, mut put: impl FnMut(&'static str, &[u8])) {
        match self {
            Self::Http(_) => put("content-type", b"text/plain; charset=utf-8"),
            Self::Grpc { code, message, web } => {
                put("content-type", if web { b"application/grpc-web" } else { b"application/grpc" });
                let mut digits = Vec::with_capacity(3);
                write::number(code.into(), &mut digits);
                put("grpc-status", &digits);
                if let Some(message) = message {
                    put("grpc-message", message.as_bytes());
                }
            }
        }
    }
}

/// Writes an answer of ours, with its body unless the request was HEAD.
pub(crate) fn write_notice(notice: Notice, head_only: bool, keep: Keep, id: &RequestId, out: &mut Vec<u8>) {
    write_line(notice.status(), "", out);
    notice.each_field(|name, value| write::field(name, value, out));
    write::framing(Framing::Length(notice.text().len() as u64), out);
    write_end(keep, id, out);
    if !head_only {
        out.extend_from_slice(notice.text().as_bytes());
    }
}

/// An answer of ours as the HTTP/2 library takes it: the head, and the text of the body.
pub(crate) fn notice_to_http2(notice: Notice, id: &RequestId) -> (Response<()>, &'static str) {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::from_u16(notice.status()).expect("our own statuses are valid");
    let headers = answer.headers_mut();
    notice.each_field(|name, value| {
        headers.insert(name, HeaderValue::from_bytes(value).expect("our own values are valid"));
    });
    if !notice.text().is_empty() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(notice.text().len()));
    }
    name_request(answer.headers_mut(), id);
    (answer, notice.text())
}

/// Takes from trailers what may not stand there.
pub(crate) fn clean_trailers(trailers: HeaderMap) -> Option<HeaderMap> {
    if trailers.keys().all(|name| passes_in_trailers(name.as_str())) {
        return (!trailers.is_empty()).then_some(trailers);
    }
    // Allocates: a copy is simpler than taking fields out one by one, and rare.
    let mut kept = HeaderMap::with_capacity(trailers.len());
    for (name, value) in &trailers {
        if passes_in_trailers(name.as_str()) {
            kept.append(name, value.clone());
        }
    }
    (!kept.is_empty()).then_some(kept)
}
