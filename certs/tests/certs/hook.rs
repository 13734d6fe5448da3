//! The operator's command: what it is given, what it is not, and what is told about its failures.

use std::time::Duration;

use pointsman_certs::acme::hook::Hook;
use pointsman_certs::acme::{Method, Proof, Prover};
use tempfile::TempDir;

use crate::pebble::{is_alive, until};

fn proof() -> Proof {
    Proof {
        method: Method::Dns01,
        host: "staging.example.com".parse().expect("host"),
        token: "token".into(),
        key_authorization: "token.thumbprint".into(),
        dns_value: "-value_".into(),
    }
}

fn hook(folder: &TempDir, script: &str) -> Hook {
    let path = folder.path().join("hook");
    std::fs::write(&path, script).expect("written");
    // Not run directly: while another test forks, the file may count as being written.
    let command = ["sh", &path.display().to_string(), "--zone", "a b"].map(str::to_owned).to_vec();
    Hook { command, timeout: Hook::TIMEOUT }
}

#[tokio::test]
async fn hook_gets_its_words_and_nothing_else() {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("out");
    let script = format!("{{ printf '<%s>' \"$@\"; echo; env; readlink /proc/self/fd/0; pwd; }} > {}", out.display());
    hook(&folder, &script).show(&proof()).await.expect("shown");
    let text = std::fs::read_to_string(out).expect("it ran");
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.remove(0), "<--zone><a b><present><_acme-challenge.staging.example.com><-value_>");
    assert_eq!(lines.split_off(lines.len() - 2), ["/dev/null", "/"]);
    // The last four are the shell's own.
    let known = ["PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(std::env::vars().any(|(name, _)| !known.contains(&name.as_str())), "nothing to keep back");
    let names = lines.iter().map(|line| line.split('=').next().unwrap_or_default());
    let foreign: Vec<_> = names.filter(|name| !known.contains(name)).collect();
    assert!(foreign.is_empty() && lines.iter().any(|line| line.starts_with("PATH=")), "{text}");
}

#[tokio::test]
async fn hook_failures_are_told_escaped_and_bounded() {
    let folder = tempfile::tempdir().expect("folder");
    for (script, expected) in [
        ("exit 7", "sh present: exit status: 7"),
        ("echo one; echo two >&2; echo; exit 1", "exit status: 1; it said: two"),
        ("printf 'a\\033[2Jb\\0'; exit 1", "it said: a\\u{1b}[2Jb\\u{0}"),
        ("kill -9 $$", "sh present: signal: 9 (SIGKILL)"),
        ("exec >&- 2>&-; exit 1", "exit status: 1"),
    ] {
        let error = hook(&folder, script).show(&proof()).await.expect_err(script);
        assert!(error.ends_with(expected), "{script}: {error}");
    }
    let long = "head -c 1000000 /dev/zero | tr '\\0' x; exit 1";
    let error = hook(&folder, long).show(&proof()).await.expect_err("a long line");
    assert!(error.ends_with(&"x".repeat(500)) && error.len() < 700, "{}", error.len());
    let missing = Hook { command: vec!["/not/there".into()], timeout: Hook::TIMEOUT };
    let error = missing.show(&proof()).await.expect_err("not there");
    assert!(error.contains("/not/there cannot be started"), "{error}");
    let empty = Hook { command: Vec::new(), timeout: Hook::TIMEOUT };
    assert!(empty.show(&proof()).await.expect_err("nothing").contains("empty"));
    let other = Proof { method: Method::Http01, ..proof() };
    assert!(missing.show(&other).await.expect_err("not by a hook").contains("by dns-01, not by http-01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_leaves_no_process_however_it_ends() {
    let folder = tempfile::tempdir().expect("folder");
    let pid = folder.path().join("pid");
    let started = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}", pid.display());
    for (what, end, timeout_ms) in
        [("exits", "exit 0", 60_000), ("hangs", "wait", 3_000), ("is dropped", "wait", 60_000)]
    {
        let _ = std::fs::remove_file(&pid);
        let hook = Hook { timeout: Duration::from_millis(timeout_ms), ..hook(&folder, &format!("{started}\n{end}")) };
        let showing = tokio::spawn(async move { hook.show(&proof()).await });
        until("the hook has started", || pid.exists());
        if what == "is dropped" {
            showing.abort();
        }
        let ended = showing.await.map(|shown| shown.is_ok());
        assert_eq!(
            ended.ok(),
            match what {
                "exits" => Some(true),
                "hangs" => Some(false),
                _ => None,
            },
            "{what}"
        );
        let pid = std::fs::read_to_string(&pid).expect("a number");
        until("its process is gone", || !is_alive(pid.trim()));
    }
}
