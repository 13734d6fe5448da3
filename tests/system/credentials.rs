//! Both credentials through real processes and real clients: who passes, who is told what, and that trouble at the issuer or
//! with keys harms nobody whose credentials are good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::{Client, HOST, House, Issuer, Load, Mood, STAFF, Server, Speech, Upstream, alone, script, until};

const SERVICE: &str = "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"PROTOCOL\"\n\
    health = { every = \"1s\" }\n[stage.production]\n[stage.open]\n";
/// Anybody may know of this one, and is told when they may not call it.
const OPEN: &str = "schema = 1\nenvironment = \"open\"\nzone = \"open.localhost\"\ntarget = { kind = \"static\" }\n\
    denial = \"explicit\"\n";
const PRODUCTION: &str =
    "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";
/// Staff may call both, through any application but one.
const POLICIES: &str = r#"
permit (principal, action == Action::"discover", resource in Environment::"open");
permit (principal in Group::"staff", action in [Action::"discover", Action::"call"], resource);
@id("not through lab")
forbid (principal, action in Action::"call", resource)
when { context has application && context.application == Application::"lab" };
"#;

/// A house with one service in both environments, an issuer and two applications; their keys.
async fn guarded(protocol: &str, address: &str) -> (House, Issuer, [String; 2]) {
    let (house, issuer) = (House::with_controller().await, Issuer::start().await);
    let service = SERVICE.replace("PROTOCOL", protocol);
    house.apply(&[("production.toml", PRODUCTION), ("open.toml", OPEN), ("pointsman.toml", &service)]).await;
    house.believes(&issuer, POLICIES).await;
    let address = format!("web={address}");
    house.run(&["release", "add", "hello", "--version", "r1", "--address", &address]).await.ends(0);
    for environment in ["production", "open"] {
        house.run(&["promote", "hello@r1", "--to", environment]).await.ends(0);
    }
    let keys = [house.application("shop").await, house.application("lab").await];
    (house, issuer, keys)
}

/// What is asked with which credentials, and the gRPC status that comes: of the hidden stage, and of the open one.
fn cases(issuer: &Issuer, [shop, lab]: &[String; 2]) -> Vec<(&'static str, Value, [&'static str; 2])> {
    let staff = issuer.token("alice", &["staff"]);
    let expired = issuer.token_with("alice", &["staff"], &json!({ "exp": 1_000 }));
    let case = |key: Option<&str>, token: Option<&str>| json!({ "key": key, "token": token });
    vec![
        ("both are good", case(Some(shop), Some(&staff)), ["OK", "OK"]),
        ("neither", case(None, None), ["UNIMPLEMENTED", "UNAUTHENTICATED"]),
        // Whoever is known to be staff knows of the stage.
        ("no application", case(None, Some(&staff)), ["UNAUTHENTICATED", "UNAUTHENTICATED"]),
        ("no user", case(Some(shop), None), ["UNIMPLEMENTED", "UNAUTHENTICATED"]),
        ("an expired token", case(Some(shop), Some(&expired)), ["UNIMPLEMENTED", "UNAUTHENTICATED"]),
        ("somebody else's token", case(Some(shop), Some(&issuer.forged("k1"))), ["UNIMPLEMENTED", "UNAUTHENTICATED"]),
        ("a wrong key", case(Some(&shop.replace('_', "-")), Some(&staff)), ["UNAUTHENTICATED", "UNAUTHENTICATED"]),
        ("another application", case(Some(lab), Some(&staff)), ["UNIMPLEMENTED", "PERMISSION_DENIED"]),
        (
            "another group",
            case(Some(shop), Some(&issuer.token("bob", &["guests"]))),
            ["UNIMPLEMENTED", "PERMISSION_DENIED"],
        ),
    ]
}

