//! The way of a rollout as it was.

use api::operator::{RolloutCounts, RolloutExplained, RolloutMoment};

use super::super::{Line, Style, View, numbers, stamp, times};
use super::numbers_of::interval;
use super::{after, back, headline, state, told};

/// How it ended, in a line or two.
pub(crate) fn rollout_ended(explained: &RolloutExplained, view: &View) -> Vec<Line> {
    let mut lines = vec![outcome(explained, view)];
    let last = explained.moments.iter().rev().find(|moment| is_end(moment));
    lines.extend(last.map(|moment| Line::plain(format!("  {}", moment.what))));
    let told = explained.watched.as_ref().and_then(|watched| told(watched, &explained.stage, view));
    lines.extend(told);
    lines
}

fn is_end(moment: &RolloutMoment) -> bool {
    matches!(moment.kind.as_str(), "completed" | "rolled_back" | "replaced" | "promotion_failed" | "watch_ended")
}

fn outcome(explained: &RolloutExplained, view: &View) -> Line {
    let style = match explained.outcome.as_str() {
        "completed" => Style::Good,
        "under way" | "watched" => Style::Moving,
        _ => Style::Bad,
    };
    let mut line = Line::of(Style::Bold, &explained.stage).with(Style::Plain, format!("   r{} ", explained.release));
    line.push(style, &explained.outcome);
    if explained.ended_ms > 0 {
        let took = times::length(explained.ended_ms.saturating_sub(explained.began_ms));
        line.push(Style::Plain, format!(" at {}, after {took}", stamp(view, explained.ended_ms)));
    }
    line
}

/// All of it: each moment with its share, by whom, and why.
pub(crate) fn rollout_explained(explained: &RolloutExplained, view: &View) -> Vec<Line> {
    let mut lines =
        vec![outcome(explained, view), Line::of(Style::Dim, format!("  {}", explained.way)), Line::default()];
    for moment in &explained.moments {
        lines.push(first(moment, view));
        lines.extend(moment.why.iter().map(|why| Line::plain(format!("{:INDENT$}{why}", ""))));
        for (name, counts) in [("its errors", &moment.canary), ("stable's errors", &moment.stable)] {
            lines.extend(counts.as_ref().and_then(|counts| errors(name, counts)));
        }
    }
    if let Some(now) = &explained.now {
        lines.push(Line::default());
        let mut line = Line::of(Style::Dim, format!("{:<INDENT$}", "now"));
        line.append(headline(now, view));
        line.push(Style::Plain, format!("; {}", state(now)));
        lines.push(line);
        if !now.verdict.is_empty() {
            lines.push(Line::of(Style::Dim, format!("{:INDENT$}verdict: {}", "", now.verdict)));
        }
    }
    if let Some(watched) = &explained.watched {
        lines.push(Line::default());
        lines.push(after(watched, view));
        lines.extend(told(watched, &explained.stage, view));
    }
    if let Some(queued) = &explained.queued {
        lines.push(Line::plain(format!("r{} waits for its end", queued.release)));
    }
    lines.extend(explained.back.as_ref().and_then(back));
    lines
}

/// Columns before what happened: those of a clock and a share.
const INDENT: usize = 10;

fn first(moment: &RolloutMoment, view: &View) -> Line {
    let mut line = Line::of(Style::Dim, format!("{:<INDENT$}", times::clock_seconds(view, moment.at_ms)));
    let style = match moment.cause.as_str() {
        "worse" | "tripped" | "check" | "breach" => Style::Bad,
        "earned" => Style::Good,
        _ => Style::Plain,
    };
    line.push(style, &moment.what);
    if !moment.by.is_empty() {
        line.push(Style::Dim, format!("  by {}", moment.by));
    }
    if !moment.reason.is_empty() {
        line.push(Style::Dim, format!(": \"{}\"", moment.reason));
    }
    line
}

/// `its errors: 5.00%, with 95 % between 2.31% and 10.48%`; none without requests.
fn errors(name: &str, counts: &RolloutCounts) -> Option<Line> {
    let share = numbers::error_share(counts.error_share?);
    let text = format!("{:INDENT$}{name}: {share}, with 95 % between {}", "", interval(counts));
    Some(Line::of(Style::Dim, text))
}
