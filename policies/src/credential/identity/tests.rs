//! Fields and certificates, and who that makes.

use api::fleet::{self, ApiKey, IssuedClient};
use serde_json::json;

use super::*;
use crate::credential::tests::{Issuing, NOW_S, issuers};
use crate::credential::{Applications, KeyRing, TOKEN_BYTES, api_key};

/// An issuer and four applications: "keyed", which has an API key that ends in 100 s, "shown" and "other", which have
/// certificates, and "named", which is a client of the issuer.
struct Place {
    issuing: Issuing,
    ring: KeyRing,
    access: Access,
    key: String,
}

impl Place {
    fn new() -> Self {
        let drawn = api_key::draw(&[7; 40]);
        let key = ApiKey { sha256: drawn.sha256.as_bytes().to_vec(), until_ms: (NOW_S + 100) * 1000 };
        let keyed = fleet::Application { keys: vec![key], ..Default::default() };
        let shown = fleet::Application { certificates: vec!["shown.example.com".to_owned()], ..Default::default() };
        let other = fleet::Application { certificates: vec!["other.example.com".to_owned()], ..Default::default() };
        let client = IssuedClient { issuer: "corp".to_owned(), client_id: "abc".to_owned() };
        let named = fleet::Application { clients: vec![client], ..Default::default() };
        let all = [("keyed", keyed), ("shown", shown), ("other", other), ("named", named)];
        let applications = Applications::new(all.iter().map(|(name, application)| (*name, application)));
        let applications = Arc::new(applications.expect("are right"));
        let issuing = Issuing::new();
        let ring = issuing.ring();
        Self { issuing, ring, access: Access { issuers: Arc::new(issuers()), applications }, key: drawn.text }
    }

    fn identify(&self, presented: &Presented<'_>, ring: &KeyRing) -> Identity {
        self.access.identify(presented, NOW_S, |token| self.access.issuers.user(token, ring, NOW_S))
    }
}

/// "application user", each a name or what became of it.
fn brief(identity: &Identity) -> String {
    fn of<T>(standing: &Standing<T>, name: impl Fn(&T) -> String) -> String {
        match standing {
            Standing::Absent => "absent".to_owned(),
            Standing::Valid(known) => name(known),
            Standing::Refused(fault) => format!("{fault:?}"),
            Standing::Unavailable(fault) => format!("unavailable:{fault:?}"),
        }
    }
    let application = of(&identity.application, |application| application.name.to_string());
    format!("{application} {}", of(&identity.user, |user| user.subject.clone()))
}

#[test]
fn identity_is_what_the_fields_say() {
    let place = Place::new();
    let alice = format!("Bearer {}", place.issuing.with(json!({})));
    let named = format!("Bearer {}", place.issuing.with(json!({ "azp": "abc" })));
    let shown = ["shown.example.com".to_owned()];
    let both = ["other.example.com".to_owned(), "shown.example.com".to_owned()];
    let stranger = ["stranger.example.com".to_owned()];
    let (key, alice, named) =
        (Given::One(place.key.as_bytes()), Given::One(alice.as_bytes()), Given::One(named.as_bytes()));
    let bad = Given::One(b"pm_nonsense");
    for (api_key, authorization, proxy_authorization, certificate, expected) in [
        (Given::Nothing, Given::Nothing, Given::Nothing, &[][..], "absent absent"),
        (key, Given::Nothing, Given::Nothing, &[], "keyed absent"),
        (key, alice, Given::Nothing, &[], "keyed alice"),
        (key, named, Given::Nothing, &shown, "keyed alice"),
        (Given::Nothing, named, Given::Nothing, &shown, "shown alice"),
        (Given::Nothing, named, Given::Nothing, &stranger, "named alice"),
        (Given::Nothing, alice, Given::Nothing, &stranger, "absent alice"),
        (Given::Nothing, Given::Nothing, Given::Nothing, &stranger, "absent absent"),
        // A key that is refused is not made up for.
        (bad, named, Given::Nothing, &shown, "KeyLength alice"),
        (Given::Several, named, Given::Nothing, &shown, "Repeated alice"),
        (Given::One(b""), named, Given::Nothing, &shown, "KeyLength alice"),
        (Given::Nothing, named, Given::Nothing, &both, "CertificateAmbiguous alice"),
        // One field counts, the other is the application's own.
        (Given::Nothing, Given::One(b"Basic dTpw"), named, &[], "named alice"),
        (Given::Nothing, named, Given::One(b"Basic dTpw"), &[], "absent NotBearer"),
        (Given::Nothing, named, Given::Several, &[], "absent Repeated"),
        (Given::Nothing, Given::Several, named, &[], "named alice"),
        (Given::Nothing, Given::Several, Given::Nothing, &[], "absent Repeated"),
    ] {
        let presented = Presented { api_key, authorization, proxy_authorization, certificate, ..Default::default() };
        let identity = place.identify(&presented, &place.ring);
        assert_eq!(brief(&identity), expected, "{presented:?}");
        assert_eq!(identity.by_proxy_authorization, proxy_authorization != Given::Nothing);
    }
}

