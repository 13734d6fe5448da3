//! Renewal information (RFC 9773) and profiles, which Debian's Pebble does not speak, through a front that adds them.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use pointsman_certs::acme::{Account, AcmeError, Method, Settings, Side, challenge_certificate, renewal, validity};
use serde_json::json;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::front::{Asked, Front, edit, replace};
use crate::pebble::{HTTP_PORT, Pebble, Temper};
use crate::response::Files;

/// Where Pebble takes orders.
const ORDERS: &str = "/order-plz";

fn names() -> Vec<String> {
    vec!["hello.example.com".to_owned()]
}

/// Adds what the directory lacks; the front's own address is in the URLs already.
fn extend(asked: &Asked, answer: &mut Response<Bytes>) {
    if asked.path == "/dir" {
        edit(answer, |directory| {
            let order = directory["newOrder"].as_str().expect("a URL").to_owned();
            directory["renewalInfo"] = order.replace(ORDERS, "/renewal").into();
            directory["meta"]["profiles"] = json!({ "shortlived": "six days", "classic": "ninety days" });
        });
    }
}

/// Says the same back, as a server has to that takes it in (RFC 9773 §5).
fn reflect(asked: &Asked, answer: &mut Response<Bytes>) {
    if asked.path == ORDERS && !asked.payload["replaces"].is_null() {
        edit(answer, |order| order["replaces"] = asked.payload["replaces"].clone());
    }
}

/// The name of a certificate in renewal information (RFC 9773 §4.1).
fn renewal_id(leaf_der: &[u8]) -> String {
    let (_, leaf) = X509Certificate::from_der(leaf_der).expect("a certificate");
    let key_identifier = leaf.extensions().iter().find(|one| one.oid.to_id_string() == "2.5.29.35").expect("an AKI");
    // SEQUENCE { [0] key identifier }: two heads of two bytes.
    let parts = [&key_identifier.value[4..], leaf.raw_serial()];
    parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}

#[tokio::test]
async fn pebble_an_order_says_what_it_replaces_and_its_profile() {
    let pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let front = Front::start(&pebble, |asked, answer| {
        extend(asked, answer);
        reflect(asked, answer);
    })
    .await;
    let settings = Settings { profile: Some("shortlived".into()), ..front.settings(&pebble) };
    let account = Account::open(&pebble.client(), &settings).await.expect("an account");
    let first = account.issue(&names(), Method::Http01, &files, None).await.expect("issued");
    let leaf = first.chain_der[0].as_slice();
    account.issue(&names(), Method::Http01, &files, Some(leaf)).await.expect("issued");
    let orders = front.seen(ORDERS);
    let asked: Vec<_> = orders.iter().map(|one| (&one.payload["replaces"], &one.payload["profile"])).collect();
    assert_eq!(asked, [(&json!(null), &json!("shortlived")), (&json!(renewal_id(leaf)), &json!("shortlived"))]);
}

#[tokio::test]
async fn pebble_an_order_is_made_without_what_the_server_does_not_take_as_replaced() {
    type Change = fn(&Asked, &mut Response<Bytes>);
    let directly: Change = |_, _| {};
    let silent: Change = extend;
    let refusing: Change = |asked, answer| {
        extend(asked, answer);
        if asked.path == ORDERS && !asked.payload["replaces"].is_null() && answer.status().is_success() {
            let problem = r#"{"type": "urn:ietf:params:acme:error:alreadyReplaced", "detail": "replaced"}"#;
            replace(answer, 409, None, problem);
        }
    };
    let pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let first = pebble.account().await.issue(&names(), Method::Http01, &files, None).await.expect("issued");
    for (what, change, orders) in [
        ("a server without renewal information", directly, 1),
        ("one that does not take it in", silent, 2),
        ("one that refuses", refusing, 1),
    ] {
        let front = Front::start(&pebble, change).await;
        let account = Account::open(&pebble.client(), &front.settings(&pebble)).await.expect("an account");
        account.issue(&names(), Method::Http01, &files, Some(&first.chain_der[0])).await.expect(what);
        let seen = front.seen(ORDERS);
        assert_eq!(seen.len(), orders, "{what}: {seen:?}");
        assert!(seen.last().expect("one").payload["replaces"].is_null(), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn pebble_a_profile_that_is_not_offered_names_those_that_are() {
    let pebble = Pebble::start(Temper::default());
    let front = Front::start(&pebble, extend).await;
    for (settings, expected) in [
        (front.settings(&pebble), "the profile \"tlsserver\", it offers classic, shortlived"),
        (pebble.settings(), "the profile \"tlsserver\", it offers none"),
    ] {
        let settings = Settings { profile: Some("tlsserver".into()), ..settings };
        let account = Account::open(&pebble.client(), &settings).await.expect("an account");
        let hook = pebble.good_hook();
        let error = account.issue(&names(), Method::Dns01, &hook, None).await.expect_err("not offered");
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(error.side(), Side::Ours);
    }
    assert!(front.seen(ORDERS).is_empty() && pebble.calls().is_empty(), "nothing was begun");
}

#[tokio::test]
async fn pebble_a_renewal_window_is_asked_for_and_bounded() {
    let window = r#"{"suggestedWindow": {"start": "2030-01-02T04:00:00Z", "end": "2030-01-03T04:00:00+01:00"}}"#;
    let pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let issued = pebble.account().await.issue(&names(), Method::Http01, &files, None).await.expect("issued");
    let leaf = issued.chain_der[0].as_slice();
    assert_eq!(pebble.account().await.renewal(leaf).await.expect("asked"), None, "it offers none");

    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_556_800);
    for (retry_after, body, expected) in [
        (Some("21600"), window, Ok(21_600.0)),
        (Some("1"), window, Ok(60.0)),
        (Some("18446744073709551615"), window, Ok(86_400.0)),
        (None, window, Ok(21_600.0)),
        (None, "{}", Err("suggestedWindow")),
        (None, "<html>", Err("when to renew")),
    ] {
        let change = move |asked: &Asked, answer: &mut Response<Bytes>| match asked.path.starts_with("/renewal/") {
            true => replace(answer, 200, retry_after, body),
            false => extend(asked, answer),
        };
        let front = Front::start(&pebble, change).await;
        let account = Account::open(&pebble.client(), &front.settings(&pebble)).await.expect("an account");
        match (account.renewal(leaf).await, expected) {
            (Ok(Some(window)), Ok(ask_again)) => {
                assert_eq!(window.start, start);
                assert_eq!(window.end, start + Duration::from_secs(23 * 3_600));
                // The library makes a point in time of it and a span again.
                let seconds = window.ask_again.as_secs_f64();
                assert!(seconds <= ask_again && seconds > ask_again - 30.0, "{retry_after:?}: {seconds}");
                let due = renewal::due(validity(leaf).expect("a certificate"), Some(window), 7);
                assert!((window.start..window.end).contains(&due), "{due:?}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{body}: {error}"),
            (found, _) => panic!("{body}: {found:?}"),
        }
        let asked = front.seen("/renewal/");
        assert_eq!(asked[0].path, format!("/renewal/{}", renewal_id(leaf)));

        let unnamed = challenge_certificate(&"hello.example.com".parse().expect("host"), "x").expect("made");
        assert_eq!(account.renewal(&unnamed.cert[0]).await.expect("nothing to ask"), None, "no key identifier");
        assert!(matches!(account.renewal(b"garbage").await, Err(AcmeError::Issued(_))));
    }
}
