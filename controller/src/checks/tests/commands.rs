//! Checks by real commands.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn shell(script: &str) -> CheckKind {
    CheckKind::Command { command: ["sh", "-c", script].map(str::to_owned).to_vec() }
}

async fn run(data: &Path, kind: CheckKind, timeout_ms: u64) -> Outcome {
    let (_canceller, mut cancel) = watch::channel(false);
    let outcome = asker(data).ask(&wanted(kind, timeout_ms), &mut cancel).await;
    assert_eq!(left(data), 0, "its folder is removed");
    outcome.expect("not cancelled")
}

fn left(data: &Path) -> usize {
    std::fs::read_dir(data.join("checks/work")).map_or(0, Iterator::count)
}

/// Whether a process of this number runs; one that nobody has waited for does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

async fn number_in(file: &Path) -> String {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    until("it says its number", async || read().ends_with('\n')).await;
    read().trim().to_owned()
}

#[tokio::test]
async fn rollout_check_by_command_is_well_by_its_status() {
    let folder = tempfile::tempdir().expect("folder");
    for (script, expected) in [
        ("exit 0", Outcome::Well),
        ("echo bad >&2; exit 0", Outcome::Well),
        ("exit 7", failed("exit status 7")),
        ("echo first; echo the last >&2; echo; exit 1", failed("the last")),
        ("echo out; kill -9 $$", failed("out")),
        ("kill -9 $$", failed("ended by signal 9")),
        ("printf '\\033[31mred\\007'; exit 1", failed("\\u{1b}[31mred\\u{7}")),
    ] {
        assert_eq!(run(folder.path(), shell(script), 60_000).await, expected, "{script}");
    }
}

#[tokio::test]
async fn rollout_check_by_command_that_is_not_there_says_so_and_fails_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    for (program, named) in [("./smoke", "checks/programs/./smoke"), ("not-there-anywhere", "not-there-anywhere")] {
        let kind = CheckKind::Command { command: vec![program.to_owned()] };
        let outcome = run(folder.path(), kind, 60_000).await;
        let Outcome::Silent(why) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains(named) && why.contains("could not be run: No such file"), "{why}");
    }
}

#[tokio::test]
async fn rollout_check_by_command_without_a_folder_for_it_fails_nobody() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::create_dir_all(folder.path().join("checks")).expect("made");
    std::fs::write(folder.path().join("checks/work"), "no folder").expect("written");
    let (_canceller, mut cancel) = watch::channel(false);
    let outcome = asker(folder.path()).ask(&wanted(shell("exit 1"), 60_000), &mut cancel).await;
    let Some(Outcome::Silent(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("checks/work"), "{why}");
}

#[tokio::test]
async fn rollout_check_by_command_finds_programs_of_the_operator() {
    let folder = tempfile::tempdir().expect("folder");
    folders(folder.path()).clear().await;
    let program = folder.path().join("checks/programs/smoke");
    std::fs::write(&program, "#!/bin/sh\necho \"$1 $2\"; exit 1\n").expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("may be run");
    let command = ["./smoke", "{release} {host}", "{{x}"].map(str::to_owned).to_vec();
    let expected = failed("r7 r7--hello.production.example.com {x}");
    assert_eq!(run(folder.path(), CheckKind::Command { command }, 60_000).await, expected);
}

#[tokio::test]
async fn rollout_check_by_command_sees_nothing_of_ours() {
    let folder = tempfile::tempdir().expect("folder");
    let names = "env | cut -d= -f1 | sort | tr '\\n' ' '; exit 1";
    let all = "HOME LANG PATH POINTSMAN_HOST POINTSMAN_RELEASE POINTSMAN_STAGE POINTSMAN_WORKSPACE";
    // PWD and the like are the shell's own.
    let outcome = run(folder.path(), shell(names), 60_000).await;
    let Outcome::Failed(seen) = outcome else { panic!("{outcome:?}") };
    let seen: Vec<&str> =
        seen.split_whitespace().filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
    assert_eq!(seen.join(" "), all);
    let values = "echo $POINTSMAN_STAGE $POINTSMAN_RELEASE $POINTSMAN_HOST $LANG $(ls -A | wc -l); [ \"$HOME\" = \"$PWD\" ] && exit 1";
    let expected = failed("hello/production r7 r7--hello.production.example.com C.UTF-8 0");
    assert_eq!(run(folder.path(), shell(values), 60_000).await, expected);
}

