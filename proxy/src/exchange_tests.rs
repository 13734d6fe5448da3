use std::rc::Rc;
use std::sync::Arc;

use api::fleet::{self, Resource, StageAccess};
use arc_swap::ArcSwap;
use policies::credential::assertion::{Key, Signer, jwks};
use policies::credential::{KeyRing, KeySet, api_key, denial};
use policies::policy::Action;
use policies::verdict::Why;

use super::*;
use crate::codec::connection::Connection;
use crate::codec::rewrite::Keep;
use crate::codec::testing::{connection, head};
use crate::codec::upload::Upload;
use crate::counted::allocations;
use crate::decide::{Leak, Request, Work};
use crate::issuers::Issuers;
use crate::request_id::IdKey;
use crate::settings::Limits;
use crate::snapshot::{Compiler, fixture};
use crate::split::Phase;
use crate::totals::Totals;
use crate::worker::Setup;
use crate::{callers, denied, explain, forwarded, lasting};

const SECRET: &str = "secret.staging.example.com";
const NOBODY: &str = "nobody.staging.example.com";
const NOWHERE: &str = "secret.elsewhere.example";

/// What was done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    work: Work,
    allocations: u64,
    length: usize,
}

fn guarded(name: &str, access: StageAccess) -> Resource {
    use prost::Message;
    let open = fixture::stage(name, &[1]);
    let body = fleet::Stage { access: Some(access), ..fleet::Stage::decode(&*open.body).expect("a stage") };
    fixture::resource("stage", name, &body)
}

/// With policies of the usual form: what Cedar allocates for one depends on how it is written.
fn resources(key: &api_key::Drawn) -> Vec<Resource> {
    let text = r#"
        permit (principal, action in [Action::"discover", Action::"call"], resource == Stage::"hello/staging")
        when { context has application };
        forbid (principal, action == Action::"read", resource == Stage::"hello/staging")
        when { context.path == "/closed" };
        permit (principal in Group::"staff", action == Action::"discover", resource == Stage::"secret/staging");
        permit (principal in Group::"ops", action == Action::"discover", resource == Stage::"secret/staging");
        permit (principal in Group::"ops", action == Action::"check", resource == Stage::"secret/staging")
        when { context.client.isLoopback() };
        permit (principal in Group::"ops", action == Action::"preflight", resource == Stage::"secret/staging")
        when { context.client.isLoopback() };
    "#;
    let key = fleet::ApiKey { sha256: key.sha256.as_bytes().to_vec(), until_ms: 0 };
    let application = fleet::Application { keys: vec![key], ..fleet::Application::default() };
    vec![
        fixture::zone("staging", "staging.example.com"),
        guarded("hello/staging", StageAccess { needs_application: true, ..StageAccess::default() }),
        guarded("secret/staging", StageAccess::default()),
        fixture::stage("open/staging", &[1]),
        fixture::split("hello/staging", &[(1, 1)]),
        fixture::split("open/staging", &[(1, 1)]),
        fixture::resource("policy", "staff.cedar", &fleet::Policy { text: text.into() }),
        fixture::resource("application", "batch", &application),
    ]
}

/// What a worker has from others.
struct Around {
    published: Arc<ArcSwap<Snapshot>>,
    totals: Arc<Totals>,
    issuers: Arc<Issuers>,
    _folder: tempfile::TempDir,
}

fn worker(resources: &[Resource]) -> (Rc<Worker>, Around) {
    let folder = tempfile::tempdir().expect("folder");
    let (opened, _) = std::sync::mpsc::channel();
    let (_, stop) = tokio::sync::watch::channel(None);
    let (_, questions) = explain::channel();
    let around = Around {
        published: Arc::new(ArcSwap::new(fixture::snapshot(resources))),
        totals: Arc::default(),
        issuers: Issuers::start(folder.path(), certs::endpoint::Authorities::default()),
        _folder: folder,
    };
    let setup = Setup {
        phase: Phase { index: 0, workers: 1 },
        http: None,
        https: None,
        snapshot: around.published.clone(),
        opened,
        tripped: tokio::sync::mpsc::unbounded_channel().0,
        limits: Limits::default(),
        stop,
        totals: around.totals.clone(),
        trusted: forwarded::Trusted::new(Vec::new()),
        proxy_protocol: false,
        ids: IdKey::draw().expect("random bytes"),
        issuers: around.issuers.clone(),
        seal: Arc::new(denied::seal_of_process().expect("random bytes")),
        log: None,
        questions,
    };
    (Worker::new(&setup), around)
}

