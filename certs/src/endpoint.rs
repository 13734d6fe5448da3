//! TLS to endpoints: whom an endpoint must be, who says so, and the handshake that finds out.
//!
//! Must not know: what is sent afterwards, which endpoint is chosen, or what becomes of one that failed. There is no way
//! to connect without verification.
//!
//! Main types: [`Authorities`], who is believed; [`Connector`], everything a handshake needs.

mod workload;

use std::sync::Arc;

use api::fleet::EndpointTls;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;

pub use workload::spiffe_id;

use crate::CertsError;
use workload::Workload;

/// Authorities whose word counts for an endpoint's certificate. By default none: every handshake fails.
#[derive(Debug, Clone)]
pub struct Authorities(Arc<RootCertStore>);

impl Default for Authorities {
    fn default() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }
}

impl Authorities {
    /// Those that this machine trusts: the files named by `SSL_CERT_FILE` and `SSL_CERT_DIR`, or where its system keeps
    /// them. Reads files; meant for a start.
    ///
    /// What cannot be used is left out and logged: a machine without any is common, and most services need none.
    pub fn of_machine() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::debug!(%error, "authorities of this machine");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(added, ignored, "authorities of this machine");
        Self(Arc::new(roots))
    }

    /// These, and those beside them.
    pub fn and(&self, others: &Self) -> Self {
        let mut roots = RootCertStore::clone(&self.0);
        roots.roots.extend(others.0.roots.iter().cloned());
        Self(Arc::new(roots))
    }

    /// Those of a PEM text.
    ///
    /// # Errors
    /// Text without a certificate, with anything else between BEGIN and END, or with a certificate that cannot be read.
    pub fn parse(text: &str) -> Result<Self, CertsError> {
        let wrong = |what: String| CertsError::Material(what);
        let blocks = pem::parse_many(text).map_err(|error| wrong(format!("it is not PEM: {error}")))?;
        // The library passes over a block whose end it does not find.
        if blocks.len() != text.matches("-----BEGIN ").count() {
            return Err(wrong("it is not PEM: a block in it is not whole".into()));
        }
        if blocks.is_empty() {
            return Err(wrong("there is no certificate in it".into()));
        }
        let mut roots = RootCertStore::empty();
        for (place, block) in blocks.iter().enumerate() {
            if block.tag() != "CERTIFICATE" {
                return Err(wrong(format!("it holds a {}, and certificates only are accepted", block.tag())));
            }
            roots
                .add(CertificateDer::from(block.contents()))
                .map_err(|error| wrong(format!("its certificate {} cannot be read: {error}", place + 1)))?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// What an endpoint has to choose by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Application {
    /// HTTP/1.1; choosing nothing means it as well (RFC 7301 §3.1: what a server without ALPN speaks).
    Http1,
    /// HTTP/2; nothing else will do (RFC 9113 §3.2).
    Http2,
}

impl Application {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Makes verified connections to the endpoints of one name: TLS 1.2 or 1.3, one application protocol.
#[derive(Debug, Clone)]
pub struct Connector {
    name: ServerName<'static>,
    application: Application,
    config: Arc<rustls::ClientConfig>,
}

impl Connector {
    /// A connector that remembers no session: every handshake verifies the certificate.
    ///
    /// `name`: what [`server_name`] accepts.
    ///
    /// # Errors
    /// A name that is neither a DNS name nor an IP address.
    pub fn new(authorities: &Authorities, name: &str, application: Application) -> Result<Self, CertsError> {
        let name = server_name(name)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(authorities.0.clone());
        Ok(Self::with(name, application, config.with_no_client_auth()))
    }

    /// One for endpoints that are named by a SPIFFE id: their certificate has this URI and no other, and its DNS names do
    /// not count. `name` is only sent.
    ///
    /// # Errors
    /// As [`Connector::new`], and what is no SPIFFE id.
    pub fn of_workload(
        authorities: &Authorities,
        name: &str,
        id: &str,
        application: Application,
    ) -> Result<Self, CertsError> {
        let name = server_name(name)?;
        let verifier = Arc::new(Workload::new(authorities.0.clone(), id)?);
        // The library calls everything but its own verifier dangerous.
        let config = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier);
        Ok(Self::with(name, application, config.with_no_client_auth()))
    }

    fn with(name: ServerName<'static>, application: Application, mut config: rustls::ClientConfig) -> Self {
        config.alpn_protocols = vec![application.name().to_vec()];
        config.resumption = Resumption::disabled();
        Self { name, application, config: Arc::new(config) }
    }

    /// One as the contract says it. `machine`: who is believed where it names nobody.
    ///
    /// # Errors
    /// As [`Connector::new`], [`Connector::of_workload`] and [`Authorities::parse`].
    pub fn of(asked: &EndpointTls, machine: &Authorities, application: Application) -> Result<Self, CertsError> {
        let parsed;
        let authorities = match asked.ca_pem.as_str() {
            "" => machine,
            text => {
                parsed = Authorities::parse(text)?;
                &parsed
            }
        };
        match asked.spiffe_id.as_str() {
            "" => Self::new(authorities, &asked.server_name, application),
            id => Self::of_workload(authorities, &asked.server_name, id, application),
        }
    }

    /// The same with a memory of sessions of its own, so that a further handshake costs no certificate and no signature.
    ///
    /// Meant for one address and one thread: a ticket counts where it came from, and the memory is behind a lock. An
    /// endpoint that comes back by a ticket was verified when it gave the first; its certificate is not looked at again,
    /// so the memory should not be kept for ever.
    pub fn with_sessions(&self) -> Self {
        let mut config = rustls::ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(1);
        Self { config: Arc::new(config), ..self.clone() }
    }

    /// Whether both resume each other's sessions: the same connector, or clones of it.
    pub fn shares_sessions_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    /// The verified name as the authority of a URL.
    pub fn authority(&self) -> String {
        match &self.name {
            ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_)) => format!("[{}]", self.name.to_str()),
            name => name.to_str().into_owned(),
        }
    }

    /// Shakes hands. Its deadline is the caller's.
    ///
    /// # Errors
    /// In words: what the endpoint, its certificate or its choice of protocol lacks.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection; nothing but a handshake was sent.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Result<TlsStream<S>, String> {
        let connector = tokio_rustls::TlsConnector::from(self.config.clone());
        let shaken = connector.connect(self.name.clone(), stream).await;
        let stream = shaken.map_err(|error| format!("the TLS handshake failed: {error}"))?;
        // The library has refused what was not offered.
        match (self.application, stream.get_ref().1.alpn_protocol()) {
            (Application::Http2, None) => {
                Err("the TLS handshake failed: it chose no protocol by ALPN, and \"h2\" has to be chosen".into())
            }
            _ => Ok(stream),
        }
    }
}

