use std::sync::Arc;

use api::fleet;
use policies::credential::assertion::{Key, Signer, jwks};
use policies::credential::{Applications, KeySet, api_key};

use super::*;
use crate::codec::testing::head;

const NOW: u64 = 1_800_000_000;

struct Place {
    gate: Gate,
    keys: KeyRing,
    signer: Signer,
    key: api_key::Drawn,
    callers: Callers,
}

fn place() -> Place {
    let (signing, key) = (Key::draw(), api_key::draw(&[7; 40]));
    let issuer = fleet::Issuer {
        issuer: "https://login.example.com".into(),
        audiences: vec!["pointsman".into()],
        refresh_ms: 300_000,
        ..fleet::Issuer::default()
    };
    let known = fleet::ApiKey { sha256: key.sha256.as_bytes().to_vec(), until_ms: (NOW + 50) * 1_000 };
    let application = fleet::Application { keys: vec![known], ..fleet::Application::default() };
    let access = Access {
        issuers: Arc::new(Issuers::new([("corp", &issuer)].into_iter()).expect("good")),
        applications: Arc::new(Applications::new([("batch", &application)].into_iter()).expect("good")),
    };
    let set = KeySet::read(jwks(&[("one".into(), signing.public.clone())]).as_bytes()).expect("a set");
    let keys = KeyRing { issuers: [("corp".into(), Arc::new(set))].into(), generation: 1 };
    let signer = Signer::new("https://login.example.com", "one", &signing.pkcs8).expect("a key");
    let mut gate = Gate::default();
    (gate.generation, gate.access) = (1, access);
    Place { gate, keys, signer, key, callers: Callers::default() }
}

impl Place {
    fn token(&self, subject: &str, until: u64) -> String {
        let iss = "https://login.example.com";
        self.signer.sign_json(&serde_json::json!({ "iss": iss, "aud": "pointsman", "sub": subject, "exp": until }))
    }

    fn asks(&mut self, fields: &str, now_s: u64) -> Rc<Caller> {
        let head = head(&format!("GET / HTTP/1.1\nhost: a{fields}"));
        self.callers.identify(&self.gate, &self.keys, &presented(head.view(), &[]), || now_s)
    }

    fn held(&self) -> (usize, usize) {
        (self.callers.known.len(), self.callers.tokens.len())
    }
}

#[test]
fn callers_are_known_by_their_bytes_as_long_as_all_is_the_same() {
    let mut place = place();
    let token = place.token("alice", NOW + 100);
    let fields = format!("\nx-api-key: {}\nauthorization: Bearer {token}", place.key.text);
    let first = place.asks(&fields, NOW);
    assert!(first.is_known() && first.spent_authorization() && first.number.is_some_and(|number| number != NOBODY));
    assert!(Rc::ptr_eq(&first, &place.asks(&fields, NOW)));
    let other = place.asks(&format!("\nauthorization: Bearer {token}"), NOW);
    assert_ne!(other.number, first.number, "without the application it is another");
    // The key ends before the token does.
    let later = place.asks(&fields, NOW + 60);
    assert!(!Rc::ptr_eq(&first, &later) && matches!(later.identity.application, Standing::Refused(Fault::KeyExpired)));
    let again = place.asks(&fields, NOW);
    place.gate.generation += 1;
    assert!(!Rc::ptr_eq(&again, &place.asks(&fields, NOW)), "others may pass now");
    assert_eq!(place.held().1, 1, "and the token is still good");
    let again = place.asks(&fields, NOW);
    place.keys.generation += 1;
    assert!(!Rc::ptr_eq(&again, &place.asks(&fields, NOW)), "keys are others");
    place.keys.issuers.clear();
    place.keys.generation += 1;
    let unsure = place.asks(&fields, NOW);
    assert!(unsure.lacks_keys() && unsure.spent_authorization(), "its token goes no further");
}

#[test]
fn callers_by_a_certificate_are_known_until_it_ends() {
    let mut place = place();
    let name = "spiffe://example.com/batch";
    let application = fleet::Application { certificates: vec![name.into()], ..fleet::Application::default() };
    place.gate.access.applications = Arc::new(Applications::new([("batch", &application)].into_iter()).expect("good"));
    let names = [name.to_owned()];
    let mut shows = |until_s, now_s| {
        let presented = Presented { certificate: &names, certificate_until_s: Some(until_s), ..Presented::default() };
        place.callers.identify(&place.gate, &place.keys, &presented, || now_s)
    };
    // Another certificate with the same name.
    let renewed = shows(NOW + 1_000, NOW);
    let first = shows(NOW + 50, NOW);
    assert!(first.is_known() && Rc::ptr_eq(&first, &shows(NOW + 50, NOW + 49)));
    assert_eq!(first.presented().certificate_until_s, Some(NOW + 50));
    let ended = shows(NOW + 50, NOW + 50);
    assert!(matches!(ended.identity.application, Standing::Refused(Fault::CertificateExpired)), "{ended:?}");
    assert!(Rc::ptr_eq(&renewed, &shows(NOW + 1_000, NOW + 50)));
}

