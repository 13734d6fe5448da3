//! Certificates that clients show: who vouches for them, and what they say of their owner.
//!
//! Must not know: which hosts ask for one, or what becomes of a request.
//!
//! Sources: RFC 5280 (certificates and lists of revoked ones), SPIFFE X509-SVID, Envoy's `x-forwarded-client-cert`.
//!
//! Main types: [`Clients`], whose certificates are accepted; [`Client`], what one says.

mod verifier;

use std::fmt::Write;
use std::sync::Arc;

use api::Digest;
use api::fleet::ClientCertificates;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore, ServerConfig};
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::public::Public;
use verifier::{Nobody, of_library};

/// Most authorities, and most lists.
const MOST: usize = 64;
/// Most bytes of all lists together: some 400,000 revoked certificates.
const CRL_BYTES: usize = 16 * 1024 * 1024;
/// Longest text about a client: it goes along with each request.
const HEADER_BYTES: usize = 8 * 1024;

/// Whose certificates are accepted, and the way to shake hands that asks for them.
#[derive(Debug)]
pub struct Clients {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    is_required: bool,
}

/// What was read: the authorities, and the lists of those that they do not stand for any more.
type Read = (Arc<RootCertStore>, Vec<CertificateRevocationListDer<'static>>);

/// Says the first thing that [`Clients::of`] would refuse, as a sentence.
///
/// # Errors
/// The field, and why it is refused.
pub fn check(asked: &ClientCertificates) -> Result<(), String> {
    read(asked)
        .map(drop)
        .map_err(|wrong| wrong.first().map(|(field, why)| format!("{field} {why}")).unwrap_or_default())
}

impl Clients {
    /// Reads what the contract says. Takes time in proportion to the lists.
    ///
    /// Without any authority nobody's certificate counts, and nobody is let in without one.
    ///
    /// # Errors
    /// Each thing that is wrong: its field, and why.
    pub fn of(asked: &ClientCertificates, public: &Public) -> Result<Self, Vec<(String, String)>> {
        let (roots, crls) = read(asked)?;
        let is_required = asked.required || roots.is_empty();
        let verifier: Arc<dyn ClientCertVerifier> = if roots.is_empty() {
            Arc::new(Nobody)
        } else {
            of_library(roots, crls, is_required).map_err(|why| vec![("crl_der".to_owned(), why)])?
        };
        Ok(Self { config: public.asking(verifier.clone()), verifier, is_required })
    }

    /// The way to shake hands.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether nobody is let in without one.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    /// Looks again at what a client has shown, under other rules or at another time.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, client: &Client, now: UnixTime) -> Result<(), Error> {
        let (leaf, rest) = client.chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(leaf, rest, now).map(drop)
    }
}

fn read(asked: &ClientCertificates) -> Result<Read, Vec<(String, String)>> {
    let mut wrong = Vec::new();
    let roots = roots(asked, &mut wrong);
    let crls = crls(asked, &roots, &mut wrong);
    if wrong.is_empty() { Ok((roots, crls)) } else { Err(wrong) }
}

fn roots(asked: &ClientCertificates, wrong: &mut Vec<(String, String)>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let count = asked.ca_der.len();
    if count > MOST {
        wrong.push(("ca_der".into(), format!("there are {count}, at most {MOST} are accepted")));
    }
    for (place, der) in asked.ca_der.iter().enumerate().take(MOST) {
        if let Err(error) = roots.add(CertificateDer::from(der.as_slice())) {
            wrong.push((format!("ca_der[{place}]"), format!("is no certificate that can be read: {error}")));
        }
    }
    Arc::new(roots)
}

/// Each is read alone first, so that the one that is wrong is named. Without authorities they are not looked at: nothing is
/// ever looked up in them.
fn crls(
    asked: &ClientCertificates,
    roots: &Arc<RootCertStore>,
    wrong: &mut Vec<(String, String)>,
) -> Vec<CertificateRevocationListDer<'static>> {
    let (count, bytes) = (asked.crl_der.len(), asked.crl_der.iter().map(Vec::len).sum::<usize>());
    if count > MOST || bytes > CRL_BYTES {
        let most = format!("at most {MOST} with {CRL_BYTES} are accepted");
        wrong.push(("crl_der".into(), format!("there are {count} with {bytes} bytes, {most}")));
        return Vec::new();
    }
    let crls: Vec<_> = asked.crl_der.iter().map(|der| CertificateRevocationListDer::from(der.clone())).collect();
    if roots.is_empty() {
        return crls;
    }
    let mut issuers: Vec<Option<&[u8]>> = Vec::new();
    for (place, crl) in crls.iter().enumerate() {
        let issuer = issuer(crl);
        if let Err(why) = of_library(roots.clone(), vec![crl.clone()], true) {
            wrong.push((format!("crl_der[{place}]"), format!("is no list that can be read: {why}")));
        } else if issuer.is_none() {
            wrong.push((format!("crl_der[{place}]"), "is no list that can be read: it names no issuer".to_owned()));
        } else if let Some(first) = issuers.iter().position(|before| *before == issuer) {
            // The library looks into the first list of an issuer alone: whoever is in another one would be let in.
            let why = format!("is of the same issuer as crl_der[{first}]: one list of each is accepted, the newest");
            wrong.push((format!("crl_der[{place}]"), why));
        }
        issuers.push(issuer);
    }
    crls
}

