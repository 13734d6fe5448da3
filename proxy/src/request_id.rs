//! Names of requests: 32 hexadecimal digits that tell nobody anything, but this proxy which worker had it and when. Those of
//! our own 404s are made in `denied`.
//!
//! Must not know: requests. A name is one block of AES over worker and position, under a key that lives as long as the
//! process: names never repeat, and nobody can count our requests by them.
//!
//! Main types: [`RequestId`]; [`Ids`], which makes them; [`IdKey`].

use std::cell::Cell;

use aws_lc_rs::cipher::{AES_128, AES_128_KEY_LEN, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use policies::credential::denial;

/// Longest name that is taken over from a trusted peer.
const GIVEN_BYTES: usize = 128;

/// A request's name, as `X-Request-Id` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestId {
    Own([u8; 32]),
    /// A trusted peer's.
    Given(Box<str>),
    /// Of a 404 of ours: why, sealed for operators.
    Denial(Box<[u8; denial::LENGTH]>),
}

/// A name of ours before it is written: 16 bytes that are never the same twice.
pub(crate) type Block = [u8; 16];

/// The key of a process.
#[derive(Clone)]
pub(crate) struct IdKey([u8; AES_128_KEY_LEN]);

/// Names of one worker's requests.
pub(crate) struct Ids {
    key: EncryptingKey,
    worker: u32,
    next: Cell<u64>,
}

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ids of worker {} at {}", self.worker, self.next.get())
    }
}

impl std::fmt::Debug for IdKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdKey")
    }
}

impl IdKey {
    /// Draws one.
    pub(crate) fn draw() -> std::io::Result<Self> {
        let mut key = [0; AES_128_KEY_LEN];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        Ok(Self(key))
    }

    /// The worker that gave this name; `None`: none of this process.
    pub(crate) fn open(&self, mut block: Block) -> Option<u32> {
        let key = UnboundCipherKey::new(&AES_128, &self.0).ok()?;
        DecryptingKey::ecb(key).ok()?.decrypt(&mut block, DecryptionContext::None).ok()?;
        let [worker @ .., 0, 0, 0, 0] = *block.first_chunk::<8>()? else { return None };
        Some(u32::from_be_bytes(worker))
    }
}

impl Ids {
    pub(crate) fn new(key: &IdKey, worker: u32) -> Self {
        let key = UnboundCipherKey::new(&AES_128, &key.0).expect("the key has the length of AES-128");
        let key = EncryptingKey::ecb(key).expect("AES-128 has this mode");
        Self { key, worker, next: Cell::new(0) }
    }

    /// The next name.
    pub(crate) fn next(&self) -> Block {
        let position = self.next.replace(self.next.get() + 1);
        let mut block = [0; 16];
        block[..4].copy_from_slice(&self.worker.to_be_bytes());
        block[8..].copy_from_slice(&position.to_be_bytes());
        // One whole block, which cannot fail; were it to, names would only be easier to read.
        let _ = self.key.encrypt(&mut block);
        block
    }
}

/// Reads a name of ours as it is written.
pub(crate) fn parse(name: &str) -> Option<Block> {
    let name: [u8; 32] = name.as_bytes().try_into().ok()?;
    let mut block = Block::default();
    for (byte, two) in block.iter_mut().zip(name.chunks_exact(2)) {
        let digit = |of: u8| char::from(of).to_digit(16).filter(|_| !of.is_ascii_uppercase());
        *byte = u8::try_from(digit(two[0])? << 4 | digit(two[1])?).ok()?;
    }
    Some(block)
}

fn hex(block: [u8; 16]) -> [u8; 32] {
    let mut text = [0; 32];
    for (place, byte) in block.into_iter().enumerate() {
        text[2 * place] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[2 * place + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    text
}

impl RequestId {
    /// One of ours.
    pub(crate) fn own(block: Block) -> Self {
        Self::Own(hex(block))
    }

    /// The name that a trusted peer gave, when it is one.
    pub(crate) fn given(value: &[u8]) -> Option<Self> {
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:/+=@".contains(b);
        let is_one = (1..=GIVEN_BYTES).contains(&value.len()) && value.iter().all(fits);
        is_one.then(|| Self::Given(String::from_utf8_lossy(value).into()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Own(text) => text,
            Self::Given(text) => text.as_bytes(),
            Self::Denial(text) => &text[..],
        }
    }

    /// A W3C `traceparent` (Trace Context §3.2) that begins a trace here: not sampled, for we record no spans.
    pub(crate) fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000001-0000000000000001-00";
        if let Self::Own(id) = self {
            text[3..35].copy_from_slice(id);
            text[36..52].copy_from_slice(&id[8..24]);
        }
        text
    }
}

/// Whether a `traceparent` can be passed on (Trace Context §3.2.2): four groups of lower-case hexadecimal digits, the
/// ids not zero.
pub(crate) fn is_traceparent(value: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let dashes = value.len() >= 55 && [2, 35, 52].iter().all(|at| value[*at] == b'-');
    if !dashes
        || !digits(&value[..2])
        || &value[..2] == b"ff"
        || (value.len() > 55 && (&value[..2] == b"00" || value[55] != b'-'))
    {
        return false;
    }
    let (trace, parent, flags) = (&value[3..35], &value[36..52], &value[53..55]);
    let some = |part: &[u8]| part.iter().any(|b| *b != b'0');
    digits(trace) && digits(parent) && digits(flags) && some(trace) && some(parent)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_between_requests_workers_and_processes_and_have_one_form() {
        let mut seen = HashSet::new();
        for _ in 0..3 {
            let key = IdKey::draw().expect("random bytes");
            for worker in 0..4 {
                let ids = Ids::new(&key, worker);
                for _ in 0..1_000 {
                    let own = ids.next();
                    assert_eq!(key.open(own), Some(worker));
                    assert_eq!(IdKey::draw().expect("random bytes").open(own), None);
                    let id = RequestId::own(own);
                    assert_eq!(parse(std::str::from_utf8(id.as_bytes()).expect("text")), Some(own));
                    assert!(id.as_bytes().iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id:?}");
                    assert!(is_traceparent(&id.traceparent()), "{id:?}");
                    assert!(seen.insert(id.as_bytes().to_vec()));
                }
            }
        }
        assert!(seen.iter().all(|id| id.len() == 32));
    }

    #[test]
    fn hostile_h41_a_given_name_is_plain_text() {
        for good in ["a", "0e2c-4d", "Root=1-67891233-abcdef012345678912345678", &"x".repeat(128)] {
            assert_eq!(RequestId::given(good.as_bytes()).expect("good").as_bytes(), good.as_bytes());
        }
        for bad in ["", "a b", "a\tb", "a\"b", "a,b", "\u{fc}", "a\r\nb: c", &"x".repeat(129)] {
            assert_eq!(RequestId::given(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_traceparent_is_what_the_standard_says() {
        for (value, expected) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", false),
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x", false),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false),
            ("", false),
        ] {
            assert_eq!(is_traceparent(value.as_bytes()), expected, "{value}");
        }
    }
}
