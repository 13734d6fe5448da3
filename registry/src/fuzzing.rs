//! What holds for any bytes at all: one function for each kind of text that others give us.
//!
//! Each takes bytes and panics when something that must always hold does not. Must not know: who makes the bytes up.
//! `proxy/fuzz` lets libFuzzer do it, and the tests here go through its corpus. Compiled for tests and with the feature
//! `fuzzing`, never into what serves.

use crate::distribution::challenge;
use crate::place::Reference;

/// A reference: what is accepted displays as what is accepted again and means the same, and its parts are those of a URL.
pub fn reference(bytes: &[u8]) {
    let Ok(reference) = String::from_utf8_lossy(bytes).parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
    let place = &reference.place;
    let url: http::Uri = format!("https://{}/v2/{}/x", place.host(), place.repository()).parse().expect("a URL");
    assert_eq!(url.authority().expect("a host").as_str(), place.host());
    assert_eq!(url.path(), format!("/v2/{}/x", place.repository()));
}

/// A challenge: reading it ends, and gives no more than was written.
pub fn challenge(bytes: &[u8]) {
    let header = String::from_utf8_lossy(bytes);
    let found = challenge::read(&header);
    let length = |challenge: &challenge::Challenge| match challenge {
        challenge::Challenge::Basic => 5,
        challenge::Challenge::Bearer { realm, service, scope } => {
            6 + [Some(realm), service.as_ref(), scope.as_ref()].into_iter().flatten().map(String::len).sum::<usize>()
        }
    };
    assert!(found.iter().map(length).sum::<usize>() <= header.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seed, and each with single bytes changed.
    fn corpus(target: &str, check: fn(&[u8])) {
        let folder = format!("{}/../proxy/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).expect("a corpus") {
            let mut bytes = std::fs::read(entry.expect("entry").path()).expect("a seed");
            check(&bytes);
            for at in 0..bytes.len() {
                let before = bytes[at];
                for changed in [0, b' ', b'"', b'/', b':', b'@', before ^ 1, 0xff] {
                    bytes[at] = changed;
                    check(&bytes);
                }
                bytes[at] = before;
            }
            seeds += 1;
        }
        assert!(seeds > 2, "no seeds");
    }

    #[test]
    fn corpus_reference() {
        corpus("reference", reference);
    }

    #[test]
    fn corpus_challenge() {
        corpus("challenge", challenge);
    }
}
