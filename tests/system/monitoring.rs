//! Monitoring that people already have: a real Prometheus finds what serves, dashboards read what happened, and nobody sees
//! more than their token does.

mod hostile;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{House, PROGRAM, Part, STAGE, free_port, until};

const GUIDE: &str = include_str!("../../docs/monitoring.md");
const DISCOVERY: &str = "/v1/discovery/prometheus";
const ANNOTATIONS: &str = "/v1/annotations";

/// The first block of the guide in this language.
fn block(language: &str) -> &'static str {
    let (_, block) = GUIDE.split_once(&format!("```{language}\n")).expect("the guide has one");
    block.split_once("```").expect("it ends").0
}

/// What curl got.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert!(self.head.to_lowercase().contains("\r\ncontent-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// A token of this scope, and the file that the guide makes of the authority.
async fn token(house: &House, name: &str, scope: &[&str]) -> String {
    let file = house.operator_with(name, scope).await;
    let table: toml::Table = fs::read_to_string(file).expect("a file").parse().expect("TOML");
    fs::write(house.path("ca.pem"), table["ca"].as_str().expect("text")).expect("written");
    table["token"].as_str().expect("text").to_owned()
}

/// Asks the controller with curl, over the version of HTTP that `more` says.
async fn curl(house: &House, path: &str, token: Option<&str>, more: &[&str]) -> Answer {
    let mut command = tokio::process::Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "60", "--cacert"]).arg(house.path("ca.pem")).args(more);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    command.arg(format!("https://{}{path}", house.controller_address())).kill_on_drop(true);
    let output = command.output().await.expect("curl is needed: run scripts/setup");
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: format!("{head}\r\n"), body: body.to_owned() }
}

/// A real Prometheus with the guide's own configuration.
struct Prometheus {
    address: SocketAddr,
    _part: Part,
}

impl Prometheus {
    async fn start(house: &House, folder: &Path) -> Self {
        let mut config = block("yaml").to_owned();
        for (written, here) in [
            ("controller.example.com:7400", house.controller_address()),
            ("/etc/prometheus/pointsman.token", house.path("pointsman.token").display().to_string()),
            ("/etc/prometheus/pointsman-ca.pem", house.path("pointsman-ca.pem").display().to_string()),
        ] {
            assert_eq!(config.matches(written).count(), 1, "{written} in the guide");
            config = config.replace(written, &here);
        }
        fs::create_dir_all(folder).expect("made");
        fs::write(folder.join("prometheus.yml"), config).expect("written");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut part = Part::start("prometheus", &folder.join("log"), &mut command);
        part.says("Server is ready to receive web requests").await;
        Self { address, _part: part }
    }

