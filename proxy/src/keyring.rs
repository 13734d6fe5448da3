//! Secrets that this proxy was sent: opened, and sealed as they came.
//!
//! Must not know: files, who sends them, or what the state that names them means.
//!
//! Main type: [`Keyring`]. A secret is kept as long as the state names it. One that came ahead of the change that names it
//! is kept for a while.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::Digest;
use api::fleet::Secret;
use certs::secret::SealKey;
use policies::credential::assertion::Signer;
use rustls::pki_types::PrivateKeyDer;

use crate::snapshot::is_key_id;

/// Most secrets that are held: one for each certificate, and some for tickets. More is a mistake.
const MOST: usize = 20_000;
/// Largest secret, sealed. A key of RSA with 8,192 bits takes 4.7 KB.
const SECRET_BYTES: usize = 16 * 1024;
/// Longest id: "key/" and 64 digits.
const ID_BYTES: usize = 128;
/// Most of all secrets together, sealed.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// A key of tickets (AES-256-GCM), or of what is explained (AES-256-GCM-SIV).
const AES_256_BYTES: usize = 32;
/// Changes that a secret is kept for while nothing names it yet: more than a controller has come one after the other for a
/// proxy that was away, which are 1,024. Their secrets come before the first of them, and the last may be what names one.
const AHEAD: u64 = 2_048;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    held: BTreeMap<Arc<str>, Held>,
    bytes: usize,
    /// Changes so far.
    changes: u64,
}

#[derive(Debug)]
struct Held {
    opened: Opened,
    sealed_bytes: usize,
    /// `None`: nothing has named it yet, and the number of changes when it came.
    since: Option<u64>,
}

/// A secret that was opened and is what its id says.
#[derive(Clone)]
pub(crate) struct Opened {
    sealed: Secret,
    plain: Arc<[u8]>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("id", &self.sealed.id).finish_non_exhaustive()
    }
}

/// Opens what came. Takes a tenth of a millisecond each, so it is done outside of any lock. What cannot be used is told,
/// a sentence each; what a later version may know is passed over.
pub(crate) fn open(key: &SealKey, secrets: Vec<Secret>) -> (Vec<Opened>, Vec<String>) {
    let (mut all, mut refused) = (Vec::new(), Vec::new());
    for secret in secrets {
        match open_one(key, secret) {
            Ok(opened) => all.extend(opened),
            Err(why) => refused.push(why),
        }
    }
    (all, refused)
}

fn open_one(key: &SealKey, secret: Secret) -> Result<Option<Opened>, String> {
    let (id, bytes) = (&secret.id, secret.sealed.len() + secret.encapsulated.len());
    if id.len() > ID_BYTES || bytes > SECRET_BYTES {
        let shown: String = id.chars().take(ID_BYTES).collect();
        return Err(format!(
            "{shown:?} has {bytes} bytes, at most {SECRET_BYTES} are accepted, and {ID_BYTES} of its id"
        ));
    }
    let Some((kind, name)) = id.split_once('/') else { return Ok(None) };
    let is_hex = |length| name.len() == length && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match kind {
        "key" if is_hex(64) => {}
        "ticket" if is_hex(32) => {}
        "explain" if is_hex(16) => {}
        "assertion" if is_key_id(name) => {}
        "key" | "ticket" | "explain" | "assertion" => return Err(format!("{id:?} is not named as keys are")),
        _ => return Ok(None),
    }
    let plain = key.open(&secret).map_err(|error| error.to_string())?;
    match kind {
        "key" if public_half(&plain).as_deref() != Some(name) => {
            return Err(format!("{id} is not the private key of that public one"));
        }
        "ticket" | "explain" if plain.len() != AES_256_BYTES => {
            return Err(format!("{id} has {} bytes, not {AES_256_BYTES}", plain.len()));
        }
        "assertion" => {
            Signer::new("", name, &plain).map_err(|why| format!("{id} is no key that signs: {why}"))?;
        }
        _ => {}
    }
    Ok(Some(Opened { sealed: secret, plain: plain.into() }))
}

