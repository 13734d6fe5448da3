//! API keys: what they look like, and how they are drawn.
//!
//! `pm_`, an id of 8 characters of base32, `_`, 43 characters of base64url that hold 256 secret bits, and 6 of checksum. The
//! checksum is the beginning of the base64url of the SHA-256 of all that stands before it. It is no secret and proves nothing:
//! it shows anybody, offline, that a key was mistyped or cut, and lets scanners of repositories tell a key from chance.
//!
//! Must not know: whose keys there are.
//!
//! Main types: [`Drawn`].

use std::fmt;

use api::Digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::fault::Fault;

/// Length of a key, in characters.
pub const LENGTH: usize = 61;

const PREFIX: &[u8] = b"pm_";

/// Where the secret begins, behind prefix, id and "_".
const SECRET: usize = PREFIX.len() + 8 + 1;

/// Where the checksum begins.
const CHECKSUM: usize = SECRET + 43;

/// RFC 4648 §6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A key that was just made. Printing it for debugging shows its id alone.
pub struct Drawn {
    /// The whole key, as it is sent: 61 characters.
    pub text: String,
    /// The 8 characters behind "pm_", by which people tell keys apart. Not secret.
    pub id: String,
    /// What is kept of it.
    pub sha256: Digest,
}

/// Makes a key from 40 random bytes: the first 32 are its secret, the others its id.
pub fn draw(random: &[u8; 40]) -> Drawn {
    let (secret, id) = random.split_at(32);
    let id: String = id.iter().map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect();
    let mut text = format!("pm_{id}_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
    text.push_str(&checksum(text.as_bytes()));
    let sha256 = Digest::of(text.as_bytes());
    Drawn { text, id, sha256 }
}

/// What is known of a key that looks right: its digest. The length is looked at before anything else.
pub(crate) fn read(key: &[u8]) -> Result<Digest, Fault> {
    // The same decision whether a field came twice or somebody on the way joined the two (RFC 9110 §5.2).
    if key.len() <= 4 * LENGTH && key.contains(&b',') {
        return Err(Fault::Repeated);
    }
    if key.len() != LENGTH {
        return Err(Fault::KeyLength);
    }
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    let has_shape = key.starts_with(PREFIX)
        && key[PREFIX.len()..SECRET - 1].iter().all(|byte| BASE32.contains(byte))
        && key[SECRET - 1] == b'_'
        && key[SECRET..].iter().all(is_base64url);
    if !has_shape {
        return Err(Fault::KeyShape);
    }
    let (before, stated) = key.split_at(CHECKSUM);
    if checksum(before).as_bytes() != stated {
        return Err(Fault::KeyChecksum);
    }
    Ok(Digest::of(key))
}

fn checksum(before: &[u8]) -> String {
    let mut text = BASE64_URL_SAFE_NO_PAD.encode(Digest::of(before).as_bytes());
    text.truncate(LENGTH - CHECKSUM);
    text
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pm_{}_...", self.id)
    }
}