/// Answers a request on a connection of its own.
async fn asks(worker: &Rc<Worker>, text: &str) -> (Done, Vec<u8>) {
    asks_on(worker, &connection("192.0.2.7", &[]), text).await
}

async fn asks_on(worker: &Rc<Worker>, connection: &Rc<Connection>, text: &str) -> (Done, Vec<u8>) {
    let inbound = Box::new(Inbound { head: head(text), upload: Upload::nothing(), upgrade: None });
    let mut out = Vec::with_capacity(4_096);
    let (before, worked) = (allocations(), worker.work());
    let flight = Flight::begin(connection);
    match worker.answer(inbound, flight).await {
        Outbound::Own(notice, flight) => notice.write(false, Keep::Open, &flight, &mut out),
        other => panic!("it is not refused: {other:?}"),
    }
    let (after, work) = (allocations(), worker.work());
    let work = Work {
        looked_up: work.looked_up - worked.looked_up,
        found: work.found - worked.found,
        asked: work.asked - worked.asked,
        evaluated: work.evaluated - worked.evaluated,
    };
    (Done { work, allocations: after - before, length: out.len() }, out)
}

/// Each request by each caller, first and again, at `host`.
async fn all(host: &str, key: &api_key::Drawn) -> Vec<Done> {
    let mut done = Vec::new();
    for fields in [String::new(), format!("\nx-api-key: {}", key.text), "\nx-api-key: garbage".to_owned()] {
        // A worker of its own: nothing is known of anybody.
        let (worker, _folder) = worker(&resources(key));
        // What is made once for all, such as tables, is not for this request.
        asks(&worker, "GET / HTTP/1.1\nhost: first.staging.example.com").await;
        for line in ["GET /x", "HEAD /x", "POST /x", "OPTIONS *", "POST /grpc.health.v1.Health/Check"] {
            for more in
                ["", "\ncontent-type: application/grpc", "\norigin: https://a\naccess-control-request-method: GET"]
            {
                let text = format!("{line} HTTP/1.1\nhost: {host}{fields}{more}");
                done.push(asks(&worker, &text).await.0);
                done.push(asks(&worker, &text).await.0);
            }
        }
    }
    done
}

/// Where hosts that are not there are told from one that is hidden, and by what.
async fn told_apart(key: &api_key::Drawn) -> Vec<String> {
    let mut told = Vec::new();
    for release in ["", "r1--", "r9--"] {
        let hidden = all(&format!("{release}{SECRET}"), key).await;
        assert!(hidden.iter().any(|done| done.work.evaluated > 0), "policies were asked");
        for host in [NOBODY, NOWHERE] {
            let other = all(&format!("{release}{host}"), key).await;
            let pairs = hidden.iter().zip(&other).enumerate().filter(|(_, (hidden, other))| hidden != other);
            told.extend(pairs.map(|(place, pair)| format!("{release}{host}, request {place}: {pair:?}")));
        }
    }
    told
}

#[tokio::test]
async fn hostile_h47_the_same_is_done_for_what_is_hidden_and_what_is_not_there() {
    let told = told_apart(&api_key::draw(&[7; 40])).await;
    assert!(told.is_empty(), "{}: {told:#?}", told.len());
}

#[tokio::test]
async fn hostile_h47_an_early_return_or_a_header_more_is_noticed() {
    let key = api_key::draw(&[7; 40]);
    for leak in [Leak::Early, Leak::Header] {
        Leak::set(Some(leak));
        let told = told_apart(&key).await;
        Leak::set(None);
        assert!(!told.is_empty(), "{leak:?}");
    }
}

