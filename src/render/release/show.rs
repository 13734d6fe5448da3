//! One release, as a page: what it is, where it runs, what it is made of, what happened to it.

use api::operator::{Artifact, CheckDone, Commit, HistoryEntry, Release, StaticAddress};

use super::{asked_by, counted, flowing, set_in, state, troubles};
use crate::render::status::short_commit;
use crate::render::times::length;
use crate::render::{Line, Style, Table, View, ago, marks, numbers, stamp};

/// Events that are shown; programs get more.
const EVENTS_SHOWN: usize = 30;
/// Commits that are named of each list.
const COMMITS_SHOWN: usize = 10;
/// With fewer columns a digest gets a line of its own.
const WIDE: usize = 110;

/// What is true of a promotion once one of these has happened; the last one counts.
const OUTCOMES: [&str; 8] =
    ["completed", "rolled_back", "replaced", "promotion_failed", "dropped", "rollout_frozen", "watch_ended", "retired"];

/// One release with all that is known of it.
pub(crate) fn release(release: &Release, view: &View) -> Vec<Line> {
    let mut lines = release_in_short(release, view);
    section(&mut lines, "configuration", configuration(release, view));
    section(&mut lines, "promotions", promotions(&release.happened, view));
    section(&mut lines, "history", history(&release.happened, view));
    lines
}

/// The same, with the end of its log.
pub(crate) fn release_with_output(release: &Release, output: &[String], view: &View) -> Vec<Line> {
    let mut lines = self::release(release, view);
    section(&mut lines, "output", output.iter().map(|line| Line::plain(format!("  {line}"))).collect());
    lines
}

/// One release, without its configuration and what happened to it.
pub(crate) fn release_in_short(release: &Release, view: &View) -> Vec<Line> {
    let mut head = Line::of(Style::Bold, format!("{}@r{}", release.service, release.number));
    if !release.version.is_empty() {
        head.push(Style::Bold, format!(" {}", release.version));
    }
    let mut page = Page { lines: vec![head], view };
    page.field("state", state(release));
    for trouble in troubles(release, view) {
        page.flow("", Line::default(), &trouble);
    }
    if !release.step.is_empty() {
        let exit = release.exit.map(|exit| format!(", exit status {exit}")).unwrap_or_default();
        page.field("", Line::of(Style::Dim, format!("in step {}{exit}", release.step)));
    }
    page.field("mark", release.not_reversible.as_ref().map(|mark| marks::of(mark, view)).unwrap_or_default());
    page.field("commit", Line::plain(&release.commit));
    page.flow("", Line::default(), &Line::plain(&release.subject));
    page.field("author", Line::plain(&release.author));
    page.field("asked for", asked(release, view));
    page.field("built", built(release, view));
    hot_fix(&mut page, release);
    overtook(&mut page, release);
    if release.kept_from > 0 {
        let text = format!("only configuration changed: its artifacts are those of r{}", release.kept_from);
        page.field("kept", Line::plain(text));
    }
    for place in &release.places {
        page.field("serves", Line::plain(place));
    }
    for url in &release.urls {
        page.field("reached", Line::plain(url));
    }
    if !release.trimmed.is_empty() {
        page.field("removed", Line::of(Style::Moving, format!("its {}, by [keep]", release.trimmed.join(" and "))));
    }
    let mut lines = page.lines;
    section(&mut lines, "artifacts", artifacts(&release.artifacts, view));
    section(&mut lines, "checks", checks(&release.checks));
    lines
}

/// Lines with a name in front of each value.
struct Page<'v> {
    lines: Vec<Line>,
    view: &'v View,
}

