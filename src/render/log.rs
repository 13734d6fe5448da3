//! A build log for the terminal: whole lines, without what a terminal would obey.

use super::clean;

/// Longest line that is kept together, in bytes: a build that prints no line ends must not fill the memory.
const LINE_BYTES: usize = 64 * 1024;

/// Turns pieces of a log as they come into lines that are safe to print.
///
/// A carriage return ends a line like a line feed: progress that is drawn over itself becomes lines. Colour codes are
/// dropped, everything else that is not text is escaped.
#[derive(Debug, Default)]
pub(crate) struct LogText {
    partial: Vec<u8>,
    after_return: bool,
}

impl LogText {
    /// Lines that are complete with this piece.
    pub(crate) fn piece(&mut self, data: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in data {
            match byte {
                // The second half of CR LF.
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => lines.push(self.take()),
                _ => self.partial.push(*byte),
            }
            self.after_return = *byte == b'\r';
            if self.partial.len() >= LINE_BYTES {
                lines.push(self.take());
            }
        }
        lines
    }

    /// What is left when the log has ended.
    pub(crate) fn end(&mut self) -> Option<String> {
        (!self.partial.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let expanded = without_colours(&text).replace('\t', "    ");
        clean(&expanded).into_owned()
    }
}

/// Drops complete colour codes: ESC `[`, digits and separators, `m` (ECMA-48 §8.3.117).
fn without_colours(text: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(place) = rest.find("\x1b[") {
        let (before, code) = rest.split_at(place);
        kept.push_str(before);
        let parameters = code[2..].bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b';' | b':')).count();
        if code.as_bytes().get(2 + parameters) == Some(&b'm') {
            rest = &code[2 + parameters + 1..];
        } else {
            kept.push('\x1b');
            rest = &code[1..];
        }
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], expected: &[&str]) {
        let mut log = LogText::default();
        let mut lines: Vec<String> = pieces.iter().flat_map(|piece| log.piece(piece)).collect();
        lines.extend(log.end());
        assert_eq!(lines, expected);
    }

    #[test]
    fn hostile_logs_become_plain_lines() {
        check(&[b"one\ntwo\n"], &["one", "two"]);
        check(&[b"on", b"e\ntw", b"o"], &["one", "two"]);
        check(&[b"a\r\nb\r", b"\nc"], &["a", "b", "c"]);
        check(&[b"10%\r20%\r\n"], &["10%", "20%"]);
        check(&[b"\x1b[1;32m   Compiling\x1b[0m hello\n"], &["   Compiling hello"]);
        check(&[b"\x1b[2J\x1b]0;owned\x07\n"], &[r"\u{1b}[2J\u{1b}]0;owned\u{7}"]);
        check(&[b"broken \xff\xfe utf-8\n"], &["broken \u{fffd}\u{fffd} utf-8"]);
        // A character cut by the border of two pieces is whole again.
        check(&[b"gr\xc3", b"\xbc\xc3\x9fe\n"], &["grüße"]);
        check(&[b"\x1b[31", b"mred\n"], &["red"]);
        check(&[b"end \x1b["], &[r"end \u{1b}["]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut log = LogText::default();
        let lines = log.piece(&vec![b'x'; 3 * LINE_BYTES + 5]);
        assert_eq!((lines.len(), log.end().map(|rest| rest.len())), (3, Some(5)));
    }
}
