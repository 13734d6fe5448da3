//! What a certificate says of itself, for people and for deciding when it is renewed.
//!
//! Must not know: whether anybody trusts it.

use std::time::{Duration, SystemTime};

use api::Digest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::CertsError;

/// Longest text that is taken from a certificate.
const TEXT_MOST: usize = 256;

/// What stands in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its DNS names, lower case; other kinds of names are left out.
    pub dns_names: Vec<String>,
    /// Distinguished name of who signed it, at most 256 characters, control characters escaped.
    pub issuer: String,
    /// Serial number, hex.
    pub serial: String,
    /// First moment of its validity.
    pub not_before: SystemTime,
    /// Last moment of its validity.
    pub not_after: SystemTime,
    /// Kind of its key: "ecdsa-p256", "rsa-2048".
    pub key: String,
    /// SHA-256 of the whole certificate.
    pub sha256: Digest,
}

impl Description {
    /// Reads a certificate, DER.
    ///
    /// # Errors
    /// Bytes that are no certificate.
    pub fn of(der: &[u8]) -> Result<Self, CertsError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| CertsError::Material(format!("a certificate cannot be read: {error}")))?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let dns_names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        let validity = certificate.validity();
        Ok(Self {
            dns_names: dns_names.collect(),
            issuer: text(&certificate.issuer().to_string()),
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: moment(validity.not_before.timestamp()),
            not_after: moment(validity.not_after.timestamp()),
            key: key(&certificate),
            sha256: Digest::of(der),
        })
    }
}

/// Looks whether a list of revoked certificates (RFC 5280 §5), DER, can be read.
///
/// # Errors
/// Bytes that are none, or that go on behind its end.
pub fn check_list(der: &[u8]) -> Result<(), CertsError> {
    match CertificateRevocationList::from_der(der) {
        Ok(([], _)) => Ok(()),
        Ok(_) => Err(CertsError::Material("something stands behind its end".into())),
        Err(error) => Err(CertsError::Material(format!("it cannot be read: {error}"))),
    }
}

/// A time before 1970 is as good as 1970.
fn moment(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn text(text: &str) -> String {
    text.chars().take(TEXT_MOST).flat_map(char::escape_debug).collect()
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("ecdsa-p{}", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("rsa-{}", key.key_size()),
        _ => match certificate.public_key().algorithm.algorithm.to_id_string().as_str() {
            // RFC 8410 §3.
            "1.3.101.112" => "ed25519".to_owned(),
            other => other.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::development::DevelopmentCa;

    #[test]
    fn a_certificate_says_what_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let now = SystemTime::now();
        let made = ca.issue(&["*.A.example".into(), "b.example".into()], now).expect("issued");
        let found = Description::of(&made.chain_der[0]).expect("readable");
        assert_eq!(found.dns_names, ["*.a.example", "b.example"]);
        assert_eq!((found.issuer.as_str(), found.key.as_str()), ("CN=Pointsman development CA", "ecdsa-p256"));
        assert!(found.not_before < now && found.not_after > now);
        assert_eq!(found.sha256, Digest::of(&made.chain_der[0]));
        assert!(Description::of(b"garbage").is_err());
    }
}
