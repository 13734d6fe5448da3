//! What differs between two releases.

use api::operator::{ArtifactDiffers, Commit, ReleasesDiffer, SettingDiffers};

use super::{flowing, short_digest};
use crate::render::status::short_commit;
use crate::render::{Line, Style, View, numbers};

/// Commits, configuration and artifacts that one has and the other has not.
pub(crate) fn differ(differ: &ReleasesDiffer, view: &View) -> Vec<Line> {
    let name = |release: &Option<api::operator::Release>| {
        release.as_ref().map_or_else(String::new, |one| format!("{}@r{}", one.service, one.number))
    };
    let mut head = Line::of(Style::Bold, name(&differ.from));
    head.push(Style::Dim, if view.unicode { " → " } else { " -> " });
    head.push(Style::Bold, name(&differ.to));
    let mut lines = vec![head];
    let commits = commits(differ, view);
    let configuration = differ.configuration.iter().flat_map(|setting| setting_lines(setting, view)).collect();
    let artifacts = differ.artifacts.iter().map(|artifact| artifact_line(artifact, view)).collect();
    for (name, rows) in [("commits", commits), ("configuration", configuration), ("artifacts", artifacts)] {
        let rows: Vec<Line> = rows;
        if !rows.is_empty() {
            lines.push(Line::default());
            lines.push(Line::of(Style::Bold, name));
            lines.extend(rows);
        }
    }
    if lines.len() == 1 {
        lines.push(Line::of(Style::Dim, "  nothing differs"));
    }
    lines
}

fn commits(differ: &ReleasesDiffer, view: &View) -> Vec<Line> {
    if !differ.commits_unknown.is_empty() {
        let line = Line::of(Style::Moving, "  cannot be told: ");
        return flowing(line, Style::Plain, &differ.commits_unknown, view);
    }
    let mut lines = listed(&differ.added, differ.added_more, "+", Style::Good, view);
    lines.extend(listed(&differ.removed, differ.removed_more, "-", Style::Bad, view));
    lines
}

fn listed(commits: &[Commit], more: u32, sign: &str, style: Style, view: &View) -> Vec<Line> {
    let line = |commit: &Commit| {
        let line = Line::of(style, format!("  {sign} ")).with(Style::Dim, format!("{} ", short_commit(&commit.id)));
        flowing(line, Style::Plain, &commit.subject, view)
    };
    let mut lines: Vec<Line> = commits.iter().flat_map(line).collect();
    if more > 0 {
        let text = format!("and {} more", numbers::count(more.into()));
        lines.push(Line::of(style, format!("  {sign} ")).with(Style::Dim, text));
    }
    lines
}

fn setting_lines(setting: &SettingDiffers, view: &View) -> Vec<Line> {
    let mut lines = vec![Line::plain(format!("  {}", setting.key))];
    for (sign, style, value) in [("-", Style::Bad, &setting.from), ("+", Style::Good, &setting.to)] {
        if let Some(value) = value {
            lines.extend(flowing(Line::of(style, format!("    {sign} ")), Style::Plain, value, view));
        }
    }
    lines
}

fn artifact_line(artifact: &ArtifactDiffers, view: &View) -> Line {
    let mut line = Line::plain(format!("  {}", artifact.component));
    if !artifact.environment.is_empty() {
        line.push(Style::Plain, format!(" for {}", artifact.environment));
    }
    let digest = |line: &mut Line, digest: &str| match digest {
        "" => line.push(Style::Dim, "none"),
        digest => line.push(Style::Plain, short_digest(digest)),
    };
    line.push(Style::Plain, "  ");
    digest(&mut line, &artifact.from);
    line.push(Style::Dim, if view.unicode { " → " } else { " -> " });
    digest(&mut line, &artifact.to);
    line
}

#[cfg(test)]
mod tests {
    use api::operator::Release;

    use super::*;
    use crate::render::plain;

    fn two() -> ReleasesDiffer {
        let release = |number| Some(Release { service: "hello".into(), number, ..Release::default() });
        ReleasesDiffer { from: release(41), to: release(42), ..ReleasesDiffer::default() }
    }

    #[test]
    fn releases_that_differ_in_nothing_say_so() {
        assert_eq!(plain(&differ(&two(), &View::of_tests())), "hello@r41 → hello@r42\n  nothing differs\n");
    }

    #[test]
    fn hostile_differences_are_told_as_text() {
        let commit = |id: &str, subject: &str| Commit { id: id.into(), subject: subject.into() };
        let setting = |key: &str, from: Option<&str>, to: Option<&str>| SettingDiffers {
            key: key.into(),
            from: from.map(Into::into),
            to: to.map(Into::into),
        };
        let (one, other) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let found = ReleasesDiffer {
            added: vec![commit("1111111222", "add a \x1b[2Jgate"), commit("3333333444", "two")],
            added_more: 1_200,
            removed: vec![commit("5555555666", "gone")],
            configuration: vec![
                setting("component.web.run", Some("./a"), Some("./b\n")),
                setting("component.web.environment.MODE", None, Some("")),
                setting("build.pass", Some("HOME"), None),
            ],
            artifacts: vec![
                ArtifactDiffers { component: "web".into(), from: one.clone(), to: other, ..Default::default() },
                ArtifactDiffers { component: "ui".into(), environment: "qa".into(), from: one, to: String::new() },
            ],
            ..two()
        };
        let expected = r"
hello@r41 → hello@r42

commits
  + 1111111 add a \u{1b}[2Jgate
  + 3333333 two
  + and 1,200 more
  - 5555555 gone

configuration
  component.web.run
    - ./a
    + ./b\n
  component.web.environment.MODE
    +
  build.pass
    - HOME

artifacts
  web  sha256:aaaaaaaaaaaa → sha256:bbbbbbbbbbbb
  ui for qa  sha256:aaaaaaaaaaaa → none
";
        assert_eq!(plain(&differ(&found, &View::of_tests())), expected[1..]);
        let unknown = ReleasesDiffer { commits_unknown: "hello@r41 was added \x07".into(), ..found };
        let shown = plain(&differ(&unknown, &View::of_tests()));
        assert!(shown.contains("commits\n  cannot be told: hello@r41 was added \\u{7}\n\nconfiguration"), "{shown}");
    }
}
