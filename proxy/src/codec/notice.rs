//! What we say ourselves, in the protocol and the manner of the caller.
//!
//! Main type: [`Notice`]. Statuses and texts are those of `answer`.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::Dialect;
use super::connection::Flight;
use super::grpc_web::Web;
use super::http1::framing::Framing;
use super::http1::write;
use super::rewrite::{Keep, tell, write_end, write_line, write_shared};
use crate::answer::Own;
use crate::cors::Preflight;

const TEXT: &[u8] = b"text/plain; charset=utf-8";

/// An answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    Http(Own),
    /// A gRPC status and nothing else ("Trailers-Only").
    Grpc {
        code: u8,
        message: Option<&'static str>,
        web: Option<Web>,
    },
    /// What a browser asks before it sends a request may be done.
    Preflight(Preflight),
    /// The same request is to be sent there.
    Redirect(Box<str>),
    /// What a certificate authority wants to see (RFC 8555 §8.3).
    Proof(Box<str>),
}

impl Notice {
    /// How something is told to this caller.
    pub(crate) fn of(own: Own, dialect: Dialect) -> Self {
        match dialect {
            Dialect::Http => Self::Http(own),
            _ => Self::Grpc { code: own.grpc_code(), message: Some(own.text().trim_end()), web: dialect.web() },
        }
    }

    /// HTTP status.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Http(own) => own.status(),
            Self::Grpc { .. } => 200,
            Self::Preflight(_) => 204,
            // 301 would let a client make a GET of it (RFC 9110 §15.4.9).
            Self::Redirect(_) => 308,
            Self::Proof(_) => 200,
        }
    }

    fn text(&self) -> &str {
        if let Self::Proof(answer) = self { answer } else { self.fixed_text() }
    }

    fn fixed_text(&self) -> &'static str {
        match self {
            Self::Http(own) => own.text(),
            Self::Redirect(_) => Own::HttpsOnly.text(),
            Self::Grpc { .. } | Self::Preflight(_) | Self::Proof(_) => "",
        }
    }

    /// Whether the connection ends with it: what cannot be read for certain has no certain end either.
    pub(crate) fn ends(&self) -> bool {
        matches!(self, Self::Http(Own::Refused(_) | Own::HeadTooSlow | Own::ClientBody(_)))
    }

    fn each_field(&self, mut put: impl FnMut(&'static str, &[u8])) {
        match self {
            Self::Http(Own::Unauthenticated(_)) => {
                // RFC 9110 §11.6.1: a 401 says how.
                put("www-authenticate", b"Bearer");
                put("content-type", TEXT);
            }
            Self::Http(_) | Self::Proof(_) => put("content-type", TEXT),
            Self::Redirect(location) => {
                put("location", location.as_bytes());
                put("content-type", TEXT);
            }
            Self::Grpc { code, message, web } => {
                put("content-type", web.map_or("application/grpc", Web::content_type).as_bytes());
                let mut digits = Vec::with_capacity(3);
                write::number((*code).into(), &mut digits);
                put("grpc-status", &digits);
                if let Some(message) = message {
                    put("grpc-message", message.as_bytes());
                }
            }
            Self::Preflight(Preflight { method, headers }) => {
                put("access-control-allow-methods", method.as_bytes());
                if !headers.is_empty() {
                    put("access-control-allow-headers", headers.as_bytes());
                }
                // As long as browsers keep it.
                put("access-control-max-age", b"7200");
            }
        }
    }

    /// Writes it for HTTP/1, with its body unless the request was HEAD.
    pub(crate) fn write(&self, head_only: bool, keep: Keep, flight: &Flight, out: &mut Vec<u8>) {
        write_line(self.status(), "", out);
        self.each_field(|name, value| write::field(name, value, out));
        if self.status() != 204 {
            write::framing(Framing::Length(self.text().len() as u64), out);
        }
        if let Some(origin) = &flight.cors {
            write_shared(origin, ["grpc-status", "grpc-message"].into_iter(), out);
        }
        write_end(keep, flight, out);
        if !head_only {
            out.extend_from_slice(self.text().as_bytes());
        }
    }

    /// As the HTTP/2 library takes it: the head, and the text of the body.
    pub(crate) fn to_http2(&self, flight: &Flight) -> (Response<()>, Bytes) {
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(self.status()).expect("our own statuses are valid");
        let headers = answer.headers_mut();
        self.each_field(|name, value| {
            headers
                .insert(name, HeaderValue::from_bytes(value).expect("ours, and what a head check let pass, are valid"));
        });
        if !self.text().is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.text().len()));
        }
        tell(headers, flight);
        let text = match self {
            Self::Proof(proof) => Bytes::copy_from_slice(proof.as_bytes()),
            _ => Bytes::from_static(self.fixed_text().as_bytes()),
        };
        (answer, text)
    }
}
