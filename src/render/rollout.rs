//! A rollout: one line of it, all of it on one screen, and its way as it was.
//!
//! Must not know: what follows from anything; the controller has worded what it waits for and why it moved.

mod explained;
mod numbers_of;

use api::operator::{RolloutStatus, RolloutWait, RolloutWatched, StageBack, StageRelease, StageStatus};

use super::bar::bar;
use super::{Align, Line, Style, Table, View, ago, marks, numbers, times};

pub(crate) use explained::{rollout_ended, rollout_explained};

/// Columns for what a line is about.
const ABOUT: usize = 11;
/// Waits and checks that are shown: the screen has 24 rows.
const SHOWN: usize = 4;

/// The lines of `status`: the rollout under way, what waits for its end, what is watched.
pub(crate) fn summary(stage: &StageStatus, view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(rollout) = stage.rollout.as_ref().filter(|rollout| !rollout.starting) {
        lines.push(headline(rollout, view).with(Style::Plain, format!("; {}", state(rollout))));
    }
    if let Some(queued) = &stage.queued {
        lines.push(Line::plain(format!("r{} waits to enter, since {}", queued.release, ago(view, queued.since_ms))));
    }
    lines.extend(
        stage
            .watched
            .iter()
            .flat_map(|watched| [Some(after(watched, view)), told(watched, &stage.stage, view)])
            .flatten(),
    );
    lines.extend(stage.back.as_ref().and_then(back));
    lines.extend(stage.back.as_ref().and_then(marks::of_rollback));
    lines
}

/// What is to be known of the way back before it is gone; none: it is instant.
fn back(back: &StageBack) -> Option<Line> {
    (!back.start.is_empty()).then(|| Line::of(Style::Dim, "rollback: ").with(Style::Moving, &back.start))
}

/// What is so now, without numbers that always move; empty: nothing is under way. Two states with the same are told once.
pub(crate) fn rollout_now(stage: &StageStatus) -> String {
    let Some(rollout) = &stage.rollout else {
        let watched = stage.watched.as_ref().filter(|watched| watched.until_ms > 0);
        return watched
            .map(|watched| format!("r{} is watched {} {}", watched.release, watched.breach, watched.told))
            .unwrap_or_default();
    };
    // Whether latency is flat comes and goes; it counts once all else was earned.
    let counts = |wait: &&RolloutWait| wait.kind != "flat" || rollout.waits.len() == 1;
    let waits: Vec<&str> = rollout.waits.iter().filter(counts).map(|wait| wait.kind.as_str()).collect();
    let checks: Vec<&str> = rollout.checks.iter().map(|check| check.state.as_str()).collect();
    format!(
        "{} {} {} {} {} {} {waits:?} {checks:?} {:?}",
        rollout.release,
        rollout.place,
        rollout.share_ppm,
        rollout.verdict,
        rollout.paused,
        rollout.frozen,
        stage.queued.as_ref().map(|queued| queued.release)
    )
}

/// The same for people, in a line.
pub(crate) fn rollout_line(stage: &StageStatus, at_ms: u64, view: &View) -> Line {
    let mut line = Line::of(Style::Dim, format!("{} ", times::clock_seconds(view, at_ms)));
    match (&stage.rollout, &stage.watched) {
        (Some(rollout), _) => {
            line.append(headline(rollout, view));
            line.push(Style::Plain, format!("; {}", state(rollout)));
            if !rollout.verdict.is_empty() {
                line.push(Style::Dim, format!("; verdict: {}", rollout.verdict));
            }
        }
        (None, Some(watched)) => {
            line.append(after(watched, view));
            if let Some(told) = told(watched, &stage.stage, view) {
                line.push(Style::Plain, "; ");
                line.append(told);
            }
        }
        (None, None) => {}
    }
    line
}

