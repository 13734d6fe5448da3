//! Single values of a section: typed, checked, each mistake with what is accepted.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use api::{NotAccepted, Span};
use toml::Spanned;
use toml::de::DeValue;

use super::walk::{Section, Walk, a_kind, nearest, shown};

impl Section<'_> {
    /// A string, if the key is there.
    pub(super) fn text(&self, walk: &mut Walk<'_>, key: &str) -> Option<(String, usize)> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some((text.to_string(), value.span().start)),
            other => {
                walk.wrong(value.span().start, format!("`{key}` is a string in quotes, not {}", a_kind(other)));
                None
            }
        }
    }

    /// A value of one of the types of the contract, if the key is there.
    pub(super) fn parsed<T: FromStr<Err = NotAccepted>>(&self, walk: &mut Walk<'_>, key: &str) -> Option<T> {
        let (text, at) = self.text(walk, key)?;
        text.parse().map_err(|error| walk.wrong(at, format!("`{key}`: {error}"))).ok()
    }

    /// As [`Section::parsed`]; a missing key is a mistake.
    pub(super) fn required<T: FromStr<Err = NotAccepted>>(&self, walk: &mut Walk<'_>, key: &str) -> Option<T> {
        self.require(walk, key).then(|| self.parsed(walk, key)).flatten()
    }

    /// Whether the key is there; a mistake when it is not.
    pub(super) fn require(&self, walk: &mut Walk<'_>, key: &str) -> bool {
        let there = self.has(key);
        if !there {
            walk.missing(self.at, format!("{} needs `{key}`", self.title));
        }
        there
    }

    /// True or false, if the key is there.
    pub(super) fn boolean(&self, walk: &mut Walk<'_>, key: &str) -> Option<bool> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            other => {
                walk.wrong(value.span().start, format!("`{key}` is true or false, not {}", a_kind(other)));
                None
            }
        }
    }

    /// A whole number within a range, if the key is there.
    pub(super) fn number(&self, walk: &mut Walk<'_>, key: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(integer) => u32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            walk.wrong(
                value.span().start,
                if least == most {
                    format!("`{key}` must be {least}")
                } else {
                    format!("`{key}` is a whole number from {least} to {most}")
                },
            );
        }
        number
    }

    /// A length of time within a range, if the key is there.
    pub(super) fn within(&self, walk: &mut Walk<'_>, key: &str, least: Span, most: Span) -> Option<Span> {
        let span: Span = self.parsed(walk, key)?;
        if span < least || span > most {
            walk.wrong(self.place(key), format!("`{key}` is {span}: accepted is {least} to {most}"));
        }
        Some(span)
    }

    /// One of a few words, if the key is there; `what` is what they are, with its article.
    pub(super) fn word<T: Copy>(
        &self,
        walk: &mut Walk<'_>,
        key: &str,
        what: &str,
        accepted: &[(&str, T)],
    ) -> Option<T> {
        let (text, at) = self.text(walk, key)?;
        let found = accepted.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant);
        if found.is_none() {
            let words: Vec<&str> = accepted.iter().map(|(word, _)| *word).collect();
            not_one_of(walk, at, what, &text, &words);
        }
        found
    }

    /// A list of strings, if the key is there; each with its place. What is no string is a mistake and left out.
    pub(super) fn list(&self, walk: &mut Walk<'_>, key: &str) -> Option<Vec<(String, usize)>> {
        let value = self.value(key)?;
        let DeValue::Array(items) = value.get_ref() else {
            let message =
                format!("`{key}` is a list of strings such as [\"a\", \"b\"], not {}", a_kind(value.get_ref()));
            walk.wrong(value.span().start, message);
            return None;
        };
        let mut texts = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(text) => texts.push((text.to_string(), item.span().start)),
                other => walk.wrong(item.span().start, format!("`{key}` holds strings, not {}", a_kind(other))),
            }
        }
        Some(texts)
    }

    /// A command: program and arguments, none of which can hold NUL.
    pub(super) fn command(&self, walk: &mut Walk<'_>, key: &str) -> Option<Vec<String>> {
        let words = self.list(walk, key)?;
        for (_, at) in words.iter().filter(|(word, _)| word.contains('\0')) {
            walk.wrong(*at, format!("`{key}` contains a NUL character, which no argument can"));
        }
        Some(words.into_iter().map(|(word, _)| word).collect())
    }

    /// An absolute path on the controller's machine, if the key is there.
    pub(super) fn machine_path(&self, walk: &mut Walk<'_>, key: &str) -> Option<String> {
        let (text, at) = self.text(walk, key)?;
        if !Path::new(&text).is_absolute() || text.contains('\0') {
            walk.wrong(at, format!("`{key}` is the absolute path of a file on the controller's machine"));
            return None;
        }
        Some(text)
    }

    /// A table of environment variables; empty when the key is not there.
    pub(super) fn variables(&self, walk: &mut Walk<'_>, key: &str) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let Some(section) = self.section(walk, key, &format!("`{key}`")) else { return variables };
        for (name, at, value) in section.entries() {
            check_variable(walk, name, at);
            if let Some(text) = variable_value(walk, name, value) {
                variables.insert(name.to_owned(), text);
            }
        }
        variables
    }
}

/// A word that is none of a few.
pub(super) fn not_one_of(walk: &mut Walk<'_>, at: usize, what: &str, word: &str, accepted: &[&str]) {
    let near = nearest(word, accepted).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
    let list = accepted.join("\", \"");
    walk.wrong(at, format!("\"{}\" is not {what}{near} (accepted: \"{list}\")", shown(word)));
}

/// Refuses what is no name of an environment variable, and the names that are ours.
pub(super) fn check_variable(walk: &mut Walk<'_>, name: &str, at: usize) {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let good = name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit());
    if !good {
        let message = "is not a variable name: accepted are letters, digits and underscores, such as \"RUST_LOG\"";
        walk.wrong(at, format!("\"{}\" {message}", shown(name)));
    } else if name.starts_with("POINTSMAN_") {
        walk.wrong(at, format!("`{}`: names that begin with POINTSMAN_ are set by Pointsman", shown(name)));
    }
}

fn variable_value(walk: &mut Walk<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) if text.contains('\0') => {
            walk.wrong(value.span().start, format!("`{}` contains a NUL character", shown(name)));
            None
        }
        DeValue::String(text) => Some(text.to_string()),
        other => {
            let message = format!("`{}` is a string in quotes, not {}", shown(name), a_kind(other));
            walk.wrong(value.span().start, message);
            None
        }
    }
}

/// Whether a path stays within the folder it is relative to, by its spelling alone.
pub(super) fn stays_within(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}