#[tokio::test]
async fn hostile_commands_of_checks_that_print_without_end_are_ended() {
    let folder = tempfile::tempdir().expect("folder");
    for script in ["yes", "yes >&2", "cat /dev/zero"] {
        let outcome = run(folder.path(), shell(script), 500).await;
        assert_eq!(outcome, failed("it took longer than 500ms and was ended"), "{script}");
    }
    // Of much the end counts.
    let much = "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1";
    assert_eq!(run(folder.path(), shell(much), 60_000).await, failed("the end"));
    let long = run(folder.path(), shell("head -c 3000000 /dev/zero | tr '\\0' x; exit 1"), 60_000).await;
    assert_eq!(long, failed(format!("{}…", "x".repeat(299))));
}

#[tokio::test]
async fn hostile_commands_of_checks_that_ignore_signals_are_ended() {
    let folder = tempfile::tempdir().expect("folder");
    let number = folder.path().join("number");
    let script = format!("trap '' TERM HUP INT; echo $$ > {}; while :; do sleep 1; done", number.display());
    let outcome = run(folder.path(), shell(&script), 500).await;
    assert_eq!(outcome, failed("it took longer than 500ms and was ended"));
    assert!(!runs(&number_in(&number).await));
}

#[tokio::test]
async fn hostile_commands_of_checks_that_fork_away_are_ended() {
    let folder = tempfile::tempdir().expect("folder");
    let number = folder.path().join("number");
    for (script, expected) in [
        // In a session of its own, with the output open, and the leader gone.
        ("setsid sh -c 'echo $$ > FILE; exec sleep 600' & while [ ! -s FILE ]; do sleep 0.01; done", Outcome::Well),
        (
            "(trap '' HUP TERM; echo $(exec sh -c 'echo $PPID') > FILE; exec sleep 600) & while [ ! -s FILE ]; do sleep 0.01; done; echo no; exit 3",
            failed("no"),
        ),
    ] {
        std::fs::write(&number, "").expect("written");
        let outcome = run(folder.path(), shell(&script.replace("FILE", &number.display().to_string())), 60_000).await;
        assert_eq!(outcome, expected, "{script}");
        let pid = number_in(&number).await;
        until("it is gone", async || !runs(&pid)).await;
    }
}

#[tokio::test]
async fn rollout_check_by_command_that_is_cancelled_has_ended() {
    let folder = tempfile::tempdir().expect("folder");
    let number = folder.path().join("number");
    let asker = asker(folder.path());
    let one = wanted(shell(&format!("echo $$ > {}; exec sleep 600", number.display())), 3_600_000);
    let (canceller, mut cancel) = watch::channel(false);
    let asked = tokio::spawn(async move { asker.ask(&one, &mut cancel).await });
    let pid = number_in(&number).await;
    assert!(runs(&pid));
    canceller.send_replace(true);
    assert_eq!(asked.await.expect("no panic"), None);
    assert!(!runs(&pid) && left(folder.path()) == 0);
}

#[tokio::test]
async fn rollout_check_of_a_controller_that_died_is_ended_at_the_next_start() {
    let folder = tempfile::tempdir().expect("folder");
    let number = folder.path().join("number");
    let asker = asker(folder.path());
    let script = format!("setsid sh -c 'echo $$ > {}; exec sleep 600' & wait", number.display());
    let one = wanted(shell(&script), 3_600_000);
    let asked = tokio::spawn(async move {
        let (_canceller, mut cancel) = watch::channel(false);
        asker.ask(&one, &mut cancel).await
    });
    let pid = number_in(&number).await;
    // Not in order: as with the whole process.
    asked.abort();
    assert!(asked.await.is_err());
    assert!(runs(&pid) && left(folder.path()) == 1);
    folders(folder.path()).clear().await;
    until("it is gone", async || !runs(&pid)).await;
    assert_eq!(left(folder.path()), 0);
}
