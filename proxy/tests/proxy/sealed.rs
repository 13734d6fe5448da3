//! Keys that travel sealed for one proxy: they serve, are on disk before what names them is safe, and a restart needs
//! nobody to bring them again.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Version;
use api::fleet::controller_message::Kind as Down;
use api::fleet::progress::State;
use api::fleet::{Protocol, Resource, ResourceSet, Secret, Secrets};
use certs::development::DevelopmentCa;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::fleet::{Link, at, play, transfer};
use crate::site::is_as_before;
use crate::support::{Client, HOST, TestProxy, Upstream, hello, settings, until};
use crate::tls::{roots_of, sealed, shaken};

/// A proxy that follows a played controller; what it serves HTTPS with comes from there.
struct Fleet {
    proxy: std::sync::Arc<TestProxy>,
    link: Link,
    greeting: api::fleet::Hello,
    following: JoinHandle<()>,
}

async fn start(data: &Path) -> Fleet {
    let any = "127.0.0.1:0".parse().expect("an address");
    let proxy = TestProxy::with(proxy::Settings { https: Some(any), ..settings(data, 1) }).await;
    let proxy = std::sync::Arc::new(proxy);
    let (channel, mut links) = play().await;
    let engine = proxy.clone();
    let following = tokio::spawn(async move { engine.engine.follow(channel, || {}).await });
    let mut link = links.recv().await.expect("connected");
    let greeting = link.hello().await;
    Fleet { proxy, link, greeting, following }
}

impl Fleet {
    async fn sends(&self, secrets: &[Secret]) {
        self.link.send(Down::Secrets(Secrets { secrets: secrets.to_vec() })).await;
    }

    /// Sends a full state and gives how it ended.
    async fn applies(&mut self, version: Version, set: &ResourceSet) -> api::fleet::Progress {
        self.link.send(Down::Transfer(transfer(version, set))).await;
        self.link.outcome().await
    }

    /// Ends it as it is, without a word to the disk.
    async fn ends(self) {
        self.following.abort();
        let _ = self.following.await;
        let proxy = std::sync::Arc::into_inner(self.proxy).expect("nobody else has it");
        proxy.engine.drain().await;
    }