/// `r42 step 2 of 5 at 10%, next 50%`.
fn headline(rollout: &RolloutStatus, view: &View) -> Line {
    let mut line = Line::of(Style::Bold, format!("r{}", rollout.release));
    line.push(Style::Moving, format!(" {}", rollout.place));
    match rollout.share_ppm {
        // Its own host alone.
        0 if rollout.place == "before the flip" => {}
        0 if rollout.strategy == "canary" && !rollout.insiders.is_empty() && rollout.frozen.is_empty() => {
            line.push(Style::Plain, ", for insiders only");
        }
        share => line.push(Style::Plain, format!(" at {}", numbers::share_set(share))),
    }
    if let Some(next) = rollout.next_share_ppm {
        line.push(Style::Plain, format!(", next {}", numbers::share_set(next)));
    }
    if rollout.next_at_ms > view.now_ms {
        line.push(Style::Dim, format!(" at {} at the earliest", times::clock_seconds(view, rollout.next_at_ms)));
    }
    line
}

/// What it waits for, or why it does not move, in a sentence.
fn state(rollout: &RolloutStatus) -> String {
    if !rollout.frozen.is_empty() {
        return format!("frozen: {}", rollout.frozen);
    }
    match rollout.waits.as_slice() {
        [] => "about to move".to_owned(),
        waits => {
            let waits: Vec<&str> = waits.iter().map(|wait| wait.what.as_str()).collect();
            format!("waits for {}", waits.join("; "))
        }
    }
}

/// `r42 serves all; watched until 12:10 (10m): 0.1% errors, otherwise rollback`.
fn after(watched: &RolloutWatched, view: &View) -> Line {
    let mut line = Line::of(Style::Bold, format!("r{}", watched.release)).with(Style::Plain, " is watched ");
    let until_ms = if watched.until_ms > 0 { watched.until_ms } else { watched.warm_until_ms };
    line.push(Style::Moving, times::until(view, until_ms));
    if !watched.objective.is_empty() {
        line.push(Style::Plain, format!(": {}", watched.objective));
    }
    if !watched.breach.is_empty() && !watched.told {
        line.push(Style::Bad, format!("; {}", watched.breach));
    }
    line
}

/// A breach that nobody has answered yet: what was seen, and the command that answers it; none: there is none.
pub(super) fn told(watched: &RolloutWatched, stage: &str, view: &View) -> Option<Line> {
    if !watched.told {
        return None;
    }
    let mut line = Line::of(Style::Bad, "broken");
    if !watched.breach.is_empty() {
        line.push(Style::Bad, format!(": {}", watched.breach));
    }
    if watched.told_ms > 0 {
        line.push(Style::Dim, format!(", told {}", ago(view, watched.told_ms)));
    }
    if !watched.problem.is_empty() {
        line.push(Style::Plain, format!("; {}", watched.problem));
    }
    line.push(Style::Plain, "; ");
    Some(line.with(Style::Moving, format!("`pointsman rollback {stage}` goes back to r{}", watched.before)))
}

/// All of it: at most 22 lines for two releases.
pub(crate) fn rollout(stage: &StageStatus, view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    match (&stage.rollout, &stage.watched) {
        (Some(rollout), _) => place(rollout, view, &mut lines),
        (None, Some(watched)) => {
            lines.push(about("after", after(watched, view)));
            lines.extend(told(watched, &stage.stage, view).map(|line| about("", line)));
        }
        (None, None) => lines.push(Line::of(Style::Dim, "no release is on its way in")),
    }
    lines.push(Line::default());
    lines.extend(serving(stage, view));
    if let Some(rollout) = stage.rollout.as_ref().filter(|rollout| !rollout.verdict.is_empty()) {
        lines.push(Line::default());
        lines.extend(numbers_of::judged(rollout, &stage.releases));
        lines.extend(numbers_of::verdict(rollout));
    }
    let checks = match (&stage.rollout, &stage.watched) {
        (Some(rollout), _) => rollout.checks.as_slice(),
        (None, Some(watched)) => watched.checks.as_slice(),
        (None, None) => &[],
    };
    lines.extend(numbers_of::checks(checks));
    if let Some(queued) = &stage.queued {
        let text = format!("r{} waits for the end of this, since {}", queued.release, ago(view, queued.since_ms));
        lines.push(about("queued", Line::plain(text)));
    }
    lines.extend(stage.releases.iter().filter_map(|release| leaving(release, view)));
    lines.extend(stage.back.as_ref().and_then(way_back));
    lines.extend(stage.back.as_ref().and_then(marks::on_the_way).map(|marked| about("rollback", marked)));
    lines.extend(stage.overrides.iter().map(|text| about("override", Line::of(Style::Bad, text))));
    lines
}

