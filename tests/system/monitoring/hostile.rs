//! Whoever asks for monitoring without a right to, in other words than are understood, slowly, or with too much.

use std::fs;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{ANNOTATIONS, Answer, DISCOVERY, curl, token};
use crate::harness::{House, PATIENCE};

const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// A service that `hello` shares the environment with.
const OTHER: &str = r#"schema = 1
service = "other"
[component.web]
folder = "dist"
protocol = "h1"
[stage.production]
public = true
"#;

fn is_refused(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(words), "{words:?} in {answer:?}");
    assert!(answer.head.to_lowercase().contains("\r\ncontent-type: text/plain; charset=utf-8\r\n"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_monitoring_is_open_to_tokens_that_read_and_shows_what_they_see() {
    let house = House::with_hello().await;
    let _upstreams = house.two_releases().await;
    house.apply(&[("other.toml", OTHER)]).await;
    let all = token(&house, "all", &["--allow", "read"]).await;
    let moves = token(&house, "moves", &["--allow", "promote,rollback"]).await;
    let elsewhere = token(&house, "elsewhere", &["--allow", "read", "--service", "other"]).await;
    let revoked = token(&house, "revoked", &["--allow", "read"]).await;
    house.run(&["token", "revoke", "revoked"]).await.ends(0);
    let near = format!("{}x", &all[..all.len() - 1]);
    for page in [DISCOVERY, ANNOTATIONS] {
        for version in VERSIONS {
            let ask = |path: String, token: Option<String>| {
                let house = &house;
                async move { curl(house, &path, token.as_deref(), &[version]).await }
            };
            let missing = ask(page.into(), None).await;
            is_refused(&missing, 401, "a token is missing: accepted is the field `Authorization: Bearer TOKEN`");
            assert!(missing.head.to_lowercase().contains("\r\nwww-authenticate: bearer\r\n"), "{missing:?}");
            for garbage in [&revoked, &near, "x", "", "pmop1..", "pmop1.all", "pmop1.all.", "pmop1.nobody.x", "\u{e9}"]
            {
                is_refused(&ask(page.into(), Some(garbage.into())).await, 401, "this token is not accepted");
            }
            is_refused(&ask(page.into(), Some(moves.clone())).await, 403, "token moves may not read");

            let seen = ask(page.into(), Some(all.clone())).await.json();
            assert!(!seen.as_array().expect("a list").is_empty());
            // What is hidden is answered as what does not exist, with all that was ever told.
            let parameter = if page == DISCOVERY {
                ["service=hello", "service=none"]
            } else {
                ["stage=hello/production", "stage=none/production"]
            };
            let [hidden, none] = parameter.map(|parameter| ask(format!("{page}?{parameter}"), Some(elsewhere.clone())));
            let (hidden, none) = (hidden.await, none.await);
            let undated = |answer: &Answer| {
                let lines = answer.head.lines().filter(|line| !line.to_lowercase().starts_with("date:"));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!((undated(&hidden), &hidden.body[..]), (undated(&none), "[]"));
            assert_eq!(none.body, "[]");
            assert_eq!(ask(page.into(), Some(elsewhere.clone())).await.body, "[]");
        }
    }
    let basic = curl(&house, DISCOVERY, None, &["-u", &format!("all:{all}")]).await;
    is_refused(&basic, 401, "this token is not accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_monitoring_an_operator_certificate_opens_it_and_a_proxy_certificate_does_not() {
    let mut house = House::with_hello().await;
    let _upstreams = house.two_releases().await;
    let _token = token(&house, "all", &["--allow", "read"]).await;
    house.run(&["token", "create", "anna", "--allow", "read", "--certificate", "anna.toml"]).await.ends(0);
    let anna: toml::Table = fs::read_to_string(house.path("anna.toml")).expect("a file").parse().expect("TOML");
    house.proxy("p1", 1).await;
    let file = fs::read(house.path("p1/identity/identity.json")).expect("kept");
    let member: serde_json::Value = serde_json::from_slice(&file).expect("whole");
    let der: Vec<u8> = serde_json::from_value(member["certificate_der"].clone()).expect("bytes");
    let of_member = [certs::fleet::certificate_pem(&der), member["key_pem"].as_str().expect("PEM").to_owned()];
    let of_operator = ["certificate", "key"].map(|name| anna[name].as_str().expect("PEM").to_owned());
    for ([certificate, key], status) in [(of_operator, 200), (of_member, 401)] {
        fs::write(house.path("certificate.pem"), certificate).expect("written");
        fs::write(house.path("key.pem"), key).expect("written");
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| house.path(name).display().to_string());
        for version in VERSIONS {
            let told = curl(&house, DISCOVERY, None, &["--cert", &certificate, "--key", &key, version]).await;
            assert_eq!(told.status, status, "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_monitoring_methods_paths_and_parameters_are_refused_in_words() {
    let house = House::with_hello().await;
    let token = token(&house, "all", &["--allow", "read"]).await;
    let token = Some(token.as_str());
    for version in VERSIONS {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
            let answer = curl(&house, DISCOVERY, token, &[version, "-X", method]).await;
            is_refused(&answer, 405, "accepted is GET");
            assert!(answer.head.to_lowercase().contains("\r\nallow: get\r\n"), "{answer:?}");
        }
        for path in [
            "/",
            "/v1",
            "/v1/discovery/prometheus/",
            "//v1/annotations",
            "/v1/x/../annotations",
            "/V1/annotations",
            "/v1/annotation%73",
            "/metrics",
        ] {
            let answer = curl(&house, path, token, &[version, "--path-as-is"]).await;
            is_refused(&answer, 404, "accepted are /v1/discovery/prometheus and /v1/annotations");
        }
        let wrong = curl(&house, &format!("{DISCOVERY}?service=Hello&environment=a/b&x=1"), token, &[version]).await;
        is_refused(&wrong, 400, "\"x\" is no parameter: accepted are service, environment\nservice: \"Hello\" is not");
        is_refused(&wrong, 400, "\nenvironment: \"a/b\" is not");
        let wrong = curl(&house, &format!("{ANNOTATIONS}?from=now&to=1e3&stage=hello"), token, &[version]).await;
        for words in
            ["from: \"now\" is no time: accepted are milliseconds", "\nto: \"1e3\" is", "\nstage: \"hello\" is not"]
        {
            is_refused(&wrong, 400, words);
        }
    }
    // A call of gRPC that nobody knows is answered in its own words.
    let more = ["--http2", "-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers"];
    let unknown = curl(&house, "/pointsman.Nothing/Call", token, &more).await;
    assert_eq!(unknown.status, 200);
    assert!(unknown.head.to_lowercase().contains("\r\ngrpc-status: 12\r\n"), "{unknown:?}");
}

/// A connection to the controller that speaks `alpn`.
async fn connection(house: &House, alpn: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(house.path("ca.pem")).expect("PEM");
    roots.add(ca).expect("a root");
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tcp = TcpStream::connect(house.controller_address()).await.expect("connected");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.expect("a handshake")
}

/// All that comes until the other side ends it.
async fn heard(mut connection: TlsStream<TcpStream>) -> String {
    let mut heard = Vec::new();
    let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut heard)).await;
    // With or without a word of TLS: an end is an end.
    drop(read.expect("it is held for ever"));
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_monitoring_too_much_and_too_slow_is_ended_and_others_go_on() {
    let house = House::with_hello().await;
    let _upstreams = house.two_releases().await;
    let token = token(&house, "all", &["--allow", "read"]).await;
    let head = format!("GET {DISCOVERY} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");

    // Never a whole head; a body that never comes; an answer, and then silence.
    let starts = ["", "G", "GET /v1/disc", &head];
    let mut slow = Vec::new();
    for start in starts {
        let mut connection = connection(&house, "http/1.1").await;
        connection.write_all(start.as_bytes()).await.expect("written");
        slow.push((start, tokio::spawn(heard(connection))));
    }
    let mut posts = connection(&house, "http/1.1").await;
    let post = format!("POST {DISCOVERY} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n");
    posts.write_all(post.as_bytes()).await.expect("written");
    assert!(heard(posts).await.starts_with("HTTP/1.1 405 "));
    // The second request of a connection is none, whoever it belongs to.
    let mut twice = connection(&house, "http/1.1").await;
    twice.write_all(format!("{head}\r\n{head}\r\n").as_bytes()).await.expect("written");
    let said = heard(twice).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("\r\nconnection: close\r\n"), "{said}");
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");

    for (fields, status) in
        [(vec![format!("x-much: {}\r\n", "a".repeat(1_000_000))], "431"), (vec!["x: y\r\n".to_owned(); 1_000], "431")]
    {
        let mut much = connection(&house, "http/1.1").await;
        // It may be ended before all of it is written.
        let _ = much.write_all(format!("{head}{}\r\n", fields.concat()).as_bytes()).await;
        let said = heard(much).await;
        assert!(said.is_empty() || said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
    }
    for nonsense in [
        "GET / HTTP/1.1\nhost x\n\n",
        "GET /\u{e9} HTTP/9.9\r\n\r\n",
        "\0\0\0\0",
        "PRI * HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0",
    ] {
        let mut connection = connection(&house, "http/1.1").await;
        connection.write_all(nonsense.as_bytes()).await.expect("written");
        let said = heard(connection).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.1 505"), "{said}");
    }
    let much = format!("x-much: {}", "a".repeat(100_000));
    let mut command = tokio::process::Command::new("curl");
    command.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2", "--max-time", "60", "-k", "-H", &much]);
    let output =
        command.arg(format!("https://{}{DISCOVERY}", house.controller_address())).output().await.expect("curl");
    assert!(["431", "000"].contains(&&*String::from_utf8_lossy(&output.stdout)), "{output:?}");

    for version in VERSIONS {
        let told = curl(&house, DISCOVERY, Some(&token), &[version]).await.json();
        assert_eq!(told.as_array().expect("a list").len(), 1);
    }
    for (start, ended) in slow {
        let said = ended.await.expect("heard");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{start:?}: {said}");
    }
}
