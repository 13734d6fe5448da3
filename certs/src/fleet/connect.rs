//! Connections to the controller: TLS with our own configuration under a gRPC channel.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::CONTROLLER_NAME;
use super::authority::roots;
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
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|error| {
        CertsError::Material(format!("the controller's authority is not a PEM certificate: {error}"))
    })?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots(&ca)?).with_no_client_auth();
    channel(controller, config)
}

/// A lazy channel to `controller` (`host:port`) over TLS as configured.
pub(super) fn channel(controller: &str, mut config: rustls::ClientConfig) -> Result<Channel, CertsError> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let tls = TlsConnector::from(Arc::new(config));
    // `http`, because tonic insists on its own TLS for `https`; ours lies in the connector.
    let endpoint = Endpoint::from_shared(format!("http://{controller}"))
        .map_err(|_| {
            CertsError::Material(format!("{controller:?} is not the address of a controller: accepted is HOST:PORT"))
        })?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let address: Arc<str> = controller.into();
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(&*address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(CONTROLLER_NAME).expect("the constant is a DNS name");
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    })))
}

/// The innermost cause of a failed call: "Connection refused", not "transport error".
pub(super) fn root_cause(status: &tonic::Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
