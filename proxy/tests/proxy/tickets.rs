//! Sessions that go on with every worker of every proxy that has the keys, and with nobody else.

use std::path::Path;
use std::sync::Arc;

use api::fleet::{Protocol, Resource, Secret, Tickets};
use certs::development::DevelopmentCa;
use certs::secret::{seal, ticket_id};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{HOST, TestProxy, Upstream, hello, resource, settings};
use crate::tls::{certificate, roots_of};

/// Several workers, so that most connections go to another one than the one before.
const WORKERS: usize = 3;

async fn start(data: &Path) -> TestProxy {
    let any = "127.0.0.1:0".parse().expect("an address");
    TestProxy::with(proxy::Settings { https: Some(any), ..settings(data, WORKERS) }).await
}

/// The resource that names keys, the current one first.
fn tickets(names: &[u8]) -> Resource {
    let mut names = names.iter().map(|name| vec![*name; 16]);
    let current = names.next().expect("the current one");
    let body = Tickets { current, accepted: names.collect() };
    Resource { schema: api::SCHEMA_SEALED, ..resource("tickets", "tickets", &body) }
}

fn key(name: u8, proxy: &TestProxy) -> Secret {
    seal(&ticket_id(&[name; 16]), &[name; 32], proxy.engine.seal_key()).expect("sealed")
}

/// Sends the keys, and then the state that names them; none: without tickets.
fn apply(proxy: &TestProxy, upstream: &Upstream, ca: &DevelopmentCa, names: &[u8]) {
    proxy.engine.take_secrets(names.iter().map(|name| key(*name, proxy)).collect());
    let mut state = hello(Protocol::H1, &[(1, upstream.address, 1)]);
    state.upserts.push(certificate(ca));
    state.upserts.extend((!names.is_empty()).then(|| tickets(names)));
    proxy.apply(state);
}

fn client(ca: &DevelopmentCa, version: &'static SupportedProtocolVersion) -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_protocol_versions(&[version]);
    let mut config = config.with_root_certificates(roots_of(ca)).with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    Arc::new(config)
}

/// A request on a connection of its own; how the handshake was.
async fn ask(proxy: &TestProxy, client: &Arc<rustls::ClientConfig>) -> HandshakeKind {
    let stream = TcpStream::connect(proxy.https()).await.expect("connected");
    let name = ServerName::try_from(HOST).expect("a name");
    let connector = tokio_rustls::TlsConnector::from(client.clone());
    let mut stream = connector.connect(name, stream).await.expect("trusted");
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream.get_ref().1.handshake_kind().expect("shaken")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_are_good_on_every_worker_of_every_proxy_while_their_key_is() {
    let folder = tempfile::tempdir().expect("folder");
    certs::install_provider();
    let ca = DevelopmentCa::open_or_create(&folder.path().join("ca")).expect("authority");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let (here, there) = (start(&folder.path().join("here")).await, start(&folder.path().join("there")).await);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client(&ca, version);
        for proxy in [&here, &there] {
            apply(proxy, &upstream, &ca, &[1]);
        }
        assert_eq!(ask(&here, &client).await, HandshakeKind::Full);
        // What could be played again is not asked for.
        let name = ServerName::try_from(HOST).expect("a name");
        let mut next = rustls::ClientConnection::new(client.clone(), name).expect("begun");
        assert!(next.early_data().is_none(), "{version:?}");
        for proxy in [&there, &here, &there, &here, &here, &here, &here, &here] {
            assert_eq!(ask(proxy, &client).await, HandshakeKind::Resumed, "{version:?}");
        }
        // A rotation that one of them has heard of already: each takes the other's.
        apply(&there, &upstream, &ca, &[1, 2]);
        apply(&here, &upstream, &ca, &[2, 1]);
        for proxy in [&here, &there, &here] {
            assert_eq!(ask(proxy, &client).await, HandshakeKind::Resumed, "{version:?} rotated");
        }
        // The key is gone, and with it what was made with it.
        apply(&here, &upstream, &ca, &[3]);
        assert_eq!(ask(&here, &client).await, HandshakeKind::Full, "{version:?} gone");
        // Keys of the same name that are others.
        apply(&there, &upstream, &ca, &[]);
        assert_eq!(ask(&there, &client).await, HandshakeKind::Full, "{version:?} no keys");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_are_not_given_without_keys() {
    let folder = tempfile::tempdir().expect("folder");
    certs::install_provider();
    let ca = DevelopmentCa::open_or_create(&folder.path().join("ca")).expect("authority");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let proxy = start(&folder.path().join("data")).await;
    apply(&proxy, &upstream, &ca, &[]);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let client = client(&ca, version);
        for _ in 0..3 {
            assert_eq!(ask(&proxy, &client).await, HandshakeKind::Full, "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_that_name_keys_which_did_not_come_are_refused_with_their_place() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = start(&folder.path().join("data")).await;
    proxy.engine.take_secrets(vec![key(1, &proxy)]);
    let named = |current: &[u8], accepted: &[&[u8]]| {
        let accepted = accepted.iter().map(|name| name.to_vec()).collect();
        resource("tickets", "tickets", &Tickets { current: current.to_vec(), accepted })
    };
    let version = api::Version { term: 9, number: 1 };
    for (tickets, field) in [
        (tickets(&[2]), "current"),
        (tickets(&[1, 2]), "accepted[0]"),
        (named(&[], &[]), "current"),
        (named(&[1; 16], &[&[1; 15]]), "accepted[0]"),
        (named(&[1; 16], &[&[1; 16][..]; 9]), "accepted"),
        (Resource { name: "others".into(), ..tickets(&[1]) }, "name"),
    ] {
        let refused = proxy.engine.apply(version, crate::support::set(vec![tickets])).expect_err("refused");
        assert_eq!(refused.0[0].field, field, "{refused}");
    }
    proxy.engine.apply(version, crate::support::set(vec![tickets(&[1])])).expect("good");
}
