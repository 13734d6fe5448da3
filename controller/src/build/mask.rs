//! Values that are never shown: in a log there is the secret's name in their place.
//!
//! Must not know: where values come from, or where text goes.
//!
//! Main types: [`SecretValue`], [`Mask`], [`Masked`]. It is a help, not a wall: who may have a value may write it in a
//! spelling that nobody looks for.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values would be found everywhere, and are no secrets.
pub(crate) const LEAST: usize = 6;

/// A secret and its value: without `Debug` and `Serialize`, so that it gets nowhere by accident.
pub(crate) struct SecretValue {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// What is to be hidden, in each spelling: the value, each of its lines, and both in base64 and as part of a URL.
pub(crate) struct Mask {
    automaton: AhoCorasick,
    /// What is shown in place of each spelling.
    shown: Vec<String>,
    /// Each spelling, in order.
    sorted: Vec<Vec<u8>>,
    longest: usize,
}

/// A stream in which it is hidden.
pub(crate) struct Masked {
    mask: Arc<Mask>,
    /// What may be the beginning of something hidden.
    held: Vec<u8>,
}

// === impl Mask ===

impl Mask {
    /// None: nothing is to be hidden.
    pub(crate) fn of(values: &[SecretValue]) -> Option<Self> {
        let mut all: Vec<(Vec<u8>, String)> = Vec::new();
        for SecretValue { name, text } in values {
            let spellings = spellings(text).into_iter().filter(|spelling| spelling.len() >= LEAST);
            all.extend(spellings.map(|spelling| (spelling, format!("[{name}]"))));
        }
        all.sort();
        all.dedup_by(|one, other| one.0 == other.0);
        let longest = all.iter().map(|(spelling, _)| spelling.len()).max()?;
        let (sorted, shown): (Vec<_>, _) = all.into_iter().unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&sorted);
        // INVARIANT: spellings are far fewer, and far shorter together, than an automaton may have states (2^31).
        Some(Self { automaton: automaton.expect("secrets are bounded"), shown, sorted, longest })
    }

    /// A text that is whole.
    pub(crate) fn text(self: &Arc<Self>, text: &str) -> String {
        let (mut masked, mut out) = (Masked::new(self.clone()), Vec::with_capacity(text.len()));
        masked.put(text.as_bytes(), &mut out);
        masked.end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// From where on `bytes` end with the beginning of something hidden; their length if they do not.
    fn open(&self, bytes: &[u8]) -> usize {
        let first = (bytes.len() + 1).saturating_sub(self.longest);
        let begins = |from: &usize| {
            let rest = &bytes[*from..];
            let next = self.sorted.partition_point(|spelling| spelling.as_slice() <= rest);
            self.sorted.get(next).is_some_and(|spelling| spelling.starts_with(rest))
        };
        (first..bytes.len()).find(begins).unwrap_or(bytes.len())
    }
}

// === impl Masked ===

impl Masked {
    pub(crate) fn new(mask: Arc<Mask>) -> Self {
        Self { mask, held: Vec::new() }
    }

    /// Takes the next bytes and gives those of which it is certain what they are. It holds back as many as the longest
    /// spelling has, at most.
    pub(crate) fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let open = self.mask.open(&self.held);
        self.give(open, out);
    }

    /// Gives what was held back: nothing more comes.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.give(self.held.len(), out);
    }

    /// Gives what begins before `open`, where something hidden may begin that is not whole.
    fn give(&mut self, mut open: usize, out: &mut Vec<u8>) {
        let mut at = 0;
        loop {
            let found = self.mask.automaton.find(&self.held[at..]);
            let Some(found) = found.filter(|found| at + found.start() < open) else { break };
            out.extend_from_slice(&self.held[at..at + found.start()]);
            out.extend_from_slice(self.mask.shown[found.pattern()].as_bytes());
            at += found.end();
            // What is hidden hides the beginning of others within it.
            if at > open {
                open = at + self.mask.open(&self.held[at..]);
            }
        }
        out.extend_from_slice(&self.held[at..open]);
        self.held.drain(..open);
    }
}

/// Each form in which a program may show a value.
fn spellings(text: &str) -> Vec<Vec<u8>> {
    let parts = [text].into_iter().chain(text.lines());
    let mut all = Vec::new();
    for part in parts.filter(|part| part.len() >= LEAST) {
        all.push(part.as_bytes().to_vec());
        all.push(percent(part, "0123456789ABCDEF"));
        all.push(percent(part, "0123456789abcdef"));
        for phase in 0..3 {
            all.push(base64(&STANDARD_NO_PAD, part, phase));
            all.push(base64(&URL_SAFE_NO_PAD, part, phase));
        }
    }
    all
}

/// The letters that depend on nothing but the text, when it follows on so many bytes of others.
fn base64(engine: &impl Engine, text: &str, phase: usize) -> Vec<u8> {
    let mut bytes = vec![0; phase];
    bytes.extend_from_slice(text.as_bytes());
    let letters = engine.encode(&bytes);
    let (from, to) = ((phase * 8).div_ceil(6), bytes.len() * 8 / 6);
    letters.as_bytes()[from..to].to_vec()
}

