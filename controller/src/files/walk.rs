//! The walk through a parsed file: sections, their keys, and the mistakes collected on the way.

use std::collections::BTreeSet;
use std::fmt::Display;

use api::NotAccepted;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FILE_BYTES, Mistake};

/// More mistakes than this help nobody, and a hostile file could have a million.
const MOST_MISTAKES: usize = 100;

/// Longest key for which a near one is looked for, and which is repeated in a message.
const KEY_LENGTH: usize = 40;

/// Collects the mistakes of one file.
pub(super) struct Walk<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    mistakes: Vec<Mistake>,
    left_off: usize,
    /// Lines whose content the parser had to guess: what is wrong there was said already.
    guessed: BTreeSet<usize>,
    /// From this line on keys may lie in a section that they were not written in.
    misplaced_from: usize,
}

impl<'t> Walk<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        let too_long = text.len() > FILE_BYTES;
        let breaks = if too_long { "" } else { text }.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(breaks).collect(),
            mistakes: Vec::new(),
            left_off: 0,
            guessed: BTreeSet::new(),
            misplaced_from: usize::MAX,
        }
    }

    /// Refuses what need not be parsed to be wrong.
    pub(super) fn refuse_unreadable(&mut self) -> bool {
        if self.text.len() > FILE_BYTES {
            self.wrong(0, format!("the file has {} bytes: accepted are at most {FILE_BYTES} (1 MiB)", self.text.len()));
            return true;
        }
        let Some(at) = self.text.find('\0') else { return false };
        self.wrong(at, "this is a NUL character: a file is text");
        true
    }

    /// A mistake at a byte of the file.
    pub(super) fn wrong(&mut self, at: usize, message: impl Display) {
        let (line, column) = self.line_and_column(at);
        if self.guessed.contains(&line) || line >= self.misplaced_from {
            return;
        }
        self.push(line, column, message.to_string());
    }

    /// Something that is not there. After a syntax error it may be there, unread.
    pub(super) fn missing(&mut self, at: usize, message: impl Display) {
        if self.guessed.is_empty() {
            self.wrong(at, message);
        }
    }

    /// Mistakes so far.
    pub(super) fn count(&self) -> usize {
        self.mistakes.len() + self.left_off
    }

    /// A mistake found by the TOML parser.
    pub(super) fn syntax(&mut self, error: &toml::de::Error) {
        let at = error.span().map_or(self.text.len(), |span| span.start);
        let (line, column) = self.line_and_column(at);
        // A broken header leaves its keys in the section before.
        if self.line(line).trim_start().starts_with('[') {
            self.misplaced_from = self.misplaced_from.min(line);
        }
        self.guessed.insert(line);
        self.push(line, column, format!("not TOML: {}", error.message()));
    }

    /// All mistakes by place.
    pub(super) fn finish(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        if let (Some(last), true) = (self.mistakes.last().cloned(), self.left_off > 0) {
            self.mistakes.push(Mistake { message: format!("and {} more mistakes", self.left_off), ..last });
        }
        self.mistakes
    }

    fn push(&mut self, line: usize, column: usize, message: String) {
        if self.mistakes.len() < MOST_MISTAKES {
            self.mistakes.push(Mistake { file: self.file.to_owned(), line, column, message });
        } else {
            self.left_off += 1;
        }
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let at = at.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= at);
        // A span may begin within a character when the parser recovered: count what is whole before it.
        let before = self.text.as_bytes().get(self.line_starts[line - 1]..at).unwrap_or_default();
        (line, String::from_utf8_lossy(before).chars().count() + 1)
    }

    fn line(&self, line: usize) -> &str {
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        self.text.get(self.line_starts[line - 1]..end).unwrap_or_default()
    }
}

