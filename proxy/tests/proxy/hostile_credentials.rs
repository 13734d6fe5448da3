//! Credentials that are none, through a real listener: one answer for all of them, and a reason of its own in the log.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use api::fleet::Protocol;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policies::credential::api_key;
use proxy::LogTarget;

use crate::gates::{Gates, HELLO};
use crate::recorder::Recorder;
use crate::support::{raw, settings, until};
use crate::wire::Wire;

/// Gates with a log.
async fn logging(folder: &std::path::Path, upstream: &Recorder) -> Gates {
    let log = LogTarget::File(folder.join("access.log"));
    let settings = proxy::Settings { access_log: Some(log), ..settings(&folder.join("data"), 1) };
    Gates::start(settings, upstream.address, Protocol::H1).await
}

/// The answer to a request with these fields, without its id.
async fn answer(gates: &Gates, fields: &str) -> String {
    let request = format!("GET /x HTTP/1.1\r\nHost: {HELLO}\r\n{fields}Connection: close\r\n\r\n");
    let said = raw(gates.proxy.http, request.as_bytes()).await;
    let (before, behind) = said.split_once("x-request-id: ").unwrap_or_else(|| panic!("no id: {said}"));
    format!("{before}{}", &behind[32..])
}

/// Why credentials were refused, line by line.
fn reasons(folder: &std::path::Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("access.log")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    lines.filter_map(|line| Some(line[name].as_str()?.to_owned())).collect()
}

