//! The controller's stream. A small gRPC server in the test stands for the controller: it sends what the test says and
//! hands out what the proxy reports. (Certificates are tested where they live; here the stream is in clear.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use api::fleet::controller_message::Kind as Down;
use api::fleet::fleet_server::{Fleet, FleetServer};
use api::fleet::progress::State;
use api::fleet::proxy_message::Kind as Up;
use api::fleet::{
    Change, ControllerMessage, Hello, Override, Progress, Protocol, ProxyMessage, Resource, ResourceSet, Transfer,
    Welcome,
};
use api::{Digest, Fingerprint, ReleaseNumber, Version};
use prost::Message;
use proxy::local::{LocalReply, LocalRequest, request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::support::{Client, HOST, TestProxy, Upstream, endpoints, hello, stage, weights, zone};
use crate::wire::PATIENCE;

/// One connection of the proxy to the played controller.
pub(crate) struct Link {
    down: mpsc::Sender<Result<ControllerMessage, Status>>,
    up: Streaming<ProxyMessage>,
}

struct Played {
    links: mpsc::Sender<Link>,
}

#[tonic::async_trait]
impl Fleet for Played {
    type ConnectStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ProxyMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (down, messages) = mpsc::channel(4096);
        down.send(Ok(ControllerMessage { kind: Some(Down::Welcome(Welcome { name: "p1".into(), lease_ms: 10_000 })) }))
            .await
            .expect("room");
        let link = Link { down, up: request.into_inner() };
        self.links.send(link).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// A played controller; its connections come out of the receiver.
pub(crate) async fn play() -> (Channel, mpsc::Receiver<Link>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address: SocketAddr = listener.local_addr().expect("bound");
    (channel_to(address), serve(listener))
}

pub(crate) fn channel_to(address: SocketAddr) -> Channel {
    Endpoint::try_from(format!("http://{address}")).expect("an address").connect_lazy()
}

pub(crate) fn serve(listener: tokio::net::TcpListener) -> mpsc::Receiver<Link> {
    let (links, connections) = mpsc::channel(8);
    let server = Server::builder().add_service(FleetServer::new(Played { links }));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    connections
}

impl Link {
    pub(crate) async fn send(&self, kind: Down) {
        self.down.send(Ok(ControllerMessage { kind: Some(kind) })).await.expect("connected");
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.up.message().await.expect("connected").expect("a message").kind {
            Some(Up::Hello(hello)) => hello,
            other => panic!("{other:?} before hello"),
        }
    }

    /// The next message, whatever it says.
    pub(crate) async fn next(&mut self) -> Option<Up> {
        self.up.message().await.expect("connected").expect("a message").kind
    }

    /// The next progress; counts in between are passed over.
    async fn progress(&mut self) -> Progress {
        loop {
            if let Some(Up::Progress(progress)) = self.up.message().await.expect("connected").expect("a message").kind {
                return progress;
            }
        }
    }

    /// The next override that is told, set (its release) or ended (0); everything else is passed over.
    async fn override_told(&mut self) -> Override {
        loop {
            if let Some(Up::Override(told)) = self.up.message().await.expect("connected").expect("a message").kind {
                return told;
            }
        }
    }

    /// Progress until a state that ends a version.
    pub(crate) async fn outcome(&mut self) -> Progress {
        loop {
            let progress = self.progress().await;
            if matches!(progress.state(), State::Active | State::Rejected | State::Unsaved) {
                return progress;
            }
        }
    }
}

pub(crate) fn fingerprint(resources: &[Resource]) -> Vec<u8> {
    let mut fingerprint = Fingerprint::default();
    resources.iter().for_each(|resource| fingerprint.add(resource));
    fingerprint.to_bytes().to_vec()
}

pub(crate) fn at(number: u64) -> Version {
    Version { term: 1, number }
}

pub(crate) fn transfer(version: Version, set: &ResourceSet) -> Transfer {
    let bytes = set.encode_to_vec();
    Transfer {
        version: Some(version.into()),
        base: None,
        total_bytes: bytes.len() as u64,
        sha256: Digest::of(&bytes).as_bytes().to_vec(),
        offset: 0,
        data: bytes.into(),
        fingerprint: fingerprint(&set.upserts),
    }
}

/// The state with other weights, and the change that leads to it.
fn reweigh(state: &ResourceSet, from: Version, to: Version, split: &[(u32, u32)]) -> (ResourceSet, Change) {
    let new = weights("hello/staging", split);
    let mut after = state.clone();
    after.upserts.retain(|resource| resource.kind != "split");
    after.upserts.push(new.clone());
    let change = Change {
        version: Some(to.into()),
        base: Some(from.into()),
        set: Some(ResourceSet { upserts: vec![new], removals: Vec::new() }),
        fingerprint: fingerprint(&after.upserts),
    };
    (after, change)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_state_then_a_change_become_active_and_serve() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    let address = proxy.http;
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    let greeting = link.hello().await;
    assert_eq!((greeting.have, greeting.workers, greeting.schema), (None, 1, api::RESOURCE_SCHEMA));

    let state = hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 0)]);
    link.send(Down::Transfer(transfer(at(1), &state))).await;
    for expected in [State::Received, State::Validated, State::Warmed, State::Active] {
        assert_eq!(link.progress().await.state(), expected);
    }
    let mut client = Client::http1(address).await;
    assert_eq!(client.get(HOST, "/").await.body, "r1");
    let (after, change) = reweigh(&state, at(1), at(2), &[(2, 1)]);
    link.send(Down::Change(change)).await;
    let active = link.outcome().await;
    assert_eq!((active.state(), active.version), (State::Active, Some(at(2).into())));
    assert_eq!(active.fingerprint, fingerprint(&after.upserts));
    assert_eq!(client.get(HOST, "/").await.body, "r2");

    // Counts of both releases come within the next seconds.
    let mut counted = std::collections::BTreeMap::new();
    while counted.len() < 2 {
        if let Some(Up::Counts(counts)) = link.up.message().await.expect("connected").expect("a message").kind {
            counted.extend(counts.releases.into_iter().map(|one| (one.release, (one.requests, one.by_class[1]))));
        }
    }
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), [(1, (1, 1)), (2, (1, 1))]);

    // The controller goes and comes back: the proxy says what it has.
    drop(link);
    let mut link = links.recv().await.expect("connected again");
    let greeting = link.hello().await;
    assert_eq!((greeting.have, greeting.fingerprint), (Some(at(2).into()), fingerprint(&after.upserts)));
    assert_eq!(link.outcome().await.state(), State::Active);
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_hostile_h80_bad_changes_are_refused_whole_and_the_old_state_serves() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let address = proxy.http;
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    link.send(Down::Transfer(transfer(at(5), &state))).await;
    assert_eq!(link.outcome().await.state(), State::Active);

    let good = transfer(at(6), &state);
    let (_, change) = reweigh(&state, at(5), at(6), &[(1, 2)]);
    let with =
        |upserts: Vec<Resource>| Change { set: Some(ResourceSet { upserts, removals: Vec::new() }), ..change.clone() };
    let mut flipped = good.data.to_vec();
    flipped[20] ^= 4;
    for (bad, resource, field) in [
        (Down::Transfer(Transfer { data: flipped.into(), ..good.clone() }), "", "sha256"),
        (Down::Transfer(Transfer { version: Some(at(7).into()), offset: 9, ..good.clone() }), "", "offset"),
        (Down::Transfer(Transfer { total_bytes: 1 << 30, ..good.clone() }), "", "total_bytes"),
        (Down::Transfer(transfer(at(4), &state)), "", "version"),
        (Down::Transfer(transfer(Version { term: 0, number: 99 }, &state)), "", "version"),
        (Down::Change(Change { base: Some(at(4).into()), ..change.clone() }), "", "version"),
        (Down::Change(Change { version: Some(at(5).into()), ..change.clone() }), "", "version"),
        (Down::Change(Change { fingerprint: vec![1; 32], ..change.clone() }), "", "fingerprint"),
        (Down::Change(with(vec![Resource { schema: 99, ..zone() }])), "zone staging.example.com", "schema"),
        (Down::Change(with(vec![Resource { kind: "spell".into(), ..zone() }])), "spell staging.example.com", "kind"),
        (Down::Change(with(vec![weights("hello/staging", &[(9, 1)])])), "split hello/staging", "weights[0].release"),
        (
            Down::Change(with(vec![stage("hello/staging", Protocol::Unspecified, &[1])])),
            "stage hello/staging",
            "backends[0].protocol",
        ),
    ] {
        link.send(bad).await;
        let outcome = link.outcome().await;
        assert_eq!(outcome.state(), State::Rejected, "{field}");
        let told = &outcome.rejections[0];
        assert_eq!((told.resource.as_str(), told.field.as_str()), (resource, field), "{outcome:?}");
        assert!(!told.reason.is_empty());
        assert_eq!(Client::http1(address).await.get(HOST, "/").await.body, "r1");
    }
    link.send(Down::Change(change)).await;
    assert_eq!(link.outcome().await.state(), State::Active, "a good one is still taken");
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_hostile_h80_hundreds_of_changes_at_once_become_active_in_order() {
    let folder = tempfile::tempdir().expect("folder");
    let (r1, r2) = (Upstream::start("r1", Protocol::H1).await, Upstream::start("r2", Protocol::H1).await);
    let proxy = TestProxy::start(folder.path(), 1).await;
    let address = proxy.http;
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let mut state = hello(Protocol::H1, &[(1, r1.address, 1), (2, r2.address, 0)]);
    state.upserts.push(endpoints("hello/staging", 3, &[r1.address]));
    link.send(Down::Transfer(transfer(at(1), &state))).await;
    assert_eq!(link.outcome().await.state(), State::Active);
    for number in 2..=400 {
        let (after, change) = reweigh(&state, at(number - 1), at(number), &[(1, number as u32), (2, 1)]);
        state = after;
        link.send(Down::Change(change)).await;
    }
    for number in 2..=400 {
        let outcome = link.outcome().await;
        assert_eq!((outcome.state(), outcome.version), (State::Active, Some(at(number).into())));
    }
    assert_eq!(Client::http1(address).await.get(HOST, "/").await.status, 200);
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_state_that_cannot_be_saved_serves_and_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let address = proxy.http;
    // A file where the journal's folder should be.
    let state_folder = folder.path().join("state");
    std::fs::write(&state_folder, b"").expect("written");
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    link.send(Down::Transfer(transfer(at(1), &state))).await;
    let outcome = link.outcome().await;
    assert_eq!(outcome.state(), State::Unsaved);
    assert!(!outcome.note.is_empty());
    assert_eq!(Client::http1(address).await.get(HOST, "/").await.body, "r1");
    std::fs::remove_file(&state_folder).expect("removed");
    while link.outcome().await.state() != State::Active {}
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_restart_of_the_controller_does_not_make_an_unsaved_state_active() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    link.send(Down::Transfer(transfer(at(1), &state))).await;
    assert_eq!(link.outcome().await.state(), State::Active);
    break_journal(folder.path());
    // The same version again with other content has to become safe as well: what is on disk is the version before.
    let mut mended = state.clone();
    mended.upserts.push(endpoints("hello/staging", 2, &[upstream.address]));
    link.send(Down::Transfer(transfer(at(1), &mended))).await;
    assert_eq!(link.outcome().await.state(), State::Unsaved, "the mend at the same version");
    let full = Transfer { version: Some(at(2).into()), ..transfer(at(2), &state) };
    link.send(Down::Transfer(full)).await;
    loop {
        let outcome = link.outcome().await;
        assert_eq!(outcome.state(), State::Unsaved);
        if outcome.version == Some(at(2).into()) {
            break;
        }
    }

    drop(link);
    let mut link = links.recv().await.expect("connected again");
    assert_eq!(link.hello().await.have, Some(at(2).into()), "it says what serves in memory");
    let outcome = link.outcome().await;
    assert_eq!((outcome.state(), outcome.version), (State::Active, Some(at(1).into())), "this is what is safe");
    assert_eq!(outcome.fingerprint, fingerprint(&state.upserts));
    let outcome = link.outcome().await;
    assert_eq!((outcome.state(), outcome.version), (State::Unsaved, Some(at(2).into())), "and this is what serves");
    std::fs::remove_file(folder.path().join("state")).expect("removed");
    while link.outcome().await.state() != State::Active {}
    following.abort();
}

