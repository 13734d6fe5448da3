//! API keys that are right, near misses, and applications that cannot be.

use api::fleet::{ApiKey, IssuedClient};
use proptest::prelude::*;

use super::*;

const NOW_S: u64 = 1_800_000_000;

fn drawn(seed: u8) -> api_key::Drawn {
    let mut random = [seed; 40];
    random.iter_mut().zip(0..).for_each(|(byte, place)| *byte = byte.wrapping_mul(31).wrapping_add(place));
    api_key::draw(&random)
}

fn key(drawn: &api_key::Drawn, until_ms: u64) -> ApiKey {
    ApiKey { sha256: drawn.sha256.as_bytes().to_vec(), until_ms }
}

fn applications(list: &[(&str, fleet::Application)]) -> Result<Applications, Vec<Problem>> {
    Applications::new(list.iter().map(|(name, application)| (*name, application)))
}

/// "batch", with two keys, of which the first ends in a minute.
fn batch() -> Applications {
    let batch = fleet::Application {
        keys: vec![key(&drawn(1), (NOW_S + 60) * 1000), key(&drawn(2), 0)],
        certificates: vec!["spiffe://example.com/batch".to_owned(), "Batch.Example.com".to_owned()],
        groups: ["partners", "beta", "partners"].map(str::to_owned).into(),
        ..Default::default()
    };
    let other = fleet::Application { certificates: vec!["other.example.com".to_owned()], ..Default::default() };
    applications(&[("batch", batch), ("other", other)]).expect("are right")
}

#[test]
fn api_keys_have_their_shape() {
    let drawn = drawn(7);
    assert_eq!(drawn.text.len(), api_key::LENGTH);
    assert_eq!(&drawn.text[..12], format!("pm_{}_", drawn.id));
    assert_eq!(drawn.sha256, Digest::of(drawn.text.as_bytes()));
    assert_eq!(api_key::read(drawn.text.as_bytes()), Ok(drawn.sha256));
    assert!(!format!("{drawn:?}").contains(&drawn.text[12..]), "{drawn:?}");
    // As it was on the day when it was first drawn: keys in use have to stay readable.
    assert_eq!(api_key::draw(&[0; 40]).text, "pm_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAASQmtyF");
}

#[test]
fn keys_are_found_until_they_end() {
    let batch = batch();
    let (first, second) = (drawn(1).text, drawn(2).text);
    let of = |key: &str, now_s: u64| {
        batch.by_key(key.as_bytes(), now_s).map(|(application, until_s)| (application.name.to_string(), until_s))
    };
    assert_eq!(of(&first, NOW_S), Ok(("batch".to_owned(), Some(NOW_S + 60))));
    assert_eq!(of(&second, NOW_S), Ok(("batch".to_owned(), None)));
    assert!(of(&first, NOW_S + 59).is_ok());
    assert_eq!(of(&first, NOW_S + 60), Err(Fault::KeyExpired));
    assert!(of(&second, u64::MAX).is_ok());
    let (application, _) = batch.by_key(second.as_bytes(), NOW_S).expect("is right");
    assert_eq!(application.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["beta", "partners"]);
}

#[test]
fn hostile_h46_keys_that_are_not_right_are_refused() {
    let batch = batch();
    let right = drawn(2).text;
    let wrong_checksum = format!("{}AAAAAA", &right[..55]);
    let megabyte = "x".repeat(1 << 20);
    let commas = ",".repeat(1 << 20);
    for (key, expected) in [
        ("", Fault::KeyLength),
        ("pm_", Fault::KeyLength),
        (&right[..12], Fault::KeyLength),
        (&right[..60], Fault::KeyLength),
        (&format!("{right}A"), Fault::KeyLength),
        (&format!("{right}\n"), Fault::KeyLength),
        (&megabyte, Fault::KeyLength),
        (&commas, Fault::KeyLength),
        (&format!("pm_{}", "x".repeat(1 << 20)), Fault::KeyLength),
        (&"x".repeat(61), Fault::KeyShape),
        (&"\0".repeat(61), Fault::KeyShape),
        (&right.replacen("pm_", "PM_", 1), Fault::KeyShape),
        (&right.replacen("pm_", "pm-", 1), Fault::KeyShape),
        (&format!("{}!{}", &right[..20], &right[21..]), Fault::KeyShape),
        (&format!("{}.{}", &right[..11], &right[12..]), Fault::KeyShape),
        (&wrong_checksum, Fault::KeyChecksum),
        (&drawn(3).text, Fault::KeyUnknown),
    ] {
        let refused = batch.by_key(key.as_bytes(), NOW_S).expect_err("is not right");
        assert_eq!(refused, expected, "{:?}", key.get(..70).unwrap_or(key));
    }
}

