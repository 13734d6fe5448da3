//! Checks by HTTP.

use api::Host;

use super::servers::{Manner, Server};
use super::*;
use crate::checks::http::{self, is_within};
use crate::core::spec::is_near;

/// For tries that answer, and for those that are to be ended by it.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

async fn ask(url: &str, way: &Way<'_>) -> Outcome {
    http::ask(url, way).await.outcome
}

async fn get(server: &Server, timeout: Duration) -> Outcome {
    ask(&server.url("/smoke?a=b"), &way(&Authorities::of_machine(), timeout)).await
}

#[tokio::test]
async fn rollout_check_by_http_is_well_by_its_status() {
    for (status, body, expected) in [
        ("200 OK", "fine", Outcome::Well),
        ("204 No Content", "", Outcome::Well),
        ("299 Anything", "", Outcome::Well),
        ("503 Service Unavailable", "", failed("it answered 503 Service Unavailable")),
        (
            "500 Internal Server Error",
            "\r\n  the database\x1b[31m is away \r\nstack trace\r\n",
            failed("it answered 500 Internal Server Error: the database\\u{1b}[31m is away"),
        ),
        ("404 Not Found", "no\n", failed("it answered 404 Not Found: no")),
    ] {
        let server = Server::start(Manner::answer(status, "", body)).await;
        assert_eq!(get(&server, LONG).await, expected, "{status}");
        let asked = server.asked();
        assert!(asked[0].starts_with("GET /smoke?a=b HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains(&format!("host: {}\r\n", server.address)), "{asked:?}");
    }
}

#[tokio::test]
async fn rollout_check_by_http_says_where_nobody_listens() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    drop(taken);
    let outcome = ask(&format!("http://{address}/"), &way(&Authorities::of_machine(), LONG)).await;
    let Outcome::Failed(problem) = outcome else { panic!("{outcome:?}") };
    assert!(problem.starts_with(&format!("{address} cannot be reached: ")), "{problem}");
}

#[tokio::test]
async fn rollout_check_by_http_verifies_whom_it_asks() {
    certs::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let ca = certs::fleet::FleetCa::open_or_create(folder.path()).expect("an authority");
    let tls = ca.server_config(&["localhost".to_owned()]).expect("a server");
    let ours = Authorities::parse(&ca.certificate_pem()).expect("an authority");
    let server = Server::start_tls(Manner::answer("200 OK", "", ""), &tls).await;
    let url = |host: &str| format!("https://{host}:{}/smoke", server.address.port());
    assert_eq!(ask(&url("localhost"), &way(&ours, LONG)).await, Outcome::Well);
    for (host, authorities) in [("localhost", Authorities::of_machine()), ("127.0.0.1", ours)] {
        let outcome = ask(&url(host), &way(&authorities, LONG)).await;
        let Outcome::Failed(problem) = outcome else { panic!("{host}: {outcome:?}") };
        assert!(problem.contains("certificate"), "{host}: {problem}");
    }
    assert_eq!(server.asked().len(), 1, "nothing is said to a stranger");
}

#[tokio::test]
async fn rollout_check_by_http_believes_whom_its_file_names() {
    certs::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let ca = certs::fleet::FleetCa::open_or_create(folder.path()).expect("an authority");
    let tls = ca.server_config(&["localhost".to_owned()]).expect("a server");
    let up = "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"1\"]}}";
    let server = Server::start_tls(Manner::answer("200 OK", "", up), &tls).await;
    let (asker, url) = (asker(folder.path()), format!("https://localhost:{}", server.address.port()));
    let limits = crate::core::spec::Limits { least: Some("1".into()), most: None };
    for (ca, is_well) in [(Some(ca.certificate_pem()), true), (None, false)] {
        let http = CheckKind::Http { url: format!("{url}/smoke"), app: None, ca: ca.clone() };
        let prometheus =
            CheckKind::Prometheus { url: url.clone(), query: "up".into(), limits: limits.clone(), ca: ca.clone() };
        for kind in [http, prometheus] {
            let outcome = asked(&asker, &wanted(kind.clone(), 60_000)).await;
            assert_eq!(outcome == Outcome::Well, is_well, "{kind:?}: {outcome:?}");
        }
    }
}

/// An address of this machine that is no loopback one, if it has any: as a server's in a private network.
fn elsewhere() -> Option<std::net::IpAddr> {
    // Nothing is sent: only the way there is looked up.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !is_near(*address))
}

#[tokio::test]
async fn rollout_check_in_clear_is_asked_wherever_the_file_says_so() {
    let address = elsewhere().expect("this machine has no network: the test needs an address beside 127.0.0.1");
    let server = Server::start_at(address, Manner::answer("200 OK", "", "")).await;
    assert_eq!(server.address.ip(), address);
    assert_eq!(get(&server, LONG).await, Outcome::Well);
    let head = server.asked()[0].to_ascii_lowercase();
    for secret in ["authorization", "cookie", "x-api-key"] {
        assert!(!head.contains(secret), "{head}");
    }
    let folder = tempfile::tempdir().expect("folder");
    let (asker, url) = (asker(folder.path()), server.url("/"));
    assert_eq!(asked(&asker, &wanted(CheckKind::http(url), 60_000)).await, Outcome::Well, "a network is not near");
}

async fn asked(asker: &Asker, one: &Wanted) -> Outcome {
    let (_canceller, mut cancel) = watch::channel(false);
    asker.ask(one, &mut cancel).await.expect("not cancelled")
}

#[tokio::test]
async fn hostile_names_of_checks_that_lead_to_the_machine_itself_are_not_asked() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = asker(folder.path());
    let server = Server::start(Manner::answer("200 OK", "", "")).await;
    let port = server.address.port();
    let limits = crate::core::spec::Limits { least: Some("0".into()), most: None };
    // Names, as far as a URL tells; whoever looks them up is led to 127.0.0.1 or 0.0.0.0, which is the same.
    for name in ["127.1", "0x7f000001", "2130706433", "0"] {
        let url = format!("http://{name}:{port}");
        for kind in [CheckKind::http(format!("{url}/smoke")), CheckKind::prometheus(url, "up", limits.clone())] {
            let outcome = asked(&asker, &wanted(kind.clone(), 60_000)).await;
            let Outcome::Silent(why) = outcome else { panic!("{kind:?}: {outcome:?}") };
            assert!(why.contains("which is not asked"), "{kind:?}: {why}");
        }
    }
    let kind = CheckKind::http(format!("https://0x7f000001:{port}/smoke"));
    let outcome = asked(&asker, &wanted(kind, 60_000)).await;
    assert_eq!(outcome, Outcome::Silent(format!("0x7f000001:{port} leads to 127.0.0.1, which is not asked")));
    assert_eq!((server.asked().len(), server.most_open()), (0, 0), "not even connected to");
    // Where the file says so it is: only who may do everything can have applied it.
    for host in ["127.0.0.1", "localhost"] {
        let kind = CheckKind::http(format!("http://{host}:{port}/{{release}}"));
        assert_eq!(asked(&asker, &wanted(kind, 60_000)).await, Outcome::Well, "{host}");
    }
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn rollout_check_asks_the_stages_own_hosts_wherever_they_are() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = asker(folder.path());
    let server = Server::start(Manner::answer("200 OK", "", "")).await;
    let port = server.address.port();
    // A zone of which every host is this machine, as for trying things out; names that need no name server.
    let of = |host: &str, url: &str| {
        let kind = CheckKind::http(format!("http://{url}:{port}/"));
        Wanted { host: host.parse().expect("a host"), ..wanted(kind, 60_000) }
    };
    assert_eq!(asked(&asker, &of("127.0.0x1", "{host}")).await, Outcome::Well);
    assert!(matches!(asked(&asker, &of("127.0.0x1", "127.0.0x2")).await, Outcome::Silent(_)));
}

