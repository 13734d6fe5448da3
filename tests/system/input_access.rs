//! Nothing answers without a credential, and a credential opens only what it is for.

use std::fs;

use api::agent::agents_client::AgentsClient;
use api::agent::{AgentMessage, FetchRequest};
use api::fleet::ProxyMessage;
use api::fleet::fleet_client::FleetClient;
use api::fleet::joining_client::JoiningClient;
use api::operator::operator_client::OperatorClient;
use api::operator::*;
use certs::fleet::Identity;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::harness::{Client, House, STAGE, Speech, until};

/// A connection that trusts the controller and shows nothing.
fn stranger(house: &House) -> Channel {
    let table: toml::Table = fs::read_to_string(house.context()).expect("a file").parse().expect("TOML");
    let ca = table["ca"].as_str().expect("text");
    certs::fleet::operator_channel(&house.controller_address(), ca).expect("an address")
}

/// Every call of the operator API with `token` as its authorization is refused as from nobody.
async fn opens_nothing(channel: Channel, token: Option<&str>) {
    macro_rules! refused {
        ($($method:ident($message:ty)),* $(,)?) => {$({
            let mut request = Request::new(<$message>::default());
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", token.parse().expect("a header"));
            }
            let answer = OperatorClient::new(channel.clone()).$method(request).await;
            let code = answer.err().map(|status| status.code());
            assert_eq!(code, Some(Code::Unauthenticated), "{} with {token:?}", stringify!($method));
        })*};
    }
    refused!(
        apply(ApplyRequest),
        list_environments(ListRequest),
        list_services(ListRequest),
        build_release(BuildReleaseRequest),
        add_release(AddReleaseRequest),
        list_releases(ListReleasesRequest),
        show_release(ReleaseRequest),
        release_logs(ReleaseLogsRequest),
        change(ChangeRequest),
        status(StatusRequest),
        history(HistoryRequest),
        create_token(CreateTokenRequest),
        list_tokens(ListRequest),
        revoke_token(RevokeTokenRequest),
        create_join(CreateJoinRequest),
        list_fleet(ListRequest),
        revoke_member(RevokeMemberRequest),
        create_application(CreateApplicationRequest),
        list_applications(ListRequest),
        rotate_application(RotateApplicationRequest),
        revoke_application(RevokeApplicationRequest),
        assertion_keys(ListRequest),
        explain_request(ExplainRequestRequest),
        explain_policy(ExplainPolicyRequest),
        backup(ListRequest),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_no_call_of_an_operator_is_answered_without_a_valid_token() {
    let house = House::with_hello().await;
    let channel = stranger(&house);
    let table: toml::Table = fs::read_to_string(house.context()).expect("a file").parse().expect("TOML");
    let whole = table["token"].as_str().expect("text");
    let cut = format!("Bearer {}", &whole[..whole.len() - 1]);
    let changed = format!("Bearer {}x", &whole[..whole.len() - 1]);
    let bare = whole.to_owned();
    for token in [None, Some(""), Some("Bearer "), Some("Bearer x"), Some(&*cut), Some(&*changed), Some(&*bare)] {
        opens_nothing(channel.clone(), token).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_no_stream_of_the_fleet_is_answered_without_the_right_certificate() {
    let mut house = House::with_hello().await;
    house.proxy("p1", 1).await;
    house.agent("a1", "prod").await;
    let identity =
        |name: &str| Identity::load(&house.path(name)).expect("read").expect("joined").channel().expect("usable");
    let (nobody, proxy, agent) = (stranger(&house), identity("p1"), identity("a1"));
    for (who, channel) in [("nobody", nobody.clone()), ("an agent", agent)] {
        let answer = FleetClient::new(channel).connect(tokio_stream::once(ProxyMessage::default())).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::Unauthenticated), "{who}");
    }
    for (who, channel) in [("nobody", nobody.clone()), ("a proxy", proxy.clone())] {
        let mut client = AgentsClient::new(channel);
        let answer = client.connect(tokio_stream::once(AgentMessage::default())).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::Unauthenticated), "{who}");
        let answer = client.fetch(FetchRequest::default()).await;
        assert_eq!(answer.err().map(|status| status.code()), Some(Code::Unauthenticated), "{who}");
    }
    // A member's certificate is no operator's token.
    opens_nothing(proxy, None).await;
    let guess = api::fleet::JoinRequest { secret: "x".repeat(43), ..Default::default() };
    let answer = JoiningClient::new(nobody).join(guess).await;
    assert_eq!(answer.err().map(|status| status.code()), Some(Code::PermissionDenied));
}

