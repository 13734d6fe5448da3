//! Tokens that are right, tokens that are not, and issuers that cannot be.

use std::collections::BTreeSet;

use api::fleet::{ClaimAttribute, GroupRule};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::credential::Attribute;
use crate::credential::tests::{ISS, Issuing, NOW_S, Signed, corp, issuers, ring};

fn fault(standing: &Standing<Arc<User>>) -> String {
    match standing {
        Standing::Valid(_) => "ok".to_owned(),
        Standing::Refused(fault) => format!("{fault:?}"),
        other => format!("{other:?}"),
    }
}

/// A line's text with its variables filled in.
fn filled(text: &str, standard: &str) -> String {
    let base = format!(r#""iss":"{ISS}","aud":"pointsman","sub":"alice""#);
    let mut text = if text == "*" { standard.to_owned() } else { text.to_owned() };
    text = text.replace("$base", &base).replace("$10k", &"k".repeat(10_000)).replace("$64k", &"k".repeat(65_536));
    text = text.replace("$256", &"s".repeat(256));
    for (name, time_s) in [
        ("$now", NOW_S),
        ("$past", NOW_S - 31),
        ("$leeway", NOW_S - 30),
        ("$grace", NOW_S - 29),
        ("$later", NOW_S + 600),
        ("$soon", NOW_S + 29),
        ("$ahead", NOW_S + 31),
    ] {
        text = text.replace(name, &time_s.to_string());
    }
    text
}

#[test]
fn hostile_h44_every_token_of_the_table_is_refused_for_its_own_reason() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let ring = issuing.ring();
    let mut seen = BTreeSet::new();
    for (place, line) in include_str!("h44.txt").lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [expected, header, claims, rest @ ..] = &*columns else { panic!("line {}: {line}", place + 1) };
        let signed = match rest.first().copied() {
            None | Some("p1") => Signed::By("p1"),
            Some("p2") => Signed::By("p2"),
            Some("enc") => Signed::By("enc"),
            Some("cut") => Signed::Cut,
            Some("der") => Signed::Der,
            Some("hmac") => Signed::Hmac,
            Some("nothing") => Signed::Nothing,
            Some(other) => panic!("line {}: {other}", place + 1),
        };
        let header = filled(header, r#"{"alg":"ES256","kid":"p1"}"#);
        let claims = filled(claims, r#"{$base,"exp":$later}"#);
        let token = issuing.token(&header, &filled(&claims, ""), signed);
        assert_eq!(fault(&issuers.user(token.as_bytes(), &ring, NOW_S)), *expected, "line {}: {line}", place + 1);
        seen.insert((*expected).to_owned());
    }
    // Each fault of a token has a line, or a test of its own below.
    let elsewhere = [Fault::TokenShape, Fault::TokenEncoding, Fault::KeysMissing];
    for fault in Fault::ALL.iter().filter(|fault| (10..80).contains(&(**fault as u8)) && !elsewhere.contains(fault)) {
        assert!(seen.contains(&format!("{fault:?}")), "no line shows {fault:?}");
    }
}

#[test]
fn hostile_h44_a_token_has_one_spelling() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let ring = issuing.ring();
    let token = issuing.with(json!({}));
    let check = |token: &str, expected: &str| {
        assert_eq!(fault(&issuers.user(token.as_bytes(), &ring, NOW_S)), expected, "{token}");
    };
    check(&token, "ok");
    let parts: Vec<&str> = token.split('.').collect();
    for other in
        ["", ".", "..", "a.b", &format!("{token}."), &format!(".{token}"), &format!("{}.{}", parts[0], parts[1])]
    {
        check(other, if other == ".." { "HeaderJson" } else { "TokenShape" });
    }
    for other in [
        format!("{token}="),
        format!("{token} "),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        token.replace(parts[1], &format!("{}+", parts[1])),
        format!("{}.{}.{}", parts[0], parts[1], parts[2].replacen(|_| true, "/", 1)),
    ] {
        check(&other, "TokenEncoding");
    }
    // The last character of 64 bytes has four bits that do not count: any other than zeros is refused.
    let last = token.chars().last().expect("is not empty");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for other in alphabet.chars().filter(|other| *other != last) {
        let is_canonical = alphabet.find(other).is_some_and(|value| value % 16 == 0);
        let other = format!("{}{other}", &token[..token.len() - 1]);
        check(&other, if is_canonical { "Signature" } else { "TokenEncoding" });
    }
}

#[test]
fn hostile_h44_length_is_refused_before_anything_is_read() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let most = "x".repeat(16 * 1024);
    assert_eq!(fault(&issuers.user(most.as_bytes(), &issuing.ring(), NOW_S)), "TokenShape");
    assert_eq!(fault(&issuers.user(format!("{most}x").as_bytes(), &issuing.ring(), NOW_S)), "TokenLength");
}

