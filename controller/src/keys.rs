//! Keys that the whole fleet shares: of session tickets, so that a client resumes at whichever proxy it comes to; of what
//! endpoints are told of who calls; of the ids in our own 404s.
//!
//! Must not know: clocks, or who gets them. Which key counts when is decided here; `rotate` takes the time.
//!
//! Main types: [`Keys`], [`Rota`].

use std::path::{Path, PathBuf};

use api::Digest;
use api::fleet::{Assertion, AssertionKey, Explain, Tickets};
use policies::credential::assertion;
use serde::{Deserialize, Serialize};

use crate::certificates::{read, write};

const DAY_S: u64 = 86_400;

/// How long new tickets are made with one key. A stolen key opens what was said within twice that (RFC 8446 §8.1 leaves
/// it to us), because a ticket lives as long again.
const TICKETS_S: u64 = 12 * 3_600;
/// How long assertions are signed with one key.
const ASSERTION_S: u64 = 30 * DAY_S;

/// What proxies expect of keys of tickets.
const TICKET_NAME_BYTES: usize = 16;
/// And of ids.
const EXPLAIN_NAME_BYTES: usize = 8;
const KEY_BYTES: usize = 32;

/// What `iss` of an assertion is.
const ASSERTION_ISSUER: &str = "pointsman";

/// One key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    /// What it is known by; no secret.
    pub(crate) name: Vec<u8>,
    /// The secret.
    pub(crate) key: Vec<u8>,
    /// The half that everybody may know, of a key that has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) public: Vec<u8>,
    /// It is used from then on, in seconds since the Unix epoch.
    from_s: u64,
}

/// When keys follow each other.
pub(crate) struct Rota {
    file: &'static str,
    /// Each is used for so long.
    every_s: u64,
    /// The next one is known so long before it is used.
    ahead_s: u64,
    /// The one before is known so long after.
    after_s: u64,
    draw: fn(u64) -> Result<Key, String>,
}

/// A ticket lives as long as its key is used.
pub(crate) const TICKETS: Rota =
    Rota { file: "ticket-keys.json", every_s: TICKETS_S, ahead_s: TICKETS_S, after_s: TICKETS_S, draw: draw_ticket };
/// Whoever verifies assertions fetches keys once a day at least.
pub(crate) const ASSERTION: Rota =
    Rota { file: "assertion-keys.json", every_s: ASSERTION_S, ahead_s: DAY_S, after_s: DAY_S, draw: draw_assertion };
/// An id that somebody kept opens for ever.
pub(crate) const EXPLAIN: Rota =
    Rota { file: "explain-keys.json", every_s: u64::MAX, ahead_s: 0, after_s: u64::MAX, draw: draw_explain };

/// The one before, the one in use and the next, in this order, as far as there are such.
pub(crate) struct Keys {
    path: PathBuf,
    rota: Rota,
    keys: Vec<Key>,
    current: usize,
}

impl Keys {
    /// Reads what is kept in `folder`; there are no keys before the first [`Keys::rotate`].
    ///
    /// # Errors
    /// A sentence: a file that cannot be read, or is not what was written there.
    pub(crate) fn open(folder: &Path, rota: Rota) -> Result<Self, String> {
        let path = folder.join(rota.file);
        let keys = if path.exists() { read(&path)? } else { Vec::new() };
        Ok(Self { path, rota, keys, current: 0 })
    }

    /// Brings them up to date and keeps them; true when they are others than before.
    ///
    /// # Errors
    /// A sentence: they could not be kept, and are as they were.
    pub(crate) fn rotate(&mut self, now_s: u64) -> Result<bool, String> {
        let (keys, current) = rotated(&self.rota, &self.keys, now_s, self.rota.draw)?;
        let others = keys != self.keys;
        if others {
            write(&self.path, &keys)?;
        }
        (self.keys, self.current) = (keys, current);
        Ok(others)
    }

    /// All that are known now.
    pub(crate) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The one in use; none as long as there are no keys.
    pub(crate) fn current(&self) -> Option<&Key> {
        self.keys.get(self.current)
    }

