//! Callers keep their release while shares move, and whoever asks for one by name or header gets that.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use api::fleet::{HeaderRule, Protocol, Resource, ResourceSet, Split, Sticky, WeightedRelease, sticky};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policies::credential::api_key;
use proxy::local::{LocalRequest, request};
use proxy::{LogTarget, Settings};

use crate::gates::{Issuer, application};
use crate::recorder::Recorder;
use crate::site::is_as_before;
use crate::support::{Answer, Body, Client, HOST, TestProxy, Upstream, hello, resource, settings, until};
use crate::wire::Wire;

const GRPC: &str = "application/grpc";
const COOKIE: &str = "release";

/// Two releases of `hello/staging`; the second one enters.
struct Pair {
    r1: Upstream,
    r2: Upstream,
    protocol: Protocol,
}

/// What callers are told apart by: a field of their requests.
type Caller = (&'static str, String);

impl Pair {
    async fn start(protocol: Protocol) -> Self {
        Self { r1: Upstream::start("r1", protocol).await, r2: Upstream::start("r2", protocol).await, protocol }
    }

    /// Of a million, so many to the second; with what the split says besides.
    fn state(&self, ppm: u32, sticky: Option<Sticky>, rules: &[HeaderRule]) -> ResourceSet {
        let [r1, r2] = [self.r1.address, self.r2.address];
        state(self.protocol, [r1, r2], ppm, sticky, rules)
    }
}

fn state(
    protocol: Protocol,
    [r1, r2]: [SocketAddr; 2],
    ppm: u32,
    sticky: Option<Sticky>,
    rules: &[HeaderRule],
) -> ResourceSet {
    let mut set = hello(protocol, &[(1, r1, 1_000_000 - ppm), (2, r2, ppm)]);
    set.upserts.retain(|resource| resource.kind != "split");
    let weights =
        vec![WeightedRelease { release: 1, weight: 1_000_000 - ppm }, WeightedRelease { release: 2, weight: ppm }];
    let body = Split { weights, sticky, rules: rules.to_vec(), guard: None };
    set.upserts.push(Resource { schema: api::SCHEMA_ROLLOUT, ..resource("split", "hello/staging", &body) });
    set
}

fn by_identity() -> Option<Sticky> {
    let by = sticky::By::Identity.into();
    Some(Sticky { by, key: vec![7; 16], order: vec![2, 1], cookie: String::new() })
}

fn by_cookie() -> Option<Sticky> {
    by_identity().map(|sticky| Sticky { by: sticky::By::Cookie.into(), cookie: COOKIE.into(), ..sticky })
}

fn rule(name: &str, value: &str, release: u32) -> HeaderRule {
    HeaderRule { name: name.into(), value: value.into(), release }
}

/// So many cookies, all different, the same in every run.
fn cookies(count: u64) -> Vec<Caller> {
    let token = |n: u64| {
        let halves = [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n].map(u64::to_be_bytes);
        URL_SAFE_NO_PAD.encode(halves.concat())
    };
    (0..count).map(|n| ("cookie", format!("theme=dark; {COOKIE}={}", token(n)))).collect()
}

async fn ask(client: &mut Client, host: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = client.request(host, path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    client.send(request.body(Body::default()).expect("a request")).await.expect("answered")
}

/// Which release answers each caller, over several connections at once.
async fn who(proxy: SocketAddr, http_2: bool, callers: &[Caller]) -> Vec<String> {
    let chunks: Vec<Vec<Caller>> = callers.chunks(callers.len().div_ceil(4)).map(<[Caller]>::to_vec).collect();
    let mut asking = Vec::new();
    for chunk in chunks {
        asking.push(tokio::spawn(async move {
            let mut client = if http_2 { Client::http2(proxy).await } else { Client::http1(proxy).await };
            let mut names = Vec::with_capacity(chunk.len());
            for (name, value) in chunk {
                let answer = ask(&mut client, HOST, "/", &[(name, &value)]).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
                names.push(answer.body);
            }
            names
        }));
    }
    let mut names = Vec::new();
    for asked in asking {
        names.extend(asked.await.expect("answered"));
    }
    names
}

/// Within what so many hashes can show: six standard deviations, which a fair hash leaves once in 500 million.
fn is_about(count: usize, ppm: u32, of: usize) {
    let (share, of) = (f64::from(ppm) / 1e6, of as f64);
    let (expected, deviation) = (share * of, (share * (1.0 - share) * of).sqrt());
    assert!((count as f64 - expected).abs() <= 6.0 * deviation, "{count} at {ppm} ppm of {of}, {expected} expected");
}

/// A ramp from nobody to everybody on two proxies: each caller flips once and never back, both proxies agree, and shares are
/// what they should be.
async fn ramp(sticky: impl Fn() -> Option<Sticky>, callers: &[Caller], more: &[Resource]) {
    let pair = Pair::start(Protocol::H1).await;
    let folders = [tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder")];
    let one = TestProxy::start(folders[0].path(), 1).await;
    let other = TestProxy::start(folders[1].path(), 3).await;
    let mut before: HashSet<usize> = HashSet::new();
    for ppm in [0, 1_000, 10_000, 100_000, 250_000, 500_000, 900_000, 1_000_000] {
        for proxy in [&one, &other] {
            let mut state = pair.state(ppm, sticky(), &[]);
            state.upserts.extend_from_slice(more);
            proxy.apply(state);
        }
        let (http1, http2) = tokio::join!(who(one.http, false, callers), who(other.http, true, callers));
        assert_eq!(http1, http2, "two proxies agree at {ppm} ppm");
        let moved: HashSet<usize> =
            http1.iter().enumerate().filter(|(_, name)| *name == "r2").map(|(place, _)| place).collect();
        assert!(moved.is_superset(&before), "some flipped back at {ppm} ppm");
        is_about(moved.len(), ppm, callers.len());
        before = moved;
    }
    assert_eq!(before.len(), callers.len(), "everybody at last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_ramp_by_cookie_flips_each_of_a_thousand_once_on_every_proxy() {
    ramp(by_cookie, &cookies(1_000), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_ramp_by_identity_flips_each_of_a_thousand_once_on_every_proxy() {
    certs::install_provider();
    let issuer = Issuer::start("corp").await;
    let drawn: Vec<_> =
        (0..500u32).map(|n| api_key::draw(&[n.to_le_bytes(); 10].concat().try_into().expect("40 bytes"))).collect();
    let mut more: Vec<Resource> =
        drawn.iter().enumerate().map(|(n, key)| application(&format!("batch{n}"), key)).collect();
    more.push(issuer.resource());
    let users =
        (0..500).map(|n| ("authorization", format!("Bearer {}", issuer.token(&format!("user{n}"), &[], 6_000))));
    let callers: Vec<Caller> = users.chain(drawn.iter().map(|key| ("x-api-key", key.text.to_string()))).collect();
    ramp(by_identity, &callers, &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_by_identity_goes_by_the_user_before_the_application_and_deals_nobody_by_weight() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (issuer, keys) = (Issuer::start("corp").await, [api_key::draw(&[1; 40]), api_key::draw(&[2; 40])]);
    let mut state = pair.state(500_000, by_identity(), &[]);
    state.upserts.extend([issuer.resource(), application("one", &keys[0]), application("two", &keys[1])]);
    proxy.apply(state);
    let mut client = Client::http1(proxy.http).await;
    let mut seen = HashSet::new();
    for user in 0..40 {
        // Another token of the same user, with any application, or one that does not count.
        let name = format!("user{user}");
        let tokens = [600, 700].map(|seconds| format!("Bearer {}", issuer.token(&name, &["staff"], seconds)));
        let mut releases = HashSet::new();
        for token in &tokens {
            for key in [None, Some(&*keys[0].text), Some(&*keys[1].text), Some("garbage")] {
                let fields = [("authorization", &**token), ("x-api-key", key.unwrap_or_default())];
                let fields = &fields[..1 + usize::from(key.is_some())];
                releases.insert(ask(&mut client, HOST, "/", fields).await.body);
            }
        }
        assert_eq!(releases.len(), 1, "{name}");
        seen.extend(releases);
    }
    assert_eq!(seen.len(), 2, "users of either release");
    // Nobody, be it by garbage, takes turns: exactly a half.
    for fields in [&[][..], &[("x-api-key", "garbage")], &[("authorization", "Bearer x.y.z")]] {
        let mut counts: HashMap<String, u32> = HashMap::new();
        for _ in 0..20 {
            *counts.entry(ask(&mut client, HOST, "/", fields).await.body).or_default() += 1;
        }
        assert_eq!((counts["r1"], counts["r2"]), (10, 10), "{fields:?}");
    }
}

/// The cookie that an answer gives, if it gives one.
fn given(answer: &Answer) -> Option<&str> {
    let all: Vec<_> = answer.headers.get_all("set-cookie").iter().filter_map(|value| value.to_str().ok()).collect();
    let ours: Vec<_> = all.into_iter().filter(|value| value.starts_with("release=")).collect();
    assert!(ours.len() < 2, "{ours:?}");
    ours.first().copied()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_by_cookie_gives_one_that_decides_from_the_first_request_on() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let settings = Settings { trusted: vec!["127.0.0.0/8".parse().expect("a network")], ..settings(folder.path(), 1) };
    let proxy = TestProxy::with(settings).await;
    proxy.apply(pair.state(500_000, by_cookie(), &[]));
    let mut tokens = HashSet::new();
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        let mut releases = HashSet::new();
        for n in 0..40 {
            // Over TLS to a peer that is believed, and in clear.
            let (scheme, secure) = if n % 2 == 0 { ("https", "; Secure") } else { ("http", "") };
            let first = ask(&mut client, HOST, "/", &[("x-forwarded-proto", scheme)]).await;
            let cookie = given(&first).expect("a cookie").to_owned();
            let (pair, rest) = cookie.split_at(COOKIE.len() + 1 + 22);
            assert_eq!(rest, format!("; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax{secure}"));
            let token = &pair[COOKIE.len() + 1..];
            assert_eq!(URL_SAFE_NO_PAD.decode(token).expect("base64url").len(), 16);
            assert!(tokens.insert(token.to_owned()), "one twice");
            for _ in 0..3 {
                let crumbs = [("cookie", "theme=dark"), ("cookie", pair)];
                let again = ask(&mut client, HOST, "/", &crumbs).await;
                assert_eq!((&again.body, given(&again)), (&first.body, None));
            }
            releases.insert(first.body);
        }
        assert_eq!(releases.len(), 2, "callers of either release");
    }
    // The endpoint sees the client's cookies as they came.
    let cookie = format!("theme=dark; {COOKIE}={}; x=y", tokens.iter().next().expect("one"));
    let name = ask(&mut Client::http1(proxy.http).await, HOST, "/", &[("cookie", &cookie)]).await.body;
    let upstream = if name == "r1" { &pair.r1 } else { &pair.r2 };
    assert_eq!(upstream.last().1["cookie"], *cookie);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_by_cookie_is_secure_over_tls() {
    let folder = tempfile::tempdir().expect("folder");
    let (proxy, upstream, roots) = crate::tls::https_with(folder.path(), crate::support::zone()).await;
    let ca = certs::development::DevelopmentCa::open_or_create(&folder.path().join("ca")).expect("authority");
    let mut state = state(Protocol::H1, [upstream.address; 2], 500_000, by_cookie(), &[]);
    state.upserts.push(crate::tls::certificate(&ca));
    proxy.apply(state);
    let mut stream = crate::tls::shaken(proxy.https(), roots, "http/1.1", HOST).await;
    let answer = {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_calls_keep_their_release_and_are_given_no_cookie() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H2c).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(pair.state(500_000, by_cookie(), &[]));
    let mut client = Client::http2(proxy.http).await;
    let served = || (pair.r1.requests(), pair.r2.requests());
    for kind in [GRPC, "application/grpc-web"] {
        for caller in cookies(20) {
            let (name, value) = (caller.0, caller.1.as_str());
            let release = ask(&mut client, HOST, "/", &[(name, value)]).await.body;
            let before = served();
            for _ in 0..2 {
                let fields = [(name, value), ("content-type", kind)];
                let answer = ask(&mut client, HOST, "/call", &fields).await;
                assert!(answer.headers["content-type"].as_bytes().starts_with(kind.as_bytes()), "{answer:?}");
                assert_eq!(given(&answer), None);
            }
            let after = served();
            let calls = if release == "r1" { (2, 0) } else { (0, 2) };
            assert_eq!((after.0 - before.0, after.1 - before.1), calls, "{release}");
        }
        // Without one they take turns, exactly, and still get none.
        let before = served();
        for _ in 0..10 {
            assert_eq!(given(&ask(&mut client, HOST, "/call", &[("content-type", kind)]).await), None);
        }
        let after = served();
        assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5));
    }
    // A request that is none, and is answered as if it were.
    let answer = ask(&mut client, HOST, "/call", &[]).await;
    assert_eq!((&answer.headers["content-type"], given(&answer)), (&GRPC.parse().expect("a value"), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_restart_keeps_everybodys_place() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 2).await;
    let last = proxy.apply(pair.state(300_000, by_cookie(), &[rule("x-insider", "yes", 2)]));
    let callers = cookies(200);
    let before = who(proxy.http, false, &callers).await;
    proxy.engine.saved(last).await;
    proxy.engine.drain().await;
    let again = TestProxy::start(folder.path(), 1).await;
    assert_eq!(again.engine.version(), Some(last));
    assert_eq!(who(again.http, true, &callers).await, before);
    let mut client = Client::http1(again.http).await;
    for _ in 0..3 {
        assert_eq!(ask(&mut client, HOST, "/", &[("x-insider", "yes")]).await.body, "r2");
    }
    // Another key deals anew: about a fifth of them flips each way.
    let other = by_cookie().map(|sticky| Sticky { key: vec![8; 16], ..sticky });
    again.apply(pair.state(300_000, other, &[]));
    let after = who(again.http, false, &callers).await;
    is_about(before.iter().zip(&after).filter(|(was, is)| was != is).count(), 420_000, callers.len());
}

/// A cookie whose place is in the first or the last tenth.
async fn cookie_of(proxy: &TestProxy, pair: &Pair, release: &str) -> String {
    proxy.apply(pair.state(500_000, by_cookie(), &[]));
    let callers = cookies(20);
    let place = who(proxy.http, false, &callers).await.iter().position(|name| name == release).expect("one of them");
    callers[place].1.clone()
}

/// A host, fields, and the release that answers.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_yields_to_header_rules_these_to_hosts_and_all_to_an_override() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let log = folder.path().join("access.log");
    let access_log = Some(LogTarget::File(log.clone()));
    let proxy = TestProxy::with(Settings { access_log, ..settings(folder.path(), 1) }).await;
    let (first, second) = (cookie_of(&proxy, &pair, "r1").await, cookie_of(&proxy, &pair, "r2").await);
    let rules = [rule("x-insider", "yes", 2), rule("x-insider", "no", 1), rule("x-other", "1", 1)];
    proxy.apply(pair.state(500_000, by_cookie(), &rules));
    let (r1, r2) = ("r1--hello.staging.example.com", "r2--hello.staging.example.com");
    let (one, two) = (("cookie", &*first), ("cookie", &*second));
    let (yes, no, other) = (("x-insider", "yes"), ("x-insider", "no"), ("x-other", "1"));
    let cases: &[Case] = &[
        (HOST, &[one], "r1"),
        (HOST, &[two], "r2"),
        (HOST, &[one, yes], "r2"),
        (HOST, &[two, no], "r1"),
        (HOST, &[two, other], "r1"),
        // The first rule that matches, whatever the order of the fields.
        (HOST, &[other, yes], "r2"),
        (r1, &[two, yes], "r1"),
        (r2, &[one, no], "r2"),
        (r1, &[yes], "r1"),
    ];
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        for (host, fields, release) in cases {
            for _ in 0..3 {
                let by = match fields {
                    _ if *host != HOST => "host",
                    [_cookie] => "sticky",
                    _ => "rule",
                };
                let answer = ask(&mut client, host, &format!("/{by}"), fields).await;
                assert_eq!((&*answer.body, given(&answer)), (*release, None), "{host} {fields:?}");
            }
        }
    }
    let stage: api::StageName = "hello/staging".parse().expect("a stage");
    let release = api::ReleaseNumber::new(1).expect("a number");
    let set =
        LocalRequest::Override { stage, release, for_ms: 3_600_000, by: "ops".into(), reason: "r2 is broken".into() };
    request(folder.path(), set).await.expect("answered");
    let mut client = Client::http1(proxy.http).await;
    for (host, fields, _) in cases.iter().chain(&[(HOST, &[][..], "")]) {
        let answer = ask(&mut client, host, "/override", fields).await;
        assert_eq!((&*answer.body, given(&answer)), ("r1", None), "{host} {fields:?}");
    }
    // The log says of each by what it was: the target is what it should be.
    until("all lines are there", || placed(&log).len() > 2 * 3 * cases.len() + cases.len()).await;
    for (target, by) in placed(&log) {
        // Of the cookies that were tried first.
        let target = if target == "/" { "/sticky" } else { &*target };
        assert_eq!(target, format!("/{by}"));
    }
}

/// Targets of the access log's lines, each with by what its release was found.
fn placed(log: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let field = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines.map(|line| (field(&line, "target"), field(&line, "placed"))).filter(|(_, by)| !by.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_insiders_alone_reach_a_release_without_a_share() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 2).await;
    for sticky in [None, by_identity(), by_cookie()] {
        proxy.apply(pair.state(0, sticky, &[rule("x-insider", "let me in", 2)]));
        for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
            for _ in 0..10 {
                assert_eq!(ask(&mut client, HOST, "/", &[]).await.body, "r1");
                assert_eq!(ask(&mut client, HOST, "/", &[("x-insider", "no")]).await.body, "r1");
                assert_eq!(ask(&mut client, HOST, "/", &[("x-insider", "let me in")]).await.body, "r2");
            }
        }
    }
    // The endpoint sees the field.
    assert_eq!(pair.r2.last().1["x-insider"], "let me in");
    proxy.apply(pair.state(0, None, &[]));
    let mut client = Client::http1(proxy.http).await;
    assert_eq!(ask(&mut client, HOST, "/", &[("x-insider", "let me in")]).await.body, "r1", "the rule is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_callers_of_a_release_that_nobody_answers_for_are_not_dealt_to_another() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    let (first, second) = (cookie_of(&proxy, &pair, "r1").await, cookie_of(&proxy, &pair, "r2").await);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let dead = state(Protocol::H1, [pair.r1.address, free], 500_000, by_cookie(), &[]);
    let none = {
        let mut set = dead.clone();
        set.upserts.retain(|resource| resource.name != "hello/staging/r2");
        set
    };
    for (state, status) in [(dead, &[502, 503][..]), (none, &[503])] {
        proxy.apply(state);
        for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
            for _ in 0..5 {
                assert_eq!(ask(&mut client, HOST, "/", &[("cookie", &first)]).await.body, "r1");
                let answer = ask(&mut client, HOST, "/", &[("cookie", &second)]).await;
                assert!(status.contains(&answer.status), "{answer:?}");
            }
            // What we answer ourselves gives nobody a cookie.
            let mut refused = 0;
            while refused < 3 {
                let answer = ask(&mut client, HOST, "/", &[]).await;
                assert_eq!(given(&answer).is_some(), answer.status == 200, "{answer:?}");
                refused += usize::from(answer.status != 200);
            }
            assert_eq!(given(&ask(&mut client, "nobody.staging.example.com", "/", &[]).await), None);
        }
    }
    proxy.apply(pair.state(500_000, by_cookie(), &[]));
    assert_eq!(ask(&mut Client::http1(proxy.http).await, HOST, "/", &[("cookie", &second)]).await.body, "r2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_cookies_come_beside_the_endpoints_own_and_with_a_changed_protocol() {
    let folder = tempfile::tempdir().expect("folder");
    let upstream = Recorder::start(|mut peer| async move {
        let Some(head) = peer.head().await else { return };
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            return peer
                .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                .await;
        }
        let own = "Set-Cookie: session=1; Path=/\r\nSet-Cookie: theme=dark\r\n";
        peer.send(format!("HTTP/1.1 200 OK\r\n{own}connection: close\r\ncontent-length: 2\r\n\r\nok")).await;
    })
    .await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(state(Protocol::H1, [upstream.address; 2], 500_000, by_cookie(), &[]));
    for mut client in [Client::http1(proxy.http).await, Client::http2(proxy.http).await] {
        let answer = ask(&mut client, HOST, "/", &[]).await;
        let all: Vec<_> =
            answer.headers.get_all("set-cookie").iter().map(|value| value.to_str().expect("text")).collect();
        let [session, theme, ours] = all[..] else { panic!("{answer:?}") };
        assert_eq!((session, theme, Some(ours)), ("session=1; Path=/", "theme=dark", given(&answer)));
    }
    let mut wire = Wire::connect(proxy.http).await;
    wire.ask("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n").await;
    let (status, head) = wire.head().await.expect("an answer");
    assert!(status == 101 && head.contains("\r\nset-cookie: release="), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h41_no_other_spelling_of_a_rule_leads_anybody_there() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(pair.state(0, None, &[rule("x-insider", "yes", 2)]));
    let asks = async |fields: &str| {
        let mut wire = Wire::connect(proxy.http).await;
        wire.ask("GET / HTTP/1.1", &format!("{fields}Connection: close\r\n")).await;
        wire.answer().await.expect("an answer")
    };
    for fields in [
        "x-insider: yes\r\n",
        "X-Insider: yes\r\n",
        "X-INSIDER:yes\r\n",
        "x-insider: \t yes \t\r\n",
        "x-insider: yes\r\nConnection: x-insider\r\n",
        "x_insider: no\r\nx-insider: yes\r\n",
    ] {
        assert_eq!(asks(fields).await.text(), "r2", "{fields}");
    }
    for fields in [
        "x-insider: no\r\n",
        "x-insider: Yes\r\n",
        "x-insider: yes,\r\n",
        "x-insider: yes, yes\r\n",
        "x-insider: yes;q=1\r\n",
        "x-insider: \"yes\"\r\n",
        "x-insider: y%65s\r\n",
        "x-insider: ye\r\n",
        "x-insider: yess\r\n",
        "x-insider:\r\n",
        "x_insider: yes\r\n",
        "x.insider: yes\r\n",
        "xx-insider: yes\r\n",
        "x-insider-: yes\r\n",
        "cookie: x-insider=yes\r\n",
        "trailer: x-insider\r\n",
        // Two of them, in whatever order: who joins them and who takes one would not agree.
        "x-insider: yes\r\nx-insider: yes\r\n",
        "x-insider: yes\r\nx-insider: no\r\n",
        "x-insider: no\r\nx-insider: yes\r\n",
        "x-insider:\r\nX-Insider: yes\r\n",
        "x-insider: yes\r\nhost-x: 1\r\nX-INSIDER: yes\r\n",
    ] {
        assert_eq!(asks(fields).await.text(), "r1", "{fields}");
    }
    // In trailers.
    let mut wire = Wire::connect(proxy.http).await;
    wire.ask("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\nTrailer: x-insider\r\nConnection: close\r\n").await;
    wire.send("0\r\nx-insider: yes\r\n\r\n").await;
    assert_eq!(wire.answer().await.expect("an answer").text(), "r1");
    let mut client = Client::http2(proxy.http).await;
    for fields in [&[("x-insider", "yes"), ("x-insider", "yes")][..], &[("x-insider", "no"), ("x-insider", "yes")]] {
        assert_eq!(ask(&mut client, HOST, "/", fields).await.body, "r1", "{fields:?}");
    }
    drop((client, wire));
    assert_eq!(pair.r2.requests(), 6);
    is_as_before(&proxy, pair.r1.address).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h41_no_other_spelling_of_a_cookie_is_taken_for_ours() {
    let folder = tempfile::tempdir().expect("folder");
    let pair = Pair::start(Protocol::H1).await;
    let proxy = TestProxy::start(folder.path(), 1).await;
    proxy.apply(pair.state(500_000, by_cookie(), &[]));
    let good = "AAAAAAAAAAAAAAAAAAAAAA";
    let asks = async |value: &[u8]| {
        let mut wire = Wire::connect(proxy.http).await;
        let begin = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nCookie: ");
        wire.send([begin.as_bytes(), value, b"\r\n\r\n"].concat()).await;
        let said = wire.answer().await.expect("an answer");
        (said.status, said.head.matches("\r\nset-cookie: release=").count())
    };
    assert_eq!(asks(format!("release={good}").as_bytes()).await, (200, 0));
    let many = format!("release=x; {}release={good}", "a=b;".repeat(5_000));
    assert_eq!(asks(many.as_bytes()).await, (200, 0), "the first that is well-formed counts");
    for value in [
        format!("Release={good}"),
        format!("release =\u{20}{good}"),
        format!("release=\"{good}\""),
        format!("release={good}=="),
        format!("release={good}A"),
        format!("release={}", &good[1..]),
        format!("release={}B", &good[1..]),
        format!("release={}+", &good[1..]),
        format!("xrelease={good}"),
        format!("x=release={good}"),
        format!("a=b, release={good}"),
        format!("release={}", "A".repeat(20_000)),
        "release".into(),
        "release=".into(),
        ";".repeat(20_000),
        "=".into(),
        String::new(),
    ] {
        let shown = &value[..value.len().min(60)];
        assert_eq!(asks(value.as_bytes()).await, (200, 1), "{shown:?}");
    }
    // Nor does anything that a client writes come back in ours.
    assert_eq!(asks(b"release=a\tb; release=x").await, (200, 1));
    is_as_before(&proxy, pair.r1.address).await;
}
