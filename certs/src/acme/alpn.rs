//! The certificate that proves a name by TLS-ALPN-01 (RFC 8737).
//!
//! Must not know: who serves it. It goes out only to a client that offers [`PROTOCOL`] alone, and nothing is ever said
//! over that connection (RFC 8737 §3).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::{Digest, Host};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair, SanType};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::CertsError;

/// What a validating server offers by ALPN (RFC 8737 §6.2).
pub const PROTOCOL: &[u8] = b"acme-tls/1";
/// Longer than any order lives while it is being proved.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Clocks may differ by this.
const SKEW: Duration = Duration::from_secs(3_600);

/// The self-signed certificate that proves `host`: its only name, with the digest of the key authorization in the critical
/// extension `acmeIdentifier` (RFC 8737 §3). A fresh P-256 key, valid for 7 days.
///
/// Ready for a handshake, because it is no certificate for [`crate::resolver::Certified`]: rustls, which checks those,
/// refuses to read a certificate with an extension that is critical and unknown to it.
///
/// # Errors
/// When the library cannot make one; nothing of what is given makes it fail.
pub fn challenge_certificate(host: &Host, key_authorization: &str) -> Result<Arc<CertifiedKey>, CertsError> {
    let now = SystemTime::now();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + LIFETIME).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "ACME challenge");
    params.subject_alt_names = vec![SanType::DnsName(host.as_str().try_into()?)];
    let digest = Digest::of(key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_bytes())];
    let certificate = params.self_signed(&key)?;
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der.into())?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)))
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;

    #[test]
    fn acme_a_challenge_certificate_is_what_rfc_8737_asks() {
        let host: Host = "hello.example.com".parse().expect("host");
        let made = challenge_certificate(&host, "token.thumbprint").expect("made");
        let (_, leaf) = X509Certificate::from_der(&made.cert[0]).expect("a certificate");
        assert_eq!(made.key.public_key().expect("known").as_ref(), leaf.public_key().raw, "its own key");
        assert_eq!(leaf.subject(), leaf.issuer(), "self-signed");
        let names = leaf.subject_alternative_name().expect("one").expect("present").value.general_names.clone();
        assert_eq!(names, [GeneralName::DNSName("hello.example.com")]);
        let identifier = leaf.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
        let identifier = identifier.expect("acmeIdentifier");
        assert!(identifier.critical);
        // An OCTET STRING of 32 bytes.
        assert_eq!(identifier.value[..2], [4, 32]);
        assert_eq!(identifier.value[2..], Digest::of(b"token.thumbprint").as_bytes()[..]);
    }
}
