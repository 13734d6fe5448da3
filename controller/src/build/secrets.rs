//! From references to secrets to their values, when they are needed and no earlier.
//!
//! Must not know: what a secret is for. A problem is told by the secret's name, never by what was found.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use tracing::warn;

use crate::core::spec::SecretRef;

use super::mask::LEAST;
use super::process::{Ended, Kept, Output, Program};
use super::{BuildFolders, Cancel, GRACE};

/// Longest value: more than any key or token has.
const MOST: usize = 64 * 1024;

/// Longest time for a program that prints one.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The value behind a reference. Programs run in `folder` and see the controller's own environment.
///
/// # Errors
/// What is wrong, to be put behind the secret's name; nothing of the value, and no path.
pub(crate) async fn value(
    from: &SecretRef,
    folders: &BuildFolders,
    folder: &Path,
    cancel: &mut Cancel,
) -> Result<String, String> {
    let found = match from {
        SecretRef::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(path.as_ref())).await;
            read.unwrap_or_else(|error| Err(io::Error::other(error)))
                .map_err(|error| format!("cannot be read: {error}"))?
        }
        SecretRef::Environment(name) => {
            let found = folders.inherited.get(name).map(|value| value.clone().into_bytes());
            found.ok_or_else(|| "cannot be read: the controller has no such variable".to_owned())?
        }
        SecretRef::Command(words) => printed(words, folders, folder, cancel).await?,
    };
    let text = String::from_utf8(found).map_err(|_| "is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    match text.len() {
        0 => Err("is empty".to_owned()),
        short if short < LEAST => Err(format!("is too short to be hidden in a log: {LEAST} bytes are the least")),
        long if long > MOST => Err(format!("is too long: {MOST} bytes are the most")),
        _ if text.contains('\0') => Err("holds a byte 0, which no variable can".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    // With a line's end, and one too many.
    file.take(MOST as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn printed(
    words: &[String],
    folders: &BuildFolders,
    folder: &Path,
    cancel: &mut Cancel,
) -> Result<Vec<u8>, String> {
    let program = Program {
        words: words.to_vec(),
        folder: folder.to_owned(),
        environment: folders.inherited.clone(),
        timeout: TIMEOUT,
        grace: GRACE,
        record: None,
    };
    let mut kept = Kept { most: MOST + 2, ..Kept::default() };
    let ended = program.within(folders.containment().await).run(cancel, Output::Keep(&mut kept)).await;
    let why = match ended {
        Ok(Ended::Exit(0)) if kept.over => return Err(format!("is too long: {MOST} bytes are the most")),
        Ok(Ended::Exit(0)) => return Ok(kept.output),
        Ok(ended) => ended.to_string(),
        Err(error) => return Err(format!("cannot be read: its program could not be started: {error}")),
    };
    // Not for whoever reads the build's log: what it says may be a secret's.
    let said = String::from_utf8_lossy(&kept.errors[..kept.errors.len().min(2_000)]).escape_debug().to_string();
    warn!(program = words.first(), %why, %said, "a program that prints a secret failed");
    Err(format!("cannot be read: its program ended with {why}"))
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    async fn ask(from: SecretRef, folder: &Path) -> Result<String, String> {
        let inherited = [("PATH", std::env::var("PATH").expect("PATH")), ("HELD", "in the environment".to_owned())];
        let folders = BuildFolders::within(folder, inherited.map(|(name, value)| (name.to_owned(), value)).into());
        let (_canceller, mut cancel) = watch::channel(false);
        value(&from, &folders, folder, &mut cancel).await
    }

    fn shell(script: &str) -> SecretRef {
        SecretRef::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[tokio::test]
    async fn secrets_are_read_from_each_place() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let file = |name: &str| SecretRef::File(at(name).display().to_string());
        for (name, text) in [("plain", "of a file"), ("line", "of a file\n"), ("windows", "of a file\r\n")] {
            std::fs::write(at(name), text).expect("written");
            assert_eq!(ask(file(name), folder.path()).await.as_deref(), Ok("of a file"), "{name}");
        }
        std::fs::write(at("key"), "one\n\ntwo\n\n").expect("written");
        assert_eq!(ask(file("key"), folder.path()).await.as_deref(), Ok("one\n\ntwo\n"), "lines are kept");
        std::os::unix::fs::symlink("key", at("link")).expect("linked");
        assert!(ask(file("link"), folder.path()).await.is_ok());
        let held = SecretRef::Environment("HELD".into());
        assert_eq!(ask(held, folder.path()).await.as_deref(), Ok("in the environment"));
        let printed = ask(shell("echo noise >&2; echo \"$HELD\""), folder.path()).await;
        assert_eq!(printed.as_deref(), Ok("in the environment"));
        std::fs::write(at("most"), "x".repeat(MOST)).expect("written");
        assert_eq!(ask(file("most"), folder.path()).await.map(|text| text.len()), Ok(MOST));
    }

    #[tokio::test]
    async fn hostile_h84_secrets_that_are_none_are_told_without_their_value() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let file = |name: &str| SecretRef::File(at(name).display().to_string());
        std::fs::write(at("empty"), "\n").expect("written");
        std::fs::write(at("short"), "12345\n").expect("written");
        std::fs::write(at("long"), "x".repeat(MOST + 1)).expect("written");
        std::fs::write(at("bytes"), b"\xff\xfe-secret").expect("written");
        std::fs::write(at("zero"), b"sec\0ret").expect("written");
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("pipe");
        for (from, why) in [
            (file("empty"), "is empty"),
            (file("short"), "is too short to be hidden in a log: 6 bytes are the least"),
            (file("long"), "is too long: 65536 bytes are the most"),
            (file("bytes"), "is not UTF-8 text"),
            (file("zero"), "holds a byte 0, which no variable can"),
            (file("pipe"), "cannot be read: it is not a plain file"),
            (file("none"), "cannot be read: No such file or directory (os error 2)"),
            (SecretRef::Environment("NONE".into()), "cannot be read: the controller has no such variable"),
            (shell("echo secret; echo secret >&2; exit 3"), "cannot be read: its program ended with exit status 3"),
            (shell("head -c 70000 /dev/zero | tr '\\0' x"), "is too long: 65536 bytes are the most"),
            (
                SecretRef::Command(vec!["./none".into()]),
                "cannot be read: its program could not be started: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(ask(from.clone(), folder.path()).await, Err(why.to_owned()), "{from:?}");
        }
    }
}
