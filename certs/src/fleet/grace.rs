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

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::validity::{Validity, unix};

/// How long after its end a certificate may still ask for the next one. A month: longer than a holiday, shorter than a
/// stolen backup is worth.
pub const GRACE: Duration = Duration::from_secs(30 * 86_400);

/// Verifies as the wrapped one does, at the certificate's end when that is past and within the grace.
#[derive(Debug)]
pub(super) struct Lenient(pub(super) Arc<dyn ClientCertVerifier>);

/// When to look at a certificate that is good until `until`.
fn looked_at(until: UnixTime, now: UnixTime) -> UnixTime {
    let late = now.as_secs().saturating_sub(until.as_secs());
    if late > 0 && late <= GRACE.as_secs() { until } else { now }
}

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // What cannot be read is left to the wrapped one to refuse.
        let at = Validity::of(end_entity).map_or(now, |validity| looked_at(unix(validity.until), now));
        self.0.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