/// SHA-256 of the public key, as an id names it; `None`: it is no private key.
fn public_half(key_der: &[u8]) -> Option<String> {
    let key = PrivateKeyDer::try_from(key_der.to_vec()).ok()?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()?;
    let digest = Digest::of(&key.public_key()?);
    Some(digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Keyring {
    /// Takes over what was opened; gives what is new, as it came, and how many found no room.
    pub(crate) fn take(&mut self, opened: Vec<Opened>) -> (Vec<Secret>, usize) {
        let (mut new, mut over) = (Vec::new(), 0);
        for opened in opened {
            let id = opened.sealed.id.as_str();
            // Sealed anew, it is still the same, and is on disk.
            if self.held.get(id).is_some_and(|held| held.opened.plain == opened.plain) {
                continue;
            }
            let sealed_bytes = opened.sealed.sealed.len() + opened.sealed.encapsulated.len();
            if self.held.len() >= MOST || self.bytes + sealed_bytes > ALL_BYTES {
                over += 1;
                continue;
            }
            new.push(opened.sealed.clone());
            let held = Held { sealed_bytes, since: Some(self.changes), opened };
            self.bytes += sealed_bytes;
            if let Some(before) = self.held.insert(held.opened.sealed.id.as_str().into(), held) {
                self.bytes -= before.sealed_bytes;
            }
        }
        (new, over)
    }

    /// A secret, opened.
    pub(crate) fn get(&self, id: &str) -> Option<&[u8]> {
        self.held.get(id).map(|held| &*held.opened.plain)
    }

    /// A change was applied, and the state now names `named`: drops what no state will ask for any more, and gives which.
    pub(crate) fn settle<'a>(&mut self, named: impl FnOnce() -> HashSet<&'a str>) -> Vec<Arc<str>> {
        self.changes += 1;
        if self.held.is_empty() {
            return Vec::new();
        }
        let (changes, named) = (self.changes, named());
        let gone = self.held.extract_if(.., |id, held| {
            if named.contains(&**id) {
                held.since = None;
                return false;
            }
            held.since.is_none_or(|since| changes - since > AHEAD)
        });
        let gone: Vec<(Arc<str>, Held)> = gone.collect();
        self.bytes -= gone.iter().map(|(_, held)| held.sealed_bytes).sum::<usize>();
        gone.into_iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use certs::secret::{seal, ticket_id};

    use super::*;

    fn seal_key() -> SealKey {
        certs::install_provider();
        SealKey::open_or_create(tempfile::tempdir().expect("folder").path()).expect("made")
    }

    fn ticket(key: &SealKey, name: u8) -> Secret {
        seal(&ticket_id(&[name; 16]), &[name; 32], key.public()).expect("sealed")
    }

    #[test]
    fn hostile_h80_secrets_are_what_their_ids_say() {
        let (key, other) = (seal_key(), seal_key());
        let (pair, another) = (rcgen::KeyPair::generate().expect("a key"), rcgen::KeyPair::generate().expect("a key"));
        let id = format!("key/{}", public_half(&pair.serialize_der()).expect("a key"));
        let signing = policies::credential::assertion::Key::draw().pkcs8;
        let sealed = |id: &str, plain: &[u8]| seal(id, plain, key.public()).expect("sealed");
        for (secret, expected) in [
            (sealed(&id, &pair.serialize_der()), Ok(1)),
            (sealed(&ticket_id(&[7; 16]), &[1; 32]), Ok(1)),
            (sealed("later/x", b"what a later version knows"), Ok(0)),
            (sealed(&id, &another.serialize_der()), Err("not the private key")),
            (sealed(&id, b"garbage"), Err("not the private key")),
            (sealed(&ticket_id(&[7; 16]), &[1; 31]), Err("has 31 bytes")),
            (sealed(&ticket_id(&[7; 16]), &[1; 48]), Err("has 48 bytes")),
            (sealed(&ticket_id(&[7; 15]), &[1; 32]), Err("not named")),
            (sealed("key/../../x", &[1; 32]), Err("not named")),
            (sealed("explain/0011223344556677", &[1; 32]), Ok(1)),
            (sealed("explain/0011223344556677", &[1; 16]), Err("has 16 bytes")),
            (sealed("explain/001122334455667", &[1; 32]), Err("not named")),
            (sealed("assertion/one-2_B", &signing), Ok(1)),
            (sealed("assertion/one", b"garbage"), Err("no key that signs")),
            (sealed("assertion/a/b", &signing), Err("not named")),
            (sealed("assertion/", &signing), Err("not named")),
            (sealed(&ticket_id(&[7; 16]), &[1; SECRET_BYTES]), Err("at most")),
            (Secret { id: "x".repeat(1_000_000), ..Secret::default() }, Err("at most")),
            (seal(&ticket_id(&[7; 16]), &[1; 32], other.public()).expect("sealed"), Err("not sealed for")),
            (Secret { id: ticket_id(&[7; 16]), ..Secret::default() }, Err("not sealed for")),
        ] {
            match (open(&key, vec![secret]), expected) {
                ((opened, refused), Ok(count)) => assert_eq!((opened.len(), refused), (count, vec![])),
                ((opened, refused), Err(why)) => {
                    assert!(opened.is_empty() && refused.len() == 1 && refused[0].contains(why), "{refused:?}");
                    assert!(refused[0].len() < 1_000);
                }
            }
        }
    }

    #[test]
    fn a_secret_is_kept_while_it_is_named_and_a_while_before() {
        let key = seal_key();
        let mut keyring = Keyring::default();
        let [one, two] = [ticket(&key, 1), ticket(&key, 2)];
        let take = |keyring: &mut Keyring, secret: &Secret| keyring.take(open(&key, vec![secret.clone()]).0);
        assert_eq!(take(&mut keyring, &one), (vec![one.clone()], 0));
        assert_eq!(take(&mut keyring, &ticket(&key, 1)), (vec![], 0), "the same, sealed anew");
        assert_eq!(keyring.settle(|| HashSet::from([&*one.id])), []);
        take(&mut keyring, &two);
        assert_eq!(keyring.settle(HashSet::new), [one.id.as_str().into()], "it was named and is not any more");
        for _ in 1..AHEAD {
            assert_eq!(keyring.settle(HashSet::new), []);
        }
        assert!(keyring.get(&two.id).is_some());
        assert_eq!(keyring.settle(HashSet::new), [two.id.as_str().into()]);
        assert!(keyring.get(&two.id).is_none());
        assert_eq!(keyring.bytes, 0);
    }

    #[test]
    fn a_secret_is_there_for_the_last_of_the_changes_that_a_proxy_missed() {
        let key = seal_key();
        let mut keyring = Keyring::default();
        let last = ticket(&key, 1);
        keyring.take(open(&key, vec![last.clone()]).0);
        for _ in 1..1_024 {
            assert_eq!(keyring.settle(HashSet::new), []);
        }
        assert!(keyring.get(&last.id).is_some());
        keyring.settle(|| HashSet::from([&*last.id]));
        assert!(keyring.get(&last.id).is_some());
    }

    #[test]
    fn hostile_h80_there_is_an_end_to_secrets() {
        let key = seal_key();
        let (opened, _) = open(&key, vec![ticket(&key, 1)]);
        let mut keyring = Keyring::default();
        let many = (0..MOST + 5).map(|number| {
            let mut one = opened[0].clone();
            one.sealed.id = number.to_string();
            one
        });
        let (new, over) = keyring.take(many.collect());
        assert_eq!((new.len(), over), (MOST, 5));
    }
}
