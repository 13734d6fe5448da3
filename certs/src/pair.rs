//! A certificate with its key as people have them: two PEM texts. Taken whole or refused whole.
//!
//! Must not know: where they come from.

use std::time::{SystemTime, UNIX_EPOCH};

use api::Host;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CertsError;
use crate::describe::Description;
use crate::development::Material;
use crate::resolver::Certified;

/// Longest accepted text of either kind.
pub const PEM_BYTES: usize = 64 * 1024;
/// Most names of a certificate: proxies take no more.
const NAMES_MOST: usize = 1_000;
/// Most certificates of a chain: real ones have two to four.
const CHAIN_MOST: usize = 10;

/// Reads a chain (leaf first) and its key (PKCS #8, PKCS #1 or SEC 1), both PEM, and checks that they serve at `now`.
///
/// # Errors
/// The first thing that is wrong: text that is no PEM or too long, a chain out of order, a key of another certificate,
/// no DNS name, not valid now.
pub fn read(chain_pem: &str, key_pem: &str, now: SystemTime) -> Result<Material, CertsError> {
    let wrong = |what: String| CertsError::Material(what);
    for (text, what) in [(chain_pem, "chain"), (key_pem, "key")] {
        if text.len() > PEM_BYTES {
            return Err(wrong(format!("the {what} has {} bytes: accepted are {PEM_BYTES}", text.len())));
        }
    }
    let chain = chain(chain_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|error| {
        // Its text may quote the key.
        let encrypted = key_pem.contains("ENCRYPTED");
        let why = if encrypted { "it is encrypted".to_owned() } else { pem_problem(&error).to_owned() };
        wrong(format!("the key is not usable: {why} (accepted is a PEM of PKCS #8, PKCS #1 or SEC 1)"))
    })?;
    let mut leaf = Description::of(&chain[0])?;
    // Names that no request could have are of no use to proxies, which would refuse them.
    leaf.dns_names.retain(|name| name.strip_prefix("*.").unwrap_or(name).parse::<Host>().is_ok());
    if leaf.dns_names.is_empty() || leaf.dns_names.len() > NAMES_MOST {
        let count = leaf.dns_names.len();
        return Err(wrong(format!(
            "the first certificate of the chain names {count} hosts (subjectAltName): accepted are 1 to {NAMES_MOST}"
        )));
    }
    if leaf.not_after <= now || leaf.not_before > now {
        let (from, until) = (seconds(leaf.not_before), seconds(leaf.not_after));
        return Err(wrong(format!("it is valid from {from} to {until} (seconds since 1970), and not now")));
    }
    let key_der = key.secret_der().to_vec();
    Certified::parse(&leaf.dns_names, &chain, &key_der)
        .map_err(|error| wrong(format!("the key and the first certificate of the chain do not match: {error}")))?;
    let chain_der = chain.iter().map(|der| der.to_vec()).collect();
    Ok(Material { dns_names: leaf.dns_names, chain_der, key_der, expires_s: seconds(leaf.not_after) })
}

/// A chain of which each certificate was issued by the next (RFC 8446 §4.4.2).
fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertsError> {
    let wrong = |what: String| CertsError::Material(what);
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| wrong(format!("the chain is not PEM: {}", pem_problem(&error))))?;
    if found.is_empty() || found.len() > CHAIN_MOST {
        let count = found.len();
        return Err(wrong(format!(
            "the chain has {count} certificates: accepted are 1 to {CHAIN_MOST}, PEM, leaf first"
        )));
    }
    for (place, pair) in found.windows(2).enumerate() {
        let names = |der| X509Certificate::from_der(der).ok().map(|(_, one)| one);
        let (Some(one), Some(next)) = (names(&pair[0]), names(&pair[1])) else {
            return Err(wrong("a certificate of the chain cannot be read".into()));
        };
        if one.issuer().as_raw() != next.subject().as_raw() {
            let (this, after) = (place + 1, place + 2);
            return Err(wrong(format!(
                "certificate {this} of the chain was not issued by certificate {after}: accepted is leaf first, then who \
                 issued it"
            )));
        }
    }
    Ok(found)
}

/// What is wrong with a PEM text, in words that quote nothing of it: it may be a key.
pub fn pem_problem(error: &rustls::pki_types::pem::Error) -> &'static str {
    use rustls::pki_types::pem::Error;
    match error {
        Error::MissingSectionEnd { .. } => "a section has no end",
        Error::IllegalSectionStart { .. } => "a section does not begin as it should",
        Error::Base64Decode(_) => "it is not base64",
        Error::NoItemsFound => "there is none in it",
        _ => "it cannot be read",
    }
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::development::DevelopmentCa;

    fn text(tag: &str, der: &[u8]) -> String {
        pem::encode(&pem::Pem::new(tag, der.to_vec()))
    }

    #[test]
    fn a_pair_is_taken_whole_or_refused_whole() {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let now = SystemTime::now();
        let (one, other) =
            (ca.issue(&["a.example".into(), "b_c.example".into()], now), ca.issue(&["b.example".into()], now));
        let (one, other) = (one.expect("issued"), other.expect("issued"));
        let nameless = ca.issue(&["my_app.example".into()], now).expect("issued");
        let leaf = text("CERTIFICATE", &one.chain_der[0]);
        let key = text("PRIVATE KEY", &one.key_der);
        let year = Duration::from_secs(400 * 86_400);
        for (chain, key, at, expected) in [
            (leaf.clone(), key.clone(), now, None),
            (leaf.clone() + &ca.certificate_pem(), key.clone(), now, None),
            (leaf.clone(), text("PRIVATE KEY", &other.key_der), now, Some("do not match")),
            (ca.certificate_pem() + &leaf, key.clone(), now, Some("certificate 1 of the chain was not issued")),
            (String::new(), key.clone(), now, Some("the chain has 0 certificates")),
            (leaf.repeat(11), key.clone(), now, Some("the chain has 11 certificates")),
            (leaf.replace("END", "ENDE"), key.clone(), now, Some("the chain is not PEM: a section has no end")),
            (leaf.clone(), leaf.clone(), now, Some("the key is not usable: there is none in it")),
            (leaf.clone(), text("ENCRYPTED PRIVATE KEY", b"x"), now, Some("it is encrypted")),
            (leaf.clone(), key.clone(), now + year, Some("and not now")),
            (leaf.clone(), key, now - year, Some("and not now")),
            (leaf.clone(), " ".repeat(PEM_BYTES + 1), now, Some("accepted are 65536")),
            (
                text("CERTIFICATE", &nameless.chain_der[0]),
                text("PRIVATE KEY", &nameless.key_der),
                now,
                Some("names 0 hosts"),
            ),
        ] {
            match (read(&chain, &key, at), expected) {
                (Ok(material), None) => assert_eq!(material.dns_names, ["a.example"], "and no name that is no host"),
                (Err(error), Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}, not {expected}")
                }
                (found, _) => panic!("{found:?}, not {expected:?}"),
            }
        }
    }
}
