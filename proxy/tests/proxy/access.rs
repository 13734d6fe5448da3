//! Who may pass, through real listeners: statuses, what endpoints are told, what the log says, and what a change does.

use api::fleet::{self, Protocol};
use http::HeaderMap;
use policies::credential::api_key;
use policies::credential::assertion::Key;
use proxy::LogTarget;

use crate::client_certificates::{Asking, Ca, ID, Shown, VERSIONS};
use crate::gates::{Gates, HELLO, Issuer, NOBODY, OPEN, SECRET, TOLD, application, guarded, policy};
use crate::recorder::Recorder;
use crate::support::{Body, Client, Upstream, fed, resource, set, settings, until};
use crate::wire::Wire;

const GRPC: &str = "application/grpc";

/// Status of a GET, and of a gRPC call, with these credentials.
async fn asks(client: &mut Client, host: &str, path: &str, key: Option<&str>, token: Option<&str>) -> (u16, String) {
    let fields = |mut builder: http::request::Builder| {
        if let Some(key) = key {
            builder = builder.header("x-api-key", key);
        }
        if let Some(token) = token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        builder
    };
    let request = fields(client.request(host, path)).body(Body::default()).expect("a request");
    let plain = client.send(request).await.expect("answered");
    assert_eq!(plain.headers.contains_key("www-authenticate"), plain.status == 401, "{plain:?}");
    let length = if plain.status == 404 { policies::credential::denial::LENGTH } else { 32 };
    assert_eq!(plain.headers["x-request-id"].len(), length, "{plain:?}");
    let call = fields(client.request(host, "/call").method("POST").header("content-type", GRPC));
    let called = client.send(call.body(Body::default()).expect("a request")).await.expect("answered");
    assert_eq!(called.status, 200, "never a bare error to a gRPC client: {called:?}");
    let status = called.headers.get("grpc-status").or(called.trailers.get("grpc-status")).expect("a status");
    (plain.status, status.to_str().expect("text").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_each_verdict_has_its_status_in_http_and_grpc() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H2c).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let down = Issuer::at("down", free);
    let mut state = gates.state();
    state.push(down.resource());
    gates.proxy.apply(set(state));
    let (staff, guest) = (gates.staff(), gates.guest());
    let (expired, unknown) = (gates.issuer.token("alice", &["staff"], -600), down.token("alice", &["staff"], 600));
    let key = Some(gates.key.text.as_str());
    let (staff, guest, expired, unknown) = (Some(&*staff), Some(&*guest), Some(&*expired), Some(&*unknown));
    let wrong = api_key::draw(&[8; 40]).text;
    for mut client in [Client::http1(gates.proxy.http).await, Client::http2(gates.proxy.http).await] {
        for (host, path, key, token, http, grpc) in [
            (HELLO, "/", key, staff, 200, "0"),
            (HELLO, "/", None, None, 401, "16"),
            (HELLO, "/", key, None, 401, "16"),
            (HELLO, "/", None, staff, 401, "16"),
            (HELLO, "/", key, expired, 401, "16"),
            (HELLO, "/", Some(&*wrong), staff, 401, "16"),
            (HELLO, "/", key, guest, 404, "12"),
            (HELLO, "/open/x", key, guest, 200, "12"),
            (HELLO, "/", key, unknown, 503, "14"),
            (SECRET, "/", key, staff, 200, "0"),
            (SECRET, "/", key, guest, 404, "12"),
            (SECRET, "/", None, None, 404, "12"),
            (SECRET, "/", key, expired, 404, "12"),
            (SECRET, "/", key, unknown, 404, "12"),
            (SECRET, "/", None, staff, 401, "16"),
            (TOLD, "/", key, staff, 200, "0"),
            (TOLD, "/", key, guest, 403, "7"),
            (OPEN, "/", None, None, 200, "0"),
            (OPEN, "/", Some(&*wrong), expired, 200, "0"),
            (NOBODY, "/", key, staff, 404, "12"),
            ("r1--hello.staging.example.com", "/", key, staff, 200, "0"),
            ("r1--hello.staging.example.com", "/", key, guest, 404, "12"),
            ("r2--hello.staging.example.com", "/", key, staff, 404, "12"),
        ] {
            let said = asks(&mut client, host, path, key, token).await;
            let shown = (host, path, key.is_some(), token.map(|token| token.len()));
            assert_eq!((said.0, said.1.as_str()), (http, grpc), "{shown:?}");
        }
    }
}

