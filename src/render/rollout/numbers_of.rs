//! What was counted and judged, in columns.

use api::operator::{RolloutCheck, RolloutCounts, RolloutStatus, RolloutTest, StageRelease};

use super::super::{Align, Line, Style, Table, numbers};
use super::{ABOUT, SHOWN, about};

/// Both releases side by side: what the judge goes by, and how fast both answered in the last seconds.
pub(super) fn judged(rollout: &RolloutStatus, releases: &[StageRelease]) -> Vec<Line> {
    let mut table = Table::default();
    table.column("judged", Align::Left, ABOUT - 2);
    for (head, width) in
        [("requests", 8), ("failed", 6), ("errors", 6), ("95 % between", 16), ("p50", 6), ("p95", 6), ("p99", 6)]
    {
        table.column(head, Align::Right, width);
    }
    for (number, counts) in [(rollout.release, &rollout.canary), (rollout.stable, &rollout.stable_counts)] {
        let Some(counts) = counts.as_ref().filter(|_| number > 0) else { continue };
        let release = releases.iter().find(|release| release.release == number);
        let latency = |of: fn(&StageRelease) -> Option<u64>| {
            Line::plain(release.and_then(of).map_or_else(|| numbers::NONE.to_owned(), numbers::latency))
        };
        table.row(vec![
            Line::plain(format!("r{number}")),
            Line::plain(numbers::count(counts.requests)),
            Line::plain(numbers::count(counts.failed)),
            Line::plain(counts.error_share.map_or_else(|| numbers::NONE.to_owned(), numbers::error_share)),
            Line::plain(interval(counts)),
            latency(|release| release.p50_us),
            latency(|release| release.p95_us),
            latency(|release| release.p99_us),
        ]);
    }
    table.lines("")
}

/// `0.02% and 0.52%`.
pub(super) fn interval(counts: &RolloutCounts) -> String {
    match (counts.error_least, counts.error_most) {
        (Some(least), Some(most)) => format!("{} and {}", numbers::error_share(least), numbers::error_share(most)),
        _ => numbers::NONE.to_owned(),
    }
}

/// The verdict, how far the tests are, and by what they go.
pub(super) fn verdict(rollout: &RolloutStatus) -> Vec<Line> {
    let style = match rollout.verdict.as_str() {
        "worse" => Style::Bad,
        "no worse" => Style::Good,
        _ => Style::Moving,
    };
    let mut line = Line::of(style, &rollout.verdict);
    if let Some(more) = rollout.likely_requests {
        let text = format!(": about {} more requests of r{} would tell", numbers::count(more), rollout.release);
        line.push(Style::Plain, text);
    }
    let tests = rollout.tests.iter().filter_map(test);
    std::iter::once(about("verdict", line)).chain(tests).chain(terms(rollout)).collect()
}

/// What slow is, and what becomes of a release that is worse.
fn terms(rollout: &RolloutStatus) -> Option<Line> {
    let slow = match rollout.slow_us {
        0 => "not known yet".to_owned(),
        us => format!("over {}", numbers::latency(us)),
    };
    let text = format!("slow is {slow}; if worse: {}", rollout.on_worse);
    (!rollout.on_worse.is_empty()).then(|| about("", Line::of(Style::Dim, text)))
}

/// Its odds, as the controller words them.
fn test(test: &RolloutTest) -> Option<Line> {
    (!test.words.is_empty()).then(|| about(&format!("  {}", test.measure), Line::of(Style::Dim, &test.words)))
}

/// Each check with how it stands.
pub(super) fn checks(checks: &[RolloutCheck]) -> Vec<Line> {
    let shown = |(place, check): (usize, &RolloutCheck)| {
        let style = match check.state.as_str() {
            "well" => Style::Good,
            "failed" => Style::Bad,
            _ => Style::Moving,
        };
        let mut line = Line::plain(format!("{} ", check.name)).with(style, &check.state);
        if !check.problem.is_empty() {
            line.push(Style::Plain, format!(": {}", check.problem));
        }
        about(if place == 0 { "checks" } else { "" }, line)
    };
    let mut lines: Vec<Line> = checks.iter().take(SHOWN).enumerate().map(shown).collect();
    if checks.len() > SHOWN {
        lines.push(about("", Line::of(Style::Dim, format!("and {} more", checks.len() - SHOWN))));
    }
    lines
}
