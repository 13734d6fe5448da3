//! Who may pass, for tests: an issuer of tokens with a real server of keys, applications, policies, and stages behind them.
//!
//! Main types: [`Issuer`]; [`Gates`], a proxy with stages that are open, known, told and secret.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use api::fleet::{self, GroupRule, Protocol, Resource, StageAccess};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use policies::credential::api_key;
use policies::credential::assertion::{Key, Signer, jwks};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{TestProxy, endpoints, resource, set, stage, weights, zone};

/// Anybody may know of it, staff may call it, with an application.
pub(crate) const HELLO: &str = "hello.staging.example.com";
/// Nobody but staff may know of it.
pub(crate) const SECRET: &str = "secret.staging.example.com";
/// As `HELLO`, and it says so to those who may not.
pub(crate) const TOLD: &str = "told.staging.example.com";
/// Everybody's.
pub(crate) const OPEN: &str = "open.staging.example.com";
/// No stage has it.
pub(crate) const NOBODY: &str = "nobody.staging.example.com";

pub(crate) const POLICIES: &str = r#"
permit (principal, action == Action::"discover", resource == Stage::"hello/staging");
permit (principal in Group::"staff", action in [Action::"call", Action::"use"], resource in Stage::"hello/staging")
when { context has application };
permit (principal in Group::"staff", action in [Action::"discover", Action::"call"], resource == Stage::"secret/staging");
permit (principal, action == Action::"discover", resource == Stage::"told/staging");
permit (principal in Group::"staff", action in Action::"call", resource == Stage::"told/staging");
@id("guests read below /open")
permit (principal in Group::"guests", action == Action::"read", resource == Stage::"hello/staging")
when { context.path like "/open/*" };
"#;

/// See the module. It signs with ES256.
pub(crate) struct Issuer {
    name: String,
    url: String,
    key: Mutex<(String, Key)>,
    published: Arc<Mutex<String>>,
    /// How often somebody asked for its keys.
    pub(crate) asked: Arc<AtomicU64>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Issuer {
    pub(crate) async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let issuer = Self::at(name, address);
        let (published, asked) = (issuer.published.clone(), issuer.asked.clone());
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let (published, asked) = (published.clone(), asked.clone());
                let service = service_fn(move |_| {
                    asked.fetch_add(1, Relaxed);
                    let keys = published.lock().expect("whole").clone();
                    async move {
                        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(bytes::Bytes::from(keys))))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        *issuer.serving.lock().expect("whole") = Some(serving);
        issuer
    }

    /// Nobody listens there any more.
    pub(crate) async fn stop(&self) {
        let serving = self.serving.lock().expect("whole").take();
        if let Some(serving) = serving {
            serving.abort();
            assert!(serving.await.is_err_and(|error| error.is_cancelled()));
        }
    }

    /// One whose server may not be there.
    pub(crate) fn at(name: &str, address: SocketAddr) -> Self {
        let issuer = Self {
            name: name.into(),
            url: format!("http://{address}"),
            key: Mutex::new((String::new(), Key::draw())),
            published: Arc::default(),
            asked: Arc::default(),
            serving: Mutex::default(),
        };
        issuer.rotate("first");
        issuer
    }

    /// From now on it signs with a new key, and publishes no other.
    pub(crate) fn rotate(&self, kid: &str) {
        let key = Key::draw();
        *self.published.lock().expect("whole") = jwks(&[(kid.to_owned(), key.public.clone())]);
        *self.key.lock().expect("whole") = (kid.to_owned(), key);
    }

    /// A token of these claims, besides issuer and audience.
    pub(crate) fn signs(&self, kid: Option<&str>, claims: serde_json::Value) -> String {
        let (own, key) = &*self.key.lock().expect("whole");
        let signer = Signer::new("", kid.unwrap_or(own), &key.pkcs8).expect("a key");
        let mut all = serde_json::json!({ "iss": self.url, "aud": "pointsman" });
        let serde_json::Value::Object(more) = claims else { panic!("no claims: {claims}") };
        all.as_object_mut().expect("claims").extend(more);
        signer.sign_json(&all)
    }

    /// A token that counts so many seconds from now; fewer than none: it counted once.
    pub(crate) fn token(&self, subject: &str, groups: &[&str], seconds: i64) -> String {
        let exp = now_s().saturating_add_signed(seconds);
        self.signs(None, serde_json::json!({ "sub": subject, "groups": groups, "exp": exp }))
    }

    pub(crate) fn resource(&self) -> Resource {
        let body = fleet::Issuer {
            issuer: self.url.clone(),
            audiences: vec!["pointsman".into()],
            jwks_url: format!("{}/keys", self.url),
            refresh_ms: 300_000,
            groups: vec![GroupRule { claim: "groups".into(), ..GroupRule::default() }],
            ..fleet::Issuer::default()
        };
        resource("issuer", &self.name, &body)
    }
}

/// An application with this key.
pub(crate) fn application(name: &str, drawn: &api_key::Drawn) -> Resource {
    let key = fleet::ApiKey { sha256: drawn.sha256.as_bytes().to_vec(), until_ms: 0 };
    resource("application", name, &fleet::Application { keys: vec![key], ..fleet::Application::default() })
}

pub(crate) fn policy(text: &str) -> Resource {
    resource("policy", "staff.cedar", &fleet::Policy { text: text.into() })
}

/// The stage with this access.
pub(crate) fn guarded(name: &str, protocol: Protocol, access: StageAccess) -> Resource {
    let open = stage(name, protocol, &[1]);
    let body = fleet::Stage::decode(&*open.body).expect("a stage");
    resource("stage", name, &fleet::Stage { access: Some(access), ..body })
}

/// What a call to most stages needs.
pub(crate) const NEEDS_BOTH: StageAccess =
    StageAccess { public: false, explicit_denial: false, needs_application: true, needs_user: true };

/// See the module.
pub(crate) struct Gates {
    pub(crate) proxy: TestProxy,
    pub(crate) issuer: Issuer,
    pub(crate) key: api_key::Drawn,
    pub(crate) upstream: SocketAddr,
    protocol: Protocol,
}

impl Gates {
    pub(crate) async fn start(settings: proxy::Settings, upstream: SocketAddr, protocol: Protocol) -> Self {
        let (proxy, issuer) = (TestProxy::with(settings).await, Issuer::start("corp").await);
        let gates = Self { proxy, issuer, key: api_key::draw(&[7; 40]), upstream, protocol };
        gates.proxy.apply(set(gates.state()));
        gates
    }

