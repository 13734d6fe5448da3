//! What tests of this room share: an issuer with keys of its own, and tokens that say anything.

use std::sync::Arc;

use api::fleet::{ClaimAttribute, GroupRule, Issuer, claim_attribute::Type};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

pub(crate) const NOW_S: u64 = 1_800_000_000;

pub(crate) const ISS: &str = "https://login.example.com";

/// An issuer's side: keys "p1" and "p2", and "enc", which is published for encryption alone. All are on P-256.
pub(crate) struct Issuing {
    keys: Vec<(&'static str, Vec<u8>, EcdsaKeyPair)>,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    /// By this key.
    By(&'static str),
    /// By "p1", 4 bytes cut off.
    Cut,
    /// By "p1", as certificates write it (RFC 3279).
    Der,
    /// With the public half of "p1" as a secret.
    Hmac,
    /// Not at all.
    Nothing,
}

impl Issuing {
    pub(crate) fn new() -> Self {
        let key = |name| {
            let drawn = assertion::Key::draw();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &drawn.pkcs8).expect("was drawn");
            (name, drawn.pkcs8, pair)
        };
        Self { keys: ["p1", "p2", "enc"].map(key).into() }
    }

    pub(crate) fn public(&self, name: &str) -> Vec<u8> {
        self.pair(name).public_key().as_ref().to_vec()
    }

    fn pair(&self, name: &str) -> &EcdsaKeyPair {
        &self.keys.iter().find(|(known, ..)| *known == name).expect("is one of the keys").2
    }

    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<_> = self.keys.iter().map(|(name, ..)| ((*name).to_owned(), self.public(name))).collect();
        let mut set: Value = serde_json::from_str(&assertion::jwks(&keys)).expect("is JSON");
        set["keys"][2]["use"] = "enc".into();
        set
    }

    pub(crate) fn ring(&self) -> KeyRing {
        ring(&self.jwks())
    }

    /// A token of this header and these claims, whatever they are.
    pub(crate) fn token(&self, header: &str, claims: &str, signed: Signed) -> String {
        let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let by = |pair: &EcdsaKeyPair| {
            let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).expect("signs");
            BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref())
        };
        let signature = match signed {
            Signed::By(name) => by(self.pair(name)),
            Signed::Cut => by(self.pair("p1"))[..80].to_owned(),
            Signed::Der => {
                let pkcs8 = &self.keys[0].1;
                by(&EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).expect("was drawn"))
            }
            Signed::Hmac => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.public("p1"));
                BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()))
            }
            Signed::Nothing => String::new(),
        };
        format!("{message}.{signature}")
    }

    /// A token by "p1" with the standard claims, and these besides or in their place.
    pub(crate) fn with(&self, changed: Value) -> String {
        let mut claims = json!({ "iss": ISS, "aud": "pointsman", "sub": "alice", "exp": NOW_S + 600 });
        let Value::Object(changed) = changed else { panic!("claims are an object") };
        claims.as_object_mut().expect("is an object").extend(changed);
        self.token(r#"{"alg":"ES256","kid":"p1"}"#, &claims.to_string(), Signed::By("p1"))
    }
}

pub(crate) fn ring(jwks: &Value) -> KeyRing {
    let set = KeySet::read(jwks.to_string().as_bytes()).expect("has keys");
    KeyRing { issuers: [("corp".into(), Arc::new(set))].into(), generation: 1 }
}

/// "corp", with rules for groups and an attribute.
pub(crate) fn corp() -> Issuer {
    let rule = |claim: &str, value: &str, group: &str| GroupRule {
        claim: claim.to_owned(),
        value: value.to_owned(),
        group: group.to_owned(),
    };
    let attribute = |attribute: &str, claim: &str, kind: Type| ClaimAttribute {
        attribute: attribute.to_owned(),
        claim: claim.to_owned(),
        r#type: kind as i32,
    };
    Issuer {
        issuer: ISS.to_owned(),
        audiences: vec!["pointsman".to_owned(), "https://api.example.com".to_owned()],
        algorithms: ["ES256", "ES384", "EdDSA"].map(str::to_owned).into(),
        leeway_ms: 30_000,
        refresh_ms: 300_000,
        groups: vec![rule("groups", "", ""), rule("realm_access.roles", "", "kc-"), rule("role", "admin", "admins")],
        attributes: vec![
            attribute("department", "department", Type::String),
            attribute("level", "level", Type::Long),
            attribute("vip", "vip", Type::Bool),
            attribute("sites", "https://example.com/sites", Type::Strings),
        ],
        ..Default::default()
    }
}

pub(crate) fn issuers() -> Issuers {
    Issuers::new([("corp", &corp())].into_iter()).expect("is right")
}
