//! Ids of our own 404s: why it was, sealed for operators (AES-256-GCM-SIV, RFC 8452).
//!
//! Whoever has no key learns nothing: all ids have the same length, and what is sealed looks like chance. The cipher forgives
//! a nonce that comes twice: two ids would then at most show that they say the same.
//!
//! Must not know: stages, policies, or how an answer is written.
//!
//! Main types: [`Denial`], [`Seal`].

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// Length of a text form, for all alike: 75 bytes in base64url.
pub const LENGTH: usize = 100;

/// The key's name and the request's own id, in clear.
const HEAD: usize = 8 + 16;

/// What is sealed.
const BODY: usize = 4 * 8 + 3;

/// Which proves that nobody made it up.
const TAG: usize = 16;

const BYTES: usize = HEAD + BODY + TAG;

/// Why a request was answered 404, in a fixed number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The first 8 bytes of the SHA-256 of the stage's name; 0: no stage has the host.
    pub stage: u64,
    /// The same of the application's name; 0: none that is valid.
    pub application: u64,
    /// The same of issuer's name, a NUL, and subject; 0: none that is valid.
    pub user: u64,
    /// Why, as `verdict::Why` numbers it.
    pub why: u8,
    /// `Fault` of the application's credential; 0: none.
    pub application_fault: u8,
    /// `Fault` of the user's credential; 0: none.
    pub user_fault: u8,
}

/// Seals ids with one key. Printing it for debugging shows the key's name alone.
pub struct Seal {
    name: [u8; 8],
    key: LessSafeKey,
}

impl Seal {
    /// From the key's name and its 32 bytes.
    #[allow(clippy::missing_panics_doc, reason = "the length is right by its type")]
    pub fn new(name: [u8; 8], key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).expect("the key has 32 bytes");
        Self { name, key: LessSafeKey::new(key) }
    }

    /// The key's name.
    pub fn name(&self) -> [u8; 8] {
        self.name
    }

    /// The id as text: base64url of the key's name, the request's own id (16 bytes, unique), and what was sealed with the
    /// first 12 bytes of that as a nonce. Allocates nothing.
    #[allow(clippy::missing_panics_doc, reason = "all lengths are fixed")]
    pub fn seal(&self, denial: &Denial, request_id: &[u8; 16]) -> [u8; LENGTH] {
        let mut bytes = [0; BYTES];
        let (head, rest) = bytes.split_at_mut(HEAD);
        let (body, tag) = rest.split_at_mut(BODY);
        head[..8].copy_from_slice(&self.name);
        head[8..].copy_from_slice(request_id);
        body.copy_from_slice(&denial.to_bytes());
        let sealed = self.key.seal_in_place_separate_tag(nonce(head), Aad::from(&*head), body);
        tag.copy_from_slice(sealed.expect("35 bytes are never too many").as_ref());
        let mut text = [0; LENGTH];
        let written = BASE64_URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        debug_assert_eq!(written, Ok(LENGTH));
        text
    }

    /// Opens one; also gives the request's own id.
    ///
    /// # Errors
    /// A sentence: it is no such id, or was sealed with another key.
    pub fn open(&self, text: &str) -> Result<(Denial, [u8; 16]), String> {
        let mut bytes = decode(text)?;
        let (head, sealed) = bytes.split_at_mut(HEAD);
        if head[..8] != self.name {
            return Err("the id was sealed with another key".to_owned());
        }
        let body = self
            .key
            .open_in_place(nonce(head), Aad::from(&*head), sealed)
            .map_err(|_| "the id was changed, or sealed with another key of the same name")?;
        let request_id = head[8..].try_into().expect("the id has 16 bytes");
        Ok((Denial::from_bytes(body), request_id))
    }
}

/// The name of the key that sealed an id.
///
/// # Errors
/// A sentence: it is no such id.
pub fn key_name(text: &str) -> Result<[u8; 8], String> {
    decode(text).map(|bytes| bytes[..8].try_into().expect("an id has more than 8 bytes"))
}

/// What a name is known by in a [`Denial`]: the first 8 bytes of its SHA-256, big-endian.
pub fn short(name: &str) -> u64 {
    let digest = api::Digest::of(name.as_bytes());
    u64::from_be_bytes(digest.as_bytes()[..8].try_into().expect("a SHA-256 has more than 8 bytes"))
}

/// What a user is known by in a [`Denial`].
pub fn short_user(issuer: &str, subject: &str) -> u64 {
    short(&format!("{issuer}\0{subject}"))
}

impl Denial {
    fn to_bytes(self) -> [u8; BODY] {
        let mut bytes = [0; BODY];
        for (place, number) in [self.at_ms, self.stage, self.application, self.user].into_iter().enumerate() {
            bytes[place * 8..][..8].copy_from_slice(&number.to_be_bytes());
        }
        bytes[32..].copy_from_slice(&[self.why, self.application_fault, self.user_fault]);
        bytes
    }

    /// From 35 bytes.
    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |place: usize| u64::from_be_bytes(bytes[place * 8..][..8].try_into().expect("8 bytes"));
        Self {
            at_ms: number(0),
            stage: number(1),
            application: number(2),
            user: number(3),
            why: bytes[32],
            application_fault: bytes[33],
            user_fault: bytes[34],
        }
    }
}

/// The first 12 bytes of the request's own id.
fn nonce(head: &[u8]) -> Nonce {
    Nonce::try_assume_unique_for_key(&head[8..8 + NONCE_LEN]).expect("a nonce has 12 bytes")
}

fn decode(text: &str) -> Result<[u8; BYTES], String> {
    let wrong = || format!("not the id of a denial: it has {LENGTH} characters of base64url");
    if text.len() != LENGTH {
        return Err(wrong());
    }
    let mut bytes = [0; BYTES];
    BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| wrong())?;
    Ok(bytes)
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
