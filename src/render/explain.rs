//! Why a request was answered as it was, and how one would be.

use api::fleet::Decided;
use api::operator::{PolicyExplained, QuestionExplained, RequestExplained};

use super::{Line, Style, View, ago, stamp};

/// What was decided about a request.
pub(crate) fn request_explained(explained: &RequestExplained, view: &View) -> Vec<Line> {
    let decided = explained.decided.clone().unwrap_or_default();
    let mut lines = vec![outcome(&decided.outcome).with(Style::Plain, by(explained))];
    let when = match decided.at_ms {
        0 => String::new(),
        at_ms => format!("{} ({})", stamp(view, at_ms), ago(view, at_ms)),
    };
    for (name, value) in [
        ("when", when),
        ("request", explained.request_id.clone()),
        ("asked", asked(&decided)),
        ("stage", stage(&decided)),
        ("application", decided.application.clone()),
        ("user", user(&decided)),
        ("status", if decided.status == 0 { String::new() } else { decided.status.to_string() }),
    ] {
        if !value.is_empty() {
            lines.push(Line::of(Style::Dim, format!("  {name:<12} ")).with(Style::Plain, value));
        }
    }
    lines.extend(explained.lines.iter().map(|line| Line::plain(format!("  {line}"))));
    lines
}

fn by(explained: &RequestExplained) -> String {
    if explained.proxy.is_empty() { String::new() } else { format!("  by {}", explained.proxy) }
}

fn asked(decided: &Decided) -> String {
    let place = format!("{}{}", decided.host, decided.path);
    let words = [decided.action.as_str(), decided.method.as_str(), place.as_str()];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn stage(decided: &Decided) -> String {
    if decided.release == 0 { decided.stage.clone() } else { format!("{} r{}", decided.stage, decided.release) }
}

fn user(decided: &Decided) -> String {
    if decided.issuer.is_empty() {
        return String::new();
    }
    let groups = if decided.groups.is_empty() { String::new() } else { format!(" in {}", decided.groups.join(", ")) };
    format!("{}/{}{groups}", decided.issuer, decided.subject)
}

fn outcome(word: &str) -> Line {
    let style = if word == "allowed" { Style::Good } else { Style::Bad };
    Line::of(style, word)
}

/// What would be decided about a request.
pub(crate) fn policy_explained(explained: &PolicyExplained) -> Vec<Line> {
    let mut lines = vec![outcome(&explained.verdict).with(Style::Plain, format!("  {}", explained.why))];
    lines.extend(explained.questions.iter().map(question));
    lines.extend(explained.lines.iter().map(|line| Line::plain(format!("  {line}"))));
    lines
}

fn question(asked: &QuestionExplained) -> Line {
    let answer = if asked.allowed { (Style::Good, "yes") } else { (Style::Bad, "no ") };
    let by = if asked.policies.is_empty() { String::new() } else { format!("  {}", asked.policies.join(", ")) };
    Line::of(Style::Dim, format!("  {:<12} ", asked.action)).with(answer.0, answer.1).with(Style::Plain, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explain_shows_what_was_decided() {
        let decided = Decided {
            at_ms: 1_772_366_400_000,
            host: "hello.staging.example.com".into(),
            stage: "hello/staging".into(),
            release: 4,
            method: "GET".into(),
            path: "/a".into(),
            action: "read".into(),
            issuer: "corp".into(),
            subject: "alice\x1b[2J".into(),
            groups: vec!["staff".into()],
            outcome: "allowed".into(),
            status: 200,
            ..Decided::default()
        };
        let explained = RequestExplained {
            proxy: "p1".into(),
            decided: Some(decided),
            request_id: "07".into(),
            lines: vec!["staff.cedar:1".into()],
            ..RequestExplained::default()
        };
        let shown = super::super::plain(&request_explained(&explained, &View::of_tests()));
        let expected = [
            "allowed  by p1",
            "2026-03-01 12:00:00 (now)",
            "read GET hello.staging.example.com/a",
            "hello/staging r4",
            "corp/alice",
            " in staff",
            "200",
            "staff.cedar:1",
        ];
        for expected in expected {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(!shown.contains('\x1b'), "{shown:?}");
    }

    #[test]
    fn explain_shows_what_would_be_decided() {
        let question = |action: &str, allowed, policies: &[&str]| QuestionExplained {
            action: action.into(),
            allowed,
            policies: policies.iter().map(ToString::to_string).collect(),
            errors: Vec::new(),
        };
        let explained = PolicyExplained {
            verdict: "forbidden".into(),
            why: "no policy lets the caller do this".into(),
            questions: vec![question("discover", true, &["staff.cedar:1"]), question("write", false, &[])],
            lines: vec!["write: no policy permits it".into()],
        };
        let shown = super::super::plain(&policy_explained(&explained));
        assert_eq!(
            shown,
            "forbidden  no policy lets the caller do this
  discover     yes  staff.cedar:1
  write        no
  write: no policy permits it
"
        );
    }
}