/// RFC 3986 §2.1; all but its unreserved characters.
fn percent(text: &str, digits: &str) -> Vec<u8> {
    let digits = digits.as_bytes();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte: u8| match plain(byte) {
        true => vec![byte],
        false => vec![b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]],
    };
    text.bytes().flat_map(encode).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(values: &[(&str, &str)]) -> Arc<Mask> {
        let values: Vec<_> =
            values.iter().map(|(name, text)| SecretValue { name: (*name).into(), text: (*text).into() }).collect();
        Arc::new(Mask::of(&values).expect("something to hide"))
    }

    fn in_pieces(mask: &Arc<Mask>, pieces: &[&[u8]]) -> String {
        let (mut masked, mut out) = (Masked::new(mask.clone()), Vec::new());
        pieces.iter().for_each(|piece| masked.put(piece, &mut out));
        masked.end(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn hostile_h84_secrets_are_hidden_in_each_spelling() {
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADANBg\r\nshrt\nkqhkiG9w0BAQEF\n-----END KEY-----";
        let mask = mask(&[("TOKEN", "s3cr3t/+tökén?"), ("KEY", pem), ("LONG", "s3cr3t/+tökén?-longer")]);
        for (shown, hidden) in [
            ("the token is s3cr3t/+tökén?!", "the token is [TOKEN]!"),
            ("s3cr3t/+tökén?-longer", "[LONG]"),
            ("s3cr3t/+tökén?-longe", "[TOKEN]-longe"),
            ("s3cr3t/+tökén?s3cr3t/+tökén?", "[TOKEN][TOKEN]"),
            ("https://x/?t=s3cr3t%2F%2Bt%C3%B6k%C3%A9n%3F&a", "https://x/?t=[TOKEN]&a"),
            ("https://x/?t=s3cr3t%2f%2bt%c3%b6k%c3%a9n%3f&a", "https://x/?t=[TOKEN]&a"),
            ("+ echo kqhkiG9w0BAQEF", "+ echo [KEY]"),
            ("MIIEvQIBADANBg\nshrt", "[KEY]\nshrt"),
            ("nothing s3cr3t here, s3cr3t/+", "nothing s3cr3t here, s3cr3t/+"),
        ] {
            assert_eq!(mask.text(shown), hidden, "{shown}");
        }
        assert_eq!(mask.text(&format!("<{pem}>")), "<[KEY]>");
        // After any number of other bytes, as in `Authorization: Basic`.
        for before in ["", "u", "u:", "us:", "user:", "o-o-o:"] {
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                for after in ["", "x", "xy", "xyz"] {
                    let letters = engine.encode(format!("{before}s3cr3t/+tökén?{after}"));
                    let hidden = mask.text(&letters);
                    assert!(hidden.contains("[TOKEN]"), "{before}, {after}: {letters} -> {hidden}");
                    assert!(hidden.len() <= letters.len() + "[TOKEN]".len() - 16, "{letters} -> {hidden}");
                }
            }
        }
    }

    #[test]
    fn hostile_h84_secrets_are_hidden_however_they_are_cut() {
        let mask = mask(&[("A", "abcabcabd"), ("B", "bcabcabcabdxyz"), ("C", "first line\nsecond line")]);
        let text = "ababcabcabcabdxyz abcabcabcabd first line\nsecond line\nabcabcabfirst lin";
        let whole = mask.text(text);
        assert_eq!(whole, "aba[B] abc[A] [C]\nabcabcabfirst lin");
        for one in 0..=text.len() {
            for other in one..=text.len() {
                let (a, rest) = text.as_bytes().split_at(one);
                let (b, c) = rest.split_at(other - one);
                assert_eq!(in_pieces(&mask, &[a, b, c]), whole, "{one}, {other}");
            }
        }
        // What cannot become a secret is not held back: logs are followed as they grow.
        let (mut masked, mut out) = (Masked::new(mask), Vec::new());
        masked.put(b"compiling ab", &mut out);
        assert_eq!(out, b"compiling ");
    }

    #[test]
    fn nothing_to_hide() {
        assert!(Mask::of(&[]).is_none());
        assert!(Mask::of(&[SecretValue { name: "SHORT".into(), text: "a\nb".into() }]).is_none());
    }

    proptest! {
        #[test]
        fn any_cut_gives_what_the_whole_gives(
            secrets in prop::collection::vec("[ab\n]{6,12}", 1..4),
            pieces in prop::collection::vec("[ab\n]{0,14}", 0..10),
        ) {
            let values: Vec<_> = secrets.iter().map(|text| SecretValue { name: "S".into(), text: text.clone() }).collect();
            let Some(mask) = Mask::of(&values).map(Arc::new) else { return Ok(()) };
            let bytes: Vec<_> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            let whole = mask.text(&pieces.concat());
            prop_assert_eq!(&in_pieces(&mask, &bytes), &whole);
            prop_assert!(secrets.iter().all(|secret| !whole.contains(secret.as_str())));
        }
    }
}
