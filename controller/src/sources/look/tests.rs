use std::num::NonZeroU32;

use crate::core::spec::{BuildLimits, POLL, ScheduleSpec, Source, TriggerSpec};

use super::*;

const HOUR_MS: u64 = 3_600_000;
/// 2026-11-22T00:00:00Z.
const NOW_MS: u64 = 1_795_305_600_000;

fn wants(commits: bool, tags: Option<&str>, cron: Option<&str>) -> Wants {
    let source = Source { repository: "/srv/hello".into(), branch: "main".into(), tags: tags.map(str::to_owned) };
    let schedule = cron.map(|cron| ScheduleSpec { cron: cron.into(), time_zone: "UTC".into() });
    let limits = BuildLimits { hour: NonZeroU32::new(6), day: None };
    Wants { source, trigger: TriggerSpec { commits, tags: tags.is_some(), schedule, poll: POLL, limits } }
}

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(name, commit)| ((*name).to_owned(), (*commit).to_owned())).collect()
}

fn remote(head: &str, tags: &[(&str, &str)]) -> Remote {
    Remote { branches: map(&[("main", head), ("other", "x")]), tags: map(tags) }
}

fn looked(tags: &[(&str, &str)]) -> Standing {
    Standing { tags: map(tags), has_looked: true, ..Standing::default() }
}

/// Names of the tags that are to be built, in order.
fn built(follows: &Follows) -> Vec<&str> {
    follows.build.iter().map(|(tag, _)| tag.as_str()).collect()
}

#[test]
fn heads_are_wanted_once_and_by_what_asks_for_them() {
    let none = Remembered::default();
    let commit = Trigger::Commit { branch: "main".into() };
    for (wants, is_asked, expected) in [
        (wants(true, None, None), false, Some(commit)),
        (wants(true, None, None), true, None),
        (wants(false, Some("v{semver}"), None), false, None),
    ] {
        let follows = follow(&wants, &looked(&[]), &remote("a", &[]), is_asked, none.clone(), NOW_MS);
        assert_eq!(follows.head, expected.map(|trigger| ("a".to_owned(), trigger)), "{wants:?} {is_asked}");
        assert!(follows.problems.is_empty());
    }
    let gone = Remote { branches: map(&[("other", "x")]), tags: BTreeMap::new() };
    let follows = follow(&wants(true, None, None), &looked(&[]), &gone, false, none, NOW_MS);
    assert_eq!(follows.problems, ["the branch main does not exist in /srv/hello"]);
    assert_eq!(follows.head, None);
}

#[test]
fn the_first_look_at_tags_records_and_releases_nothing() {
    let wants = wants(false, Some("v{semver}"), None);
    let there = remote("a", &[("v1.0.0", "a"), ("v1.1.0", "b"), ("nightly", "c"), ("v1", "d")]);
    let first = follow(&wants, &Standing::default(), &there, false, Remembered::default(), NOW_MS);
    assert_eq!(first.record, Some(map(&[("v1.0.0", "a"), ("v1.1.0", "b")])));
    assert!(first.build.is_empty());
    // A repository without tags has had its first look, too.
    let empty = follow(&wants, &Standing::default(), &remote("a", &[]), false, Remembered::default(), NOW_MS);
    assert_eq!((empty.record, empty.build.len()), (Some(BTreeMap::new()), 0));

    let more = remote("a", &[("v1.0.0", "a"), ("v1.1.0", "b"), ("v1.10.0", "e"), ("v1.9.0", "f"), ("nightly", "g")]);
    let known = looked(&[("v1.0.0", "a"), ("v1.1.0", "b")]);
    let second = follow(&wants, &known, &more, false, first.remember, NOW_MS);
    assert_eq!((built(&second), &second.record), (vec!["v1.9.0", "v1.10.0"], &None), "in the order that was meant");
    // The file was lost: what is on record is enough.
    assert_eq!(built(&follow(&wants, &known, &more, false, Remembered::default(), NOW_MS)), ["v1.9.0", "v1.10.0"]);
    // Of another form than before, all of them are old.
    let other = self::wants(false, Some("v1.{number}.0"), None);
    let follows = follow(&other, &known, &more, false, second.remember, NOW_MS);
    assert!(follows.build.is_empty());
    assert_eq!(follows.record, Some(map(&[("v1.10.0", "e"), ("v1.9.0", "f")])));
}

