//! Who may pass, as an operator describes it and as callers meet it.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use policies::credential::assertion::{Key, Signer, jwks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Answer, Client, House, Proxy, SERVICE, Speech, until};

const ENVIRONMENT: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
    target = { kind = \"static\" }\n";
const KID: &str = "test";

/// The service `hello`, which nobody may know of unless a policy says so.
fn hidden() -> String {
    let service = SERVICE.replace("public = true\n", "");
    assert_ne!(service, SERVICE);
    service
}

/// Applies these files, and policies beside them.
async fn describe(house: &House, environment: &str, access: &str, policies: &str) {
    fs::write(house.path("staff.cedar"), policies).expect("written");
    let service = hidden();
    let files = [("production.toml", environment), ("pointsman.toml", &service), ("access.toml", access)];
    house.apply(&files).await;
}

/// An issuer of tokens on this machine: its address, and what signs.
struct Issuer {
    url: String,
    signer: Signer,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let key = Key::draw();
        let keys = jwks(&[(KID.to_owned(), key.public.clone())]);
        let signer = Signer::new(&url, KID, &key.pkcs8).expect("a key");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keys = keys.clone();
                let answer = service_fn(move |_| {
                    let answer = hyper::Response::new(Full::<Bytes>::from(keys.clone()));
                    async { Ok::<_, std::convert::Infallible>(answer) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
        Self { url, signer }
    }

    fn access(&self) -> String {
        let url = &self.url;
        format!(
            "schema = 1\npolicies = [\"staff.cedar\"]\n[issuer.corp]\nissuer = \"{url}\"\naudience = [\"pointsman\"]\n\
             jwks = \"{url}/keys\"\ngroups = [{{ claim = \"groups\" }}]\n"
        )
    }

    /// What a user of these groups sends.
    fn bearer(&self, subject: &str, groups: &[&str]) -> String {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({
            "iss": self.url, "aud": "pointsman", "sub": subject, "exp": now_s + 600, "iat": now_s, "groups": groups,
        });
        format!("Bearer {}", self.signer.sign_json(&claims))
    }
}

/// Makes an application; its key.
async fn creates(house: &House, arguments: &[&str]) -> String {
    let key = house.run(&[&["app", "create"], arguments].concat()).await.ends(0).complains(&["shown once"]);
    key.out.trim_end().to_owned()
}

async fn asks(proxy: Proxy, headers: &[(&'static str, &str)]) -> Answer {
    let client = Client::plain(proxy.http, Speech::Http1);
    headers.iter().fold(client, |client, (name, value)| client.with(name, value)).asks().await
}

async fn explains(house: &House, arguments: &[&str]) -> Value {
    house.json(&[&["explain", "request"], arguments].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_of_an_application_lasts_until_its_key_is_rotated_or_it_is_revoked() {
    let mut house = House::with_controller().await;
    let environment = format!("{ENVIRONMENT}credentials = [\"application\"]\n");
    let policies = "permit (principal, action, resource in Environment::\"production\")\n  \
        when { context has application && context.application in Group::\"partners\" };\n";
    describe(&house, &environment, "schema = 1\npolicies = [\"staff.cedar\"]\n", policies).await;
    let (r1, _r2) = house.two_releases().await;
    let proxies = [house.proxy("p1", 2).await, house.proxy("p2", 1).await];
    let key = creates(&house, &["batch", "--group", "partners"]).await;
    let other = creates(&house, &["other", "--group", "strangers"]).await;
    house.run(&["app", "create", "batch"]).await.ends(1).complains_once(&["there is an application batch already"]);

    for proxy in proxies {
        assert_eq!(asks(proxy, &[("x-api-key", &key)]).await.status, 200);
        for headers in [&[][..], &[("x-api-key", other.as_str())]] {
            let answer = asks(proxy, headers).await;
            assert_eq!((answer.status, answer.body.as_str()), (404, "Not found\n"));
        }
    }
    // Endpoints are told who calls, and never with what key.
    let head = r1.heads().into_iter().next_back().expect("one came through");
    assert!(!head.contains_key("x-api-key"), "{head:?}");
    let assertion = head.get("x-pointsman-assertion").and_then(|value| value.to_str().ok()).expect("an assertion");
    let claims = claims_of(&house, assertion).await;
    assert_eq!((&claims["app"], &claims["aud"]), (&json!("batch"), &json!("hello/production")), "{claims}");

    // Two keys for a while, then one.
    let second = house.run(&["app", "rotate", "batch"]).await.ends(0).complains(&["the one before counts until"]);
    let second = second.out.trim_end().to_owned();
    let shown = house.json(&["app", "show", "batch"]).await;
    assert_eq!(shown["keys"].as_array().map(Vec::len), Some(2), "{shown}");
    assert!(!shown.to_string().contains(&key[12..]), "a key is shown once");
    house.kill_controller();
    house.start_controller(&[]).await;
    house.follows("p1").await;
    house.follows("p2").await;
    for key in [&key, &second] {
        assert_eq!(asks(proxies[0], &[("x-api-key", key)]).await.status, 200);
    }
    let third = house.run(&["app", "rotate", "batch", "--overlap", "0s"]).await.ends(0).out.trim_end().to_owned();
    for proxy in proxies {
        let status = async |key: &str| asks(proxy, &[("x-api-key", key)]).await.status;
        assert_eq!((status(&key).await, status(&second).await, status(&third).await), (404, 404, 200));
    }

    // An exit code of 0 says that the whole fleet has it.
    house.run(&["app", "revoke", "batch", "--reason", "it left"]).await.ends(0).complains(&["is revoked"]);
    for proxy in proxies {
        assert_eq!(asks(proxy, &[("x-api-key", &third)]).await.status, 404);
    }
    let listed = house.json(&["app", "list"]).await;
    assert_eq!(listed["applications"][0]["revoked"], true, "{listed}");
    let kept = String::from_utf8_lossy(&fs::read(house.path("controller/events.db")).expect("the store")).into_owned();
    for key in [&key, &second, &third] {
        assert!(!kept.contains(key.as_str()), "a key is in the store");
    }
}

/// The claims of an assertion, whose key is one of those that are published.
async fn claims_of(house: &House, assertion: &str) -> Value {
    use base64::Engine;
    let part = |place: usize| {
        let text = assertion.split('.').nth(place).expect("three parts");
        let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url");
        serde_json::from_slice::<Value>(&bytes).expect("JSON")
    };
    let published: Value = house.run(&["access", "jwks"]).await.ends(0).json();
    let keys = published["keys"].as_array().expect("keys");
    assert!(keys.iter().any(|key| key["kid"] == part(0)["kid"]), "{published}");
    part(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_of_a_user_is_what_policies_say_and_explain_says_why() {
    let mut house = House::with_controller().await;
    let issuer = Issuer::start().await;
    let policies = "permit (principal, action == Action::\"discover\", resource)\n  \
        when { context has application && context.application in Group::\"partners\" };\n\
        @id(\"staff read\")\npermit (principal in Group::\"staff\", action == Action::\"read\", resource);\n";
    describe(&house, &format!("{ENVIRONMENT}denial = \"explicit\"\n"), &issuer.access(), policies).await;
    let _upstreams = house.two_releases().await;
    let proxy = house.proxy("p1", 2).await;
    let key = creates(&house, &["batch", "--group", "partners"]).await;
    let (alice, bob) = (issuer.bearer("alice", &["staff"]), issuer.bearer("bob", &["guests"]));
    until("the issuer's keys are there", async || {
        (asks(proxy, &[("x-api-key", &key), ("authorization", &alice)]).await.status == 200).then_some(())
    })
    .await;

    let answer = asks(proxy, &[("x-api-key", &key)]).await;
    assert_eq!((answer.status, answer.challenge.as_str(), answer.id.len()), (401, "Bearer", 32));
    let denied = asks(proxy, &[("x-api-key", &key), ("authorization", &bob)]).await;
    assert_eq!((denied.status, denied.id.len()), (403, 32));
    let said = explains(&house, &[&denied.id, "--user", "corp/bob"]).await;
    assert_eq!(
        (&said["source"], &said["proxy"], &said["is_user"]),
        (&json!("proxy"), &json!("p1"), &json!(true)),
        "{said}"
    );
    let decided = &said["decided"];
    assert_eq!((&decided["outcome"], &decided["application"]), (&json!("forbidden"), &json!("batch")), "{said}");
    assert_eq!((&decided["subject"], &decided["stage"]), (&json!("bob"), &json!("hello/production")), "{said}");
    let allowed = asks(proxy, &[("x-api-key", &key), ("authorization", &alice)]).await;
    let said = explains(&house, &[&allowed.id]).await;
    assert_eq!(said["decided"]["outcome"], "allowed", "{said}");
    house.run(&["explain", "request", &"0".repeat(32)]).await.ends(1).complains_once(&["no proxy knows the request"]);

    // Without the application nobody knows of it; the id says why to whom may know.
    let wrong = format!("{alice}x");
    let hidden = asks(proxy, &[("authorization", &wrong)]).await;
    assert_eq!((hidden.status, hidden.challenge.as_str()), (404, ""));
    let said = explains(&house, &[&hidden.id]).await;
    let lines = said["lines"].to_string();
    assert_eq!((&said["source"], &said["decided"]["stage"]), (&json!("denial"), &json!("hello/production")), "{said}");
    assert!(
        lines.contains("no policy lets the caller know of the stage")
            && lines.contains("application: none was presented"),
        "{lines}"
    );
    assert!(lines.contains("user: the token's signature") || lines.contains("user: a part of the token"), "{lines}");
    let reader = house.operator_with("reader", &["--allow", "read", "--environment", "production"]).await;
    house.run_as(&reader, &["explain", "request", &hidden.id]).await.ends(1).complains(&["may not read on everything"]);

    // What would be decided is what is.
    let of = async |arguments: &[&str]| {
        house.json(&[&["policy", "explain", "hello/production"], arguments].concat()).await["verdict"].clone()
    };
    let (alice, bob) = (["--user", "corp/alice", "--group", "staff"], ["--user", "corp/bob", "--group", "guests"]);
    assert_eq!(of(&[&alice[..], &["--app", "batch"]].concat()).await, "allowed");
    assert_eq!(of(&[&bob[..], &["--app", "batch"]].concat()).await, "forbidden");
    assert_eq!(of(&["--app", "batch"]).await, "unauthenticated");
    assert_eq!(of(&alice).await, "hidden");
    assert_eq!(of(&[&alice[..], &["--app", "batch", "--method", "POST"]].concat()).await, "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_access_that_is_wrong_changes_nothing_and_is_told_with_its_places() {
    let house = House::with_hello().await;
    let before = house.history().await;
    let write = |name: &str, text: &str| fs::write(house.path(name), text).expect("written");
    fs::create_dir(house.path("conf")).expect("made");
    write(
        "conf/access.toml",
        "schema = 1\npolicies = [\"staff.cedar\"]\n[issuer.corp]\nissuer = \"login\"\naudience = [\"a\"]\n",
    );
    write(
        "conf/staff.cedar",
        "permit (principal, action, resource);\npermit (principal, action == Action::\"fly\", resource);\n",
    );
    for more in [&[][..], &["--plan"]] {
        let said = house.run(&[&["apply", "-f", "conf/access.toml"], more].concat()).await.ends(1);
        said.complains(&["conf/access.toml:4:10: `issuer`: \"login\" is not a URL", "conf/staff.cedar:2:", "fly"]);
    }
    write("missing.toml", "schema = 1\npolicies = [\"nowhere.cedar\"]\n");
    house.run(&["apply", "-f", "missing.toml"]).await.ends(1).complains_once(&["missing.toml:2:13", "nowhere.cedar"]);
    write("secret.toml", "schema = 1\npolicies = [\"../../../../etc/passwd\"]\n");
    let said =
        house.run(&["apply", "-f", "secret.toml"]).await.ends(1).complains(&["secret.toml:2:13", "without \"..\""]);
    assert!(!said.err.contains("root:"), "{}", said.err);
    write("good.toml", "schema = 1\npolicies = [\"good.cedar\"]\n");
    write("good.cedar", "permit (principal, action, resource);");
    let narrow = house.operator_with("narrow", &["--allow", "apply", "--environment", "production"]).await;
    house.run_as(&narrow, &["apply", "-f", "good.toml"]).await.ends(1).complains(&["may not apply on everything"]);
    house
        .run_as(&narrow, &["app", "create", "batch"])
        .await
        .ends(1)
        .complains(&["may not make, rotate or revoke applications"]);
    let said = house.run(&["apply", "-f", "good.toml", "--plan"]).await.ends(0);
    assert!(said.out.contains("policies good.cedar"), "{}", said.out);
    let after = house.history().await;
    assert_eq!(after.len(), before.len() + 1, "only the token was made: {after:?}");
    house.run(&["apply", "-f", "good.toml"]).await.ends(0);
    let said = house.run(&["apply", "-f", "good.toml"]).await.ends(0);
    assert!(said.out.contains("all is so already"), "{}", said.out);
}
