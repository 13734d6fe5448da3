//! The keys of session tickets, the same for the whole fleet: a client resumes at whichever proxy it comes to.
//!
//! Must not know: clocks, or who gets them. Which key counts when is decided here; `rotate` takes the time.

use std::path::{Path, PathBuf};

use api::fleet::Tickets;
use serde::{Deserialize, Serialize};

use super::shelf::{read, write};

/// How long new tickets are made with one key. A stolen key opens what was said within twice that (RFC 8446 §8.1 leaves
/// it to us), because a ticket lives as long again.
const EVERY_S: u64 = 12 * 3_600;
/// What proxies expect.
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// One key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TicketKey {
    /// 16 bytes, in each ticket.
    pub(crate) name: Vec<u8>,
    /// 32 bytes.
    pub(crate) key: Vec<u8>,
    /// New tickets are made with it from then on, in seconds since the Unix epoch.
    from_s: u64,
}

/// The one before, the one in use and the next, in this order; the first is missing in the beginning.
pub(crate) struct TicketKeys {
    path: PathBuf,
    keys: Vec<TicketKey>,
}

impl TicketKey {
    /// Draws one.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    fn draw(from_s: u64) -> Result<Self, String> {
        let mut key = Self { name: vec![0; NAME_BYTES], key: vec![0; KEY_BYTES], from_s };
        let none = |_| "the operating system gives no random numbers".to_owned();
        aws_lc_rs::rand::fill(&mut key.name).map_err(none)?;
        aws_lc_rs::rand::fill(&mut key.key).map_err(none)?;
        Ok(key)
    }
}

impl TicketKeys {
    /// Reads what is kept in `folder`; there are no keys before the first [`TicketKeys::rotate`].
    ///
    /// # Errors
    /// A sentence: a file that cannot be read, or is not what was written there.
    pub(crate) fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join("ticket-keys.json");
        let keys = if path.exists() { read(&path)? } else { Vec::new() };
        Ok(Self { path, keys })
    }

    /// Brings them up to date and keeps them; true when they are others than before.
    ///
    /// # Errors
    /// A sentence: they could not be kept, and are as they were.
    pub(crate) fn rotate(&mut self, now_s: u64) -> Result<bool, String> {
        let rotated = rotated(&self.keys, now_s, TicketKey::draw)?;
        if rotated == self.keys {
            return Ok(false);
        }
        write(&self.path, &rotated)?;
        self.keys = rotated;
        Ok(true)
    }

    /// All that proxies need now.
    pub(crate) fn keys(&self) -> &[TicketKey] {
        &self.keys
    }

    /// What proxies are told; none as long as there are no keys.
    pub(crate) fn told(&self) -> Option<Tickets> {
        let place = self.keys.len().checked_sub(2)?;
        let accepted = self.keys.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, key)| key.name.clone());
        Some(Tickets { current: self.keys[place].name.clone(), accepted: accepted.collect() })
    }
}

/// The keys that there should be at a time, from those that there were. A clock that went back changes nothing.
fn rotated(
    keys: &[TicketKey],
    now_s: u64,
    mut draw: impl FnMut(u64) -> Result<TicketKey, String>,
) -> Result<Vec<TicketKey>, String> {
    let [.., current, next] = keys else {
        return Ok(vec![draw(now_s)?, draw(now_s.saturating_add(EVERY_S))?]);
    };
    // One that lies further ahead than any was ever drawn for is from a clock that was wrong: all begins anew.
    if next.from_s > now_s.saturating_add(2 * EVERY_S) {
        return Ok(vec![draw(now_s)?, draw(now_s.saturating_add(EVERY_S))?]);
    }
    if now_s < next.from_s {
        return Ok(keys.to_vec());
    }
    let after = draw(now_s.saturating_add(EVERY_S))?;
    // Away for longer than a ticket lives: none of the one before is left.
    let before = (now_s < next.from_s.saturating_add(EVERY_S)).then(|| current.clone());
    Ok(before.into_iter().chain([TicketKey { from_s: now_s, ..next.clone() }, after]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u8, from_s: u64) -> TicketKey {
        TicketKey { name: vec![name], key: vec![name], from_s }
    }

    #[test]
    fn tickets_rotate_by_time_and_a_next_key_is_always_there() {
        const START: u64 = 1_000_000;
        let (mut keys, mut names) = (Vec::new(), 0);
        for (now_s, expected) in [
            (START, &[1, 2][..]),
            (START + EVERY_S - 1, &[1, 2]),
            (START - 500, &[1, 2]), // The clock went back.
            (START + EVERY_S, &[1, 2, 3]),
            (START + 2 * EVERY_S + 7, &[2, 3, 4]),
            (START + 9 * EVERY_S, &[4, 5]), // The controller was away.
            (START + 2 * EVERY_S, &[6, 7]), // The clock was years ahead, and is right now.
        ] {
            keys = rotated(&keys, now_s, |from_s| {
                names += 1;
                Ok(key(names, from_s))
            })
            .expect("drawn");
            let found: Vec<u8> = keys.iter().map(|key| key.name[0]).collect();
            assert_eq!(found, expected, "{}", now_s - START.min(now_s));
        }
    }

    #[test]
    fn tickets_are_kept_and_told_without_their_keys() {
        let folder = tempfile::tempdir().expect("folder");
        let mut keys = TicketKeys::open(folder.path()).expect("none");
        assert!(keys.told().is_none());
        assert!(keys.rotate(1_000).expect("kept") && !keys.rotate(1_001).expect("the same"));
        assert!(keys.rotate(1_000 + EVERY_S).expect("kept"));
        let told = keys.told().expect("there");
        let names: Vec<_> = keys.keys().iter().map(|key| key.name.clone()).collect();
        assert_eq!((told.current, told.accepted), (names[1].clone(), vec![names[0].clone(), names[2].clone()]));
        let again = TicketKeys::open(folder.path()).expect("kept");
        assert!(again.keys() == keys.keys() && names.iter().all(|name| name.len() == NAME_BYTES));
        assert_eq!(keys.keys()[0].key.len(), KEY_BYTES);
    }
}
