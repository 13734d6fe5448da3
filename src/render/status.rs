//! The tree of services, stages and releases with what serves, how much and how well.
//!
//! Columns keep their place while numbers change: numbers stand right-aligned in columns of a least width that holds
//! them all. On narrow terminals the bar, the median and the versions give way, in this order of importance.

use api::operator::{ServiceStatus, StageEndpoint, StageRelease, StageStatus, StatusReply};

use super::bar::bar;
use super::{Align, Line, Style, Table, View, ago, lists, marks, numbers, release, times};

/// A rendered status: the column headers apart, so that a live view can keep them in sight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Headers of the columns.
    pub(crate) head: Line,
    /// All the rest.
    pub(crate) rows: Vec<Line>,
}

/// Which columns there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    versions: bool,
    bar: bool,
    median: bool,
}

/// Versions are cut here: the tree must not push the numbers off the screen.
const VERSION_WIDTH: usize = 14;

/// With fewer columns the newest releases have no subjects; `release list` has them.
const SUBJECTS_WIDE: usize = 110;

impl Shown {
    /// Limits measured with the least widths below: 111, 99 and 90 columns are taken.
    fn within(width: Option<usize>) -> Self {
        let width = width.unwrap_or(usize::MAX);
        Self { versions: width >= 92, bar: width >= 112, median: width >= 100 }
    }
}

/// The whole status.
pub(crate) fn status(reply: &StatusReply, view: &View) -> Tree {
    let shown = Shown::within(view.width);
    let mut table = columns(shown);
    for service in &reply.services {
        table.whole(Line::of(Style::Bold, &service.service));
        for stage in &service.stages {
            stage_rows(&mut table, service, stage, shown, view);
        }
        if service.stages.is_empty() {
            table.whole(Line::of(Style::Dim, "  no stages yet: `pointsman apply -f pointsman.toml` describes them"));
        }
    }
    let (head, mut rows) = table.parts();
    if reply.services.is_empty() {
        rows.push(Line::of(Style::Dim, "no services yet: `pointsman apply -f pointsman.toml` describes the first"));
    }
    builds(reply, view, &mut rows);
    rows.push(Line::default());
    rows.extend(lists::fleet_summary(&reply.fleet, view));
    if !reply.warnings.is_empty() {
        rows.push(Line::default());
        rows.extend(reply.warnings.iter().map(|warning| Line::of(Style::Moving, "! ").with(Style::Plain, warning)));
    }
    Tree { head, rows }
}

/// The fleet and the number of warnings in a few words: what must be in sight however far one has scrolled.
pub(crate) fn headline(reply: &StatusReply) -> Line {
    let proxies: Vec<_> = lists::joined(&reply.fleet, "proxy").collect();
    let active = proxies.iter().filter(|member| member.state == "active").count();
    let style = if active == proxies.len() { Style::Good } else { Style::Bad };
    let mut line = Line::of(style, format!("{active} of {} proxies active", proxies.len()));
    if let Some(version) = reply.version {
        line.push(Style::Plain, format!(" at {}", api::Version::from(version)));
    }
    match reply.warnings.len() {
        0 => {}
        1 => line.push(Style::Moving, "   ! 1 warning"),
        many => line.push(Style::Moving, format!("   ! {many} warnings")),
    }
    line
}

fn columns(shown: Shown) -> Table {
    let mut table = Table::default();
    // Room for "    r1234 " and the version.
    table.column("release", Align::Left, if shown.versions { 10 + VERSION_WIDTH } else { 10 });
    table.column("role", Align::Left, 8);
    if shown.bar {
        table.column("weight", Align::Left, super::bar::CELLS as usize);
    }
    table.column(if shown.bar { "" } else { "weight" }, Align::Right, 8);
    table.column("measured", Align::Right, 8);
    table.column("rate/s", Align::Right, 7);
    table.column("errors", Align::Right, 7);
    if shown.median {
        table.column("p50", Align::Right, 6);
    }
    table.column("p99", Align::Right, 6);
    table.column("healthy", Align::Right, 7);
    table
}