/// A state in which assertions are signed, and the key as it travels.
fn asserting(gates: &Gates, kid: &str) -> (Vec<fleet::Resource>, fleet::Secret) {
    let key = Key::draw();
    let keys = vec![fleet::AssertionKey { id: kid.into(), public: key.public.clone() }];
    let body = fleet::Assertion { issuer: "https://pointsman.example".into(), current: kid.into(), keys };
    let id = format!("assertion/{kid}");
    let secret = certs::secret::seal(&id, &key.pkcs8, gates.proxy.engine.seal_key()).expect("sealed");
    let mut state = gates.state();
    state.push(resource("assertion", "assertion", &body));
    (state, secret)
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let all: Vec<_> = headers.get_all(name).iter().collect();
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all[0].to_str().expect("text")
}

/// The claims of a token, unverified.
fn claims(token: &str) -> serde_json::Value {
    use base64::Engine;
    let part = token.split('.').nth(1).expect("claims");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&json).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_endpoints_get_one_assertion_in_place_of_what_was_for_us() {
    for protocol in [Protocol::H1, Protocol::H2c] {
        let folder = tempfile::tempdir().expect("folder");
        let upstream = Upstream::start("r1", protocol).await;
        let gates = Gates::start(settings(folder.path(), 1), upstream.address, protocol).await;
        let (state, secret) = asserting(&gates, "one");
        gates.proxy.engine.take_secrets(vec![secret]);
        gates.proxy.apply(set(state));
        let (staff, mut seen) = (gates.staff(), Vec::new());
        for mut client in [Client::http1(gates.proxy.http).await, Client::http2(gates.proxy.http).await] {
            for _ in 0..2 {
                let request = client
                    .request(HELLO, "/")
                    .header("x-api-key", &gates.key.text)
                    .header("authorization", format!("Bearer {staff}"))
                    .header("x_api_key", "1")
                    .header("x-pointsman-assertion", "forged")
                    .header("x_pointsman_assertion", "forged")
                    .header("x-pointsman-anything", "forged");
                let answer = client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
                assert_eq!(answer.status, 200);
                let (_, headers) = upstream.last();
                for gone in ["x-api-key", "x_api_key", "authorization", "x_pointsman_assertion", "x-pointsman-anything"]
                {
                    assert!(!headers.contains_key(gone), "{gone}: {headers:?}");
                }
                seen.push(one(&headers, "x-pointsman-assertion").to_owned());
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "signed once for a caller and a stage");
        let told = claims(&seen[0]);
        assert_eq!((&told["iss"], &told["aud"]), (&"https://pointsman.example".into(), &"hello/staging".into()));
        assert_eq!((&told["sub"], &told["app"], &told["idp"]), (&"alice".into(), &"batch".into(), &"corp".into()));
        // Whose field it is stays his: nobody is known, or the other field brought the token.
        let mut client = Client::http1(gates.proxy.http).await;
        let request = client.request(OPEN, "/").header("authorization", "Basic eDp5");
        client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
        let (_, headers) = upstream.last();
        assert_eq!(one(&headers, "authorization"), "Basic eDp5");
        assert!(!headers.contains_key("x-pointsman-assertion"));
        let request = client
            .request(HELLO, "/")
            .header("x-api-key", &gates.key.text)
            .header("authorization", "Basic eDp5")
            .header("proxy-authorization", format!("Bearer {staff}"));
        client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
        let (_, headers) = upstream.last();
        assert_eq!(one(&headers, "authorization"), "Basic eDp5");
        assert!(!headers.contains_key("proxy-authorization") && headers.contains_key("x-pointsman-assertion"));
        let keys = Client::http1(gates.proxy.admin).await.get("admin", "/assertion/jwks.json").await;
        assert_eq!((keys.status, keys.headers["content-type"].as_bytes()), (200, &b"application/jwk-set+json"[..]));
        assert!(keys.body.contains("\"one\"") && policies::credential::KeySet::read(keys.body.as_bytes()).is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_what_is_taken_away_is_gone_with_the_next_request() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let gates = Gates::start(settings(folder.path(), 2), upstream.address, Protocol::H2c).await;
    let (key, staff) = (gates.key.text.as_str(), gates.staff());
    let without = |kind: &str| gates.state().into_iter().filter(|one| one.kind != kind).collect::<Vec<_>>();
    let other = api_key::draw(&[9; 40]);
    let with = |kind: &str, one| [without(kind), vec![one]].concat();
    for (what, state, expected) in [
        ("nothing", gates.state(), 200),
        ("the application", without("application"), 401),
        ("its key", with("application", application("batch", &other)), 401),
        ("its policies", without("policy"), 404),
        (
            "a policy forbids",
            with("policy", policy(&format!("{}forbid (principal, action, resource);", crate::gates::POLICIES))),
            404,
        ),
        ("the issuer", without("issuer"), 401),
        ("and all is back", gates.state(), 200),
    ] {
        gates.proxy.apply(set(state));
        for mut client in [Client::http1(gates.proxy.http).await, Client::http2(gates.proxy.http).await] {
            for _ in 0..2 {
                assert_eq!(asks(&mut client, HELLO, "/", Some(key), Some(&staff)).await.0, expected, "{what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_preflights_and_health_checks_are_policy_too() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H2c).await;
    let gates = Gates::start(settings(folder.path(), 1), upstream.address, Protocol::H2c).await;
    let allowing = format!(
        "{}permit (principal, action in [Action::\"preflight\", Action::\"check\"], resource == Stage::\"secret/staging\");",
        crate::gates::POLICIES
    );
    let mut asking: Vec<_> = gates.state();
    for one in &mut asking {
        use prost::Message;
        if one.kind == "stage" && one.name == "secret/staging" {
            let mut body = fleet::Stage::decode(&*one.body).expect("a stage");
            body.cors_origins = vec!["https://app.example".into()];
            body.backends[0].health.as_mut().expect("a check").http_path = "/healthz".into();
            one.body = body.encode_to_vec().into();
        } else if one.kind == "stage" && one.name == "hello/staging" {
            let mut body = fleet::Stage::decode(&*one.body).expect("a stage");
            body.backends[0].health.as_mut().expect("a check").http_path = "/elsewhere".into();
            one.body = body.encode_to_vec().into();
        }
    }
    for (text, preflight, check, grpc) in [(crate::gates::POLICIES, 404, 404, "12"), (allowing.as_str(), 204, 200, "0")]
    {
        let without: Vec<_> = asking.iter().filter(|one| one.kind != "policy").cloned().collect();
        gates.proxy.apply(set([without, vec![policy(text)]].concat()));
        for mut client in [Client::http1(gates.proxy.http).await, Client::http2(gates.proxy.http).await] {
            let request = client
                .request(SECRET, "/x")
                .method("OPTIONS")
                .header("origin", "https://app.example")
                .header("access-control-request-method", "POST");
            let said = client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
            assert_eq!(said.status, preflight);
            assert_eq!(said.headers.contains_key("access-control-allow-origin"), preflight == 204);
            assert_eq!(client.get(SECRET, "/healthz?x=y").await.status, check);
            for path in ["/other", "/elsewhere"] {
                assert_eq!(client.get(SECRET, path).await.status, 404, "{path} is no health check of it");
            }
            // Of another stage the same path is nothing.
            assert_eq!(client.get(HELLO, "/healthz").await.status, 401);
            let call =
                client.request(SECRET, "/grpc.health.v1.Health/Check").method("POST").header("content-type", GRPC);
            let said = client.send(call.body(fed().1).expect("a request")).await.expect("answered");
            let status = said.headers.get("grpc-status").map(|status| status.to_str().expect("text"));
            // What is permitted reaches the service, which knows no such method: its answer is no gRPC.
            assert_eq!(status == Some("12"), grpc == "12", "{said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_the_log_says_who_and_why() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("access.log");
    let upstream = Recorder::ok().await;
    let log =
        proxy::Settings { access_log: Some(LogTarget::File(path.clone())), ..settings(&folder.path().join("data"), 1) };
    let gates = Gates::start(log, upstream.address, Protocol::H1).await;
    let hostile = gates.issuer.token("eve\r\n\u{1b}[31m\"", &["staff"], 600);
    let expired = gates.issuer.token("alice", &["staff"], -600);
    for (host, fields) in [
        (HELLO, gates.fields(&gates.staff())),
        (HELLO, gates.fields(&hostile)),
        (HELLO, gates.fields(&expired)),
        (SECRET, gates.fields(&gates.guest())),
        (NOBODY, "x-api-key: pm_x\r\n".to_owned()),
    ] {
        let wire = Wire::connect(gates.proxy.http).await;
        wire.send(format!("GET /{host} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n")).await;
        let mut wire = wire;
        wire.answer().await.expect("answered");
    }
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned);
        whole.map(|line| serde_json::from_str::<serde_json::Value>(&line).expect("JSON")).collect::<Vec<_>>()
    };
    until("all lines are there", || lines().len() == 5).await;
    let lines = lines();
    let text = |line: usize, name: &str| lines[line][name].as_str().unwrap_or_default().to_owned();
    assert_eq!((text(0, "application"), text(0, "user")), ("batch".into(), "corp/alice".into()));
    assert_eq!(text(0, "decision"), "allowed");
    assert_eq!(text(1, "user"), "corp/eve\r\n\u{1b}[31m\"");
    assert_eq!((text(2, "decision"), text(2, "why")), ("unauthenticated".into(), "no valid user".into()));
    assert_eq!(text(2, "user_refused"), "the token has expired");
    assert_eq!((text(3, "decision"), text(3, "user")), ("hidden".into(), "corp/bob".into()));
    assert_eq!(text(3, "why"), "no policy lets the caller know of the stage");
    assert_eq!(text(4, "decision"), "unknown");
    assert_eq!(text(4, "application_refused"), "the API key has not 61 characters");
    // Credentials themselves are in no log.
    let all = std::fs::read_to_string(&path).expect("a log");
    assert!(!all.contains(&gates.key.text) && !all.contains(&expired), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_a_client_certificate_stands_for_an_application() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let asking = Asking::start(folder.path()).await;
    let ca = Ca::new();
    let named = |id: &str| {
        let body = fleet::Application { certificates: vec![id.into()], ..fleet::Application::default() };
        resource("application", "batch", &body)
    };
    let text = r#"permit (principal, action in [Action::"discover", Action::"call"], resource)
        when { context has application && context.application == Application::"batch" };"#;
    let state = |id: &str| {
        let mut state = crate::support::hello(Protocol::H1, &[(1, upstream.address, 1)]);
        state.upserts.retain(|one| one.kind != "stage");
        let needs = fleet::StageAccess { needs_application: true, ..fleet::StageAccess::default() };
        state.upserts.extend([guarded("hello/staging", Protocol::H1, needs), policy(text), named(id)]);
        state
    };
    let status = async |shown: Option<&Shown>| {
        let answer = asking.asks(shown, VERSIONS[0], HELLO).await.expect("a handshake");
        answer.split(' ').nth(1).expect("a status").to_owned()
    };
    let client = ca.client();
    asking.apply(state(ID), Some(ca.asks(false)), None);
    assert_eq!(status(Some(&client)).await, "200");
    assert_eq!(status(None).await, "404");
    let other = ca.certify(|params| params.subject_alt_names = Vec::new());
    assert_eq!(status(Some(&other)).await, "404", "its subject names nobody");
    // Somebody else's from now on.
    asking.apply(state("spiffe://example.com/other"), Some(ca.asks(false)), None);
    assert_eq!(status(Some(&client)).await, "404");
}
