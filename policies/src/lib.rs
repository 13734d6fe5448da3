//! Who may pass: credentials to an identity, policies to a decision.
//!
//! Must not know: sockets, files, clocks, randomness that it was not given, or how an answer is written. Keys of issuers are
//! handed in; `now` is an argument.
//!
//! Main types: [`credential::Access`], which turns what a request presents into an [`credential::Identity`];
//! [`policy::Policies`], which are cut for each stage and answer [`policy::Question`]s; [`verdict::judge`], the one place
//! that says what a caller is answered.

pub mod cases;
pub mod credential;
pub mod policy;
pub mod verdict;

/// Something that is wrong with what was written, or with what came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is in: a document's name ("staff.cedar"), "issuer corp", "application batch", "entities".
    pub place: String,
    /// Line, from 1; 0: the whole is meant.
    pub line: u32,
    /// Column, from 1; 0: the whole line is meant.
    pub column: u32,
    /// What is wrong, and what is accepted.
    pub message: String,
}
