//! The development CA: certificates for zones that have no public source yet.
//!
//! Must not know: who serves them. A client has to be told to trust the authority (`curl --cacert`).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::Host;
use rcgen::{DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::fleet::{leaf, make_authority};
pub use crate::material::Material;
use crate::{CertsError, keep};

const CA_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);
/// The longest lifetime that browsers accept is 398 days (CA/Browser Forum ballot SC31).
const LIFETIME: Duration = Duration::from_secs(397 * 86_400);
/// A kept certificate is issued anew, when somebody asks for it, once less than this is left of it.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// An authority for development, kept in a folder of its own.
pub struct DevelopmentCa {
    folder: PathBuf,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    key_pem: String,
    certificate_der: Vec<u8>,
}

impl DevelopmentCa {
    /// Opens the authority kept in `folder`, or makes it on first use. Keys' files have mode 0600.
    ///
    /// # Errors
    /// A folder that cannot be used, or a file that is not what was written there.
    pub fn open_or_create(folder: &Path) -> Result<Self, CertsError> {
        keep::folder(folder)?;
        let path = folder.join("development-ca.json");
        let kept = match keep::read::<Kept>(&path)? {
            Some(kept) => kept,
            None => {
                let (key_pem, certificate_der) =
                    make_authority("Pointsman development CA", SystemTime::now(), CA_LIFETIME)?;
                let kept = Kept { key_pem, certificate_der };
                keep::write(&path, &kept)?;
                kept
            }
        };
        Ok(Self { folder: folder.to_owned(), kept })
    }

    /// The authority's certificate, PEM: what clients have to trust.
    pub fn certificate_pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.kept.certificate_der.clone()))
    }

    /// The wildcard for a zone, `*.<zone>`, as it is to be served now.
    ///
    /// Kept, so that a restart changes nothing. Nothing is renewed by itself: in the last 30 days of a certificate this
    /// issues and keeps a new one, so whoever serves zones has to ask again, daily is often enough. Asking reads one file.
    ///
    /// # Errors
    /// A folder that cannot be used, or a kept file that is damaged.
    pub fn wildcard(&self, zone: &Host, now: SystemTime) -> Result<Material, CertsError> {
        let path = self.folder.join(format!("{zone}.json"));
        let least = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + RENEW_BEFORE;
        if let Some(kept) = keep::read::<Material>(&path)?.filter(|kept| kept.expires_s > least.as_secs()) {
            return Ok(kept);
        }
        self.renew(zone, now)
    }

    /// The same, issued and kept anew whatever is kept.
    ///
    /// # Errors
    /// A folder that cannot be used.
    pub fn renew(&self, zone: &Host, now: SystemTime) -> Result<Material, CertsError> {
        let material = self.issue(&[format!("*.{zone}")], now)?;
        keep::write(&self.folder.join(format!("{zone}.json")), &material)?;
        Ok(material)
    }

    pub(crate) fn issue(&self, dns_names: &[String], now: SystemTime) -> Result<Material, CertsError> {
        let issuer_key = KeyPair::from_pem(&self.kept.key_pem)?;
        let issuer = Issuer::from_ca_cert_der(&CertificateDer::from(self.kept.certificate_der.clone()), issuer_key)?;
        let key = KeyPair::generate()?;
        let mut params = leaf(now, LIFETIME, ExtendedKeyUsagePurpose::ServerAuth);
        params.distinguished_name.push(DnType::CommonName, "Pointsman development");
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        let certificate = params.signed_by(&key, &issuer)?;
        let expires = (now + LIFETIME).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Material {
            dns_names: dns_names.to_vec(),
            chain_der: vec![certificate.der().to_vec()],
            key_der: key.serialize_der(),
            expires_s: expires.as_secs(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_wildcard_is_kept_until_it_nears_its_end() {
        let folder = tempfile::tempdir().expect("folder");
        let zone: Host = "staging.example.com".parse().expect("zone");
        let now = SystemTime::now();
        let first = DevelopmentCa::open_or_create(folder.path()).expect("made").wildcard(&zone, now).expect("issued");
        assert_eq!(first.dns_names, ["*.staging.example.com"]);
        let again = DevelopmentCa::open_or_create(folder.path()).expect("opened");
        assert_eq!(again.wildcard(&zone, now).expect("kept"), first);
        let renewed = again.renew(&zone, now).expect("issued");
        assert!(renewed != first && again.wildcard(&zone, now).expect("kept") == renewed);
        let late = now + LIFETIME - RENEW_BEFORE + Duration::from_secs(2);
        assert_ne!(again.wildcard(&zone, late).expect("renewed"), first);
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        let folder = tempfile::tempdir().expect("folder");
        let inner = folder.path().join("ca");
        DevelopmentCa::open_or_create(&inner).expect("made");
        assert_eq!(inner.metadata().expect("folder").permissions().mode() & 0o777, 0o700);
        assert_eq!(inner.join("development-ca.json").metadata().expect("file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_authority_is_not_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("development-ca.json"), "{").expect("written");
        let Err(error) = DevelopmentCa::open_or_create(folder.path()) else { panic!("opened") };
        assert!(error.to_string().contains("development-ca.json"), "{error}");
    }
}