impl Page<'_> {
    /// A value under its name; nothing for none.
    fn field(&mut self, name: &str, value: Line) {
        if !value.is_empty() {
            let mut line = Line::of(Style::Dim, format!("  {name:<9} "));
            line.append(value);
            self.lines.push(line);
        }
    }

    /// The same, of as many lines as it needs.
    fn flow(&mut self, name: &str, mut beginning: Line, value: &Line) {
        if value.is_empty() {
            return;
        }
        let mut line = Line::of(Style::Dim, format!("  {name:<9} "));
        line.append(std::mem::take(&mut beginning));
        match self.view.width {
            Some(width) if line.width() + value.width() > width => {
                self.lines.extend(flowing(line, Style::Plain, &value.text(), self.view));
            }
            _ => {
                line.append(value.clone());
                self.lines.push(line);
            }
        }
    }
}

fn section(lines: &mut Vec<Line>, name: &str, rows: Vec<Line>) {
    if !rows.is_empty() {
        lines.push(Line::default());
        lines.push(Line::of(Style::Bold, name));
        lines.extend(rows);
    }
}

fn asked(release: &Release, view: &View) -> Line {
    if release.created_ms == 0 {
        return Line::default();
    }
    let when = format!("{} ({})", stamp(view, release.created_ms), ago(view, release.created_ms));
    let mut line = Line::plain(when).with(Style::Dim, " by ").with(Style::Plain, asked_by(release));
    if !release.reason.is_empty() {
        line.push(Style::Dim, format!(": \"{}\"", release.reason));
    }
    line
}

fn built(release: &Release, view: &View) -> Line {
    let word = match release.state.as_str() {
        "ready" => "",
        "building" if release.begun_ms > 0 => {
            return Line::plain(format!(
                "since {}, for {}",
                stamp(view, release.begun_ms),
                since(view, release.begun_ms)
            ));
        }
        other => other,
    };
    if release.built_ms == 0 {
        return Line::default();
    }
    let mut line = Line::plain(stamp(view, release.built_ms));
    if release.begun_ms > 0 && release.built_ms >= release.begun_ms {
        line.push(Style::Plain, format!(", took {}", took(release.built_ms - release.begun_ms)));
    }
    if word.is_empty() { line } else { line.with(Style::Dim, format!(" ({word})")) }
}

/// A length that people waited for: `0.4s`, then as all lengths.
fn took(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1}s", ms as f64 / 1_000.0) } else { length(ms) }
}

fn since(view: &View, at_ms: u64) -> String {
    length(view.now_ms.saturating_sub(at_ms))
}

fn hot_fix(page: &mut Page<'_>, release: &Release) {
    let Some(fix) = &release.hot_fix else { return };
    let how = match fix.branch.as_str() {
        "" => counted(fix.picks.len() as u64, "picked commit"),
        branch => format!("the branch {branch}"),
    };
    page.field("hot fix", Line::plain(format!("of r{}, with {how} on top of {}", fix.of, short_commit(&fix.base))));
    commits(page, &fix.picks, 0);
}

fn overtook(page: &mut Page<'_>, release: &Release) {
    let all = release.overtook.len() as u64 + u64::from(release.overtook_more);
    if all > 0 {
        let commits = counted(all, "commit");
        page.field("overtook", Line::plain(format!("{commits} without a release of their own")));
        self::commits(page, &release.overtook, release.overtook_more);
    }
}

fn commits(page: &mut Page<'_>, commits: &[Commit], more: u32) {
    for commit in commits.iter().take(COMMITS_SHOWN) {
        let id = Line::of(Style::Dim, format!("{} ", short_commit(&commit.id)));
        page.flow("", id, &Line::plain(&commit.subject));
    }
    let hidden = commits.len().saturating_sub(COMMITS_SHOWN) as u64 + u64::from(more);
    if hidden > 0 {
        page.field("", Line::of(Style::Dim, format!("and {} more", numbers::count(hidden))));
    }
}