    /// Whether a handshake for the host works out, and a request through it.
    async fn serves_https(&self, ca: &DevelopmentCa) {
        let mut stream = shaken(self.proxy.https(), roots_of(ca), "http/1.1", HOST).await;
        stream
            .write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n").as_bytes())
            .await
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    async fn refuses_https(&self) {
        let stream = tokio::net::TcpStream::connect(self.proxy.https()).await.expect("connected");
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = rustls::pki_types::ServerName::try_from(HOST).expect("a name");
        let error = connector.connect(name, stream).await.expect_err("there is no certificate");
        assert!(error.to_string().contains("AccessDenied"), "{error}");
    }
}

fn authority(folder: &Path) -> DevelopmentCa {
    certs::install_provider();
    DevelopmentCa::open_or_create(&folder.join("ca")).expect("authority")
}

fn state(upstream: &Upstream, certificate: &Resource) -> ResourceSet {
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.push(certificate.clone());
    state
}

fn on_disk(data: &Path) -> String {
    std::fs::read_to_string(data.join("secrets.json")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_keys_serve_and_a_restart_needs_no_controller() {
    let folder = tempfile::tempdir().expect("folder");
    let (ca, data) = (authority(folder.path()), folder.path().join("data"));
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut fleet = start(&data).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
    let told = Duration::from_millis(fleet.greeting.at_ms);
    assert!(now.abs_diff(told) < Duration::from_secs(3_600), "{told:?}");
    assert_eq!((fleet.greeting.seal_key.len(), &*fleet.greeting.seal_key), (32, fleet.proxy.engine.seal_key()));

    let (certificate, key) = sealed(&ca, &fleet.greeting.seal_key);
    let state = state(&upstream, &certificate);
    // Without its key it is refused whole, with its place.
    let refused = fleet.applies(at(1), &state).await;
    let [rejection] = &refused.rejections[..] else { panic!("{refused:?}") };
    assert_eq!((&*rejection.resource, &*rejection.field), ("certificate *.staging.example.com", "key_der"));
    assert!(rejection.reason.contains("did not come"), "{rejection:?}");
    // Nor with what was sealed for another proxy.
    let (_, foreign) = sealed(&ca, authority_of_another(folder.path()).public());
    fleet.sends(&[foreign]).await;
    assert_eq!(fleet.applies(at(1), &state).await.state(), State::Rejected);
    fleet.refuses_https().await;

    fleet.sends(std::slice::from_ref(&key)).await;
    assert_eq!(fleet.applies(at(1), &state).await.state(), State::Active);
    fleet.serves_https(&ca).await;
    let page = Client::http1(fleet.proxy.admin).await.get("admin", "/metrics").await.body;
    let zone = "staging.example.com".parse().expect("a zone");
    let expires = ca.wildcard(&zone, SystemTime::now()).expect("kept").expires_s;
    let line = format!("pointsman_proxy_certificate_expires_seconds{{name=\"*.staging.example.com\"}} {expires}\n");
    assert!(page.contains(&line), "{page}");
    // ACTIVE: on disk, as it came, and for nobody else.
    assert!(on_disk(&data).contains(&key.id));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&data.join("secrets.json").metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    fleet.ends().await;

    let again = start(&data).await;
    assert_eq!(again.greeting.have, Some(at(1).into()));
    again.serves_https(&ca).await;
}

fn authority_of_another(folder: &Path) -> certs::secret::SealKey {
    certs::secret::SealKey::open_or_create(&folder.join("another")).expect("made")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_certificates_of_two_environments_for_one_name_are_two_series() {
    let folder = tempfile::tempdir().expect("folder");
    let ca = authority(folder.path());
    let proxy = TestProxy::start(&folder.path().join("data"), 1).await;
    let (certificate, key) = sealed(&ca, proxy.engine.seal_key());
    proxy.engine.take_secrets(vec![key]);
    let of =
        |environment: &str| Resource { name: format!("{environment}/{}", certificate.name), ..certificate.clone() };
    proxy.apply(crate::support::set(vec![of("staging"), of("production")]));
    let page = Client::http1(proxy.admin).await.get("admin", "/metrics").await.body;
    for environment in ["staging", "production"] {
        let start =
            format!("pointsman_proxy_certificate_expires_seconds{{name=\"{environment}/*.staging.example.com\"}} ");
        assert_eq!(page.lines().filter(|line| line.starts_with(&start)).count(), 1, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_keys_that_cannot_be_saved_leave_the_change_unsaved() {
    let folder = tempfile::tempdir().expect("folder");
    let (ca, data) = (authority(folder.path()), folder.path().join("data"));
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut fleet = start(&data).await;
    let (certificate, key) = sealed(&ca, &fleet.greeting.seal_key);
    // In the way of the file that is written first.
    let way = data.join("secrets.json.new");
    std::fs::create_dir(&way).expect("made");
    std::fs::write(way.join("x"), "").expect("written");
    fleet.sends(&[key]).await;
    let outcome = fleet.applies(at(1), &state(&upstream, &certificate)).await;
    assert_eq!(outcome.state(), State::Unsaved);
    assert!(outcome.note.contains("secrets cannot be saved"), "{outcome:?}");
    fleet.serves_https(&ca).await;
    assert!(!data.join("state/base").exists(), "what names them is not on disk before them");
    std::fs::remove_dir_all(&way).expect("removed");
    while fleet.link.outcome().await.state() != State::Active {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_keys_that_nothing_names_any_more_go_with_a_later_change() {
    let folder = tempfile::tempdir().expect("folder");
    let (ca, data) = (authority(folder.path()), folder.path().join("data"));
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut fleet = start(&data).await;
    let (certificate, key) = sealed(&ca, &fleet.greeting.seal_key);
    fleet.sends(std::slice::from_ref(&key)).await;
    assert_eq!(fleet.applies(at(1), &state(&upstream, &certificate)).await.state(), State::Active);
    assert!(on_disk(&data).contains(&key.id));
    let without = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    assert_eq!(fleet.applies(at(2), &without).await.state(), State::Active);
    until("it is gone", || !on_disk(&data).contains(&key.id)).await;
    // It comes again, and so does what names it.
    fleet.sends(std::slice::from_ref(&key)).await;
    assert_eq!(fleet.applies(at(3), &state(&upstream, &certificate)).await.state(), State::Active);
    assert!(on_disk(&data).contains(&key.id));
    fleet.serves_https(&ca).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h81_damaged_secrets_are_asked_for_anew_and_all_else_serves() {
    let folder = tempfile::tempdir().expect("folder");
    let (ca, data) = (authority(folder.path()), folder.path().join("data"));
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let mut fleet = start(&data).await;
    let (certificate, key) = sealed(&ca, &fleet.greeting.seal_key);
    let state = state(&upstream, &certificate);
    fleet.sends(std::slice::from_ref(&key)).await;
    assert_eq!(fleet.applies(at(1), &state).await.state(), State::Active);
    fleet.ends().await;

    let whole = on_disk(&data);
    let middle = whole.find("sealed").expect("there") + 30;
    let mut flipped = whole.clone().into_bytes();
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    for damage in [Some(&b"garbage"[..]), Some(&whole.as_bytes()[..middle]), Some(&flipped), Some(b""), None] {
        match damage {
            Some(bytes) => std::fs::write(data.join("secrets.json"), bytes).expect("written"),
            None => std::fs::remove_file(data.join("secrets.json")).expect("removed"),
        }
        let again = start(&data).await;
        // The routes are there, and it does not claim to have all of it.
        assert_eq!((again.greeting.have, again.proxy.engine.version()), (None, Some(at(1))));
        assert_eq!(Client::http1(again.proxy.http).await.get(HOST, "/").await.status, 200);
        again.refuses_https().await;
        again.ends().await;
    }
    // The key alone makes it whole.
    let mut again = start(&data).await;
    again.sends(std::slice::from_ref(&key)).await;
    until("it is on disk", || on_disk(&data).contains(&key.id)).await;
    again.serves_https(&ca).await;
    assert_eq!(again.applies(at(1), &state).await.state(), State::Active);
    again.ends().await;

    // A key of the proxy's own that is damaged is made anew, and what was sealed for the old one is as lost.
    for damage in [|_: &str| "{".to_owned(), another_digit] {
        let path = data.join("seal-key.json");
        let damaged = damage(&std::fs::read_to_string(&path).expect("a key"));
        std::fs::write(&path, &damaged).expect("written");
        let mut again = start(&data).await;
        assert_eq!(again.greeting.have, None);
        assert_eq!(std::fs::read_to_string(data.join("seal-key.damaged")).expect("moved there"), damaged);
        let (_, anew) = sealed(&ca, &again.greeting.seal_key);
        again.sends(&[anew]).await;
        assert_eq!(again.applies(at(1), &state).await.state(), State::Active);
        again.serves_https(&ca).await;
        is_as_before(&again.proxy, upstream.address).await;
        again.ends().await;
    }
}

/// The same with another digit in the first number of the first list.
fn another_digit(json: &str) -> String {
    let digit = json.find('[').and_then(|list| Some(list + json[list..].find(',')? - 1)).expect("a list");
    let other = if json[digit..].starts_with('0') { "1" } else { "0" };
    [&json[..digit], other, &json[digit + 1..]].concat()
}
