//! Heads on their way through: hop-by-hop fields end here, and who the client is said once, by us.
//!
//! The rules are those of `forward_headers`; this applies them to the library's types.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::{AnswerBody, Upload};
use super::connection::Connection;
use super::{Authority, Dialect, Inbound, Outbound};
use crate::answer::Own;
use crate::forward_headers::{Fate, fate, is_protected};
use crate::head_check::{Head, Refusal};
use crate::settings::Limits;
use crate::snapshot::Protocol;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

impl Inbound {
    /// The authority that was decided on, as the upstream gets it.
    pub(crate) fn authority_value(&self, head: &Head<'_>) -> Authority {
        match self.head.headers.get(header::HOST) {
            Some(host) if host.as_bytes() == head.authority.as_bytes() => host.clone(),
            // Allocates: HTTP/2, where the authority is no field, and hosts that were not in normal form.
            _ => HeaderValue::from_str(&head.authority).expect("an authority in normal form is a header value"),
        }
    }

    /// The request as it goes to an endpoint.
    pub(crate) fn into_upstream(
        self,
        authority: Authority,
        connection: &Connection,
        protocol: Protocol,
        limits: &Limits,
    ) -> Result<Request<Upload>, Own> {
        let dialect = self.dialect();
        let Self { head, body } = self;
        let mut headers = head.headers;
        let wants_trailers = dialect == Dialect::Grpc
            || headers.get(header::TE).is_some_and(|te| contains_token(te.as_bytes(), b"trailers"));
        strip(&mut headers);
        if wants_trailers {
            headers.insert(header::TE, TRAILERS);
        }
        headers.insert(X_FORWARDED_FOR, connection.peer.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if connection.tls { "https" } else { "http" }));
        headers.insert(X_FORWARDED_HOST, authority.clone());
        let path = head.uri.into_parts().path_and_query;
        let (uri, version) = match protocol {
            Protocol::Http1 => {
                headers.insert(header::HOST, authority);
                (origin_form(path)?, Version::HTTP_11)
            }
            Protocol::Http2 => {
                headers.remove(header::HOST);
                (absolute_form(&authority, path)?, Version::HTTP_2)
            }
        };
        let idle = if dialect == Dialect::Http { limits.body } else { limits.stream_idle };
        let mut request = Request::new(Upload::new(body, idle));
        *request.method_mut() = head.method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn origin_form(path: Option<PathAndQuery>) -> Result<Uri, Own> {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = path;
    Uri::from_parts(parts).map_err(|_| Own::Refused(Refusal::Ambiguous("the target is no path")))
}

fn absolute_form(authority: &HeaderValue, path: Option<PathAndQuery>) -> Result<Uri, Own> {
    let wrong = Own::Refused(Refusal::Ambiguous("the host is not a name"));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    // Allocates: the library gives no way from a header value to an authority without a copy.
    parts.authority = Some(http::uri::Authority::try_from(authority.as_bytes()).map_err(|_| wrong)?);
    parts.path_and_query = path;
    Uri::from_parts(parts).map_err(|_| wrong)
}

/// An answer that may be passed on, or `None` when it is malformed.
pub(crate) fn from_upstream(answer: Response<Incoming>) -> Option<(http::response::Parts, Incoming)> {
    let (mut head, body) = answer.into_parts();
    let lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().count();
    let coded = head.headers.contains_key(header::TRANSFER_ENCODING);
    // 101 cannot be an answer: `upgrade` was never sent.
    if head.status.as_u16() < 200 || lengths > 1 || (lengths == 1 && coded) {
        return None;
    }
    strip_named(&mut head.headers);
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        head.headers.remove(name);
    }
    // What the endpoint speaks is no business of the client's connection.
    head.version = Version::HTTP_11;
    Some((head, body))
}

/// Whether the endpoint's answer is gRPC as well.
pub(crate) fn is_grpc(head: &http::response::Parts) -> bool {
    head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The gRPC status, when it stands in the head already ("Trailers-Only").
pub(crate) fn grpc_status_of(head: &http::response::Parts) -> Option<&[u8]> {
    head.headers.get("grpc-status").map(HeaderValue::as_bytes)
}

/// Whether pieces of the answer may be far apart.
pub(crate) fn is_stream(head: &http::response::Parts) -> bool {
    let kind = head.headers.get(header::CONTENT_TYPE);
    is_grpc(head) || kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer of ours.
pub(crate) fn own(own: Own, dialect: Dialect, http_2: bool) -> Outbound {
    if dialect != Dialect::Http {
        return grpc_status(own.grpc_code(), Some(own.text().trim_end()), dialect);
    }
    let mut answer = Response::new(AnswerBody::Fixed(Some(own.text())));
    *answer.status_mut() = StatusCode::from_u16(own.status()).expect("our own statuses are valid");
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(own.text().len()));
    // What cannot be read for certain has no certain end either. HTTP/2 has its own frames for that.
    if matches!(own, Own::Refused(_)) && !http_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A gRPC answer that is a status and nothing else ("Trailers-Only").
pub(crate) fn grpc_status(code: u8, message: Option<&'static str>, dialect: Dialect) -> Outbound {
    let mut answer = Response::new(AnswerBody::Fixed(None));
    let headers = answer.headers_mut();
    let kind = if dialect == Dialect::GrpcWeb { "application/grpc-web" } else { "application/grpc" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    if let Some(message) = message {
        headers.insert("grpc-message", HeaderValue::from_static(message));
    }
    answer
}

/// A second copy of a request that may be sent twice without harm and has no body; `None` for all others.
pub(crate) fn replay(request: &Request<Upload>) -> Option<Request<Upload>> {
    use http_body::Body;
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Takes away what must not go on.
fn strip(headers: &mut HeaderMap) {
    strip_named(headers);
    // Allocates when there is anything to take away: the map cannot be changed while it is read.
    let gone: Vec<HeaderName> = headers.keys().filter(|name| fate(name.as_str()) != Fate::Passes).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// Takes away what `Connection` names, except what says who asks for what.
fn strip_named(headers: &mut HeaderMap) {
    let Some(first) = headers.get(header::CONNECTION) else { return };
    let plain = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
    if plain(first.as_bytes()) && headers.get_all(header::CONNECTION).iter().count() == 1 {
        return;
    }
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let tokens = values.flat_map(|value| value.split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    let named: Vec<HeaderName> = tokens
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_protected(name.as_str()))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn contains_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::testing::head;

    fn stripped(fields: &str) -> Vec<String> {
        let mut headers = head(&format!("GET / HTTP/1.1\n{fields}")).headers;
        strip(&mut headers);
        // Taking fields away may change the order of the others.
        let mut left: Vec<String> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        left.sort();
        left
    }

    #[test]
    fn hostile_h08_what_connection_names_goes_and_identity_stays() {
        let left = stripped(
            "host: a\nconnection: close, x-custom, authorization, X-Forwarded-For, cookie\nx-custom: 1\nauthorization: b\n\
             cookie: c\nkeep-alive: 5\nproxy-connection: x\nupgrade: websocket\nte: trailers\naccept: d",
        );
        assert_eq!(left, ["accept", "authorization", "cookie", "host"]);
    }

    #[test]
    fn hostile_h41_no_copy_of_ours_passes() {
        let left = stripped(
            "host: a\nX-Forwarded-For: 1\nx_forwarded_for: 2\nx.forwarded.host: 3\nX-FORWARDED-PROTO: 4\nForwarded: 5\n\
             x-forwarded-for: 6\naccept: d",
        );
        assert_eq!(left, ["accept", "host"]);
    }
}
