//! Where results go: stdout as text or JSON, stderr for what is said beside them.
//!
//! Must not know: messages and verbs. It knows the terminal, and it is the only place that reads the environment about
//! it; rendering gets a [`View`].

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::render::{Line, Style, View, is_unsafe};

/// For whom a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: the message of the API as one JSON document.
    Json,
}

/// The way out.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    terminal: bool,
    colour: bool,
    unicode: bool,
    zone: jiff::tz::TimeZone,
}

impl Output {
    /// As the environment has it: terminal or not, NO_COLOR (no-color.org), TERM, locale, time zone.
    pub(crate) fn from_environment(format: Format) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let terminal = std::io::stdout().is_terminal();
        Self {
            format,
            terminal,
            colour: colours(terminal, variable("NO_COLOR").as_deref(), variable("TERM").as_deref()),
            unicode: speaks_unicode(["LC_ALL", "LC_CTYPE", "LANG"].map(|name| variable(name).unwrap_or_default())),
            zone: jiff::tz::TimeZone::system(),
        }
    }

    /// Whether a program reads the result.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether somebody looks at it as it comes.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether colour codes are written.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// How to render for this way out, now.
    pub(crate) fn view(&self) -> View {
        let width = self.terminal.then(crossterm::terminal::size).and_then(Result::ok);
        View {
            now_ms: now_ms(),
            zone: self.zone.clone(),
            unicode: self.unicode,
            width: width.map(|(columns, _)| columns.into()),
        }
    }

    /// Prints lines on stdout.
    ///
    /// # Errors
    /// See [`Failure::output`] for a closed pipe.
    pub(crate) fn lines(&self, lines: &[Line]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        let mut written = lines.iter().try_for_each(|line| writeln!(out, "{}", line.painted(self.colour)));
        written = written.and_then(|()| out.flush());
        written.map_err(|error| Failure::output(&error))
    }

    /// Prints one message as JSON over several lines, or what `lines` makes of it.
    pub(crate) fn show<T: Serialize>(
        &self,
        message: &T,
        lines: impl FnOnce(&View) -> Vec<Line>,
    ) -> Result<(), Failure> {
        if self.is_json() { self.json(message) } else { self.lines(&lines(&self.view())) }
    }

    /// Prints one JSON document.
    pub(crate) fn json<T: Serialize>(&self, message: &T) -> Result<(), Failure> {
        self.raw(&json(message, true)?)
    }

    /// Prints one JSON document on one line: for streams of them.
    pub(crate) fn json_line<T: Serialize>(&self, message: &T) -> Result<(), Failure> {
        self.raw(&json(message, false)?)
    }

    fn raw(&self, text: &str) -> Result<(), Failure> {
        print_line(text)
    }

    /// Says something beside the result, on stderr.
    pub(crate) fn aside(&self, line: &Line) {
        // Nobody can be told that stderr is closed.
        let colour = self.colour && std::io::stderr().is_terminal();
        let _ = writeln!(std::io::stderr(), "{}", line.painted(colour));
    }
}

/// Prints a line on stdout.
///
/// # Errors
/// See [`Failure::output`].
pub(crate) fn print_line(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// The way out for something that goes on when nobody reads it any more: it is followed to its end all the same.
pub(crate) struct Reading<'a> {
    output: &'a Output,
    ended: Option<Exit>,
}

impl<'a> Reading<'a> {
    pub(crate) fn of(output: &'a Output) -> Self {
        Self { output, ended: None }
    }

    /// Where it is told.
    pub(crate) fn output(&self) -> &'a Output {
        self.output
    }

    /// Tells something, unless nobody reads any more. What else is wrong with stdout is said once on stderr.
    pub(crate) fn tell(&mut self, tell: impl FnOnce(&Output) -> Result<(), Failure>) {
        if self.ended.is_some() {
            return;
        }
        if let Err(failure) = tell(self.output) {
            self.ended = Some(failure.exit);
            failure.message.lines().for_each(|line| self.output.aside(&Line::plain(line)));
        }
    }

    /// With which code a command ends that only tells, once nobody reads it.
    pub(crate) fn ended(&self) -> Option<Exit> {
        self.ended
    }
}

/// Prints a failure on stderr, each line of it cleaned: parts of it may come from elsewhere.
pub(crate) fn complain(message: &str) {
    let variable = |name: &str| std::env::var(name).ok();
    let colour = colours(std::io::stderr().is_terminal(), variable("NO_COLOR").as_deref(), variable("TERM").as_deref());
    let mut head = Line::of(Style::Bad, "pointsman: ");
    for line in message.lines() {
        head.push(Style::Plain, line);
        let _ = writeln!(std::io::stderr(), "{}", head.painted(colour));
        head = Line::default();
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn colours(terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
    terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb")
}

/// By the first of LC_ALL, LC_CTYPE and LANG that is set (POSIX, "Environment Variables" §8.2).
fn speaks_unicode(locale: [String; 3]) -> bool {
    let name = locale.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    name.contains("utf-8") || name.contains("utf8")
}

/// JSON that is safe to show: what a terminal would obey is escaped, which JSON allows within strings, and outside of
/// strings such characters do not occur.
fn json<T: Serialize>(message: &T, pretty: bool) -> Result<String, Failure> {
    let text = if pretty { serde_json::to_string_pretty(message) } else { serde_json::to_string(message) };
    let text = text.map_err(|error| Failure::refused(format!("the result could not be written as JSON: {error}")))?;
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\n' || !is_unsafe(character) {
            safe.push(character);
        } else {
            let mut units = [0; 2];
            safe.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_wants_them() {
        for (terminal, no_color, term, expected) in [
            (true, None, Some("xterm-256color"), true),
            (true, Some(""), None, true),
            (true, Some("1"), Some("xterm"), false),
            (true, None, Some("dumb"), false),
            (false, None, Some("xterm"), false),
        ] {
            assert_eq!(colours(terminal, no_color, term), expected);
        }
    }

    #[test]
    fn the_first_locale_that_is_set_counts() {
        for (all, ctype, lang, expected) in [
            ("", "", "en_AU.UTF-8", true),
            ("", "C.utf8", "", true),
            ("C", "", "en_AU.UTF-8", false),
            ("", "", "", false),
        ] {
            assert_eq!(speaks_unicode([all, ctype, lang].map(str::to_owned)), expected, "{all} {ctype} {lang}");
        }
    }

    #[test]
    fn hostile_text_in_json_is_escaped_and_still_the_same() {
        let text = "a\x1b[2J\u{9b}31m\u{202e}\u{e0041}\n\"é";
        for pretty in [true, false] {
            let shown = json(&[text], pretty).expect("JSON");
            assert!(!shown.chars().any(|c| c != '\n' && is_unsafe(c)), "{shown}");
            let back: Vec<String> = serde_json::from_str(&shown).expect("parses");
            assert_eq!(back, [text]);
        }
    }
}