/// A name that can be verified and sent.
///
/// # Errors
/// Anything but a DNS name or an IP address.
pub fn server_name(name: &str) -> Result<ServerName<'static>, CertsError> {
    match ServerName::try_from(name.to_owned()) {
        // It would be sent without its dot, and compared without it.
        Ok(parsed) if !name.ends_with('.') => Ok(parsed),
        _ => Err(CertsError::Material(format!("{:?} is neither a DNS name nor an IP address", shown(name)))),
    }
}

/// Cut for a message: a name has at most 253 characters.
fn shown(name: &str) -> String {
    name.chars().take(253).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::development::DevelopmentCa;

    #[test]
    fn names_are_dns_names_or_addresses() {
        for (name, authority) in [
            ("hello.internal", Some("hello.internal")),
            ("localhost", Some("localhost")),
            ("my_service", Some("my_service")),
            ("10.0.0.7", Some("10.0.0.7")),
            ("2001:db8::7", Some("[2001:db8::7]")),
            ("", None),
            ("*.internal", None),
            ("hello.internal.", None),
            ("hello internal", None),
            ("hello.internal:443", None),
            ("https://hello.internal", None),
            ("[2001:db8::7]", None),
            ("10.0.0.7:443", None),
        ] {
            crate::install_provider();
            let made = Connector::new(&Authorities::default(), name, Application::Http1);
            assert_eq!(made.ok().map(|made| made.authority()).as_deref(), authority, "{name:?}");
        }
    }

    #[test]
    fn authorities_are_certificates_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let certificate = DevelopmentCa::open_or_create(folder.path()).expect("authority").certificate_pem();
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        for (text, expected) in [
            (certificate.clone(), Ok(1)),
            (format!("# ours\n{certificate}\n# and again\n{certificate}"), Ok(2)),
            (String::new(), Err("no certificate")),
            ("ca.pem".into(), Err("no certificate")),
            (format!("{certificate}{key}"), Err("PRIVATE KEY")),
            (certificate.replace("END", "ENDE"), Err("it is not PEM")),
            (certificate.replace("END", "ENDE") + &certificate, Err("it is not PEM")),
            (certificate.replacen("MII", "AII", 1), Err("certificate 1 cannot be read")),
        ] {
            match (Authorities::parse(&text), expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.0.len(), count, "{text}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