#[tokio::test]
async fn decisions_that_are_known_are_looked_up_and_ask_nobody() {
    let key = api_key::draw(&[7; 40]);
    let (worker, _folder) = worker(&resources(&key));
    let text = format!("GET /x HTTP/1.1\nhost: hello.staging.example.com\nx-api-key: {}", key.text);
    // Nothing serves there: that is found out after it was decided.
    let (first, out) = asks(&worker, &text).await;
    assert!(String::from_utf8_lossy(&out).starts_with("HTTP/1.1 503 "), "{first:?}");
    let (again, _) = asks(&worker, &text).await;
    assert!((first.work.asked, first.work.looked_up) == (2, 2), "discover, read: {first:?}");
    assert_eq!(again.work, Work { looked_up: 2, found: 3, asked: 0, evaluated: 0 });
    let (other, _) = asks(&worker, &text.replace("/x", "/x?a=1")).await;
    assert_eq!(other.work.asked, 0, "policies do not see the query");
    let (other, _) = asks(&worker, &text.replace("/x", "/y?a=1")).await;
    assert_eq!(other.work.asked, 1, "and they see the path");
    let bare = "GET /x HTTP/1.1\nhost: other.elsewhere.example".to_owned();
    asks(&worker, &bare).await;
    // A flood of what is not there pushes nothing out that is allowed.
    for number in 0..20_000 {
        asks(&worker, &format!("GET /x HTTP/1.1\nhost: n{number}.staging.example.com\nx-api-key: {}", key.text)).await;
    }
    assert_eq!(asks(&worker, &text).await.0.work, Work { looked_up: 2, found: 3, asked: 0, evaluated: 0 });
}

#[tokio::test]
async fn decisions_that_are_known_allocate_nothing() {
    let key = api_key::draw(&[7; 40]);
    let (worker, _folder) = worker(&resources(&key));
    for protocol in ["1.1", "2"] {
        let mut done = Vec::new();
        for host in ["open.staging.example.com", "hello.staging.example.com"] {
            let target = if protocol == "2" { format!("http://{host}/x") } else { "/x".to_owned() };
            let text = format!("GET {target} HTTP/{protocol}\nhost: {host}\nx-api-key: {}", key.text);
            for _ in 0..3 {
                asks(&worker, &text).await;
            }
            let (again, out) = asks(&worker, &text).await;
            assert!(String::from_utf8_lossy(&out).starts_with("HTTP/1.1 503 "), "it went as far as there is nobody");
            done.push(again.allocations);
        }
        assert_eq!(done[0], done[1], "HTTP/{protocol}: without policies and with them");
    }
}

#[tokio::test]
async fn a_denial_says_why_to_who_can_open_it() {
    let key = api_key::draw(&[7; 40]);
    let seal = denial::Seal::new([1; 8], &[2; 32]);
    let (worker, _folder) = worker(&resources(&key));
    let (nobody, _) =
        worker.identify(&worker.snapshot().access, &callers::presented(head("GET / HTTP/1.1\nhost: a").view(), &[]));
    let id = denied::name(&seal, &nobody, (5, Why::MayNotUse), &[9; 16], 1_234);
    let (opened, own) = seal.open(std::str::from_utf8(id.as_bytes()).expect("text")).expect("it opens");
    assert_eq!((own, opened.at_ms, opened.stage, opened.why), ([9; 16], 1_234, 5, Why::MayNotUse as u8));
    assert_eq!(id.as_bytes().len(), denial::LENGTH);
}

#[test]
fn only_a_post_is_a_grpc_call() {
    let key = api_key::draw(&[7; 40]);
    let (worker, _folder) = worker(&resources(&key));
    let snapshot = worker.snapshot();
    let routed = route(&snapshot, "hello.staging.example.com");
    let (caller, _) =
        worker.identify(&snapshot.access, &callers::presented(head("GET / HTTP/1.1\nhost: a").view(), &[]));
    for (method, is_upgrade, expected) in [
        ("POST", false, Action::Rpc),
        ("GET", false, Action::Read),
        ("HEAD", false, Action::Read),
        ("OPTIONS", false, Action::Read),
        ("PUT", false, Action::Write),
        ("post", false, Action::Write),
        ("GET", true, Action::Upgrade),
    ] {
        let request = Request {
            method,
            path: "/grpc.health.v1.Health/Check",
            is_rpc: true,
            is_upgrade,
            is_preflight: false,
            client: std::net::IpAddr::from([127, 0, 0, 1]),
            now_ms: || 0,
        };
        let before = worker.work();
        assert_eq!(worker.decide(&snapshot.access, &caller, &routed, &request).action, expected, "{method}");
        let is_check = worker.work().looked_up - before.looked_up == 2;
        assert_eq!(is_check, expected == Action::Rpc, "{method}: asked as a health check");
    }
}

