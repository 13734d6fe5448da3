//! With real issuers: servers in this process that say what each test wants.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use certs::public::Public;
use certs::resolver::Certified;
use http::header::LOCATION;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// What an issuer says of a path.
enum Said {
    Text(String),
    Status(u16),
    Elsewhere(String),
    Late(Duration, String),
    /// A head, and no body ever.
    Half,
    Nothing,
}

type Shown = rcgen::CertifiedKey<rcgen::KeyPair>;
type Says = Arc<Mutex<Box<dyn Fn(&str) -> Said + Send>>>;

/// An issuer that runs until it is dropped.
struct Server {
    url: String,
    says: Says,
    asked: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    async fn start(says: impl Fn(&str) -> Said + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", None, says).await
    }

    /// `shown`: it speaks TLS, as "localhost".
    async fn start_at(address: &str, shown: Option<&Shown>, says: impl Fn(&str) -> Said + Send + 'static) -> Self {
        certs::install_provider();
        let listener = TcpListener::bind(address).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let tls = shown.map(|shown| {
            let public = Public::new();
            let certified =
                Certified::parse(&["localhost".to_owned()], &[shown.cert.der()], &shown.signing_key.serialize_der());
            public.resolver().publish(vec![certified.expect("usable")]);
            tokio_rustls::TlsAcceptor::from(public.common().clone())
        });
        let url = match &tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let says: Says = Arc::new(Mutex::new(Box::new(says)));
        let (asked, most_at_once) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (answers, counts) = (says.clone(), (asked.clone(), most_at_once.clone()));
        let accepting = tokio::spawn(async move {
            let (mut serving, at_once) = (JoinSet::new(), Arc::<AtomicUsize>::default());
            loop {
                let (stream, _) = listener.accept().await.expect("a client");
                let (says, counts, at_once, tls) = (answers.clone(), counts.clone(), at_once.clone(), tls.clone());
                serving.spawn(async move {
                    counts.1.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                    match tls {
                        None => serve(stream, says, &counts.0).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, says, &counts.0).await;
                            }
                        }
                    }
                    at_once.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { url, says, asked, most_at_once, accepting }
    }

    fn says(&self, says: impl Fn(&str) -> Said + Send + 'static) {
        *self.says.lock().expect("not poisoned") = Box::new(says);
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    /// An issuer whose keys are at a known address.
    fn issuer(&self) -> fleet::Issuer {
        fleet::Issuer { jwks_url: format!("{}/keys", self.url), ..self.discovered() }
    }

    fn discovered(&self) -> fleet::Issuer {
        fleet::Issuer { issuer: self.url.clone(), audiences: vec!["pointsman".into()], ..fleet::Issuer::default() }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, says: Says, asked: &AtomicUsize) {
    let service = service_fn(|request: Request<Incoming>| {
        asked.fetch_add(1, SeqCst);
        let said = says.lock().expect("not poisoned")(request.uri().path());
        async move { Ok::<_, Infallible>(say(said).await) }
    });
    // A client that goes away is none of its concern.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn say(said: Said) -> Response<BoxBody<Bytes, Infallible>> {
    let text = |text: String| Response::new(Full::new(Bytes::from(text)).boxed());
    let empty = |status: u16| {
        let mut answer = Response::new(Empty::new().boxed());
        *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
        answer
    };
    match said {
        Said::Text(said) => text(said),
        Said::Status(status) => empty(status),
        Said::Elsewhere(location) => {
            let mut answer = empty(302);
            answer.headers_mut().insert(LOCATION, location.parse().expect("a location"));
            answer
        }
        Said::Late(wait, said) => {
            tokio::time::sleep(wait).await;
            text(said)
        }
        Said::Half => Response::new(StreamBody::new(tokio_stream::pending()).boxed()),
        Said::Nothing => std::future::pending().await,
    }
}

/// One that speaks for itself.
fn certificate() -> Shown {
    rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate")
}

/// A set of one new key.
fn set_of(kid: &str) -> String {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"{kid}","x":"{x}","y":"{y}"}}]}}"#)
}

