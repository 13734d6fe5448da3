//! Pages of releases, also of those whose texts come from somebody hostile.

use api::operator::{HotFix, Setting};

use super::*;
use crate::render::plain;

fn hostile() -> Release {
    Release {
        service: "hello".into(),
        number: 3,
        state: "failed".into(),
        problem: "the command ended with status 1: \x1b[31merror\x1b[0m".into(),
        step: "command".into(),
        exit: Some(1),
        commit: "0123456789abcdef".into(),
        subject: "\x1b]0;owned\x07 a subject that goes on and on until nobody reads it".into(),
        author: "mallory\x1b[2J".into(),
        created_ms: View::of_tests().now_ms - 60_000,
        by: "anna\r\n".into(),
        ..Release::default()
    }
}

fn entry(minute: u64, about: &str, kind: &str, what: &str, by: &str) -> HistoryEntry {
    HistoryEntry {
        event: minute,
        at_ms: View::of_tests().now_ms - 3_600_000 + minute * 60_000,
        by: by.into(),
        reason: if by == "anna" { "it is \x1b[5mtime".into() } else { String::new() },
        about: about.into(),
        what: what.into(),
        kind: kind.into(),
    }
}

fn whole() -> Release {
    let now_ms = View::of_tests().now_ms;
    let digest = format!("sha256:{}", "a".repeat(64));
    let commit = |id: &str, subject: &str| Commit { id: id.into(), subject: subject.into() };
    let artifact = |environment: &str, kind: &str, reference: &str| Artifact {
        component: "web".into(),
        digest: digest.clone(),
        bytes: 1_500_000,
        environment: environment.into(),
        kind: kind.into(),
        reference: reference.into(),
        ..Artifact::default()
    };
    Release {
        service: "hello".into(),
        number: 42,
        version: "v1.4.0".into(),
        state: "ready".into(),
        commit: "0123456789abcdef".into(),
        subject: "mend the gate".into(),
        author: "Anna".into(),
        trigger: "tag v1.4.0".into(),
        by: "controller".into(),
        created_ms: now_ms - 600_000,
        begun_ms: now_ms - 590_000,
        built_ms: now_ms - 300_000,
        hot_fix: Some(HotFix {
            of: 41,
            base: "fedcba9876".into(),
            picks: vec![commit("1111111aaaa", "one"), commit("2222222aaaa", "two")],
            ..HotFix::default()
        }),
        overtook: vec![commit("3333333aaaa", "three")],
        overtook_more: 4,
        kept_from: 40,
        places: vec!["production canary 10%".into()],
        urls: vec!["https://r42--hello.production.example.com/".into()],
        artifacts: vec![
            artifact("", "folder", ""),
            artifact("qa", "image", &format!("registry.example.com/web@{digest}")),
        ],
        checks: vec![CheckDone { name: "fits".into(), verdict: "well".into(), passed: true, took_ms: 2_000 }],
        configuration: vec![Setting { key: "component.web.run".into(), value: "./hello --port {port}".into() }],
        trimmed: vec!["log".into()],
        happened: vec![
            entry(1, "hello@r42", "release_requested", "hello@r42 was asked for", "controller"),
            entry(2, "hello/staging", "promoted", "r42 enters", "anna"),
            entry(3, "hello/staging", "completed", "r42 is stable", "controller"),
            entry(4, "hello/production", "promoted", "r42 enters", "controller"),
        ],
        ..Release::default()
    }
}

#[test]
fn releases_show_only_what_is_known() {
    let expected = r"
hello@r3
  state     failed
            the command ended with status 1: \u{1b}[31merror\u{1b}[0m
            in step command, exit status 1
  commit    0123456789abcdef
            \u{1b}]0;owned\u{7} a subject that goes on and on until nobody reads it
  author    mallory\u{1b}[2J
  asked for 2026-03-01 11:59:00 (1m ago) by anna\r\n
";
    assert_eq!(plain(&release(&hostile(), &View::of_tests())), expected[1..]);
}

#[test]
fn releases_are_shown_as_a_page() {
    let expected = r#"
hello@r42 v1.4.0
  state     ready, hot fix of r41
  commit    0123456789abcdef
            mend the gate
  author    Anna
  asked for 2026-03-01 11:50:00 (10m ago) by tag v1.4.0
  built     2026-03-01 11:55:00, took 4m
  hot fix   of r41, with 2 picked commits on top of fedcba9
            1111111 one
            2222222 two
  overtook  5 commits without a release of their own
            3333333 three
            and 4 more
  kept      only configuration changed: its artifacts are those of r40
  serves    production canary 10%
  reached   https://r42--hello.production.example.com/
  removed   its log, by [keep]

artifacts
  component  for  kind      size  digest
  web             folder  1.5 MB  sha256:DIGEST
  web        qa   image   1.5 MB  sha256:DIGEST
    in registry.example.com/web

checks
  check  verdict  took
  fits   well     2.0s

configuration
  component.web.run  ./hello --port {port}

promotions
  2026-03-01 11:02:00  staging by anna: r42 is stable
  2026-03-01 11:04:00  production by controller: under way

history
  2026-03-01 11:01:00  hello@r42 was asked for
  2026-03-01 11:02:00  r42 enters, by anna: "it is \u{1b}[5mtime"
  2026-03-01 11:03:00  r42 is stable
  2026-03-01 11:04:00  r42 enters
"#;
    let shown = plain(&release(&whole(), &View::of_tests()));
    assert_eq!(shown.replace(&"a".repeat(64), "DIGEST"), expected[1..]);
    let short = plain(&release_in_short(&whole(), &View::of_tests()));
    assert!(short.contains("checks") && !short.contains("configuration\n") && !short.contains("history"), "{short}");
}

#[test]
fn releases_fit_a_terminal_of_80_columns() {
    let mut view = View::of_tests();
    view.width = Some(80);
    let mut long = whole();
    long.subject = "word ".repeat(40);
    long.happened[0].what = "word ".repeat(40);
    long.configuration[0].value = "--flag ".repeat(40);
    let lines = release(&long, &view);
    let wide: Vec<_> = lines.iter().filter(|line| line.width() > 80).map(Line::text).collect();
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn releases_with_a_long_past_show_its_end() {
    let mut old = whole();
    old.happened =
        (0..100).map(|at| entry(at, "hello@r42", "release_marked", &format!("event {at} "), "anna")).collect();
    let shown = plain(&release(&old, &View::of_tests()));
    assert!(shown.contains("70 events before; `-o json` has all"), "{shown}");
    assert!(!shown.contains("event 69 ") && shown.contains("event 70 ") && shown.contains("event 99 "), "{shown}");
}
