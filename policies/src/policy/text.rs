//! A document cut into its policies, with the place of each.
//!
//! Must not know: what a policy means.
//!
//! Cedar ends every policy with a semicolon and has no other use for one outside of strings and comments. So a mistake in
//! one policy does not hide those in others.
//!
//! Main function: [`policies`].

use crate::Problem;

/// Longest policy, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// How deep brackets may stand in each other. Cedar recurses: in 2 MiB of stack it reads some 140 without optimisation.
pub(super) const DEEPEST: usize = 32;

/// How many characters of operators a policy may have: chains such as `a || b || c` are as deep as they are long. Cedar
/// reads some 3,200 links in 2 MiB of stack without optimisation.
pub(super) const MOST_OPERATORS: usize = 1_000;

/// How many `if` a policy may have: Cedar's check takes twice as long with each one in another (4 s with 22).
pub(super) const MOST_IFS: usize = 8;

/// What ends a comment, in Cedar's eyes: a carriage return alone does, too. Another opinion here would hide a policy.
const LINE_ENDS: [char; 2] = ['\n', '\r'];

/// One policy in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// From its first letter to its semicolon.
    pub(super) text: &'a str,
    /// Where its first letter stands, in bytes.
    pub(super) at: usize,
}

/// All policies of a document.
///
/// # Errors
/// Policies that are too long or too deep to be read, and a string that has no end.
pub(super) fn policies<'a>(name: &str, text: &'a str) -> Result<Vec<Piece<'a>>, Vec<Problem>> {
    let (mut pieces, mut problems) = (Vec::new(), Vec::new());
    let mut from = 0;
    while let Some(at) = begin(text, from) {
        let walk = walk(&text[at..]);
        let piece = Piece { text: &text[at..at + walk.length], at };
        match walk.too_much() {
            Some(message) => problems.push(problem(name, text, at, message)),
            None => pieces.push(piece),
        }
        from = at + walk.length;
    }
    if problems.is_empty() { Ok(pieces) } else { Err(problems) }
}

/// Line and column of a byte, both from 1; columns count characters.
pub(super) fn place(text: &str, at: usize) -> (u32, u32) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Something that is wrong at a byte of a document.
pub(super) fn problem(name: &str, text: &str, at: usize, message: String) -> Problem {
    let (line, column) = place(text, at);
    Problem { place: name.to_owned(), line, column, message }
}

/// What a policy is made of.
#[derive(Debug, Default)]
struct Walk {
    /// To the semicolon, or to the end.
    length: usize,
    open: usize,
    deepest: usize,
    operators: usize,
    ifs: usize,
    is_open_string: bool,
}

/// The first letter that belongs to a policy.
fn begin(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += text[at..].find(|letter: char| !letter.is_whitespace())?;
        if !text[at..].starts_with("//") {
            return Some(at);
        }
        at += text[at..].find(LINE_ENDS)?;
    }
}

fn walk(text: &str) -> Walk {
    let bytes = text.as_bytes();
    let mut walk = Walk::default();
    while walk.length < bytes.len() {
        let rest = &bytes[walk.length..];
        walk.length += match rest[0] {
            b';' => {
                walk.length += 1;
                return walk;
            }
            b'/' if rest.get(1) == Some(&b'/') => line_end(rest),
            b'"' => string_end(rest).unwrap_or_else(|| {
                walk.is_open_string = true;
                rest.len()
            }),
            letter if is_of_word(letter) => {
                let length = rest.iter().position(|byte| !is_of_word(*byte)).unwrap_or(rest.len());
                walk.ifs += usize::from(&rest[..length] == b"if");
                length
            }
            letter => {
                walk.see(letter);
                1
            }
        };
    }
    walk
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

// === impl Walk ===

impl Walk {
    fn see(&mut self, letter: u8) {
        match letter {
            b'(' | b'[' | b'{' => {
                self.open += 1;
                self.deepest = self.deepest.max(self.open);
            }
            b')' | b']' | b'}' => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        // `a["b"]` is `a.b`.
        if b"|&+-*/.!<>=[".contains(&letter) {
            self.operators += 1;
        }
    }

    /// Why Cedar is not given it.
    fn too_much(&self) -> Option<String> {
        let Self { length, deepest, operators, ifs, .. } = self;
        let checks = [
            (self.is_open_string, "a string in this policy has no end: it needs a closing \"".to_owned()),
            (*length > LONGEST, format!("this policy has {length} bytes, accepted are {LONGEST}")),
            (*deepest > DEEPEST, format!("brackets stand {deepest} deep in each other, accepted are {DEEPEST}")),
            (
                *operators > MOST_OPERATORS,
                format!("this policy has {operators} characters of operators, accepted are {MOST_OPERATORS}: split it"),
            ),
            (*ifs > MOST_IFS, format!("this policy has {ifs} times `if`, accepted are {MOST_IFS}: split it")),
        ];
        checks.into_iter().find_map(|(is_so, message)| is_so.then_some(message))
    }
}

fn line_end(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| LINE_ENDS.contains(&char::from(*byte))).unwrap_or(bytes.len())
}

/// Length of the string that begins here, with both quotes. None: it has no end.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests;
