//! A member's side: its own key, how it joins, how it connects.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::fleet::JoinRequest;
use api::fleet::joining_client::JoiningClient;
use api::{JoinToken, MemberName};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tonic::transport::Channel;

use super::connect::channel;
use super::trust::Trust;
use super::validity::Validity;
use super::{Role, Who, peer};
use crate::{CertsError, keep};

/// How long joining may take: connecting has 3 s of its own, and a controller that is busy with a disk still answers.
const DEADLINE: Duration = Duration::from_secs(20);

/// Who a proxy or agent is: its name, key and certificate, and the authority it trusts. Kept in one file, mode 0600.
///
/// Key and certificate are renewed while it is used: see [`Identity::keep_renewed`].
pub struct Identity {
    folder: PathBuf,
    name: MemberName,
    role: Role,
    controller: String,
    ca: CertificateDer<'static>,
    shown: Arc<Shown>,
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

/// The certificate that new connections show. Written by a renewal, read by each handshake.
#[derive(Debug)]
pub(super) struct Shown {
    current: ArcSwap<Current>,
    /// Told when the controller may not take the certificate any more.
    pub(super) refused: Notify,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Current {
    certified: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

// === impl Shown ===

impl Shown {
    pub(super) fn new(current: Current) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(current), refused: Notify::new() })
    }

    pub(super) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// A connection was made with it: past its end, all that it opens is a renewal.
    pub(super) fn was_shown(&self, now: SystemTime) {
        if self.current.load().validity.until < now {
            self.refused.notify_one();
        }
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

// === impl Current ===

impl Current {
    /// # Errors
    /// A certificate or key that is none, or two that do not belong together.
    pub(super) fn new(certificate_der: &[u8], key_pem: &str) -> Result<Self, CertsError> {
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| CertsError::Material(format!("the kept key is not usable: {error}")))?;
        let chain = vec![CertificateDer::from(certificate_der.to_vec())];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = Arc::new(CertifiedKey::from_der(chain, key, &provider)?);
        let validity = Validity::of(certificate_der)
            .ok_or_else(|| CertsError::Material("the kept certificate does not say until when it is good".into()))?;
        Ok(Self { certified, validity })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }
}

// === impl Identity ===

impl Identity {
    /// Loads what [`join`] kept under `<folder>/identity`; `None` when this machine never joined.
    ///
    /// # Errors
    /// A file that cannot be read or is not what was written there.
    pub fn load(folder: &Path) -> Result<Option<Self>, CertsError> {
        keep::read(&file(folder))?.map(|kept| Self::new(folder, kept)).transpose()
    }

    fn new(folder: &Path, kept: Kept) -> Result<Self, CertsError> {
        let damaged = |what: String| CertsError::Damaged { path: file(folder), what };
        let name = kept.name.parse().map_err(|problem: api::NotAccepted| damaged(problem.to_string()))?;
        let current =
            Current::new(&kept.certificate_der, &kept.key_pem).map_err(|problem| damaged(problem.to_string()))?;
        Ok(Self {
            folder: folder.to_owned(),
            name,
            role: kept.role,
            controller: kept.controller,
            ca: CertificateDer::from(kept.ca_der),
            shown: Shown::new(current),
        })
    }

    /// The registered name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Proxy or agent.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Host and port of the controller.
    pub fn controller(&self) -> &str {
        &self.controller
    }

    /// A connection to the controller with mutual TLS, made when it is first used and again after it broke, each time
    /// with the newest certificate. The controller takes no more calls on a connection after a while, so that a new
    /// certificate soon counts for all of them.
    ///
    /// # Errors
    /// Kept material that is not usable.
    pub fn channel(&self) -> Result<Channel, CertsError> {
        channel(&self.controller, Trust::authority(&self.ca)?, Some(self.shown.clone()))
    }

    /// The controller did not take the certificate: it is renewed at once, if that can help.
    pub fn was_refused(&self) {
        self.shown.refused.notify_one();
    }

    pub(super) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// What has to be done, by hand, once the certificate cannot be renewed any more.
    pub(super) fn way_back(&self) -> String {
        let Self { name, role, .. } = self;
        format!(
            "`pointsman fleet revoke {name}` and `pointsman join {role} --name {name}` on the controller's side, then              remove {} and start with the new token",
            self.folder.join("identity").display()
        )
    }

    /// Takes over a new certificate: on disk first, then for all connections from now on.
    pub(super) fn renewed(&self, certificate_der: Vec<u8>, key_pem: String) -> Result<(), CertsError> {
        let named = peer(&[CertificateDer::from(certificate_der.as_slice())]);
        if named.is_none_or(|named| named.who != Who::Member(self.role) || named.name != self.name) {
            return Err(CertsError::Material("the controller answered with a certificate of somebody else".into()));
        }
        let current = Current::new(&certificate_der, &key_pem)?;
        let kept = Kept {
            name: self.name.to_string(),
            role: self.role,
            controller: self.controller.clone(),
            certificate_der,
            ca_der: self.ca.to_vec(),
            key_pem,
        };
        keep::write(&file(&self.folder), &kept)?;
        self.shown.current.store(Arc::new(current));
        Ok(())
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("identity/identity.json")
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
    let message =
        JoinRequest { secret: token.secret.clone(), csr_der: request.der().to_vec(), software: software.to_owned() };
    let mut client = JoiningClient::new(channel(&token.controller, Trust::fingerprint(token.ca), None)?);
    let reply = tokio::time::timeout(deadline, client.join(message))
        .await
        .map_err(|_| CertsError::Join(late_sentence(token, deadline)))?
        .map_err(|status| CertsError::Join(join_sentence(token, &status)))?
        .into_inner();
    let mismatch = || {
        CertsError::Join("the controller's answer does not name what it certified; join again with a new token".into())
    };
    let named = peer(&[CertificateDer::from(reply.certificate_der.clone())]).ok_or_else(mismatch)?;
    let Who::Member(role) = named.who else { return Err(mismatch()) };
    if named.name.as_str() != reply.name || api::Digest::of(&reply.ca_der) != token.ca {
        return Err(mismatch());
    }
    let kept = Kept {
        name: reply.name,
        role,
        controller: token.controller.clone(),
        certificate_der: reply.certificate_der,
        ca_der: reply.ca_der,
        key_pem: key.serialize_pem(),
    };
    keep::write(&file(folder), &kept)?;
    Identity::new(folder, kept)
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