#[test]
fn rollout_check_knows_the_stages_own_hosts() {
    let one = wanted(CheckKind::http("https://{host}/"), 1_000);
    for (host, expected) in [
        ("r7--hello.production.example.com", true),
        ("hello.production.example.com", true),
        ("r8--hello.production.example.com", false),
        ("other.production.example.com", false),
        ("production.example.com", false),
        ("evil.hello.production.example.com", false),
        ("", false),
    ] {
        assert_eq!(one.is_own(host), expected, "{host}");
    }
}

#[test]
fn rollout_check_believes_our_own_authority_in_its_zones_only() {
    let zone: Host = "production.example.com".parse().expect("host");
    for (url, expected) in [
        ("https://r7--hello.production.example.com/smoke", true),
        ("https://R7--Hello.Production.Example.COM:8443", true),
        ("https://production.example.com/", false),
        ("https://evilproduction.example.com/", false),
        ("https://a.production.example.com.evil.org/", false),
        ("https://evil.org/.production.example.com", false),
        ("https://evil.org?a.production.example.com", false),
        ("no url", false),
    ] {
        assert_eq!(is_within(url, &zone), expected, "{url}");
    }
}

#[tokio::test]
async fn hostile_servers_of_checks_cost_a_try_and_no_more() {
    let endless_head = format!("HTTP/1.1 200 OK\r\n{}", "x-a: b\r\n".repeat(40_000)).into_bytes();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec();
    for (what, manner, timeout, expected) in [
        ("hangs", Manner::Hang, SHORT, "took longer than 300ms"),
        ("half an answer", Manner::Then(half), SHORT, "took longer than 300ms"),
        ("drips", Manner::Drip, SHORT, "took longer than 300ms"),
        ("closes at once", Manner::Close, LONG, "127.0.0.1"),
        ("endless bad body", Manner::Endless("500 Internal Server Error"), LONG, "Internal Server Error: xxx"),
        ("endless head", Manner::Then(endless_head), LONG, "127.0.0.1"),
        ("no HTTP", Manner::Then(b"\0\xff\x1b[2J".repeat(100)), LONG, "127.0.0.1"),
        ("status 099", Manner::Then(b"HTTP/1.1 099 A\r\n\r\n".to_vec()), LONG, "127.0.0.1"),
    ] {
        let server = Server::start(manner).await;
        let outcome = get(&server, timeout).await;
        let Outcome::Failed(problem) = outcome else { panic!("{what}: {outcome:?}") };
        assert!(problem.contains(expected), "{what}: {problem}");
        assert!(problem.chars().count() <= 300 && !problem.chars().any(char::is_control), "{what}: {problem}");
        until("its connection is closed", async || server.open() == 0).await;
    }
    // What is well is well, however much is said about it.
    for manner in [Manner::Endless("200 OK"), Manner::answer("200 OK", "", &"x".repeat(http::MOST_BYTES + 1))] {
        let server = Server::start(manner).await;
        assert_eq!(get(&server, LONG).await, Outcome::Well);
        until("its connection is closed", async || server.open() == 0).await;
    }
}