/// Who made a list, as it is encoded; `None`: it is none (RFC 5280 §5.1: version, algorithm and issuer come first).
fn issuer(crl: &[u8]) -> Option<&[u8]> {
    let (_, list) = Any::from_der(crl).ok()?;
    let (_, signed) = Any::from_der(list.data).ok()?;
    let (after, first) = Any::from_der(signed.data).ok()?;
    let after_version = if first.tag() == Tag::Integer { Any::from_der(after).ok()?.0 } else { after };
    let (_, issuer) = Any::from_der(after_version).ok()?;
    Some(issuer.data)
}

/// A client as its certificate names it. Made of one that was verified.
#[derive(Debug, Clone)]
pub struct Client {
    chain: Vec<CertificateDer<'static>>,
    spiffe_id: Option<String>,
    subject: String,
    header: String,
    until_s: u64,
}

impl Client {
    /// Reads a chain that was shown, leaf first; `None`: there is none, or its leaf has no one reading.
    pub fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let Told { spiffe_id, subject, header, until_s } = Told::read(chain.first()?)?;
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Some(Self { chain, spiffe_id, subject, header, until_s })
    }

    /// The only URI of the certificate, when that is a SPIFFE id.
    pub fn spiffe_id(&self) -> Option<&str> {
        self.spiffe_id.as_deref()
    }

    /// The SPIFFE id, else the subject (RFC 4514).
    pub fn name(&self) -> &str {
        self.spiffe_id().unwrap_or(&self.subject)
    }

    /// The first second, since the Unix epoch, in which the certificate does not count any more (RFC 5280 §4.1.2.5).
    pub fn until_s(&self) -> u64 {
        self.until_s
    }

    /// As an upstream is told: `Hash=...;Subject="...";URI=...;DNS=...`, each URI and DNS name once, all of it printable.
    /// Within the quotes of the subject there is no other quote.
    pub fn header(&self) -> &str {
        &self.header
    }
}

/// What is told of a certificate.
struct Told {
    spiffe_id: Option<String>,
    subject: String,
    header: String,
    until_s: u64,
}

impl Told {
    /// `None`: it cannot be read, or a name in it is none, such as one with NUL.
    fn read(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().ok()?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) if is_plain(uri) => uris.push(*uri),
                GeneralName::DNSName(name) if is_plain(name) && !name.contains([',', ';', '=']) => {
                    dns_names.push(*name)
                }
                GeneralName::URI(_) | GeneralName::DNSName(_) | GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
        let subject = subject(certificate.subject());
        let hash: String = Digest::of(leaf).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut header = format!("Hash={hash};Subject=\"{subject}\"");
        for uri in &uris {
            let quote = if uri.contains([',', ';', '=']) { "\"" } else { "" };
            let _ = write!(header, ";URI={quote}{uri}{quote}");
        }
        for name in dns_names {
            let _ = write!(header, ";DNS={name}");
        }
        // That second is within.
        let until_s =
            u64::try_from(certificate.validity().not_after.timestamp()).map_or(0, |last| last.saturating_add(1));
        let spiffe_id = match uris[..] {
            [uri] if uri.starts_with("spiffe://") => Some(uri.to_owned()),
            _ => None,
        };
        (header.len() <= HEADER_BYTES).then_some(Self { spiffe_id, subject, header, until_s })
    }
}

/// Printable, and without what would have to be escaped within quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'"' && b != b'\\')
}

/// RFC 4514: the last part first. Whatever is not plain is written in hexadecimal (§2.4), so that no reader has to know
/// which character is escaped how.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (place, part) in parts.into_iter().rev().enumerate() {
        for (within, attribute) in part.iter().enumerate() {
            text.push_str(match (place, within) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            });
            let kind = attribute.attr_type().to_id_string();
            text.push_str(short(&kind));
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    for byte in attribute.as_slice() {
                        let _ = write!(text, "{byte:02x}");
                    }
                }
            }
        }
    }
    text
}

/// RFC 4514 §3.
fn short(kind: &str) -> &str {
    match kind {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        other => other,
    }
}

fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (place, byte) in value.bytes().enumerate() {
        let is_inner_blank = byte == b' ' && place != 0 && place != last;
        if byte.is_ascii_alphanumeric() || b"-_.:/@*()'".contains(&byte) || is_inner_blank {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\{byte:02X}");
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
