//! Checks by queries: of a real Prometheus, and of servers that are none.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::servers::{Manner, Server};
use super::*;
use crate::checks::prometheus;
use crate::core::spec::Limits;

fn limits(least: &str, most: &str) -> Limits {
    let limit = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Limits { least: limit(least), most: limit(most) }
}

async fn ask(url: &str, query: &str, limits: &Limits) -> Outcome {
    prometheus::ask(url, query, limits, &way(&Authorities::of_machine(), SOON)).await
}

/// One that scrapes a target; ended when it is dropped.
struct Prometheus {
    process: Child,
    url: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    async fn start(folder: &Path, target: SocketAddr) -> Self {
        let config = folder.join("prometheus.yml");
        let text = format!(
            "scrape_configs:\n- job_name: app\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: ['{target}']\n"
        );
        std::fs::write(&config, text).expect("written");
        loop {
            // Somebody else may take the port first; then it ends, and the next one is tried.
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
            let process = Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
                .arg(format!("--web.listen-address={free}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("Debian's package prometheus is needed: run scripts/setup");
            let mut one = Self { process, url: format!("http://{free}") };
            let ready = format!("{}/-/ready", one.url);
            let mut ended = false;
            until("Prometheus is ready", async || {
                ended = one.process.try_wait().expect("a child").is_some();
                let asked = crate::checks::http::ask(&ready, &way(&Authorities::of_machine(), SOON)).await.outcome;
                ended || asked == Outcome::Well
            })
            .await;
            if !ended {
                return one;
            }
        }
    }
}

#[tokio::test]
async fn rollout_check_by_prometheus_weighs_every_value() {
    let metrics = "# TYPE share gauge\nshare{zone=\"a\"} 0.995\nshare{zone=\"b\"} 0.5\n# TYPE big gauge\nbig 1e21\n";
    let target = Server::start(Manner::answer("200 OK", "content-type: text/plain; version=0.0.4\r\n", metrics)).await;
    let folder = tempfile::tempdir().expect("folder");
    let prometheus = Prometheus::start(folder.path(), target.address).await;
    let of = |query: &'static str, least: &'static str, most: &'static str| {
        let url = prometheus.url.clone();
        async move { ask(&url, query, &limits(least, most)).await }
    };
    until("it has scraped", async || of("count(share)", "2", "2").await == Outcome::Well).await;
    let none = || silent("the query has no result");
    let nothing = || silent("the query gives NaN: nothing was there to take a share of");
    for (query, least, most, expected) in [
        ("share", "0.5", "0.995", Outcome::Well),
        ("share{zone=\"a\"}", "0.99", "", Outcome::Well),
        ("sum(share) # + & = % ü\n", "1.495", "1.495", Outcome::Well),
        ("scalar(sum(share))", "", "1.5", Outcome::Well),
        ("scalar(sum(share))", "", "1", failed("1.495 is more than 1")),
        ("big", "999999999999999999999", "", Outcome::Well),
        ("-big", "-1", "", failed("-1e+21 is less than -1 ({instance=\"TARGET\",job=\"app\"})")),
        ("max(share)", "", "0.99", failed("0.995 is more than 0.99")),
        ("min(share)", "0.99", "", failed("0.5 is less than 0.99")),
        ("share", "0.99", "", failed("0.5 is less than 0.99 (share{instance=\"TARGET\",job=\"app\",zone=\"b\"})")),
        ("not_there", "0", "1", none()),
        ("share > 1", "0", "1", none()),
        ("scalar(not_there)", "0", "1", nothing()),
        ("sum(share) / 0 - sum(share) / 0", "0", "", nothing()),
        // One zone without traffic is passed over, the other counts.
        ("share / (share > bool 0.9) * 0 + share", "0.99", "", Outcome::Well),
        ("sum(share) / 0", "0", "", Outcome::Well),
        ("sum(share) / 0", "", "1e3", failed("+Inf is more than 1e3")),
        ("share[1m]", "0", "1", silent("the query gives a matrix: accepted is a vector or a scalar")),
        ("\"text\"", "0", "1", silent("the query gives a string: accepted is a vector or a scalar")),
        (
            "share{",
            "0",
            "1",
            silent("bad_data: invalid parameter \"query\": 1:7: parse error: unexpected end of input inside braces"),
        ),
    ] {
        let expected = match expected {
            Outcome::Failed(problem) => failed(problem.replace("TARGET", &target.address.to_string())),
            other => other,
        };
        assert_eq!(ask(&prometheus.url, query, &limits(least, most)).await, expected, "{query}");
    }
    let slash = format!("{}/", prometheus.url);
    assert_eq!(ask(&slash, "1", &limits("1", "1")).await, Outcome::Well);
}

#[tokio::test]
async fn hostile_answers_to_queries_are_no_values() {
    let deep = format!("{{\"status\":\"success\",\"data\":{}", "[".repeat(100_000));
    let vector = |samples: &str| {
        format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{samples}]}}}}")
    };
    let none = "what it answered is no answer of Prometheus to a query";
    for (status, body, expected) in [
        ("200 OK", String::new(), none),
        ("200 OK", "<html>sign in</html>".into(), none),
        ("200 OK", "{".into(), none),
        ("200 OK", deep, none),
        ("200 OK", "[]".into(), none),
        ("200 OK", "{\"status\":\"success\"}".into(), "it answered without data"),
        ("200 OK", "{\"status\":\"error\",\"errorType\":\"a\\u001b\",\"error\":\"b\"}".into(), "a\\u{1b}: b"),
        ("200 OK", "{\"status\":\"fine\",\"data\":null}".into(), none),
        ("200 OK", vector("{\"metric\":{},\"value\":[1]}"), none),
        ("200 OK", vector("{\"metric\":{},\"value\":[1,1]}"), none),
        ("200 OK", vector("{\"metric\":{},\"value\":[1,\"\"]}"), " is no number"),
        ("200 OK", vector("{\"metric\":{},\"value\":[1,\"0x1\"]}"), "0x1 is no number"),
        ("200 OK", vector("{\"metric\":{\"a\":\"\\u0007\"},\"histogram\":[1,{}]}"), "{a=\"\\u{7}\"} is a histogram"),
        ("200 OK", "{\"status\":\"success\",\"data\":{\"resultType\":\"new\",\"result\":1}}".into(), none),
        (
            "503 Service Unavailable",
            vector("{\"metric\":{},\"value\":[1,\"1\"]}"),
            "it answered 503 Service Unavailable",
        ),
        ("502 Bad Gateway", "<html>\nno".into(), "it answered 502 Bad Gateway: <html>"),
        ("302 Found", String::new(), "redirects are not followed"),
    ] {
        let server = Server::start(Manner::answer(status, "", &body)).await;
        let outcome = ask(&server.url(""), "up", &limits("0", "1")).await;
        // Nothing of it is said about a release: a server that is away takes none out.
        let Outcome::Silent(problem) = outcome else { panic!("{body}: {outcome:?}") };
        assert!(problem.contains(expected.trim()), "{body}: {problem}");
        assert!(problem.chars().count() <= 300 && !problem.chars().any(char::is_control), "{problem}");
        assert!(server.asked()[0].starts_with("GET /api/v1/query?query=up HTTP/1.1\r\n"));
    }
    let endless = Server::start(Manner::Endless("200 OK")).await;
    assert_eq!(ask(&endless.url(""), "up", &limits("0", "1")).await, silent("127.0.0.1 answered more than 1024 KiB"));
    let away = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port");
    let outcome = ask(&format!("http://{away}"), "up", &limits("0", "1")).await;
    assert!(matches!(&outcome, Outcome::Silent(why) if why.contains("cannot be reached")), "{outcome:?}");
}

#[tokio::test]
async fn rollout_check_by_prometheus_fails_by_any_value_outside() {
    for (samples, expected) in [
        ("{\"metric\":{},\"value\":[1,\"1\"]},{\"metric\":{},\"value\":[1,\"7\"]}", failed("7 is more than 1")),
        ("{\"metric\":{},\"value\":[1,\"x\"]},{\"metric\":{},\"value\":[1,\"7\"]}", failed("7 is more than 1")),
        ("{\"metric\":{},\"value\":[1,\"1\"]},{\"metric\":{},\"value\":[1,\"x\"]}", silent("x is no number")),
        ("{\"metric\":{},\"value\":[1,\"NaN\"]},{\"metric\":{},\"value\":[1,\"1\"]}", Outcome::Well),
    ] {
        let body = format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{samples}]}}}}");
        let server = Server::start(Manner::answer("200 OK", "", &body)).await;
        assert_eq!(ask(&server.url(""), "up", &limits("0", "1")).await, expected, "{samples}");
    }
}
