//! The demo: what a new user sees first.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::harness::{PATIENCE, PROGRAM, alone, running_in};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn story_1_demo_tells_the_whole_story_and_leaves_nothing_behind() {
    let _alone = alone().await;
    let folder = tempfile::Builder::new().prefix("pointsman-system-").tempdir().expect("a folder");
    let (json, temporary) = (folder.path().join("tour.json"), folder.path().join("tmp"));
    fs::create_dir(&temporary).expect("a folder");
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--tour", "--json"]).arg(&json).env("TMPDIR", &temporary);
    command.env_remove("POINTSMAN_CONTEXT").stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    // The first build compiles the example, on a machine that may be busy.
    let limit = std::time::Duration::from_secs(900);
    let output = tokio::time::timeout(limit, command.output()).await.expect("the tour ends").expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}\n{complained}");

    let tour: Value = serde_json::from_slice(&fs::read(&json).expect("written")).expect("JSON");
    assert!(tour["requests"].as_u64() >= Some(20_000), "{tour:#}");
    assert_eq!(tour["failed"], tour["failed_by_release"]["r3"], "{tour:#}");
    assert_eq!(
        (&tour["failed_by_release"]["r1"], &tour["failed_by_release"]["r2"]),
        (&0.into(), &0.into()),
        "{tour:#}"
    );
    assert!(tour["failed_by_release"]["r3"].as_u64() > Some(0), "r3 is bad: {tour:#}");
    let steps = tour["steps"].as_array().expect("steps");
    let set: Vec<(&str, f64)> = steps
        .iter()
        .map(|step| (step["release"].as_str().expect("a name"), step["set"].as_f64().expect("a number")))
        .collect();
    assert_eq!(set, [("r2", 1.0), ("r2", 10.0), ("r2", 50.0), ("r2", 100.0)]);
    for step in steps {
        // Over at least 4,000 requests that begin and end in the middle of others: a few off, no more.
        assert!(step["requests"].as_u64() >= Some(4_000), "{step}");
        let measured = step["measured"].as_f64().expect("a number");
        let off = (measured - step["set"].as_f64().expect("a number")).abs();
        assert!(off <= 0.2, "{step}");
    }
    // By hand, after r2 had completed.
    let rollback = tour["rollback_ms"].as_object().expect("an object");
    assert_eq!(rollback.keys().collect::<Vec<_>>(), ["p1", "p2"]);
    assert!(rollback.values().all(|ms| ms.as_f64() > Some(0.0)), "{tour:#}");
    assert_that_the_controller_stopped_r3(&tour, &told);

    let left = fs::read_dir(&temporary).expect("a folder").flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(running_in(&temporary), []);
}

/// Nobody else did, and it never had half of the requests.
fn assert_that_the_controller_stopped_r3(tour: &Value, told: &str) {
    let stopped = &tour["stopped"];
    assert_eq!((&stopped["release"], &stopped["by"]), (&"r3".into(), &"controller".into()), "{tour:#}");
    assert!(["worse", "tripped"].contains(&stopped["cause"].as_str().unwrap_or_default()), "{tour:#}");
    assert!([1.0, 10.0].contains(&stopped["reached"].as_f64().unwrap_or_default()), "{tour:#}");
    assert!(stopped["in_for_ms"].as_u64() > Some(0), "{tour:#}");
    // What clients were told by r3 is all that failed.
    assert_eq!(stopped["failed"], tour["failed_by_release"]["r3"], "{tour:#}");
    assert!(stopped["requests"].as_u64() > stopped["failed"].as_u64(), "{tour:#}");
    for words in ["r3 rolled back at", "was rolled back from r3 to r2", "by controller", "r3 was in for"] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

/// A folder for a demo, all processes of which end with the test, also when it fails.
struct Temporary(tempfile::TempDir);

impl Drop for Temporary {
    fn drop(&mut self) {
        for pid in running_in(self.0.path()) {
            let _ = kill_process(pid, Signal::KILL); // It may have ended by itself.
        }
    }
}

/// What ends the demo before its end.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Signal(Signal),
    /// Nobody reads what it says any more.
    Reader,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn story_1_demo_that_is_cut_short_leaves_nothing_behind_and_says_so() {
    for (cut, tour, code) in [
        (Cut::Signal(Signal::HUP), true, 1),
        (Cut::Signal(Signal::INT), true, 1),
        (Cut::Signal(Signal::TERM), false, 0),
        (Cut::Reader, true, 1),
    ] {
        let folder = tempfile::Builder::new().prefix("pointsman-system-").tempdir().expect("a folder");
        let folder = Temporary(folder);
        let mut command = Command::new(PROGRAM);
        command.arg("demo").args(tour.then_some("--tour")).env("TMPDIR", folder.0.path());
        command.env_remove("POINTSMAN_CONTEXT").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut demo = command.kill_on_drop(true).process_group(0).spawn().expect("it starts");
        let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
        // By then all parts run.
        while !lines.next_line().await.expect("text").expect("it goes on").contains("agent a1") {}
        let mut lines = Some(lines);
        match cut {
            Cut::Signal(signal) => {
                let pid = Pid::from_raw(demo.id().expect("it runs").cast_signed()).expect("a pid");
                kill_process(pid, signal).expect("it runs");
            }
            Cut::Reader => drop(lines.take()),
        }
        let ended =
            tokio::time::timeout(PATIENCE, demo.wait_with_output()).await.expect("it ends").expect("waited for");
        let complained = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{cut:?}: {complained}");
        assert_eq!(complained.contains("stopped before its end"), tour, "{cut:?}: {complained}");
        assert_eq!(running_in(folder.0.path()), [], "{cut:?}");
        assert_eq!(fs::read_dir(folder.0.path()).expect("a folder").count(), 0, "{cut:?}");
    }
}