/// Public or not, with pages that may call it.
fn shared(public: bool) -> Vec<Resource> {
    use prost::Message;
    let stage = guarded("hello/staging", StageAccess { public, ..StageAccess::default() });
    let body = fleet::Stage {
        cors_origins: vec!["https://app.example.com".into()],
        ..fleet::Stage::decode(&*stage.body).expect("a stage")
    };
    vec![
        fixture::zone("staging", "staging.example.com"),
        fixture::resource("stage", "hello/staging", &body),
        fixture::split("hello/staging", &[(1, 1)]),
    ]
}

/// Whose tokens count in the test.
fn issuer() -> fleet::Issuer {
    fleet::Issuer {
        issuer: "https://login.example.com".into(),
        audiences: vec!["pointsman".into()],
        refresh_ms: 300_000,
        ..fleet::Issuer::default()
    }
}

/// What is published later. Generations go on where those of the first end.
fn republish(around: &Around, first: &[Resource], then: &[Resource]) {
    let mut compiler = Compiler::default();
    let version = api::Version::first_of(1);
    compiler.apply(fixture::full(version, first)).expect("good resources");
    let published = around.published.load().version.expect("there is one");
    let next = api::Version { number: published.number + 1, ..published };
    around.published.store(compiler.apply(fixture::full(next, then)).expect("good resources").snapshot);
}

fn status(out: &[u8]) -> &str {
    std::str::from_utf8(&out["HTTP/1.1 ".len()..][..3]).expect("digits")
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_keys_is_judged_by_what_counts_then() {
    let issuer = issuer();
    let corp = fixture::resource("issuer", "corp", &issuer);
    let with_corp = |public| [shared(public), vec![corp.clone()]].concat();
    let (before, after) = (with_corp(true), with_corp(false));
    let (worker, around) = worker(&before);
    around.issuers.set([("corp", &issuer)].into_iter());
    // {"alg":"ES256","kid":"a"}.{"iss":"https://login.example.com"}.
    let token = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIn0.AAAA";
    let text = format!("GET /x HTTP/1.1\nhost: hello.staging.example.com\nauthorization: Bearer {token}");
    let (waited, ()) = tokio::join!(asks(&worker, &text), async { republish(&around, &before, &after) });
    assert_eq!(status(&waited.1), "404", "it is not public any more");
}

#[tokio::test]
async fn hostile_h47_a_denial_has_no_fields_of_a_stage_that_was_allowed_before() {
    // It takes the request, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = silent.local_addr().expect("an address").to_string();
    let with_endpoint = |public| [shared(public), vec![fixture::endpoints("hello/staging", 1, &[&address])]].concat();
    let (before, after) = (with_endpoint(true), with_endpoint(false));
    let (worker, around) = worker(&before);
    let text = "GET /x HTTP/1.1\nhost: hello.staging.example.com\norigin: https://app.example.com";
    let meanwhile = async {
        let taken = silent.accept().await.expect("it was sent");
        republish(&around, &before, &after);
        lasting::look_again(&worker, &worker.lasting).await;
        taken
    };
    let (denied, _taken) = tokio::join!(asks(&worker, text), meanwhile);
    let (hidden, nowhere) = (asks(&worker, text).await.1, asks(&worker, &text.replace("hello", "nobody")).await.1);
    let out = String::from_utf8_lossy(&denied.1);
    assert!(status(&denied.1) == "404" && !out.to_ascii_lowercase().contains("access-control"), "{out}");
    assert_eq!([denied.1.len(), hidden.len()], [nowhere.len(); 2], "{out}");
}

#[tokio::test]
async fn a_key_that_its_issuer_took_away_ends_what_was_allowed_by_it() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = silent.local_addr().expect("an address").to_string();
    let policy = fleet::Policy { text: "permit (principal is User, action, resource);".into() };
    let more = [
        fixture::endpoints("hello/staging", 1, &[&address]),
        fixture::resource("issuer", "corp", &issuer()),
        fixture::resource("policy", "staff.cedar", &policy),
    ];
    let (worker, around) = worker(&[&shared(false)[..], &more].concat());
    let [first, second] = [Key::draw(), Key::draw()];
    let publish = |generation, keys: &[(&str, &Key)]| {
        let keys: Vec<_> = keys.iter().map(|(id, key)| ((*id).into(), key.public.clone())).collect();
        let set = Arc::new(KeySet::read(jwks(&keys).as_bytes()).expect("a set"));
        around.issuers.keys().store(Arc::new(KeyRing { issuers: [("corp".into(), set)].into(), generation }));
    };
    publish(1, &[("one", &first)]);
    let claims = serde_json::json!({
        "iss": issuer().issuer, "aud": "pointsman", "sub": "alice", "exp": crate::worker::now_ms() / 1_000 + 600,
    });
    let token = Signer::new("https://login.example.com", "one", &first.pkcs8).expect("a key").sign_json(&claims);
    let text = format!("GET /x HTTP/1.1\nhost: hello.staging.example.com\nauthorization: Bearer {token}");
    let asked = asks(&worker, &text);
    let mut asked = std::pin::pin!(asked);
    let _taken = tokio::select! {
        taken = silent.accept() => taken.expect("it was sent"),
        done = &mut asked => panic!("nobody answers: {}", String::from_utf8_lossy(&done.1)),
    };
    publish(2, &[("one", &first), ("two", &second)]);
    lasting::look_again(&worker, &worker.lasting).await;
    let early = std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx).is_ready())).await;
    assert!(!early, "its key is still there");
    publish(3, &[("two", &second)]);
    lasting::look_again(&worker, &worker.lasting).await;
    let (_, out) = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it ends");
    assert_eq!(status(&out), "401");
}

