//! Who belongs, by certificate: renewed by its owner, revoked at once, lived through without a controller.

mod clocks;
mod operators;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use api::agent::agents_client::AgentsClient;
use api::agent::{AgentMessage, FetchRequest, agent_message};
use api::fleet::fleet_client::FleetClient;
use api::fleet::membership_client::MembershipClient;
use api::fleet::{Hello, ProxyMessage, RenewRequest, proxy_message};
use certs::fleet::Identity;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Client, Clock, House, Load, Repository, Speech, until};

const HOUR: i64 = 3_600;

/// How often the certificate of a member was renewed.
async fn renewals(house: &House, name: &str) -> usize {
    let history = house.history().await;
    history.iter().filter(|entry| entry.kind == "member_renewed" && entry.about == name).count()
}

async fn is_renewed(house: &House, name: &str, times: usize) {
    until(&format!("{name} is renewed"), async || (renewals(house, name).await >= times).then_some(())).await;
}

/// What a member keeps.
fn kept(house: &House, name: &str) -> Value {
    serde_json::from_slice(&fs::read(house.path(name).join("identity/identity.json")).expect("kept")).expect("whole")
}

fn identity(house: &House, folder: &str) -> Identity {
    Identity::load(&house.path(folder)).expect("read").expect("joined")
}

/// What a service of a thief holds: a copy of the identity.
fn copy(house: &House, name: &str) -> Channel {
    let folder = format!("{name}-copy");
    fs::create_dir_all(house.path(&folder).join("identity")).expect("made");
    let file = "identity/identity.json";
    fs::copy(house.path(name).join(file), house.path(&folder).join(file)).expect("copied");
    identity(house, &folder).channel().expect("usable")
}

fn code<T>(answer: Result<T, Status>) -> Option<Code> {
    answer.err().map(|status| status.code())
}

async fn renew(channel: Channel) -> Result<Vec<u8>, Status> {
    let request = RenewRequest {
        csr_der: certs::fleet::OperatorKey::generate().and_then(|key| key.request_der()).expect("made"),
    };
    Ok(MembershipClient::new(channel).renew(request).await?.into_inner().certificate_der)
}

/// A stream of a proxy that the test is.
async fn proxy_stream(
    channel: Channel,
    at_ms: u64,
) -> Result<Stream<api::fleet::ControllerMessage, ProxyMessage>, Status> {
    let (sender, queue) = mpsc::channel(8);
    let hello = ProxyMessage { kind: Some(proxy_message::Kind::Hello(Hello { at_ms, ..Default::default() })) };
    sender.send(hello).await.expect("an empty queue");
    let messages = FleetClient::new(channel).connect(ReceiverStream::new(queue)).await?.into_inner();
    Ok(Stream { messages, _sender: sender })
}

/// A stream of an agent that the test is.
async fn agent_stream(channel: Channel) -> Result<Stream<api::agent::ControllerMessage, AgentMessage>, Status> {
    let (sender, queue) = mpsc::channel(8);
    let hello = api::agent::Hello { address: "127.0.0.1".into(), ..Default::default() };
    sender.send(AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }).await.expect("an empty queue");
    let messages = AgentsClient::new(channel).connect(ReceiverStream::new(queue)).await?.into_inner();
    Ok(Stream { messages, _sender: sender })
}

struct Stream<Down, Up> {
    messages: tonic::Streaming<Down>,
    /// Held, because the controller ends what its peer has ended.
    _sender: mpsc::Sender<Up>,
}

impl<Down, Up> Stream<Down, Up> {
    async fn begins(&mut self) {
        self.messages.message().await.expect("no error").expect("a greeting");
    }

    async fn ends(mut self) {
        until("the stream ends", async || {
            let next = tokio::time::timeout(std::time::Duration::from_secs(1), self.messages.message()).await;
            matches!(next, Ok(Ok(None) | Err(_))).then_some(())
        })
        .await;
    }
}

