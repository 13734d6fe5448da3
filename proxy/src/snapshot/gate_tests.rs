use std::sync::Arc;

use api::Version;
use api::fleet::{self, Resource, StageAccess};
use policies::credential::assertion::Key;
use prost::Message;

use super::Gate;
use crate::snapshot::fixture::{self, full};
use crate::snapshot::{Compiler, Incoming};

const V1: Version = Version { term: 1, number: 1 };

const TEXT: &str = r#"permit (principal, action, resource == Stage::"hello/staging");"#;

fn guarded(access: StageAccess) -> Resource {
    let open = fixture::stage("hello/staging", &[1, 2]);
    let body = fleet::Stage { access: Some(access), ..fleet::Stage::decode(&*open.body).expect("a stage") };
    fixture::resource("stage", "hello/staging", &body)
}

fn policy(name: &str, text: &str) -> Resource {
    fixture::resource("policy", name, &fleet::Policy { text: text.into() })
}

fn issuer(name: &str, change: impl FnOnce(&mut fleet::Issuer)) -> Resource {
    let mut body = fleet::Issuer {
        issuer: "https://login.example.com".into(),
        audiences: vec!["pointsman".into()],
        refresh_ms: 300_000,
        ..fleet::Issuer::default()
    };
    change(&mut body);
    fixture::resource("issuer", name, &body)
}

fn application(name: &str, sha256: Vec<u8>) -> Resource {
    let keys = vec![fleet::ApiKey { sha256, until_ms: 0 }];
    fixture::resource("application", name, &fleet::Application { keys, ..fleet::Application::default() })
}

fn good() -> Vec<Resource> {
    vec![
        fixture::zone("staging", "staging.example.com"),
        guarded(StageAccess::default()),
        fixture::split("hello/staging", &[(1, 1), (2, 1)]),
        policy("staff.cedar", TEXT),
        issuer("corp", |_| {}),
        application("batch", vec![1; 32]),
    ]
}

fn gate(compiler: &Compiler) -> Arc<Gate> {
    compiler.snapshot().access.clone()
}

/// All that is wrong, as "resource | field".
fn refused(resource: Resource) -> Vec<String> {
    let mut all: Vec<Resource> = good();
    all.retain(|one| (&one.kind, &one.name) != (&resource.kind, &resource.name));
    all.push(resource);
    let mut compiler = Compiler::default();
    let rejections = compiler.apply(full(V1, &all)).expect_err("it is refused");
    assert!(compiler.snapshot().version.is_none() && compiler.snapshot().access.generation == 0, "refused whole");
    rejections.into_iter().map(|one| format!("{} | {}", one.resource, one.field)).collect()
}

