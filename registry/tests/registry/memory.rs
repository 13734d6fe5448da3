//! Large artifacts and answers without end cost little memory: looked at from outside, in a process of its own.

use std::process::Command;

use api::Digest;
use pointsman_registry::{Credentials, Layout, Progress, Wanted};

use super::artifact::{empty, in_clear, packed, password, place, plain};
use super::docker::Docker;
use super::strict::{Asks, Lie, State, Strict};

/// What the process has with its tests and libraries, and some more; without end it would be gigabytes.
const MOST_KIB: u64 = 64 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_answers_without_end() {
    let folder = tempfile::tempdir().expect("folder");
    let (layout, manifest, _) = plain(folder.path(), 100_000);
    for (lie, asks, expected) in [
        (Lie::ManifestWithoutEnd, Asks::Nothing, "sent more than the 4194304 bytes"),
        (Lie::BlobWithoutEnd, Asks::Nothing, "sent more than the "),
        (Lie::ErrorWithoutEnd, Asks::Nothing, "sent more than the 65536 bytes"),
        (
            Lie::TokenWithoutEnd,
            Asks::Tokens { password: ("ann", "hunter2"), identity: "", good_for: 9 },
            "sent more than the 65536 bytes",
        ),
        (Lie::HeadersWithoutEnd, Asks::Nothing, "cut"),
    ] {
        let strict = Strict::start(State::default()).await;
        let client = in_clear(strict.port, password("ann", "hunter2"));
        client.push(&layout, &manifest, &place(strict.port, "ours"), None, &Progress::default()).await.expect("pushed");
        (strict.state().lie, strict.state().asks) = (lie, asks);
        let mut child = Command::new(std::env::current_exe().expect("this one"));
        child.args(["--exact", "memory::asks", "--ignored", "--nocapture"]).env("ASKED_IN", folder.path());
        child.env("ASKED_PORT", strict.port.to_string()).env("ASKED_FOR", manifest.to_string());
        let output = tokio::task::spawn_blocking(move || child.output()).await.expect("no panic").expect("this one");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains(expected), "{expected}: {told} {}", String::from_utf8_lossy(&output.stderr));
        let peak = peak(&told);
        assert!(peak < MOST_KIB, "{expected}: {peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_artifacts_pass_in_little_memory() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    // Three parts, all of them under way at once.
    let (_, artifact) = packed(folder.path(), 130 << 20);
    let mut child = Command::new(std::env::current_exe().expect("this one"));
    child.args(["--exact", "memory::carries", "--ignored", "--nocapture"]).env("CARRIED_IN", folder.path());
    child.env("CARRIED_TO", docker.port.to_string()).env("CARRIED", artifact.digest.to_string());
    let output = tokio::task::spawn_blocking(move || child.output()).await.expect("no panic").expect("this one");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told} {}", String::from_utf8_lossy(&output.stderr));
    let peak = peak(&told);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

/// What a process says that it had.
fn peak(told: &str) -> u64 {
    let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn tell_peak() {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    println!("\n{}", status.lines().find(|line| line.starts_with("VmHWM:")).expect("its peak"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by large_artifacts_pass_in_little_memory, as a process of its own"]
async fn carries() {
    let folder = std::path::PathBuf::from(std::env::var_os("CARRIED_IN").expect("a folder"));
    let port = std::env::var("CARRIED_TO").expect("a port").parse().expect("a port");
    let digest: Digest = std::env::var("CARRIED").expect("a digest").parse().expect("a digest");
    let (client, at) = (in_clear(port, Credentials::Anonymous), place(port, "large"));
    let layout = Layout::open(&folder.join("layout")).expect("layout");
    client.push(&layout, &digest, &at, None, &Progress::default()).await.expect("pushed");
    client.fetch(&at, &digest, &empty(&folder), &Progress::default()).await.expect("fetched");
    tell_peak();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by hostile_h85_answers_without_end, as a process of its own"]
async fn asks() {
    let folder = std::path::PathBuf::from(std::env::var_os("ASKED_IN").expect("a folder"));
    let port = std::env::var("ASKED_PORT").expect("a port").parse().expect("a port");
    let digest: Digest = std::env::var("ASKED_FOR").expect("a digest").parse().expect("a digest");
    let (client, at) = (in_clear(port, password("ann", "hunter2")), place(port, "ours"));
    // The first error tells: what is asked again after a pause is given up here.
    let fetching = async {
        match client.manifest(&at, &Wanted::Digest(digest)).await {
            Ok(_) => client.fetch(&at, &digest, &empty(&folder), &Progress::default()).await.err(),
            Err(error) => Some(error),
        }
    };
    match tokio::time::timeout(std::time::Duration::from_secs(5), fetching).await {
        Ok(error) => println!("\n{}", error.map(|error| error.to_string()).unwrap_or_default()),
        Err(_) => println!("\ncut, and asked again"),
    }
    tell_peak();
}
