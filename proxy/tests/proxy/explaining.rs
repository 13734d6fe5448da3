//! What was decided lately, asked for by a played controller: this proxy's own requests and nothing else.

use api::fleet::controller_message::Kind as Down;
use api::fleet::proxy_message::Kind as Up;
use api::fleet::{Decided, Protocol, Question};

use crate::fleet::{Link, play};
use crate::gates::{Gates, HELLO, NOBODY, SECRET, TOLD};
use crate::support::{Body, Client, Upstream, settings};

impl Link {
    /// What the proxy says of a request.
    async fn decided(&mut self, number: u64, request_id: &str) -> Option<Decided> {
        self.send(Down::Question(Question { number, request_id: request_id.into() })).await;
        loop {
            if let Some(Up::Answer(answer)) = self.next().await {
                assert_eq!(answer.number, number);
                return answer.decided;
            }
        }
    }
}

/// The name that a request has from us; of a 404 what is sealed in its name.
fn own(name: &str) -> String {
    use base64::Engine;
    if name.len() == 32 {
        return name.to_owned();
    }
    let sealed = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(name).expect("base64url");
    sealed[8..24].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_each_request_is_told_as_it_was_decided() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Upstream::start("r1", Protocol::H1).await;
    let gates = Gates::start(settings(folder.path(), 4), upstream.address, Protocol::H1).await;
    let (channel, mut links) = play().await;
    tokio::select! {
        () = gates.proxy.engine.follow(channel, || {}) => unreachable!("it follows for ever"),
        () = asked(&gates, &mut links) => {}
    }
}

async fn asked(gates: &Gates, links: &mut tokio::sync::mpsc::Receiver<Link>) {
    let mut link = links.recv().await.expect("connected");
    link.hello().await;
    let (staff, guest) = (gates.staff(), gates.guest());
    let expired = gates.issuer.token("alice", &["staff"], -600);
    let long = "x".repeat(4_000);
    let (key, tokens) = (gates.key.text.as_str(), (Some(&*staff), Some(&*guest), Some(&*expired)));
    let mut names = Vec::new();
    for (host, path, key, token, expected, reasons) in [
        (
            HELLO,
            "/a?secret=x",
            key,
            tokens.0,
            ("hello/staging", 1, "/a", "batch", "alice", "allowed", 200),
            &["policy staff.cedar:3"][..],
        ),
        (HELLO, "/", "", None, ("hello/staging", 0, "/", "", "", "unauthenticated", 401), &["no valid application"]),
        (
            HELLO,
            "/",
            key,
            tokens.2,
            ("hello/staging", 0, "/", "batch", "", "unauthenticated", 401),
            &["no valid user", "user: the token has expired"],
        ),
        (
            HELLO,
            "/",
            key,
            tokens.1,
            ("hello/staging", 0, "/", "batch", "bob", "hidden", 404),
            &["no policy lets the caller do this"],
        ),
        (
            SECRET,
            "/",
            key,
            tokens.1,
            ("secret/staging", 0, "/", "batch", "bob", "hidden", 404),
            &["no policy lets the caller know of the stage"],
        ),
        (
            TOLD,
            "/",
            key,
            tokens.1,
            ("told/staging", 0, "/", "batch", "bob", "forbidden", 403),
            &["no policy lets the caller do this"],
        ),
        (
            NOBODY,
            &*format!("/{long}"),
            "pm_x",
            None,
            ("", 0, "/x", "", "", "unknown", 404),
            &["no stage has this host", "application: "],
        ),
    ] {
        // Each on a connection of its own, so that several workers have them.
        let mut client = Client::http1(gates.proxy.http).await;
        let mut request = client.request(host, path);
        if !key.is_empty() {
            request = request.header("x-api-key", key);
        }
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = client.send(request.body(Body::default()).expect("a request")).await.expect("answered");
        let name = answer.headers["x-request-id"].to_str().expect("text").to_owned();
        names.push((own(&name), host, expected, reasons));
    }
    // All that was is still there, in any order and as often as somebody asks.
    for (number, (name, host, expected, reasons)) in names.iter().chain(names.iter().rev()).enumerate() {
        let (stage, release, path, application, subject, outcome, status) = *expected;
        let decided = link.decided(number as u64, name).await.unwrap_or_else(|| panic!("unknown: {expected:?}"));
        let told = (decided.stage.as_str(), decided.release, decided.application.as_str(), decided.subject.as_str());
        assert_eq!(told, (stage, release, application, subject), "{decided:?}");
        assert_eq!(
            (decided.outcome.as_str(), decided.status, decided.host.as_str()),
            (outcome, status, *host),
            "{decided:?}"
        );
        assert_eq!((decided.method.as_str(), decided.action.as_str()), ("GET", "read"));
        assert!(decided.path.starts_with(path) && decided.path.len() < 800, "{decided:?}");
        assert_eq!(decided.groups.contains(&"staff".to_owned()), subject == "alice");
        assert!(!decided.path.contains("secret"), "what stands in a query is nobody's business");
        for reason in *reasons {
            assert!(decided.reasons.iter().any(|said| said.starts_with(reason)), "{reason}: {decided:?}");
        }
    }
    // What is not ours opens nothing.
    for name in
        ["", "x", &"0".repeat(32), &"f".repeat(32), &names[0].0.to_uppercase(), &names[0].0[..31], &"\u{e4}".repeat(16)]
    {
        assert_eq!(link.decided(99, name).await, None, "{name}");
    }
    // One worker's memory has an end: the newest are there.
    let mut client = Client::http1(gates.proxy.http).await;
    let mut ids = Vec::new();
    for _ in 0..1_100 {
        ids.push(client.get(HELLO, "/").await.headers["x-request-id"].to_str().expect("text").to_owned());
    }
    assert_eq!(link.decided(1, &ids[0]).await, None);
    assert!(link.decided(2, &ids[1_099]).await.is_some() && link.decided(3, &ids[1_099 - 1_023]).await.is_some());
}
