//! Defects that were found in use or by reading, each as the story that showed it.

use api::fleet::fleet_client::FleetClient;
use api::fleet::{Hello, ProxyMessage, controller_message, proxy_message};
use api::operator::change_update::Kind;
use api::operator::{AddReleaseRequest, BuildReleaseRequest, ChangeRequest, Promote, StaticAddress};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Changed, House, Repository, STAGE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_revoked_before_its_hello_is_told_nothing() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let token = house.invite(&["proxy", "--name", "p1"]).await.parse().expect("a token");
    let identity = certs::fleet::join(&token, &house.path("stolen"), "test").await.expect("joined");
    let (sender, hello) = tokio::sync::mpsc::channel(1);
    let mut client = FleetClient::new(identity.channel().expect("usable"));
    let connecting = tokio::spawn(async move { client.connect(ReceiverStream::new(hello)).await });
    // The call is open, and waits for its first message.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    house.run(&["fleet", "revoke", "p1"]).await.ends(0);
    let hello = ProxyMessage { kind: Some(proxy_message::Kind::Hello(Hello::default())) };
    sender.send(hello).await.expect("the call is open");
    let Ok(answer) = connecting.await.expect("no panic") else { return };
    let mut messages = answer.into_inner();
    while let Ok(Some(message)) = messages.message().await {
        assert!(matches!(message.kind, Some(controller_message::Kind::Welcome(_))), "told to a revoked proxy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_repeated_is_answered_with_what_it_did() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let mut operator = house.operator();
    let add = AddReleaseRequest {
        service: "hello".into(),
        version: "3".into(),
        addresses: vec![StaticAddress {
            component: "web".into(),
            addresses: vec!["127.0.0.1:9".into()],
            ..Default::default()
        }],
        request_id: "add-3".into(),
        ..Default::default()
    };
    let first = operator.calls.add_release(add.clone()).await.expect("added").into_inner();
    let again = operator.calls.add_release(add).await.expect("answered").into_inner();
    assert_eq!((first.number, &first), (3, &again));

    let first = operator.send("promote-2", Changed::promote(2, None)).await.expect("promoted");
    let again = operator.send("promote-2", Changed::promote(2, None)).await.expect("answered");
    assert_eq!(again.decided.event, first.decided.event);
    let told = |changed: &Changed| {
        let outcome = &changed.outcome;
        (outcome.from_release, outcome.to_release, outcome.undo.clone(), outcome.warm_until_ms)
    };
    assert_eq!(told(&again), told(&first));
    let promotions = house.history().await.into_iter().filter(|entry| entry.kind == "completed").count();
    assert_eq!(promotions, 2, "r1 and r2, once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_is_asked_for_again_waits_until_the_release_has_started() {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                       target = { kind = \"agent\", group = \"prod\" }\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    let mut operator = house.operator();
    let build =
        BuildReleaseRequest { service: "hello".into(), request_id: "build-1".into(), ..BuildReleaseRequest::default() };
    let first = operator.calls.build_release(build.clone()).await.expect("queued").into_inner();
    // The branch moves on: the answer does not.
    repository.commit("the second");
    let again = operator.calls.build_release(build).await.expect("answered").into_inner();
    assert_eq!((again.number, &again.commit), (1, &first.commit));
    house.run(&["release", "build", "hello"]).await.ends(0);

    let promote = Promote { release: "hello@r1".into(), environment: "production".into(), ..Promote::default() };
    let request = ChangeRequest {
        request_id: "promote-1".into(),
        no_wait: true,
        verb: Some(api::operator::change_request::Verb::Promote(promote)),
        ..ChangeRequest::default()
    };
    let mut updates = operator.calls.change(request).await.expect("decided").into_inner();
    while let Some(update) = updates.message().await.expect("open") {
        assert!(!matches!(update.kind, Some(Kind::Waiting(_))), "it was not to wait");
    }
    let again = operator.send("promote-1", Changed::promote(1, None)).await.expect("answered");
    assert_eq!(again.outcome.failed, "");
    let serving = house.serving().await;
    assert_eq!(serving.of(STAGE, 1), Some(("stable", 1_000_000)), "answered before it had started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_one_environment_sees_that_one_and_no_more() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.proxy("p1", 1).await;
    let here = house.operator_with("here", &["--allow", "read", "--environment", "production"]).await;
    let elsewhere = house.operator_with("elsewhere", &["--allow", "read", "--environment", "staging"]).await;
    for selector in [&["status"][..], &["status", "hello"], &["status", STAGE]] {
        let seen = house.run_as(&here, &[&["-o", "json"], selector].concat()).await.ends(0).json();
        assert_eq!(seen["services"][0]["stages"][0]["stage"], STAGE, "{selector:?}: {seen:#}");
        assert_eq!(seen["fleet"], serde_json::json!([]), "the fleet is not its business");
    }
    let seen = house.run_as(&elsewhere, &["-o", "json", "status"]).await.ends(0);
    assert!(!seen.out.contains("hello") && !seen.out.contains("p1"), "{}", seen.out);
    house.run_as(&elsewhere, &["status", STAGE]).await.ends(1).complains_once(&["may not read", STAGE]);
    assert_eq!(house.json(&["status"]).await["fleet"][0]["name"], "p1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_had_to_start_names_the_way_back() {
    let house = House::with_a_cold_release().await;
    // As long as it starts, it can be called off.
    let begun = house.run(&["-o", "json", "rollback", STAGE, "--no-wait"]).await.json();
    assert_eq!(begun["outcome"]["undo"], "pointsman rollback hello/production --to r2", "{begun}");
    house.run(&["rollback", STAGE, "--to", "r2"]).await.ends(0);
    let back = house.run(&["-o", "json", "rollback", STAGE, "--to", "r1"]).await.ends(0).json();
    let back = &back["outcome"];
    assert_eq!((back["from_release"].as_u64(), back["to_release"].as_u64()), (Some(2), Some(1)), "{back}");
    assert_eq!(back["undo"], "pointsman unhold hello/production r2 && pointsman promote hello@r2 --to production");
}
