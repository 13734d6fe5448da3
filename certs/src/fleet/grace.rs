//! Whom the controller lets through the handshake: those whom its authority named, also for a while after their time.
//!
//! A member's certificate lives for a day and is renewed by its owner over a connection that the certificate itself opens.
//! A controller that was away for longer than that would meet nothing but expired certificates, and the whole fleet would
//! have to join again by hand. So a certificate is looked at as it was at its end, for [`GRACE`] after it. Nothing but a
//! renewal is granted to it: whoever serves calls has to look at [`super::Peer::until`], and that is the price of it.
//!
//! Must not know: who was revoked, or which calls there are.

use std::sync::Arc;
use std::time::Duration;

use rustls::Error;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};

use super::validity::{Validity, unix};
use crate::around::Around;

/// How long after its end a certificate may still ask for the next one. A month: longer than a holiday, shorter than a
/// stolen backup is worth.
pub const GRACE: Duration = Duration::from_secs(30 * 86_400);

/// Verifies as `strict` does, at the certificate's end when that is past and within the grace.
pub(super) fn lenient(strict: Arc<dyn ClientCertVerifier>) -> Arc<dyn ClientCertVerifier> {
    Around::looking(strict, look)
}

fn look(
    strict: &dyn ClientCertVerifier,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<ClientCertVerified, Error> {
    // What cannot be read is left to the wrapped one to refuse.
    let at = Validity::of(end_entity).map_or(now, |validity| looked_at(unix(validity.until), now));
    strict.verify_client_cert(end_entity, intermediates, at)
}

/// When to look at a certificate that is good until `until`.
fn looked_at(until: UnixTime, now: UnixTime) -> UnixTime {
    let late = now.as_secs().saturating_sub(until.as_secs());
    if late > 0 && late <= GRACE.as_secs() { until } else { now }
}