#[test]
fn hostile_h80_what_says_who_may_pass_is_refused_with_its_place() {
    let key = Key::draw();
    let asserting = |issuer: &str, current: &str, id: &str, public: Vec<u8>| {
        let keys = vec![fleet::AssertionKey { id: id.into(), public }];
        let body = fleet::Assertion { issuer: issuer.into(), current: current.into(), keys };
        fixture::resource("assertion", "assertion", &body)
    };
    let text = |field: &str, text: &str| vec![format!("{field} | {text}")];
    for (resource, expected) in [
        (
            policy("bad.cedar", "permit (principal, action, resource)\nwhen { nobody };"),
            text("policy bad.cedar", "line 2, column 8"),
        ),
        (policy("a b", ""), text("policy a b", "name")),
        (issuer("corp", |one| one.issuer = "ftp://x".into()), text("issuer corp", "")),
        (issuer("a/b", |_| {}), text("issuer a/b", "name")),
        (issuer("corp", |one| one.jwks_url = "http://example.com/keys".into()), text("issuer corp", "jwks_url")),
        (application("batch", vec![1; 31]), text("application batch", "")),
        (
            fixture::resource("entities", "entities", &fleet::Entities { json: "{".into() }),
            text("entities entities", ""),
        ),
        (
            fixture::resource("entities", "other", &fleet::Entities { json: "[]".into() }),
            text("entities other", "name"),
        ),
        (asserting("x", "one", "one", key.public.clone()), text("assertion assertion", "current")),
        (asserting("x", "two", "one", key.public.clone()), text("assertion assertion", "current")),
        (asserting("", "one", "one", key.public.clone()), text("assertion assertion", "issuer")),
        (asserting("x", "one", "one", vec![4; 64]), text("assertion assertion", "keys[0].public")),
        (asserting("x", "a/b", "a/b", key.public), text("assertion assertion", "keys[0].id")),
        (
            fixture::resource("explain", "explain", &fleet::Explain { current: vec![1; 7] }),
            text("explain explain", "current"),
        ),
        (
            fixture::resource("explain", "explain", &fleet::Explain { current: vec![1; 8] }),
            text("explain explain", "current"),
        ),
        (fixture::resource("explain", "other", &fleet::Explain { current: vec![1; 8] }), text("explain other", "name")),
        (Resource { body: vec![0xff].into(), ..policy("staff.cedar", "") }, text("policy staff.cedar", "body")),
        (Resource { body: vec![0xff].into(), ..issuer("corp", |_| {}) }, text("issuer corp", "body")),
        (Resource { body: vec![0xff].into(), ..application("batch", vec![]) }, text("application batch", "body")),
    ] {
        let told = refused(resource.clone());
        for one in &expected {
            assert!(
                told.iter().any(|told| told.starts_with(one.trim_end())),
                "{} {}: {told:#?}",
                resource.kind,
                resource.name
            );
        }
    }
    let attribute = |name: &str, kind: fleet::claim_attribute::Type| {
        issuer(name, |one| {
            one.issuer = format!("https://{name}.example.com");
            let (attribute, claim) = ("level".to_owned(), "level".to_owned());
            one.attributes = vec![fleet::ClaimAttribute { attribute, claim, r#type: kind.into() }];
        })
    };
    let two =
        [attribute("a", fleet::claim_attribute::Type::Long), attribute("b", fleet::claim_attribute::Type::String)];
    let told = Compiler::default().apply(full(V1, &[good(), two.to_vec()].concat())).expect_err("of two types");
    assert!(told.iter().any(|one| one.resource == "issuer b" && one.reason.contains("another type")), "{told:?}");
}

#[test]
fn a_change_of_weights_leaves_who_may_pass_as_it_is_and_another_does_not() {
    let mut compiler = Compiler::default();
    compiler.apply(full(V1, &good())).expect("good");
    let mut version = V1;
    let mut apply = |compiler: &mut Compiler, changed: Resource| {
        let before = gate(compiler);
        let base = Some(version);
        version = version.next();
        let set = fleet::ResourceSet { upserts: vec![changed], removals: vec![] };
        let delta = crate::snapshot::Delta::read(set.clone()).expect("a set");
        let fingerprint = compiler.resources().fingerprint_after(&delta).to_bytes().to_vec();
        compiler.apply(Incoming { version, base, set, fingerprint }).expect("good");
        (gate(compiler).generation - before.generation, Arc::ptr_eq(&before, &gate(compiler)))
    };
    assert_eq!(apply(&mut compiler, fixture::split("hello/staging", &[(1, 1), (2, 3)])), (0, true), "weights");
    assert_eq!(apply(&mut compiler, fixture::endpoints("hello/staging", 1, &["127.0.0.1:81"])), (0, true), "endpoints");
    assert_eq!(apply(&mut compiler, fixture::zone("staging", "s.example.com")), (0, true), "a zone");
    assert_eq!(apply(&mut compiler, guarded(StageAccess::default())), (0, true), "a stage as it was");
    for changed in [
        guarded(StageAccess { public: true, ..StageAccess::default() }),
        guarded(StageAccess { needs_user: true, ..StageAccess::default() }),
        fixture::stage("other/staging", &[1]),
        policy("staff.cedar", ""),
        policy("more.cedar", TEXT),
        fixture::resource("entities", "entities", &fleet::Entities { json: "[]".into() }),
        issuer("corp", |one| one.leeway_ms = 1_000),
        application("other", vec![2; 32]),
    ] {
        let shown = format!("{} {}", changed.kind, changed.name);
        assert_eq!(apply(&mut compiler, changed), (1, false), "{shown}");
    }
    let before = gate(&compiler);
    compiler.set_override("hello/staging", Some(1));
    assert!(Arc::ptr_eq(&before, &gate(&compiler)), "an override is one of weights");
}

#[test]
fn stages_of_before_there_were_policies_are_open_and_guard_nothing() {
    let open =
        fixture::snapshot(&[fixture::zone("staging", "staging.example.com"), fixture::stage("hello/staging", &[1])]);
    assert!(!open.access.guards && open.access.knows_nobody);
    let mut compiler = Compiler::default();
    compiler.apply(full(V1, &good())).expect("good");
    assert!(gate(&compiler).guards && !gate(&compiler).knows_nobody);
}
