//! What somebody else said, in one line.

/// Longest, in characters.
pub(super) const MOST: usize = 300;

/// The line, cut, with what cannot be shown escaped: it stands in events and on terminals.
pub(super) fn one(text: &str) -> String {
    let mut line = String::new();
    let mut left = MOST;
    for letter in text.trim().chars() {
        let shown: String = match letter {
            '"' | '\'' | '\\' => letter.into(),
            other => other.escape_debug().collect(),
        };
        let long = shown.chars().count();
        if long >= left {
            line.push('…');
            break;
        }
        left -= long;
        line.push_str(&shown);
    }
    line
}

/// The first line with something in it, or nothing.
pub(super) fn first(text: &[u8]) -> String {
    // What is cut off of the last letter is shown as such.
    let text = String::from_utf8_lossy(text);
    one(text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

/// The last line with something in it, or nothing.
pub(super) fn last(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    one(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_check_problems_are_one_line() {
        for (text, at_first, at_last) in [
            (&b""[..], "", ""),
            (b"\n \t\n", "", ""),
            (b"one", "one", "one"),
            (b"\r\n one \r\ntwo\r\n\r\n", "one", "two"),
            (b"a \"quoted\" C:\\path, it's", "a \"quoted\" C:\\path, it's", "a \"quoted\" C:\\path, it's"),
            (b"\x1b[31mred\x07\0", "\\u{1b}[31mred\\u{7}\\0", "\\u{1b}[31mred\\u{7}\\0"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}"),
            (
                "gr\u{f6}\u{df}e \u{202e}evil\u{2028}!".as_bytes(),
                "größe \\u{202e}evil\\u{2028}!",
                "größe \\u{202e}evil\\u{2028}!",
            ),
        ] {
            assert_eq!((first(text).as_str(), last(text).as_str()), (at_first, at_last), "{text:?}");
        }
        assert_eq!(one("\u{2028}"), "");
    }

    #[test]
    fn rollout_check_problems_are_short() {
        for text in ["x".repeat(MOST - 1), "x".repeat(MOST), "\x1b".repeat(MOST), "\u{fe0f}".repeat(10_000)] {
            let line = one(&text);
            assert!(line.chars().count() <= MOST && !line.chars().any(char::is_control), "{line}");
        }
        assert_eq!(one(&"x".repeat(MOST - 1)), "x".repeat(MOST - 1));
        assert_eq!(one(&"x".repeat(MOST + 1)), format!("{}…", "x".repeat(MOST - 1)));
    }
}