/// Until the proxy has the issuer's keys.
async fn knows_the_issuer(proxy: SocketAddr, key: &str, token: &str) {
    until("a good caller passes", async || {
        let mut client = Client::plain(proxy, Speech::Http1).by(Some(key), Some(token));
        client.get().await.ok().filter(|answer| answer.status != 404 && answer.status != 503).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_grpc_of_the_c_core_is_told_as_grpc_says() {
    let server = Server::start("grpc_server.py", &[]).await;
    let (mut house, issuer, keys) = guarded("h2c", &server.address).await;
    let proxy = house.proxy("p1", 2).await;
    std::fs::write(house.path("ca.pem"), house.authority()).expect("written");
    knows_the_issuer(proxy.http, &keys[0], &issuer.token("alice", &["staff"])).await;
    for (place, host) in [HOST, "hello.open.localhost"].into_iter().enumerate() {
        let lines = cases(&issuer, &keys).into_iter().map(|(name, mut case, codes)| {
            (case["name"], case["code"]) = (name.into(), codes[place].into());
            case.to_string() + "\n"
        });
        let file = house.path("cases");
        std::fs::write(&file, lines.collect::<String>()).expect("written");
        let ca = house.path("ca.pem");
        let text = |path: &std::path::Path| path.to_str().expect("text").to_owned();
        let (clear, tls, file, ca) = (proxy.http.to_string(), proxy.https.to_string(), text(&file), text(&ca));
        for target in [&["--target", &clear][..], &["--target", &tls, "--ca", &ca]] {
            let said =
                script("grpc_credentials.py", &[target, &["--authority", host, "--cases", &file]].concat()).await;
            assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 9, "{host}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_grpc_of_tonic_is_told_as_grpc_says() {
    let server = Server::start("grpc_server.py", &[]).await;
    let (mut house, issuer, keys) = guarded("h2c", &server.address).await;
    let proxy = house.proxy("p1", 2).await;
    knows_the_issuer(proxy.http, &keys[0], &issuer.token("alice", &["staff"])).await;
    for (place, host) in [HOST, "hello.open.localhost"].into_iter().enumerate() {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", proxy.http)).expect("an address");
        let endpoint = endpoint.origin(format!("http://{host}").parse().expect("a URI"));
        let mut client = tonic::client::Grpc::new(endpoint.connect().await.expect("connected"));
        for (name, case, codes) in cases(&issuer, &keys) {
            client.ready().await.expect("connected");
            let mut request = tonic::Request::new(());
            for (field, prefix, value) in
                [("x-api-key", "", &case["key"]), ("authorization", "Bearer ", &case["token"])]
            {
                if let Some(value) = value.as_str() {
                    let value = format!("{prefix}{value}").parse().expect("ASCII");
                    request.metadata_mut().insert(field, value);
                }
            }
            let path = "/grpc.testing.TestService/EmptyCall".parse().expect("a path");
            let answer = client.unary(request, path, tonic_prost::ProstCodec::<(), ()>::default()).await;
            let code = answer.err().map_or(tonic::Code::Ok, |status| status.code());
            let shown = format!("{code:?}").to_uppercase();
            assert_eq!(shown, codes[place].replace('_', ""), "{host}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_http_callers_are_told_the_same() {
    let upstream = Upstream::start("r1").await;
    let (mut house, issuer, keys) = guarded("h1", &upstream.address.to_string()).await;
    let proxy = house.proxy("p1", 1).await;
    knows_the_issuer(proxy.http, &keys[0], &issuer.token("alice", &["staff"])).await;
    let status = |code: &str| match code {
        "OK" => 200,
        "UNIMPLEMENTED" => 404,
        "UNAUTHENTICATED" => 401,
        _ => 403,
    };
    for (place, host) in [HOST, "hello.open.localhost"].into_iter().enumerate() {
        for speech in [Speech::Http1, Speech::Http2] {
            let mut client = Client::plain(proxy.http, speech).to(host);
            for (name, case, codes) in cases(&issuer, &keys) {
                client.carry(case["key"].as_str(), case["token"].as_str());
                assert_eq!(client.asks().await.status, status(codes[place]), "{host} {speech:?}: {name}");
            }
        }
    }
    // What the endpoint learns: who calls, signed; and no credential.
    for head in upstream.heads() {
        assert!(head.get("authorization").is_none() && head.get("x-api-key").is_none(), "{head:?}");
    }
    let assertion = |head: &http::HeaderMap| head.get("x-pointsman-assertion")?.to_str().ok().map(str::to_owned);
    let told = until("an endpoint is told who calls", async || {
        Client::plain(proxy.http, Speech::Http1)
            .by(Some(&keys[0]), Some(&issuer.token("alice", &["staff"])))
            .asks()
            .await;
        upstream.heads().iter().find_map(assertion)
    })
    .await;
    assert_good(&house, &told).await;
}

/// The assertion is what the fleet's keys have signed, as the command shows them; read by somebody else's library.
async fn assert_good(house: &House, assertion: &str) {
    let jwks = house.run(&["access", "jwks"]).await.ends(0).out;
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&jwks).expect("a set of keys");
    let kid = jsonwebtoken::decode_header(assertion).expect("a header").kid.expect("a key");
    let key = keys.find(&kid).unwrap_or_else(|| panic!("{kid} is not in {jwks}"));
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let mut terms = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    terms.set_audience(&["hello/production", "hello/open"]);
    terms.set_issuer(&["pointsman"]);
    terms.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    let read = jsonwebtoken::decode::<Value>(assertion, &key, &terms).expect("a token of the fleet");
    let told = |name: &str| read.claims[name].as_str().map(str::to_owned);
    assert_eq!(
        (told("sub"), told("app"), told("idp")),
        (Some("alice".into()), Some("shop".into()), Some("corp".into()))
    );
    assert_eq!(read.claims["groups"], json!(["staff"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h45_rotated_keys_and_an_issuer_in_trouble_harm_no_valid_caller() {
    let _alone = alone().await;
    let upstream = Upstream::start("r1").await;
    let (mut house, issuer, [shop, _]) = guarded("h1", &upstream.address.to_string()).await;
    let proxies = [house.proxy("p1", 1).await, house.proxy("p2", 1).await];
    let token = issuer.token("alice", &["staff"]);
    for proxy in proxies {
        knows_the_issuer(proxy.http, &shop, &token).await;
    }
    let addresses = proxies.map(|proxy| proxy.https);
    let load = Load::with(&addresses, &house.authority(), &shop, &token);
    load.goes_on(500).await;
    // The next key is shown, and used at once: a caller who has a token by it passes, without a single refusal.
    issuer.rotates(true);
    for proxy in proxies {
        let renewed = issuer.token("bob", &["staff"]);
        let answer = Client::plain(proxy.http, Speech::Http1).by(Some(&shop), Some(&renewed)).asks().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for mood in [Mood::Broken, Mood::Html, Mood::Silent] {
        issuer.is(mood);
        load.goes_on(500).await;
        // A token that nobody has seen, by a key that is known.
        let fresh = issuer.token(&format!("carol {mood:?}"), &["staff"]);
        let answer = Client::plain(proxies[0].http, Speech::Http1).by(Some(&shop), Some(&fresh)).asks().await;
        assert_eq!(answer.status, 200, "{mood:?}: {answer:?}");
    }
    // Both start again while the issuer is away.
    load.ends_without_failure();
    for name in ["p1", "p2"] {
        house.stop(name).await;
        house.start(name).await;
    }
    for proxy in proxies {
        let fresh = issuer.token("dave", &["staff"]);
        let answer = Client::plain(proxy.http, Speech::Http1).by(Some(&shop), Some(&fresh)).asks().await;
        assert_eq!(answer.status, 200, "after a start without the issuer: {answer:?}");
    }
}

/// Requests with unknown keys: two seconds of 10,000 each, on a machine that is quick enough.
const FORGED: u64 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h45_twenty_thousand_unknown_keys_in_seconds_are_one_fetch() {
    let _alone = alone().await;
    let upstream = Upstream::start("r1").await;
    let (mut house, issuer, [shop, _]) = guarded("h1", &upstream.address.to_string()).await;
    let proxy = house.proxy("p1", 1).await;
    let token = issuer.token("alice", &["staff"]);
    knows_the_issuer(proxy.http, &shop, &token).await;
    let before = issuer.fetches();
    let forged: Vec<String> = (0..64).map(|number| issuer.forged(&format!("nobody-{number}"))).collect();
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let attackers: Vec<_> = (0..8)
        .map(|attacker| {
            let (forged, sent, stop) = (forged.clone(), sent.clone(), stop.clone());
            tokio::spawn(async move {
                let mut client = Client::plain(proxy.http, Speech::Http1);
                for number in attacker.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    client.carry(None, Some(&forged[number % forged.len()]));
                    assert_eq!(client.asks().await.status, 404);
                    sent.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let load = Load::with(&[proxy.https], &house.authority(), &shop, &token);
    until("the attack has been as long as it is", async || (sent.load(Relaxed) >= FORGED).then_some(())).await;
    load.goes_on(200).await;
    let took = begun.elapsed();
    stop.store(true, Relaxed);
    for attacker in attackers {
        attacker.await.expect("every forged token was refused alike");
    }
    load.ends_without_failure();
    let fetches = issuer.fetches() - before;
    // One at once, then one in each 30 s. How many there are in a second is the machine's.
    let allowed = 1 + took.as_secs() / 30;
    assert!(fetches <= allowed, "{fetches} fetches in {took:?}");
    println!("{} forged tokens in {took:?}, {fetches} fetches", sent.load(Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_a_revoked_application_is_refused_by_all_proxies_and_others_notice_nothing() {
    let upstream = Upstream::start("r1").await;
    let (mut house, issuer, [shop, _]) = guarded("h1", &upstream.address.to_string()).await;
    let other = house.application("other").await;
    let mut proxies = Vec::new();
    for name in ["p1", "p2", "p3", "p4"] {
        proxies.push(house.proxy(name, 1).await);
    }
    let token = issuer.token("alice", &["staff"]);
    for proxy in &proxies {
        knows_the_issuer(proxy.http, &shop, &token).await;
    }
    let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.https).collect();
    let load = Load::with(&addresses, &house.authority(), &other, &token);
    let mut clients: Vec<_> =
        proxies.iter().map(|proxy| Client::plain(proxy.http, Speech::Http1).by(Some(&shop), Some(&token))).collect();
    for client in &mut clients {
        assert_eq!(client.asks().await.status, 200);
    }
    load.goes_on(200).await;
    house.run(&["app", "revoke", "shop", "--reason", "its key was found in a log"]).await.ends(0);
    // The command has waited for the whole fleet: the very next request is refused, on connections of before.
    for client in &mut clients {
        assert_eq!(client.asks().await.status, 401);
    }
    load.goes_on(200).await;
    load.ends_without_failure();
    let history = house.run(&["history", "-n", "0"]).await.ends(0).out;
    assert!(history.contains("shop") && history.contains("found in a log"), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_policies_change_who_may_without_a_request_lost() {
    let upstream = Upstream::start("r1").await;
    let (mut house, issuer, [shop, _]) = guarded("h1", &upstream.address.to_string()).await;
    let proxy = house.proxy("p1", 2).await;
    let (staff, guest) = (issuer.token("alice", &["staff"]), issuer.token("bob", &["guests"]));
    knows_the_issuer(proxy.http, &shop, &staff).await;
    let load = Load::with(&[proxy.https], &house.authority(), &shop, &staff);
    let mut client = Client::plain(proxy.http, Speech::Http1).by(Some(&shop), Some(&guest));
    let mut now = async |expected: u16| {
        until(&format!("a guest is answered {expected}"), async || {
            (client.asks().await.status == expected).then_some(())
        })
        .await;
    };
    now(404).await;
    let more = format!("{STAFF}{}", STAFF.replace("staff", "guests"));
    house.believes(&issuer, &more).await;
    now(200).await;
    // What is wrong changes nothing.
    std::fs::write(house.path("policies/staff.cedar"), "permit (principal in Group::\"staff\", action, resourc);")
        .expect("written");
    let said = house.run(&["apply", "-f", "access.toml"]).await.ends(1);
    assert!(said.err.contains("staff.cedar:1"), "{}", said.err);
    now(200).await;
    house.believes(&issuer, STAFF).await;
    now(404).await;
    load.goes_on(100).await;
    load.ends_without_failure();
}
