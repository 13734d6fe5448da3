//! Releases: the list, one with all that is known of it, what differs between two.

mod diff;
mod list;
mod show;
mod verified;

use api::operator::Release;

use super::{Line, Style, Table, View, marks, numbers, transfer};

pub(crate) use diff::differ;
pub(crate) use list::releases;
pub(crate) use show::{release, release_in_short, release_with_output};
pub(crate) use verified::verified;

pub(super) use list::subject;

/// The state in its colour, with what a reader has to know beside it.
pub(super) fn state(release: &Release) -> Line {
    let style = match release.state.as_str() {
        "ready" => Style::Good,
        "queued" | "building" => Style::Moving,
        "failed" => Style::Bad,
        "cancelled" | "overtaken" => Style::Dim,
        _ => Style::Plain,
    };
    let mut line = Line::of(style, &release.state);
    if release.cancel_asked {
        line.push(Style::Moving, ", ends");
    }
    if let Some(fix) = &release.hot_fix {
        line.push(Style::Dim, format!(", hot fix of r{}", fix.of));
    }
    if release.retry_of > 0 {
        line.push(Style::Dim, format!(", r{} again", release.retry_of));
    }
    marks::beside(line, release)
}

/// Who or what asked for it.
pub(super) fn asked_by(release: &Release) -> &str {
    let by_hand = matches!(release.trigger.as_str(), "" | "by hand");
    if by_hand { &release.by } else { &release.trigger }
}

/// Why it is not further than it is: what went wrong, what it waits for, what is under way; a line each.
pub(super) fn troubles(release: &Release, view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    if !release.problem.is_empty() {
        let style = if release.state == "failed" { Style::Bad } else { Style::Dim };
        lines.push(Line::of(style, &release.problem));
    }
    if !release.waits.is_empty() {
        lines.push(Line::of(Style::Moving, "waits: ").with(Style::Plain, &release.waits));
    }
    if release.overtaken_by > 0 {
        lines.push(Line::of(Style::Dim, format!("overtaken by r{}", release.overtaken_by)));
    }
    if let Some(under_way) = &release.transfer {
        lines.push(transfer(under_way, None, view));
    }
    lines
}

/// So many of something: `1 commit`, `12 commits`.
fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", numbers::count(count))
}

/// The first digits of a digest, as people compare them.
fn short_digest(digest: &str) -> &str {
    digest.char_indices().nth("sha256:".len() + 12).map_or(digest, |(end, _)| &digest[..end])
}

/// A table with its rows set in by so much.
fn set_in(table: Table, by: usize) -> Vec<Line> {
    let (head, rows) = table.parts();
    let indent = |line: Line| {
        let mut whole = Line::plain(" ".repeat(by));
        whole.append(line);
        whole
    };
    std::iter::once(head).chain(rows).map(indent).collect()
}

/// A text of several lines where there is no room for it on one, the others below its beginning.
fn flowing(mut beginning: Line, style: Style, text: &str, view: &View) -> Vec<Line> {
    // So little room is better left to the terminal.
    const LEAST: usize = 20;
    let indent = beginning.width();
    let text = Line::of(style, text);
    let room = view.width.map_or(usize::MAX, |width| width.saturating_sub(indent));
    if text.width() <= room || room < LEAST {
        beginning.append(text);
        return vec![beginning];
    }
    let (mut lines, mut line, mut used) = (Vec::new(), beginning, 0);
    for word in text.text().split(' ') {
        let width = word.chars().count();
        if used > 0 && used + 1 + width > room {
            lines.push(std::mem::replace(&mut line, Line::plain(" ".repeat(indent))));
            used = 0;
        }
        let gap = if used > 0 { " " } else { "" };
        line.push(style, format!("{gap}{word}"));
        used += gap.len() + width;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    #[test]
    fn long_texts_flow_below_their_beginning() {
        let mut view = View::of_tests();
        let text = "one two three four five six seven eight\x1b[2J nine";
        assert_eq!(flowing(Line::plain("  k  "), Style::Plain, text, &view).len(), 1);
        view.width = Some(30);
        let expected = "  k  one two three four five\n     six seven eight\\u{1b}[2J\n     nine\n";
        assert_eq!(plain(&flowing(Line::plain("  k  "), Style::Plain, text, &view)), expected);
        view.width = Some(10);
        assert_eq!(flowing(Line::plain("  k  "), Style::Plain, text, &view).len(), 1);
        view.width = Some(30);
        let unbroken = "x".repeat(60);
        assert_eq!(flowing(Line::plain("  k  "), Style::Plain, &unbroken, &view).len(), 1);
    }

    #[test]
    fn digests_and_counts_are_short() {
        assert_eq!(short_digest(&format!("sha256:{}", "a".repeat(64))), format!("sha256:{}", "a".repeat(12)));
        assert_eq!((short_digest("sha"), short_digest("")), ("sha", ""));
        assert_eq!((counted(1, "commit"), counted(1_200, "commit")), ("1 commit".into(), "1,200 commits".into()));
    }
}
