//! Sets of keys as issuers publish them, and as they should not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::credential::tests::Issuing;

/// Keys of every kind that we know.
const KNOWN: &str = include_str!("../self_test/keys.json");

fn known(kid: &str) -> Value {
    let set: Value = serde_json::from_str(KNOWN).expect("is JSON");
    let keys = set["keys"].as_array().expect("is a list").clone();
    keys.into_iter().find(|key| key["kid"] == kid).expect("is one of the keys")
}

fn changed(kid: &str, name: &str, value: Value) -> Value {
    let mut key = known(kid);
    key[name] = value;
    key
}

/// `kid` of what is kept, in order.
fn kept(keys: &[Value]) -> Vec<String> {
    let set = json!({ "keys": keys, "expires": "never" }).to_string();
    KeySet::read(set.as_bytes()).map_or_else(
        |_| Vec::new(),
        |set| set.keys.iter().map(|key| key.id.as_deref().unwrap_or("-").to_owned()).collect(),
    )
}

#[test]
fn keys_of_every_kind_are_kept_for_their_algorithms() {
    let set = KeySet::read(KNOWN.as_bytes()).expect("has keys");
    assert_eq!(set.count(), 4);
    for algorithm in Algorithm::ALL {
        for kid in ["rsa", "p256", "p384", "ed25519"] {
            let fits = matches!(
                (kid, algorithm.kind()),
                ("rsa", Kind::Rsa) | ("p256", Kind::P256) | ("p384", Kind::P384) | ("ed25519", Kind::Ed25519)
            );
            let found = set.find(Some(kid), algorithm).map(|_| ());
            assert_eq!(found, if fits { Ok(()) } else { Err(Fault::AlgorithmOfOtherKey) }, "{kid} {algorithm:?}");
        }
    }
    assert_eq!(set.find(None, Algorithm::Es256).err(), Some(Fault::KeyIdMissing));
    assert_eq!(set.find(Some("p521"), Algorithm::Es256).err(), Some(Fault::UnknownKey));
}

#[test]
fn keys_that_cannot_be_used_are_left_out() {
    let good = known("p256");
    let long = "k".repeat(257);
    let small = json!({ "kty": "RSA", "kid": "x", "e": "AQAB", "n": "w".repeat(171) });
    let even = changed("rsa", "e", json!("AQAA"));
    for bad in [
        json!({ "kty": "oct", "kid": "x", "k": "c2VjcmV0" }),
        json!({ "kty": "EC", "crv": "P-521", "kid": "x", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "x", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "X25519", "kid": "x", "x": known("ed25519")["x"] }),
        changed("p256", "use", json!("enc")),
        changed("p256", "use", json!("Sig")),
        changed("p256", "use", json!(["sig"])),
        changed("p256", "key_ops", json!(["sign"])),
        changed("p256", "key_ops", json!("encrypt")),
        changed("p256", "key_ops", json!(7)),
        changed("p256", "alg", json!("ES384")),
        changed("p256", "alg", json!("HS256")),
        changed("p256", "alg", json!("ECDH-ES")),
        changed("p256", "alg", json!(null)),
        changed("p256", "kid", json!(7)),
        changed("p256", "kid", json!("")),
        changed("p256", "kid", json!(long)),
        changed("p256", "kty", json!("RSA")),
        changed("p256", "crv", json!("P-384")),
        changed("p256", "y", json!("WVl1cQ1k8C7MYq0nG9N4eIx3A-Dqsnf2rslVeFJ_XEs")),
        changed("p256", "y", json!("AA")),
        changed("p256", "y", json!("WVl1cQ1k8C7MYq0nG9N4eIx3A-Dqsnf2rslVeFJ_XEo=")),
        changed("p256", "d", json!("AAAA")),
        changed("rsa", "d", json!("AAAA")),
        changed("rsa", "e", json!("AQ")),
        changed("rsa", "e", json!("AAE")),
        changed("rsa", "e", json!("")),
        changed("rsa", "e", json!("AQAAAAE")),
        changed("rsa", "n", json!("AQAB")),
        changed("rsa", "n", json!("")),
        changed("rsa", "n", json!(format!("{}g", &known("rsa")["n"].as_str().expect("is text")[..341]))),
        changed("ed25519", "x", json!("AAAA")),
        small,
        even,
        json!({}),
        json!("key"),
        json!(null),
    ] {
        assert_eq!(kept(&[bad.clone(), good.clone()]), ["p256"], "{bad}");
        assert_eq!(kept(std::slice::from_ref(&bad)), [""; 0], "{bad}");
    }
    for good in [
        changed("p256", "use", json!("sig")),
        changed("p256", "key_ops", json!(["verify"])),
        changed("p256", "alg", json!("ES256")),
        changed("rsa", "alg", json!("PS384")),
        changed("rsa", "n", json!(format!("AAAA{}", known("rsa")["n"].as_str().expect("is text")))),
        changed("rsa", "e", json!("Aw")),
        changed("p256", "x5c", json!(["MIIB"])),
    ] {
        assert_eq!(kept(std::slice::from_ref(&good)).len(), 1, "{good}");
    }
}

