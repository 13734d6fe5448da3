//! Ids that open, ids that do not, and what they have in common.

use proptest::prelude::*;

use super::*;

const DENIAL: Denial = Denial {
    at_ms: 1_800_000_000_123,
    stage: 0x0123_4567_89ab_cdef,
    application: 2,
    user: u64::MAX,
    why: 3,
    application_fault: 81,
    user_fault: 50,
};

fn text(id: &[u8; LENGTH]) -> &str {
    std::str::from_utf8(id).expect("base64url is ASCII")
}

#[test]
fn denial_opens_with_the_key_that_sealed_it() {
    let (seal, request_id) = (Seal::new(*b"key name", &[1; 32]), [9; 16]);
    let id = seal.seal(&DENIAL, &request_id);
    assert_eq!(seal.open(text(&id)), Ok((DENIAL, request_id)));
    assert_eq!(key_name(text(&id)), Ok(*b"key name"));
    assert_eq!(seal.name(), *b"key name");
    let error = Seal::new(*b"key NAME", &[1; 32]).open(text(&id)).expect_err("another name");
    assert!(error.contains("another key"), "{error}");
    assert!(Seal::new(*b"key name", &[2; 32]).open(text(&id)).is_err());
}

#[test]
fn denial_is_as_long_for_everybody_and_says_nothing() {
    let seal = Seal::new([0; 8], &[1; 32]);
    let nothing = Denial { at_ms: 0, stage: 0, application: 0, user: 0, why: 0, application_fault: 0, user_fault: 0 };
    let (all, none) = (seal.seal(&DENIAL, &[0; 16]), seal.seal(&nothing, &[1; 16]));
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    assert!(all.iter().chain(&none).all(is_base64url), "{} {}", text(&all), text(&none));
    // The key's name is in clear and the same, the request's id is in clear; what is sealed has no byte in a known place.
    let same = |one: &[u8], other: &[u8]| one.iter().zip(other).filter(|(one, other)| one == other).count();
    assert!(same(&all[32..], &none[32..]) < 16, "{} {}", text(&all), text(&none));
    // Only who asks twice with one id sees that it is the same.
    assert_ne!(seal.seal(&DENIAL, &[2; 16])[32..], seal.seal(&DENIAL, &[3; 16])[32..]);
}

#[test]
fn denial_that_was_changed_does_not_open() {
    let seal = Seal::new([0; 8], &[1; 32]);
    let id = seal.seal(&DENIAL, &[5; 16]);
    for place in 0..LENGTH {
        let mut changed = id;
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        assert!(seal.open(text(&changed)).is_err(), "{place}");
    }
    for other in
        ["", "4bf92f3577b34da6a3ce929d0e0e4736", &text(&id)[1..], &format!("{}=", &text(&id)[1..]), &"ä".repeat(50)]
    {
        let error = seal.open(other).expect_err("is no id");
        assert!(error.contains("100 characters"), "{error}");
        assert!(key_name(other).is_err());
    }
}

#[test]
fn denial_knows_names_by_their_digest() {
    // The first 8 bytes of the SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    assert_eq!(short("abc"), 0xba78_16bf_8f01_cfea);
    assert_ne!(short_user("corp", "alice"), short_user("corpa", "lice"));
    assert!(!format!("{:?}", Seal::new([7; 8], &[201; 32])).contains("201"));
}

proptest! {
    #[test]
    fn denial_round_trips(at_ms: u64, stage: u64, application: u64, user: u64, why: u8, application_fault: u8,
                          user_fault: u8, request_id: [u8; 16], key: [u8; 32]) {
        let denial = Denial { at_ms, stage, application, user, why, application_fault, user_fault };
        let seal = Seal::new([1; 8], &key);
        prop_assert_eq!(seal.open(text(&seal.seal(&denial, &request_id))), Ok((denial, request_id)));
    }

    #[test]
    fn garbage_is_no_denial_and_never_panics(text in "\\PC{0,120}|[A-Za-z0-9_-]{100}") {
        prop_assert!(Seal::new([1; 8], &[1; 32]).open(&text).is_err());
    }
}
