//! Operators whose certificate stands for a token.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use api::agent::FetchRequest;
use api::agent::agents_client::AgentsClient;
use api::operator::operator_client::OperatorClient;
use api::operator::{ListRequest, StatusRequest};
use tonic::Code;
use tonic::transport::Channel;

use super::{HOUR, agent_stream, code, copy, proxy_stream, renew};
use crate::harness::{Clock, House, STAGE, until};

/// The connection of an operator file with a certificate.
fn certified(house: &House, file: &str) -> Channel {
    let table: toml::Table = fs::read_to_string(house.path(file)).expect("a file").parse().expect("TOML");
    let text = |key: &str| table[key].as_str().expect("text").to_owned();
    assert!(!table.contains_key("token"), "{file}");
    certs::fleet::certified_operator_channel(&text("controller"), &text("ca"), &text("certificate"), &text("key"))
        .expect("usable")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_an_operator_has_a_certificate_in_place_of_a_token() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let create = ["token", "create", "alice", "--allow", "read", "--certificate", "alice.toml"];
    house.run(&create).await.ends(0).complains(&["alice logs in with", "--from alice.toml"]);
    let mode = fs::metadata(house.path("alice.toml")).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    house.run(&create).await.ends(1).complains_once(&["alice.toml: it exists already"]);

    // It stands for the token, with its scope.
    let alice = house.path("alice.toml");
    house.run_as(&alice, &["status"]).await.ends(0);
    house.run_as(&alice, &["rollback", STAGE]).await.ends(1).complains(&["token alice may not rollback"]);
    house.run_bare(&["login", "--from", "alice.toml", "--name", "alice"]).await.ends(0);
    house.run_bare(&["service", "list"]).await.ends(0);
    let tokens = house.run(&["token", "list"]).await.ends(0).out;
    assert!(tokens.contains("alice"), "{tokens}");

    // Revoked, it ends at once, in the middle of a stream too; and another of the name does not bring it back.
    let channel = certified(&house, "alice.toml");
    let request = StatusRequest { watch: true, ..Default::default() };
    let mut watched = OperatorClient::new(channel.clone()).status(request).await.expect("it may").into_inner();
    watched.message().await.expect("no error").expect("a status");
    house.run(&["token", "revoke", "alice"]).await.ends(0);
    let ended = loop {
        match watched.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), ended.message()), (Code::Unauthenticated, "this token was revoked"));
    let refused = "does not accept the context";
    house.run_as(&alice, &["status"]).await.ends(1).complains_once(&[refused, "its token was revoked"]);
    house.run_bare(&["login", "--from", "alice.toml"]).await.ends(1).complains_once(&["its token was revoked"]);
    house.run(&["token", "create", "alice", "--allow", "read"]).await.ends(0);
    assert_eq!(code(OperatorClient::new(channel).list_tokens(ListRequest {}).await), Some(Code::Unauthenticated));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_an_operator_whose_certificate_expired_is_told_so() {
    let mut house = House::empty();
    let clock = Clock::new(&house.path("."), "clock");
    house.live_by(&clock);
    house.start_controller(&[]).await;
    let create = ["token", "create", "bob", "--allow", "read", "--certificate", "bob.toml", "--valid", "3d"];
    house.run(&create).await.ends(0);
    let bob = house.path("bob.toml");
    house.run_as(&bob, &["status"]).await.ends(0);
    for (days, expected) in [
        (4, ["certificate of the operator bob expired at 20", "`pointsman token revoke bob`"]),
        (40, ["bob.toml expired at 20", "too long ago for the controller"]),
    ] {
        clock.moves(days * 24 * HOUR);
        // The controller's own certificate is past its end as well: it makes another by itself.
        until("the controller is believed", async || (house.run(&["status"]).await.code == Some(0)).then_some(()))
            .await;
        house.run_as(&bob, &["status"]).await.ends(1).complains_once(&expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_nobody_acts_as_what_the_certificate_does_not_say() {
    let mut house = House::with_hello().await;
    house.proxy("p1", 1).await;
    house.agent("a1", "prod").await;
    // An operator of the name of a member, who may do everything.
    house.run(&["token", "create", "p1", "--allow", "admin", "--certificate", "p1.toml"]).await.ends(0);
    let operator = certified(&house, "p1.toml");
    assert!(OperatorClient::new(operator.clone()).list_tokens(ListRequest {}).await.is_ok());
    assert_eq!(code(proxy_stream(operator.clone(), 0).await), Some(Code::Unauthenticated));
    assert_eq!(code(agent_stream(operator.clone()).await), Some(Code::Unauthenticated));
    assert_eq!(
        code(AgentsClient::new(operator.clone()).fetch(FetchRequest::default()).await),
        Some(Code::Unauthenticated)
    );
    assert_eq!(code(renew(operator).await), Some(Code::Unauthenticated));
    for name in ["p1", "a1"] {
        let member = copy(&house, name);
        let answer = OperatorClient::new(member).list_tokens(ListRequest {}).await;
        assert_eq!(code(answer), Some(Code::Unauthenticated), "{name}");
    }
}
