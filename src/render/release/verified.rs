//! Whether a release is still what it was.

use api::operator::ReleaseVerified;

use super::flowing;
use crate::render::{Line, Style, View};

/// What was looked at, a line each.
pub(crate) fn verified(found: &ReleaseVerified, view: &View) -> Vec<Line> {
    let line = |one: &api::operator::Verified| match one.problem.as_str() {
        "" => vec![Line::of(Style::Good, "well  ").with(Style::Plain, &one.what)],
        problem => {
            let mut text = Line::of(Style::Bad, "WRONG ");
            text.push(Style::Plain, format!("{}: ", one.what));
            flowing(text, Style::Plain, problem, view)
        }
    };
    let mut lines: Vec<Line> = found.checked.iter().flat_map(line).collect();
    if lines.is_empty() {
        lines.push(Line::of(Style::Dim, "it has no tag and no artifacts: there is nothing to verify"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use api::operator::Verified;

    use super::*;
    use crate::render::plain;

    #[test]
    fn what_is_wrong_stands_out() {
        let one = |what: &str, problem: &str| Verified { what: what.into(), problem: problem.into() };
        let checked = vec![one("tag v1.4.0", ""), one("web\x1b[2J", "the artifact is damaged\n")];
        let lines = verified(&ReleaseVerified { well: false, checked }, &View::of_tests());
        assert_eq!(plain(&lines), "well  tag v1.4.0\nWRONG web\\u{1b}[2J: the artifact is damaged\\n\n");
        let none = verified(&ReleaseVerified { well: true, checked: Vec::new() }, &View::of_tests());
        assert_eq!(none.len(), 1);
    }
}
