//! What happened, a line per event.

use api::operator::HistoryEntry;

use super::{Line, Style, View, stamp};

/// One event. Columns have fixed widths, because lines are printed as events come.
pub(crate) fn history_line(entry: &HistoryEntry, view: &View) -> Line {
    let mut line = Line::of(Style::Dim, format!("{:>6}  {}  ", entry.event, stamp(view, entry.at_ms)));
    line.push(Style::Bold, format!("{:<20}  ", entry.about));
    line.push(Style::Plain, &entry.what);
    if !entry.by.is_empty() {
        line.push(Style::Dim, format!("  by {}", entry.by));
    }
    if !entry.reason.is_empty() {
        line.push(Style::Dim, format!(": \"{}\"", entry.reason));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_reason_holds() {
        let entry = HistoryEntry {
            event: 12,
            at_ms: View::of_tests().now_ms,
            by: "anna".into(),
            reason: "errors\n13  forged".into(),
            about: "hello/production".into(),
            what: "rolled back from r42 to r41".into(),
            kind: "rolled_back".into(),
        };
        assert_eq!(
            history_line(&entry, &View::of_tests()).text(),
            r#"    12  2026-03-01 12:00:00  hello/production      rolled back from r42 to r41  by anna: "errors\n13  forged""#
        );
    }
}
