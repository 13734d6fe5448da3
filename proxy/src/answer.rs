//! The answers that are ours: one place that turns what went wrong into a status, a text and a gRPC code.
//!
//! Must not know: how an answer is written, or which protocol it goes out on.
//!
//! Main type: [`Own`]. Texts are fixed: nothing of a request or of a backend shows in them.

use policies::verdict::Why;

use crate::head_check::Refusal;
use crate::totals::Reason;

/// Why we answer ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// The head was refused.
    Refused(Refusal),
    /// No stage has this host, or whoever asks may not know that one has.
    Hidden(Why),
    /// The call lacks a valid credential.
    Unauthenticated(Why),
    /// Whoever asks may know of the stage and not do this, and is told so.
    Forbidden(Why),
    /// It cannot be told who asks.
    Unavailable(Why),
    /// No snapshot was ever applied.
    NotReady,
    /// The stage has no split, or the backend no endpoint.
    NoEndpoint,
    /// No connection to any endpoint that was tried.
    ConnectFailed,
    /// The connection broke before the answer, or the answer was malformed.
    BadAnswer,
    /// No answer within the deadline.
    TooSlow,
    /// No answer for as long as the caller of a gRPC call waits.
    Late,
    /// Every connection to the endpoint carries as many streams as it may.
    Overloaded,
    /// A gRPC call to a backend that speaks HTTP/1.1.
    GrpcOverHttp1,
    /// WebSocket over a stream (RFC 8441) to a backend that speaks HTTP/2.
    NoWebSocket,
    /// The client's body cannot be read to its end.
    ClientBody(BodyFault),
    /// A head was begun and did not come.
    HeadTooSlow,
    /// A page asks before it calls, and may not.
    OriginRefused,
    /// A gRPC call in clear to a zone that is for https; others are redirected.
    HttpsOnly,
}

/// What is wrong with a client's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// It stopped.
    TooSlow,
    /// It broke off, or has more than one reading.
    Broken,
    /// More chunk extensions than anybody needs.
    Extensions,
    /// More trailers than we hold.
    Trailers,
}

/// gRPC status codes (grpc/doc/statuscodes.md).
mod code {
    pub(super) const UNKNOWN: u8 = 2;
    pub(super) const DEADLINE_EXCEEDED: u8 = 4;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u8 = 8;
    pub(super) const FAILED_PRECONDITION: u8 = 9;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const INTERNAL: u8 = 13;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;
}

