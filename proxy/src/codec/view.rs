//! Heads as rooms see them: one look for both protocols, borrowed, and nothing of the body.
//!
//! Main types: [`Head`] and [`RequestView`], of a request; [`AnswerHead`], of an endpoint's answer.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, request, response};

use super::Dialect;
use super::grpc_web::{self, Web};
use super::http1::head::{Fields, RequestHead, ResponseHead};
use super::http1::target;

/// A request's head.
#[derive(Debug)]
pub(crate) enum Head {
    Http1(RequestHead),
    Http2(Box<request::Parts>),
}

/// What rooms see of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestView<'a> {
    Http1(&'a RequestHead),
    Http2(&'a request::Parts),
}

/// The head of an endpoint's answer.
#[derive(Debug)]
pub(crate) enum AnswerHead {
    Http1(ResponseHead),
    Http2(Box<response::Parts>),
}

/// One of two iterators over the same.
enum Either<A, B> {
    Http1(A),
    Http2(B),
}

impl<T, A: Iterator<Item = T>, B: Iterator<Item = T>> Iterator for Either<A, B> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            Self::Http1(one) => one.next(),
            Self::Http2(two) => two.next(),
        }
    }
}

fn in_map(map: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
}

impl Head {
    pub(crate) fn view(&self) -> RequestView<'_> {
        match self {
            Self::Http1(head) => RequestView::Http1(head),
            Self::Http2(head) => RequestView::Http2(head),
        }
    }
}

impl<'a> RequestView<'a> {
    pub(crate) fn method(self) -> &'a str {
        match self {
            Self::Http1(head) => head.method(),
            Self::Http2(head) => head.method.as_str(),
        }
    }

    /// The authority of the target: absolute form in HTTP/1, `:authority` in HTTP/2.
    pub(crate) fn authority(self) -> Option<&'a str> {
        match self {
            Self::Http1(head) => target::split(head.target()).0,
            Self::Http2(head) => head.uri.authority().map(http::uri::Authority::as_str),
        }
    }

    /// Path and query, byte for byte as the upstream will get them.
    pub(crate) fn path(self) -> &'a str {
        match self {
            Self::Http1(head) => match target::split(head.target()) {
                // RFC 9112 §3.2.4: the last proxy sends what the server itself is asked as "*".
                (Some(_), "") if head.method() == "OPTIONS" => "*",
                // §3.2.1.
                (Some(_), "") => "/",
                (_, path) => path,
            },
            Self::Http2(head) => head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str),
        }
    }

    pub(crate) fn is_http_2(self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Whether the client understands what only HTTP/1.1 has.
    pub(crate) fn is_http_1_1(self) -> bool {
        matches!(self, Self::Http1(head) if head.minor == 1)
    }

    /// "1.0", "1.1" or "2".
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Http1(head) if head.minor == 0 => "1.0",
            Self::Http1(_) => "1.1",
            Self::Http2(_) => "2",
        }
    }

    /// All values of a field, in order. `name` is lower case.
    pub(crate) fn header(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        match self {
            Self::Http1(head) => Either::Http1(head.fields().all(name)),
            Self::Http2(head) => Either::Http2(head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)),
        }
    }

    /// All fields, each value on its own. Names are lower case.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        match self {
            Self::Http1(head) => Either::Http1(head.fields().iter()),
            Self::Http2(head) => Either::Http2(in_map(&head.headers)),
        }
    }

    /// The host that the request names, as it was written. The head check has made sure that there is one.
    pub(crate) fn named_host(self) -> &'a [u8] {
        self.header("host").next().or_else(|| self.authority().map(str::as_bytes)).unwrap_or_default()
    }

    /// By the content type alone: that is what gRPC servers go by.
    pub(crate) fn dialect(self) -> Dialect {
        match self.header("content-type").next() {
            Some(kind) => match Web::of(kind) {
                Some(web) => Dialect::GrpcWeb(web),
                None if grpc_web::is_grpc(kind) => Dialect::Grpc,
                None => Dialect::Http,
            },
            None => Dialect::Http,
        }
    }

    /// Whether a comma-separated field holds a token.
    pub(crate) fn has_token(self, name: &'static str, token: &[u8]) -> bool {
        let mut members = self.header(name).flat_map(|value| value.split(|b| *b == b','));
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
    }
}

impl AnswerHead {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Http1(head) => head.status,
            Self::Http2(head) => head.status.as_u16(),
        }
    }

    /// All values of a field, in order. `name` is lower case.
    pub(crate) fn all(&self, name: &'static str) -> impl Iterator<Item = &[u8]> {
        match self {
            Self::Http1(head) => Either::Http1(head.fields().all(name)),
            Self::Http2(head) => Either::Http2(head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes)),
        }
    }

    /// The first value of a field. `name` is lower case.
    pub(crate) fn first(&self, name: &'static str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// All fields, each value on its own. Names are lower case.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        match self {
            Self::Http1(head) => Either::Http1(head.fields().iter()),
            Self::Http2(head) => Either::Http2(in_map(&head.headers)),
        }
    }

    /// Turns the head of a gRPC answer into one of gRPC-Web: a browser gets the trailers behind the messages.
    pub(crate) fn turn_into_web(&mut self, web: Web) {
        let Self::Http2(head) = self else { return };
        let kind = head.headers.get(CONTENT_TYPE).map(|kind| web.of_grpc(kind.as_bytes()));
        if let Some(kind) = kind.and_then(|kind| http::HeaderValue::from_bytes(&kind).ok()) {
            head.headers.insert(CONTENT_TYPE, kind);
        }
        head.headers.remove(http::header::CONTENT_LENGTH);
        head.headers.remove(http::header::TRAILER);
    }

    /// Whether the answer is gRPC.
    pub(crate) fn is_grpc(&self) -> bool {
        self.first("content-type").is_some_and(grpc_web::is_grpc)
    }

    /// Whether pieces of the answer may be far apart.
    pub(crate) fn is_stream(&self) -> bool {
        let kind = self.first("content-type");
        self.is_grpc() || kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
    }
}

impl Fields {
    /// Whether a comma-separated field holds a token.
    pub(crate) fn has_token(&self, name: &'static str, token: &[u8]) -> bool {
        let mut members = self.all(name).flat_map(|value| value.split(|b| *b == b','));
        members.any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
    }
}