#[test]
fn keys_that_were_never_fetched_make_a_token_unavailable() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let token = issuing.with(json!({}));
    let standing = issuers.user(token.as_bytes(), &KeyRing::default(), NOW_S);
    assert_eq!(standing, Standing::Unavailable(Fault::KeysMissing));
    // Whose keys would have to be fetched, and only if they are somebody's whom we know.
    assert_eq!(issuers.named_by(token.as_bytes()).map(|name| &**name), Some("corp"));
    assert_eq!(issuers.named_by(issuing.with(json!({ "iss": "https://evil.example" })).as_bytes()), None);
    assert_eq!(issuers.named_by(b"garbage"), None);
    assert_eq!(issuers.named_by(issuing.with(json!({ "x": "x".repeat(16_384) })).as_bytes()), None);
}

#[test]
fn kid_may_be_missing_when_there_is_one_key() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let mut set = issuing.jwks();
    let keys = set["keys"].as_array_mut().expect("is a list");
    keys.truncate(1);
    keys[0].as_object_mut().expect("is a key").remove("kid");
    let one = ring(&set);
    let claims = filled("*", r#"{$base,"exp":$later}"#);
    let claims = filled(&claims, "");
    let token = |header: &str| issuing.token(header, &claims, Signed::By("p1"));
    let of = |header: &str, ring: &KeyRing| fault(&issuers.user(token(header).as_bytes(), ring, NOW_S));
    assert_eq!(of(r#"{"alg":"ES256"}"#, &one), "ok");
    assert_eq!(of(r#"{"alg":"ES256","kid":"p1"}"#, &one), "UnknownKey");
    assert_eq!(of(r#"{"alg":"ES256"}"#, &issuing.ring()), "KeyIdMissing");
}

#[test]
fn rules_make_groups_and_attributes() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let token = issuing.with(json!({
        "groups": ["staff", "beta", "staff", ""], "realm_access": { "roles": "viewer" }, "role": ["user", "admin"],
        "azp": "abc", "client_id": "other",
        "department": "trains", "level": -7, "vip": false, "https://example.com/sites": "syd",
    }));
    let Standing::Valid(user) = issuers.user(token.as_bytes(), &issuing.ring(), NOW_S) else { panic!("is valid") };
    assert_eq!((&*user.issuer, &*user.subject, user.client.as_deref()), ("corp", "alice", Some("abc")));
    assert_eq!(user.until_s, NOW_S + 600 + 30);
    let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["admins", "beta", "kc-viewer", "staff"]);
    let attributes: Vec<_> = user.attributes.iter().map(|(name, value)| (&**name, value.clone())).collect();
    let expected = [
        ("department", Attribute::String("trains".to_owned())),
        ("level", Attribute::Long(-7)),
        ("sites", Attribute::Strings(vec!["syd".to_owned()])),
        ("vip", Attribute::Bool(false)),
    ];
    assert_eq!(attributes, expected);
    assert_eq!(issuers.attribute_types().into_keys().collect::<Vec<_>>(), ["department", "level", "sites", "vip"]);
}

#[test]
fn rules_add_nothing_for_what_a_token_does_not_say() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let token = issuing.with(json!({ "role": ["Admin", "admin "], "realm_access": { "other": ["a"] } }));
    let Standing::Valid(user) = issuers.user(token.as_bytes(), &issuing.ring(), NOW_S) else { panic!("is valid") };
    assert!(user.groups.is_empty() && user.attributes.is_empty() && user.client.is_none(), "{user:?}");
}

#[test]
fn claims_are_found_by_their_longest_name() {
    let (issuing, mut corp) = (Issuing::new(), corp());
    corp.groups = vec![GroupRule { claim: "https://a.example/x.roles".to_owned(), ..Default::default() }];
    let issuers = Issuers::new([("corp", &corp)].into_iter()).expect("is right");
    for (claims, expected) in [
        (json!({ "https://a.example/x.roles": "whole", "https://a.example/x": { "roles": "inner" } }), "whole"),
        (
            json!({ "https://a.example/x": { "roles": "inner" }, "https://a": { "example/x": { "roles": "deep" } } }),
            "inner",
        ),
        (json!({ "https://a": { "example/x": { "roles": "deep" } } }), "deep"),
        (json!({ "https://a": { "example/x.roles": "dotted" } }), "dotted"),
    ] {
        let token = issuing.with(claims.clone());
        let Standing::Valid(user) = issuers.user(token.as_bytes(), &issuing.ring(), NOW_S) else { panic!("{claims}") };
        assert_eq!(user.groups.iter().map(|group| &**group).collect::<Vec<_>>(), [expected], "{claims}");
    }
}

#[test]
fn tokens_end_in_the_same_second_for_everybody() {
    let (issuing, issuers) = (Issuing::new(), issuers());
    let token = issuing.with(json!({}));
    let Standing::Valid(user) = issuers.user(token.as_bytes(), &issuing.ring(), NOW_S) else { panic!("is valid") };
    assert_eq!(fault(&issuers.user(token.as_bytes(), &issuing.ring(), user.until_s - 1)), "ok");
    assert_eq!(fault(&issuers.user(token.as_bytes(), &issuing.ring(), user.until_s)), "Expired");
    assert_eq!(fault(&issuers.user(token.as_bytes(), &issuing.ring(), u64::MAX)), "Expired");
}

#[test]
fn issuers_that_are_wrong_say_everything_that_is() {
    let mut wrong = corp();
    wrong.issuer = "http://login.example.com".to_owned();
    wrong.jwks_url = "https://user@login.example.com/keys".to_owned();
    wrong.audiences.clear();
    wrong.algorithms.push("HS256".to_owned());
    wrong.leeway_ms = 300_001;
    wrong.refresh_ms = 29_999;
    wrong.groups.push(GroupRule::default());
    wrong.groups.push(GroupRule { claim: "role".to_owned(), value: "admin".to_owned(), group: String::new() });
    for (attribute, kind) in [("1st", 1), ("subject", 1), ("level", 2), ("shape", 0), ("", 1)] {
        let (attribute, claim) = (attribute.to_owned(), "claim".to_owned());
        wrong.attributes.push(ClaimAttribute { attribute, claim, r#type: kind });
    }
    wrong.attributes.push(ClaimAttribute { attribute: "lost".to_owned(), claim: String::new(), r#type: 3 });
    let problems = Issuers::new([("bad", &wrong)].into_iter()).expect_err("is wrong");
    assert!(problems.iter().all(|problem| problem.place == "issuer bad"));
    let messages: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
    for (place, part) in [
        "\"issuer\"",
        "\"jwks\"",
        "\"audience\"",
        "\"leeway\"",
        "\"refresh\"",
        "\"HS256\"",
        "needs a claim",
        "names no group",
        "\"1st\"",
        "\"subject\"",
        "\"level\": stands twice",
        "\"shape\"",
        "\"\"",
        "\"lost\"",
    ]
    .into_iter()
    .enumerate()
    {
        assert!(messages.get(place).is_some_and(|message| message.contains(part)), "{part}: {messages:#?}");
    }
    assert_eq!(messages.len(), 14, "{messages:#?}");
}

#[test]
fn issuers_have_to_agree() {
    let mut other = corp();
    other.attributes[0].r#type = Type::Long as i32;
    let problems = Issuers::new([("corp", &corp()), ("other", &other)].into_iter()).expect_err("they do not");
    let messages: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
    assert!(messages[0].contains("another type") && messages[1].contains("that of corp too"), "{messages:?}");
    other.issuer = "https://other.example".to_owned();
    other.attributes = corp().attributes;
    assert!(Issuers::new([("corp", &corp()), ("other", &other)].into_iter()).is_ok());
}

#[test]
fn addresses_are_secure_or_near() {
    for (url, expected) in [
        ("https://login.example.com", true),
        ("https://login.example.com:8443/realms/a-b_c/", true),
        ("https://[2001:db8::7]:8443/x", true),
        ("http://127.0.0.1:8080/keys", true),
        ("http://[::1]:8080/keys", true),
        ("http://[::1]", true),
        ("http://localhost:1/", true),
        ("http://login.example.com", false),
        ("http://localhost.example.com", false),
        ("http://127.0.0.1.example.com/", false),
        ("http://127.0.0.1@example.com/", false),
        ("https://", false),
        ("https:///keys", false),
        ("https://:443/", false),
        ("https://a:0/", false),
        ("https://a:port/", false),
        ("https://a:99999/", false),
        ("https://a/?x", false),
        ("https://a/#x", false),
        ("https://a/ b", false),
        ("https://a\\b/", false),
        ("https://ä.example", false),
        ("HTTPS://a/", false),
        ("ftp://a/", false),
        ("a", false),
        ("", false),
    ] {
        assert_eq!(is_fetchable(url), expected, "{url}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hostile_h44_a_token_with_any_byte_changed_is_never_valid(place in any::<prop::sample::Index>(), byte: u8) {
        let (issuing, issuers) = (Issuing::new(), issuers());
        let mut token = issuing.with(json!({})).into_bytes();
        let place = place.index(token.len());
        let before = std::mem::replace(&mut token[place], byte);
        let standing = issuers.user(&token, &issuing.ring(), NOW_S);
        prop_assert_eq!(standing.valid().is_some(), before == byte);
    }

    #[test]
    fn garbage_is_refused_and_never_panics(token in prop::collection::vec(any::<u8>(), 0..300)) {
        let issuers = issuers();
        prop_assert!(matches!(issuers.user(&token, &KeyRing::default(), NOW_S), Standing::Refused(_)));
    }

    /// Parts that are base64url of something near to a header and claims get further than garbage.
    #[test]
    fn near_tokens_never_panic(header in "\\{\"alg\":\"(ES256|RS256|none)\",\"[a-z]{1,4}\":[0-9\"{}\\[\\],.a-z]{0,20}\\}?",
                               claims in "\\{\"iss\":\"https://login.example.com\",\"(aud|exp|sub)\":[0-9\"{}\\[\\],.a-z-]{0,20}\\}?") {
        let (issuing, issuers) = (Issuing::new(), issuers());
        let token = issuing.token(&header, &claims, Signed::By("p1"));
        prop_assert!(issuers.user(token.as_bytes(), &issuing.ring(), NOW_S).valid().is_none());
    }
}
