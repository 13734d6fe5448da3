//! Where stages are reached, and where services come from.

use api::operator::{Repositories, StageResolved};

use super::status::short_commit;
use super::{Line, Style, Table, View, ago, numbers};

/// Where a stage is reached, and by what.
pub(crate) fn stage_resolved(stage: &StageResolved) -> Vec<Line> {
    let mut lines = vec![Line::of(Style::Bold, &stage.stage)];
    let public = if stage.public { "by anybody" } else { "by whom policy lets" };
    for (name, value) in [
        ("called", public.to_owned()),
        ("hosts", stage.hosts.join(" ")),
        ("urls", stage.urls.join(" ")),
        ("registered", registered(&stage.registered_by, &stage.registered_commit)),
    ] {
        if !value.is_empty() {
            lines.push(Line::of(Style::Dim, format!("  {name:<10} ")).with(Style::Plain, value));
        }
    }
    let mut table = Table::new(&["  release", "role", "share", "host", "addresses"]).right(&[2]);
    for release in &stage.releases {
        table.row(vec![
            Line::plain(format!("  r{}", release.release)),
            Line::plain(&release.role),
            Line::plain(numbers::share_set(release.share_ppm)),
            Line::plain(&release.host),
            Line::plain(release.addresses.join(" ")),
        ]);
    }
    lines.push(Line::default());
    lines.extend(table.lines("  nothing serves here yet"));
    lines
}

/// By which repository, as of which commit.
pub(super) fn registered(by: &str, commit: &str) -> String {
    if by.is_empty() { String::new() } else { format!("by repository {by} at {}", short_commit(commit)) }
}

/// Repositories whose services register themselves.
pub(crate) fn repositories(list: &Repositories, view: &View) -> Vec<Line> {
    let mut table = Table::new(&["repository", "branch", "at", "looked at", "webhook", "services", "url"]);
    for repository in &list.repositories {
        let looked = match repository.looked_at_ms {
            0 => "not yet".to_owned(),
            at_ms => ago(view, at_ms),
        };
        table.row(vec![
            Line::of(Style::Bold, &repository.name),
            Line::plain(&repository.branch),
            Line::of(Style::Dim, short_commit(&repository.commit)),
            Line::plain(looked),
            Line::plain(&repository.webhook),
            Line::plain(repository.services.join(", ")),
            Line::plain(&repository.url),
        ]);
        for problem in &repository.problems {
            table.whole(Line::plain("  ").with(Style::Bad, problem));
        }
    }
    table.lines("no repositories: `[repository.NAME]` in releases.toml lists one whose services register themselves")
}

#[cfg(test)]
mod tests {
    use api::operator::{Repository, ResolvedRelease};

    use super::*;
    use crate::render::plain;

    #[test]
    fn a_stage_says_where_it_is_reached() {
        let release = ResolvedRelease {
            release: 42,
            role: "stable".into(),
            share_ppm: 1_000_000,
            host: "r42--hello.staging.example.com".into(),
            addresses: vec!["10.0.0.7:8080".into(), "10.0.0.8:8080".into()],
        };
        let stage = StageResolved {
            stage: "hello/staging".into(),
            public: true,
            hosts: vec!["hello.staging.example.com".into()],
            urls: vec!["https://hello.staging.example.com/".into()],
            releases: vec![release],
            registered_by: "shop\x1b[2J".into(),
            registered_commit: "0123456789".into(),
        };
        let expected = r"
hello/staging
  called     by anybody
  hosts      hello.staging.example.com
  urls       https://hello.staging.example.com/
  registered by repository shop\u{1b}[2J at 0123456

  release  role    share  host                            addresses
  r42      stable   100%  r42--hello.staging.example.com  10.0.0.7:8080 10.0.0.8:8080
";
        assert_eq!(plain(&stage_resolved(&stage)), expected[1..]);
        let empty = StageResolved { public: false, releases: Vec::new(), ..stage };
        let text = plain(&stage_resolved(&empty));
        assert!(text.contains("by whom policy lets") && text.ends_with("  nothing serves here yet\n"), "{text}");
    }

    #[test]
    fn hostile_repositories_are_rows_with_their_problems() {
        let view = View::of_tests();
        let repository = Repository {
            name: "shop".into(),
            url: "https://git.example.com/shop.git".into(),
            branch: "main".into(),
            commit: "0123456789".into(),
            looked_at_ms: view.now_ms - 12_000,
            services: vec!["shop".into(), "shop-ui".into()],
            problems: vec!["pointsman.toml:12:3 \x1b[31mno\n".into()],
            webhook: "github".into(),
        };
        let new = Repository { name: "new".into(), branch: "main".into(), ..Repository::default() };
        let expected = r"
repository  branch  at       looked at  webhook  services       url
shop        main    0123456  12s ago    github   shop, shop-ui  https://git.example.com/shop.git
  pointsman.toml:12:3 \u{1b}[31mno\n
new         main             not yet
";
        assert_eq!(plain(&repositories(&Repositories { repositories: vec![repository, new] }, &view)), expected[1..]);
        assert_eq!(repositories(&Repositories::default(), &view).len(), 1);
    }
}
