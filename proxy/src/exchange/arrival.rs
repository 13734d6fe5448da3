//! What comes before anybody asks who it is: the request's name, proofs for authorities, https, certificates of clients.
//!
//! Must not know: stages. Hosts of a zone are all alike here, whether or not they lead anywhere.

use crate::answer::Own;
use crate::codec::connection::Flight;
use crate::codec::{Dialect, Notice, RequestView};
use crate::forwarded;
use crate::head_check::Refusal;
use crate::request_id::RequestId;
use crate::route;
use crate::snapshot::{Https, Snapshot};

/// Gives the request its name, and says in the log what it is.
pub(super) fn introduce(view: RequestView<'_>, flight: &mut Flight) {
    let peer = flight.connection().peer();
    let (mut client, mut scheme) = (peer.address, flight.connection().scheme());
    if peer.is_trusted {
        let origin = forwarded::origin(view, peer.address, &flight.connection().listener.trusted);
        (client, scheme) = (origin.client, origin.scheme.unwrap_or(scheme));
        if let Some(given) = view.header("x-request-id").next().and_then(RequestId::given) {
            flight.id = given;
        }
    }
    flight.client = client;
    flight.is_https = scheme == "https";
    if flight.connection().listener.log.is_none() {
        return;
    }
    flight.begin_log(client);
    let certificate = flight.connection().admission.client();
    flight.log(|entry| {
        entry.text("scheme", scheme.as_bytes());
        entry.text("version", view.version().as_bytes());
        entry.text("method", view.method().as_bytes());
        entry.text("host", view.named_host());
        entry.text("target", view.path().as_bytes());
        if let Some(client) = certificate {
            entry.text("client_certificate", client.name().as_bytes());
        }
        if let Some(agent) = view.header("user-agent").next() {
            entry.text("user_agent", agent);
        }
    });
}

/// What a certificate authority asks for in clear (RFC 8555 §8.3). Anything else at this path goes the usual way.
pub(super) fn prove(view: RequestView<'_>, snapshot: &Snapshot, host: &str, flight: &Flight) -> Option<Box<str>> {
    let is_asked = !flight.is_https && matches!(view.method(), "GET" | "HEAD") && view.dialect() == Dialect::Http;
    if !is_asked {
        return None;
    }
    snapshot.challenges.answer(host, view.path()).map(Into::into)
}

/// A host that asks for certificates is served on connections that were asked for them, whether or not there is such a
/// host.
///
/// INVARIANT: where one is required nothing goes on that came without, be it in clear, without a name in the handshake, or
/// on a connection from before.
pub(super) fn admit(snapshot: &Snapshot, host: &str, flight: &Flight) -> Result<(), Own> {
    let connection = flight.connection();
    if connection.admission.is_good_for(route::clients(snapshot, host)) {
        return Ok(());
    }
    // A new connection is asked anew.
    connection.leave();
    Err(Own::Refused(Refusal::Misdirected))
}

/// Sends requests in clear to where they belong, and has browsers remember it. Before anything asks whether there is such
/// a stage: hosts of a zone are all alike in this.
pub(super) fn keep_to_https(
    view: RequestView<'_>,
    https: Https,
    host: &str,
    flight: &mut Flight,
) -> Result<Option<Notice>, Own> {
    if flight.is_https {
        flight.hsts_seconds = https.hsts_seconds;
        return Ok(None);
    }
    let Some(port) = https.redirect_port else { return Ok(None) };
    if view.dialect() != Dialect::Http {
        return Err(Own::HttpsOnly);
    }
    // `OPTIONS *` has no path.
    let path = if view.path() == "*" { "/" } else { view.path() };
    // Allocates: whoever is sent away comes back over TLS.
    Ok(Some(Notice::Redirect(match port.get() {
        443 => format!("https://{host}{path}").into(),
        port => format!("https://{host}:{port}{path}").into(),
    })))
}
