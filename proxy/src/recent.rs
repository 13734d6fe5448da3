//! A table with an end: what was used lately stays, what was not goes.
//!
//! Must not know: what it holds. Two halves: new entries and those that are used go into the young one; when that is full it
//! becomes the old one, whose entries are gone. Nothing is moved or freed one by one.
//!
//! Main type: [`Recent`]. One thread owns it. Its keys are hashes: whoever asks compares the rest.

use std::hash::{BuildHasher, Hasher};

use crate::snapshot::Table;

/// Hashes what others chose. Seeded once a process; see [`Table`].
#[derive(Debug, Default, Clone)]
pub(crate) struct Hashing(foldhash::fast::RandomState);

impl Hashing {
    /// The hash of what is written into it.
    pub(crate) fn hash(&self, write: impl FnOnce(&mut foldhash::fast::FoldHasher<'_>)) -> u64 {
        let mut hasher = self.0.build_hasher();
        write(&mut hasher);
        hasher.finish()
    }
}

/// Adds a piece whose end shows.
pub(crate) fn add(hasher: &mut impl Hasher, piece: &[u8]) {
    hasher.write_usize(piece.len());
    hasher.write(piece);
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    young: Table<u64, V>,
    old: Table<u64, V>,
    most: usize,
}

impl<V> Recent<V> {
    /// At most twice `most` entries.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: Table::default(), old: Table::default(), most }
    }

    /// The entry with this hash, if it is the one.
    pub(crate) fn get(&mut self, hash: u64, is_it: impl Fn(&V) -> bool) -> Option<&V> {
        if self.young.get(&hash).is_none_or(|entry| !is_it(entry)) {
            let entry = self.old.remove(&hash)?;
            if !is_it(&entry) {
                return None;
            }
            self.insert(hash, entry);
        }
        self.young.get(&hash)
    }

    /// Puts it in the place of what had its hash.
    pub(crate) fn insert(&mut self, hash: u64, entry: V) {
        if self.young.len() >= self.most && !self.young.contains_key(&hash) {
            std::mem::swap(&mut self.young, &mut self.old);
            // Keeps its room: full once, it does not allocate again.
            self.young.clear();
        }
        self.young.insert(hash, entry);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_there_is_an_end() {
        let mut recent = Recent::new(10);
        for number in 0..1_000 {
            recent.insert(number, number);
            assert_eq!(recent.get(0, |_| true), Some(&0), "used all the time");
            assert!(recent.len() <= 20);
        }
        assert_eq!(recent.get(1, |_| true), None);
        assert_eq!(recent.get(999, |_| true), Some(&999));
        assert_eq!(recent.get(999, |one| *one == 5), None, "another with the same hash");
        recent.clear();
        assert_eq!(recent.get(999, |_| true), None);
    }

    #[test]
    fn pieces_are_told_apart_by_where_they_end() {
        let hashing = Hashing::default();
        let of = |pieces: &[&str]| hashing.hash(|hasher| pieces.iter().for_each(|piece| add(hasher, piece.as_bytes())));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    }
}
