//! What an endpoint is told of the request by us: who the client is and who calls, on which way it came, and the request's
//! name.
//!
//! Main types: [`Told`]; [`Calls`], of who calls.

use std::rc::Rc;

use super::connection::Connection;
use super::view::RequestView;
use crate::forwarded::{self, Origin};
use crate::request_id::{RequestId, is_traceparent};

/// Makes the fields, as often as the request is sent.
#[derive(Debug)]
pub(crate) struct Told {
    connection: Rc<Connection>,
    /// What trusted peers say, if the peer is one.
    origin: Option<Box<Origin>>,
    id: RequestId,
    /// The client brought no trace that could go on.
    begins_trace: bool,
    calls: Calls,
}

/// What an endpoint is told of who calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// A token of ours; `None`: nobody that is known.
    pub(crate) assertion: Option<Rc<str>>,
    /// `authorization` was for us.
    pub(crate) spent_authorization: bool,
}

impl Told {
    pub(crate) fn new(view: RequestView<'_>, connection: Rc<Connection>, id: RequestId, calls: Calls) -> Self {
        let peer = connection.peer();
        // Allocates: only for requests of trusted peers.
        let origin = peer.is_trusted.then(|| forwarded::origin(view, peer.address, &connection.listener.trusted));
        let mut traces = view.header("traceparent");
        let goes_on = traces.next().is_some_and(is_traceparent) && traces.next().is_none();
        Self { connection, origin: origin.map(Box::new), id, begins_trace: !goes_on, calls }
    }

    /// Whether a field of the client ends here although its name alone would let it go on: a trace that is none, and a token
    /// that was for us.
    pub(crate) fn replaces(&self, name: &str) -> bool {
        match name {
            "traceparent" | "tracestate" => self.begins_trace,
            "authorization" => self.calls.spent_authorization,
            _ => false,
        }
    }

    /// Each field, its value in pieces. `authority`: the host as the endpoint is told it.
    pub(crate) fn each(&self, authority: &[u8], mut put: impl FnMut(&'static str, &[&[u8]])) {
        let (peer, origin) = (self.connection.peer(), self.origin.as_deref());
        let scheme = origin.and_then(|origin| origin.scheme).unwrap_or(self.connection.scheme()).as_bytes();
        let host = origin.and_then(|origin| origin.host.as_deref()).map_or(authority, str::as_bytes);
        match origin {
            Some(origin) if !origin.chain.is_empty() => {
                let before: String = origin.chain.iter().map(|address| format!("{address}, ")).collect();
                put("x-forwarded-for", &[before.as_bytes(), peer.text.as_bytes()]);
                let before: String = origin.chain.iter().map(|address| format!("{}, ", node(*address))).collect();
                put("forwarded", &[before.as_bytes(), &element(peer.address, host, scheme)]);
            }
            _ => {
                put("x-forwarded-for", &[peer.text.as_bytes()]);
                let (open, close): (&[u8], &[u8]) =
                    if peer.address.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
                put("forwarded", &[open, peer.text.as_bytes(), close, b";host=\"", host, b"\";proto=", scheme]);
            }
        }
        put("x-forwarded-proto", &[scheme]);
        put("x-forwarded-host", &[host]);
        match origin.and_then(|origin| origin.port) {
            Some(port) => put("x-forwarded-port", &[port.to_string().as_bytes()]),
            None => put("x-forwarded-port", &[self.connection.listener.port.as_bytes()]),
        }
        if let Some(client) = self.connection.admission.client() {
            put("x-forwarded-client-cert", &[client.header().as_bytes()]);
        }
        if let Some(assertion) = &self.calls.assertion {
            put("x-pointsman-assertion", &[assertion.as_bytes()]);
        }
        put("x-request-id", &[self.id.as_bytes()]);
        if self.begins_trace {
            put("traceparent", &[&self.id.traceparent()]);
        }
    }
}

/// RFC 7239 §6: IPv6 in brackets and quotes.
fn node(address: std::net::IpAddr) -> String {
    if address.is_ipv6() { format!("for=\"[{address}]\"") } else { format!("for={address}") }
}

fn element(address: std::net::IpAddr, host: &[u8], scheme: &[u8]) -> Vec<u8> {
    [node(address).as_bytes(), b";host=\"", host, b"\";proto=", scheme].concat()
}
