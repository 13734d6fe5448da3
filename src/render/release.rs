//! Releases: the list, and one with all that is known of it.

use api::operator::{Artifact, Release, Releases, StaticAddress};

use super::status::short_commit;
use super::{Line, Style, Table, View, ago, marks, numbers, stamp};

/// Subjects are cut here in tables; `release show` has them whole.
const SUBJECT_WIDTH: usize = 40;

/// The releases of a service.
pub(crate) fn releases(list: &Releases, view: &View) -> Vec<Line> {
    let mut table = Table::new(&["release", "version", "state", "made", "commit", "subject", "by", "serves"]);
    for release in &list.releases {
        table.row(vec![
            Line::of(Style::Bold, format!("{}@r{}", release.service, release.number)),
            Line::plain(&release.version),
            marks::beside(state(&release.state), release),
            Line::plain(ago(view, release.created_ms)),
            Line::of(Style::Dim, short_commit(&release.commit)),
            Line::plain(subject(release, view)),
            Line::plain(&release.by),
            Line::plain(release.places.join(", ")),
        ]);
    }
    table.lines("no releases yet: `pointsman release build SERVICE` makes the first")
}

/// One release.
pub(crate) fn release(release: &Release, view: &View) -> Vec<Line> {
    let mut lines = vec![Line::of(Style::Bold, format!("{}@r{}", release.service, release.number))];
    let mut field = |name: &str, value: Line| {
        if !value.is_empty() {
            let mut line = Line::of(Style::Dim, format!("  {name:<9} "));
            line.append(value);
            lines.push(line);
        }
    };
    field("state", state(&release.state));
    field("mark", release.not_reversible.as_ref().map(|mark| marks::of(mark, view)).unwrap_or_default());
    field("problem", Line::of(Style::Bad, &release.problem));
    field("version", Line::plain(&release.version));
    field("commit", Line::plain(&release.commit));
    field("subject", Line::plain(&release.subject));
    field("made", moment(view, release.created_ms));
    field("built", moment(view, release.built_ms));
    field("by", Line::plain(&release.by));
    field("reason", Line::plain(&release.reason));
    for place in &release.places {
        field("serves", Line::plain(place));
    }
    for artifact in &release.artifacts {
        field("artifact", self::artifact(artifact));
        for address in &artifact.addresses {
            field("runs at", addresses(address));
        }
    }
    lines
}

/// The state in its colour.
pub(super) fn state(state: &str) -> Line {
    let style = match state {
        "ready" => Style::Good,
        "queued" | "building" => Style::Moving,
        "failed" => Style::Bad,
        _ => Style::Plain,
    };
    Line::of(style, state)
}

/// The subject of its commit, cut for a table.
pub(super) fn subject(release: &Release, view: &View) -> String {
    Line::plain(&release.subject).cut(SUBJECT_WIDTH, view.unicode).text()
}

fn moment(view: &View, at_ms: u64) -> Line {
    if at_ms == 0 {
        return Line::default();
    }
    Line::plain(format!("{} ({})", stamp(view, at_ms), ago(view, at_ms)))
}

fn artifact(artifact: &Artifact) -> Line {
    let mut line = Line::plain(&artifact.component);
    if !artifact.digest.is_empty() {
        line.push(Style::Plain, format!(" {}", artifact.digest));
    }
    if artifact.bytes > 0 {
        line.push(Style::Dim, format!(" {}", numbers::bytes(artifact.bytes)));
    }
    line
}

fn addresses(given: &StaticAddress) -> Line {
    let place = if given.environment.is_empty() { "everywhere" } else { &given.environment };
    Line::plain(given.addresses.join(", ")).with(Style::Dim, format!(" ({place})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn hostile() -> Release {
        Release {
            service: "hello".into(),
            number: 3,
            state: "failed".into(),
            problem: "the command ended with status 1: \x1b[31merror\x1b[0m".into(),
            commit: "0123456789abcdef".into(),
            subject: "\x1b]0;owned\x07 a subject that goes on and on until nobody reads it".into(),
            created_ms: View::of_tests().now_ms - 60_000,
            by: "anna\r\n".into(),
            ..Release::default()
        }
    }

    #[test]
    fn the_list_is_a_table_of_safe_text() {
        let view = View::of_tests();
        let ready = Release {
            service: "hello".into(),
            number: 42,
            version: "2.1.0".into(),
            state: "ready".into(),
            created_ms: view.now_ms - 3 * 86_400_000,
            places: vec!["production stable 100%".into(), "staging warm".into()],
            ..Release::default()
        };
        let lines = releases(&Releases { releases: vec![hostile(), ready] }, &view);
        let expected = r"
release    version  state   made    commit   subject                                   by        serves
hello@r3            failed  1m ago  0123456  \u{1b}]0;owned\u{7} a subject that goes…  anna\r\n
hello@r42  2.1.0    ready   3d ago                                                               production stable 100%, staging warm
";
        assert_eq!(plain(&lines), expected[1..]);
    }

    #[test]
    fn one_release_shows_only_what_is_known() {
        let expected = r"
hello@r3
  state     failed
  problem   the command ended with status 1: \u{1b}[31merror\u{1b}[0m
  commit    0123456789abcdef
  subject   \u{1b}]0;owned\u{7} a subject that goes on and on until nobody reads it
  made      2026-03-01 11:59:00 (1m ago)
  by        anna\r\n
";
        assert_eq!(plain(&release(&hostile(), &View::of_tests())), expected[1..]);
    }
}
