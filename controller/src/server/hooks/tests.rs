//! Over real sockets, with signatures made by openssl.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use http::{HeaderMap, HeaderName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sources::HookKey;

use super::*;

const KEY: &[u8] = b"It's a Secret to Everybody";

/// Where two repositories have hooks, "hub" as GitHub signs and "own" as we do.
struct World {
    address: SocketAddr,
    hooks: Hooks,
}

impl World {
    async fn new(patience: Option<Patience>) -> Self {
        let hook = |kind| HookKey { kind, key: KEY.to_vec() };
        let named = |name: &str| name.parse::<MemberName>().expect("a name");
        let known = [(named("hub"), hook(WebhookKind::Github)), (named("own"), hook(WebhookKind::Signed))];
        let mut hooks = Hooks::new(Sources::with_hooks(known.into()));
        hooks.patience = patience.unwrap_or(hooks.patience);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve_clear(listener, hooks.clone()));
        Self { address, hooks }
    }

    /// Sends these bytes and returns all that comes back, but for the date.
    async fn says(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        // Who is refused early may find the connection closed while it still sends.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8(answer).expect("text");
        answer.split("\r\n").filter(|line| !line.starts_with("date: ")).collect::<Vec<_>>().join("\r\n")
    }

    async fn posts(&self, path: &str, fields: &str, body: &[u8]) -> String {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {}\r\n\r\n", body.len()).into_bytes();
        self.says(&[&head, body].concat()).await
    }
}

/// HMAC-SHA-256 by openssl, in hex.
fn openssl(key: &[u8], body: &[u8]) -> String {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-hex"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().expect("a pipe").write_all(body).expect("written");
    let output = String::from_utf8(child.wait_with_output().expect("ended").stdout).expect("text");
    output.trim().rsplit_once(' ').expect("a digest").1.to_owned()
}

