use std::time::Instant;

use api::fleet::{Resource, ResourceKey, ResourceSet};

use super::*;
use crate::snapshot::fixture::{self, full};

fn good() -> Vec<Resource> {
    vec![
        fixture::zone("staging", "staging.example.com"),
        fixture::stage("hello/staging", &[41, 42]),
        fixture::split("hello/staging", &[(41, 990_000), (42, 10_000)]),
        fixture::endpoints("hello/staging", 41, &["127.0.0.1:8041"]),
        fixture::endpoints("hello/staging", 42, &["127.0.0.1:8042", "[::1]:8042"]),
    ]
}

const V1: Version = Version { term: 1, number: 1 };

fn applied(resources: &[Resource]) -> Compiler {
    let mut compiler = Compiler::default();
    compiler.apply(full(V1, resources)).expect("good resources");
    compiler
}

/// The change that sets `upserts` on top of what `compiler` holds.
fn change(compiler: &Compiler, number: u64, upserts: &[Resource], removals: &[(&str, &str)]) -> Incoming {
    let set = ResourceSet {
        upserts: upserts.to_vec(),
        removals: removals
            .iter()
            .map(|(kind, name)| ResourceKey { kind: (*kind).into(), name: (*name).into() })
            .collect(),
    };
    let delta = Delta::read(set.clone()).expect("known kinds");
    let fingerprint = compiler.resources.fingerprint_after(&delta).to_bytes().to_vec();
    Incoming { version: Version { term: 1, number }, base: compiler.snapshot.version, set, fingerprint }
}

fn reasons(result: Result<Compiled, Vec<Rejection>>) -> Vec<String> {
    let list = result.expect_err("rejected");
    list.into_iter().map(|r| format!("{} | {} | {}", r.resource, r.field, r.reason)).collect()
}

#[test]
fn a_small_change_shares_everything_else() {
    let mut resources = good();
    resources.push(fixture::stage("other/staging", &[1]));
    let mut compiler = applied(&resources);
    let before = compiler.snapshot.clone();
    let next = change(&compiler, 2, &[fixture::split("hello/staging", &[(42, 1)])], &[]);
    let after = compiler.apply(next).expect("good").snapshot;
    let other = |snapshot: &Snapshot| snapshot.stage_named("other/staging").expect("there").clone();
    assert!(Arc::ptr_eq(&other(&before), &other(&after)));
    let hello = after.stage("staging.example.com", "hello").expect("there");
    assert_eq!(hello.weighted[..], [(1, 1)]);
    assert_eq!(before.stage_named("hello/staging").expect("there").weighted[..], [(990_000, 0), (10_000, 1)]);
    assert_eq!(after.version, Some(Version { term: 1, number: 2 }));
}

#[test]
fn slots_and_health_stay_and_the_split_starts_anew_only_when_weights_change() {
    let mut compiler = applied(&good());
    let before = compiler.snapshot.stage_named("hello/staging").expect("there").clone();
    before.backends[0].endpoints[0].health.record(Err("down".into()));
    // A warm release comes: no weight changes.
    let next = change(&compiler, 2, &[fixture::stage("hello/staging", &[40, 41, 42])], &[]);
    compiler.apply(next).expect("good");
    let after = compiler.snapshot.stage_named("hello/staging").expect("there").clone();
    assert_eq!((before.generation, before.slot), (after.generation, after.slot));
    assert_eq!(before.backends[0].slot, after.backends[1].slot);
    assert_eq!(after.weighted[..], [(990_000, 1), (10_000, 2)]);
    assert!(!after.backends[1].endpoints[0].health.is_healthy());
    let next = change(&compiler, 3, &[fixture::split("hello/staging", &[(41, 1), (42, 1)])], &[]);
    compiler.apply(next).expect("good");
    assert_ne!(compiler.snapshot.stage_named("hello/staging").expect("there").generation, after.generation);
}

#[test]
fn a_full_state_takes_away_what_it_does_not_hold() {
    let mut compiler = applied(&good());
    let rest = &good()[..3];
    compiler.apply(full(Version { term: 1, number: 5 }, rest)).expect("good");
    assert_eq!(compiler.resources.len(), 3);
    assert!(compiler.snapshot.stage_named("hello/staging").expect("there").backends[0].endpoints.is_empty());
    compiler.apply(full(Version { term: 2, number: 1 }, &[])).expect("good");
    assert!(compiler.snapshot.stage("staging.example.com", "hello").is_none());
    assert_eq!(compiler.resources.fingerprint(), Fingerprint::default());
}

