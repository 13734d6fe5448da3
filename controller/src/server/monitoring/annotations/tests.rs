//! Which moments are told, in which words, and how far back.

use api::{Scope, Share, Verb};

use super::*;
use crate::core::state::Why;
use crate::engine::tests::{World, token};

fn stage() -> StageName {
    "hello/production".parse().expect("a stage")
}

fn release(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).expect("a release")
}

fn operator(scope: Scope) -> Operator {
    Operator::new("ci".parse().expect("a name"), scope)
}

/// An event as it is stored.
fn record(event: &Event, seq: u64, at_ms: u64, reason: &str) -> Record {
    Record {
        seq,
        at_ms,
        by: "alice".into(),
        reason: reason.into(),
        about: event.about(),
        kind: event.kind().into(),
        schema: crate::core::EVENT_SCHEMA,
        payload: serde_json::to_value(event).expect("JSON"),
    }
}

fn weight(number: u32, share: &str) -> Event {
    Event::ShareSet { stage: stage(), release: release(number), share: share.parse().expect("a share") }
}

fn rolled_back() -> Event {
    let why = Why::CheckFailed { check: "smoke".into(), problem: "it answered 503".into() };
    let (from, to) = (release(2), release(1));
    Event::RolledBack { stage: stage(), from, to, warm_until_ms: 0, bad: true, why: Some(Box::new(why)) }
}

fn gathered(who: &Operator, asked: Asked, page: &[Record]) -> (Vec<Annotation>, bool) {
    let mut gathered = Gathered { who, asked, looked_at: 0, found: Vec::new() };
    let over = gathered.take(page).is_break();
    (gathered.found, over)
}

const ALWAYS: Asked = Asked { from_ms: 0, to_ms: u64::MAX, stage: None };

#[test]
fn annotations_say_what_became_of_which_release_who_and_why() {
    let (stage, release) = (stage(), release(2));
    let proxy = "p1".parse().expect("a name");
    for (event, reason, title, text, tags) in [
        (
            rolled_back(),
            "",
            "hello/production r2 was rolled back to r1",
            "hello/production was rolled back from r2 to r1: the check smoke failed: it answered 503\nby alice",
            "r2 rolled_back",
        ),
        (
            weight(2, "12.5%"),
            "all is calm",
            "hello/production r2 gets 12.5%",
            "r2 gets 12.5% of hello/production\nby alice: all is calm",
            "r2 share_set",
        ),
        (
            Event::StepTaken {
                stage: stage.clone(),
                release,
                rollout: 1,
                step: 1,
                of: 3,
                share: Share::ALL,
                earned: None,
            },
            "",
            "hello/production r2 takes step 2 of 3",
            "r2 takes step 2 of 3 in hello/production with 100%: somebody skipped the rest\nby alice",
            "r2 step_taken",
        ),
        (
            Event::OverrideTold { proxy, stage: stage.clone(), release: None, until_ms: 0 },
            "",
            "hello/production is no longer overridden on p1",
            "the override of hello/production on p1 ended\nby alice",
            "override_told",
        ),
    ] {
        let who = operator(Scope::admin());
        let (found, _) = gathered(&who, ALWAYS, &[record(&event, 1, 7, reason)]);
        let tags = format!("pointsman hello production rollout {tags}");
        let tags = tags.split(' ').map(str::to_owned).collect();
        assert_eq!(found, [Annotation { time: 7, title: title.into(), text: text.into(), tags }]);
    }
    let moves_nothing = Event::Retired { stage, release };
    assert_eq!(gathered(&operator(Scope::admin()), ALWAYS, &[record(&moves_nothing, 1, 7, "")]).0, []);
}