    /// All that it serves.
    pub(crate) fn state(&self) -> Vec<Resource> {
        let told = StageAccess { explicit_denial: true, ..NEEDS_BOTH };
        let public = StageAccess { public: true, ..StageAccess::default() };
        let mut all = vec![
            zone(),
            self.issuer.resource(),
            application("batch", &self.key),
            policy(POLICIES),
            resource("entities", "entities", &fleet::Entities { json: "[]".into() }),
        ];
        for (service, access) in [("hello", NEEDS_BOTH), ("secret", NEEDS_BOTH), ("told", told), ("open", public)] {
            let name = format!("{service}/staging");
            all.extend([
                guarded(&name, self.protocol, access),
                weights(&name, &[(1, 1)]),
                endpoints(&name, 1, &[self.upstream]),
            ]);
        }
        all
    }

    /// Fields with the application's key, and a token.
    pub(crate) fn fields(&self, token: &str) -> String {
        format!("x-api-key: {}\r\nauthorization: Bearer {token}\r\n", self.key.text)
    }

    pub(crate) fn staff(&self) -> String {
        self.issuer.token("alice", &["staff"], 600)
    }

    pub(crate) fn guest(&self) -> String {
        self.issuer.token("bob", &["guests"], 600)
    }

    /// A request of staff is served.
    pub(crate) async fn serves_staff(&self) {
        let fields = self.fields(&self.staff());
        let request = format!("GET /normal HTTP/1.1\r\nHost: {HELLO}\r\n{fields}Connection: close\r\n\r\n");
        let answer = crate::support::raw(self.proxy.http, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// What holds after every hostile case: staff is served, and so is everybody where everybody may; sockets are as before.
    pub(crate) async fn is_as_before(&self) {
        self.serves_staff().await;
        let request = format!("GET /normal HTTP/1.1\r\nHost: {OPEN}\r\nConnection: close\r\n\r\n");
        let answer = crate::support::raw(self.proxy.http, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        crate::site::settles(&self.proxy, self.upstream, 0).await;
    }
}
