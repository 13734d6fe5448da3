//! Whether it is the controller: verified by its authority, and by a clock that may be wrong.
//!
//! A certificate that is past its end, or not yet good, nearly always means that one of two clocks is wrong: the
//! controller makes a new one long before the end. That is what is said then, instead of "certificate expired".
//!
//! Must not know: who asks, or what for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::authority::{SKEW, roots};
use super::validity::{Validity, rfc3339, system, unix};
use crate::CertsError;

/// A controller that could be verified at another time than this machine's clock tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongClock {
    now: SystemTime,
    made: SystemTime,
    until: SystemTime,
}

impl std::fmt::Display for WrongClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the clock of this machine says {}, and the controller's certificate, which was made at {}, is valid until \
             {}: one of the two clocks is wrong",
            rfc3339(self.now),
            rfc3339(self.made),
            rfc3339(self.until)
        )
    }
}

impl std::error::Error for WrongClock {}

/// Verifies the controller; remembers when only the clock spoke against it.
#[derive(Debug)]
pub(super) struct Trust {
    known: Known,
    /// Of the last handshake.
    wrong: Mutex<Option<WrongClock>>,
}

/// What is known of the controller's authority.
#[derive(Debug)]
enum Known {
    /// Its certificate.
    Authority(Arc<WebPkiServerVerifier>),
    /// Its fingerprint, from a join token; the certificate comes with the handshake.
    Fingerprint(api::Digest),
}

impl Trust {
    /// In whoever has a certificate of this authority.
    pub(super) fn authority(ca: &CertificateDer<'_>) -> Result<Self, CertsError> {
        Ok(Self { known: Known::Authority(verifier(ca)?), wrong: Mutex::default() })
    }

    /// In whoever has a certificate of the authority with this fingerprint.
    pub(super) fn fingerprint(fingerprint: api::Digest) -> Self {
        Self { known: Known::Fingerprint(fingerprint), wrong: Mutex::default() }
    }

    /// What the clock had against the last handshake; told once.
    pub(super) fn wrong_clock(&self) -> Option<WrongClock> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn verifier(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let fingerprint = match &self.known {
            Known::Authority(verifier) => return Ok(verifier.clone()),
            Known::Fingerprint(fingerprint) => fingerprint,
        };
        let authority = sent.iter().find(|certificate| api::Digest::of(certificate) == *fingerprint);
        let authority = authority.ok_or_else(|| {
            Error::General("it is not the controller that made this token (another authority)".into())
        })?;
        verifier(authority).map_err(|error| Error::General(error.to_string()))
    }
}

fn verifier(ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, CertsError> {
    WebPkiServerVerifier::builder(Arc::new(roots(ca)?)).build().map_err(|error| CertsError::Material(error.to_string()))
}

fn is_about_time(error: &Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let Error::InvalidCertificate(error) = error else { return false };
    matches!(error, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = self.verifier(intermediates)?;
        // The authority is known or was found above: nothing between it and the leaf is looked at.
        let at = |moment| verifier.verify_server_cert(end_entity, &[], name, ocsp_response, moment);
        let result = at(now);
        let wrong = result.as_ref().err().filter(|error| is_about_time(error)).and_then(|_| {
            let validity = Validity::of(end_entity)?;
            at(unix(validity.middle())).ok()?;
            Some(WrongClock { now: system(now), made: validity.from + SKEW, until: validity.until })
        });
        *self.wrong.lock().unwrap_or_else(PoisonError::into_inner) = wrong;
        // As it is: the alert that follows from it tells the controller.
        result
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}