#[test]
fn hostile_h46_near_misses_with_a_right_checksum_are_unknown() {
    let batch = batch();
    let mut random = [2_u8; 40];
    random.iter_mut().zip(0..).for_each(|(byte, place)| *byte = byte.wrapping_mul(31).wrapping_add(place));
    assert!(batch.by_key(api_key::draw(&random).text.as_bytes(), NOW_S).is_ok(), "the key itself");
    for bit in 0..32 * 8 {
        let mut near = random;
        near[bit / 8] ^= 1 << (bit % 8);
        let near = api_key::draw(&near);
        assert_eq!(batch.by_key(near.text.as_bytes(), NOW_S).err(), Some(Fault::KeyUnknown), "{bit}");
    }
}

#[test]
fn hostile_h42_two_keys_are_refused_however_they_come() {
    let batch = batch();
    let (first, second) = (drawn(1).text, drawn(2).text);
    for joined in [
        format!("{first},{second}"),
        format!("{first}, {second}"),
        format!("{second},{second}"),
        format!(",{second}"),
        format!("{second},"),
        ",".to_owned(),
    ] {
        assert_eq!(batch.by_key(joined.as_bytes(), NOW_S).err(), Some(Fault::Repeated), "{joined}");
    }
}

#[test]
fn certificates_stand_for_one_application() {
    let batch = batch();
    for (names, expected) in [
        (&["spiffe://example.com/batch"][..], Ok(Some("batch"))),
        (&["x.example.com", "batch.example.COM"], Ok(Some("batch"))),
        (&["spiffe://example.com/batch", "batch.example.com"], Ok(Some("batch"))),
        (&["batch.example.com", "other.example.com"], Err(Fault::CertificateAmbiguous)),
        (&["spiffe://Example.com/batch"], Ok(None)),
        (&["spiffe://example.com/batch/"], Ok(None)),
        (&["*.example.com"], Ok(None)),
        (&[""], Ok(None)),
        (&[], Ok(None)),
    ] {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = batch.by_certificate(&names).map(|found| found.map(|application| &*application.name));
        assert_eq!(found, expected, "{names:?}");
    }
}

#[test]
fn applications_that_are_wrong_say_everything_that_is() {
    let client =
        |issuer: &str, client_id: &str| IssuedClient { issuer: issuer.to_owned(), client_id: client_id.to_owned() };
    let one = fleet::Application {
        keys: vec![key(&drawn(1), 0)],
        certificates: vec!["a.example.com".to_owned()],
        clients: vec![client("corp", "abc")],
        groups: vec![],
    };
    let two = fleet::Application {
        keys: vec![ApiKey { sha256: vec![1; 31], until_ms: 0 }, key(&drawn(1), 7)],
        certificates: vec![String::new(), "A.example.com".to_owned()],
        clients: vec![client("corp", "abc"), client("", "abc"), client("corp", ""), client("other", "abc")],
        groups: vec![String::new()],
    };
    let problems = applications(&[("one", one), ("two", two)]).expect_err("are wrong");
    assert!(problems.iter().all(|problem| problem.place == "application two"), "{problems:#?}");
    let messages: Vec<&str> = problems.iter().map(|problem| &*problem.message).collect();
    let expected =
        ["no name", "31 bytes", "stands twice", "no name", "\"A.example.com\"", "\"abc\" of corp", "lacks", "lacks"];
    assert_eq!(messages.len(), expected.len(), "{messages:#?}");
    assert!(messages.iter().zip(expected).all(|(message, part)| message.contains(part)), "{messages:#?}");
}

proptest! {
    #[test]
    fn hostile_h46_a_key_with_any_byte_changed_is_refused(random in prop::collection::vec(any::<u8>(), 40),
                                                          place in 0_usize..61, byte: u8) {
        let drawn = api_key::draw(&random.try_into().expect("has 40 bytes"));
        let all = applications(&[("a", fleet::Application { keys: vec![key(&drawn, 0)], ..Default::default() })])
            .expect("is right");
        let mut text = drawn.text.into_bytes();
        let before = std::mem::replace(&mut text[place], byte);
        prop_assert_eq!(all.by_key(&text, NOW_S).is_ok(), before == byte);
    }

    #[test]
    fn garbage_is_no_key_and_never_panics(begin in "|pm_|pm_[a-z]{8}_", key in prop::collection::vec(any::<u8>(), 0..130)) {
        prop_assert!(batch().by_key(&[begin.as_bytes(), &key].concat(), NOW_S).is_err());
    }
}
