//! Files that people write, as they are written: TOML to specs, or every mistake with its place.
//!
//! Must not know: where a file came from, what else exists (whether an environment is there is the core's question), or
//! how mistakes are shown.
//!
//! Main types: [`File`], [`Mistake`]; [`parse()`], [`parse_with()`] for one that names others, and [`template()`].
//!
//! A file is parsed into a tree that keeps places (the `toml` crate's own), then walked by hand: a derived reader would
//! stop at the first mistake. What this version does not act on is refused, never passed over.

mod access;
mod build;
mod certificates;
mod environment;
mod output;
mod releases;
mod rollout;
mod service;
mod source;
mod stages;
mod template;
mod tls;
mod trigger;
mod value;
mod walk;

#[cfg(test)]
mod tests;

use std::fmt;

use toml::de::DeTable;

use crate::core::spec::{AccessSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec};
use walk::{Section, Walk};

pub(crate) use source::{check_reference, check_repository};
pub use template::template;

/// Longest accepted file: a thousand stages fit many times over.
pub const FILE_BYTES: usize = 1024 * 1024;

/// A file, as it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// The operator's: it has the key `environment`.
    Environment(EnvironmentSpec),
    /// A team's: it has the key `service`.
    Service(ServiceSpec),
    /// The operator's, for the whole fleet: it has the key `issuer`, `policies` or `entities`.
    Access(AccessSpec),
    /// The operator's, for the whole controller: it has the key `builders`, `registry`, `repository`, `secret` or `keep`.
    Releases(Box<ReleasesSpec>),
}

/// A file that another one names.
#[derive(Debug, Clone, Copy)]
pub struct Attached<'a> {
    /// For the mistakes.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// One mistake in a file.
///
/// Displays as `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name as it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// One sentence: what is wrong, and what is accepted.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Reads a file; `name` is for the mistakes.
///
/// # Errors
/// All mistakes, in the order of their places (after 100, how many more there are). Never empty.
pub fn parse(name: &str, text: &str) -> Result<File, Vec<Mistake>> {
    parse_with(name, text, &|_| None)
}

/// As [`parse`], with the files that it names, as it names them. Mistakes in those follow its own.
///
/// # Errors
/// As [`parse`].
pub fn parse_with<'a>(
    name: &str,
    text: &str,
    attached: &dyn Fn(&str) -> Option<Attached<'a>>,
) -> Result<File, Vec<Mistake>> {
    let mut walk = Walk::new(name, text);
    let refused = walk.refuse_unreadable();
    let (file, elsewhere) = if refused { (None, Vec::new()) } else { read(&mut walk, text, attached) };
    let mut mistakes = walk.finish();
    mistakes.extend(elsewhere);
    match file {
        Some(file) if mistakes.is_empty() => Ok(file),
        _ => Err(mistakes),
    }
}

/// The files that a file names, as it names them, each once; of a file with mistakes, what can be told.
pub fn named(text: &str) -> Vec<String> {
    access::named(text)
}

/// As [`parse`], for bytes that may not be text.
///
/// # Errors
/// As [`parse`]; bytes that are not UTF-8 are one mistake, at the first of them.
pub fn parse_bytes(name: &str, bytes: &[u8]) -> Result<File, Vec<Mistake>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(name, text),
        Err(error) => {
            let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to there");
            let mut walk = Walk::new(name, valid);
            walk.wrong(valid.len(), "this is not UTF-8 text");
            Err(walk.finish())
        }
    }
}

/// What the file says, and mistakes in files that it names.
fn read<'a>(
    walk: &mut Walk<'_>,
    text: &str,
    attached: &dyn Fn(&str) -> Option<Attached<'a>>,
) -> (Option<File>, Vec<Mistake>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        walk.syntax(error);
    }
    let root = Section::root(root.get_ref());
    let none = Vec::new();
    let has_any = |keys: &[&str]| keys.iter().any(|key| root.has(key));
    match (root.has("environment"), root.has("service")) {
        (true, false) => (environment::read(walk, &root).map(File::Environment), none),
        (false, true) => (service::read(walk, &root).map(File::Service), none),
        (true, true) => {
            walk.wrong(root.place("service"), "a file describes either an `environment` or a `service`, not both");
            (None, none)
        }
        (false, false) if has_any(&access::KEYS) => access::read(walk, &root, attached),
        (false, false) if has_any(&releases::KEYS) => {
            (Some(File::Releases(Box::new(releases::read(walk, &root)))), none)
        }
        (false, false) => {
            let message = "the file needs `environment = \"...\"` (operator) or `service = \"...\"` (team) on top, or says who \
                           may pass with `policies = [...]` and [issuer.NAME], or how releases are made with `builders`, \
                           [registry], [repository.NAME], [secret.NAME] and [keep] (operator)";
            walk.missing(0, message);
            (None, none)
        }
    }
}
