//! Which certificate answers which name: exact, then wildcard, then the default of the zone that the name lies in, then
//! the default of the first zone.
//!
//! Must not know: where certificates come from (files, a development CA, ACME) or which names are hidden: an unknown
//! name gets the default and a handshake like any other.
//!
//! Main types: [`Certified`], a certificate that was checked, and [`SniResolver`], which rustls asks.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CertsError;

/// A certificate with its key and the names it answers; the key belongs to the certificate.
#[derive(Debug, Clone)]
pub struct Certified {
    dns_names: Vec<String>,
    /// Empty: of none.
    zone: String,
    expires_s: u64,
    key: Arc<CertifiedKey>,
}

impl Certified {
    /// Checks and takes over a chain (leaf first) with its key (PKCS #8, PKCS #1 or SEC 1, DER).
    ///
    /// # Errors
    /// No name, an empty chain, a key that cannot be read, or one that is not the leaf's.
    pub fn parse(dns_names: &[String], chain_der: &[impl AsRef<[u8]>], key_der: &[u8]) -> Result<Self, CertsError> {
        if dns_names.is_empty() || chain_der.is_empty() {
            return Err(CertsError::Material(
                "a certificate needs at least one DNS name and one certificate in its chain".into(),
            ));
        }
        let chain = chain_der.iter().map(|der| CertificateDer::from(der.as_ref().to_vec())).collect();
        let key = PrivateKeyDer::try_from(key_der.to_vec())
            .map_err(|what| CertsError::Material(format!("the key cannot be read: {what}")))?;
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?;
        let dns_names = dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
        let leaf = key.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
        let (_, leaf) = X509Certificate::from_der(leaf)
            .map_err(|error| CertsError::Material(format!("the certificate cannot be read: {error}")))?;
        let expires_s = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or_default();
        Ok(Self { dns_names, zone: String::new(), expires_s, key: Arc::new(key) })
    }

    /// The same as what answers for the names of a zone, at any depth, that nothing else answers. Empty: for no zone.
    pub fn for_zone(self, zone: &str) -> Self {
        Self { zone: zone.to_ascii_lowercase(), ..self }
    }

    /// The names it answers, at least one.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// End of its validity, seconds since the Unix epoch.
    pub fn expires_s(&self) -> u64 {
        self.expires_s
    }
}

/// Gives rustls the certificate for a name; what is published replaces what was there at once.
#[derive(Debug, Default)]
pub struct SniResolver {
    // Written by the admin runtime, read once per handshake by every worker.
    table: ArcSwap<Table>,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// By zone.
    zones: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl SniResolver {
    /// A resolver without any certificate: every handshake fails until something is published.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Replaces all certificates. Which answers what does not depend on their order: where two would, it is the one whose
    /// first name is the lesser.
    pub fn publish(&self, mut certificates: Vec<Certified>) {
        certificates.sort_by(|a, b| a.dns_names.cmp(&b.dns_names));
        // By zone, then by name; one without a zone only where none has one.
        let default = certificates.iter().min_by_key(|one| (one.zone.is_empty(), &one.zone)).map(|one| one.key.clone());
        let mut table = Table { default, ..Table::default() };
        for Certified { dns_names, zone, key, .. } in certificates {
            for name in dns_names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(suffix) => (&mut table.wildcard, suffix.to_owned()),
                    None => (&mut table.exact, name),
                };
                names.entry(name).or_insert_with(|| key.clone());
            }
            if !zone.is_empty() {
                table.zones.entry(zone).or_insert(key);
            }
        }
        self.table.store(Arc::new(table));
    }
}

impl Table {
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            // A wildcard stands for exactly one label (RFC 9525 §6.3).
            let wildcard = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard).or_else(|| self.of_zone(name))
        });
        named.or(self.default.as_ref()).cloned()
    }

    /// Of the longest zone that a name lies in, which may be the name itself.
    fn of_zone(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let mut rest = Some(name);
        while let Some(zone) = rest {
            if let Some(key) = self.zones.get(zone) {
                return Some(key);
            }
            rest = zone.split_once('.').map(|(_, above)| above);
        }
        None
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case without a trailing dot, and none for IP addresses.
        self.table.load().find(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::development::DevelopmentCa;

    fn certified(names: &[&str]) -> Certified {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let material = ca
            .issue(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), std::time::SystemTime::now())
            .expect("certificate");
        Certified::parse(&material.dns_names, &material.chain_der, &material.key_der).expect("usable")
    }

    #[test]
    fn exact_then_wildcard_then_the_zone_then_the_first_zone() {
        let all = [
            certified(&["aaa.example"]),
            certified(&["*.staging.example"]).for_zone("staging.example"),
            certified(&["hello.staging.example"]),
            certified(&["*.b.example"]).for_zone("b.example"),
            certified(&["z.deep.b.example"]).for_zone("deep.b.example"),
            certified(&["zz.b.example"]).for_zone("b.example"),
        ];
        let cases = [
            (Some("hello.staging.example"), 2),
            (Some("r1--hello.staging.example"), 1),
            (Some("a.b.staging.example"), 1),
            (Some("staging.example"), 1),
            (Some("x.b.example"), 3),
            (Some("x.y.b.example"), 3),
            (Some("deep.b.example"), 3),
            (Some("x.deep.b.example"), 4),
            (Some("x.y.deep.b.example"), 4),
            (Some("xb.example"), 3),
            (Some("example"), 3),
            (Some("unknown"), 3),
            (Some(""), 3),
            (Some("..."), 3),
            (None, 3),
            (Some("aaa.example"), 0),
        ];
        let resolver = SniResolver::new();
        for turn in 0..all.len() {
            // In whatever order they came.
            let mut published = all.to_vec();
            published.rotate_left(turn);
            resolver.publish(published);
            let table = resolver.table.load();
            for (name, expected) in cases {
                assert!(Arc::ptr_eq(&table.find(name).expect("always one"), &all[expected].key), "{turn} {name:?}");
            }
        }
        resolver.publish(all[..1].to_vec());
        assert!(Arc::ptr_eq(&resolver.table.load().find(None).expect("the only one"), &all[0].key));
        resolver.publish(Vec::new());
        assert!(resolver.table.load().find(Some("hello.staging.example")).is_none());
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let now = std::time::SystemTime::now();
        let (one, other) = (ca.issue(&["a".into()], now).expect("one"), ca.issue(&["b".into()], now).expect("other"));
        assert!(Certified::parse(&one.dns_names, &one.chain_der, &other.key_der).is_err());
        assert!(Certified::parse(&[], &one.chain_der, &one.key_der).is_err());
        assert!(Certified::parse(&one.dns_names, &one.chain_der, b"garbage").is_err());
    }
}