/// An authority that clients' certificates are of, and one for "spiffe://example.com/batch".
fn client_certificate() -> (Vec<u8>, certs::client::Client) {
    let (name, key) = ("spiffe://example.com/batch", || rcgen::KeyPair::generate().expect("a key"));
    let (mut ca, mut leaf) = (rcgen::CertificateParams::default(), rcgen::CertificateParams::default());
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    leaf.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().expect("ASCII"))];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let ca_key = key();
    let der = ca.self_signed(&ca_key).expect("signed").der().to_vec();
    let shown = leaf.signed_by(&key(), &rcgen::Issuer::new(ca, ca_key)).expect("signed");
    (der, certs::client::Client::read(std::slice::from_ref(shown.der())).expect("readable"))
}

#[tokio::test]
async fn what_a_client_certificate_allowed_ends_when_nobody_vouches_for_it() {
    certs::install_provider();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = silent.local_addr().expect("an address").to_string();
    let ((ca, client), (other, _)) = (client_certificate(), client_certificate());
    let policy =
        fleet::Policy { text: "permit (principal, action, resource) when { context has application };".into() };
    let application =
        fleet::Application { certificates: vec!["spiffe://example.com/batch".into()], ..Default::default() };
    // The other one has nothing to do with it.
    let asking = |ca: Option<&Vec<u8>>, weight| {
        let asked = |ca: &Vec<u8>| fleet::ClientCertificates { ca_der: vec![ca.clone()], ..Default::default() };
        let (environment, domain) = ("staging".to_owned(), "staging.example.com".to_owned());
        let zone = fleet::Zone { environment, domain, client_certificates: ca.map(asked), ..Default::default() };
        let mut all = vec![
            fixture::resource("zone", "staging.example.com", &zone),
            fixture::endpoints("hello/staging", 1, &[&address]),
            fixture::resource("policy", "staff.cedar", &policy),
            fixture::resource("application", "batch", &application),
            fixture::split("hello/staging", &[(1, weight)]),
        ];
        all.extend(shared(false).into_iter().filter(|one| &*one.kind == "stage"));
        all
    };
    for (then, expected) in [(Some(&other), "421"), (None, "401")] {
        let before = asking(Some(&ca), 1);
        let (worker, around) = worker(&before);
        let snapshot = worker.snapshot();
        let clients = route::clients(&snapshot, "hello.staging.example.com").expect("it asks").clone();
        let connection = connection("192.0.2.7", &[]);
        connection.admission.admit(clients, Some(client.clone()));
        let asked = asks_on(&worker, &connection, "GET /x HTTP/1.1\nhost: hello.staging.example.com");
        let mut asked = std::pin::pin!(asked);
        let _taken = tokio::select! {
            taken = silent.accept() => taken.expect("it was sent"),
            done = &mut asked => panic!("nobody answers: {}", String::from_utf8_lossy(&done.1)),
        };
        republish(&around, &before, &asking(Some(&ca), 2));
        lasting::look_again(&worker, &worker.lasting).await;
        let early = std::future::poll_fn(|cx| std::task::Poll::Ready(asked.as_mut().poll(cx).is_ready())).await;
        assert!(!early, "it is vouched for");
        republish(&around, &before, &asking(then, 1));
        // Others on the connection may find out first.
        asks_on(&worker, &connection, "GET /y HTTP/1.1\nhost: nobody.staging.example.com").await;
        lasting::look_again(&worker, &worker.lasting).await;
        let (_, out) = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("it ends");
        assert_eq!(status(&out), expected);
    }
}