    async fn says(&self, path: &str) -> String {
        let mut command = tokio::process::Command::new("curl");
        let url = format!("http://{}{path}", self.address);
        let output = command.args(["-sS", "--max-time", "60", &url]).output().await.expect("curl");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Whether it could not look for targets since it started.
    async fn is_refused(&self) -> bool {
        let metrics = self.says("/metrics").await;
        let failures = metrics.lines().find_map(|line| line.strip_prefix("prometheus_sd_http_failures_total "));
        failures.expect("it counts them") != "0"
    }

    /// What it would scrape now: address, service, environment and release, in order.
    async fn targets(&self) -> Vec<String> {
        let said: Value = serde_json::from_str(&self.says("/api/v1/targets?state=active").await).expect("JSON");
        let line = |target: &Value| {
            let label = |name: &str| target["labels"][name].as_str().unwrap_or("none").to_owned();
            ["instance", "service", "environment", "release"].map(label).join(" ")
        };
        let mut lines: Vec<_> = said["data"]["activeTargets"].as_array().expect("a list").iter().map(line).collect();
        lines.sort_unstable();
        lines
    }

    async fn finds(&self, expected: &mut [String]) {
        expected.sort_unstable();
        until(&format!("Prometheus finds {expected:?}"), async || (self.targets().await == expected).then_some(()))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_shows_a_real_prometheus_every_release_as_the_guide_says() {
    let house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    // The guide's own lines, where the operator file and the command are.
    let program = Path::new(PROGRAM).parent().expect("a folder");
    fs::copy(house.context(), house.path("operator.toml")).expect("copied");
    let mut shell = Command::new("bash");
    shell.args(["-ec", block("sh")]).current_dir(house.path("")).stdin(Stdio::null());
    shell.env("PATH", format!("{}:{}", program.display(), std::env::var("PATH").expect("a path")));
    shell.env("POINTSMAN_CONTEXT", house.context());
    let done = tokio::task::spawn_blocking(move || shell.output()).await.expect("run").expect("bash starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let prometheus = Prometheus::start(&house, &house.path("prometheus")).await;
    let line = |address: SocketAddr, release: &str| format!("{address} hello production {release}");
    prometheus.finds(&mut [line(r1.address, "r1")]).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "1%"]).await.ends(0);
    prometheus.finds(&mut [line(r1.address, "r1"), line(r2.address, "r2")]).await;

    // What cannot be asked is not taken for nothing: Prometheus keeps what it knew.
    house.run(&["token", "revoke", "prometheus"]).await.ends(0);
    until("Prometheus is refused", async || prometheus.is_refused().await.then_some(())).await;
    assert_eq!(prometheus.targets().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_follows_weights_over_both_versions_of_http() {
    let house = House::with_hello().await;
    let (r1, r2) = house.two_releases().await;
    let token = token(&house, "reads", &["--allow", "read"]).await;
    for (line, roles) in [
        (["promote", "hello@r2", "--to", "production", "--weight", "1%"], [("stable", "990000"), ("canary", "10000")]),
        (["rollout", "weight", STAGE, "100%", "--reason", "fine"], [("warm", "0"), ("stable", "1000000")]),
    ] {
        house.run(&line).await.ends(0);
        for version in [&["--http1.1"][..], &["--http2"], &["--http1.0", "--no-alpn"]] {
            let told = curl(&house, DISCOVERY, Some(&token), version).await.json();
            let told = told.as_array().expect("a list");
            assert_eq!(told.len(), 2, "{told:?}");
            for (group, (address, (role, share))) in told.iter().zip([r1.address, r2.address].iter().zip(roles)) {
                assert_eq!(group["targets"], serde_json::json!([address.to_string()]));
                let label = |name: &str| group["labels"][format!("__meta_pointsman_{name}")].clone();
                assert_eq!((label("role"), label("weight_ppm")), (role.into(), share.into()), "{group}");
            }
        }
    }
    let none = curl(&house, &format!("{DISCOVERY}?environment=staging"), Some(&token), &[]).await.json();
    assert_eq!(none, serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotations_of_a_rollback_name_the_release_who_and_why() {
    let house = House::with_hello().await;
    let _upstreams = house.two_releases().await;
    let token = token(&house, "reads", &["--allow", "read"]).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "10%", "--reason", "friday"]).await.ends(0);
    house.run(&["rollout", "weight", STAGE, "50%"]).await.ends(0);
    house.run(&["rollback", STAGE, "--reason", "errors after login"]).await.ends(0);
    let told = curl(&house, ANNOTATIONS, Some(&token), &[]).await.json();
    let kinds = |told: &Value| -> Vec<String> {
        let last = |annotation: &Value| annotation["tags"][5].as_str().expect("a kind").to_owned();
        told.as_array().expect("a list").iter().map(last).collect()
    };
    assert_eq!(kinds(&told), ["promoted", "completed", "promoted", "share_set", "share_set", "rolled_back"], "{told}");
    let history = house.history().await;
    let rolled_back = history.iter().find(|entry| entry.kind == "rolled_back").expect("on record");
    let last = &told[5];
    assert_eq!(last["time"], rolled_back.at_ms);
    assert_eq!(last["title"], "hello/production r2 was rolled back to r1");
    assert_eq!(last["text"], format!("{}\nby {}: errors after login", rolled_back.what, rolled_back.by));
    assert_eq!(last["tags"], serde_json::json!(["pointsman", "hello", "production", "rollout", "r2", "rolled_back"]));

    // By time, both ends of it included, and by stage.
    let at = rolled_back.at_ms;
    let before = history.iter().filter(|entry| entry.kind == "share_set").map(|entry| entry.at_ms).max();
    assert!(before.expect("on record") < at, "a rollback takes a millisecond");
    for (query, expected) in [
        (format!("from={at}&to={at}"), &["rolled_back"][..]),
        (format!("from={at}&stage=hello%2Fproduction"), &["rolled_back"]),
        (format!("from={}", at + 1), &[]),
        (format!("to={}&from=0", at - 1), &["promoted", "completed", "promoted", "share_set", "share_set"]),
        ("stage=hello/staging".to_owned(), &[]),
    ] {
        let told = curl(&house, &format!("{ANNOTATIONS}?{query}"), Some(&token), &["--http1.1"]).await.json();
        assert_eq!(kinds(&told), expected, "{query}");
    }
}