#[tokio::test]
async fn hostile_redirects_of_checks_are_not_followed() {
    let other = Server::start(Manner::answer("200 OK", "", "")).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("location: {}\r\n", other.url("/"));
        let server = Server::start(Manner::answer(status, &location, "moved")).await;
        let expected = format!("it answered {status} and leads to {}: redirects are not followed", other.url("/"));
        assert_eq!(get(&server, LONG).await, failed(expected));
    }
    let nowhere = Server::start(Manner::answer("302 Found", "", "")).await;
    assert!(matches!(get(&nowhere, LONG).await, Outcome::Failed(_)));
    assert!(other.asked().is_empty(), "it was followed");
}

#[tokio::test]
async fn rollout_check_that_is_cancelled_before_its_turn_asks_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    let server = Server::start(Manner::answer("200 OK", "", "")).await;
    let one = wanted(CheckKind::http(server.url("/")), 60_000);
    let (canceller, mut cancel) = watch::channel(false);
    canceller.send_replace(true);
    assert_eq!(asker(folder.path()).ask(&one, &mut cancel).await, None);
    assert!(server.asked().is_empty());
}

/// Run by itself as a process of its own: whoever else is asked meanwhile would have no descriptor either.
#[tokio::test]
async fn rollout_check_of_a_controller_without_descriptors_fails_nobody() {
    const INSIDE: &str = "POINTSMAN_TEST_WITHOUT_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_none() {
        let name = "checks::tests::urls::rollout_check_of_a_controller_without_descriptors_fails_nobody";
        let itself = std::env::current_exe().expect("a path");
        let script = "ulimit -n 64; exec \"$@\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, "sh"]).arg(itself).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
        let said = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let asker = asker(folder.path());
    let server = Server::start(Manner::answer("500 Internal Server Error", "", "")).await;
    let limits = crate::core::spec::Limits { least: Some("0".into()), most: None };
    let kinds = [
        CheckKind::http(server.url("/")),
        CheckKind::http("http://hello.production.example.com/"),
        CheckKind::prometheus(server.url(""), "up", limits),
        CheckKind::Command { command: vec!["false".into()] },
    ];
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    let mut outcomes = Vec::new();
    for kind in &kinds {
        outcomes.push(asked(&asker, &wanted(kind.clone(), 60_000)).await);
    }
    drop(taken);
    for (kind, outcome) in kinds.iter().zip(outcomes) {
        assert!(matches!(outcome, Outcome::Silent(_)), "{kind:?}: {outcome:?}");
    }
    assert_eq!(asked(&asker, &wanted(kinds[0].clone(), 60_000)).await, failed("it answered 500 Internal Server Error"));
}