/// Tries to join with a token, into a folder of its own.
async fn joins(house: &House, folder: &str, token: &str) -> crate::harness::Said {
    let line = ["proxy", "--data", folder, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "error"];
    house.run_bare(&[&line[..], &["--join", token]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_join_token_works_once_and_in_time() {
    let mut house = House::with_controller().await;
    // Expired.
    let late = house.invite(&["proxy", "--name", "late", "--valid", "1ms"]).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    joins(&house, "late", &late).await.ends(1).complains_once(&["expired", "pointsman join"]);
    // Used.
    let token = house.invite(&["agent", "--name", "a1"]).await;
    let once = Identity::load(&house.path("a1")).expect("read");
    assert!(once.is_none());
    let parsed: api::JoinToken = token.parse().expect("a token");
    certs::fleet::join(&parsed, &house.path("a1"), "test").await.expect("joined");
    joins(&house, "again", &token).await.ends(1).complains_once(&["used before", "pointsman join"]);
    // Never given out, and given out by another controller.
    let unknown = api::JoinToken { secret: "z".repeat(43), ..parsed.clone() }.to_string();
    joins(&house, "unknown", &unknown).await.ends(1).complains_once(&["not known"]);
    let other = api::JoinToken { ca: api::Digest::of(b"another authority"), ..parsed.clone() }.to_string();
    joins(&house, "other", &other).await.ends(1).complains_once(&["not the controller that made this token"]);
    // Not one at all, and none.
    joins(&house, "cut", &token[..token.len() - 30]).await.ends(2).complains(&["pmjoin1."]);
    let line = ["proxy", "--data", "none", "--http", "127.0.0.1:0", "--log", "error"];
    house.run_bare(&line).await.ends(1).complains_once(&["no identity yet", "pointsman join proxy"]);
    // A newer invitation of the same name ends the older one.
    let first = house.invite(&["proxy", "--name", "p1"]).await;
    let second = house.invite(&["proxy", "--name", "p1"]).await;
    joins(&house, "p1", &first).await.ends(1).complains_once(&["not known"]);
    let parsed: api::JoinToken = second.parse().expect("a token");
    certs::fleet::join(&parsed, &house.path("p1"), "test").await.expect("joined");
    // No controller.
    house.stop_controller().await;
    joins(&house, "away", &second).await.ends(1).complains_once(&[&parsed.controller, "refused"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_revoked_proxy_does_not_come_back() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let (p1, p2) = (house.proxy("p1", 1).await, house.proxy("p2", 1).await);
    house.run(&["fleet", "revoke", "p1", "--reason", "the machine is gone"]).await.ends(0);
    let changed = house.run(&["-o", "json", "promote", "hello@r2", "--to", "production"]).await.ends(0).json();
    let switched = changed["outcome"]["switched"].as_array().cloned().unwrap_or_default();
    assert!(switched.len() == 1 && switched[0]["proxy"] == "p2", "{changed}");
    house.part("p1").says("does not belong to this fleet any more").await;
    house.kill("p1");
    house.start("p1").await;
    house.part("p1").says("does not belong to this fleet any more").await;
    // It gets nothing new; what it had it serves, as without a controller.
    assert_eq!(Client::plain(p1.http, Speech::Http1).asks().await.release, "r1");
    assert_eq!(Client::plain(p2.http, Speech::Http1).asks().await.release, "r2");
    let fleet = house.json(&["fleet", "list"]).await;
    let of =
        |name: &str| fleet["members"].as_array().and_then(|all| all.iter().find(|one| one["name"] == name)).cloned();
    let revoked = of("p1").expect("it is still listed");
    assert!(revoked["state"] == "revoked" && revoked["connected"] == false, "{revoked}");
    assert_eq!(of("p2").expect("listed")["state"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_token_opens_its_scope_and_nothing_else() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let reader = house.operator_with("reader", &["--allow", "read"]).await;
    let elsewhere = house.operator_with("elsewhere", &["--allow", "read,promote,rollback", "--service", "other"]).await;
    let staging = house.operator_with("staging", &["--allow", "promote,rollback", "--environment", "staging"]).await;
    let saviour = house.operator_with("saviour", &["--allow", "read,rollback", "--service", "hello"]).await;
    let before = house.history().await.len();

    let promote: &[&str] = &["promote", "hello@r2", "--to", "production", "--weight", "1%"];
    for context in [&reader, &elsewhere, &staging, &saviour] {
        house.run_as(context, promote).await.ends(1).complains_once(&["may not promote", STAGE]);
    }
    let table: [&[&str]; 7] = [
        &["rollback", STAGE],
        &["release", "add", "hello", "--version", "3", "--address", "web=127.0.0.1:1"],
        &["apply", "-f", "production.toml"],
        &["join", "proxy", "--name", "mine"],
        &["fleet", "revoke", "p1"],
        &["token", "create", "more", "--allow", "admin"],
        &["controller", "backup", "stolen.db"],
    ];
    for line in table {
        house.run_as(&reader, line).await.ends(1).complains_once(&["token reader may not"]);
    }
    assert!(!house.path("stolen.db").exists());
    house.run_as(&elsewhere, &["status", "hello"]).await.ends(1).complains_once(&["may not read on hello"]);
    let seen = house.run_as(&elsewhere, &["-o", "json", "status"]).await.ends(0);
    assert!(!seen.out.contains("hello"), "{}", seen.out);
    let seen = house.run_as(&elsewhere, &["-o", "json", "history", "-n", "0"]).await.ends(0);
    assert!(!seen.out.contains("hello"), "{}", seen.out);
    house.run_as(&reader, &["status"]).await.ends(0);
    assert_eq!(house.history().await.len(), before, "nothing was changed");

    house.run(promote).await.ends(0);
    house.run_as(&saviour, &["rollback", STAGE]).await.ends(0);
    let last = house.history().await.pop().expect("an entry");
    assert_eq!((last.kind.as_str(), last.by.as_str()), ("rolled_back", "saviour"));

    house.run(&["token", "revoke", "saviour", "--reason", "it was in a log"]).await.ends(0);
    house.run_as(&saviour, &["status"]).await.ends(1).complains_once(&["does not accept the token"]);
    let listed = house.run(&["-o", "json", "token", "list"]).await.ends(0).out;
    assert!(listed.contains("\"saviour\"") && !listed.contains("secret"), "{listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_token_revoked_while_it_watches_is_cut_off() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let watcher = house.operator_with("watcher", &["--allow", "read"]).await;
    let mut operator = crate::harness::Operator::new(&watcher);
    let request = StatusRequest { selector: String::new(), watch: true };
    let mut stream = operator.calls.status(request).await.expect("it may").into_inner();
    stream.message().await.expect("open").expect("a status");
    house.run(&["token", "revoke", "watcher"]).await.ends(0);
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    // What still comes on it was sent before.
    until("the watch ends", async || match stream.message().await {
        Ok(Some(_)) => None,
        Ok(None) | Err(_) => Some(()),
    })
    .await;
}
