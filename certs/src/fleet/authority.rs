//! The controller's side: its authority, and the TLS it serves with.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::{Digest, MemberName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};

use super::grace::lenient;
use super::{CONTROLLER_NAME, Role, Who, spiffe_id};
use crate::{CertsError, keep};

/// Ten years: a fleet outlives its certificates, and the authority is replaced on purpose, not by the calendar.
const CA_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);
/// A day: what was copied is worthless soon, and members renew by themselves.
const MEMBER_LIFETIME: Duration = Duration::from_secs(86_400);
/// A day and a half, renewed each half day: what is shown is good for a day at least.
const OWN_LIFETIME: Duration = Duration::from_secs(36 * 3_600);
/// After so long the controller's own certificate is made anew.
const OWN_RENEWED: Duration = Duration::from_secs(12 * 3_600);
/// Certificates count from a little before they were made, for members whose clocks are behind.
pub(super) const SKEW: Duration = Duration::from_secs(300);

/// The authority over one fleet: signs its members' certificates and the controller's own.
pub struct FleetCa {
    kept: Kept,
    certificate: CertificateDer<'static>,
    member_lifetime: Duration,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key_pem: String,
    certificate_der: Vec<u8>,
}

impl FleetCa {
    /// Opens the authority kept in `folder`, or makes it on first use. The key's file has mode 0600.
    ///
    /// # Errors
    /// A folder that cannot be used, or a file that is not what was written there.
    pub fn open_or_create(folder: &Path) -> Result<Self, CertsError> {
        keep::folder(folder)?;
        let path = folder.join("fleet-ca.json");
        let kept = match keep::read::<Kept>(&path)? {
            Some(kept) => kept,
            None => {
                let kept = make_authority("Pointsman fleet", SystemTime::now(), CA_LIFETIME)?;
                let kept = Kept { key_pem: kept.0, certificate_der: kept.1 };
                keep::write(&path, &kept)?;
                kept
            }
        };
        let certificate = CertificateDer::from(kept.certificate_der.clone());
        let authority = Self { kept, certificate, member_lifetime: MEMBER_LIFETIME };
        authority.issuer().map_err(|error| CertsError::Damaged { path, what: error.to_string() })?;
        Ok(authority)
    }

    /// With members' certificates of another lifetime than a day, for tests.
    #[must_use]
    pub fn with_member_lifetime(self, member_lifetime: Duration) -> Self {
        Self { member_lifetime, ..self }
    }

    /// How long members' certificates are good.
    pub fn member_lifetime(&self) -> Duration {
        self.member_lifetime
    }

    /// The authority's certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        certificate_pem(&self.certificate)
    }

    /// What join tokens carry: SHA-256 of the certificate.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// Signs a member's certificate from its request, DER. Only the public key is taken from the request.
    ///
    /// # Errors
    /// A request that is damaged or not signed by its own key.
    pub fn sign(&self, csr_der: &[u8], role: Role, name: &MemberName, now: SystemTime) -> Result<Vec<u8>, CertsError> {
        self.sign_client(csr_der, Who::Member(role), name, self.member_lifetime, now)
    }

    /// Signs the certificate that stands for an operator's token, DER. Only the public key is taken from the request.
    ///
    /// # Errors
    /// As [`FleetCa::sign`].
    pub fn sign_operator(
        &self,
        csr_der: &[u8],
        name: &MemberName,
        valid: Duration,
        now: SystemTime,
    ) -> Result<Vec<u8>, CertsError> {
        self.sign_client(csr_der, Who::Operator, name, valid, now)
    }

    fn sign_client(
        &self,
        csr_der: &[u8],
        who: Who,
        name: &MemberName,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<u8>, CertsError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der.to_vec()))?;
        let mut params = leaf(now, lifetime, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        params.subject_alt_names.push(SanType::URI(spiffe_id(who, name).try_into()?));
        Ok(params.signed_by(&request.public_key, &self.issuer()?)?.der().to_vec())
    }

    /// How the controller serves: HTTP/2, or HTTP/1.1 for who speaks no other; client certificates verified when there is
    /// one, no resumption.
    ///
    /// A fresh key and certificate are made each time, good for 36 hours from now; members verify them by the
    /// authority. `hosts` are names under which others (a browser, say) reach the controller.
    ///
    /// Clients' certificates pass for a while after their end: see [`super::GRACE`].
    ///
    /// INVARIANT: no tickets and no session store, so that resumption never revives a revoked certificate.
    ///
    /// # Errors
    /// Hosts that no certificate can name.
    pub fn server_config(&self, hosts: &[String]) -> Result<Arc<rustls::ServerConfig>, CertsError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(SystemTime::now(), OWN_LIFETIME, ExtendedKeyUsagePurpose::ServerAuth);
        params.distinguished_name.push(DnType::CommonName, CONTROLLER_NAME);
        params.subject_alt_names.push(SanType::DnsName(CONTROLLER_NAME.try_into()?));
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        let certificate = params.signed_by(&key, &self.issuer()?)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&self.certificate)?))
            .allow_unauthenticated()
            .build()
            .map_err(|error| CertsError::Material(error.to_string()))?;
        let verifier = lenient(verifier);
        // The authority goes along: a joiner knows only its fingerprint.
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CertsError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, KeyPair::from_pem(&self.kept.key_pem)?)?)
    }
}

#[cfg(test)]
impl FleetCa {
    /// Signs whatever a test wants.
    pub(super) fn sign_own(&self, params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().expect("key");
        params.clone().signed_by(&key, &self.issuer().expect("issuer")).expect("signed").der().to_vec()
    }
}

/// A certificate (DER) as PEM.
pub fn certificate_pem(certificate_der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate_der))
}

/// Whether the controller's own certificate, made at `made`, has to be made anew: it is half a day old, or of a time to
/// come, because a clock was set back.
pub fn server_config_is_old(made: SystemTime, now: SystemTime) -> bool {
    now.duration_since(made).map_or_else(|back| back.duration() > SKEW, |age| age >= OWN_RENEWED)
}

/// Makes a self-signed authority: its key (PEM) and certificate (DER).
pub(crate) fn make_authority(name: &str, now: SystemTime, lifetime: Duration) -> Result<(String, Vec<u8>), CertsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?;
    Ok((key.serialize_pem(), certificate.der().to_vec()))
}

/// What every end certificate of ours has in common.
pub(crate) fn leaf(now: SystemTime, lifetime: Duration, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Of a short life no more than a part lies in the past.
    params.not_before = (now - SKEW.min(lifetime / 8)).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

/// A store that trusts exactly one authority.
pub(crate) fn roots(ca: &CertificateDer<'_>) -> Result<RootCertStore, CertsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    Ok(roots)
}