#[test]
fn hostile_h80_every_problem_is_told_at_once_and_nothing_is_applied() {
    let mut compiler = applied(&good());
    let before = (compiler.snapshot.clone(), compiler.resources.fingerprint());
    let (key_der, zone, chain_der) = (vec![1], "UPPER".into(), vec![vec![]; 11]);
    let certificate = fleet::Certificate { key_der, zone, chain_der, dns_names: vec!["a".into(); 1_001] };
    let bad = [
        fixture::zone("staging", "UPPER.example.com"),
        fixture::stage("a--b/staging", &[1]),
        fixture::stage("twice/staging", &[1, 1]),
        fixture::stage("many/staging", &(1..=4_097).collect::<Vec<_>>()),
        fixture::split("hello/production", &(1..=65).map(|release| (release, 1)).collect::<Vec<_>>()),
        fixture::split("hello/staging", &[(43, 1)]),
        fixture::split("orphan/staging", &[(1, 1)]),
        fixture::split("zero/staging", &[(1, 0), (2, 0)]),
        fixture::split("heavy/staging", &[(1, 1_000_001)]),
        fixture::endpoints("hello/staging", 41, &["localhost:80", "10.0.0.1:0"]),
        fixture::endpoints("hello", 41, &[]),
        Resource { kind: "stage".into(), name: "x/y".into(), body: vec![0xff; 9].into(), schema: 1 },
        fixture::resource("certificate", "*.example.com", &certificate),
        fixture::resource("certificate", "sealed.example.com", &fleet::Certificate::default()),
    ];
    let told = reasons(compiler.apply(change(&compiler, 2, &bad, &[])));
    for expected in [
        "zone UPPER.example.com | domain |",
        "stage a--b/staging | name |",
        "stage twice/staging | backends[1].release |",
        "stage many/staging | backends | there are 4097",
        "split hello/production | weights | 65 are above 0",
        "split hello/staging | weights[0].release | r43 is no backend",
        "split orphan/staging | name | there is no stage",
        "split zero/staging | weights | all are 0",
        "split heavy/staging | weights[0].weight | 1000001",
        "endpoints hello/staging/r41 | endpoints[0].address | \"localhost:80\"",
        "endpoints hello/staging/r41 | endpoints[1].address |",
        "endpoints hello/r41 | name |",
        "stage x/y | body |",
        "certificate *.example.com | dns_names | the first is not",
        "certificate *.example.com | dns_names | there are 1001",
        "certificate *.example.com | chain_der | there are 11",
        "certificate *.example.com | zone |",
        "certificate *.example.com | key_der |",
        "certificate sealed.example.com | chain_der[0] |",
    ] {
        assert!(told.iter().any(|line| line.starts_with(expected)), "{expected} in {told:#?}");
    }
    assert!(Arc::ptr_eq(&before.0, &compiler.snapshot));
    assert_eq!(before.1, compiler.resources.fingerprint());
}

#[test]
fn hostile_h80_unknown_kinds_and_later_schemas_are_refused_whole() {
    let mut compiler = applied(&good());
    let unknown = fixture::resource("later", "p", &fleet::Split::default());
    let later = Resource { schema: api::RESOURCE_SCHEMA + 1, ..fixture::split("hello/staging", &[(41, 1)]) };
    let set = ResourceSet { upserts: vec![unknown, later], removals: vec![] };
    let incoming = Incoming { version: V1.next(), base: Some(V1), set, fingerprint: vec![0; 32] };
    let told = reasons(compiler.apply(incoming));
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("later p | kind") && told[1].contains("split hello/staging | schema"), "{told:#?}");
}

#[test]
fn hostile_h80_order_and_fingerprint_are_checked() {
    let mut compiler = applied(&good());
    let split = [fixture::split("hello/staging", &[(41, 1)])];
    let fresh = change(&compiler, 2, &split, &[]);
    let at = |term, number| Version { term, number };
    for (version, base, field) in [
        (at(1, 1), Some(V1), "version"),
        (at(0, 9), Some(V1), "version"),
        (at(1, 3), Some(at(1, 2)), "version"),
        (at(2, 1), Some(at(2, 0)), "version"),
        (at(0, 9), None, "version"),
        (at(0, 0), None, "version"),
    ] {
        let incoming = Incoming { version, base, set: fresh.set.clone(), fingerprint: fresh.fingerprint.clone() };
        let told = reasons(compiler.apply(incoming));
        assert!(told[0].starts_with(&format!(" | {field} |")), "{version} on {base:?}: {told:#?}");
    }
    let mut wrong = fresh.fingerprint.clone();
    wrong[7] ^= 1;
    for fingerprint in [wrong, Vec::new()] {
        let incoming = Incoming { version: V1.next(), base: Some(V1), set: fresh.set.clone(), fingerprint };
        assert!(reasons(compiler.apply(incoming))[0].starts_with(" | fingerprint |"));
    }
    assert!(compiler.apply(fresh).is_ok(), "the right one is still taken");
}