    /// What proxies are told of keys of tickets.
    pub(crate) fn tickets(&self) -> Option<Tickets> {
        let current = self.current()?;
        let others = self.keys.iter().filter(|key| key.name != current.name);
        Some(Tickets { current: current.name.clone(), accepted: others.map(|key| key.name.clone()).collect() })
    }

    /// What proxies are told of keys of assertions.
    pub(crate) fn assertion(&self) -> Option<Assertion> {
        let key = |key: &Key| AssertionKey { id: key.id(), public: key.public.clone() };
        let (issuer, current) = (ASSERTION_ISSUER.to_owned(), self.current()?.id());
        Some(Assertion { issuer, current, keys: self.keys.iter().map(key).collect() })
    }

    /// What proxies are told of the key of ids.
    pub(crate) fn explain(&self) -> Option<Explain> {
        self.current().map(|key| Explain { current: key.name.clone() })
    }
}

impl Key {
    /// Its name as text, of a key that is named so.
    pub(crate) fn id(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

fn random(bytes: &mut [u8]) -> Result<(), String> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| "the operating system gives no random numbers".to_owned())
}

fn draw_named(name_bytes: usize, from_s: u64) -> Result<Key, String> {
    let mut key = Key { name: vec![0; name_bytes], key: vec![0; KEY_BYTES], public: Vec::new(), from_s };
    random(&mut key.name)?;
    random(&mut key.key)?;
    Ok(key)
}

fn draw_ticket(from_s: u64) -> Result<Key, String> {
    draw_named(TICKET_NAME_BYTES, from_s)
}

fn draw_explain(from_s: u64) -> Result<Key, String> {
    draw_named(EXPLAIN_NAME_BYTES, from_s)
}

#[allow(clippy::unnecessary_wraps, reason = "of the shape of the others")]
fn draw_assertion(from_s: u64) -> Result<Key, String> {
    let assertion::Key { pkcs8, public } = assertion::Key::draw();
    let name = Digest::of(&public).hex().as_bytes()[..16].to_vec();
    Ok(Key { name, key: pkcs8, public, from_s })
}