fn artifacts(all: &[Artifact], view: &View) -> Vec<Line> {
    let wide = view.width.is_none_or(|width| width >= WIDE);
    let heads = ["component", "for", "kind", "size", "digest"];
    let mut table = Table::new(&heads[..if wide { 5 } else { 4 }]).right(&[3]);
    let below = |text: Line| {
        let mut line = Line::plain("  ");
        line.append(text);
        line
    };
    for artifact in all {
        let built = !artifact.digest.is_empty();
        let size = if artifact.bytes > 0 { numbers::bytes(artifact.bytes) } else { String::new() };
        let mut cells = vec![
            Line::plain(&artifact.component),
            Line::plain(&artifact.environment),
            Line::of(Style::Dim, if built { artifact.kind.as_str() } else { "" }),
            Line::of(Style::Dim, size),
        ];
        if wide {
            cells.push(Line::plain(&artifact.digest));
        }
        table.row(cells);
        if built && !wide {
            table.whole(below(Line::plain(&artifact.digest)));
        }
        if let Some((place, _)) = artifact.reference.split_once('@') {
            table.whole(below(Line::of(Style::Dim, "in ").with(Style::Plain, place)));
        }
        artifact.addresses.iter().for_each(|given| table.whole(below(addresses(given))));
    }
    if all.is_empty() { Vec::new() } else { set_in(table, 2) }
}

fn addresses(given: &StaticAddress) -> Line {
    let place = if given.environment.is_empty() { "everywhere" } else { &given.environment };
    let line = Line::of(Style::Dim, "runs at ").with(Style::Plain, given.addresses.join(", "));
    line.with(Style::Dim, format!(" ({place})"))
}

fn checks(all: &[CheckDone]) -> Vec<Line> {
    if all.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(&["check", "verdict", "took"]);
    for check in all {
        let style = if check.passed { Style::Good } else { Style::Bad };
        let took = took(check.took_ms);
        table.row(vec![Line::plain(&check.name), Line::of(style, &check.verdict), Line::of(Style::Dim, took)]);
    }
    set_in(table, 2)
}

fn configuration(release: &Release, view: &View) -> Vec<Line> {
    let widest = release.configuration.iter().map(|setting| setting.key.chars().count()).max().unwrap_or_default();
    let line = |setting: &api::operator::Setting| {
        let key = Line::of(Style::Dim, format!("  {:<widest$}  ", setting.key));
        flowing(key, Style::Plain, &setting.value, view)
    };
    release.configuration.iter().flat_map(line).collect()
}

/// Each promotion with how it came out: the last that happened in its stage before the next one.
fn promotions(happened: &[HistoryEntry], view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    for (at, promoted) in happened.iter().enumerate().filter(|(_, entry)| entry.kind == "promoted") {
        let same_stage = happened[at + 1..].iter().filter(|entry| entry.about == promoted.about);
        let way = same_stage.take_while(|entry| entry.kind != "promoted");
        let outcome = way.filter(|entry| OUTCOMES.contains(&entry.kind.as_str())).last();
        let mut line = Line::plain("  ").with(Style::Plain, format!("{}  ", stamp(view, promoted.at_ms)));
        line.push(Style::Bold, promoted.about.split_once('/').map_or("", |(_, stage)| stage));
        line.push(Style::Dim, format!(" by {}: ", promoted.by));
        let text = outcome.map_or("under way", |outcome| outcome.what.as_str());
        lines.extend(flowing(line, Style::Plain, text, view));
    }
    lines
}

fn history(happened: &[HistoryEntry], view: &View) -> Vec<Line> {
    let hidden = happened.len().saturating_sub(EVENTS_SHOWN);
    let mut lines = Vec::new();
    if hidden > 0 {
        let more = format!("  {} before; `-o json` has all", counted(hidden as u64, "event"));
        lines.push(Line::of(Style::Dim, more));
    }
    for entry in &happened[hidden..] {
        let at = Line::of(Style::Dim, format!("  {}  ", stamp(view, entry.at_ms)));
        let mut text = entry.what.clone();
        if !matches!(entry.by.as_str(), "" | "controller") {
            text.push_str(&format!(", by {}", entry.by));
        }
        if !entry.reason.is_empty() {
            text.push_str(&format!(": \"{}\"", entry.reason));
        }
        lines.extend(flowing(at, Style::Plain, &text, view));
    }
    lines
}

#[cfg(test)]
mod tests;