/// A line that says first what it is about.
fn about(what: &str, rest: Line) -> Line {
    let mut line = Line::of(Style::Dim, format!("{what:<ABOUT$}"));
    line.append(rest);
    line
}

fn place(rollout: &RolloutStatus, view: &View, lines: &mut Vec<Line>) {
    let mut first = headline(rollout, view);
    first.push(Style::Dim, format!("  for {}", times::length(view.now_ms.saturating_sub(rollout.since_ms))));
    lines.push(about(&rollout.strategy, first));
    if !rollout.asks.is_empty() {
        lines.push(about("asks for", Line::plain(&rollout.asks)));
    }
    if !rollout.insiders.is_empty() {
        lines.push(about("insiders", Line::plain(rollout.insiders.join("; "))));
    }
    if !rollout.frozen.is_empty() {
        lines.push(about("frozen", Line::of(Style::Bad, &rollout.frozen)));
    }
    if !rollout.tripped.is_empty() {
        lines.push(about("tripped", Line::of(Style::Bad, &rollout.tripped)));
    }
    let (shown, more) = rollout.waits.split_at(rollout.waits.len().min(SHOWN));
    for (place, wait) in shown.iter().enumerate() {
        lines.push(about(if place == 0 { "waits for" } else { "" }, Line::of(Style::Moving, &wait.what)));
    }
    if !more.is_empty() {
        lines.push(about("", Line::of(Style::Dim, format!("and {} more", more.len()))));
    }
    if rollout.waits.is_empty() {
        lines.push(about("waits for", Line::of(Style::Good, "nothing: it is about to move")));
    }
}

/// What serves, set and measured.
fn serving(stage: &StageStatus, view: &View) -> Vec<Line> {
    let mut table = Table::default();
    table.column("release", Align::Left, ABOUT - 2);
    table.column("role", Align::Left, 8);
    table.column("", Align::Left, super::bar::CELLS as usize);
    for (head, width) in [("set", 8), ("measured", 8), ("rate/s", 7), ("in flight", 9)] {
        table.column(head, Align::Right, width);
    }
    for release in stage.releases.iter().filter(|release| release.role != "warm" || release.outstanding > 0) {
        let measured = release.measured_ppm.map_or_else(|| numbers::NONE.to_owned(), numbers::share_measured);
        table.row(vec![
            Line::plain(format!("r{} {}", release.release, release.version)).cut(ABOUT - 2, view.unicode),
            Line::plain(&release.role),
            bar(release.weight_ppm, view.unicode),
            Line::plain(numbers::share_set(release.weight_ppm)),
            Line::plain(measured),
            Line::plain(numbers::rate(release.rate)),
            Line::plain(numbers::count(release.outstanding)),
        ]);
    }
    table.lines("nothing serves here yet")
}

/// A release without weight that is still there: until when, and what it still answers.
fn leaving(release: &StageRelease, view: &View) -> Option<Line> {
    if release.warm_until_ms == 0 && release.role != "draining" {
        return None;
    }
    let mut line = Line::plain(format!("r{}", release.release));
    if release.warm_until_ms > 0 {
        line.push(Style::Plain, format!(" {}", times::until(view, release.warm_until_ms)));
    }
    match release.outstanding {
        0 => line.push(Style::Dim, ", nothing in flight"),
        1 => line.push(Style::Moving, ", 1 request still in flight"),
        many => line.push(Style::Moving, format!(", {} requests still in flight", numbers::count(many))),
    }
    if release.bad {
        line.push(Style::Bad, ", bad here");
    }
    Some(about(&release.role, line))
}

/// The same beside what else is so.
fn way_back(back: &StageBack) -> Option<Line> {
    (!back.start.is_empty()).then(|| about("rollback", Line::of(Style::Moving, &back.start)))
}

#[cfg(test)]
mod tests;