/// A table of the file with the words for it.
pub(super) struct Section<'t> {
    /// As it is named in messages: `[build]`, `the file`.
    pub(super) title: String,
    /// Where what is missing in it is reported.
    pub(super) at: usize,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self { title: "the file".to_owned(), at: 0, table }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key says `false`.
    pub(super) fn is_false(&self, key: &str) -> bool {
        self.value(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Boolean(false)))
    }

    /// Where a key stands; the section itself when it is not there.
    pub(super) fn place(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| key.span().start)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Keys and values in alphabetical order of the keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, usize, &'t Spanned<DeValue<'t>>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), key.span().start, value))
    }

    /// Refuses every key that is neither accepted nor one of `later`, which this version does not act on yet.
    pub(super) fn check_keys(&self, walk: &mut Walk<'_>, accepted: &[&str], later: &[&str]) {
        for (key, at, _) in self.entries() {
            if accepted.contains(&key) {
                continue;
            }
            if later.contains(&key) {
                walk.wrong(at, format!("`{key}` is not supported by this version"));
                continue;
            }
            let near = nearest(key, accepted).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            let list = accepted.join(", ");
            walk.wrong(at, format!("{} has no key `{}`{near} (accepted: {list})", self.title, shown(key)));
        }
    }

    /// A table within this one; any other value is a mistake.
    pub(super) fn section(&self, walk: &mut Walk<'_>, key: &str, title: &str) -> Option<Section<'t>> {
        as_section(walk, self.value(key)?, self.place(key), title)
    }

    /// The tables in the list `key`; any other value is a mistake.
    pub(super) fn sections(&self, walk: &mut Walk<'_>, key: &str) -> Vec<Section<'t>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            walk.wrong(value.span().start, format!("`{key}` is a list of tables, not {}", a_kind(value.get_ref())));
            return Vec::new();
        };
        let title = format!("an entry of `{key}`");
        items.iter().filter_map(|item| as_section(walk, item, item.span().start, &title)).collect()
    }

    /// The named tables within the table `key`: `[stage.staging]`. Names that are not accepted are mistakes.
    pub(super) fn named<N: std::str::FromStr<Err = NotAccepted>>(
        &self,
        walk: &mut Walk<'_>,
        key: &str,
    ) -> Vec<(N, Section<'t>)> {
        let mut found = Vec::new();
        let Some(outer) = self.section(walk, key, &format!("[{key}]")) else { return found };
        for (name, at, value) in outer.entries() {
            let title = format!("[{key}.{}]", shown(name));
            let section = as_section(walk, value, at, &title);
            match name.parse() {
                Ok(name) => found.extend(section.map(|section| (name, section))),
                Err(error) => walk.wrong(at, error),
            }
        }
        found
    }
}

fn as_section<'t>(walk: &mut Walk<'_>, value: &'t Spanned<DeValue<'t>>, at: usize, title: &str) -> Option<Section<'t>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(Section { title: title.to_owned(), at, table }),
        other => {
            walk.wrong(value.span().start, format!("{title} is a table, not {}", a_kind(other)));
            None
        }
    }
}

/// A value's type with its article, for messages.
pub(super) fn a_kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A key for a message: cut, and without control characters.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(KEY_LENGTH).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut.escape_debug().to_string()
}

/// The accepted word that was probably meant: at most two letters differ, and not more than a third of them.
pub(super) fn nearest<'a>(key: &str, accepted: &[&'a str]) -> Option<&'a str> {
    if key.chars().count() > KEY_LENGTH {
        return None;
    }
    let near = accepted.iter().map(|word| (distance(key, word), *word)).min()?;
    let most = (near.1.len() / 3).clamp(1, 2);
    (near.0 <= most).then_some(near.1)
}

/// Letters to insert, remove, change or swap with the next to make one word the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last, mut row): (Vec<usize>, Vec<usize>, Vec<usize>) =
        (Vec::new(), (0..=b.len()).collect(), vec![0; b.len() + 1]);
    for i in 1..=a.len() {
        row[0] = i;
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        (before, last, row) = (last, row.clone(), row);
    }
    last[b.len()]
}
