//! An operator's own certificate: the key that stays, the request that is sent, and the connection that it opens.
//!
//! Must not know: tokens' names or scopes, or how the files that hold it are written.

use std::time::SystemTime;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::transport::Channel;

use super::GRACE;
use super::connect::{authority_of, channel};
use super::identity::{Current, Shown};
use super::trust::Trust;
use super::validity::Validity;
use crate::CertsError;

/// A key that was just made, for a certificate that is asked for.
pub struct OperatorKey {
    key: KeyPair,
}

impl OperatorKey {
    /// Makes a key on this machine.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, CertsError> {
        Ok(Self { key: KeyPair::generate()? })
    }

    /// The request for its certificate (PKCS #10, DER).
    ///
    /// # Errors
    /// A key that cannot sign.
    pub fn request_der(&self) -> Result<Vec<u8>, CertsError> {
        Ok(CertificateParams::default().serialize_request(&self.key)?.der().to_vec())
    }

    /// The key (PKCS #8, PEM): secret.
    pub fn pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// When a certificate (PEM) ended, if that is longer than [`GRACE`] ago: the handshake then fails without a sentence.
pub fn forgotten_since(certificate_pem: &str, now: SystemTime) -> Option<SystemTime> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    let ended = Validity::of(&certificate)?.until;
    now.duration_since(ended).is_ok_and(|late| late > GRACE).then_some(ended)
}

/// As [`super::operator_channel`], with a certificate and its key (PEM) in place of a token.
///
/// # Errors
/// As [`super::operator_channel`]; and a certificate and a key that do not belong together.
pub fn certified_operator_channel(
    controller: &str,
    ca_pem: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> Result<Channel, CertsError> {
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|error| CertsError::Material(format!("the operator's certificate is not PEM: {error}")))?;
    let shown = Shown::new(Current::new(&certificate, key_pem)?);
    channel(controller, Trust::authority(&authority_of(ca_pem)?)?, Some(shown))
}
