//! Whether what a server issued is what was ordered. Pure: the time is an argument.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::AcmeError;
use super::error::plain;
use crate::development::Material;
use crate::resolver::Certified;

/// Longer chains than this are nobody's: each handshake carries the whole of it.
const LONGEST_CHAIN: usize = 10;

/// Takes over a chain (PEM, leaf first) for the names and the key of an order.
pub(super) fn check(names: &[String], pem: &str, key_der: Vec<u8>, now: SystemTime) -> Result<Material, AcmeError> {
    let wrong = |what: String| AcmeError::Issued(what);
    let mut chain_der = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(format!("its chain cannot be read: {error}")))?;
        X509Certificate::from_der(&certificate)
            .map_err(|error| wrong(format!("its certificate {} cannot be read: {error}", chain_der.len() + 1)))?;
        chain_der.push(certificate.to_vec());
        if chain_der.len() > LONGEST_CHAIN {
            return Err(wrong(format!("its chain has more than {LONGEST_CHAIN} certificates")));
        }
    }
    let Some(leaf) = chain_der.first() else { return Err(wrong("its chain is empty".into())) };
    Certified::parse(names, &chain_der, &key_der).map_err(|error| wrong(error.to_string()))?;
    let answered = dns_names(leaf)?;
    if let Some(missing) = names.iter().find(|name| !answered.contains(name)) {
        return Err(wrong(format!("{missing} is not in it; it is for {}", plain(&answered.join(", ")))));
    }
    let (_, not_after) = validity(leaf)?;
    if not_after <= now {
        return Err(wrong("it has expired already".into()));
    }
    let expires = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Material { dns_names: names.to_vec(), chain_der, key_der, expires_s: expires.as_secs() })
}

/// A certificate's `notBefore` and `notAfter`: what [`super::renewal::due`] goes by.
///
/// # Errors
/// Bytes that are no certificate.
pub fn validity(certificate_der: &[u8]) -> Result<(SystemTime, SystemTime), AcmeError> {
    let validity = parse(certificate_der)?.validity().clone();
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    Ok((time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

fn dns_names(leaf_der: &[u8]) -> Result<Vec<String>, AcmeError> {
    let leaf = parse(leaf_der)?;
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, AcmeError> {
    let parsed = X509Certificate::from_der(der);
    parsed.map(|(_, parsed)| parsed).map_err(|error| AcmeError::Issued(format!("it cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::development::DevelopmentCa;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn pem(chain: &[Vec<u8>]) -> String {
        chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect()
    }

    #[test]
    fn acme_what_was_issued_has_to_be_what_was_ordered() {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let now = SystemTime::now();
        let both = names(&["*.a.example", "a.example"]);
        let issued = ca.issue(&both, now).expect("issued");
        let other = ca.issue(&names(&["a.example"]), now).expect("issued");
        let good = pem(&issued.chain_der);
        let late = now + Duration::from_secs(398 * 86_400);
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", issued.key_der.clone()));
        for (what, asked, text, key, now, expected) in [
            ("what was ordered", &both, good.clone(), &issued.key_der, now, Ok(1)),
            ("one of its names", &names(&["a.example"]), good.clone(), &issued.key_der, now, Ok(1)),
            ("with its authority", &both, format!("{good}{}", ca.certificate_pem()), &issued.key_der, now, Ok(2)),
            ("nothing", &both, String::new(), &issued.key_der, now, Err("chain is empty")),
            ("a key", &both, key, &issued.key_der, now, Err("chain is empty")),
            ("an error page", &both, "<html>".into(), &issued.key_der, now, Err("chain is empty")),
            ("no certificate", &both, pem(&[vec![1, 2, 3]]), &issued.key_der, now, Err("certificate 1 cannot be read")),
            ("a long chain", &both, good.repeat(11), &issued.key_der, now, Err("more than 10")),
            ("another key", &both, good.clone(), &other.key_der, now, Err("not usable")),
            (
                "a missing name",
                &names(&["b.example"]),
                good.clone(),
                &issued.key_der,
                now,
                Err("b.example is not in it"),
            ),
            ("one expired", &both, good.clone(), &issued.key_der, late, Err("expired")),
        ] {
            match (check(asked, &text, key.clone(), now), expected) {
                (Ok(material), Ok(certificates)) => {
                    assert_eq!((&material.dns_names, material.chain_der.len()), (asked, certificates), "{what}");
                    assert_eq!(material.expires_s, issued.expires_s, "{what}");
                }
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{what}: {error}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }
}