/// A token of these parts, signed by nobody.
fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode([1; 64]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h44_tokens_that_are_none_get_one_answer_and_a_reason_each() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let gates = logging(folder.path(), &upstream).await;
    gates.serves_staff().await;
    let good = gates.staff();
    let claims = {
        let part = good.split('.').nth(1).expect("claims");
        String::from_utf8(URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("text")
    };
    let signed = |claims: serde_json::Value| gates.issuer.signs(None, claims);
    let far = 4_000_000_000_u64;
    let tokens = [
        unsigned(r#"{"alg":"none"}"#, &claims),
        unsigned(r#"{"alg":"HS256","kid":"first"}"#, &claims),
        unsigned(r#"{"alg":"ES256","kid":"first","crit":["x"]}"#, &claims),
        unsigned(r#"{"alg":"ES256","kid":"first","b64":false}"#, &claims),
        unsigned(r#"{"alg":"ES256","kid":"first","jku":"https://evil.example"}"#, &claims),
        unsigned(r#"{"alg":"RS256","kid":"first"}"#, &claims),
        unsigned(r#"{"alg":"ES256","kid":"first"}"#, &claims),
        good.rsplit_once('.').expect("three parts").0.to_owned(),
        "x".repeat(17 * 1024),
        signed(serde_json::json!({ "sub": "alice", "exp": "4000000000" })),
        signed(serde_json::json!({ "sub": "alice" })),
        signed(serde_json::json!({ "sub": "alice", "exp": far })),
        signed(serde_json::json!({ "sub": "alice", "exp": 1 })),
        signed(serde_json::json!({ "sub": "alice", "exp": far, "aud": "other" })),
        signed(serde_json::json!({ "sub": "alice", "exp": far, "iss": "https://evil.example" })),
        gates.issuer.signs(Some("../../etc/passwd"), serde_json::json!({ "sub": "alice", "exp": far })),
    ];
    let expected = answer(&gates, &format!("x-api-key: {}\r\n", gates.key.text)).await;
    assert!(expected.starts_with("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\n"), "{expected}");
    for token in &tokens {
        let shown = &token[..token.len().min(80)];
        assert_eq!(answer(&gates, &gates.fields(token)).await, expected, "{shown}");
    }
    let given = || reasons(folder.path(), "user_refused");
    until("all are in the log", || given().len() >= tokens.len()).await;
    let distinct: HashSet<String> = given().into_iter().collect();
    assert_eq!(distinct.len(), tokens.len(), "each has its own: {distinct:#?}");
    assert_eq!(upstream.count("GET /x"), 0, "none reached the upstream");
    gates.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h45_ten_thousand_unknown_keys_cost_one_fetch_and_harm_nobody() {
    const CLIENTS: usize = 4;
    const EACH: usize = 2_500;
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let begun = std::time::Instant::now();
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H1).await;
    gates.serves_staff().await;
    let mut floods = Vec::new();
    for client in 0..CLIENTS {
        let mut wire = Wire::connect(gates.proxy.http).await;
        let token = |n: usize| {
            let kid = format!("kid-{client}-{n}");
            let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
            let good = gates.issuer.token("eve", &["staff"], 600);
            let (_, rest) = good.split_once('.').expect("three parts");
            format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
        };
        let tokens: Vec<String> = (0..EACH).map(token).collect();
        let key = gates.key.text.clone();
        floods.push(tokio::spawn(async move {
            for token in tokens {
                let fields = format!("x-api-key: {key}\r\nauthorization: Bearer {token}\r\n");
                wire.send(format!("GET /flood HTTP/1.1\r\nHost: {HELLO}\r\n{fields}\r\n")).await;
                assert_eq!(wire.answer().await.expect("answered").status, 401);
            }
        }));
    }
    let mut served = 0;
    while !floods.iter().all(|flood| flood.is_finished()) {
        gates.serves_staff().await;
        served += 1;
    }
    for flood in floods {
        flood.await.expect("each was answered");
    }
    assert!(served > 0);
    // The first fetch of all, and the one that the first unknown key asked for: be it here, or while the first keys were on
    // their way. Nobody else may for 30 s, and a slow machine takes longer than that.
    let (asked, took) = (gates.issuer.asked.load(Relaxed), begun.elapsed().as_secs());
    assert!((2..=2 + took / 30).contains(&asked), "{asked} fetches in {took} s");
    gates.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h45_a_rotated_key_works_with_the_first_request() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H1).await;
    gates.serves_staff().await;
    gates.issuer.rotate("second");
    gates.serves_staff().await;
    gates.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h46_keys_that_are_none_get_one_answer() {
    let (folder, upstream) = (tempfile::tempdir().expect("folder"), Recorder::ok().await);
    let gates = logging(folder.path(), &upstream).await;
    gates.serves_staff().await;
    let (good, staff) = (gates.key.text.clone(), gates.staff());
    let token = format!("authorization: Bearer {staff}\r\n");
    let expected = answer(&gates, &token).await;
    assert!(expected.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{expected}");
    let mut wrong = vec![
        "pm_".to_owned(),
        good[..12].to_owned(),
        good[..60].to_owned(),
        format!("{good}x"),
        format!("{good}, {good}"),
        good.to_uppercase(),
        api_key::draw(&[8; 40]).text,
        "x".repeat(20_000),
    ];
    // One letter is another, wherever it stands.
    for place in 0..good.len() {
        let mut near = good.clone().into_bytes();
        near[place] = if near[place] == b'a' { b'b' } else { b'a' };
        wrong.push(String::from_utf8(near).expect("text"));
    }
    for key in &wrong {
        let shown = &key[..key.len().min(80)];
        assert_eq!(answer(&gates, &format!("x-api-key: {key}\r\n{token}")).await, expected, "{shown}");
    }
    let twice = format!("x-api-key: {good}\r\nx-api-key: {good}\r\n{token}");
    assert_eq!(answer(&gates, &twice).await, expected, "twice");
    let megabyte = format!("GET / HTTP/1.1\r\nHost: {HELLO}\r\nx-api-key: {}\r\n\r\n", "x".repeat(1_000_000));
    let said = raw(gates.proxy.http, megabyte.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    let given = || reasons(folder.path(), "application_refused");
    until("all are in the log", || given().len() > wrong.len()).await;
    let distinct: HashSet<String> = given().into_iter().collect();
    assert!(distinct.len() >= 4, "shape, length, checksum, unknown: {distinct:#?}");
    assert_eq!(upstream.count("GET /x"), 0, "none reached the upstream");
    gates.is_as_before().await;
}