#[test]
fn hostile_h44_kid_that_stands_twice_counts_for_different_kinds_only() {
    let named = |kid: &str, name: &str| changed(kid, "kid", json!(name));
    let other = |name: &str| {
        let issuing = Issuing::new();
        let mut key = issuing.jwks()["keys"][0].clone();
        key["kid"] = name.into();
        key
    };
    assert_eq!(kept(&[named("p256", "a"), named("rsa", "a"), named("p384", "a")]), ["a", "a", "a"]);
    assert_eq!(kept(&[named("p256", "a"), other("a"), named("rsa", "a"), other("b")]), ["a", "b"]);
    assert_eq!(kept(&[named("p256", "a"), named("p256", "a")]), [""; 0]);
    let set = json!({ "keys": [named("p256", "a"), named("rsa", "a")] }).to_string();
    let set = KeySet::read(set.as_bytes()).expect("has keys");
    assert!(set.find(Some("a"), Algorithm::Es256).is_ok() && set.find(Some("a"), Algorithm::Ps512).is_ok());
}

#[test]
fn keys_named_for_one_algorithm_verify_no_other() {
    let set = json!({ "keys": [changed("rsa", "alg", json!("PS384"))] }).to_string();
    let set = KeySet::read(set.as_bytes()).expect("has a key");
    for algorithm in Algorithm::ALL {
        assert_eq!(set.find(Some("rsa"), algorithm).is_ok(), algorithm == Algorithm::Ps384, "{algorithm:?}");
    }
}

#[test]
fn hostile_h45_what_is_no_key_set_is_refused_with_a_sentence() {
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(SET_BYTES));
    for (text, part) in [
        ("", "not a JSON object"),
        ("<!DOCTYPE html><html><body>503 Service Unavailable</body></html>", "error page"),
        ("[]", "not a JSON object"),
        ("{}", "no list named"),
        (r#"{"keys":{}}"#, "no list named"),
        (r#"{"keys":null}"#, "no list named"),
        (r#"{"keys":[]}"#, "none of its 0 keys"),
        (r#"{"keys":[{},{"kty":"oct"}]}"#, "none of its 2 keys"),
        (r#"{"keys":[],"keys":[]}"#, "twice"),
        (r#"{"keys":[{"kty":"RSA","kty":"EC"}]}"#, "twice"),
        (&huge, "more than 262144"),
    ] {
        let error = KeySet::read(text.as_bytes()).expect_err(part);
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn at_most_100_keys_are_kept() {
    let keys: Vec<Value> = (0..150).map(|number| changed("p256", "kid", json!(number.to_string()))).collect();
    let kept = kept(&keys);
    assert_eq!((kept.len(), &*kept[99]), (100, "99"));
}

#[test]
fn debugging_shows_names_and_kinds() {
    let set = KeySet::read(KNOWN.as_bytes()).expect("has keys");
    let expected = r#"[(Some("rsa"), Rsa), (Some("p256"), P256), (Some("p384"), P384), (Some("ed25519"), Ed25519)]"#;
    assert_eq!(format!("{set:?}"), expected);
}

proptest! {
    #[test]
    fn garbage_is_no_key_set_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(KeySet::read(&bytes).is_err());
    }

    #[test]
    fn sets_with_any_byte_changed_never_panic(place in any::<prop::sample::Index>(), byte: u8) {
        let mut text = KNOWN.as_bytes().to_vec();
        let place = place.index(text.len());
        text[place] = byte;
        if let Ok(set) = KeySet::read(&text) {
            prop_assert!((1..=4).contains(&set.count()));
        }
    }

    #[test]
    fn keys_of_any_numbers_never_panic(crv in "P-256|P-384|Ed25519", kty in "RSA|EC|OKP",
                                       numbers in prop::collection::vec("[A-Za-z0-9_-]{0,90}", 4)) {
        let key = json!({ "kty": kty, "crv": crv, "n": numbers[0], "e": numbers[1], "x": numbers[2], "y": numbers[3] });
        let _ = KeySet::read(json!({ "keys": [key] }).to_string().as_bytes());
    }
}

#[test]
fn sets_with_the_same_keys_are_the_same_in_any_order() {
    let read = |keys: &[Value]| KeySet::read(json!({ "keys": keys }).to_string().as_bytes()).expect("has keys");
    let (rsa, curve) = (known("rsa"), known("p256"));
    // The members of a key in another order.
    let members = curve.as_object().expect("is a key").iter().rev();
    let turned: Vec<String> = members.map(|(name, value)| format!("{name:?}: {value}")).collect();
    let turned = format!("{{ \"keys\": [{{ {} }}, {rsa}] }}", turned.join(" , "));
    let turned = KeySet::read(turned.as_bytes()).expect("has keys");
    let both = read(&[rsa.clone(), curve.clone()]);
    assert!(both.is_same(&read(&[curve.clone(), rsa.clone()])) && both.is_same(&turned));
    assert!(!both.is_same(&read(&[rsa])) && !both.is_same(&read(&[curve, changed("rsa", "kid", json!("other"))])));
}
