//! Somebody who issues tokens and runs in the test: real HTTP, real signatures, and every trouble an issuer can have.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use policies::credential::assertion::{Key, Signer, jwks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::House;

/// Whom tokens are for.
pub(crate) const AUDIENCE: &str = "pointsman-tests";
/// People of the group staff may know of production and call it, through whatever application.
pub(crate) const STAFF: &str = r#"permit (
  principal in Group::"staff",
  action in [Action::"discover", Action::"call", Action::"use"],
  resource in Environment::"production"
);
"#;

/// How an issuer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Answers 500.
    Broken,
    /// Answers with a page.
    Html,
    /// Accepts and never answers.
    Silent,
}

/// Issues tokens until the test ends.
pub(crate) struct Issuer {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Oldest first; the last one signs.
    keys: Mutex<Vec<(String, Key)>>,
    mood: Mutex<Mood>,
    fetches: AtomicU64,
}

impl Issuer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = url(listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared {
            keys: Mutex::new(vec![("k1".into(), Key::draw())]),
            mood: Mutex::new(Mood::Well),
            fetches: AtomicU64::new(0),
        });
        let (own_url, serving) = (url.clone(), shared.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (url, shared) = (own_url.clone(), serving.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(url.clone(), shared.clone(), request));
                    // However the other side ends it.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, shared }
    }

    /// Behaves so from now on.
    pub(crate) fn is(&self, mood: Mood) {
        *self.shared.mood.lock().expect("whole") = mood;
    }

    /// Signs with a new key from now on. The one before is shown as long as `keeps_old`.
    pub(crate) fn rotates(&self, keeps_old: bool) {
        let mut keys = self.shared.keys.lock().expect("whole");
        let number = keys.last().and_then(|(id, _)| id[1..].parse::<u32>().ok()).unwrap_or_default() + 1;
        if !keeps_old {
            keys.clear();
        }
        keys.push((format!("k{number}"), Key::draw()));
    }

    /// How often its keys were asked for.
    pub(crate) fn fetches(&self) -> u64 {
        self.shared.fetches.load(Relaxed)
    }

    /// A good token.
    pub(crate) fn token(&self, subject: &str, groups: &[&str]) -> String {
        self.token_with(subject, groups, &json!({}))
    }

    /// A token with other claims, or none in place of null.
    pub(crate) fn token_with(&self, subject: &str, groups: &[&str], other: &Value) -> String {
        let now = now_s();
        let mut claims = json!({ "iss": self.url, "aud": AUDIENCE, "sub": subject, "groups": groups, "iat": now,
                                 "exp": now + 3_600 });
        for (name, value) in other.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims.as_object_mut().expect("claims").retain(|_, value| !value.is_null());
        let keys = self.shared.keys.lock().expect("whole");
        let (id, key) = keys.last().expect("one signs");
        Signer::new(&self.url, id, &key.pkcs8).expect("its own key").sign_json(&claims)
    }

    /// A token like the others, with a key that nobody knows.
    pub(crate) fn forged(&self, kid: &str) -> String {
        let claims = json!({ "iss": self.url, "aud": AUDIENCE, "sub": "mallory", "groups": ["staff"],
                             "iat": now_s(), "exp": now_s() + 3_600 });
        Signer::new(&self.url, kid, &Key::draw().pkcs8).expect("a key").sign_json(&claims)
    }

    /// `access.toml` that trusts this issuer, with one document of policies.
    pub(crate) fn access(&self) -> String {
        format!(
            "schema = 1\npolicies = [\"policies/staff.cedar\"]\n[issuer.corp]\nissuer = \"{}\"\naudience = [\"{AUDIENCE}\"]\n\
             groups = [{{ claim = \"groups\" }}]\n",
            self.url
        )
    }
}

impl House {
    /// Has the fleet believe an issuer, and follow these policies.
    pub(crate) async fn believes(&self, issuer: &Issuer, policies: &str) {
        std::fs::create_dir_all(self.path("policies")).expect("a folder");
        std::fs::write(self.path("policies/staff.cedar"), policies).expect("written");
        self.apply(&[("access.toml", &issuer.access())]).await;
    }

    /// Makes an application; its key.
    pub(crate) async fn application(&self, name: &str) -> String {
        let made = self.json(&["app", "create", name]).await;
        made["key"].as_str().expect("a key").to_owned()
    }
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

async fn answer(
    url: String,
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mood = *shared.mood.lock().expect("whole");
    let is_keys = request.uri().path() == "/keys";
    if is_keys {
        shared.fetches.fetch_add(1, Relaxed);
    }
    let text = match mood {
        Mood::Well if is_keys => {
            let keys = shared.keys.lock().expect("whole");
            jwks(&keys.iter().map(|(id, key)| (id.clone(), key.public.clone())).collect::<Vec<_>>())
        }
        Mood::Well => json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string(),
        Mood::Html => "<!doctype html><title>We are working on it</title>".to_owned(),
        Mood::Broken => String::new(),
        Mood::Silent => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            String::new()
        }
    };
    let status = if mood == Mood::Broken { 500 } else { 200 };
    Ok(Response::builder().status(status).body(Full::from(text)).expect("an answer"))
}
