//! Lines of styled text, clean by construction.

use std::borrow::Cow;
use std::fmt::Write;

/// What a piece of text means. Colour is only one way to show it: the words say it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Style {
    /// Nothing particular.
    #[default]
    Plain,
    /// Headers and what matters less.
    Dim,
    /// Names that the eye looks for.
    Bold,
    /// As it should be.
    Good,
    /// In motion, or to be watched.
    Moving,
    /// Wrong.
    Bad,
}

impl Style {
    /// Select Graphic Rendition codes (ECMA-48 §8.3.117), from the 16 colours that every theme defines.
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Good => "32",
            Self::Moving => "33",
            Self::Bad => "31",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    // INVARIANT: went through `clean`.
    text: String,
    style: Style,
}

/// One line for the terminal, without its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line(Vec<Piece>);

impl Line {
    /// A line of one piece.
    pub(crate) fn of(style: Style, text: impl AsRef<str>) -> Self {
        Self::default().with(style, text)
    }

    /// A line without meaning beyond its words.
    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self::of(Style::Plain, text)
    }

    /// The line with a piece more.
    pub(crate) fn with(mut self, style: Style, text: impl AsRef<str>) -> Self {
        self.push(style, text);
        self
    }

    /// Adds a piece; nothing for an empty text.
    pub(crate) fn push(&mut self, style: Style, text: impl AsRef<str>) {
        let text = text.as_ref();
        if !text.is_empty() {
            self.0.push(Piece { text: clean(text).into_owned(), style });
        }
    }

    /// Adds all pieces of another line.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Whether there is nothing on it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Width in characters.
    pub(crate) fn width(&self) -> usize {
        self.0.iter().map(|piece| piece.text.chars().count()).sum()
    }

    /// The words alone.
    pub(crate) fn text(&self) -> String {
        self.0.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// The line cut to `width` characters, the last of them a sign that something is missing.
    pub(crate) fn cut(&self, width: usize, unicode: bool) -> Self {
        if self.width() <= width {
            return self.clone();
        }
        let (mut room, mut cut) = (width.saturating_sub(1), Self::default());
        for piece in &self.0 {
            let text: String = piece.text.chars().take(room).collect();
            room -= text.chars().count();
            cut.push(piece.style, text);
        }
        if width > 0 {
            cut.push(Style::Dim, if unicode { "…" } else { "~" });
        }
        cut
    }

    /// The line for a terminal: with colour codes, or without.
    pub(crate) fn painted(&self, colour: bool) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece.style.code() {
                "" => text.push_str(&piece.text),
                _ if !colour => text.push_str(&piece.text),
                code => {
                    // Writing to a String does not fail.
                    let _ = write!(text, "\x1b[{code}m{}\x1b[0m", piece.text);
                }
            }
        }
        text
    }
}

/// The text with everything escaped that a terminal would obey rather than show.
///
/// Control characters of C0 and C1 (so also ESC and the 8-bit CSI), line and paragraph separators, the marks that turn
/// the reading direction (Unicode TR 36 §2.10), and invisible characters become `\u{1b}` and the like.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) { safe.extend(character.escape_default()) } else { safe.push(character) }
    }
    Cow::Owned(safe)
}

/// A text of several lines, each of them cleaned.
pub(crate) fn clean_lines(text: &str) -> String {
    text.split('\n').map(clean).collect::<Vec<_>>().join("\n")
}

/// Whether a terminal might obey the character, or a reader be misled by it.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_never_reaches_the_terminal_raw() {
        let table = [
            ("plain – ünïcode 漢字", "plain – ünïcode 漢字"),
            ("\x1b[2J\x1b[31mred", r"\u{1b}[2J\u{1b}[31mred"),
            ("two\nlines\r\n", r"two\nlines\r\n"),
            ("\x1b]0;title\x07", r"\u{1b}]0;title\u{7}"),
            ("8-bit \u{9b}31m", r"8-bit \u{9b}31m"),
            ("bell\x07 nul\0 del\x7f", r"bell\u{7} nul\u{0} del\u{7f}"),
            ("abc\u{202e}fdp.exe", r"abc\u{202e}fdp.exe"),
            ("zero\u{200b}width\u{feff}", r"zero\u{200b}width\u{feff}"),
        ];
        for (written, shown) in table {
            assert_eq!(clean(written), shown);
            let painted = Line::of(Style::Bad, written).painted(true);
            assert_eq!(painted, format!("\x1b[31m{shown}\x1b[0m"));
            assert_eq!(Line::of(Style::Bad, written).painted(false), shown);
        }
    }

    #[test]
    fn a_line_is_cut_by_characters_across_pieces() {
        let line = Line::plain("äbc").with(Style::Good, "def");
        for (width, shown) in [(9, "äbcdef"), (6, "äbcdef"), (5, "äbcd…"), (3, "äb…"), (1, "…"), (0, "")] {
            assert_eq!(line.cut(width, true).text(), shown, "{width}");
        }
        assert_eq!(line.cut(4, false).text(), "äbc~");
    }
}
