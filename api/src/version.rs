//! Versions of the fleet's state.

use std::fmt;

/// Position of a state in the one order that all proxies follow: first by term, then by number.
///
/// A controller that takes the lead takes a higher term, so that what an old leader still sends is refused.
/// `0.0` is before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Version {
    /// Grows with each controller that takes the lead.
    pub term: u64,
    /// Grows with each state within a term.
    pub number: u64,
}

impl Version {
    /// The first state of a term.
    pub fn first_of(term: u64) -> Self {
        Self { term, number: 1 }
    }

    /// The state after this one, in the same term.
    #[must_use]
    pub fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.term, self.number))
    }
}

impl From<Version> for crate::fleet::Version {
    fn from(version: Version) -> Self {
        Self { term: version.term, number: version.number }
    }
}

impl From<crate::fleet::Version> for Version {
    fn from(version: crate::fleet::Version) -> Self {
        Self { term: version.term, number: version.number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_term_wins() {
        let old = Version { term: 1, number: 900 };
        assert!(Version::first_of(2) > old && old.next() > old && Version::default() < Version::first_of(1));
    }
}