/// The keys that there should be at a time, from those that there were, and which of them is in use. A clock that went back
/// changes nothing.
fn rotated(
    rota: &Rota,
    keys: &[Key],
    now_s: u64,
    mut draw: impl FnMut(u64) -> Result<Key, String>,
) -> Result<(Vec<Key>, usize), String> {
    let mut keys = keys.to_vec();
    // One that lies further ahead than any was ever drawn for is from a clock that was wrong: all begins anew.
    let farthest = now_s.saturating_add(rota.every_s).saturating_add(rota.ahead_s);
    if keys.last().is_some_and(|last| last.from_s > farthest) {
        keys.clear();
    }
    if keys.is_empty() {
        keys.push(draw(now_s)?);
    }
    let current = keys.iter().rposition(|key| key.from_s <= now_s).unwrap_or(0);
    // What was made with the one before may be met for a while.
    let is_kept = current > 0 && now_s < keys[current].from_s.saturating_add(rota.after_s);
    let gone = if is_kept { current - 1 } else { current };
    keys.drain(..gone);
    let current = current - gone;
    let ends_s = keys[current].from_s.saturating_add(rota.every_s);
    if keys.len() == current + 1 && now_s >= ends_s.saturating_sub(rota.ahead_s) {
        keys.push(draw(ends_s.max(now_s.saturating_add(rota.ahead_s)))?);
    }
    Ok((keys, current))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u8, from_s: u64) -> Key {
        Key { name: vec![name], key: vec![name], public: Vec::new(), from_s }
    }

    /// Follows a rota from 1,000,000 s on: after each of these seconds, the names of the keys and the one in use.
    fn follows(rota: &Rota, table: &[(u64, &[u8], u8)]) {
        let (mut keys, mut names) = (Vec::new(), 0);
        for (now_s, expected, in_use) in table {
            let (rotated, current) = rotated(rota, &keys, *now_s, |from_s| {
                names += 1;
                Ok(key(names, from_s))
            })
            .expect("drawn");
            let found: Vec<u8> = rotated.iter().map(|key| key.name[0]).collect();
            assert_eq!((&found[..], found[current]), (*expected, *in_use), "at {now_s}");
            keys = rotated;
        }
    }

    const START: u64 = 100_000_000;

    #[test]
    fn tickets_rotate_by_time_and_a_next_key_is_always_there() {
        follows(
            &TICKETS,
            &[
                (START, &[1, 2], 1),
                (START + TICKETS_S - 1, &[1, 2], 1),
                (START - 500, &[1, 2], 1), // The clock went back.
                (START + TICKETS_S, &[1, 2, 3], 2),
                (START + 2 * TICKETS_S + 7, &[2, 3, 4], 3),
                (START + 9 * TICKETS_S, &[4, 5], 4), // The controller was away.
                (START + 2 * TICKETS_S, &[6, 7], 6), // The clock was years ahead, and is right now.
            ],
        );
    }

    #[test]
    fn assertion_keys_are_known_a_day_before_and_after_they_are_used() {
        let day = |days: u64| START + days * DAY_S;
        follows(
            &ASSERTION,
            &[
                (START, &[1], 1),
                (day(29) - 1, &[1], 1),
                (day(29), &[1, 2], 1),
                (day(30) - 1, &[1, 2], 1),
                (day(30), &[1, 2], 2),
                (day(31) - 1, &[1, 2], 2),
                (day(31), &[2], 2),
                (day(200), &[2, 3], 2), // The controller was away: still a day's notice.
                (day(201), &[2, 3], 3),
                (day(202), &[3], 3),
                (day(202) - 500, &[3], 3),
            ],
        );
    }

    #[test]
    fn explain_keys_stay() {
        follows(&EXPLAIN, &[(START, &[1], 1), (START + 100_000 * DAY_S, &[1], 1), (0, &[1], 1)]);
    }

    #[test]
    fn tickets_are_kept_and_told_without_their_keys() {
        let folder = tempfile::tempdir().expect("folder");
        let mut keys = Keys::open(folder.path(), TICKETS).expect("none");
        assert!(keys.tickets().is_none());
        assert!(keys.rotate(1_000).expect("kept") && !keys.rotate(1_001).expect("the same"));
        assert!(keys.rotate(1_000 + TICKETS_S).expect("kept"));
        let told = keys.tickets().expect("there");
        let names: Vec<_> = keys.keys().iter().map(|key| key.name.clone()).collect();
        assert_eq!((told.current, told.accepted), (names[1].clone(), vec![names[0].clone(), names[2].clone()]));
        let again = Keys::open(folder.path(), TICKETS).expect("kept");
        assert!(again.keys() == keys.keys() && names.iter().all(|name| name.len() == TICKET_NAME_BYTES));
        assert_eq!(keys.keys()[0].key.len(), KEY_BYTES);
        // As earlier versions kept them.
        let older = "[{\"name\":[1],\"key\":[2],\"from_s\":3}]";
        std::fs::write(folder.path().join("ticket-keys.json"), older).expect("written");
        assert_eq!(Keys::open(folder.path(), TICKETS).expect("read").keys().len(), 1);
    }

    #[test]
    fn assertion_keys_are_told_by_their_public_half_and_sign() {
        let folder = tempfile::tempdir().expect("folder");
        let mut keys = Keys::open(folder.path(), ASSERTION).expect("none");
        assert!(keys.rotate(START).expect("kept") && keys.rotate(START + 29 * DAY_S).expect("kept"));
        let told = keys.assertion().expect("there");
        assert_eq!((told.issuer.as_str(), told.keys.len()), ("pointsman", 2));
        assert_eq!(told.current, told.keys[0].id);
        assert!(told.keys.iter().all(|key| key.public.len() == 65 && key.id.len() == 16), "{told:?}");
        let current = keys.current().expect("there");
        assertion::Signer::new(&told.issuer, &told.current, &current.key).expect("a key");
        assert!(!current.key.is_empty() && current.key != current.public);
    }
}
