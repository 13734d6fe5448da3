//! A proxy that has no descriptor left: it goes on serving whom it has, and takes the others when it can.
//!
//! It runs in a process of its own, this same binary with a lower limit: others in this one need theirs.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::fleet::Protocol;
use tokio::net::TcpStream;

use crate::recorder::Recorder;
use crate::support::{HOST, TestProxy, hello, settings, until};
use crate::wire::Wire;

/// Set in the other process: where the upstream is, and where to keep its data.
const UPSTREAM: &str = "POINTSMAN_TEST_UPSTREAM";
const DATA: &str = "POINTSMAN_TEST_DATA";
/// Descriptors of the other process: enough to start with.
const MOST: usize = 64;

/// Ends with the test, however that ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).map_or(0, Iterator::count)
    }
}

/// The other process: a proxy until the standard input ends.
async fn serve(upstream: &str, data: &str) {
    let proxy = TestProxy::with(settings(std::path::Path::new(data), 1)).await;
    proxy.apply(hello(Protocol::H1, &[(1, upstream.parse().expect("an address"), 1)]));
    std::fs::write(format!("{data}/serves"), proxy.http.to_string()).expect("written");
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    ended.await.expect("ended").expect("read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h63_without_descriptors_it_serves_whom_it_has_and_recovers() {
    if let (Ok(upstream), Ok(data)) = (std::env::var(UPSTREAM), std::env::var(DATA)) {
        return serve(&upstream, &data).await;
    }
    let (upstream, folder) = (Recorder::ok().await, tempfile::tempdir().expect("folder"));
    let name = "descriptors::hostile_h63_without_descriptors_it_serves_whom_it_has_and_recovers";
    let command = format!("ulimit -n {MOST} && exec \"$0\" --exact {name}");
    let mut other = Other(
        Command::new("sh")
            .args(["-c", &command])
            .arg(std::env::current_exe().expect("this binary"))
            .env(UPSTREAM, upstream.address.to_string())
            .env(DATA, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started"),
    );
    let place = folder.path().join("serves");
    until("it serves", || std::fs::read_to_string(&place).is_ok_and(|text| text.contains(':'))).await;
    let address = std::fs::read_to_string(&place).expect("an address").parse().expect("an address");

    let mut known = Wire::connect(address).await;
    let mut asks = async || {
        known.ask("GET /known HTTP/1.1", "").await;
        known.answer().await.expect("an answer").status
    };
    assert_eq!(asks().await, 200);
    let before = other.descriptors();
    let mut crowd = Vec::new();
    for n in 0..2 * MOST {
        crowd.push(TcpStream::connect(address).await.expect("connected: the kernel takes them"));
        if n % 8 == 0 {
            assert_eq!(asks().await, 200, "with {n} others");
        }
    }
    until("none is left", || other.descriptors() == MOST).await;
    for _ in 0..20 {
        assert_eq!(asks().await, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(crowd);
    until("they are back where they were", || other.descriptors() <= before).await;
    let mut fresh = Wire::connect(address).await;
    fresh.send(format!("GET /fresh HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(fresh.answer().await.expect("an answer").status, 200);
    assert_eq!(asks().await, 200);
    other.0.stdin.take().expect("piped").write_all(b"end\n").expect("told");
    assert!(other.0.wait().expect("ended").success());
}
