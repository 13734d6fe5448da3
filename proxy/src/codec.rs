//! The seam: the only place that knows how HTTP looks on the wire, and the libraries that read and write it.
//!
//! Must not know: routes, splits, policies. Rooms see a request through [`RequestView`] and never a body; they hand an
//! [`Outbound`] back. HTTP/1 is ours, HTTP/2 is the library's; whatever lies above works with either on both sides.
//!
//! Main types: [`Inbound`], a request as it came; [`Prepared`], as it goes to an endpoint; [`Outbound`], an answer;
//! [`pool::Pools`], connections to endpoints; [`Exchange`], what answers; [`server::serve`], one connection of a client.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod flow;
mod frames;
pub(crate) mod grpc_web;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod idle;
pub(crate) mod notice;
pub(crate) mod page;
pub(crate) mod pool;
pub(crate) mod prepared;
pub(crate) mod probe;
#[cfg(test)]
mod reference;
pub(crate) mod relay;
pub(crate) mod rewrite;
pub(crate) mod server;
pub(crate) mod stream;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
pub(crate) mod told;
pub(crate) mod upload;
pub(crate) mod view;

pub(crate) use notice::Notice;
pub(crate) use prepared::Prepared;
pub(crate) use view::{AnswerHead, Head, RequestView};

use rustls::server::ClientHello;

use connection::Flight;
use grpc_web::Web;
use http1::endpoint::Conn;
use relay::Relay;
use upload::Upload;

use crate::answer::Own;
use crate::handshake::Way;

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) head: Head,
    pub(crate) upload: Upload,
    /// Protocol that the client wants to change to, when it may.
    pub(crate) upgrade: Option<Upgrade>,
}

/// A change of protocol that a client wants.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) protocol: Box<str>,
    /// What the endpoint has to answer to a key of ours; `None`: the key is the client's, and so is the look at it.
    pub(crate) accept: Option<Box<str>>,
}

/// An answer on its way to the client.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// Ours.
    Own(Notice, Flight),
    /// An endpoint's.
    Relay(AnswerHead, Box<Relay>),
    /// The endpoint changed the protocol (101): from here on bytes go both ways.
    Tunnel(AnswerHead, Box<Conn>, Box<Relay>),
}

/// What answers requests.
pub(crate) trait Exchange: Clone + 'static {
    /// Answers one.
    fn answer(&self, inbound: Box<Inbound>, flight: Flight) -> impl Future<Output = Outbound>;

    /// How to shake hands with a client that says this first.
    fn way(&self, hello: &ClientHello<'_>) -> Way;

    /// Something came that is no request, and is answered with `own`.
    fn refused(&self, own: Own, flight: &mut Flight);
}

/// How errors are told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Http,
    Grpc,
    /// gRPC from a browser, which also passes over HTTP/1.1.
    GrpcWeb(Web),
}

impl Dialect {
    /// What a caller of gRPC-Web gets instead of gRPC.
    pub(crate) fn web(self) -> Option<Web> {
        match self {
            Self::GrpcWeb(web) => Some(web),
            _ => None,
        }
    }
}
