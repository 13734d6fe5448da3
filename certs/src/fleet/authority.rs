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

use super::{CONTROLLER_NAME, Role, spiffe_id};
use crate::{CertsError, keep};

/// Ten years: a fleet outlives its certificates, and the authority is replaced on purpose, not by the calendar.
const CA_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);
/// A year: members do not renew by themselves yet.
const MEMBER_LIFETIME: Duration = Duration::from_secs(365 * 86_400);
/// Certificates count from a little before they were made, for members whose clocks are behind.
const SKEW: Duration = Duration::from_secs(300);

/// The authority over one fleet: signs its members' certificates and the controller's own.
pub struct FleetCa {
    kept: Kept,
    certificate: CertificateDer<'static>,
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
        let authority = Self { kept, certificate };
        authority.issuer().map_err(|error| CertsError::Damaged { path, what: error.to_string() })?;
        Ok(authority)
    }

    /// The authority's certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.certificate.to_vec()))
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
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der.to_vec()))?;
        let mut params = leaf(now, MEMBER_LIFETIME, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::CommonName, name.to_string());
        params.subject_alt_names.push(SanType::URI(spiffe_id(role, name).try_into()?));
        Ok(params.signed_by(&request.public_key, &self.issuer()?)?.der().to_vec())
    }

    /// How the controller serves: HTTP/2 only, client certificates verified when there is one, no resumption.
    ///
    /// A fresh key and certificate are made for each start; members verify them by the authority. `hosts` are names
    /// under which others (a browser, say) reach the controller.
    ///
    /// INVARIANT: no tickets and no session store, so that resumption never revives a revoked certificate.
    ///
    /// # Errors
    /// Hosts that no certificate can name.
    pub fn server_config(&self, hosts: &[String]) -> Result<Arc<rustls::ServerConfig>, CertsError> {
        let key = KeyPair::generate()?;
        let mut params = leaf(SystemTime::now(), MEMBER_LIFETIME, ExtendedKeyUsagePurpose::ServerAuth);
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
        // The authority goes along: a joiner knows only its fingerprint.
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CertsError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, KeyPair::from_pem(&self.kept.key_pem)?)?)
    }
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
    params.not_before = (now - SKEW).into();
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
