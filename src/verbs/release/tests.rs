//! What programs read with `-o json`: names and forms that scripts rely on.

use api::operator::*;
use serde::Serialize;
use serde_json::{Value, json};

fn check<T: Serialize>(message: &T, expected: &Value) {
    assert_eq!(&serde_json::to_value(message).expect("JSON"), expected);
}

fn commit() -> Commit {
    Commit { id: "0123".into(), subject: "one".into() }
}

fn release() -> Release {
    Release {
        service: "hello".into(),
        number: 42,
        state: "failed".into(),
        hot_fix: Some(HotFix { of: 41, base: "base".into(), branch: String::new(), picks: vec![commit()] }),
        overtook: vec![commit()],
        exit: Some(1),
        checks: vec![CheckDone { name: "fits".into(), verdict: "well".into(), passed: true, took_ms: 7 }],
        artifacts: vec![Artifact { component: "web".into(), kind: "image".into(), ..Artifact::default() }],
        transfer: Some(Transfer { what: "web".into(), done_bytes: 1, all_bytes: 2 }),
        configuration: vec![Setting { key: "build.timeout".into(), value: "15m".into() }],
        ..Release::default()
    }
}

#[test]
fn releases_have_one_form_for_programs() {
    check(
        &release(),
        &json!({
            "service": "hello", "number": 42, "version": "", "commit": "", "subject": "", "author": "", "state": "failed",
            "problem": "", "step": "", "exit": 1, "created_ms": 0, "begun_ms": 0, "built_ms": 0, "by": "", "reason": "",
            "trigger": "", "waits": "", "cancel_asked": false, "retry_of": 0, "kept_from": 0, "overtaken_by": 0,
            "hot_fix": { "of": 41, "base": "base", "branch": "", "picks": [{ "id": "0123", "subject": "one" }] },
            "overtook": [{ "id": "0123", "subject": "one" }], "overtook_more": 0,
            "checks": [{ "name": "fits", "verdict": "well", "passed": true, "took_ms": 7 }],
            "artifacts": [{ "component": "web", "environment": "", "kind": "image", "digest": "", "bytes": 0,
                            "reference": "", "addresses": [] }],
            "transfer": { "what": "web", "done_bytes": 1, "all_bytes": 2 },
            "configuration": [{ "key": "build.timeout", "value": "15m" }],
            "places": [], "urls": [], "happened": [], "trimmed": [], "not_reversible": null
        }),
    );
}

#[test]
fn releases_that_differ_have_one_form_for_programs() {
    let differ = ReleasesDiffer {
        added: vec![commit()],
        configuration: vec![SettingDiffers { key: "build.timeout".into(), from: None, to: Some("15m".into()) }],
        artifacts: vec![ArtifactDiffers { component: "web".into(), to: "sha256:aa".into(), ..Default::default() }],
        ..ReleasesDiffer::default()
    };
    check(
        &differ,
        &json!({
            "from": null, "to": null, "added": [{ "id": "0123", "subject": "one" }], "added_more": 0, "removed": [],
            "removed_more": 0, "commits_unknown": "",
            "configuration": [{ "key": "build.timeout", "from": null, "to": "15m" }],
            "artifacts": [{ "component": "web", "environment": "", "from": "", "to": "sha256:aa" }]
        }),
    );
}

#[test]
fn releases_that_were_verified_have_one_form_for_programs() {
    let checked = vec![Verified { what: "web".into(), problem: String::new() }];
    check(
        &ReleaseVerified { well: true, checked },
        &json!({ "well": true, "checked": [{ "what": "web", "problem": "" }] }),
    );
}

#[test]
fn stages_and_repositories_have_one_form_for_programs() {
    let releases =
        vec![ResolvedRelease { release: 42, role: "stable".into(), share_ppm: 1_000_000, ..Default::default() }];
    check(
        &StageResolved { stage: "hello/staging".into(), public: true, releases, ..StageResolved::default() },
        &json!({
            "stage": "hello/staging", "public": true, "hosts": [], "urls": [], "registered_by": "", "registered_commit": "",
            "releases": [{ "release": 42, "role": "stable", "share_ppm": 1_000_000, "host": "", "addresses": [] }]
        }),
    );
    let repositories = vec![Repository { name: "shop".into(), ..Repository::default() }];
    check(
        &Repositories { repositories },
        &json!({ "repositories": [{ "name": "shop", "url": "", "branch": "", "commit": "", "looked_at_ms": 0,
            "services": [], "problems": [], "webhook": "" }] }),
    );
}
