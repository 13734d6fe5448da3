//! Endpoints that are known by what they are: the one URI of their certificate, which is a SPIFFE id.
//!
//! Must not know: addresses, or names.
//!
//! Sources: SPIFFE-ID, SPIFFE X509-SVID. Main type: [`Workload`], which verifies.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::shown;
use crate::CertsError;

/// A SPIFFE id: `spiffe://`, a trust domain, and a path (SPIFFE-ID §2). At most 2048 bytes.
///
/// # Errors
/// Anything else.
pub fn spiffe_id(id: &str) -> Result<&str, CertsError> {
    let is_plain = |text: &str, more: &[u8]| {
        let may = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_') || more.contains(&b);
        !text.is_empty() && text.bytes().all(may)
    };
    let good = id.strip_prefix("spiffe://").filter(|_| id.len() <= 2048).is_some_and(|rest| {
        let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
        let is_domain = domain.len() <= 255 && is_plain(domain, b"") && !domain.bytes().any(|b| b.is_ascii_uppercase());
        let is_part = |part: &str| is_plain(part, b"") && part != "." && part != "..";
        is_domain && path.is_none_or(|path| path.split('/').all(is_part))
    });
    let form = "a SPIFFE id such as \"spiffe://example.com/hello\"";
    if good { Ok(id) } else { Err(CertsError::Material(format!("{:?} is not {form}", shown(id)))) }
}

/// Verifies the chain as the library does, and the one URI in place of the name (SPIFFE X509-SVID §5.2).
#[derive(Debug)]
pub(super) struct Workload {
    roots: Arc<RootCertStore>,
    id: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Workload {
    pub(super) fn new(roots: Arc<RootCertStore>, id: &str) -> Result<Self, CertsError> {
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        Ok(Self { roots, id: spiffe_id(id)?.to_owned(), algorithms })
    }
}

impl ServerCertVerifier for Workload {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        match &uris(end_entity).ok_or(CertificateError::BadEncoding)?[..] {
            [uri] if *uri == self.id => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Every URI that a certificate names; `None`: they cannot be read.
fn uris<'a>(certificate: &'a CertificateDer<'_>) -> Option<Vec<&'a str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut uris = Vec::new();
    for extension in certificate.extensions().iter().filter(|one| one.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { return None };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
    }
    Some(uris)
}

#[cfg(test)]
mod tests {
    use api::fleet::EndpointTls;

    use super::*;
    use crate::endpoint::{Application, Authorities, Connector};

    #[test]
    fn ids_of_workloads_have_one_form() {
        for (id, good) in [
            ("spiffe://example.com/hello", true),
            ("spiffe://example.com", true),
            ("spiffe://trust_domain-1/a/B.c/_d", true),
            ("", false),
            ("spiffe://", false),
            ("spiffe:///hello", false),
            ("spiffe://example.com/", false),
            ("spiffe://example.com//hello", false),
            ("spiffe://example.com/../hello", false),
            ("spiffe://example.com/./hello", false),
            ("spiffe://Example.com/hello", false),
            ("SPIFFE://example.com/hello", false),
            ("spiffe://example.com:80/hello", false),
            ("spiffe://user@example.com/hello", false),
            ("spiffe://example.com/hello?x", false),
            ("spiffe://example.com/hello#x", false),
            ("spiffe://example.com/h%65llo", false),
            ("spiffe://example.com/h\0", false),
            ("https://example.com/hello", false),
        ] {
            crate::install_provider();
            let of =
                EndpointTls { server_name: "hello.internal".into(), spiffe_id: id.into(), ..EndpointTls::default() };
            let (machine, by_name) = (Authorities::default(), id.is_empty());
            let made = Connector::of(&of, &machine, Application::Http2);
            assert_eq!((spiffe_id(id).is_ok(), made.is_ok()), (good, good || by_name), "{id}");
        }
        assert!(spiffe_id(&format!("spiffe://a/{}", "b".repeat(2048))).is_err());
    }
}
