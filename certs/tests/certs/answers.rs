//! Servers that refuse, fail or say what they should not: told in words, never followed, never a panic.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use pointsman_certs::acme::{Account, AcmeError, Method, Side};
use serde_json::{Value, json};

use crate::front::{Asked, Front, edit, replace};
use crate::pebble::{Pebble, Temper};

type Change = fn(&Asked, &mut Response<Bytes>);

/// Changes an answer about an authorization, or about an order.
fn when(answer: &mut Response<Bytes>, is: &str, change: impl FnOnce(&mut Value)) {
    edit(answer, |value| {
        if !value[is].is_null() {
            change(value);
        }
    });
}

fn wrong_tokens(authorization: &mut Value) {
    for challenge in authorization["challenges"].as_array_mut().expect("a list") {
        challenge["token"] = "../../x".into();
    }
}

/// Opens an account, orders, and gives the error that there has to be.
async fn fails(pebble: &Pebble, what: &str, change: Change) -> AcmeError {
    let front = Front::start(pebble, change).await;
    let folder = tempfile::tempdir().expect("folder");
    let account = match Account::open(folder.path(), &front.settings(pebble)).await {
        Ok(account) => account,
        Err(error) => return error,
    };
    let names = ["hello.example.com".to_owned()];
    match account.issue(&names, Method::Dns01, &pebble.good_hook(), None).await {
        Ok(_) => panic!("issued, in spite of {what}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn pebble_refusals_say_whose_side_and_when_to_come_back() {
    let limited: Change = |asked, answer| {
        if asked.path == "/order-plz" {
            let problem =
                r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\nsince \u001b[2J"}"#;
            replace(answer, 429, Some("3600"), problem);
        }
    };
    let rejected: Change = |asked, answer| {
        if asked.path == "/order-plz" {
            let problem = json!({
                "type": "urn:ietf:params:acme:error:rejectedIdentifier",
                "detail": "no",
                "subproblems": [{ "detail": "forbidden", "identifier": { "type": "dns", "value": "hello.example.com" } }],
            });
            replace(answer, 403, None, problem.to_string());
        }
    };
    let refusing: Change = |asked, answer| {
        if asked.path == "/sign-me-up" {
            replace(answer, 400, None, r#"{"type": "urn:ietf:params:acme:error:badNonce", "detail": "stale"}"#);
        }
    };
    let unasked: Change = |asked, answer| {
        if asked.path.starts_with("/chalZ/") {
            replace(answer, 403, None, r#"{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "not yours"}"#);
        }
    };
    let already: Change = |asked, answer| {
        if asked.path.starts_with("/chalZ/") {
            edit(answer, |value| value["error"] = json!({ "detail": "seen" }));
        }
    };
    let down: Change = |_, answer| replace(answer, 503, Some("Fri, 31 Dec 9999 23:59:59 GMT"), "<html>");
    let slow: Change = |_, answer| {
        if !answer.body().windows(8).any(|part| part == b"newNonce") {
            answer.headers_mut().insert("retry-after", "18446744073709551615".parse().expect("a value"));
            when(answer, "authorizations", |order| order["status"] = "pending".into());
        }
    };
    let pebble = Pebble::start(Temper { remembered_proofs: 0, ..Temper::default() });
    for (change, side, retry_after_s, text) in [
        (
            limited,
            Side::Theirs,
            Some(3_600),
            "refused to take an order: too many\\nsince \\u{1b}[2J (rateLimited); it asks",
        ),
        (rejected, Side::Name, None, "no; hello.example.com: forbidden (rejectedIdentifier)"),
        (refusing, Side::Theirs, None, "refused to make an account: stale (badNonce)"),
        (unasked, Side::Ours, None, "refused to look at a proof: not yours (unauthorized)"),
        (already, Side::Name, None, "did not find the proof of hello.example.com by dns-01: seen"),
        (down, Side::Theirs, Some(604_800), "it answered 503 Service Unavailable"),
        (slow, Side::Theirs, Some(604_800), "it took too long; it asks to come back"),
    ] {
        let error = fails(&pebble, text, change).await;
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.side(), side, "{error}");
        // A point in time may have been made of it.
        let near = |wait: Duration| wait.as_secs().next_multiple_of(60);
        assert_eq!(error.retry_after().map(near), retry_after_s, "{error}");
    }
    let verbs: Vec<_> = pebble.calls().into_iter().map(|[verb, ..]| verb).collect();
    assert_eq!(verbs, ["present", "cleanup"].repeat(3), "three came so far, and all is withdrawn");
}

#[tokio::test]
async fn hostile_acme_servers_are_told_and_not_followed() {
    let cases: [(Change, &str); 10] = [
        (|_, answer| edit(answer, |value| value["newNonce"] = "https://a b".into()), "\"https://a b\" is not a URL"),
        (|_, answer| edit(answer, |value| value["newOrder"] = "http://127.0.0.1/".into()), "is not an https URL"),
        (|_, answer| replace(answer, 200, None, "<html>"), "not JSON"),
        (|_, answer| replace(answer, 200, None, vec![b' '; 2 * 1024 * 1024]), "length limit exceeded"),
        (|_, answer| when(answer, "challenges", wrong_tokens), "its token for hello.example.com is not one"),
        (
            |_, answer| when(answer, "challenges", |value| value["identifier"]["value"] = "bank.example\n".into()),
            "it asks to prove bank.example\\n, which is not in the order",
        ),
        (
            |_, answer| when(answer, "authorizations", |value| value["authorizations"] = vec!["https://a/"; 3].into()),
            "more proofs than there are names",
        ),
        (
            |_, answer| when(answer, "authorizations", |value| value["authorizations"] = json!(["ftp://a/\u{1b}"])),
            "say what is to be proved: ",
        ),
        (
            |_, answer| when(answer, "challenges", |value| value["challenges"] = json!([])),
            "does not prove hello.example.com by dns-01, it offers none",
        ),
        (
            |_, answer| when(answer, "challenges", |value| value["status"] = "deactivated".into()),
            "the authorization of hello.example.com is Deactivated",
        ),
    ];
    let pebble = Pebble::start(Temper::default());
    for (change, expected) in cases {
        let error = fails(&pebble, expected, change).await;
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    assert!(pebble.calls().is_empty(), "nothing was shown: {:?}", pebble.calls());
}

#[tokio::test]
async fn pebble_a_certificate_that_is_not_what_was_ordered_is_refused() {
    let swapped: Change = |_, answer| {
        if answer.body().starts_with(b"-----BEGIN") {
            let other = rcgen::generate_simple_self_signed(["hello.example.com".to_owned()]).expect("made");
            replace(answer, 200, None, other.cert.pem());
        }
    };
    let pebble = Pebble::start(Temper::default());
    let error = fails(&pebble, "another certificate", swapped).await;
    assert!(matches!(error, AcmeError::Issued(_)), "{error}");
    let verbs: Vec<_> = pebble.calls().into_iter().map(|[verb, ..]| verb).collect();
    assert_eq!(verbs, ["present", "cleanup"], "withdrawn all the same");
}
