//! Who we are, and to whom that is told.

use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use api::Digest;
use certs::call::Clear;
use certs::endpoint::Authorities;
use pointsman_registry::{Credentials, Layout, Progress, Registry, RegistryError};

use super::artifact::{empty, in_clear, is_whole, packed, password, place, settings};
use super::docker::Docker;
use super::strict::{Asks, Lie, State, Strict, basic};

const TOKENS: Asks = Asks::Tokens { password: ("ann", "hunter2"), identity: "hunter3", good_for: 1_000 };

async fn push(port: u16, credentials: Credentials, layout: &Layout, digest: &Digest) -> Result<(), RegistryError> {
    let client = in_clear(port, credentials);
    let at = place(port, "ours/a");
    client.push(layout, digest, &at, None, &Progress::default()).await.map(|pushed| assert_eq!(pushed.digest, *digest))
}

fn docker_config(folder: &Path, text: &str) -> Credentials {
    let path = folder.join(format!("{}.json", Digest::of(text.as_bytes()).short()));
    std::fs::write(&path, text).expect("written");
    Credentials::Docker(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_basic_token_identity_and_config_json() {
    let folder = tempfile::tempdir().expect("folder");
    let (layout, artifact) = packed(folder.path(), 100_000);
    let basic = Strict::start(State { asks: Asks::Basic("ann", "hunter2"), ..State::default() }).await;
    let tokens = Strict::start(State { asks: TOKENS, ..State::default() }).await;
    let real = Docker::start(folder.path(), None, Some(("ann", "hunter2")));
    // "YW5uOmh1bnRlcjI=" is ann:hunter2.
    let config =
        |port: u16, auth: &str| docker_config(folder.path(), &format!(r#"{{"auths":{{"localhost:{port}":{auth}}}}}"#));
    let encoded = r#"{"auth":"YW5uOmh1bnRlcjI="}"#;
    for (port, credentials, expected) in [
        (basic.port, password("ann", "hunter2"), true),
        (basic.port, password("ann", "wrong"), false),
        (basic.port, Credentials::Anonymous, false),
        (basic.port, Credentials::Identity("hunter3".into()), false),
        (basic.port, config(basic.port, encoded), true),
        (basic.port, config(tokens.port, encoded), false),
        (tokens.port, password("ann", "hunter2"), true),
        (tokens.port, password("ann", "wrong"), false),
        (tokens.port, Credentials::Identity("hunter3".into()), true),
        (tokens.port, Credentials::Identity("wrong".into()), false),
        (tokens.port, Credentials::Token("made up".into()), false),
        (tokens.port, config(tokens.port, encoded), true),
        (tokens.port, config(tokens.port, r#"{"identitytoken":"hunter3"}"#), true),
        (real.port, password("ann", "hunter2"), true),
        (real.port, password("ann", "wrong"), false),
        (real.port, config(real.port, encoded), true),
    ] {
        let shown = format!("{credentials:?}");
        let pushed = push(port, credentials, &layout, &artifact.digest).await;
        assert_eq!(pushed.is_ok(), expected, "{shown}: {pushed:?}");
        let told = format!("{shown} {pushed:?} {}", pushed.as_ref().err().map(ToString::to_string).unwrap_or_default());
        assert!(!told.contains("hunter") && !told.contains("YW5u"), "{told}");
    }
    let unread = push(basic.port, Credentials::Docker("/nowhere".into()), &layout, &artifact.digest).await;
    assert!(unread.expect_err("no file").to_string().contains("/nowhere: there is no such file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_end_in_the_middle_are_made_anew() {
    let folder = tempfile::tempdir().expect("folder");
    let (layout, artifact) = packed(folder.path(), 100_000);
    let asks = Asks::Tokens { password: ("ann", "hunter2"), identity: "hunter3", good_for: 2 };
    let strict = Strict::start(State { asks, ..State::default() }).await;
    // One at a time: others would use up a token before whoever asked for it.
    let mut settings = settings(strict.port, password("ann", "hunter2"), Authorities::default(), Clear::OnLoopback);
    settings.uploads = NonZeroU8::MIN;
    let (client, at) = (Registry::new(settings), place(strict.port, "ours/a"));
    client.push(&layout, &artifact.digest, &at, None, &Progress::default()).await.expect("pushed");
    let tokens = strict.state().log.iter().filter(|(_, path, _)| path == "/token").count();
    assert!(tokens > 2, "{tokens}: a token was good for more than two requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_401_is_final_after_one_new_token() {
    let folder = tempfile::tempdir().expect("folder");
    let (layout, artifact) = packed(folder.path(), 10);
    let asks = Asks::Tokens { password: ("ann", "hunter2"), identity: "hunter3", good_for: 0 };
    let strict = Strict::start(State { asks, ..State::default() }).await;
    let client = in_clear(strict.port, password("ann", "hunter2"));
    let wanted = pointsman_registry::Wanted::Digest(artifact.digest);
    let error = client.manifest(&place(strict.port, "ours"), &wanted).await.expect_err("never let in").to_string();
    assert!(error.contains("does not let us in"), "{error}");
    let asked: Vec<_> = strict.state().log.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let manifest = format!("GET /v2/ours/manifests/{}", artifact.digest);
    assert_eq!(asked, [manifest.as_str(), "GET /token", manifest.as_str()]);
    drop(layout);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_never_leave_the_registry() {
    let folder = tempfile::tempdir().expect("folder");
    let (layout, artifact) = packed(folder.path(), 100_000);
    let elsewhere = Strict::start(State::default()).await;
    // The same host by another name, and another port.
    let other = |name: &str, port: u16| Some(format!("http://{name}:{port}"));
    for uploads_at in [other("localhost", elsewhere.port), other("127.0.0.1", elsewhere.port)] {
        let asks = Asks::Basic("ann", "hunter2");
        let strict = Strict::start(State { asks, uploads_at, ..State::default() }).await;
        // What is sent there is not what it began: it does not end well, and that is not what is asked here.
        let pushing = push(strict.port, password("ann", "hunter2"), &layout, &artifact.digest);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), pushing).await;
    }
    let asks = Asks::Basic("ann", "hunter2");
    let strict = Strict::start(State { asks, ..State::default() }).await;
    push(strict.port, password("ann", "hunter2"), &layout, &artifact.digest).await.expect("pushed");
    elsewhere.state().blobs = strict.state().blobs.clone();
    strict.state().blobs_at = other("127.0.0.1", elsewhere.port);
    let client = in_clear(strict.port, password("ann", "hunter2"));
    let into = empty(folder.path());
    client.fetch(&place(strict.port, "ours/a"), &artifact.digest, &into, &Progress::default()).await.expect("fetched");
    assert!(is_whole(&into, &artifact.digest));
    let seen = std::mem::take(&mut elsewhere.state().log);
    let asked = |method: &str| seen.iter().filter(|(found, _, _)| found == method).count();
    assert!(asked("PUT") >= 2 && asked("GET") >= 2, "{seen:?}");
    assert!(seen.iter().all(|(_, _, pass)| pass.is_none()), "{seen:?}");
    assert!(strict.state().log.iter().any(|(_, _, pass)| *pass == Some(basic("ann", "hunter2"))));
    // Given for one registry, they count at no other.
    let other = Strict::start(State { asks: Asks::Basic("ann", "hunter2"), ..State::default() }).await;
    let error = client.fetch(&place(other.port, "ours/a"), &artifact.digest, &into, &Progress::default()).await;
    assert!(error.is_err() && other.state().log.iter().all(|(_, _, pass)| pass.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_says_shows_no_secret_and_moves_no_cursor() {
    let strict = Strict::start(State { asks: Asks::Basic("ann", "hunter2"), ..State::default() }).await;
    let client = in_clear(strict.port, password("ann", "hunter2"));
    let at = place(strict.port, "ours");
    let wanted = pointsman_registry::Wanted::Digest(Digest::of(b"a"));
    strict.state().lie = Lie::Quotes;
    let stranger = in_clear(strict.port, Credentials::Anonymous);
    let error = stranger.manifest(&at, &wanted).await.expect_err("refused").to_string();
    assert!(error.ends_with("the registry answered 403 DENIED you are nobody [31m"), "{error}");
    strict.state().lie = Lie::None;
    client.manifest(&at, &wanted).await.expect_err("there is none");
    strict.state().lie = Lie::Quotes;
    let error = client.manifest(&at, &wanted).await.expect_err("refused");
    let told = format!("{error} {error:?}");
    assert!(told.contains("403"), "{told}");
    assert!(!told.contains("YW5u") && !told.contains('\u{1b}'), "{told}");
}

/// Runs the test `helped` with helpers in its PATH.
fn with_helpers(folder: &Path, port: u16, script: &str) -> (Output, String) {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).expect("folder");
    let helper = bin.join("docker-credential-test");
    let log = folder.join("asked");
    std::fs::write(&helper, format!("#!/bin/sh\n(echo \"$@\"; cat) >>{}\n{script}\n", log.display())).expect("written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let config = format!(r#"{{"credHelpers":{{"localhost:{port}":"test"}}}}"#);
    std::fs::write(folder.join("config.json"), config).expect("written");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new(std::env::current_exe().expect("this one"));
    command.args(["--exact", "auth::helped", "--ignored", "--nocapture"]).env("PATH", path);
    command.env("HELPED_IN", folder).env("HELPED_PORT", port.to_string());
    let output = command.output().expect("this one");
    let asked = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(log);
    (output, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn auth_by_helpers() {
    let folder = tempfile::tempdir().expect("folder");
    let strict = Strict::start(State { asks: TOKENS, ..State::default() }).await;
    let orphan = folder.path().join("orphan");
    for (script, expected) in [
        (r#"echo '{"ServerURL":"x","Username":"ann","Secret":"hunter2"}'"#, "let in"),
        (r#"echo '{"Username":"<token>","Secret":"hunter3"}'"#, "let in"),
        (r#"echo '{"Username":"ann","Secret":"hunter4"}'"#, "does not let us in"),
        (r#"echo "credentials not found in native keychain"; exit 1"#, "does not let us in"),
        (r#"echo hunter2; echo hunter2 >&2; exit 1"#, "docker-credential-test failed"),
        (r#"echo '{"Username":"ann"}'"#, "did not answer with a Username and a Secret"),
        ("echo hunter2", "did not answer with a Username and a Secret"),
        ("exec cat /dev/zero", "its answer has no end"),
        (&format!("(sleep 600 & echo $! >{0}; wait) & exec sleep 600", orphan.display()), "within 30s and was ended"),
    ] {
        let (output, asked) = with_helpers(folder.path(), strict.port, script);
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(expected), "{script}: {told}");
        assert!(!told.contains("hunter"), "{told}");
        assert_eq!(asked, format!("get\nlocalhost:{}\n", strict.port), "{script}");
    }
    let orphan = std::fs::read_to_string(orphan).expect("its number");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", orphan.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "what it began goes on: {stat}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by auth_by_helpers, as a process with another PATH"]
async fn helped() {
    let folder = std::path::PathBuf::from(std::env::var_os("HELPED_IN").expect("a folder"));
    let port = std::env::var("HELPED_PORT").expect("a port").parse().expect("a port");
    let client = in_clear(port, Credentials::Docker(folder.join("config.json")));
    let wanted = pointsman_registry::Wanted::Digest(Digest::of(b"a"));
    let told = client.manifest(&place(port, "ours"), &wanted).await.expect_err("there is none").to_string();
    match told.contains("does not have it") {
        true => println!("let in"),
        false => println!("{told}"),
    }
}
