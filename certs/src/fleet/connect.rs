//! Connections to the controller: TLS with our own configuration under a gRPC channel.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::CONTROLLER_NAME;
use super::identity::Shown;
use super::trust::Trust;
use crate::CertsError;

/// Half a round trip to the other side of the world is 150 ms; three seconds allow for two lost packets.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A dead connection is noticed within ten seconds, well before anything waits for it in vain.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A channel for an operator: trusts exactly the authority in `ca_pem`, shows no certificate.
///
/// Lazy: connects when first used, and again after the connection broke.
///
/// # Errors
/// An address that is not `host:port`, or a PEM text without a certificate.
pub fn operator_channel(controller: &str, ca_pem: &str) -> Result<Channel, CertsError> {
    channel(controller, Trust::authority(&authority_of(ca_pem)?)?, None)
}

/// The certificate of the authority in an operator's file.
pub(super) fn authority_of(ca_pem: &str) -> Result<CertificateDer<'static>, CertsError> {
    CertificateDer::from_pem_slice(ca_pem.as_bytes())
        .map_err(|error| CertsError::Material(format!("the controller's authority is not a PEM certificate: {error}")))
}

/// A lazy channel to `controller` (`host:port`), which has to be whom `trust` knows. `shown` is asked for the certificate
/// at each connection, and told of it.
pub(super) fn channel(controller: &str, trust: Trust, shown: Option<Arc<Shown>>) -> Result<Channel, CertsError> {
    let trust = Arc::new(trust);
    let builder = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(trust.clone());
    let mut config = match &shown {
        Some(shown) => builder.with_client_cert_resolver(shown.clone()),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let dial = Dial { controller: controller.into(), tls: TlsConnector::from(Arc::new(config)), trust, shown };
    // `http`, because tonic insists on its own TLS for `https`; ours lies in the connector.
    let endpoint = Endpoint::from_shared(format!("http://{controller}"))
        .map_err(|_| {
            CertsError::Material(format!("{controller:?} is not the address of a controller: accepted is HOST:PORT"))
        })?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let dial = dial.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(dial.connect().await?)) }
    })))
}

/// What one connection needs.
#[derive(Clone)]
struct Dial {
    controller: Arc<str>,
    tls: TlsConnector,
    trust: Arc<Trust>,
    shown: Option<Arc<Shown>>,
}

impl Dial {
    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&*self.controller).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(CONTROLLER_NAME).expect("the constant is a DNS name");
        let stream = self.tls.connect(name, tcp).await.map_err(|problem| match self.trust.wrong_clock() {
            // The alert is on its way to the controller already.
            Some(wrong) => io::Error::new(io::ErrorKind::InvalidData, wrong),
            None => problem,
        })?;
        if let Some(shown) = &self.shown {
            shown.was_shown(SystemTime::now());
        }
        Ok(stream)
    }
}

/// The innermost cause of a failed call: "Connection refused", not "transport error".
pub(super) fn root_cause(status: &tonic::Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
