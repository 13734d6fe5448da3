//! Whether every algorithm works on this machine, asked once at start.
//!
//! Verification goes the way that a request's token goes, with tokens that another implementation signed (PyJWT 2.6 and
//! OpenSSL 3.0; the private keys are gone). Each has to be accepted, and refused after one bit of it was changed.
//!
//! Must not know: what happens when it fails.
//!
//! Main function: [`self_test`].

use std::sync::Arc;

use aws_lc_rs::aead::AES_256_GCM_SIV;

use super::algorithm::Algorithm;
use super::assertion::{self, Key, Signer};
use super::denial::{Denial, LENGTH, Seal};
use super::fault::Fault;
use super::{Issuers, KeyRing, KeySet, Standing};

const KEYS: &str = include_str!("self_test/keys.json");

/// Algorithm and token, one a line.
const TOKENS: &str = include_str!("self_test/tokens.txt");

const ISSUER: &str = "https://self-test.invalid";

/// When the tokens count: before their `exp`.
const NOW_S: u64 = 1_999_999_000;

/// Verifies with every algorithm once, signs and verifies an assertion, seals and opens a denial. Takes about a millisecond.
///
/// # Errors
/// The algorithm that does not work here.
pub fn self_test() -> Result<(), String> {
    let keys = ring(KEYS).map_err(|error| format!("RFC 7517: {error}"))?;
    for algorithm in Algorithm::ALL {
        let name = algorithm.name();
        let of = |line: &'static str| line.strip_prefix(name)?.strip_prefix(' ');
        let token = TOKENS.lines().find_map(of).ok_or_else(|| format!("{name}: no token to test it with"))?;
        check(&keys, token).map_err(|error| format!("{name}: {error}"))?;
    }
    let key = Key::draw();
    let signer = Signer::new(ISSUER, "drawn", &key.pkcs8)?;
    let claims = serde_json::json!({ "iss": ISSUER, "aud": "pointsman", "sub": "ES256", "exp": NOW_S + 60 });
    let keys = ring(&assertion::jwks(&[("drawn".to_owned(), key.public)]))?;
    check(&keys, &signer.sign_json(&claims)).map_err(|error| format!("ES256, signing: {error}"))?;
    check_seal().map_err(|error| format!("{AES_256_GCM_SIV:?}: {error}"))
}

fn ring(keys: &str) -> Result<KeyRing, String> {
    let set = Arc::new(KeySet::read(keys.as_bytes())?);
    Ok(KeyRing { issuers: [("self-test".into(), set)].into(), generation: 0 })
}

/// A token is accepted, and refused when one bit of its signature is another.
fn check(keys: &KeyRing, token: &str) -> Result<(), String> {
    let issuer = api::fleet::Issuer {
        issuer: ISSUER.to_owned(),
        audiences: vec!["pointsman".to_owned()],
        refresh_ms: 30_000,
        ..Default::default()
    };
    let issuers = Issuers::new([("self-test", &issuer)].into_iter()).map_err(|problems| format!("{problems:?}"))?;
    if let Standing::Refused(fault) | Standing::Unavailable(fault) = issuers.user(token.as_bytes(), keys, NOW_S) {
        return Err(format!("a right token is refused: {}", fault.reason()));
    }
    let mut changed = token.as_bytes().to_vec();
    let first = changed.iter().rposition(|byte| *byte == b'.').map_or(0, |dot| dot + 1);
    changed[first] = if changed[first] == b'A' { b'B' } else { b'A' };
    match issuers.user(&changed, keys, NOW_S) {
        Standing::Refused(Fault::Signature) => Ok(()),
        _ => Err("a changed signature is not refused".to_owned()),
    }
}

fn check_seal() -> Result<(), String> {
    let denial = Denial { at_ms: 1, stage: 2, application: 3, user: 4, why: 5, application_fault: 6, user_fault: 7 };
    let seal = Seal::new([1; 8], &[2; 32]);
    let id = seal.seal(&denial, &[3; 16]);
    let text = std::str::from_utf8(&id).map_err(|error| error.to_string())?;
    if text.len() != LENGTH || seal.open(text)? != (denial, [3; 16]) {
        return Err("what was sealed opens as something else".to_owned());
    }
    if Seal::new([1; 8], &[4; 32]).open(text).is_ok() {
        return Err("another key opens it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn self_test_finds_every_algorithm_working() {
        assert_eq!(super::self_test(), Ok(()));
    }
}
