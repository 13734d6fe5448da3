//! Secrets that are shown once and kept as hashes: operators' tokens and join tokens.

use api::{Digest, MemberName};

/// 43 characters of 62 carry 256 bits.
const LENGTH: usize = 43;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Draws a new secret.
///
/// # Errors
/// When the operating system gives no randomness.
pub(crate) fn draw() -> Result<String, String> {
    let mut secret = String::with_capacity(LENGTH);
    let mut bytes = [0u8; 64];
    while secret.len() < LENGTH {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the operating system gives no random numbers".to_owned())?;
        // Bytes from 248 on would favour the first letters.
        let letters = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(LETTERS[usize::from(*byte) % 62]));
        secret.extend(letters.take(LENGTH - secret.len()));
    }
    Ok(secret)
}

/// What is kept of a secret.
pub(crate) fn hash(secret: &str) -> Digest {
    Digest::of(secret.as_bytes())
}

/// Whether `secret` is the one that was kept, in constant time.
pub(crate) fn matches(secret: &str, kept: &Digest) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(hash(secret).as_bytes(), kept.as_bytes()).is_ok()
}

/// An operator's token as it is shown: its name tells which hash to compare with.
pub(crate) fn operator_token(name: &MemberName, secret: &str) -> String {
    format!("pmop1.{name}.{secret}")
}

/// Name and secret of an operator's token.
pub(crate) fn parse_operator_token(text: &str) -> Option<(MemberName, &str)> {
    let (name, secret) = text.strip_prefix("pmop1.")?.split_once('.')?;
    Some((name.parse().ok()?, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_match_their_hash_only() {
        let (one, other) = (draw().expect("drawn"), draw().expect("drawn"));
        assert_eq!(one.len(), LENGTH);
        assert_ne!(one, other);
        assert!(matches(&one, &hash(&one)) && !matches(&other, &hash(&one)) && !matches("", &hash(&one)));
        let name: MemberName = "ci".parse().expect("name");
        assert_eq!(parse_operator_token(&operator_token(&name, &one)), Some((name, one.as_str())));
        assert_eq!(parse_operator_token(&one), None);
    }
}
