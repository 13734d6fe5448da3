//! The tree as a whole, at several widths.

use api::operator::{FleetMember, Release};

use super::*;
use crate::render::plain;

pub(super) fn full() -> StatusReply {
    let now = View::of_tests().now_ms;
    let endpoint = |address: &str, state: &str, problem: &str, restarts| StageEndpoint {
        address: address.into(),
        agent: "a1".into(),
        state: state.into(),
        problem: problem.into(),
        restarts,
    };
    let canary = StageRelease {
        release: 42,
        role: "canary".into(),
        version: "2.1.0".into(),
        weight_ppm: 500_000,
        measured_ppm: Some(500_200),
        rate: 61.2,
        error_share: Some(0.0512),
        p50_us: Some(1_230),
        p99_us: Some(14_320),
        endpoints: vec![
            endpoint("10.0.0.7:8080", "healthy", "", 0),
            endpoint("10.0.0.8:8080", "unhealthy", "connection refused", 3),
        ],
        ..StageRelease::default()
    };
    let stable = StageRelease {
        release: 41,
        role: "stable".into(),
        version: "2.0.9".into(),
        weight_ppm: 500_000,
        measured_ppm: Some(499_800),
        rate: 61.0,
        error_share: Some(0.0),
        p50_us: Some(1_100),
        p99_us: Some(9_100),
        endpoints: vec![endpoint("10.0.0.9:8080", "healthy", "", 0)],
        ..StageRelease::default()
    };
    let warm = StageRelease {
        release: 40,
        role: "warm".into(),
        commit: "0123456789".into(),
        warm_until_ms: now + 42 * 60_000,
        bad: true,
        endpoints: vec![endpoint("10.0.0.6:8080", "given", "", 0)],
        ..StageRelease::default()
    };
    let production = StageStatus {
        stage: "hello/production".into(),
        hosts: vec!["hello.production.example.com".into()],
        releases: vec![canary, stable, warm],
        activity: "rollout of r42 at 50%".into(),
        rate: 122.2,
        overrides: vec![],
        ..StageStatus::default()
    };
    let dev = StageStatus { stage: "hello/dev".into(), ..StageStatus::default() };
    let building = Release {
        service: "hello".into(),
        number: 43,
        state: "building".into(),
        commit: "89abcdef0123".into(),
        subject: "Greet \x1b[31mloudly".into(),
        by: "anna".into(),
        created_ms: now - 12_000,
        ..Release::default()
    };
    let proxy =
        FleetMember { name: "p1".into(), role: "proxy".into(), state: "active".into(), ..FleetMember::default() };
    StatusReply {
        at_ms: now,
        version: Some(api::Version { term: 1, number: 42 }.into()),
        services: vec![ServiceStatus {
            service: "hello".into(),
            stages: vec![dev, production],
            releases: vec![building],
        }],
        fleet: vec![proxy],
        warnings: vec!["p3 has not been heard for 2 minutes".into()],
    }
}

fn shown(width: Option<usize>) -> String {
    let tree = status(&full(), &View { width, ..View::of_tests() });
    plain(&[vec![tree.head], tree.rows].concat())
}