/// A release of a real repository on an agent.
async fn on_an_agent(house: &mut House, build: &str) -> Repository {
    let repository = Repository::new(house.path("hello"));
    repository.write("build.sh", build);
    repository.commit("its own build");
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                       target = { kind = \"agent\", group = \"prod\" }\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    repository
}

const BUILD: &str = "#!/bin/sh\nset -eu\nmkdir -p dist\ncp server.py dist/\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_certificates_are_renewed_and_nothing_that_is_open_breaks() {
    let mut house = House::empty();
    house.start_controller(&["--member-lifetime", "20s"]).await;
    let repository = on_an_agent(&mut house, BUILD).await;
    let proxy = house.proxy("p1", 1).await;
    let load = Load::start(&[proxy.https], &house.authority());
    let first = [kept(&house, "p1"), kept(&house, "a1")];
    let stolen = copy(&house, "p1");

    for name in ["p1", "a1"] {
        is_renewed(&house, name, 3).await;
    }
    for (name, first) in ["p1", "a1"].into_iter().zip(first) {
        let now = kept(&house, name);
        assert!(now["key_pem"] != first["key_pem"] && now["certificate_der"] != first["certificate_der"], "{name}");
        assert!((&now["name"], &now["ca_der"]) == (&first["name"], &first["ca_der"]), "{name}");
        let mode = fs::metadata(house.path(name).join("identity/identity.json")).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // One of two renewals ago opens nothing, and is not renewed either.
    assert_eq!(code(proxy_stream(stolen.clone(), 0).await), Some(Code::PermissionDenied));
    assert_eq!(code(renew(stolen).await), Some(Code::PermissionDenied));

    // The streams of the first certificate are those of now, and the agent fetches with the newest.
    let (proxy_said, agent_said) = (house.part("p1").log(), house.part("a1").log());
    assert_eq!(proxy_said.matches("following the controller").count(), 1, "{proxy_said}");
    assert_eq!(agent_said.matches("the controller is connected").count(), 1, "{agent_said}");
    // Not the bytes that it has already.
    repository.write("build.sh", &format!("{BUILD}echo second > dist/second\n"));
    repository.commit("the second");
    house.run(&["release", "build", "hello"]).await.ends(0);
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    load.goes_on(200).await;
    assert!(load.ends_without_failure().by_release.contains_key("r2"));

    // What was kept is what a start goes on with.
    house.kill("p1");
    house.kill("a1");
    house.start("p1").await;
    house.start("a1").await;
    house.follows("p1").await;
    let before = renewals(&house, "a1").await;
    is_renewed(&house, "a1", before + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_revoked_proxy_is_out_at_once() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    let channel = copy(&house, "p1");
    house.kill("p1");
    let mut stream = proxy_stream(channel.clone(), 0).await.expect("it belongs");
    stream.begins().await;
    let once = renew(channel.clone()).await;
    assert!(once.is_ok(), "{once:?}");

    house.run(&["fleet", "revoke", "p1"]).await.ends(0);
    stream.ends().await;
    assert_eq!(code(proxy_stream(channel.clone(), 0).await), Some(Code::PermissionDenied));
    assert_eq!(code(renew(channel).await), Some(Code::PermissionDenied));
    // It serves what it had, and says why it hears nothing new.
    house.start("p1").await;
    house.part("p1").says("p1 does not belong to this fleet any more").await;
    assert_eq!(Client::plain(proxy.http, Speech::Http1).asks().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_revoked_agent_is_out_at_once_and_gets_no_byte_more() {
    let mut house = House::with_controller().await;
    let big = format!("{BUILD}head -c 30000000 /dev/urandom > dist/big\n");
    let _repository = on_an_agent(&mut house, &big).await;
    let channel = copy(&house, "a1");
    house.kill("a1");
    let mut agents = AgentsClient::new(channel.clone());
    let releases = house.json(&["release", "show", "hello@r1"]).await;
    let manifest = releases["artifacts"][0]["digest"].as_str().expect("built").to_owned();
    let request = |digest: &str| FetchRequest { digest: digest.to_owned(), offset: 0 };
    let mut pieces = agents.fetch(request(&manifest)).await.expect("it belongs").into_inner();
    let manifest_bytes = pieces.message().await.expect("no error").expect("a piece").data;
    let read: Value = serde_json::from_slice(&manifest_bytes).expect("a manifest");
    let layer = read["layers"][0]["digest"].as_str().expect("a layer").to_owned();
    let mut pieces = agents.fetch(request(&layer)).await.expect("it belongs").into_inner();
    let mut length = pieces.message().await.expect("no error").expect("a piece").data.len();
    let mut stream = agent_stream(channel.clone()).await.expect("it belongs");
    stream.begins().await;

    house.run(&["fleet", "revoke", "a1"]).await.ends(0);
    stream.ends().await;
    let cut = loop {
        match pieces.message().await {
            Ok(Some(piece)) => length += piece.data.len(),
            Ok(None) => panic!("it got all {length} bytes"),
            Err(status) => break status,
        }
    };
    assert_eq!((cut.code(), cut.message()), (Code::PermissionDenied, "this agent was revoked"));
    assert!(length < 30_000_000, "{length}");
    assert_eq!(code(agents.fetch(request(&layer)).await), Some(Code::PermissionDenied));
    assert_eq!(code(agent_stream(channel.clone()).await), Some(Code::PermissionDenied));
    assert_eq!(code(renew(channel).await), Some(Code::PermissionDenied));
    house.start("a1").await;
    house.part("a1").says("a1 does not belong to this fleet any more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_fleet_without_its_controller_for_a_day_comes_back_by_itself() {
    let mut house = House::empty();
    let clock = Clock::new(&house.path("."), "clock");
    house.live_by(&clock);
    house.start_controller(&[]).await;
    house.learns_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.agent("a1", "prod").await;
    let load = Load::plain(&[proxy.http]);
    load.goes_on(100).await;

    house.kill_controller();
    let first = [kept(&house, "p1"), kept(&house, "a1")];
    clock.moves(26 * HOUR);
    load.goes_on(300).await;
    house.start_controller(&[]).await;
    for name in ["p1", "a1"] {
        is_renewed(&house, name, 1).await;
    }
    house.follows("p1").await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    until("the agent is connected", async || {
        let members = house.json(&["fleet", "list"]).await["members"].as_array()?.clone();
        members.iter().all(|member| member["connected"] == true).then_some(())
    })
    .await;
    for (name, first) in ["p1", "a1"].into_iter().zip(first) {
        assert_ne!(kept(&house, name)["key_pem"], first["key_pem"], "{name}");
    }
    load.goes_on(300).await;

    // Two months are too long: it serves, and says what to do.
    house.kill_controller();
    clock.moves(60 * 24 * HOUR);
    house.start_controller(&[]).await;
    for name in ["p1", "a1"] {
        house.part(name).says("the certificate ended too long ago to be renewed").await;
        let said = house.part(name).log();
        assert!(said.contains(&format!("pointsman fleet revoke {name}")), "{said}");
    }
    load.goes_on(300).await;
    load.ends_without_failure();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_certificate_past_its_end_opens_nothing_but_a_renewal() {
    let house = {
        let mut house = House::empty();
        house.start_controller(&["--member-lifetime", "2s"]).await;
        house
    };
    let token = house.invite(&["proxy", "--name", "p1"]).await.parse().expect("a token");
    let identity = certs::fleet::join(&token, &house.path("p1"), "test").await.expect("joined");
    let refused =
        until("it is past its end", async || proxy_stream(identity.channel().expect("usable"), 0).await.err()).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
    let said = refused.message();
    assert!(
        said.contains("certificate of the proxy p1 expired at 20") && said.contains("renews it by itself"),
        "{said}"
    );
    // The connection that showed it ends, so that the next is made with the next certificate.
    let channel = identity.channel().expect("usable");
    assert_eq!(code(proxy_stream(channel.clone(), 0).await), Some(Code::Unauthenticated));
    assert!(renew(channel.clone()).await.is_ok());
    tokio::select! {
        () = identity.keep_renewed() => unreachable!("it never returns"),
        () = async {
            let same = channel;
            until("the same channel is taken", async || proxy_stream(same.clone(), 0).await.ok().map(drop)).await;
        } => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_restored_backup_does_not_lock_out_who_renewed_since() {
    let mut house = House::empty();
    let lifetime = ["--member-lifetime", "20s"];
    house.start_controller(&lifetime).await;
    house.proxy("p1", 1).await;
    house.run(&["controller", "backup", "monday.db"]).await.ends(0);
    is_renewed(&house, "p1", 2).await;
    house.stop_controller().await;
    fs::rename(house.path("controller"), house.path("lost")).expect("moved");
    house.run_bare(&["controller", "restore", "monday.db", "--data", "controller"]).await.ends(0);
    for key in ["fleet-ca.json", "development-ca.json"] {
        fs::copy(house.path("lost").join(key), house.path("controller").join(key)).expect("copied");
    }
    house.start_controller(&lifetime).await;
    assert_eq!(renewals(&house, "p1").await, 0, "they are lost");
    house.follows("p1").await;
    is_renewed(&house, "p1", 1).await;
    house.kill("p1");
    house.start("p1").await;
    house.follows("p1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_a_renewal_whose_answer_is_lost_is_made_up_for() {
    let mut house = House::empty();
    let fault = "after_append:member_renewed";
    house.start_controller(&["--member-lifetime", "20s", "--fault", fault]).await;
    house.proxy("p1", 1).await;
    let first = kept(&house, "p1");
    // It ends when the next certificate is on record, before anybody is told.
    house.revive_controller().await;
    assert_eq!(renewals(&house, "p1").await, 1, "it is on record");
    is_renewed(&house, "p1", 2).await;
    house.follows("p1").await;
    assert_ne!(kept(&house, "p1")["key_pem"], first["key_pem"]);
    house.kill("p1");
    house.start("p1").await;
    house.follows("p1").await;
}
