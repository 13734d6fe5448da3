//! Answers of endpoints on their way to the client: what ends here, what goes on, and what is added.
//!
//! Main functions: [`write_answer`] for HTTP/1, [`to_http2`] for HTTP/2.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::connection::Flight;
use super::http1::framing::Framing;
use super::http1::head::ResponseHead;
use super::http1::write;
use super::view::AnswerHead;
use crate::cors;
use crate::forward_headers::{names_others, passes_in_trailers};

const X_REQUEST_ID: &str = "x-request-id";
const SET_COOKIE: &str = "set-cookie";
const HSTS: &str = "strict-transport-security";

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

/// What is ours to tell: the request's name, and to which pages the answer belongs when the stage says so.
fn is_ours(name: &str, flight: &Flight) -> bool {
    name == X_REQUEST_ID
        || (flight.answers_cors && cors::is_ours(name))
        || (flight.hsts_seconds.is_some() && name == HSTS)
}

/// Whether `Connection` of an answer names fields of its own. Seldom: usually it says `close` or `keep-alive`, if anything.
fn names_fields(head: &AnswerHead) -> bool {
    names_others(head.all("connection"))
}

/// Whether `Connection` takes a field of an answer away.
fn is_named(head: &AnswerHead, name: &str) -> bool {
    let mut tokens = head.all("connection").flat_map(|value| value.split(|b| *b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(name.as_bytes())) && !is_kept(name)
}

/// Without these an answer means something else.
fn is_kept(name: &str) -> bool {
    matches!(name, "content-length" | "content-type" | "set-cookie" | "location" | "www-authenticate" | "trailer")
}

pub(super) fn write_line(status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write::number(status.into(), out);
    out.push(b' ');
    let known = || StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    out.extend_from_slice(if reason.is_empty() { known() } else { reason }.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes what is ours to tell: the request's name, and how long to ask over TLS only.
fn write_ours(flight: &Flight, out: &mut Vec<u8>) {
    write::field(X_REQUEST_ID, flight.id.as_bytes(), out);
    if let Some(seconds) = flight.hsts_seconds {
        out.extend_from_slice(b"strict-transport-security: max-age=");
        write::number(seconds.get().into(), out);
        out.extend_from_slice(b"\r\n");
    }
}

pub(super) fn write_end(keep: Keep, flight: &Flight, out: &mut Vec<u8>) {
    write_ours(flight, out);
    out.extend_from_slice(match keep {
        Keep::Open => b"\r\n",
        Keep::Asked => b"connection: keep-alive\r\n\r\n",
        Keep::Close => b"connection: close\r\n\r\n",
    });
}

/// The cookie that an endpoint's answer brings besides its own. Never one of gRPC's, whoever asked.
fn new_cookie<'a>(head: &AnswerHead, flight: &'a Flight) -> Option<&'a str> {
    flight.set_cookie.as_deref().filter(|_| !head.is_grpc())
}

/// How the head of an answer is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) framing: Framing,
    /// The answer has no body, whatever its fields say.
    pub(crate) bodiless: bool,
    pub(crate) keep: Keep,
    pub(crate) flight: &'a Flight,
}

/// Writes the head of an endpoint's answer.
pub(crate) fn write_answer(head: &AnswerHead, written: Written<'_>, out: &mut Vec<u8>) {
    let Written { framing, bodiless, keep, flight } = written;
    let reason = if let AnswerHead::Http1(head) = head { head.reason() } else { "" };
    write_line(head.status(), reason, out);
    let names = names_fields(head);
    for (name, value) in head.fields() {
        // The length of what a GET would have got (RFC 9110 §8.6).
        let told = bodiless && name == "content-length" && head.status() != 204;
        let ends = name == "content-length" || is_ours(name, flight) || is_hop_by_hop(name);
        let passes = told || !(ends || (names && is_named(head, name)));
        if passes {
            write::field(name, value, out);
        }
    }
    if !bodiless {
        write::framing(framing, out);
    }
    if let Some(origin) = &flight.cors {
        write_shared(origin, head.fields().map(|(name, _)| name).filter(|name| !is_hop_by_hop(name)), out);
    }
    if let Some(cookie) = new_cookie(head, flight) {
        write::field(SET_COOKIE, cookie.as_bytes(), out);
    }
    write_end(keep, flight, out);
}

/// Writes the head that changes the protocol.
pub(crate) fn write_upgrade(head: &AnswerHead, flight: &Flight, out: &mut Vec<u8>) {
    write_line(101, "", out);
    for (name, value) in head.fields() {
        if name == "upgrade" || !(is_hop_by_hop(name) || is_ours(name, flight) || name == "content-length") {
            write::field(name, value, out);
        }
    }
    if let Some(cookie) = new_cookie(head, flight) {
        write::field(SET_COOKIE, cookie.as_bytes(), out);
    }
    write_ours(flight, out);
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
pub(crate) fn to_http2(head: AnswerHead, flight: &Flight) -> Response<()> {
    let mut answer = Response::new(());
    let named = names_fields(&head);
    let cookie = new_cookie(&head, flight).and_then(|cookie| HeaderValue::from_str(cookie).ok());
    let status = StatusCode::from_u16(head.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    match head {
        AnswerHead::Http2(parts) => {
            *answer.headers_mut() = parts.headers;
            if flight.answers_cors {
                let gone: Vec<HeaderName> =
                    answer.headers().keys().filter(|name| cors::is_ours(name.as_str())).cloned().collect();
                gone.into_iter().for_each(|name| drop(answer.headers_mut().remove(name)));
            }
        }
        AnswerHead::Http1(_) => {
            // Allocates: names, values and the map, for an HTTP/2 client of an HTTP/1 endpoint.
            let mut headers = HeaderMap::with_capacity(16);
            for (name, value) in head.fields() {
                if is_hop_by_hop(name) || is_ours(name, flight) || (named && is_named(&head, name)) {
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
    tell(answer.headers_mut(), flight);
    if let Some(cookie) = cookie {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

/// Adds what is ours to tell: the request's name, and which page may read the answer.
pub(super) fn tell(headers: &mut HeaderMap, flight: &Flight) {
    if let Some(origin) = &flight.cors {
        let mut names = String::from(X_REQUEST_ID);
        for name in headers.keys() {
            names.push_str(", ");
            names.push_str(name.as_str());
        }
        // Origins and names are such that they can stand in a field.
        if let (Ok(origin), Ok(names)) = (HeaderValue::from_str(origin), HeaderValue::from_str(&names)) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names);
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(seconds) = flight.hsts_seconds
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}"))
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    // Allocates: the library wants to own the value.
    if let Ok(id) = HeaderValue::from_bytes(flight.id.as_bytes()) {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// Writes that the page of this origin may read the answer, with these fields of it.
pub(super) fn write_shared<'a>(origin: &str, names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    write::field("access-control-allow-origin", origin.as_bytes(), out);
    out.extend_from_slice(b"access-control-allow-credentials: true\r\nvary: origin\r\n");
    out.extend_from_slice(b"access-control-expose-headers: x-request-id");
    for name in names {
        out.extend_from_slice(b", ");
        out.extend_from_slice(name.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
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
