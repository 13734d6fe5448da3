//! The same raw requests through the proxy to six real servers: each sees what our access log says, or nothing.
//!
//! The servers and the driver are in `tests/origins`, the requests in `tests/data/framing`, one spelling a line.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::harness::{PROGRAM, alone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h01_to_h10_six_origins_see_exactly_the_requests_of_the_access_log() {
    let _alone = alone().await;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/origins/local.py");
    let driven = Command::new("python3")
        .args([program.as_os_str(), "--pointsman".as_ref(), PROGRAM.as_ref()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("python3 is there: scripts/setup installs it");
    let said = String::from_utf8_lossy(&driven.stdout);
    let errors = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{:?}\n{said}\n{errors}", driven.status);
    // Not green when an origin was left out.
    let origins = ["nginx", "apache", "h2o", "node", "gunicorn", "python"];
    for origin in origins {
        let line = said.lines().find(|line| line.starts_with(&format!("=== {origin}: "))).unwrap_or_default();
        let right = line.contains(" 0 not, 0 of them differences");
        let cases = line.split(' ').nth(2).and_then(|count| count.parse().ok()).unwrap_or(0u32);
        assert!(right && cases >= 600, "{origin}: {line:?}\n{said}");
    }
}
