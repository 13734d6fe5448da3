//! What holds for any bytes at all: one function for each kind of input that a peer can send.
//!
//! Each takes bytes and panics when something that must always hold does not; every such thing is one sentence in its
//! function's text. Must not know: who makes the bytes up. `proxy/fuzz` lets libFuzzer do it, and the tests here go
//! through its corpus. Compiled for tests and with the feature `fuzzing`, never into a proxy that serves.

mod chunks;
mod credential;
mod grpc_web;
mod head;
mod host_and_path;
mod proxy_protocol;
mod response;
mod snapshot;

pub use chunks::chunks;
pub use credential::credential;
pub use grpc_web::grpc_web;
pub use head::head;
pub use host_and_path::host_and_path;
pub use proxy_protocol::proxy_protocol;
pub use response::response;
pub use snapshot::snapshot;

use crate::codec::http1::head::{Malformed, Parsed};

/// What a parser says of the beginning of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Partial,
    /// Whole, after so many bytes.
    Whole(usize),
    Refused,
}

impl Verdict {
    fn of<T>(parsed: &Result<Parsed<T>, Malformed>) -> Self {
        match parsed {
            Ok(Parsed::Partial) => Self::Partial,
            Ok(Parsed::Whole(_, length)) => Self::Whole(*length),
            Err(_) => Self::Refused,
        }
    }
}

/// Some beginnings of `bytes`, shortest first, the last all of it: around line ends, where parsers change their mind,
/// and some between them.
fn beginnings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = bytes.iter().enumerate().filter(|(_, b)| matches!(b, b'\r' | b'\n')).map(|(at, _)| at);
    let mut places: Vec<usize> = ends.flat_map(|at| [at, at + 1]).take(64).collect();
    places.extend((0..16).map(|n| n * bytes.len() / 16));
    places.push(bytes.len());
    places.sort_unstable();
    places.dedup();
    places.into_iter().map(|place| &bytes[..place])
}

/// A parser's verdict on a beginning stands whatever comes behind it, and it uses no more than there is.
fn check_beginnings(bytes: &[u8], verdict: impl Fn(&[u8]) -> Verdict) {
    let mut before = Verdict::Partial;
    for beginning in beginnings(bytes) {
        let now = verdict(beginning);
        assert!(before == Verdict::Partial || now == before, "{before:?} became {now:?} at {}", beginning.len());
        assert!(!matches!(now, Verdict::Whole(length) if length > beginning.len()), "{now:?} of {}", beginning.len());
        before = now;
    }
}

/// The lines of a head are the fields that were seen, in their order, and nothing else; the first line.
fn check_lines<'a, 'b>(whole: &'a [u8], fields: impl Iterator<Item = (&'b str, &'b [u8])>) -> &'a [u8] {
    let text = whole.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    assert!(!text.contains(&0), "a NUL");
    // Between line ends there is neither half of one.
    let mut lines = text.split(|b| *b == b'\n').peekable();
    let mut next = || {
        let line = lines.next()?;
        let line = if lines.peek().is_some() { line.strip_suffix(b"\r").expect("CR before LF") } else { line };
        assert!(!line.contains(&b'\r'), "CR within a line");
        Some(line)
    };
    let first = next().expect("a first line");
    for (name, value) in fields {
        let line = next().expect("a line for each field");
        let colon = line.iter().position(|b| *b == b':').expect("a colon");
        assert!(line[..colon].eq_ignore_ascii_case(name.as_bytes()), "{name} is not its line's name");
        assert!(!name.is_empty() && !name.bytes().any(|b| b.is_ascii_uppercase()), "{name:?} is not in lower case");
        assert_eq!(line[colon + 1..].trim_ascii(), value, "not its line's value");
    }
    assert_eq!(next(), None, "a line that is no field");
    first
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every seed, and each of them with a byte changed, put in, taken out, or cut off there.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut seeds = 0;
        for entry in std::fs::read_dir(&folder).expect("a folder of seeds") {
            let path = entry.expect("an entry").path();
            let seed = std::fs::read(&path).expect("a seed");
            let run = |bytes: &[u8]| {
                let ran = std::panic::catch_unwind(|| check(bytes));
                assert!(ran.is_ok(), "{}: {:?}", path.display(), bytes.escape_ascii().to_string());
            };
            run(&seed);
            seeds += 1;
            // Where and what is chosen by counting: the same in every run. At most so many places of one seed.
            for place in (0..seed.len()).step_by(seed.len() / 64 + 1) {
                let (before, after) = (&seed[..place], &seed[place + 1..]);
                let odd = b"\r\n\0 \t:;,\x7f\xff/%0"[place % 13];
                run(before);
                run(&[before, after].concat());
                run(&[before, &[odd], after].concat());
                run(&[before, &[odd], &seed[place..]].concat());
            }
        }
        assert!(seeds > 5, "few seeds in {}", folder.display());
    }

    #[test]
    fn corpus_of_heads() {
        replay("head", head);
    }

    #[test]
    fn corpus_of_responses() {
        replay("response", response);
    }

    #[test]
    fn corpus_of_chunks() {
        replay("chunks", chunks);
    }

    #[test]
    fn corpus_of_credentials() {
        replay("credential", credential);
    }

    #[test]
    fn corpus_of_grpc_web() {
        replay("grpc_web", grpc_web);
    }

    #[test]
    fn corpus_of_hosts_and_paths() {
        replay("host_and_path", host_and_path);
    }

    #[test]
    fn corpus_of_proxy_protocol_headers() {
        replay("proxy_protocol", proxy_protocol);
    }

    #[test]
    fn corpus_of_snapshots() {
        replay("snapshot", snapshot);
    }
}
