//! What looks at the certificates of clients in a handshake.
//!
//! Must not know: what was asked for in words, or what becomes of those who are let in.
//!
//! Main types: [`Nobody`], which lets nobody in; [`of_library`] makes what looks closely.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::Told;
use crate::around::Around;

/// Accepts clients of these authorities that these lists do not revoke.
///
/// # Errors
/// A list that cannot be read: why.
pub(super) fn of_library(
    roots: Arc<RootCertStore>,
    crls: Vec<CertificateRevocationListDer<'static>>,
    is_required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // Of each certificate of a chain it must be known that it is not revoked, by a list that has not expired.
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = builder.with_crls(crls).enforce_revocation_expiration();
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    Ok(Around::looking(builder.build().map_err(|error| error.to_string())?, readable))
}

/// Accepts nobody, and asks everybody for a certificate: those who may come in cannot be told from those who may not.
#[derive(Debug)]
pub(super) struct Nobody;

impl ClientCertVerifier for Nobody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        // They have to be named for the question to be asked at all.
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts what the library accepts, if it can be read and told as well: what is told to others has one reading.
fn readable(
    library: &dyn ClientCertVerifier,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<ClientCertVerified, Error> {
    let verified = library.verify_client_cert(end_entity, intermediates, now)?;
    Told::read(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(verified)
}
