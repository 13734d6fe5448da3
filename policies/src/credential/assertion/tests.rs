//! Assertions as an endpoint reads them.

use std::sync::Arc;

use super::*;
use crate::credential::tests::{NOW_S, corp, ring};
use crate::credential::{Application, Fault, Issuers, Standing, User};

fn identity() -> Identity {
    let user = User {
        issuer: "corp".into(),
        subject: "alice \"a\"\n".to_owned(),
        client: None,
        groups: ["beta", "staff"].map(Arc::from).into(),
        attributes: [].into(),
        until_s: 0,
    };
    let application = Application { name: "batch".into(), groups: vec!["partners".into()] };
    Identity {
        application: Standing::Valid(Arc::new(application)),
        user: Standing::Valid(Arc::new(user)),
        until_s: None,
        by_proxy_authorization: false,
    }
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("has three parts");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("is base64url")).expect("is JSON")
}

#[test]
fn assertion_says_who_calls_what() {
    let key = Key::draw();
    let signer = Signer::new("https://fleet.example", "a1", &key.pkcs8).expect("is a key");
    let all = identity();
    let expected = json!({
        "iss": "https://fleet.example", "aud": "hello/staging", "iat": NOW_S, "exp": NOW_S + 60, "jti": "r1",
        "sub": "alice \"a\"\n", "idp": "corp", "groups": ["beta", "staff"], "app": "batch", "app_groups": ["partners"],
    });
    assert_eq!(claims(&signer.sign(&all, "hello/staging", "r1", NOW_S)), expected);
    let refused = Identity { user: Standing::Refused(Fault::Expired), ..all.clone() };
    let of_application = claims(&signer.sign(&refused, "hello/staging", "r1", NOW_S));
    assert!(["sub", "idp", "groups"].iter().all(|name| of_application.get(name).is_none()), "{of_application}");
    let of_user =
        claims(&signer.sign(&Identity { application: Standing::Absent, ..all }, "hello/staging", "r1", NOW_S));
    assert!(["app", "app_groups"].iter().all(|name| of_user.get(name).is_none()), "{of_user}");
}

#[test]
fn assertion_ends_with_what_it_was_told_by() {
    let signer = Signer::new("https://fleet.example", "a1", &Key::draw().pkcs8).expect("is a key");
    for (until_s, end_s) in [(None, 60), (Some(NOW_S + 7), 7), (Some(NOW_S + 60), 60), (Some(NOW_S + 900), 60)] {
        let token = signer.sign(&Identity { until_s, ..identity() }, "hello/staging", "r1", NOW_S);
        assert_eq!(claims(&token)["exp"], NOW_S + end_s, "{until_s:?}");
    }
}

#[test]
fn assertion_is_verified_by_what_is_published() {
    let [old, new] = [Key::draw(), Key::draw()];
    let published = jwks(&[
        ("a1".to_owned(), old.public),
        ("a2".to_owned(), new.public.clone()),
        ("short".to_owned(), vec![4; 64]),
        ("packed".to_owned(), [&[2], &[0; 64][..]].concat()),
        ("none".to_owned(), vec![]),
    ]);
    let published: Value = serde_json::from_str(&published).expect("is JSON");
    assert_eq!(published["keys"].as_array().map(Vec::len), Some(2));
    let mut us = corp();
    (us.issuer, us.audiences) = ("https://fleet.example".to_owned(), vec!["hello/staging".to_owned()]);
    let endpoint = Issuers::new([("corp", &us)].into_iter()).expect("is right");
    let sign = |kid: &str, pkcs8: &[u8]| {
        let signer = Signer::new("https://fleet.example", kid, pkcs8).expect("is a key");
        signer.sign(&identity(), "hello/staging", "r1", NOW_S)
    };
    let of = |token: String, now_s: u64| endpoint.user(token.as_bytes(), &ring(&published), now_s).fault();
    assert_eq!(of(sign("a1", &old.pkcs8), NOW_S), None);
    assert_eq!(of(sign("a2", &new.pkcs8), NOW_S + 89), None);
    assert_eq!(of(sign("a2", &new.pkcs8), NOW_S + 90), Some(Fault::Expired));
    assert_eq!(of(sign("a1", &new.pkcs8), NOW_S), Some(Fault::Signature));
}

#[test]
fn assertion_keys_are_read_or_refused_and_never_shown() {
    let key = Key::draw();
    let error = Signer::new("https://fleet.example", "a1", &key.pkcs8[1..]).expect_err("is cut");
    assert!(error.contains("\"a1\""), "{error}");
    let signer = Signer::new("https://fleet.example", "a1", &key.pkcs8).expect("is a key");
    assert_eq!(format!("{signer:?}"), "Signer { issuer: \"https://fleet.example\", .. }");
    let public = BASE64_URL_SAFE_NO_PAD.encode(&key.public);
    assert_eq!(format!("{key:?}"), format!("Key {{ public: {public:?}, .. }}"));
    assert_eq!((key.public.len(), key.public[0]), (65, 4));
}
