//! gRPC by hand, as far as one unary method needs it: five bytes before each message, the status in trailers.
//! Source: gRPC over HTTP/2, PROTOCOL-HTTP2.md.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, body::Incoming};

/// Path of the one method.
pub const GREET: &str = "/hello.v1.Greeter/Greet";

const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const UNIMPLEMENTED: u32 = 12;
/// The code of an error on purpose.
pub const INTERNAL: u32 = 13;

/// Largest request: a name fits many times over.
const REQUEST_BYTES: usize = 64 * 1024;

/// Reads a `GreetRequest` and answers with what `greet` makes of its name.
pub async fn greet(body: Incoming, greet: impl FnOnce(&str) -> String) -> Response<BoxBody<Bytes, Infallible>> {
    let limited = http_body_util::Limited::new(body, REQUEST_BYTES).collect().await;
    let message = limited.ok().map(|body| body.to_bytes()).and_then(|bytes| unframe(&bytes));
    let Some(name) = message.as_deref().and_then(string_field_1) else {
        return status(INVALID_ARGUMENT, "the request is not a GreetRequest");
    };
    let text = greet(&name);
    let mut reply = BytesMut::with_capacity(text.len() + 12);
    reply.put_u8(0x0a); // Field 1, length-delimited.
    put_varint(&mut reply, text.len());
    reply.put_slice(text.as_bytes());
    let mut framed = BytesMut::with_capacity(reply.len() + 5);
    framed.put_u8(0); // Not compressed.
    framed.put_u32(u32::try_from(reply.len()).expect("a greeting is short"));
    framed.put_slice(&reply);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(OK));
    let body = Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// An answer without a message: trailers only.
pub fn status(code: u32, message: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::default().boxed());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}

/// The answer to a method that does not exist.
pub fn unimplemented() -> Response<BoxBody<Bytes, Infallible>> {
    status(UNIMPLEMENTED, "there is no such method")
}

/// The one message of a request.
fn unframe(bytes: &Bytes) -> Option<Bytes> {
    let (head, message) = (bytes.get(..5)?, bytes.slice(5..));
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    (head[0] == 0 && usize::try_from(length).ok()? == message.len()).then_some(message)
}

/// The string in field 1; empty when there is none. Unknown fields are not expected from our own clients.
fn string_field_1(message: &[u8]) -> Option<String> {
    let Some((0x0a, rest)) = message.split_first() else { return message.is_empty().then(String::new) };
    let (length, text) = take_varint(rest)?;
    String::from_utf8(text.get(..length)?.to_vec()).ok()
}

fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().take(5).position(|byte| byte & 0x80 == 0)?;
    let value = bytes[..=end].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    Some((value, &bytes[end + 1..]))
}

fn put_varint(buffer: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        buffer.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}
