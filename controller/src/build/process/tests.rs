use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use super::*;

fn program(script: &str, timeout_ms: u64) -> Program {
    Program {
        words: ["sh", "-c", script].map(str::to_owned).to_vec(),
        folder: "/".into(),
        environment: BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]),
        timeout: Duration::from_millis(timeout_ms),
        grace: Duration::from_millis(50),
        record: None,
    }
}

async fn namespace() -> Containment {
    let found = Containment::find_out(DEFAULT_PATH).await;
    assert!(found.is_namespace(), "nothing would be shown: {found:?}");
    found
}

fn group() -> Containment {
    Containment::GroupOnly("to compare".into())
}

/// A time that only one `sleep` of this machine sleeps.
pub(crate) fn seconds() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("1000.{:07}{:05}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a process has this among its words. What waits to be reaped has none.
pub(crate) fn runs(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(word))
}

pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let is = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is).await.expect(what);
}

#[tokio::test]
async fn programs_end_in_every_way() {
    let (_canceller, mut cancel) = watch::channel(false);
    for containment in [group(), namespace().await] {
        for (script, timeout_ms, expected, output, errors) in [
            ("echo out; echo err >&2", 60_000, Ended::Exit(0), "out\n", "err\n"),
            ("exit 7", 60_000, Ended::Exit(7), "", ""),
            ("kill -9 $$", 60_000, Ended::Signal(9), "", ""),
            ("exec >&- 2>&-; exit 3", 60_000, Ended::Exit(3), "", ""),
            ("trap '' TERM; while :; do sleep 1; done", 300, Ended::TimedOut, "", ""),
            ("head -c 5000 /dev/zero | tr '\\0' x", 60_000, Ended::Exit(0), &"x".repeat(1000), ""),
        ] {
            let mut kept = Kept { most: 1000, ..Kept::default() };
            let program = program(script, timeout_ms).within(&containment);
            let ended = program.run(&mut cancel, Output::Keep(&mut kept)).await.expect(script);
            assert_eq!(ended, expected, "{script}");
            assert_eq!((String::from_utf8_lossy(&kept.output).as_ref(), kept.over), (output, output.len() == 1000));
            assert_eq!(String::from_utf8_lossy(&kept.errors), errors, "{script}");
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error() {
    let (_canceller, mut cancel) = watch::channel(false);
    for containment in [group(), namespace().await] {
        for word in ["./not-there", "no-such-program", "/etc"] {
            let missing = Program { words: vec![word.to_owned()], ..program("", 1000) }.within(&containment);
            assert!(missing.run(&mut cancel, Output::Keep(&mut Kept::default())).await.is_err(), "{word}");
        }
    }
}

/// A program whose process of another session and with an empty environment sleeps.
fn leaving(folder: &Path, seconds: &str, then: &str) -> Program {
    let script = format!(
        "env -i setsid sh -c 'echo > started; exec sleep {seconds}' & while [ ! -e started ]; do sleep 0.01; done; {then}"
    );
    Program { folder: folder.to_owned(), ..program(&script, 600_000) }
}

#[tokio::test]
async fn a_process_that_leaves_group_and_environment_is_ended() {
    let containment = namespace().await;
    for (then, stopped) in
        [("exit 0", None), ("wait", Some(Ended::Cancelled)), ("trap '' TERM; wait", Some(Ended::Cancelled))]
    {
        let (folder, seconds) = (tempfile::tempdir().expect("folder"), seconds());
        let (canceller, mut cancel) = watch::channel(false);
        let run = leaving(folder.path(), &seconds, then).within(&containment);
        let mut kept = Kept::default();
        let run = run.run(&mut cancel, Output::Keep(&mut kept));
        let (ended, ()) = tokio::join!(run, async {
            if stopped.is_some() {
                until("it has started", || folder.path().join("started").exists()).await;
                canceller.send(true).expect("listening");
            }
        });
        assert_eq!(ended.expect("ran"), stopped.unwrap_or(Ended::Exit(0)), "{then}");
        assert!(!runs(&seconds), "{then}: it outlived the program");
    }
}

#[tokio::test]
async fn a_dropped_program_takes_its_namespace_with_it() {
    let (folder, seconds) = (tempfile::tempdir().expect("folder"), seconds());
    let (_canceller, mut cancel) = watch::channel(false);
    let mut kept = Kept::default();
    tokio::select! {
        _ = leaving(folder.path(), &seconds, "wait").within(&namespace().await).run(&mut cancel, Output::Keep(&mut kept)) =>
            panic!("it never ends by itself"),
        () = until("it sleeps", || folder.path().join("started").exists() && runs(&seconds)) => {}
    }
    until("it is gone", || !runs(&seconds)).await;
}

#[tokio::test]
async fn sigterm_reaches_the_command_within_its_namespace() {
    let (folder, script) =
        (tempfile::tempdir().expect("folder"), "trap 'echo told; exit 3' TERM; echo > started; sleep 600 & wait");
    for containment in [namespace().await, group()] {
        let (canceller, mut cancel) = watch::channel(false);
        let grace = Duration::from_secs(60);
        let program = Program { folder: folder.path().to_owned(), grace, ..program(script, 600_000) };
        let mut kept = Kept { most: 1000, ..Kept::default() };
        let (ended, ()) = tokio::join!(program.within(&containment).run(&mut cancel, Output::Keep(&mut kept)), async {
            until("it has started", || folder.path().join("started").exists()).await;
            canceller.send(true).expect("listening");
        });
        assert_eq!(ended.expect("ran"), Ended::Cancelled);
        assert_eq!(kept.output, b"told\n", "{containment:?}");
        std::fs::remove_file(folder.path().join("started")).expect("removed");
    }
}

#[tokio::test]
async fn group_only_still_ends_what_it_can() {
    let seconds = seconds();
    let (_canceller, mut cancel) = watch::channel(false);
    let left = program(&format!("sleep {seconds} & exit 0"), 60_000).within(&group());
    assert_eq!(left.run(&mut cancel, Output::Keep(&mut Kept::default())).await.expect("ran"), Ended::Exit(0));
    until("it is gone", || !runs(&seconds)).await;
}

#[tokio::test]
async fn a_program_that_fills_its_folder_is_ended() {
    let folder = tempfile::tempdir().expect("folder");
    let (_canceller, mut cancel) = watch::channel(false);
    let script = "while :; do head -c 1000000 /dev/zero > \"$(mktemp ./XXXXXX)\"; sleep 0.05; done";
    let program = Program { folder: folder.path().to_owned(), ..program(script, 600_000) };
    let program = program.within(&namespace().await).no_larger(folder.path().to_owned(), 3 << 20);
    let ended = program.run(&mut cancel, Output::Keep(&mut Kept::default())).await.expect("ran");
    assert!(matches!(ended, Ended::TooLarge(bytes) if bytes > 3 << 20), "{ended:?}");
}