fn stage_rows(table: &mut Table, service: &ServiceStatus, stage: &StageStatus, shown: Shown, view: &View) {
    let name = stage.stage.strip_prefix(&format!("{}/", service.service)).unwrap_or(&stage.stage);
    let mut line = Line::plain("  ").with(Style::Bold, name);
    if !stage.hosts.is_empty() {
        line.push(Style::Dim, format!("  {}", stage.hosts.join(" ")));
    }
    if !stage.activity.is_empty() {
        line.push(Style::Moving, format!("  {}", stage.activity));
    }
    table.whole(line);
    for release in &stage.releases {
        let tail = tail(release, &stage.stage, view);
        table.row_with_tail(release_cells(release, shown, view), tail);
        for (style, problem) in problems(release) {
            table.whole(Line::plain("      ").with(style, problem));
        }
        if let Some(mark) = marks::of_running(release) {
            let mut line = Line::plain("      ");
            line.append(mark);
            table.whole(line);
        }
    }
    if stage.releases.is_empty() {
        table.whole(Line::of(Style::Dim, "    nothing serves here yet"));
    }
    table_of_rollout(table, stage, view);
    for line in &stage.overrides {
        table.whole(Line::of(Style::Bad, format!("    override in force: {line}")));
    }
}

/// One line of the rollout under way, and one of what waits or is watched.
fn table_of_rollout(table: &mut Table, stage: &StageStatus, view: &View) {
    for line in super::rollout::summary(stage, view) {
        table.whole({
            let mut whole = Line::plain("    ");
            whole.append(line);
            whole
        });
    }
}

fn release_cells(release: &StageRelease, shown: Shown, view: &View) -> Vec<Line> {
    let mut name = Line::plain("    ").with(Style::Plain, format!("r{}", release.release));
    if shown.versions {
        let version = if release.version.is_empty() { short_commit(&release.commit) } else { &release.version };
        if !version.is_empty() {
            name.push(Style::Dim, format!(" {version}"));
        }
        name = name.cut(10 + VERSION_WIDTH, view.unicode);
    }
    let none = || Line::of(Style::Dim, numbers::NONE);
    let mut cells = vec![name, role(&release.role)];
    if is_quiet(release) {
        return cells;
    }
    let quiet = release.weight_ppm == 0;
    if shown.bar {
        cells.push(if quiet { Line::default() } else { bar(release.weight_ppm, view.unicode) });
    }
    let set = numbers::share_set(release.weight_ppm);
    cells.push(if quiet { Line::of(Style::Dim, set) } else { Line::plain(set) });
    cells.push(release.measured_ppm.map_or_else(none, |ppm| Line::plain(numbers::share_measured(ppm))));
    cells.push(if release.rate > 0.0 { Line::plain(numbers::rate(release.rate)) } else { none() });
    cells
        .push(release.error_share.map_or_else(none, |share| Line::of(error_style(share), numbers::error_share(share))));
    let latency = |us: Option<u64>| us.map_or_else(none, |us| Line::plain(numbers::latency(us)));
    if shown.median {
        cells.push(latency(release.p50_us));
    }
    cells.push(latency(release.p99_us));
    cells.push(health(&release.endpoints));
    cells
}

/// Red from one failure in a hundred on: below, a glance should not be drawn there.
fn error_style(share: f64) -> Style {
    if share >= 0.01 {
        Style::Bad
    } else if share > 0.0 {
        Style::Moving
    } else {
        Style::Plain
    }
}

fn role(role: &str) -> Line {
    let style = match role {
        "stable" => Style::Good,
        "canary" | "starting" | "draining" => Style::Moving,
        "warm" => Style::Dim,
        _ => Style::Plain,
    };
    Line::of(style, role)
}

fn health(endpoints: &[StageEndpoint]) -> Line {
    let healthy = endpoints.iter().filter(|endpoint| is_well(endpoint)).count();
    let text = format!("{healthy}/{}", endpoints.len());
    match endpoints.len() {
        0 => Line::of(Style::Dim, numbers::NONE),
        all if healthy == all => Line::of(Style::Good, text),
        _ if healthy == 0 => Line::of(Style::Bad, text),
        _ => Line::of(Style::Moving, text),
    }
}