#[test]
fn identity_lasts_as_long_as_what_ends_first() {
    let place = Place::new();
    let long = format!("Bearer {}", place.issuing.with(json!({})));
    let short = format!("Bearer {}", place.issuing.with(json!({ "exp": NOW_S + 10 })));
    let refused = format!("Bearer {}", place.issuing.with(json!({ "exp": NOW_S - 31 })));
    let key = Given::One(place.key.as_bytes());
    for (api_key, token, expected) in [
        (Given::Nothing, Some(&long), Some(NOW_S + 630)),
        (key, Some(&long), Some(NOW_S + 100)),
        (key, Some(&short), Some(NOW_S + 40)),
        (key, None, Some(NOW_S + 100)),
        (Given::Nothing, Some(&refused), None),
        (Given::Nothing, None, None),
    ] {
        let authorization = token.map_or(Given::Nothing, |token| Given::One(token.as_bytes()));
        let identity = place.identify(&Presented { api_key, authorization, ..Default::default() }, &place.ring);
        assert_eq!(identity.until_s, expected, "{}", brief(&identity));
    }
}

#[test]
fn identity_by_a_certificate_lasts_as_long_as_that_does() {
    let place = Place::new();
    let token = format!("Bearer {}", place.issuing.with(json!({})));
    let (key, alice) = (Given::One(place.key.as_bytes()), Given::One(token.as_bytes()));
    let (shown, stranger) = (["shown.example.com".to_owned()], ["stranger.example.com".to_owned()]);
    for (api_key, authorization, certificate, ends_in_s, expected, until_s) in [
        (Given::Nothing, Given::Nothing, &shown, 50, "shown absent", Some(50)),
        (Given::Nothing, Given::Nothing, &shown, 1, "shown absent", Some(1)),
        (Given::Nothing, Given::Nothing, &shown, 0, "CertificateExpired absent", None),
        (Given::Nothing, alice, &shown, 50, "shown alice", Some(50)),
        (Given::Nothing, alice, &shown, 1_000, "shown alice", Some(630)),
        (Given::Nothing, alice, &shown, 0, "CertificateExpired alice", Some(630)),
        // It says nothing of who the application is.
        (key, Given::Nothing, &shown, 50, "keyed absent", Some(100)),
        (key, Given::Nothing, &shown, 0, "keyed absent", Some(100)),
        (Given::Nothing, alice, &stranger, 50, "absent alice", Some(630)),
        (Given::Nothing, alice, &stranger, 0, "absent alice", Some(630)),
    ] {
        let certificate_until_s = Some(NOW_S + ends_in_s);
        let presented = Presented { api_key, authorization, certificate, certificate_until_s, ..Default::default() };
        let identity = place.identify(&presented, &place.ring);
        let found = (brief(&identity), identity.until_s);
        assert_eq!(found, (expected.to_owned(), until_s.map(|seconds| NOW_S + seconds)), "{ends_in_s}");
    }
}

#[test]
fn identity_cannot_be_told_without_keys() {
    let place = Place::new();
    let named = format!("Bearer {}", place.issuing.with(json!({ "azp": "abc" })));
    let presented = Presented { authorization: Given::One(named.as_bytes()), ..Default::default() };
    let none = KeyRing::default();
    let expected = "unavailable:KeysMissing unavailable:KeysMissing";
    assert_eq!(brief(&place.identify(&presented, &none)), expected);
    // Who shows a certificate needs no token to be an application, and where no application is a client none can be.
    let shown = ["shown.example.com".to_owned()];
    let with_certificate = Presented { certificate: &shown, ..presented };
    assert_eq!(brief(&place.identify(&with_certificate, &none)), "shown unavailable:KeysMissing");
    let access = Access { applications: Arc::default(), ..place.access };
    let identity = access.identify(&presented, NOW_S, |token| access.issuers.user(token, &none, NOW_S));
    assert_eq!(brief(&identity), "absent unavailable:KeysMissing");
}

#[test]
fn hostile_h42_joined_and_repeated_fields_are_refused_alike() {
    let place = Place::new();
    let token = place.issuing.with(json!({}));
    for joined in [
        format!("Bearer {token}, Bearer {token}"),
        format!("Bearer {token},Bearer {token}"),
        format!("Bearer {token}, Basic dTpw"),
        format!("Bearer {token},"),
        format!("Bearer ,{token}"),
    ] {
        let presented = Presented { authorization: Given::One(joined.as_bytes()), ..Default::default() };
        let repeated = Presented { authorization: Given::Several, ..Default::default() };
        let [joined, repeated] = [presented, repeated].map(|presented| place.identify(&presented, &place.ring));
        assert_eq!(joined, repeated);
        assert_eq!(brief(&joined), "absent Repeated");
    }
}

#[test]
fn bearer_is_one_scheme_and_one_token() {
    let huge = format!("Bearer {}", "x".repeat(TOKEN_BYTES + 1));
    for (value, expected) in [
        ("Bearer a.b.c", Ok("a.b.c")),
        ("bearer a.b.c", Ok("a.b.c")),
        ("BEARER a.b.c", Ok("a.b.c")),
        ("Bearer   a.b.c", Ok("a.b.c")),
        ("Bearer a b", Ok("a b")),
        ("Bearer ", Ok("")),
        ("Bearer", Err(Fault::NotBearer)),
        ("", Err(Fault::NotBearer)),
        ("a.b.c", Err(Fault::NotBearer)),
        (" Bearer a.b.c", Err(Fault::NotBearer)),
        ("Bearer\ta.b.c", Err(Fault::NotBearer)),
        ("Bearer:a.b.c", Err(Fault::NotBearer)),
        ("Bearers a.b.c", Err(Fault::NotBearer)),
        ("Basic dTpw", Err(Fault::NotBearer)),
        ("DPoP a.b.c", Err(Fault::NotBearer)),
        (&huge, Err(Fault::TokenLength)),
    ] {
        assert_eq!(bearer(value.as_bytes()), expected.map(str::as_bytes), "{:?}", value.get(..40).unwrap_or(value));
    }
}