/// Nothing can be written any more: a file stands where the journal's folder was.
fn break_journal(data: &std::path::Path) {
    // As a full disk would: the open log goes as well.
    std::fs::remove_dir_all(data.join("state")).expect("removed");
    std::fs::write(data.join("state"), b"").expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_an_override_set_and_ended_while_the_controller_is_away_is_told_when_it_is_back() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let following = tokio::spawn(async move { proxy.engine.follow(channel_to(address), || {}).await });

    let stage = || "hello/staging".parse().expect("a stage");
    let (release, reason) = (ReleaseNumber::new(1).expect("a number"), "nobody answers".to_owned());
    let set = LocalRequest::Override { stage: stage(), release, for_ms: 3_600_000, by: "ops".into(), reason };
    assert!(matches!(request(folder.path(), set).await.expect("answered"), LocalReply::Done { .. }));
    let end = LocalRequest::End { stage: stage(), by: "anna".into() };
    assert!(matches!(request(folder.path(), end).await.expect("answered"), LocalReply::Done { .. }));
    // Several attempts fail meanwhile: the first comes at once, the second after 100 ms.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;

    let mut links = serve(tokio::net::TcpListener::bind(address).await.expect("still free"));
    for attempt in ["the first time", "again, because that stream broke at once: nobody knows what came through"] {
        let mut link = links.recv().await.expect("connected");
        link.hello().await;
        let told = link.override_told().await;
        assert_eq!((told.release, told.by.as_str(), told.reason.as_str()), (1, "ops", "nobody answers"), "{attempt}");
        let told = link.override_told().await;
        assert_eq!((told.release, told.by.as_str()), (0, "anna"), "{attempt}");
    }
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_counts_of_a_release_that_is_gone_are_forgotten_and_go_on_when_it_comes_back() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r", Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (http, admin) = (proxy.http, proxy.admin);
    let (channel, mut links) = play().await;
    let following = tokio::spawn(async move { proxy.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let mut client = Client::http1(http).await;
    let mut admin = Client::http1(admin).await;
    // Each release is the only one when it is asked; then the first one comes back.
    for (number, release) in [(1, 1), (2, 2), (3, 3), (4, 1)] {
        let state = hello(Protocol::H1, &[(release, upstream.address, 1)]);
        link.send(Down::Transfer(transfer(at(number), &state))).await;
        assert_eq!(link.outcome().await.state(), State::Active);
        client.get(HOST, "/").await;
        let counted = loop {
            let Some(Up::Counts(counts)) = link.up.message().await.expect("connected").expect("a message").kind else {
                continue;
            };
            if let Some(one) = counts.releases.into_iter().find(|one| one.release == release) {
                break one.requests;
            }
        };
        assert_eq!(counted, if number == 4 { 2 } else { 1 }, "r{release} at {number}");
        if number == 3 {
            while admin.get("admin", "/metrics").await.body.contains("release=\"r1\"") {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    following.abort();
}

/// A controller that takes nobody: away at first, and then it does not accept the certificate.
struct Refusing(Arc<AtomicU32>);

#[tonic::async_trait]
impl Fleet for Refusing {
    type ConnectStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn connect(&self, _: Request<Streaming<ProxyMessage>>) -> Result<Response<Self::ConnectStream>, Status> {
        match self.0.fetch_add(1, Relaxed) {
            0 => Err(Status::unavailable("not yet")),
            _ => Err(Status::unauthenticated("this certificate is not accepted")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fleet_a_certificate_that_the_controller_does_not_take_is_told_to_its_owner() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = TestProxy::start(folder.path(), 1).await;
    let calls = Arc::<AtomicU32>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = Server::builder().add_service(FleetServer::new(Refusing(calls.clone())));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let (told, mut refused) = mpsc::unbounded_channel();
    let was_refused = || told.send(calls.load(Relaxed)).expect("somebody waits");
    tokio::select! {
        () = proxy.engine.follow(channel_to(address), was_refused) => {}
        call = refused.recv() => assert_eq!(call, Some(2), "not when it was away only"),
        () = tokio::time::sleep(PATIENCE) => panic!("nobody was told"),
    }
}