#[test]
fn the_tree_has_all_columns_where_there_is_room() {
    let expected = r"
release                   role      weight                measured   rate/s   errors     p50     p99  healthy
hello
  dev
    nothing serves here yet
  production  hello.production.example.com  rollout of r42 at 50%
    r42 2.1.0             canary    █████·····       50%    50.02%     61.2    5.12%  1.23ms  14.3ms      1/2
      10.0.0.8:8080 on a1 unhealthy: connection refused (3 restarts)
    r41 2.0.9             stable    █████·····       50%    49.98%     61.0    0.00%  1.10ms  9.10ms      1/1
    r40 0123456           warm      1/1 healthy   bad here   until 12:42 (42m)   `pointsman unhold hello/production r40` takes the mark away

newest releases  state     commit   subject                 by    made
hello@r43        building  89abcde  Greet \u{1b}[31mloudly  anna  12s ago

fleet
  proxies  1 of 1 active
  agents   none

! p3 has not been heard for 2 minutes
";
    assert_eq!(shown(None), expected[1..]);
}

#[test]
fn narrow_terminals_lose_columns_not_their_ends() {
    for (width, versions, bar, median) in [
        (200, true, true, true),
        (112, true, true, true),
        (111, true, false, true),
        (99, true, false, false),
        (80, false, false, false),
    ] {
        let tree = status(&full(), &View { width: Some(width), ..View::of_tests() });
        let text = plain(&[vec![tree.head.clone()], tree.rows].concat());
        assert_eq!(
            (text.contains("2.1.0"), text.contains('█'), tree.head.text().contains("p50")),
            (versions, bar, median),
            "{width}"
        );
        let widest = text.lines().filter(|line| line.contains("canary")).map(|line| line.chars().count()).max();
        assert!(widest <= Some(width), "{width}: {widest:?}");
    }
}

#[test]
fn columns_stay_while_numbers_change() {
    let (mut calm, mut busy) = (full(), full());
    for (reply, rate, us) in [(&mut calm, 0.1, 1), (&mut busy, 99_999.0, 999_000)] {
        let release = &mut reply.services[0].stages[1].releases[0];
        (release.rate, release.p50_us, release.p99_us) = (rate, Some(us), Some(us));
        release.measured_ppm = Some(if us == 1 { 1 } else { 1_000_000 });
        release.error_share = Some(if us == 1 { 0.0 } else { 1.0 });
    }
    let (calm, busy) = (status(&calm, &View::of_tests()), status(&busy, &View::of_tests()));
    assert_eq!(calm.head, busy.head);
    assert_eq!(calm.rows[4].width(), busy.rows[4].width());
}

#[test]
fn a_release_that_was_left_keeps_its_row_while_its_last_requests_are_measured() {
    let (mut measured, quiet) = (full(), full());
    measured.services[0].stages[1].releases[2].measured_ppm = Some(12_000);
    let (measured, quiet) = (status(&measured, &View::of_tests()), status(&quiet, &View::of_tests()));
    assert_eq!(measured.rows.len(), quiet.rows.len());
    let row = measured.rows[7].text();
    assert!(row.contains("1.20%") && row.contains("1/1  bad here   until 12:42 (42m)"), "{row}");
}

#[test]
fn the_headline_counts_what_is_wrong() {
    let mut reply = full();
    assert_eq!(headline(&reply).text(), "1 of 1 proxies active at 1.42   ! 1 warning");
    for state in ["revoked", "invited"] {
        let other = FleetMember { state: state.into(), ..reply.fleet[0].clone() };
        reply.fleet.push(other);
    }
    assert_eq!(headline(&reply).text(), "1 of 1 proxies active at 1.42   ! 1 warning");
    reply.fleet[0].state = "lagging".into();
    reply.warnings.clear();
    assert_eq!(headline(&reply).text(), "0 of 1 proxies active at 1.42");
}

#[test]
fn an_empty_controller_says_what_to_do_first() {
    let tree = status(&StatusReply::default(), &View::of_tests());
    assert!(tree.rows[0].text().starts_with("no services yet: `pointsman apply"), "{:?}", tree.rows);
}

#[test]
fn builds_say_what_they_wait_for_and_what_is_under_way() {
    let mut reply = full();
    let building = reply.services[0].releases[0].clone();
    let transfer = api::operator::Transfer { what: "web\x1b[2J".into(), done_bytes: 1_000_000, all_bytes: 4_000_000 };
    let waits = Release {
        number: 44,
        state: "queued".into(),
        waits: "hello@r43 is built first".into(),
        trigger: "commit of main".into(),
        ..building.clone()
    };
    reply.services[0].releases = vec![waits, Release { transfer: Some(transfer), ..building }];
    let text = plain(&status(&reply, &View::of_tests()).rows);
    let expected = r"
newest releases  state     commit   subject                 by              made
hello@r44        queued    89abcde  Greet \u{1b}[31mloudly  commit of main  12s ago
  waits: hello@r43 is built first
hello@r43        building  89abcde  Greet \u{1b}[31mloudly  anna            12s ago
  pushing web\u{1b}[2J  ██▌·······  1.0 MB of 4.0 MB
";
    assert!(text.contains(expected), "{text}");
    let narrow = plain(&status(&reply, &View { width: Some(80), ..View::of_tests() }).rows);
    assert!(!narrow.contains("Greet") && narrow.contains("waits: hello@r43"), "{narrow}");
}
