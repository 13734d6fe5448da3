//! A verifier of clients that does as another one does, but for how it looks at a certificate.
//!
//! Must not know: who looks, or why differently.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// How a certificate is looked at, by means of the wrapped verifier.
pub(crate) type Look = fn(
    &dyn ClientCertVerifier,
    &CertificateDer<'_>,
    &[CertificateDer<'_>],
    UnixTime,
) -> Result<ClientCertVerified, Error>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Around {
    inner: Arc<dyn ClientCertVerifier>,
    look: Look,
}

impl Around {
    pub(crate) fn looking(inner: Arc<dyn ClientCertVerifier>, look: Look) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Self { inner, look })
    }
}

impl ClientCertVerifier for Around {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        (self.look)(&*self.inner, end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
