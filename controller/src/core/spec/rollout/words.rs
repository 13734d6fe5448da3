//! The texts of checks, in which `{host}` and `{release}` stand for what is checked. `{{` is a brace; `}` needs no care.

use std::fmt;

use api::{Host, ReleaseNumber};

/// The words that may stand in braces.
pub const WORDS: [&str; 2] = ["host", "release"];

/// A brace that begins no accepted word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongWord {
    /// What stands between the braces; none: the brace is never closed.
    pub word: Option<String>,
}

impl fmt::Display for WrongWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.word {
            Some(word) => write!(f, "{{{}}} is no word", word.escape_debug()),
            None => f.write_str("a brace is opened and never closed"),
        }
    }
}

impl std::error::Error for WrongWord {}

/// A part of a text.
enum Piece<'t> {
    Text(&'t str),
    Word(&'t str),
    /// The rest, which begins with a brace that is never closed.
    Open(&'t str),
}

/// The parts of a text in their order.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let brace = rest.find('{').unwrap_or(rest.len());
        if rest.is_empty() {
            return None;
        }
        if brace > 0 {
            let (before, after) = rest.split_at(brace);
            rest = after;
            return Some(Piece::Text(before));
        }
        if let Some(after) = rest.strip_prefix("{{") {
            rest = after;
            return Some(Piece::Text("{"));
        }
        let Some((word, after)) = rest[1..].split_once('}') else {
            return Some(Piece::Open(std::mem::take(&mut rest)));
        };
        rest = after;
        Some(Piece::Word(word))
    })
}

/// Whether a text has no other words in braces than [`WORDS`].
///
/// # Errors
/// The first one.
pub fn check_words(text: &str) -> Result<(), WrongWord> {
    for piece in pieces(text) {
        match piece {
            Piece::Word(word) if !WORDS.contains(&word) => return Err(WrongWord { word: Some(word.to_owned()) }),
            Piece::Open(_) => return Err(WrongWord { word: None }),
            Piece::Text(_) | Piece::Word(_) => {}
        }
    }
    Ok(())
}

/// The text with the release's own host (`r42--hello.example.com`) and its number (`r42`) in place of the words, and one brace
/// in place of `{{`. What [`check_words`] refuses stays as it is.
pub fn fill(text: &str, host: &Host, release: ReleaseNumber) -> String {
    let mut filled = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) | Piece::Open(text) => filled.push_str(text),
            Piece::Word("host") => filled.push_str(host.as_str()),
            Piece::Word("release") => filled.push_str(&release.to_string()),
            Piece::Word(other) => filled.extend(["{", other, "}"]),
        }
    }
    filled
}