#[tokio::test]
async fn hostile_keys_of_checks_stay_where_they_belong() {
    let folder = tempfile::tempdir().expect("folder");
    folders(folder.path()).clear().await;
    let keys = folder.path().join("checks/keys");
    let one = wanted(CheckKind::http("https://{host}/"), 1_000);
    let app = |name: &str| name.parse().expect("a name");
    for (service, name, text) in [
        ("hello", "smoke", format!("\n  pm_{} \n", "a".repeat(58))),
        ("hello", "empty", String::new()),
        ("hello", "long", "x".repeat(1_000_000)),
        ("hello", "strange", "\u{7}".repeat(61)),
        ("other", "theirs", format!("pm_{}", "b".repeat(58))),
    ] {
        let folder = keys.join(service).join("production");
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join(name), text).expect("written");
    }
    let own = "https://r7--hello.production.example.com:8443/smoke";
    for (url, name, expected) in [
        (own, "smoke", None),
        ("https://hello.production.example.com/", "smoke", None),
        ("http://r7--hello.production.example.com/", "smoke", Some("is for the stage's own hosts by https")),
        ("https://r8--hello.production.example.com/", "smoke", Some("is for the stage's own hosts by https")),
        (
            "https://evil.example/r7--hello.production.example.com",
            "smoke",
            Some("is for the stage's own hosts by https"),
        ),
        (own, "theirs", Some("hello/production/theirs: No such file")),
        (own, "empty", Some("hello/production/empty holds none")),
        (own, "long", Some("hello/production/long holds none")),
        (own, "strange", Some("hello/production/strange holds none")),
    ] {
        let key = folders(folder.path()).key_of(&one, url, &app(name)).await;
        match (key, expected) {
            (Ok(key), None) => assert!(key.is_sensitive() && key.as_bytes().starts_with(b"pm_aaa"), "{url}"),
            (Err(why), Some(expected)) => assert!(why.contains(expected) && !why.contains("aaa"), "{url}: {why}"),
            (key, expected) => panic!("{url} {name}: {key:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn rollout_check_of_its_own_host_fails_nobody_while_no_proxy_takes_connections() {
    let authorities = Authorities::of_machine();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let server = Server::start(Manner::Close).await;
    for (url, is_own, is_silent) in [
        (format!("http://127.0.0.1:{port}/"), true, true),
        (format!("http://127.0.0.1:{port}/"), false, false),
        // Nobody there speaks TLS.
        (server.url("/").replace("http:", "https:"), true, true),
        (server.url("/").replace("http:", "https:"), false, false),
        // Somebody takes the request, and answers nothing.
        (server.url("/"), true, false),
    ] {
        let timeout = if url.starts_with("https") { SHORT } else { LONG };
        let outcome = ask(&url, &Way { is_own, ..way(&authorities, timeout) }).await;
        assert_eq!(matches!(outcome, Outcome::Silent(_)), is_silent, "{url}, own: {is_own}: {outcome:?}");
    }
}

#[tokio::test]
async fn rollout_check_that_finds_a_door_closed_fails_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = asker(folder.path());
    for (status, own) in [
        ("401 Unauthorized", silent("it is not let in: it answered 401 Unauthorized: no")),
        ("403 Forbidden", silent("it is not let in: it answered 403 Forbidden: no")),
        ("404 Not Found", failed("it answered 404 Not Found: no")),
        ("500 Internal Server Error", failed("it answered 500 Internal Server Error: no")),
    ] {
        // An id that no proxy of ours has sealed: the page is not there.
        let id = format!("x-request-id: {}\r\n", "a".repeat(policies::credential::denial::LENGTH));
        let server = Server::start(Manner::answer(status, &id, "no")).await;
        let host: Host = "r7--hello.localhost".parse().expect("a host");
        let own_host = CheckKind::http(format!("http://{{host}}:{}/", server.address.port()));
        let one = Wanted { host, ..wanted(own_host, 60_000) };
        assert_eq!(asked(&asker, &one).await, own, "{status}");
        let users = Wanted { wants_user: true, ..one };
        let outcome = asked(&asker, &users).await;
        let names_user = matches!(&outcome, Outcome::Silent(why) if why.contains("wants a user's credentials"));
        assert_eq!(names_user, matches!(own, Outcome::Silent(_)), "{status}: {outcome:?}");
        let public = Wanted { public: true, wants_user: false, ..users };
        let outcome = asked(&asker, &public).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{status}: nobody but the release says so: {outcome:?}");
        // Somebody else's door is part of what is asked there.
        let outcome = asked(&asker, &wanted(CheckKind::http(server.url("/")), 60_000)).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{status}: {outcome:?}");
    }
}
