//! Which release a caller keeps while shares move: everybody has a place in [0, 2^64), and releases with weight share that
//! range in a given order.
//!
//! Must not know: requests, credentials, what a backend is beyond its place in a list, clocks, randomness. Nothing here is
//! drawn by a process or a worker: whoever has the same key and the same shares says the same of everybody, before and after
//! a restart.
//!
//! Main types: [`Sticky`], of one stage; [`Shares`], the range; [`Token`], what a cookie holds.
//!
//! A place is SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012) of a name that lasts,
//! under a key of the stage's rollout. The key deals callers anew with each rollout; it keeps no secret: it follows from what the
//! stage is called and how many rollouts it had, so whoever knows these can reckon which names lie where. And whoever asks often
//! enough without a cookie can choose among those that it was given. A place is no right, and nothing may hang on nobody
//! knowing it: what trips a canary counts each caller once (`guard`).

use std::hash::Hasher;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use siphasher::sip::SipHasher24;

/// Of a stage's key.
pub(crate) const KEY_BYTES: usize = 16;

/// For the whole host, not for scripts, not with requests that other sites make, but for links to here. For 30 days from when it
/// was given, without being given again meanwhile: longer than nearly any rollout, and nobody is known by it for ever.
const ATTRIBUTES: &str = "; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax";

/// Which callers of a stage keep their release, and which one that is.
#[derive(Debug, Clone)]
pub(crate) struct Sticky {
    pub(crate) by: By,
    /// With the stage's key, and nothing written yet.
    keyed: SipHasher24,
    shares: Shares,
}

/// By what callers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// The valid user, or else the valid application.
    Identity,
    /// A cookie of this name, which the proxy gives with an endpoint's answer, and which decides for that request already. The
    /// endpoint sees it like any other: cookies go on as they came. Who keeps none, as pages of other sites (`SameSite`) and
    /// most programs do, has another place each time; gRPC clients without one are given none and take turns.
    Cookie(Box<str>),
}

/// A caller's name in the form in which it is hashed. No two callers have the same one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Name<'a> {
    User { issuer: &'a str, subject: &'a str },
    Application(&'a str),
    Token(&'a Token),
}

/// Parts of [0, 2^64), one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shares(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    /// The last that belongs to it, inclusive: 2^64 itself would not fit.
    last: u64,
    /// What was shared out, by its place in the caller's list.
    to: usize,
}

/// What a cookie holds: 16 random bytes, written as 22 characters of base64url.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token([u8; Self::BYTES]);

// === impl Sticky ===

impl Sticky {
    pub(crate) fn new(by: By, key: &[u8; KEY_BYTES], shares: Shares) -> Self {
        Self { by, keyed: SipHasher24::new_with_key(key), shares }
    }

    /// To whom a caller belongs, and its place; `None`: nothing was shared out.
    pub(crate) fn of(&self, name: Name<'_>) -> Option<(usize, u64)> {
        let place = self.place(name);
        Some((self.shares.at(place)?, place))
    }

    /// Whoever stands at this place.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn at(&self, place: u64) -> Option<usize> {
        self.shares.at(place)
    }

    /// A caller's place. INVARIANT: what is hashed never changes, or everybody would be dealt anew by an update.
    ///
    /// A kind, and the length of whatever something else follows: "ab" at "c" is somebody else than "a" at "bc".
    fn place(&self, name: Name<'_>) -> u64 {
        // A copy on the stack, with the key mixed in already.
        let mut hasher = self.keyed;
        match name {
            Name::User { issuer, subject } => {
                hasher.write(&[1]);
                hasher.write(&(issuer.len() as u64).to_le_bytes());
                hasher.write(issuer.as_bytes());
                hasher.write(subject.as_bytes());
            }
            Name::Application(name) => {
                hasher.write(&[2]);
                hasher.write(name.as_bytes());
            }
            Name::Token(Token(bytes)) => {
                hasher.write(&[3]);
                hasher.write(bytes);
            }
        }
        hasher.finish()
    }
}

// === impl Shares ===

impl Shares {
    /// Shares the range out by weight, all above zero, in this order: the first `n` have the places below
    /// `2^64 * sum(first n) / sum`, exactly. Nobody has more or fewer than one place too many.
    ///
    /// While the sum stays, a weight that grows at the expense of the next one takes places from that one alone. So whoever
    /// stands first, and grows at the expense of the second, loses nobody; nor does it to anybody else's changes.
    pub(crate) fn new(weights: impl Iterator<Item = (u32, usize)> + Clone) -> Self {
        let sum: u128 = weights.clone().map(|(weight, _)| u128::from(weight)).sum();
        let mut so_far = 0u128;
        let part = |(weight, to): (u32, usize)| {
            so_far += u128::from(weight);
            // `place * sum < so_far * 2^64` is `place < end`. Below 2^96: weights are 32 bits, and a few.
            let end = (so_far << 64).div_ceil(sum);
            // At least 1, and 2^64 at the most.
            Part { last: u64::try_from(end - 1).unwrap_or(u64::MAX), to }
        };
        Self(weights.map(part).collect())
    }

    /// Whose a place is; `None`: nothing was shared out.
    fn at(&self, place: u64) -> Option<usize> {
        // The last part ends with the range.
        let part = self.0.partition_point(|part| part.last < place);
        self.0.get(part).map(|part| part.to)
    }
}

// === impl Token ===

impl Token {
    pub(crate) const BYTES: usize = 16;
    const CHARACTERS: usize = 22;

    /// Of bytes that nobody can guess.
    pub(crate) fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// As it was given, and in no other spelling; `None`: it was not, or somebody changed it.
    fn parse(value: &[u8]) -> Option<Self> {
        if value.len() != Self::CHARACTERS {
            return None;
        }
        // The library wants room for whole groups. Bits behind the last byte have to be zero.
        let mut room = [0; 18];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut room).ok()?;
        Some(Self(room[..length].try_into().ok()?))
    }

    /// The first with this name in `Cookie` fields that is well-formed (RFC 6265 §5.4, RFC 9113 §8.2.3: one field, or a field
    /// for each). A browser may send several of one name, always in the same order; one that somebody else set does not hide
    /// ours.
    pub(crate) fn find<'a>(name: &str, mut fields: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        fields.find_map(|field| {
            let mut pairs = field.split(|b| *b == b';').map(<[u8]>::trim_ascii);
            pairs.find_map(|pair| Self::parse(pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?))
        })
    }

    /// The value of the `Set-Cookie` that gives it. Allocates, once: whoever has none gets one.
    pub(crate) fn give(self, name: &str, over_tls: bool) -> Box<str> {
        let mut text = [0; Self::CHARACTERS];
        // It has room for exactly these, and they are ASCII.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        let value = std::str::from_utf8(&text).unwrap_or_default();
        [name, "=", value, ATTRIBUTES, if over_tls { "; Secure" } else { "" }].concat().into()
    }
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
