//! How proxies shake hands with the public: TLS 1.2 and 1.3, ALPN `h2`, `http/1.1`, `http/1.0`.
//!
//! Must not know: which names exist, or who may show what: it makes the ways to shake hands, and others choose.
//!
//! Main types: [`Public`]; [`proof`], what a certificate authority is shown.

use std::sync::Arc;

use api::Host;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ProtocolVersion, ServerConfig};

use crate::CertsError;
use crate::acme::challenge_certificate;
use crate::resolver::SniResolver;
use crate::tickets::Tickets;

/// Tickets that a client gets with a handshake of TLS 1.3; it should use each once (RFC 8446 §C.4), and often opens more
/// than one connection.
const TICKETS: usize = 2;

/// What all handshakes of a proxy share. Certificates and the keys of tickets are swapped underneath.
#[derive(Debug)]
pub struct Public {
    resolver: Arc<SniResolver>,
    tickets: Arc<Tickets>,
    common: Arc<ServerConfig>,
}

impl Public {
    /// Without any certificate every handshake fails, and without keys there are no tickets.
    pub fn new() -> Arc<Self> {
        let (resolver, tickets) = (SniResolver::new(), Arc::<Tickets>::default());
        let verifier = rustls::server::WebPkiClientVerifier::no_client_auth();
        let mut common = Self::config(&resolver, verifier);
        common.ticketer = tickets.clone();
        common.send_tls13_tickets = TICKETS;
        Arc::new(Self { common: Arc::new(common), resolver, tickets })
    }

    /// Which certificate answers which name.
    pub fn resolver(&self) -> &SniResolver {
        &self.resolver
    }

    /// The keys of tickets.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// For everybody: no client certificates, and sessions are resumed.
    pub fn common(&self) -> &Arc<ServerConfig> {
        &self.common
    }

    /// Asks for what `verifier` wants to see.
    ///
    /// INVARIANT: there are no tickets, so that nobody comes back by one whose certificate was revoked meanwhile.
    pub fn asking(&self, verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        Arc::new(Self::config(&self.resolver, verifier))
    }

    fn config(resolver: &Arc<SniResolver>, verifier: Arc<dyn ClientCertVerifier>) -> ServerConfig {
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .expect("there are suites for both versions")
            .with_client_cert_verifier(verifier);
        let mut config = config.with_cert_resolver(resolver.clone());
        config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).to_vec();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.ignore_client_order = true;
        // Early data could be played again: it stays at none, whatever the library's default becomes.
        config.max_early_data_size = 0;
        config
    }
}

/// Suites in the order of what they cost: all are good, and AES with 128 bits is the cheapest where it is built in.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite();
        let cost = match name.as_str() {
            Some(name) if name.contains("AES_128") => 0,
            Some(name) if name.contains("AES_256") => 1,
            _ => 2,
        };
        (suite.version().version == ProtocolVersion::TLSv1_2, cost)
    });
    provider
}

/// The one protocol of a handshake that shows that a host is ours.
pub use crate::acme::PROTOCOL as PROOF_PROTOCOL;

/// The way to shake hands that shows a certificate authority that `host` is ours: with a certificate that the key
/// authorization makes (RFC 8737 §3), and for no other protocol.
///
/// # Errors
/// A host that is none.
pub fn proof(host: &str, key_authorization: &str) -> Result<Arc<ServerConfig>, CertsError> {
    let host = host.parse::<Host>().map_err(|error| CertsError::Material(error.to_string()))?;
    let key = CertifiedKey::clone(&*challenge_certificate(&host, key_authorization)?);
    let resolver = SingleCertAndKey::from(key);
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![PROOF_PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_ordered_by_what_they_cost() {
        crate::install_provider();
        let public = Public::new();
        let config = public.common();
        assert!(config.ignore_client_order);
        let names: Vec<&str> =
            config.crypto_provider().cipher_suites.iter().filter_map(|suite| suite.suite().as_str()).collect();
        assert_eq!(
            names,
            [
                "TLS13_AES_128_GCM_SHA256",
                "TLS13_AES_256_GCM_SHA384",
                "TLS13_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            ]
        );
    }
}
