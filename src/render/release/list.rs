//! The releases of a service, a row each.

use api::operator::{Release, Releases};

use super::{asked_by, state, troubles};
use crate::render::status::short_commit;
use crate::render::{Line, Style, Table, View, ago};

/// Subjects are cut here in tables; `release show` has them whole.
const SUBJECT_WIDTH: usize = 40;
/// With fewer columns the commit gets a line of its own.
const WIDE: usize = 110;

/// The releases of a service. `more`: there are older ones.
pub(crate) fn releases(list: &Releases, more: bool, view: &View) -> Vec<Line> {
    let wide = view.width.is_none_or(|width| width >= WIDE);
    let mut heads = vec!["release", "version", "state", "made", "by", "serves"];
    if wide {
        heads.splice(4..4, ["commit", "subject"]);
    }
    let mut table = Table::new(&heads);
    for release in &list.releases {
        let mut cells = vec![
            Line::of(Style::Bold, format!("{}@r{}", release.service, release.number)),
            Line::plain(&release.version),
            state(release),
            Line::plain(ago(view, release.created_ms)),
            Line::plain(asked_by(release)),
            Line::plain(places(release)),
        ];
        if wide {
            let commit = Line::of(Style::Dim, short_commit(&release.commit));
            cells.splice(4..4, [commit, Line::plain(subject(release, view))]);
        }
        table.row(cells);
        let has_commit = !release.commit.is_empty() || !release.subject.is_empty();
        if has_commit && !wide {
            let commit = format!("  {} {}", short_commit(&release.commit), release.subject);
            table.whole(cut(&Line::of(Style::Dim, commit), view));
        }
        for trouble in troubles(release, view) {
            let mut line = Line::plain("  ");
            line.append(trouble);
            table.whole(cut(&line, view));
        }
    }
    let mut lines = table.lines("no releases yet: `pointsman release build SERVICE` makes the first");
    if more {
        lines.push(Line::of(Style::Dim, "there are older ones: `-n` says how many are shown"));
    }
    lines
}

fn cut(line: &Line, view: &View) -> Line {
    view.width.map_or_else(|| line.clone(), |width| line.cut(width, view.unicode))
}

/// Where it runs; what is usual is not said.
fn places(release: &Release) -> String {
    let places = release.places.iter().map(|place| place.strip_suffix(" stable 100%").unwrap_or(place));
    places.collect::<Vec<_>>().join(", ")
}

/// The subject of its commit, cut for a table.
pub(in crate::render) fn subject(release: &Release, view: &View) -> String {
    Line::plain(&release.subject).cut(SUBJECT_WIDTH, view.unicode).text()
}

#[cfg(test)]
mod tests {
    use api::operator::{HotFix, Transfer};

    use super::*;
    use crate::render::plain;

    fn list() -> Releases {
        let view = View::of_tests();
        let release = |number, state: &str| Release {
            service: "hello".into(),
            number,
            state: state.into(),
            created_ms: view.now_ms - 60_000,
            trigger: "commit of main".into(),
            by: "controller".into(),
            commit: "0123456789abcdef".into(),
            subject: "a subject".into(),
            ..Release::default()
        };
        let failed = Release {
            problem: "the command ended with status 1: \x1b[31merror\x1b[0m".into(),
            subject: "\x1b]0;owned\x07 a subject that goes on and on until nobody reads it".into(),
            trigger: "by hand".into(),
            by: "anna\r\n".into(),
            ..release(45, "failed")
        };
        let waits = Release { waits: "hello@r43 is built first".into(), ..release(44, "queued") };
        let under_way = Transfer { what: "web".into(), done_bytes: 5_000_000, all_bytes: 10_000_000 };
        let building = Release {
            transfer: Some(under_way),
            hot_fix: Some(HotFix { of: 42, ..HotFix::default() }),
            ..release(43, "building")
        };
        let ready = Release {
            version: "2.1.0".into(),
            created_ms: view.now_ms - 3 * 86_400_000,
            places: vec!["dev stable 100%".into(), "production canary 10%".into(), "staging warm".into()],
            commit: String::new(),
            subject: String::new(),
            trigger: String::new(),
            by: String::new(),
            ..release(42, "ready")
        };
        let overtaken = Release { overtaken_by: 42, ..release(41, "overtaken") };
        Releases { releases: vec![failed, waits, building, ready, overtaken] }
    }

    #[test]
    fn the_list_is_a_table_of_safe_text() {
        let lines = releases(&list(), false, &View::of_tests());
        let expected = r"
release    version  state                    made    commit   subject                                   by              serves
hello@r45           failed                   1m ago  0123456  \u{1b}]0;owned\u{7} a subject that goes…  anna\r\n
  the command ended with status 1: \u{1b}[31merror\u{1b}[0m
hello@r44           queued                   1m ago  0123456  a subject                                 commit of main
  waits: hello@r43 is built first
hello@r43           building, hot fix of r42  1m ago  0123456  a subject                                 commit of main
  pushing web  █████·····  5.0 MB of 10.0 MB
hello@r42  2.1.0    ready                    3d ago                                                                     dev, production canary 10%, staging warm
hello@r41           overtaken                1m ago  0123456  a subject                                 commit of main
  overtaken by r42
";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&plain(&lines)), squeeze(expected));
    }

    #[test]
    fn the_list_fits_a_terminal_of_80_columns() {
        let mut view = View::of_tests();
        view.width = Some(80);
        let lines = releases(&list(), true, &view);
        assert!(lines.iter().filter(|line| !line.text().contains("2.1.0")).all(|line| line.width() <= 80));
        let text = plain(&lines);
        assert!(text.contains("\n  0123456 a subject\n  waits: hello@r43 is built first\n"), "{text}");
        assert!(text.ends_with("there are older ones: `-n` says how many are shown\n"), "{text}");
    }
}
