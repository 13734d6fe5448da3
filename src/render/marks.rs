//! Releases that are marked not reversible.

use api::operator::{NotReversible, Release, StageBack, StageRelease};

use super::{Line, Style, View, ago};

/// What the release does, and who says so.
pub(super) fn of(mark: &NotReversible, view: &View) -> Line {
    let line = Line::of(Style::Bad, "not reversible: ").with(Style::Plain, &mark.reason);
    line.with(Style::Dim, format!(" (by {}, {})", mark.by, ago(view, mark.at_ms)))
}

/// The state of a release in a table, with the mark.
pub(super) fn beside(state: Line, release: &Release) -> Line {
    match release.not_reversible {
        Some(_) => state.with(Style::Bad, ", not reversible"),
        None => state,
    }
}

/// The same of one that runs; none: it is not marked.
pub(super) fn of_running(release: &StageRelease) -> Option<Line> {
    (!release.not_reversible.is_empty())
        .then(|| Line::of(Style::Bad, "not reversible: ").with(Style::Plain, &release.not_reversible))
}

/// What a rollback has to be told; none: nothing.
pub(super) fn on_the_way(back: &StageBack) -> Option<Line> {
    let way = || format!("goes past {}: `--past r{}`", back.passes, back.past);
    (back.past > 0).then(|| Line::of(Style::Moving, way()))
}

/// The same as a line of its own.
pub(super) fn of_rollback(back: &StageBack) -> Option<Line> {
    let mut line = Line::of(Style::Dim, "rollback: ");
    line.append(on_the_way(back)?);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{plain, release, releases, rollout, status};
    use api::operator::{Releases, RolloutStatus, ServiceStatus, StageStatus, StatusReply};

    const WHY: &str = "drops the column names";

    fn marked() -> Release {
        let mark = NotReversible { reason: format!("{WHY}\x1b[2J"), by: "anna".into(), at_ms: View::of_tests().now_ms };
        let release = Release { service: "hello".into(), number: 42, state: "ready".into(), ..Release::default() };
        Release { not_reversible: Some(mark), ..release }
    }

    #[test]
    fn release_that_is_marked_says_so_in_the_list_and_by_itself() {
        let view = View::of_tests();
        let free = Release { number: 41, not_reversible: None, ..marked() };
        let list = plain(&releases(&Releases { releases: vec![marked(), free.clone()] }, false, &view));
        let lines: Vec<_> = list.lines().map(|line| line.contains("ready, not reversible")).collect();
        assert_eq!(lines, [false, true, false], "{list}");
        let shown = plain(&release(&marked(), &view));
        assert!(shown.contains(&format!("not reversible: {WHY}\\u{{1b}}[2J (by anna, ")), "{shown}");
        assert!(!plain(&release(&free, &view)).contains("reversible"));
    }

    #[test]
    fn status_says_what_is_marked_and_what_a_rollback_would_pass() {
        let view = View::of_tests();
        let running = StageRelease { release: 42, role: "stable".into(), weight_ppm: 1_000_000, ..Default::default() };
        let running = StageRelease { not_reversible: WHY.into(), ..running };
        let passes = format!("r42, which is marked not reversible ({WHY})");
        let back = StageBack { release: 41, past: 42, passes, ..StageBack::default() };
        let stage = StageStatus { stage: "hello/production".into(), releases: vec![running], ..Default::default() };
        let stage = StageStatus { back: Some(back), ..stage };
        let services =
            vec![ServiceStatus { service: "hello".into(), stages: vec![stage.clone()], ..Default::default() }];
        let shown = plain(&status(&StatusReply { services, ..StatusReply::default() }, &view).rows);
        for words in [
            format!("not reversible: {WHY}"),
            format!("rollback: goes past r42, which is marked not reversible ({WHY}): `--past r42`"),
        ] {
            assert!(shown.contains(&words), "{words:?} is not in {shown}");
        }
        let watched = StageStatus { rollout: Some(RolloutStatus { release: 42, ..Default::default() }), ..stage };
        let shown = plain(&rollout(&watched, &view));
        assert!(shown.contains("goes past r42"), "{shown}");
    }
}