#[test]
fn annotations_are_those_of_the_time_and_the_stage_that_may_be_seen() {
    let page: Vec<_> = (1..=5).map(|seq| record(&weight(2, "1%"), seq, seq * 10, "")).collect();
    let all = Scope::admin();
    let reads = |service: &str| Scope {
        verbs: vec![Verb::Read],
        services: vec![service.parse().expect("a name")],
        environments: Vec::new(),
    };
    let (here, elsewhere) = (Some(stage()), Some("hello/staging".parse().expect("a stage")));
    for (scope, from_ms, to_ms, stage, times, over) in [
        (&all, 0, 100, None, &[50, 40, 30, 20, 10][..], false),
        (&all, 20, 40, None, &[40, 30, 20], true),
        (&all, 21, 39, None, &[30], true),
        (&all, 31, 39, None, &[], true),
        (&all, 0, 9, None, &[], false),
        (&all, 51, 100, None, &[], true),
        (&all, 40, 100, here, &[50, 40], true),
        (&all, 0, 100, elsewhere, &[], false),
        (&reads("hello"), 0, 100, None, &[50, 40, 30, 20, 10], false),
        (&reads("other"), 0, 100, None, &[], false),
    ] {
        let asked = Asked { from_ms, to_ms, stage };
        let (found, ended) = gathered(&operator(scope.clone()), asked.clone(), &page);
        let found: Vec<_> = found.iter().map(|annotation| annotation.time).collect();
        assert_eq!((&found[..], ended), (times, over), "{asked:?}");
    }
}

#[test]
fn annotations_end_at_so_many_and_so_many_events() {
    let who = operator(Scope::admin());
    let page: Vec<_> = (1..=MOST as u64 + 5).map(|seq| record(&weight(2, "1%"), seq, seq, "")).collect();
    let (found, over) = gathered(&who, ALWAYS, &page);
    assert_eq!((found.len(), over), (MOST, true));
    assert_eq!((found[0].time, found[MOST - 1].time), (MOST as u64 + 5, 6), "the newest are kept");

    let mut gathered = Gathered { who: &who, asked: ALWAYS, looked_at: LOOKED_AT - 1, found: Vec::new() };
    assert!(gathered.take(&page).is_break());
    assert_eq!(gathered.found.len(), 1);
}

#[test]
fn annotations_parameters_have_defaults_and_forms() {
    let (now, day) = (1_785_062_400_000, 86_400_000);
    let asked = |from_ms, to_ms, stage: Option<&str>| {
        Ok(Asked { from_ms, to_ms, stage: stage.map(|stage| stage.parse().expect("a stage")) })
    };
    for (query, expected) in [
        ("", asked(now - day, now, None)),
        ("to=", asked(now - day, now, None)),
        ("from=5", asked(5, now, None)),
        ("to=99", asked(0, 99, None)),
        ("from=99&to=99", asked(99, 99, None)),
        ("stage=hello%2Fproduction", asked(now - day, now, Some("hello/production"))),
    ] {
        assert_eq!(Asked::read(query, now), expected, "{query}");
    }
    let told = Asked::read("from=yesterday&to=-1&stage=hello&since=1&to=7", now).expect_err("wrong");
    for (told, expected) in told.iter().zip([
        "\"since\" is no parameter: accepted are from, to, stage",
        "to is given twice",
        "from: \"yesterday\" is no time: accepted are milliseconds since 1970 (UTC), such as 1785062400000",
        "to: \"-1\" is no time: ",
        "stage: \"hello\" is not a stage",
    ]) {
        assert!(told.starts_with(expected), "{told} is not {expected}");
    }
    assert_eq!(told.len(), 5, "{told:?}");
    let backwards = Asked::read("from=8&to=7", now).expect_err("wrong");
    assert_eq!(backwards, ["from: 8 is after to (7): accepted is a time before it"]);
}

#[tokio::test]
async fn annotations_are_looked_for_from_the_end_of_their_time() {
    let world = World::new().await;
    for number in 1..=20 {
        world.carries_out(token(&format!("t{number}"))).await;
    }
    let times = world.engine.read(|engine| engine.store.read(1, usize::MAX)).await.expect("open").expect("read");
    let until = |to_ms: u64| {
        let engine = world.engine.clone();
        async move { engine.read(move |engine| last_until(&engine.store, to_ms)).await.expect("open").expect("read") }
    };
    for record in &times {
        let last = times.iter().rfind(|other| other.at_ms <= record.at_ms).expect("itself").seq;
        assert_eq!(until(record.at_ms).await, last);
        let before = times.iter().rfind(|other| other.at_ms < record.at_ms).map_or(0, |other| other.seq);
        assert_eq!(until(record.at_ms - 1).await, before);
    }
    assert_eq!((until(0).await, until(u64::MAX).await), (0, times.len() as u64));
    assert_eq!(gather(&world.engine, &operator(Scope::admin()), ALWAYS).await.expect("read"), []);
}