/// Issuers in a folder, with what runs beside them.
struct Running {
    issuers: Arc<Issuers>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::ops::Deref for Running {
    type Target = Issuers;

    fn deref(&self) -> &Issuers {
        &self.issuers
    }
}

fn run_in(data: &Path, set: &[(&str, &fleet::Issuer)]) -> Running {
    let issuers = Issuers::start(data, Authorities::default());
    issuers.set(set.iter().copied());
    Running { task: tokio::spawn(issuers.clone().run()), issuers }
}

impl Running {
    fn generation(&self) -> u64 {
        self.keys().load().generation
    }

    fn has(&self, name: &str) -> bool {
        self.keys().load().issuers.contains_key(name)
    }

    /// The set that counts, as it came; empty: none.
    fn text(&self, name: &str) -> String {
        self.board().kept().remove(name).map(|kept| kept.keys).unwrap_or_default()
    }

    fn seen(&self, name: &str) -> board::Seen {
        self.board().seen().into_iter().find(|one| *one.name == *name).expect("known")
    }

    fn failed(&self, name: &str) -> u64 {
        let board::Counts { unreachable, refused, unusable, .. } = self.seen(name).counts;
        unreachable + refused + unusable
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn issuers_are_discovered_over_verified_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shown, other) = (certificate(), certificate());
    let keys = set_of("one");
    let server = Server::start_at("127.0.0.1:0", Some(&shown), |_| Said::Status(404)).await;
    let (url, said) = (server.url.clone(), keys.clone());
    server.says(move |path| match path {
        "/.well-known/openid-configuration" => {
            Said::Text(format!(r#"{{"issuer":"{url}","jwks_uri":"{url}/k","other":[1]}}"#))
        }
        "/k" => Said::Text(said.clone()),
        _ => Said::Status(404),
    });
    let trusted = fleet::Issuer { ca_pem: shown.cert.pem(), ..server.discovered() };
    let misled = fleet::Issuer { ca_pem: other.cert.pem(), ..server.discovered() };
    // In the folder of nobody, so that nobody is trusted.
    let untold = server.discovered();
    let running = run_in(folder.path(), &[("corp", &trusted), ("misled", &misled), ("untold", &untold)]);
    running.until("fetched", |running| running.has("corp")).await;
    assert_eq!(running.text("corp"), keys);
    running.until("both failed", |running| running.failed("misled") > 0 && running.failed("untold") > 0).await;
    assert!(!running.has("misled") && !running.has("untold"));
    assert!(running.seen("misled").counts.unreachable > 0);
}

#[tokio::test]
async fn issuers_configurations_have_to_be_their_own() {
    let server = Server::start(|_| Said::Status(404)).await;
    for (what, says) in [
        ("another issuer", r#"{"issuer":"https://login.example.com","jwks_uri":"URL/keys"}"#),
        ("a slash more", r#"{"issuer":"URL/","jwks_uri":"URL/keys"}"#),
        ("no address", r#"{"issuer":"URL"}"#),
        ("in clear, elsewhere", r#"{"issuer":"URL","jwks_uri":"http://example.com/keys"}"#),
        ("another scheme", r#"{"issuer":"URL","jwks_uri":"file:///etc/passwd"}"#),
        ("credentials", r#"{"issuer":"URL","jwks_uri":"https://a:b@example.com/keys"}"#),
        ("twice", r#"{"issuer":"https://x.example","issuer":"URL","jwks_uri":"URL/keys"}"#),
        ("a list", r#"["URL"]"#),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (keys, says) = (set_of("one"), says.replace("URL", &server.url));
        server.says(move |path| Said::Text(if path == "/keys" { keys.clone() } else { says.clone() }));
        let running = run_in(folder.path(), &[("corp", &server.discovered())]);
        running.until(what, |running| running.seen("corp").counts.unusable > 0).await;
        assert!(!running.has("corp"), "{what}");
    }
}

#[tokio::test]
async fn hostile_h45_issuers_that_fail_lose_no_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = set_of("one");
    let said = keys.clone();
    let server = Server::start(move |_| Said::Text(said.clone())).await;
    let running = run_in(folder.path(), &[("corp", &server.issuer())]);
    running.until("fetched", |running| running.has("corp")).await;
    let (ring, at_ms) = (running.keys().load_full(), running.seen("corp").at_ms);
    let elsewhere = Server::start(|_| Said::Text(set_of("evil"))).await;
    let leads = format!("{}/keys", elsewhere.url);
    let huge = format!("{}{}", set_of("two"), " ".repeat(256 * 1024));
    type Says = Box<dyn Fn(&str) -> Said + Send>;
    let cases: [(&str, Says); 9] = [
        ("an error", Box::new(|_| Said::Status(500))),
        ("HTML", Box::new(|_| Said::Text("<html><body>Welcome to the hotel</body></html>".into()))),
        ("nothing", Box::new(|_| Said::Text(String::new()))),
        ("no keys", Box::new(|_| Said::Text(r#"{"keys":[]}"#.into()))),
        ("a redirect", Box::new(move |_| Said::Elsewhere(leads.clone()))),
        ("too much", Box::new(move |_| Said::Text(huge.clone()))),
        ("too late", Box::new(|_| Said::Late(Duration::from_secs(7), set_of("late")))),
        ("half of it", Box::new(|_| Said::Half)),
        ("no answer", Box::new(|_| Said::Nothing)),
    ];
    for (what, says) in cases {
        server.says(says);
        // Another source, so that it is asked at once: the same addresses, other authorities.
        let failed = running.failed("corp");
        let again = fleet::Issuer { ca_pem: certificate().cert.pem(), ..server.issuer() };
        running.set([("corp", &again)].into_iter());
        running.until(what, |running| running.failed("corp") > failed).await;
        assert!(running.seen("corp").failing_ms.is_some() && running.seen("corp").at_ms == at_ms, "{what}");
        assert_eq!(running.text("corp"), keys, "{what}");
        assert!(Arc::ptr_eq(&running.keys().load().issuers["corp"], &ring.issuers["corp"]), "{what}");
    }
    assert_eq!(elsewhere.asked(), 0, "redirects are not followed");
    let newer = set_of("two");
    let said = newer.clone();
    server.says(move |_| Said::Text(said.clone()));
    running.until("back again", |running| running.text("corp") == newer).await;
    assert_eq!(running.seen("corp").failing_ms, None);
}

#[tokio::test]
async fn issuers_that_are_down_at_the_start_are_asked_until_they_are_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let (issuer, address) = {
        let server = Server::start(|_| Said::Status(404)).await;
        (server.issuer(), server.url.trim_start_matches("http://").to_owned())
    };
    let well = Server::start(|_| Said::Text(set_of("well"))).await;
    let running = run_in(folder.path(), &[("corp", &issuer), ("well", &well.issuer())]);
    running.until("asked in vain", |running| running.seen("corp").counts.unreachable > 0).await;
    running.until("the other is there", |running| running.has("well")).await;
    assert!(!running.has("corp"));
    let _server = Server::start_at(&address, None, |_| Said::Text(set_of("one"))).await;
    running.until("there", |running| running.has("corp")).await;
}

#[tokio::test]
async fn issuers_keys_count_after_a_restart_before_they_are_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = set_of("one");
    let said = keys.clone();
    let server = Server::start(move |_| Said::Text(said.clone())).await;
    let issuer = server.issuer();
    let running = run_in(folder.path(), &[("corp", &issuer)]);
    let path = folder.path().join("keys.json");
    running.until("on disk", |_| path.exists()).await;
    drop((running, server));
    let issuers = Issuers::start(folder.path(), Authorities::default());
    assert!(issuers.keys().load().issuers.is_empty(), "nobody has named them");
    issuers.set([("corp", &issuer)].into_iter());
    assert!(issuers.keys().load().issuers.contains_key("corp"), "without a fetch");
    assert_eq!(issuers.board().kept()["corp"].keys, keys);

    // They count for nobody else, be it by the same name.
    for other in [
        fleet::Issuer { issuer: "https://other.example.com".into(), ..issuer.clone() },
        fleet::Issuer { jwks_url: "https://other.example.com/keys".into(), ..issuer.clone() },
    ] {
        let issuers = Issuers::start(folder.path(), Authorities::default());
        issuers.set([("corp", &other)].into_iter());
        assert!(issuers.keys().load().issuers.is_empty(), "{other:?}");
        issuers.set([("corp", &issuer)].into_iter());
        assert!(issuers.keys().load().issuers.is_empty(), "nor afterwards");
    }
    // Damage is no reason not to start.
    for damaged in [&b"{"[..], b"\xff", br#"{"corp":{"issuer":"x"}}"#] {
        std::fs::write(&path, damaged).expect("written");
        Issuers::start(folder.path(), Authorities::default()).set([("corp", &issuer)].into_iter());
    }
    let unusable =
        kept::Kept { issuer: issuer.issuer.clone(), jwks_url: issuer.jwks_url.clone(), at_ms: 1, keys: "{}".into() };
    kept::save(&path, &BTreeMap::from([("corp".to_owned(), unusable)])).expect("written");
    let issuers = Issuers::start(folder.path(), Authorities::default());
    issuers.set([("corp", &issuer)].into_iter());
    assert!(issuers.keys().load().issuers.is_empty(), "what cannot be used does not count");
}

#[tokio::test]
async fn issuers_that_rotate_are_fetched_when_a_token_names_the_new_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Said::Text(set_of("one"))).await;
    let fixed = set_of("one");
    server.says(move |_| Said::Text(fixed.clone()));
    let running = run_in(folder.path(), &[("corp", &server.issuer())]);
    running.until("fetched", |running| running.has("corp")).await;
    let seen = running.generation();
    let newer = set_of("two");
    let said = newer.clone();
    server.says(move |_| Said::Text(said.clone()));
    assert!(running.newer("corp", seen).await);
    assert_eq!(running.text("corp"), newer);
    assert!(running.generation() > seen);
    // Whoever saw the ring before is told at once, whether or not a fetch is allowed.
    assert!(running.newer("corp", seen).await);
    assert_eq!(server.asked(), 2);
    // And the ring stays what it is as long as the keys are the same.
    assert!(!running.newer("corp", running.generation()).await, "one in thirty seconds");
    assert!(!running.newer("nobody", running.generation()).await);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn hostile_h45_a_key_rotated_right_after_a_start_is_fetched_whoever_knocked_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Said::Text(set_of("one"))).await;
    let running = run_in(folder.path(), &[("corp", &server.issuer())]);
    // Before the first fetch has begun: it is awaited.
    assert!(running.newer("corp", running.generation()).await && server.asked() == 1);
    // By somebody who has not seen what it brought.
    running.doors.load()["corp"].knock(running.generation() - 1);
    running.changed.notify_one();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.asked(), 1);
    let newer = set_of("two");
    let said = newer.clone();
    server.says(move |_| Said::Text(said.clone()));
    assert!(running.newer("corp", running.generation()).await);
    assert_eq!((server.asked(), running.text("corp")), (2, newer));
}

#[tokio::test]
async fn issuers_that_rotate_at_once_are_each_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) =
        (Server::start(|_| Said::Text(set_of("one"))).await, Server::start(|_| Said::Text(set_of("two"))).await);
    let running = run_in(folder.path(), &[("one", &one.issuer()), ("two", &two.issuer())]);
    running.until("fetched", |running| running.has("one") && running.has("two")).await;
    let seen = running.generation();
    for server in [&one, &two] {
        server.says(|_| Said::Text(set_of("newer")));
    }
    // The ring is another one then, and says nothing of the other issuer.
    assert!(running.newer("one", seen).await && (one.asked(), two.asked()) == (2, 1));
    assert!(running.newer("two", seen).await && (one.asked(), two.asked()) == (2, 2));
}

#[tokio::test]
async fn hostile_h45_a_flood_of_unknown_keys_has_them_fetched_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = set_of("one");
    let said = keys.clone();
    let server = Server::start(move |_| Said::Text(said.clone())).await;
    let other = Server::start(|_| Said::Text(set_of("other"))).await;
    let running = run_in(folder.path(), &[("corp", &server.issuer()), ("other", &other.issuer())]);
    running.until("fetched", |running| running.has("corp") && running.has("other")).await;
    let said = keys.clone();
    server.says(move |_| Said::Late(Duration::from_millis(300), said.clone()));
    let seen = running.generation();
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        for _ in 0..1_000 {
            let issuers = running.issuers.clone();
            asking.spawn(async move { issuers.newer("corp", seen).await });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let told: Vec<bool> = asking.join_all().await;
    assert!(told.len() == 20_000 && !told.contains(&true));
    assert_eq!((server.asked(), server.most_at_once.load(SeqCst)), (2, 1));
    assert!(Arc::ptr_eq(&running.keys().load_full(), &running.keys().load_full()) && running.generation() == seen);
    // The others go their own way.
    let newer = set_of("newer");
    let said = newer.clone();
    other.says(move |_| Said::Text(said.clone()));
    assert!(running.newer("other", seen).await);
    assert_eq!(running.text("other"), newer);
}

#[tokio::test]
async fn hostile_h45_nobody_waits_long_for_an_issuer_that_hangs() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Said::Nothing).await;
    let running = run_in(folder.path(), &[("corp", &server.issuer())]);
    running.until("asked", |_| server.asked() == 1).await;
    // The fetch ends after five seconds; the wait ends before it does.
    assert!(!running.newer("corp", running.generation()).await);
    assert_eq!(running.failed("corp"), 0, "it is still under way");
    running.until("given up", |running| running.seen("corp").counts.unreachable == 1).await;
}

#[tokio::test]
async fn issuers_that_go_take_their_keys_with_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Said::Text(set_of("one"))).await;
    let issuer = server.issuer();
    let running = run_in(folder.path(), &[("corp", &issuer), ("also", &issuer)]);
    running.until("fetched", |running| running.has("corp") && running.has("also")).await;
    running.set([("also", &issuer)].into_iter());
    assert!(!running.has("corp") && running.has("also"));
    let ring = running.keys().load_full();
    let slower = fleet::Issuer { refresh_ms: 60_000, leeway_ms: 1, audiences: vec!["x".into()], ..issuer.clone() };
    running.set([("also", &slower)].into_iter());
    assert!(Arc::ptr_eq(&ring, &running.keys().load_full()), "the ring is the same when the keys are");
    let moved = fleet::Issuer { jwks_url: format!("{}/other", server.url), ..issuer };
    server.says(|_| Said::Status(404));
    running.set([("also", &moved)].into_iter());
    assert!(!running.has("also"), "keys from another address are not this one's");
}

#[test]
fn issuers_addresses_are_https_or_on_this_machine() {
    for (url, good) in [
        ("https://login.example.com", true),
        ("https://login.example.com:8443/realms/x", true),
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080/x", true),
        ("http://localhost", true),
        ("http://login.example.com", false),
        ("http://127.0.0.1.example.com", false),
        ("http://localhost.example.com", false),
        ("http://10.0.0.1", false),
        ("https://a@login.example.com", false),
        ("https://", false),
        ("login.example.com", false),
        ("file:///keys", false),
        ("", false),
    ] {
        let issuer = fleet::Issuer { issuer: url.into(), ..fleet::Issuer::default() };
        assert_eq!(check(&issuer).map_err(|(field, _)| field), if good { Ok(()) } else { Err("issuer") }, "{url}");
        if !url.is_empty() {
            let at = fleet::Issuer { issuer: "https://x.example".into(), jwks_url: url.into(), ..issuer };
            assert_eq!(check(&at).map_err(|(field, _)| field), if good { Ok(()) } else { Err("jwks_url") }, "{url}");
        }
    }
    let bad = fleet::Issuer { issuer: "https://x.example".into(), ca_pem: "x".into(), ..fleet::Issuer::default() };
    assert_eq!(check(&bad).expect_err("no certificate").0, "ca_pem");
}
