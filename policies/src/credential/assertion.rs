//! What endpoints are told of who calls: a token that we sign (RFC 7519, ES256).
//!
//! Drawing a key and signing take randomness from the system, as nothing else in this crate does: ES256 cannot do without.
//!
//! Must not know: stages beyond their names, or when an assertion is signed anew.
//!
//! Main types: [`Signer`], [`Key`].

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Identity;

/// How long an assertion counts, in seconds.
pub const LIFETIME_S: u64 = 60;

/// Signs assertions. Printing it for debugging shows no key.
pub struct Signer {
    issuer: String,
    /// The header with its dot, in base64url: the same for all.
    header: String,
    key: EcdsaKeyPair,
}

/// A key for signing: PKCS #8 and the point (65 bytes). Printing it for debugging does not show the private half.
pub struct Key {
    /// PKCS #8.
    pub pkcs8: Vec<u8>,
    /// Uncompressed point on P-256.
    pub public: Vec<u8>,
}

impl Key {
    /// Draws one.
    #[allow(clippy::missing_panics_doc, reason = "the system's randomness does not fail once it is seeded")]
    pub fn draw() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("P-256 and randomness are there");
        let pkcs8 = key.to_pkcs8v1().expect("a key that was just made can be written");
        Self { pkcs8: pkcs8.as_ref().to_vec(), public: key.public_key().as_ref().to_vec() }
    }
}

impl Signer {
    /// `issuer` is what `iss` will be, `kid` the key's id, `pkcs8` the key.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn new(issuer: &str, kid: &str, pkcs8: &[u8]) -> Result<Self, String> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|error| format!("the key \"{}\" is no P-256 key in PKCS #8: {error}", kid.escape_debug()))?;
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "JWT" });
        let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string()) + ".";
        Ok(Self { issuer: issuer.to_owned(), header, key })
    }

    /// The assertion that `identity` calls `stage`, for [`LIFETIME_S`] from `now_s`, and no longer than what it was told by.
    ///
    /// Claims: `iss`, `aud` (the stage), `iat`, `exp`, `jti` (the id of the request for which it was signed); of a valid user
    /// `sub`, `idp` (the issuer's name) and `groups`; of a valid application `app` and `app_groups`. The groups stand apart,
    /// so that nobody takes an application's for its user's.
    pub fn sign(&self, identity: &Identity, stage: &str, request_id: &str, now_s: u64) -> String {
        let end_s = now_s.saturating_add(LIFETIME_S).min(identity.until_s.unwrap_or(u64::MAX));
        let mut claims = json!({
            "iss": self.issuer,
            "aud": stage,
            "iat": now_s,
            "exp": end_s,
            "jti": request_id,
        });
        let texts =
            |groups: &[std::sync::Arc<str>]| groups.iter().map(|group| Value::from(&**group)).collect::<Value>();
        if let Some(user) = identity.user.valid() {
            claims["sub"] = user.subject.as_str().into();
            claims["idp"] = (*user.issuer).into();
            claims["groups"] = texts(&user.groups);
        }
        if let Some(application) = identity.application.valid() {
            claims["app"] = (*application.name).into();
            claims["app_groups"] = texts(&application.groups);
        }
        self.sign_json(&claims)
    }

    /// A token with just these claims: for issuers of tests and of the demo.
    pub fn sign_json(&self, claims: &Value) -> String {
        self.sign_text(&claims.to_string())
    }

    fn sign_text(&self, claims: &str) -> String {
        let mut token = self.header.clone();
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.expect("a key that was read signs, and the system's randomness does not fail");
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        token
    }
}

/// The public keys, by `kid` and as points of 65 bytes, as a JSON Web Key Set. What is no such point is left out.
pub fn jwks(keys: &[(String, Vec<u8>)]) -> String {
    let keys = keys.iter().filter_map(|(kid, point)| {
        let [4, coordinates @ ..] = &**point else { return None };
        let (x, y) = (coordinates.len() == 64).then(|| coordinates.split_at(32))?;
        let [x, y] = [x, y].map(|number| BASE64_URL_SAFE_NO_PAD.encode(number));
        Some(json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "use": "sig", "alg": "ES256" }))
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("public", &BASE64_URL_SAFE_NO_PAD.encode(&self.public)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
