//! Secrets on their way from the controller to one proxy: sealed for the key that the proxy made, and kept there as they
//! came.
//!
//! Must not know: what a secret is for, or how it travels.
//!
//! Hybrid public key encryption, RFC 9180, base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Who sent it is
//! known by the connection that it came over.
//!
//! Main types: [`SealKey`], the proxy's own; [`seal`] makes what it opens.

use std::path::Path;

use api::Digest;
use api::fleet::Secret;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CertsError, keep};

const SUITE: &dyn Hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;
/// Says what the sealing is for: nothing sealed for another purpose opens here (RFC 9180 §8.1).
const INFO: &[u8] = b"pointsman secret";
/// A public key of X25519 (RFC 7748 §5).
const PUBLIC_BYTES: usize = 32;
/// The other half (RFC 7748 §5).
const PRIVATE_BYTES: usize = 32;

/// What a proxy opens its secrets with. The private half never leaves the machine that made it.
pub struct SealKey {
    public: Vec<u8>,
    private: HpkePrivateKey,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    public: Vec<u8>,
    private: Vec<u8>,
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealKey").field("public", &Digest::of(&self.public)).finish_non_exhaustive()
    }
}

impl SealKey {
    /// Opens the key kept in `folder`, or makes it on first use. The file has mode 0600.
    ///
    /// # Errors
    /// A folder that cannot be used, or a file that is not what was written there: it is no JSON, or its halves do not
    /// belong together.
    pub fn open_or_create(folder: &Path) -> Result<Self, CertsError> {
        keep::folder(folder)?;
        let path = folder.join("seal-key.json");
        if let Some(Kept { public, private }) = keep::read(&path)? {
            let kept = Self { public, private: private.into() };
            if kept.is_whole() {
                return Ok(kept);
            }
            let what = "not a key whose halves belong together; restore it, or move it away to start anew";
            return Err(CertsError::Damaged { path, what: what.into() });
        }
        let (HpkePublicKey(public), private) = SUITE.generate_key_pair()?;
        keep::write(&path, &Kept { public: public.clone(), private: private.secret_bytes().to_vec() })?;
        Ok(Self { public, private })
    }

    /// Whether the private half opens what is sealed for the public one. Others could not see that they seal in vain.
    fn is_whole(&self) -> bool {
        let has_length = self.private.secret_bytes().len() == PRIVATE_BYTES;
        has_length && seal("probe", b"", &self.public).is_ok_and(|probe| self.open(&probe).is_ok())
    }

    /// What others seal for: 32 bytes.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Opens what was sealed for this key.
    ///
    /// # Errors
    /// It was sealed for another key, under another id, or changed since.
    pub fn open(&self, secret: &Secret) -> Result<Vec<u8>, CertsError> {
        let encapsulated = EncapsulatedSecret(secret.encapsulated.clone());
        SUITE
            .open(&encapsulated, INFO, secret.id.as_bytes(), &secret.sealed, &self.private)
            .map_err(|_| CertsError::Material(format!("{} is not sealed for the key of this proxy", secret.id)))
    }
}

/// Seals a secret for the proxy whose [`SealKey::public`] is `for_key`.
///
/// # Errors
/// A key that is none.
pub fn seal(id: &str, plain: &[u8], for_key: &[u8]) -> Result<Secret, CertsError> {
    if for_key.len() != PUBLIC_BYTES {
        let length = for_key.len();
        return Err(CertsError::Material(format!("a key to seal for has {PUBLIC_BYTES} bytes, not {length}")));
    }
    let (encapsulated, sealed) = SUITE.seal(INFO, id.as_bytes(), plain, &HpkePublicKey(for_key.to_vec()))?;
    Ok(Secret { id: id.to_owned(), encapsulated: encapsulated.0, sealed })
}

/// The id under which the private key of a certificate travels: by its public key.
///
/// # Errors
/// Bytes that are no certificate.
pub fn key_id(certificate_der: &[u8]) -> Result<String, CertsError> {
    let (_, certificate) = X509Certificate::from_der(certificate_der)
        .map_err(|error| CertsError::Material(format!("a certificate cannot be read: {error}")))?;
    Ok(format!("key/{}", hex(Digest::of(certificate.public_key().raw).as_bytes())))
}

/// The id under which a key of session tickets travels.
pub fn ticket_id(name: &[u8]) -> String {
    format!("ticket/{}", hex(name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_for_its_proxy_and_under_its_id_only() {
        let (one, other) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let made = SealKey::open_or_create(one.path()).expect("made");
        let secret = seal("ticket/00", b"a key", made.public()).expect("sealed");
        assert!(!secret.sealed.windows(5).any(|part| part == b"a key"));
        let again = SealKey::open_or_create(one.path()).expect("kept");
        assert_eq!(again.open(&secret).expect("opened"), b"a key");
        assert!(SealKey::open_or_create(other.path()).expect("made").open(&secret).is_err());
        assert!(again.open(&Secret { id: "ticket/01".into(), ..secret.clone() }).is_err());
        let mut changed = secret;
        changed.sealed[0] ^= 1;
        assert!(again.open(&changed).is_err());
    }

    #[test]
    fn hostile_h81_a_key_whose_halves_do_not_belong_together_is_damaged() {
        let folder = tempfile::tempdir().expect("folder");
        let made = SealKey::open_or_create(folder.path()).expect("made");
        let (public, private) = (made.public().to_vec(), made.private.secret_bytes().to_vec());
        // The lowest bits of a private half do not count (RFC 7748 §5).
        let flipped = |key: &[u8], place: usize| {
            let mut key = key.to_vec();
            key[place] ^= 8;
            key
        };
        for (what, public, private) in [
            ("public", flipped(&public, 0), private.clone()),
            ("public", flipped(&public, 31), private.clone()),
            ("private", public.clone(), flipped(&private, 0)),
            ("private", public.clone(), flipped(&private, 31)),
            ("short", public[1..].to_vec(), private.clone()),
            ("short", public.clone(), private[1..].to_vec()),
            ("long", public.clone(), [&private[..], &[0]].concat()),
            ("empty", public.clone(), Vec::new()),
            ("zeroes", vec![0; 32], private.clone()),
        ] {
            let path = folder.path().join("seal-key.json");
            keep::write(&path, &Kept { public, private }).expect("written");
            match SealKey::open_or_create(folder.path()) {
                Err(CertsError::Damaged { path: at, .. }) => assert_eq!(at, path, "{what}"),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_key_to_seal_for_has_its_length() {
        for wrong in [&[][..], &[7; 31], &[7; 33]] {
            assert!(seal("ticket/00", b"a key", wrong).is_err());
        }
    }
}
