//! Certificates: a line each, or all of one environment.

use api::operator::{Certificate, Certificates};

use super::{Line, Style, Table, View, times};

/// Less than this is worth a colour.
const SOON_MS: u64 = 7 * 86_400_000;

/// All of them.
pub(crate) fn certificates(list: &Certificates, view: &View) -> Vec<Line> {
    let mut table = Table::new(&["environment", "names", "source", "expires", "renews", "active"]);
    for one in &list.certificates {
        table.row(vec![
            Line::of(Style::Bold, &one.environment),
            Line::plain(names(one)),
            Line::plain(&one.source),
            expires(one, view),
            Line::plain(renews(one, view)),
            active(one),
        ]);
        if !one.problem.is_empty() {
            table.whole(Line::of(Style::Bad, format!("  {}", problem(one, view))));
        }
    }
    table.lines("no certificates yet: each environment has one as soon as it is applied")
}

/// The certificates of one environment.
pub(crate) fn certificate_details(list: &Certificates, chain: bool, view: &View) -> Vec<Line> {
    let mut lines = Vec::new();
    for one in &list.certificates {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines.push(Line::of(Style::Bold, one.names.join(" ")));
        let valid = match one.expires_ms {
            0 => String::new(),
            _ => format!("{} to {}", times::stamp(view, one.not_before_ms), times::stamp(view, one.expires_ms)),
        };
        for (name, value) in [
            ("source", Line::plain(&one.source)),
            ("issuer", Line::plain(&one.issuer)),
            ("serial", Line::plain(&one.serial)),
            ("key", Line::plain(&one.key)),
            ("sha256", Line::plain(&one.sha256)),
            ("valid", Line::plain(valid)),
            ("expires", expires(one, view)),
            ("renews", Line::plain(renews(one, view))),
            ("active", active(one)),
            ("problem", Line::of(Style::Bad, problem(one, view))),
        ] {
            if !value.is_empty() {
                let mut line = Line::of(Style::Dim, format!("  {name:<10} "));
                line.append(value);
                lines.push(line);
            }
        }
        if chain {
            lines.extend(one.chain_pem.lines().map(Line::plain));
        }
    }
    lines
}

fn names(one: &Certificate) -> String {
    match one.names.as_slice() {
        [] => String::new(),
        [first] => first.clone(),
        [first, others @ ..] => format!("{first} +{}", others.len()),
    }
}

fn expires(one: &Certificate, view: &View) -> Line {
    match one.expires_ms.checked_sub(view.now_ms) {
        _ if one.expires_ms == 0 => Line::of(Style::Moving, "none yet"),
        None | Some(0) => Line::of(Style::Bad, "EXPIRED"),
        Some(left) if left < SOON_MS => Line::of(Style::Moving, format!("in {}", times::length(left))),
        Some(left) => Line::plain(format!("in {}", times::length(left))),
    }
}

fn renews(one: &Certificate, view: &View) -> String {
    match one.renews_ms.checked_sub(view.now_ms) {
        _ if one.renews_ms == 0 && one.source == "files" => "when the files change".into(),
        _ if one.renews_ms == 0 && one.source == "imported" => "by hand".into(),
        _ if one.renews_ms == 0 => String::new(),
        None => "now".into(),
        Some(left) => format!("in {}", times::length(left)),
    }
}

fn active(one: &Certificate) -> Line {
    let (active, all) = (one.active.len(), one.active.len() + one.lagging.len());
    match one.lagging.as_slice() {
        _ if one.expires_ms == 0 => Line::default(),
        [] => Line::plain(format!("on {active} of {all}")),
        lagging => Line::of(Style::Moving, format!("on {active} of {all}, not yet on {}", lagging.join(", "))),
    }
}

fn problem(one: &Certificate, view: &View) -> String {
    if one.problem.is_empty() {
        return String::new();
    }
    format!("{} ({})", one.problem, super::ago(view, one.failed_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::plain;

    fn one(environment: &str, source: &str, expires_ms: u64) -> Certificate {
        Certificate {
            environment: environment.into(),
            source: source.into(),
            names: vec![format!("*.{environment}.example.com"), "example.com".into()],
            expires_ms,
            active: vec!["p1".into()],
            ..Certificate::default()
        }
    }

    #[test]
    fn certificates_are_listed_with_what_fails() {
        let view = View::of_tests();
        let day = 86_400_000;
        let acme = Certificate {
            renews_ms: view.now_ms + 30 * day,
            lagging: vec!["p2".into()],
            problem: "no \u{1b}[2Janswer".into(),
            failed_ms: view.now_ms - 180_000,
            ..one("dev", "acme", view.now_ms + 60 * day)
        };
        let missing = Certificate { names: vec!["*.new.example.com".into()], ..one("new", "acme", 0) };
        let list = Certificates {
            certificates: vec![acme, one("files", "files", view.now_ms + 3 * day), missing, one("old", "imported", 7)],
        };
        let expected = "\
environment  names                     source    expires   renews                 active
dev          *.dev.example.com +1      acme      in 60d    in 30d                 on 1 of 2, not yet on p2
  no \\u{1b}[2Janswer (3m ago)
files        *.files.example.com +1    files     in 3d     when the files change  on 1 of 1
new          *.new.example.com         acme      none yet
old          *.old.example.com +1      imported  EXPIRED   by hand                on 1 of 1
";
        let shown = plain(&certificates(&list, &view));
        assert_eq!(shown.replace(' ', ""), expected.replace(' ', ""), "{shown}");
    }
}
