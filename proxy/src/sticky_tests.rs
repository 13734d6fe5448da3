use proptest::prelude::*;

use super::*;

const KEY: [u8; KEY_BYTES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn shares(weights: &[u32]) -> Shares {
    Shares::new(weights.iter().copied().zip(0..))
}

fn sticky(weights: &[u32]) -> Sticky {
    Sticky::new(By::Identity, &KEY, shares(weights))
}

#[test]
fn sticky_hash_is_that_of_the_paper() {
    // Appendix A: the key 00 to 0f, the bytes 00 to 0e, in pieces as here.
    let mut hasher = SipHasher24::new_with_key(&KEY);
    hasher.write(&[0]);
    hasher.write(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    hasher.write(&[10, 11, 12, 13, 14]);
    assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
}

#[test]
fn sticky_places_never_change() {
    // Reckoned by another program: whoever changes what is hashed deals everybody anew.
    let one = sticky(&[1]);
    let token = Token::new([0xa5; 16]);
    for (name, place) in [
        (Name::User { issuer: "corp", subject: "alice" }, 0x9d27_088d_6224_03c2),
        (Name::User { issuer: "corpa", subject: "lice" }, 0x2db9_7089_747a_7b25),
        (Name::Application("alice"), 0x034d_8fa1_8fca_74be),
        (Name::Token(&token), 0x1745_a3a9_a401_c8c6),
    ] {
        assert_eq!(one.place(name), place, "{name:?}");
    }
}

#[test]
fn sticky_shares_are_exact() {
    const HALF: u64 = 1 << 63;
    for (weights, lasts) in [
        (&[1][..], &[u64::MAX][..]),
        (&[1, 1], &[HALF - 1, u64::MAX]),
        (&[1_000_000, 1_000_000], &[HALF - 1, u64::MAX]),
        (&[1, 3], &[HALF / 2 - 1, u64::MAX]),
        // 2^64 / 3 = 6148914691236517205.33
        (&[1, 1, 1], &[6_148_914_691_236_517_205, 12_297_829_382_473_034_410, u64::MAX]),
        // 2^64 / 1000000 = 18446744073709.551616
        (&[1, 999_999], &[18_446_744_073_709, u64::MAX]),
        (&[999_999, 1], &[u64::MAX - 18_446_744_073_709, u64::MAX]),
    ] {
        let shares = shares(weights);
        assert_eq!(shares.0.iter().map(|part| part.last).collect::<Vec<_>>(), lasts, "{weights:?}");
        for (to, last) in lasts.iter().enumerate() {
            assert_eq!(shares.at(*last), Some(to), "{weights:?}");
            assert_eq!(shares.at(last.wrapping_add(1)), Some((to + 1) % lasts.len()), "{weights:?}");
        }
    }
    assert_eq!(shares(&[]).at(7), None);
}

#[test]
fn sticky_tokens_are_read_as_they_were_given_and_in_no_other_spelling() {
    let token = Token::new([0xfb; 16]);
    let text = URL_SAFE_NO_PAD.encode([0xfb; 16]);
    assert_eq!(text, "-_v7-_v7-_v7-_v7-_v7-w");
    assert_eq!(Token::parse(text.as_bytes()), Some(token));
    for other in [
        "",
        "-_v7-_v7-_v7-_v7-_v7-",
        "-_v7-_v7-_v7-_v7-_v7-ww",
        "-_v7-_v7-_v7-_v7-_v7-w==",
        // The same bytes, with bits behind the last one.
        "-_v7-_v7-_v7-_v7-_v7-x",
        "+/v7+/v7+/v7+/v7+/v7+w",
        "\"-_v7-_v7-_v7-_v7-_v7\"",
        "-_v7-_v7-_v7-_v7-_v7 w",
        "-_v7-_v7-_v7-_v7-_v7\0w",
        "-_v7-_v7-_v7-_v7-_v7é",
    ] {
        assert_eq!(Token::parse(other.as_bytes()), None, "{other:?}");
    }
}

#[test]
fn sticky_tokens_are_found_among_other_cookies() {
    let (a, b) = (Token::new([1; 16]), Token::new([2; 16]));
    let [first, second] = [a, b].map(|token| URL_SAFE_NO_PAD.encode(token.0));
    for (fields, found) in [
        (vec![], None),
        (vec![format!("r={first}")], Some(a)),
        (vec![format!("x=1; r={first}; y=2")], Some(a)),
        (vec!["x=1".into(), format!("r={first}"), "y=2".into()], Some(a)),
        (vec![format!(" x=1 ;r={first} ; y=2")], Some(a)),
        (vec![format!("r={second}; r={first}")], Some(b)),
        (vec![format!("r=mine; r={first}; r={second}")], Some(a)),
        (vec!["r=".into(), format!("r={first}")], Some(a)),
        (vec![format!("R={first}; rr={first}; xr={first}; r{first}; r =={first}; =r={first}")], None),
        (vec![format!("x=r={first}")], None),
        (vec![format!("x={first}, r={first}")], None),
        (vec![";;;=;r".into(), "r".into()], None),
    ] {
        assert_eq!(Token::find("r", fields.iter().map(String::as_bytes)), found, "{fields:?}");
    }
}

#[test]
fn sticky_cookies_are_for_the_whole_host_and_no_script() {
    let token = Token::new([1; 16]);
    let given = token.give("release", false);
    assert_eq!(&*given, "release=AQEBAQEBAQEBAQEBAQEBAQ; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax");
    assert_eq!(*token.give("release", true), format!("{given}; Secure"));
    let kept = given.split(';').next().expect("a pair");
    assert_eq!(Token::find("release", [kept.as_bytes()].into_iter()), Some(token));
}

/// Within what so many hashes can show: six standard deviations, which a fair hash leaves once in 500 million.
fn is_about(count: usize, share: f64, of: usize) -> bool {
    let (expected, deviation) = (share * of as f64, (share * (1.0 - share) * of as f64).sqrt());
    (count as f64 - expected).abs() <= 6.0 * deviation
}

#[test]
fn sticky_callers_are_as_many_as_the_share_says() {
    for by in [0, 1, 2] {
        for ppm in [1_000, 10_000, 100_000, 500_000, 990_000] {
            let sticky = sticky(&[ppm, 1_000_000 - ppm]);
            let count = (0..20_000u64)
                .filter(|n| {
                    let text = n.to_string();
                    let token = Token::new(u128::from(*n).to_le_bytes());
                    let name = match by {
                        0 => Name::User { issuer: "corp", subject: &text },
                        1 => Name::Application(&text),
                        _ => Name::Token(&token),
                    };
                    sticky.of(name).is_some_and(|(to, _)| to == 0)
                })
                .count();
            assert!(is_about(count, f64::from(ppm) / 1e6, 20_000), "{count} of 20000 at {ppm} ppm");
        }
    }
}

#[test]
fn sticky_with_another_key_everybody_is_dealt_anew() {
    let [one, other] = [KEY, [9; 16]].map(|key| Sticky::new(By::Identity, &key, shares(&[1, 1])));
    let same = (0..1_000)
        .filter(|n| {
            let name = n.to_string();
            let to = |sticky: &Sticky| sticky.of(Name::Application(&name)).map(|(to, _)| to);
            to(&one) == to(&other)
        })
        .count();
    assert!(is_about(same, 0.5, 1_000), "{same} of 1000 stay by chance");
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    let weight = prop_oneof![1u32..=10, 1u32..=1_000_000, Just(1u32), Just(1_000_000u32)];
    proptest::collection::vec(weight, 2..=64)
}

/// Places at all ends of parts, and others.
fn looked_at(all: &[&Shares], more: &[u64]) -> Vec<u64> {
    let ends = all.iter().flat_map(|shares| shares.0.iter().map(|part| part.last));
    ends.flat_map(|end| [end.wrapping_sub(1), end, end.wrapping_add(1)]).chain(more.iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("POINTSMAN_LONG").map_or(256, |_| 10_000), ..ProptestConfig::default() })]

    /// The first `n` have the places below their share of 2^64, and so everybody exactly its own.
    #[test]
    fn sticky_parts_end_where_shares_do(weights in weights(), more in proptest::collection::vec(any::<u64>(), 50)) {
        let shares = shares(&weights);
        let sum: u128 = weights.iter().copied().map(u128::from).sum();
        for place in looked_at(&[&shares], &more) {
            let to = shares.at(place).expect("somebody's");
            let below: u128 = weights[..to].iter().copied().map(u128::from).sum();
            let with = below + u128::from(weights[to]);
            prop_assert!(u128::from(place) * sum < with << 64, "{place} is beyond {to} of {weights:?}");
            prop_assert!(u128::from(place) * sum >= below << 64, "{place} is before {to} of {weights:?}");
        }
    }

    /// A share that grows at the expense of the next takes callers from that one, and nobody else moves at all.
    #[test]
    fn sticky_a_growing_share_moves_callers_to_it_alone(
        weights in weights(),
        grown in any::<u32>(),
        more in proptest::collection::vec(any::<u64>(), 50),
    ) {
        let by = grown % weights[1];
        let mut after = weights.clone();
        after[0] += by;
        after[1] -= by;
        let (before, after) = (shares(&weights), shares(&after));
        for place in looked_at(&[&before, &after], &more) {
            match (before.at(place), after.at(place)) {
                (Some(1), Some(0)) => {}
                (was, is) => prop_assert_eq!(was, is, "{}", place),
            }
        }
    }

    /// Whatever else happens to the others: whose share grows and who stands first loses nobody.
    #[test]
    fn sticky_who_stands_first_and_grows_loses_nobody(
        weights in weights(),
        others in weights(),
        more in proptest::collection::vec(any::<u64>(), 50),
    ) {
        let share = |weights: &[u32]| (u128::from(weights[0]), weights.iter().copied().map(u128::from).sum::<u128>());
        let ((w, s), (v, t)) = (share(&weights), share(&others));
        let (less, greater) = if w * t <= v * s { (&weights, &others) } else { (&others, &weights) };
        let (before, after) = (shares(less), shares(greater));
        for place in looked_at(&[&before, &after], &more) {
            prop_assert!(before.at(place) != Some(0) || after.at(place) == Some(0), "{place} leaves the first");
        }
    }

    /// None has nobody, and all has everybody.
    #[test]
    fn sticky_full_is_everybody(weight in 1u32..=1_000_000, place in any::<u64>()) {
        let all = shares(&[weight]);
        for place in [place, 0, u64::MAX] {
            prop_assert_eq!(all.at(place), Some(0));
        }
    }
}