/// Whether there is nothing to measure: its numbers would all be missing.
fn is_quiet(release: &StageRelease) -> bool {
    release.weight_ppm == 0 && release.measured_ppm.is_none() && release.rate <= 0.0
}

/// What stands after the columns, or in their place: the mark "bad", and how long it is kept warm.
fn tail(release: &StageRelease, stage: &str, view: &View) -> Line {
    let mut parts = Vec::new();
    if is_quiet(release) && !release.endpoints.is_empty() {
        let mut line = health(&release.endpoints);
        line.push(Style::Plain, " healthy");
        parts.push(line);
    }
    // What matters most first: a narrow terminal cuts the end.
    if release.bad {
        parts.push(Line::of(Style::Bad, "bad here"));
    }
    if release.weight_ppm == 0 && release.outstanding > 0 {
        parts.push(Line::of(Style::Moving, format!("{} in flight", numbers::count(release.outstanding))));
    }
    if release.warm_until_ms > 0 {
        parts.push(Line::of(Style::Dim, times::until(view, release.warm_until_ms)));
    }
    if release.bad {
        let unhold = format!("`pointsman unhold {stage} r{}` takes the mark away", release.release);
        parts.push(Line::of(Style::Dim, unhold));
    }
    let mut tail = Line::default();
    for part in parts {
        if !tail.is_empty() {
            tail.push(Style::Plain, "   ");
        }
        tail.append(part);
    }
    tail
}

/// Whether requests can go there: healthy, or given by hand and not known to be otherwise.
fn is_well(endpoint: &StageEndpoint) -> bool {
    matches!(endpoint.state.as_str(), "healthy" | "given")
}

/// Every endpoint that is not well, with what is known of it.
fn problems(release: &StageRelease) -> Vec<(Style, String)> {
    let mut problems = Vec::new();
    for endpoint in release.endpoints.iter().filter(|endpoint| !is_well(endpoint)) {
        let mut text = endpoint.address.clone();
        if !endpoint.agent.is_empty() {
            text = format!("{text} on {}", endpoint.agent);
        }
        text = format!("{text} {}", endpoint.state);
        if !endpoint.problem.is_empty() {
            text = format!("{text}: {}", endpoint.problem);
        }
        match endpoint.restarts {
            0 => {}
            1 => text.push_str(" (1 restart)"),
            many => text.push_str(&format!(" ({} restarts)", numbers::count(many.into()))),
        }
        let style = if endpoint.state == "unhealthy" { Style::Bad } else { Style::Moving };
        problems.push((style, text.trim_start().to_owned()));
    }
    problems
}

fn builds(reply: &StatusReply, view: &View, rows: &mut Vec<Line>) {
    if reply.services.iter().all(|service| service.releases.is_empty()) {
        return;
    }
    let wide = view.width.is_none_or(|width| width >= SUBJECTS_WIDE);
    let mut heads = vec!["newest releases", "state", "commit", "by", "made"];
    if wide {
        heads.insert(3, "subject");
    }
    let mut table = Table::new(&heads);
    for release in reply.services.iter().flat_map(|service| &service.releases) {
        let mut cells = vec![
            Line::plain(format!("{}@r{}", release.service, release.number)),
            release::state(release),
            Line::of(Style::Dim, short_commit(&release.commit)),
            Line::plain(release::asked_by(release)),
            Line::of(Style::Dim, ago(view, release.created_ms)),
        ];
        if wide {
            cells.insert(3, Line::plain(release::subject(release, view)));
        }
        table.row(cells);
        for trouble in release::troubles(release, view) {
            let mut line = Line::plain("  ");
            line.append(trouble);
            table.whole(line);
        }
    }
    rows.push(Line::default());
    rows.extend(table.lines(""));
}

/// The first 7 characters of a commit, as git shows it.
pub(super) fn short_commit(commit: &str) -> &str {
    commit.char_indices().nth(7).map_or(commit, |(end, _)| &commit[..end])
}

#[cfg(test)]
mod tests;