#[tokio::test]
async fn policies_that_fail_are_counted_whatever_they_were_asked() {
    let text = r#"
        permit (principal, action in [Action::"discover", Action::"read"], resource);
        permit (principal, action == Action::"preflight", resource) when { 9223372036854775807 + 1 == 0 };
    "#;
    let policy = fixture::resource("policy", "staff.cedar", &fleet::Policy { text: text.into() });
    let (worker, around) = worker(&[shared(false), vec![policy]].concat());
    let text = "OPTIONS /x HTTP/1.1\nhost: hello.staging.example.com";
    assert_eq!(status(&asks(&worker, text).await.1), "503", "it is let through, and nothing serves");
    assert_eq!(around.totals.policy_failures(), 0);
    for count in 1..3 {
        asks(&worker, &format!("{text}\norigin: https://app.example.com\naccess-control-request-method: GET")).await;
        assert_eq!(around.totals.policy_failures(), count);
    }
}

/// A stage without policies whose callers keep their release so.
fn kept(name: &str, sticky: Option<fleet::Sticky>) -> [Resource; 2] {
    let weights = [1, 2].map(|release| fleet::WeightedRelease { release, weight: 1 }).to_vec();
    let split = fleet::Split { weights, sticky, ..fleet::Split::default() };
    [fixture::stage(name, &[1, 2]), fixture::resource("split", name, &split)]
}

#[tokio::test]
async fn sticky_callers_cost_no_allocation_and_a_new_cookie_one() {
    let key = api_key::draw(&[7; 40]);
    let by_identity = fleet::Sticky { by: fleet::sticky::By::Identity.into(), key: vec![7; 16], ..Default::default() };
    let by_cookie =
        fleet::Sticky { by: fleet::sticky::By::Cookie.into(), cookie: "release".into(), ..by_identity.clone() };
    let mut state = resources(&key);
    state.extend(kept("p/staging", None));
    state.extend(kept("i/staging", Some(by_identity)));
    state.extend(kept("c/staging", Some(by_cookie)));
    let (worker, _folder) = worker(&state);
    let allocated = async |service: &str, fields: &str| {
        let text = format!("GET /x HTTP/1.1\nhost: {service}.staging.example.com{fields}");
        // The fewest: what is remembered of each request grows now and then.
        let mut allocated = u64::MAX;
        for _ in 0..4 {
            let (done, out) = asks(&worker, &text).await;
            let out = String::from_utf8_lossy(&out).into_owned();
            assert!(out.starts_with("HTTP/1.1 503 ") && !out.contains("set-cookie"), "nothing serves there: {out}");
            allocated = allocated.min(done.allocations);
        }
        allocated
    };
    let known = format!("\nx-api-key: {}", key.text);
    let cookie = "\ncookie: a=b; release=AAAAAAAAAAAAAAAAAAAAAA";
    for (service, fields, more) in
        [("i", "", 0), ("i", &*known, 0), ("c", cookie, 0), ("c", "", 1), ("c", "\ncookie: release=x", 1)]
    {
        let plain = allocated("p", fields).await;
        assert_eq!(allocated(service, fields).await, plain + more, "{service} {fields:?}");
    }
}