#[test]
fn hostile_h45_garbage_is_not_remembered_and_makes_nobody_forgotten() {
    let mut place = place();
    let fields = format!("\nx-api-key: {}\nauthorization: Bearer {}", place.key.text, place.token("alice", NOW + 100));
    let known = place.asks(&fields, NOW);
    let held = place.held();
    for number in 0..3 * MOST {
        for garbage in [
            format!("\nx-api-key: garbage{number}"),
            format!("\nauthorization: Bearer garbage{number}"),
            format!("\nx-api-key: {}\nauthorization: Bearer garbage{number}", place.key.text),
        ] {
            place.asks(&garbage, NOW);
        }
    }
    // The application by itself is one more.
    assert_eq!(place.held(), (held.0 + 1, held.1));
    assert!(place.callers.halves.len() <= 2 * MOST_HALVES);
    assert!(Rc::ptr_eq(&known, &place.asks(&fields, NOW)));
}

#[test]
fn callers_that_are_the_same_to_policies_have_one_number() {
    let mut place = place();
    let key = place.key.text.clone();
    let alone = place.asks(&format!("\nx-api-key: {key}"), NOW).number;
    for own in ["Basic eDp5", "Bearer garbage"] {
        let caller = place.asks(&format!("\nx-api-key: {key}\nauthorization: {own}"), NOW);
        assert!(caller.number == alone && alone.is_some() && !caller.spent_authorization(), "{own}");
    }
    for nobody in ["", "\nauthorization: Basic eDp5", "\nx-api-key: x", "\nx-api-key: a\nx-api-key: b"] {
        assert_eq!(place.asks(nobody, NOW).number, Some(NOBODY), "{nobody}");
    }
    // A key that is refused is not made up for, and is none.
    let token = place.token("alice", NOW + 100);
    let with = |key: &str| format!("\nx-api-key: {key}\nauthorization: Bearer {token}");
    let user = place.asks(&with("x"), NOW).number;
    assert!(user.is_some_and(|number| number != NOBODY) && user != alone);
    assert_eq!(place.asks(&with("y"), NOW).number, user);
    assert_eq!(place.asks(&format!("\nauthorization: Bearer {token}"), NOW).number, user);
    assert_ne!(place.asks(&with(&key), NOW).number, user);
}

#[test]
fn callers_of_whom_one_half_is_valid_are_looked_at_once() {
    let mut place = place();
    let (key, token) = (place.key.text.clone(), place.token("alice", NOW + 100));
    for fields in [
        format!("\nx-api-key: {key}\nauthorization: Basic eDp5"),
        format!("\nx-api-key: {key}\nauthorization: Bearer garbage"),
        format!("\nx-api-key: x\nauthorization: Bearer {token}"),
    ] {
        let first = place.asks(&fields, NOW);
        assert!(Rc::ptr_eq(&first, &place.asks(&fields, NOW)), "{fields}");
        assert!(!Rc::ptr_eq(&first, &place.asks(&fields, NOW + 200)), "{fields}: it has ended");
    }
    // Of what time alone makes valid nothing is kept.
    let claims = serde_json::json!({ "iss": "https://login.example.com", "aud": "pointsman", "sub": "a",
        "exp": NOW + 9_000, "nbf": NOW + 1_000 });
    let early = format!("\nx-api-key: {key}\nauthorization: Bearer {}", place.signer.sign_json(&claims));
    let first = place.asks(&early, NOW);
    assert!(matches!(first.identity.user, Standing::Refused(Fault::NotYet)) && first.number.is_some());
    assert!(!Rc::ptr_eq(&first, &place.asks(&early, NOW)));
}

#[test]
fn hostile_h45_blanks_and_case_are_no_other_caller_and_what_is_long_is_not_kept() {
    let mut place = place();
    let token = place.token("alice", NOW + 100);
    let first = place.asks(&format!("\nauthorization: Bearer {token}"), NOW);
    for scheme in ["bearer ", "BEARER ", "bEaReR     "] {
        assert!(Rc::ptr_eq(&first, &place.asks(&format!("\nauthorization: {scheme}{token}"), NOW)), "{scheme}");
    }
    let by_proxy = place.asks(&format!("\nauthorization: Basic a\nproxy-authorization: Bearer {token}"), NOW);
    assert!(by_proxy.is_known() && !Rc::ptr_eq(&first, &by_proxy) && !by_proxy.spent_authorization());
    let other = format!("\nauthorization: Basic b\nproxy-authorization: bearer {token}");
    assert!(Rc::ptr_eq(&by_proxy, &place.asks(&other, NOW)), "what is the application's own does not count");
    assert_eq!(place.held(), (2, 1));
    let claims = serde_json::json!({ "iss": "https://login.example.com", "aud": "pointsman", "sub": "alice",
        "exp": NOW + 100, "more": "x".repeat(4_096) });
    let long = format!("\nauthorization: Bearer {}", place.signer.sign_json(&claims));
    let caller = place.asks(&long, NOW);
    assert!(caller.is_known() && caller.number.is_none());
    assert_eq!(place.held(), (2, 1));
}

#[test]
fn a_token_is_found_where_it_counts() {
    for (fields, expected) in [
        ("\nauthorization: Bearer a", Some(&b"a"[..])),
        ("\nauthorization: bEARER a", Some(&b"a"[..])),
        ("\nauthorization: Bearer a\nproxy-authorization: Bearer b", Some(&b"b"[..])),
        ("\nauthorization: Bearer a\nproxy-authorization: Basic b", None),
        ("\nauthorization: Bearer a\nauthorization: Bearer a", None),
        ("\nauthorization: Basic a", None),
        ("", None),
    ] {
        let head = head(&format!("GET / HTTP/1.1\nhost: a{fields}"));
        assert_eq!(token(&presented(head.view(), &[])), expected, "{fields}");
    }
}