#[test]
fn hostile_h84_a_flood_of_tags_is_taken_in_portions() {
    let wants = wants(false, Some("b{number}"), None);
    let tags: BTreeMap<String, String> = (0..5_000).map(|n| (format!("b{n}"), format!("c{n}"))).collect();
    let there = Remote { branches: map(&[("main", "a")]), tags };
    let follows = follow(&wants, &looked(&[]), &there, false, Remembered::default(), NOW_MS);
    let oldest: Vec<String> = (0..TAGS_AT_ONCE).map(|n| format!("b{n}")).collect();
    assert_eq!(built(&follows), oldest);
}

#[test]
fn hostile_h84_a_tag_that_moved_is_told_and_not_built() {
    let wants = wants(false, Some("v{semver}"), None);
    let (old, new) = ("1a2b3c4d".repeat(5), "5d6e7f80".repeat(5));
    let known = looked(&[("v1.4.0", &old), ("v1.3.0", "x")]);
    let follows = follow(&wants, &known, &remote("a", &[("v1.4.0", &new)]), false, Remembered::default(), NOW_MS);
    let said =
        "tag v1.4.0 was at 1a2b3c4 when it was first seen and is at 5d6e7f8 now: a tag must not move; make a new one";
    assert_eq!((follows.problems, follows.build), (vec![said.to_owned()], Vec::new()));
}

#[test]
fn a_tag_on_the_head_is_one_build() {
    let wants = wants(true, Some("v{semver}"), None);
    let there = remote("a", &[("v1.0.0", "a")]);
    let follows = follow(&wants, &looked(&[]), &there, false, Remembered::default(), NOW_MS);
    assert_eq!((built(&follows), &follows.head), (vec!["v1.0.0"], &None));
}

#[test]
fn a_schedule_takes_the_head_that_nobody_asked_for() {
    let wants = wants(false, None, Some("0 3 * * *"));
    let at = |hours: u64| NOW_MS + hours * HOUR_MS;
    let look = |remembered: &Remembered, is_asked, hours| {
        let follows = follow(&wants, &looked(&[]), &remote("a", &[]), is_asked, remembered.clone(), at(hours));
        (follows.head, follows.remember)
    };
    let head = Some(("a".to_owned(), Trigger::Schedule));
    // What was missed before anybody knew of the schedule does not count.
    let (found, first) = look(&Remembered::default(), false, 4);
    assert_eq!(found, None);
    assert_eq!(look(&first, false, 26).0, None, "not yet");
    let (found, pending) = look(&first, false, 28);
    assert_eq!(found, head, "03:00 was an hour ago");
    // It stays wanted until it is on record, also through a restart.
    assert_eq!(look(&pending, false, 30).0, head);
    let (found, over) = look(&pending, true, 31);
    assert_eq!(found, None);
    assert_eq!(look(&over, false, 32).0, None, "a new head waits for the next time");
    // Away for a week: once.
    let (found, pending) = look(&over, false, 28 + 7 * 24);
    assert_eq!(found, head);
    let (_, over) = look(&pending, true, 29 + 7 * 24);
    assert_eq!(look(&over, false, 30 + 7 * 24).0, None);
    // Another schedule begins anew.
    let other = self::wants(false, None, Some("0 4 * * *"));
    let follows = follow(&other, &looked(&[]), &remote("a", &[]), false, first, at(30));
    assert_eq!(follows.head, None);
}