fn checks(kind: WebhookKind, fields: &[(&'static str, &str)], body: &[u8], now_s: u64) -> bool {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    let mut check = Check::begin(kind, KEY, &headers, now_s);
    // However a body is cut, it is the same one.
    for piece in body.chunks(3) {
        check.update(piece);
    }
    check.finish()
}

#[test]
fn hooks_signatures_are_those_of_openssl_and_of_the_documented_example() {
    const HUB: &str = "x-hub-signature-256";
    let documented = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let github = |field: &str, body: &[u8]| checks(WebhookKind::Github, &[(HUB, field)], body, 0);
    assert!(github(documented, b"Hello, World!"));
    for body in [&b""[..], b"{}", &[0, 255, 10], &[7; 100_000]] {
        assert!(github(&format!("sha256={}", openssl(KEY, body)), body), "{} bytes", body.len());
    }
    let now = 1_700_000_000;
    let made = openssl(KEY, b"1700000000.Hello, World!");
    let signed =
        |field: &str, now| checks(WebhookKind::Signed, &[("x-pointsman-signature", field)], b"Hello, World!", now);
    let field = format!("t={now},v1={made}");
    for (away, expected) in [(0, true), (300, true), (301, false)] {
        assert_eq!((signed(&field, now + away), signed(&field, now - away)), (expected, expected), "{away} s away");
    }
    for wrong in [
        format!("t=0{now},v1={made}"),
        format!("t=+{now},v1={made}"),
        format!("v1={made},t={now}"),
        format!("t={now},v1={}", made.to_uppercase()),
        format!("t={},v1={made}", now + 1),
        format!("t={now},v1={made} "),
        format!("t={now},v1={made},v1={made}"),
        format!("t={},v1={made}", u64::MAX),
        format!("t=99999999999999999999,v1={made}"),
        format!("t={now},v1="),
        String::new(),
    ] {
        assert!(!signed(&wrong, now), "{wrong}");
    }
    assert!(!checks(WebhookKind::Github, &[], b"Hello, World!", 0), "none at all");
    assert!(!checks(WebhookKind::Github, &[(HUB, documented), (HUB, documented)], b"Hello, World!", 0), "two");
    assert!(!checks(WebhookKind::Github, &[(HUB, &documented.replace("sha256", "sha1"))], b"Hello, World!", 0));
    let nothing = format!("sha256={}", "0".repeat(64));
    assert!(!github(&nothing, b"Hello, World!"));
}

#[test]
fn hooks_one_flipped_byte_is_refused() {
    let body = b"Hello, World!";
    let field = format!("sha256={}", openssl(KEY, body));
    let is_right = |field: &str, body: &[u8]| checks(WebhookKind::Github, &[("x-hub-signature-256", field)], body, 0);
    assert!(is_right(&field, body));
    for place in 0..body.len() {
        let mut other = body.to_vec();
        other[place] ^= 1;
        assert!(!is_right(&field, &other), "byte {place} of the body");
    }
    for place in 0..field.len() {
        let mut other = field.clone().into_bytes();
        other[place] ^= 1;
        let other = String::from_utf8(other).expect("still ASCII");
        assert!(!is_right(&other, body), "byte {place} of the signature");
    }
    assert!(!is_right(&field, &body[1..]) && !is_right(&field, &[body, &b"!"[..]].concat()));
}

#[tokio::test]
async fn hooks_unknown_missing_and_wrong_are_one_answer() {
    let world = World::new(None).await;
    let body = b"{\"ref\": \"refs/heads/main\"}";
    let wrong = format!("x-github-event: push\r\nx-hub-signature-256: sha256={}\r\n", openssl(b"another", body));
    let right = format!("x-github-event: push\r\nx-hub-signature-256: sha256={}\r\n", openssl(KEY, body));
    let refused = world.posts("/v1/hooks/hub", &wrong, body).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    for (path, fields) in [
        ("/v1/hooks/hub", ""),
        ("/v1/hooks/nobody", right.as_str()),
        ("/v1/hooks/nobody", ""),
        ("/v1/hooks/", &right),
        ("/v1/hooks/hub/", &right),
        ("/v1/hooks/..%2f..%2fetc", &right),
        ("/v1/hooks/own", &right),
    ] {
        assert_eq!(world.posts(path, fields, body).await, refused, "{path} {fields}");
    }
    let accepted = world.posts("/v1/hooks/hub", &right, body).await;
    assert!(accepted.starts_with("HTTP/1.1 202 "), "{accepted}");
    assert!(world.says(b"GET /v1/hooks/hub HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("405 "));
    let elsewhere = world.says(b"GET /v1/annotations HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(elsewhere.contains("404 ") && elsewhere.contains("nothing is here"), "{elsewhere}");
}

#[tokio::test]
async fn hooks_follow_by_the_name_of_the_event() {
    let world = World::new(None).await;
    let signature = format!("x-hub-signature-256: sha256={}\r\n", openssl(KEY, b"x"));
    for (event, status, said) in [
        ("push", 202, "is looked at"),
        ("release", 202, "is looked at"),
        ("create", 202, "is looked at"),
        ("ping", 200, "deliveries are taken"),
        ("issues", 202, "nothing follows"),
        ("PUSH", 202, "nothing follows"),
    ] {
        let answer = world.posts("/v1/hooks/hub", &format!("{signature}x-github-event: {event}\r\n"), b"x").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(said), "{event}: {answer}");
    }
    let now = clock_ms() / 1000;
    let own = format!("x-pointsman-signature: t={now},v1={}\r\n", openssl(KEY, format!("{now}.x").as_bytes()));
    assert!(world.posts("/v1/hooks/own", &own, b"x").await.contains("is looked at"));
}

#[tokio::test]
async fn hooks_bodies_are_bounded_in_size_and_time() {
    let most = usize::try_from(BODY_BYTES).expect("fits");
    let world = World::new(None).await;
    let body = vec![b'x'; most];
    let signature = format!("x-github-event: push\r\nx-hub-signature-256: sha256={}\r\n", openssl(KEY, &body));
    assert!(world.posts("/v1/hooks/hub", &signature, &body).await.starts_with("HTTP/1.1 202 "));
    // One byte more, told before and not.
    let larger = format!("POST /v1/hooks/hub HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", most + 1);
    assert!(world.says(larger.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    let chunked =
        format!("POST /v1/hooks/hub HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", most + 1);
    let chunked = [chunked.as_bytes(), &body, b"x\r\n0\r\n\r\n"].concat();
    let answer = world.says(&chunked).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let soon = Patience { piece: Duration::from_millis(200), whole: Duration::from_secs(2) };
    let impatient = World::new(Some(soon)).await;
    let slow = b"POST /v1/hooks/hub HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab";
    assert!(impatient.says(slow).await.starts_with("HTTP/1.1 408 "), "it stops in the middle");
    let cut = b"POST /v1/hooks/hub HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    assert!(!impatient.says(cut).await.contains(" 202 "));
    assert_eq!(impatient.hooks.places.available_permits(), AT_ONCE, "every place is free again");
}

#[tokio::test]
async fn hooks_no_more_at_once_than_there_are_places() {
    let world = World::new(None).await;
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        let mut stream = TcpStream::connect(world.address).await.expect("connected");
        stream.write_all(b"POST /v1/hooks/hub HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await.expect("sent");
        held.push(stream);
    }
    let taken = async {
        while world.hooks.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken).await.expect("all places are taken");
    let busy = world.posts("/v1/hooks/hub", "", b"x").await;
    assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("retry-after: 5"), "{busy}");
    drop(held);
    let answered = async { while world.posts("/v1/hooks/hub", "", b"x").await.contains(" 503 ") {} };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("places are given back");
}
