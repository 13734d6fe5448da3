//! Which certificate answers which name: exact, then wildcard, then the default.
//!
//! Must not know: where certificates come from (files, a development CA, ACME) or which names are hidden: an unknown
//! name gets the default and a handshake like any other.
//!
//! Main types: [`Certified`], a certificate that was checked, and [`SniResolver`], which rustls asks.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::CertsError;

/// A certificate with its key and the names it answers; the key belongs to the certificate.
#[derive(Debug, Clone)]
pub struct Certified {
    dns_names: Vec<String>,
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
        Ok(Self { dns_names, key: Arc::new(key) })
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
    default: Option<Arc<CertifiedKey>>,
}

impl SniResolver {
    /// A resolver without any certificate: every handshake fails until something is published.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Replaces all certificates. The first is the default, for names that none answers and for no name at all.
    pub fn publish(&self, certificates: Vec<Certified>) {
        let mut table = Table { default: certificates.first().map(|first| first.key.clone()), ..Table::default() };
        for certificate in certificates {
            for name in certificate.dns_names {
                match name.strip_prefix("*.") {
                    Some(suffix) => table.wildcard.insert(suffix.to_owned(), certificate.key.clone()),
                    None => table.exact.insert(name, certificate.key.clone()),
                };
            }
        }
        self.table.store(Arc::new(table));
    }
}

impl Table {
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = name.and_then(|name| {
            // A wildcard stands for exactly one label (RFC 9525 §6.3).
            self.exact.get(name).or_else(|| self.wildcard.get(name.split_once('.')?.1))
        });
        named.or(self.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives the name in lower case without a trailing dot, and none for IP addresses.
        self.table.load().find(hello.server_name())
    }
}

/// How proxies serve the public: TLS 1.2 and 1.3, ALPN `h2`, `http/1.1`, `http/1.0`, no client certificates, no resumption.
pub fn public_server_config(resolver: Arc<SniResolver>) -> Arc<rustls::ServerConfig> {
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
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
    fn exact_then_wildcard_then_default() {
        let resolver = SniResolver::new();
        let all =
            [certified(&["default.example"]), certified(&["*.staging.example"]), certified(&["hello.staging.example"])];
        resolver.publish(all.to_vec());
        let table = resolver.table.load();
        for (name, expected) in [
            (Some("hello.staging.example"), 2),
            (Some("r1--hello.staging.example"), 1),
            (Some("a.b.staging.example"), 0),
            (Some("staging.example"), 0),
            (Some("unknown"), 0),
            (None, 0),
        ] {
            assert!(Arc::ptr_eq(&table.find(name).expect("always one"), &all[expected].key), "{name:?}");
        }
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
