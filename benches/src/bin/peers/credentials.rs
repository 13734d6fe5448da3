//! Who asks: an issuer with one ES256 key, and its tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pointsman_benches::Problem;
use serde_json::{Value, json};

/// The field that tokens come in.
pub(crate) const AUTHORIZATION: &str = "authorization";
/// The field that API keys come in.
pub(crate) const API_KEY: &str = "x-api-key";
/// What `iss` says.
pub(crate) const ISSUER: &str = "https://issuer.bench";
/// What `aud` says.
pub(crate) const AUDIENCE: &str = "pointsman";
/// The group that may call; tokens have others as well.
pub(crate) const GROUP: &str = "staff";
const KEY_ID: &str = "bench";
/// Longer than any run.
const LIFETIME_S: u64 = 24 * 3_600;

/// Issues tokens.
pub(crate) struct Issuer {
    key: EncodingKey,
    jwk: Value,
}

impl Issuer {
    pub(crate) fn new() -> Result<Self, Problem> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let failed = |_| "no key can be drawn";
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(failed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;
        // Uncompressed: a byte that says so, then both coordinates.
        let point = pair.public_key().as_ref();
        let coordinate = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID,
                          "x": coordinate(1), "y": coordinate(33) });
        Ok(Self { key: EncodingKey::from_ec_der(pkcs8.as_ref()), jwk })
    }

    /// Its key as a set (RFC 7517).
    pub(crate) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }

    /// Tokens of so many users.
    pub(crate) fn tokens(&self, count: usize) -> Result<Vec<String>, Problem> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = Header { kid: Some(KEY_ID.into()), ..Header::new(Algorithm::ES256) };
        let token = |number: usize| {
            let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": format!("user-{number}"), "iat": now,
                                 "exp": now + LIFETIME_S, "groups": [GROUP, "engineering", "payments"],
                                 "email": format!("user-{number}@example.com") });
            Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
        };
        (0..count).map(token).collect()
    }
}
