//! Credentials: whatever is presented, nobody is taken for somebody.

use std::sync::{Arc, LazyLock};

use api::fleet;
use policies::credential::{Access, Applications, Given, Issuers, KeyRing, KeySet, Presented};

/// One key of an issuer; its private half is gone.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","use":"sig","x":"yz_26KxgbgOvx3N08snBqoqGBQ_N2qCO7Eummvg4JUI","y":"EE5mDBI324ti57oSHT0I2lOp6TRySRrTMTAGDorTHj4"}]}"#;
/// The one token that was ever signed with it and counts.
const GOOD: [&str; 3] = [
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ",
    "eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiYXVkIjoicG9pbnRzbWFuIiwic3ViIjoiYWxpY2UiLCJleHAiOjE4MDAwMDM2MDAsImdyb3VwcyI6WyJzdGFmZiJdfQ",
    "B1mw4GdAA7fuCgHeS0x5Kgn0pWjEkpxW1LFaEfrq3bDpyW0lg70fsOaulMQrc0E24KUGOU-rUqWCuQgljjj8RQ",
];
/// An hour before that token ends.
const NOW_S: u64 = 1_800_000_000;

static ACCESS: LazyLock<Access> = LazyLock::new(|| {
    let issuer = fleet::Issuer {
        issuer: "https://issuer.example".into(),
        audiences: vec!["pointsman".into()],
        leeway_ms: 30_000,
        refresh_ms: 300_000,
        groups: vec![fleet::GroupRule { claim: "groups".into(), ..Default::default() }],
        ..Default::default()
    };
    // Nobody has the key of which this is the digest.
    let application =
        fleet::Application { keys: vec![fleet::ApiKey { sha256: vec![7; 32], until_ms: 0 }], ..Default::default() };
    let issuers = Issuers::new([("corp", &issuer)].into_iter()).expect("an issuer");
    let applications = Applications::new([("shop", &application)].into_iter()).expect("an application");
    Access { issuers: Arc::new(issuers), applications: Arc::new(applications) }
});

/// Two lines, an API key and what stands in `authorization`; the rest is a set of keys.
///
/// - No API key is ever an application's.
/// - With an issuer's own key, only the one token that it signed is valid, in one spelling.
/// - A set that can be read has 1 to 100 keys, and what is made of a token with it is the same each time.
pub fn credential(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |b| *b == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (key, authorization, set) = (next(), next(), next());
    let presented =
        Presented { api_key: Given::One(key), authorization: Given::One(authorization), ..Presented::default() };
    let identify = |keys: &[u8]| {
        let set = KeySet::read(keys).ok()?;
        assert!((1..=100).contains(&set.count()), "{} keys", set.count());
        let ring = KeyRing { issuers: [("corp".into(), Arc::new(set))].into(), generation: 1 };
        Some(ACCESS.identify(&presented, NOW_S, |token| ACCESS.issuers.user(token, &ring, NOW_S)))
    };
    let known = identify(KEYS.as_bytes()).expect("a set of keys");
    assert!(known.application.valid().is_none(), "an application was made up");
    if let Some(user) = known.user.valid() {
        let (scheme, token) = authorization.split_at("bearer ".len());
        assert!(scheme.eq_ignore_ascii_case(b"bearer "));
        assert_eq!(token.trim_ascii_start(), GOOD.join(".").as_bytes(), "another token is valid");
        assert_eq!((&*user.subject, user.until_s), ("alice", 1_800_003_630));
    }
    assert_eq!(identify(set).map(|other| other.user), identify(set).map(|other| other.user));
}
