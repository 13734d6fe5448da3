//! A member's side: its own key, how it joins, how it connects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::JoinToken;
use api::fleet::JoinRequest;
use api::fleet::joining_client::JoiningClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

use super::authority::roots;
use super::connect::channel;
use super::{Role, peer};
use crate::{CertsError, keep};

/// How long joining may take: connecting has 3 s of its own, and a controller that is busy with a disk still answers.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who a proxy or agent is: its name, key and certificate, and the authority it trusts. Kept in one file, mode 0600.
pub struct Identity {
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    role: Role,
    controller: String,
    certificate_der: Vec<u8>,
    ca_der: Vec<u8>,
    /// PKCS #8, PEM. Made on this machine and never sent.
    key_pem: String,
}

impl Identity {
    /// Loads what [`join`] kept under `<folder>/identity`; `None` when this machine never joined.
    ///
    /// # Errors
    /// A file that cannot be read or is not what was written there.
    pub fn load(folder: &Path) -> Result<Option<Self>, CertsError> {
        Ok(keep::read(&folder.join("identity/identity.json"))?.map(|kept| Self { kept }))
    }

    /// The registered name.
    pub fn name(&self) -> &str {
        &self.kept.name
    }

    /// Proxy or agent.
    pub fn role(&self) -> Role {
        self.kept.role
    }

    /// Host and port of the controller.
    pub fn controller(&self) -> &str {
        &self.kept.controller
    }

    /// A connection to the controller with mutual TLS, made when it is first used and again after it broke.
    ///
    /// # Errors
    /// Kept material that is not usable.
    pub fn channel(&self) -> Result<tonic::transport::Channel, CertsError> {
        let ca = CertificateDer::from(self.kept.ca_der.clone());
        let key = PrivateKeyDer::from_pem_slice(self.kept.key_pem.as_bytes())
            .map_err(|error| CertsError::Material(format!("the kept key is not usable: {error}")))?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots(&ca)?)
            .with_client_auth_cert(vec![CertificateDer::from(self.kept.certificate_der.clone())], key)?;
        channel(&self.kept.controller, config)
    }
}

/// Joins the fleet: makes a key, has it certified with the one-time token, and keeps both under `<folder>/identity`.
///
/// # Errors
/// A controller that does not answer within 20 s or is not the one the token names; a token that expired, was used or
/// revoked.
///
/// # Cancel safety
/// Dropped after the controller answered, the token is used and nothing is kept: a new token is needed.
pub async fn join(token: &JoinToken, folder: &Path, software: &str) -> Result<Identity, CertsError> {
    join_within(DEADLINE, token, folder, software).await
}

pub(super) async fn join_within(
    deadline: Duration,
    token: &JoinToken,
    folder: &Path,
    software: &str,
) -> Result<Identity, CertsError> {
    // Before the token is used: a folder that cannot be written would waste it.
    keep::folder(&folder.join("identity"))?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?;
    let verifier = Arc::new(PinnedAuthority { fingerprint: token.ca });
    let config =
        rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let message =
        JoinRequest { secret: token.secret.clone(), csr_der: request.der().to_vec(), software: software.to_owned() };
    let mut client = JoiningClient::new(channel(&token.controller, config)?);
    let reply = tokio::time::timeout(deadline, client.join(message))
        .await
        .map_err(|_| CertsError::Join(late_sentence(token, deadline)))?
        .map_err(|status| CertsError::Join(join_sentence(token, &status)))?
        .into_inner();
    let mismatch = || {
        CertsError::Join("the controller's answer does not name what it certified; join again with a new token".into())
    };
    let named = peer(&[CertificateDer::from(reply.certificate_der.clone())]).ok_or_else(mismatch)?;
    if named.name.as_str() != reply.name || api::Digest::of(&reply.ca_der) != token.ca {
        return Err(mismatch());
    }
    let kept = Kept {
        name: reply.name,
        role: named.role,
        controller: token.controller.clone(),
        certificate_der: reply.certificate_der,
        ca_der: reply.ca_der,
        key_pem: key.serialize_pem(),
    };
    keep::write(&folder.join("identity/identity.json"), &kept)?;
    Ok(Identity { kept })
}

fn late_sentence(token: &JoinToken, deadline: Duration) -> String {
    format!(
        "the controller at {} did not answer within {deadline:?}; if it says that this token was used, join again with a \
         new one",
        token.controller
    )
}

fn join_sentence(token: &JoinToken, status: &tonic::Status) -> String {
    if status.code() == tonic::Code::Unavailable {
        let cause = super::connect::root_cause(status);
        return format!("the controller at {} cannot be joined: {cause}", token.controller);
    }
    format!("the controller at {} refused to join: {}", token.controller, status.message())
}

/// Trusts whoever has a certificate from the one authority whose fingerprint the join token carries.
#[derive(Debug)]
struct PinnedAuthority {
    fingerprint: api::Digest,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|certificate| api::Digest::of(certificate) == self.fingerprint);
        let authority = authority.ok_or_else(|| {
            rustls::Error::General("it is not the controller that made this token (another authority)".into())
        })?;
        let roots = roots(authority).map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        algorithms().supported_schemes()
    }
}

fn algorithms() -> rustls::crypto::WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}