#[test]
fn override_takes_the_whole_stage_on_top_of_every_snapshot() {
    let mut compiler = applied(&good());
    let weighted =
        |compiler: &Compiler| compiler.snapshot.stage_named("hello/staging").expect("there").weighted.to_vec();
    compiler.set_override("hello/staging", Some(41));
    assert_eq!(weighted(&compiler), [(1, 0)]);
    let next = change(&compiler, 2, &[fixture::split("hello/staging", &[(42, 7)])], &[]);
    compiler.apply(next).expect("good");
    assert_eq!(weighted(&compiler), [(1, 0)]);
    // The release goes: the weights count again.
    let gone = [fixture::stage("hello/staging", &[42])];
    let next = change(&compiler, 3, &gone, &[("endpoints", "hello/staging/r41")]);
    compiler.apply(next).expect("good");
    assert_eq!(weighted(&compiler), [(7, 0)]);
    compiler.set_override("hello/staging", None);
    assert_eq!(weighted(&compiler), [(7, 0)]);
}

#[test]
fn one_change_among_five_thousand_stages_recompiles_one() {
    let mut resources = vec![fixture::zone("staging", "staging.example.com")];
    for n in 0..5_000 {
        let name = format!("s{n}/staging");
        resources.push(fixture::stage(&name, &[1, 2]));
        resources.push(fixture::split(&name, &[(1, 1)]));
        resources.push(fixture::endpoints(&name, 1, &["127.0.0.1:8041"]));
    }
    let start = Instant::now();
    let mut compiler = applied(&resources);
    let full = start.elapsed();
    let before = compiler.snapshot.clone();
    let next = change(&compiler, 2, &[fixture::split("s77/staging", &[(2, 1)])], &[]);
    let start = Instant::now();
    compiler.apply(next).expect("good");
    println!("5,000 stages: full {full:?}, one change {:?}", start.elapsed());
    let same = before
        .stages()
        .filter(|stage| compiler.snapshot.stage_named(&stage.text).is_some_and(|after| Arc::ptr_eq(stage, after)));
    assert_eq!(same.count(), 4_999);
}

#[test]
fn a_stage_with_many_warm_releases_and_a_slow_check_is_taken() {
    let releases: Vec<u32> = (1..=1_000).collect();
    let mut split: Vec<(u32, u32)> = releases.iter().map(|release| (*release, 0)).collect();
    split[999].1 = 1;
    let check = fleet::HealthCheck { every_ms: u32::MAX, timeout_ms: u32::MAX, ..fleet::HealthCheck::default() };
    let backend = |release: u32| fleet::Backend {
        release,
        protocol: fleet::Protocol::H1.into(),
        health: Some(check.clone()),
        ..fleet::Backend::default()
    };
    let backends = releases.iter().map(|release| backend(*release)).collect();
    let stage =
        fleet::Stage { service: "many".into(), environment: "staging".into(), backends, ..fleet::Stage::default() };
    let resources = [
        fixture::resource("stage", "many/staging", &stage),
        fixture::split("many/staging", &split),
        fixture::endpoints("many/staging", 1_000, &["127.0.0.1:8041"]),
    ];
    let snapshot = applied(&resources).snapshot;
    let stage = snapshot.stage_named("many/staging").expect("there");
    assert_eq!((stage.backends.len(), stage.weighted.to_vec()), (1_000, vec![(1, 999)]));
    let check = &stage.backends[999].endpoints[0].health.check;
    assert_eq!((check.every.as_secs(), check.timeout.as_secs()), (3_600, 10));
}

#[test]
fn places_of_what_is_gone_are_given_again() {
    let mut compiler = applied(&good());
    let slots = |compiler: &Compiler| -> Vec<u32> {
        let stage = compiler.snapshot.stage_named("hello/staging").expect("there");
        stage.backends.iter().map(|backend| backend.slot).collect()
    };
    for number in 2..200 {
        // The older release goes and a new one comes, beside a change that is refused and a stage that goes again.
        let (old, new) = (number as u32 + 40, number as u32 + 41);
        let bad = [fixture::stage("hello/staging", &[7, 8, 9]), fixture::split("hello/staging", &[(1, 1)])];
        let bad = change(&compiler, 10 * number, &bad, &[]);
        assert!(compiler.apply(bad).is_err());
        let releases = [fixture::stage("hello/staging", &[old, new]), fixture::split("hello/staging", &[(new, 1)])];
        let next = change(&compiler, 10 * number, &releases, &[]);
        compiler.apply(next).expect("good");
        let kept = slots(&compiler)[0];
        let next = change(&compiler, 10 * number + 1, &[fixture::stage("other/staging", &[1])], &[]);
        let other = compiler.apply(next).expect("good").snapshot.stage_named("other/staging").expect("there").slot;
        let next = change(&compiler, 10 * number + 2, &[], &[("stage", "other/staging")]);
        compiler.apply(next).expect("good");
        assert_eq!(slots(&compiler)[0], kept, "who stays keeps its place");
        assert!(slots(&compiler).iter().all(|slot| *slot < 8) && other < 2, "{:?} {other}", slots(&compiler));
    }
}