impl Own {
    /// HTTP status.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Refused(Refusal::Ambiguous(_) | Refusal::HostTooLong) => 400,
            Self::Refused(Refusal::Trace) => 405,
            Self::Refused(Refusal::Connect) => 501,
            Self::Refused(Refusal::Expectation) => 417,
            Self::Refused(Refusal::Version) => 505,
            Self::Refused(Refusal::Misdirected) => 421,
            Self::Refused(Refusal::TargetTooLong) => 414,
            Self::Refused(Refusal::HeadTooLarge) => 431,
            Self::Hidden(_) => 404,
            Self::Unauthenticated(_) => 401,
            Self::Forbidden(_) | Self::OriginRefused => 403,
            Self::HttpsOnly => 308,
            Self::NotReady | Self::NoEndpoint | Self::Overloaded | Self::Unavailable(_) => 503,
            Self::ConnectFailed | Self::BadAnswer | Self::GrpcOverHttp1 | Self::NoWebSocket => 502,
            Self::TooSlow | Self::Late => 504,
            Self::ClientBody(BodyFault::TooSlow) | Self::HeadTooSlow => 408,
            Self::ClientBody(BodyFault::Broken | BodyFault::Extensions) => 400,
            Self::ClientBody(BodyFault::Trailers) => 431,
        }
    }

    /// As it is counted.
    pub(crate) fn label(self) -> Reason {
        match self {
            Self::Refused(Refusal::Ambiguous(_)) => Reason::Malformed,
            Self::Refused(Refusal::Trace | Refusal::Connect) => Reason::Method,
            Self::Refused(Refusal::Expectation) => Reason::Expectation,
            Self::Refused(Refusal::Version) => Reason::Version,
            Self::Refused(Refusal::Misdirected) => Reason::Misdirected,
            Self::Refused(Refusal::TargetTooLong) => Reason::TargetTooLong,
            Self::Refused(Refusal::HostTooLong) => Reason::HostTooLong,
            Self::Refused(Refusal::HeadTooLarge) => Reason::HeadTooLarge,
            Self::Hidden(Why::UnknownHost) => Reason::UnknownHost,
            Self::Hidden(Why::PolicyFailed) | Self::Forbidden(Why::PolicyFailed) => Reason::PolicyFailed,
            Self::Hidden(_) => Reason::Hidden,
            Self::Unauthenticated(_) => Reason::Unauthenticated,
            Self::Forbidden(_) => Reason::Forbidden,
            Self::Unavailable(_) => Reason::KeysUnavailable,
            Self::NotReady => Reason::NotReady,
            Self::NoEndpoint => Reason::NoEndpoint,
            Self::ConnectFailed => Reason::ConnectFailed,
            Self::BadAnswer => Reason::BadAnswer,
            Self::TooSlow => Reason::TooSlow,
            Self::Late => Reason::Late,
            Self::Overloaded => Reason::Overloaded,
            Self::GrpcOverHttp1 | Self::NoWebSocket => Reason::WrongProtocol,
            Self::ClientBody(BodyFault::TooSlow) => Reason::BodyTooSlow,
            Self::ClientBody(BodyFault::Broken) => Reason::BodyBroken,
            Self::ClientBody(BodyFault::Extensions) => Reason::ChunkExtensions,
            Self::ClientBody(BodyFault::Trailers) => Reason::Trailers,
            Self::HeadTooSlow => Reason::HeadTooSlow,
            Self::OriginRefused => Reason::Origin,
            Self::HttpsOnly => Reason::HttpsOnly,
        }
    }

    /// Body of the answer: one sentence and a line end.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Ambiguous(_)) => "Bad request\n",
            Self::Refused(Refusal::Trace) => "Method not allowed\n",
            Self::Refused(Refusal::Connect) => "Not implemented\n",
            Self::Refused(Refusal::Expectation) => "Expectation failed\n",
            Self::Refused(Refusal::Version) => "HTTP version not supported\n",
            Self::Refused(Refusal::Misdirected) => "Misdirected request\n",
            Self::Refused(Refusal::HostTooLong) => "The host is longer than 255 bytes\n",
            Self::Refused(Refusal::TargetTooLong) => "The target is longer than 8 KiB\n",
            Self::Refused(Refusal::HeadTooLarge) => "The head has more than 32 KiB or 100 fields\n",
            Self::Hidden(_) => "Not found\n",
            Self::Unauthenticated(_) => "A valid credential is needed\n",
            Self::Forbidden(_) => "This is not permitted\n",
            Self::Unavailable(_) => "Credentials cannot be verified now\n",
            Self::NotReady => "This proxy has no routes yet\n",
            Self::NoEndpoint => "Nothing serves here now\n",
            Self::Overloaded => "Too many requests are under way\n",
            Self::ConnectFailed => "The service cannot be reached\n",
            Self::BadAnswer => "The service did not answer properly\n",
            Self::GrpcOverHttp1 => "The service does not speak gRPC\n",
            Self::NoWebSocket => "The service does not speak WebSocket\n",
            Self::TooSlow => "The service did not answer in time\n",
            Self::Late => "The call took longer than its grpc-timeout\n",
            Self::ClientBody(BodyFault::TooSlow) => "The request's body did not come in time\n",
            Self::ClientBody(BodyFault::Broken) => "The request's body is malformed or was cut\n",
            Self::ClientBody(BodyFault::Extensions) => "The chunk extensions have more than 1 KiB\n",
            Self::ClientBody(BodyFault::Trailers) => "The trailers have more than 8 KiB or 32 fields\n",
            Self::HttpsOnly => "This host is served over https only\n",
            Self::OriginRefused => "This origin may not call the service\n",
            Self::HeadTooSlow => "The request's head did not come in time\n",
        }
    }

    /// For the log: what the caller is not told.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Ambiguous(why)) => why,
            Self::Hidden(why) | Self::Unauthenticated(why) | Self::Forbidden(why) | Self::Unavailable(why) => {
                why.text()
            }
            own => own.text().trim_end(),
        }
    }

    /// Status for gRPC callers.
    pub(crate) fn grpc_code(self) -> u8 {
        match self {
            Self::Refused(Refusal::HeadTooLarge) | Self::ClientBody(BodyFault::Trailers) => code::RESOURCE_EXHAUSTED,
            Self::Refused(_) | Self::ClientBody(_) | Self::HeadTooSlow => code::INTERNAL,
            Self::OriginRefused | Self::Forbidden(_) => code::PERMISSION_DENIED,
            Self::Unauthenticated(_) => code::UNAUTHENTICATED,
            Self::HttpsOnly => code::FAILED_PRECONDITION,
            Self::Hidden(_) | Self::GrpcOverHttp1 | Self::NoWebSocket => code::UNIMPLEMENTED,
            Self::TooSlow | Self::Late => code::DEADLINE_EXCEEDED,
            Self::NotReady
            | Self::NoEndpoint
            | Self::ConnectFailed
            | Self::BadAnswer
            | Self::Overloaded
            | Self::Unavailable(_) => code::UNAVAILABLE,
        }
    }
}

/// The gRPC code for an upstream's bare HTTP answer (grpc/doc/http-grpc-status-mapping.md).
pub(crate) fn grpc_code_of_http(status: u16) -> u8 {
    match status {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502 | 503 | 504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// For a stream that broke, and for one that ended without a status.
pub(crate) const GRPC_BROKEN: u8 = code::UNAVAILABLE;
/// See [`GRPC_BROKEN`].
pub(crate) const GRPC_NO_STATUS: u8 = code::UNKNOWN;
/// For a call that took longer than its caller waits.
pub(crate) const GRPC_LATE: u8 = code::DEADLINE_EXCEEDED;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_a_status_a_text_and_a_code() {
        for (own, status, code) in [
            (Own::Hidden(Why::UnknownHost), 404, 12),
            (Own::Hidden(Why::MayNotCall), 404, 12),
            (Own::Unauthenticated(Why::NoUser), 401, 16),
            (Own::Forbidden(Why::MayNotCall), 403, 7),
            (Own::Unavailable(Why::KeysUnavailable), 503, 14),
            (Own::NotReady, 503, 14),
            (Own::HttpsOnly, 308, 9),
            (Own::NoEndpoint, 503, 14),
            (Own::ConnectFailed, 502, 14),
            (Own::BadAnswer, 502, 14),
            (Own::TooSlow, 504, 4),
            (Own::Overloaded, 503, 14),
            (Own::GrpcOverHttp1, 502, 12),
            (Own::Refused(Refusal::Ambiguous("x")), 400, 13),
            (Own::Refused(Refusal::Trace), 405, 13),
            (Own::Refused(Refusal::Connect), 501, 13),
        ] {
            assert_eq!((own.status(), own.grpc_code()), (status, code), "{own:?}");
            assert!(own.text().ends_with('\n'));
        }
    }
}
