//! The thread that writes the access log: to a file, which is opened again when asked to, or to the standard output.
//!
//! What cannot be written is dropped and counted, said once in a while, and tried again with the next piece.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::settings::ProxyError;

/// Pieces that may wait: some 2 MiB.
const WAITING: usize = 64;
/// How often a log that cannot be written is complained about.
const AGAIN: Duration = Duration::from_secs(30);

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Appended to, made with mode 0640 when it is not there.
    File(PathBuf),
    /// The standard output.
    Output,
}

/// What is shared with the thread.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) lines: SyncSender<Vec<u8>>,
    pub(crate) dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

impl Handle {
    /// The file is opened again before the next piece is written: somebody has moved it.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Relaxed);
    }
}

/// Starts the thread. It ends when all handles are gone and what they gave is written.
///
/// # Errors
/// The file cannot be opened, or there is no thread.
pub(crate) fn start(target: LogTarget) -> Result<Handle, ProxyError> {
    let sink = Sink::open(&target)?;
    let (lines, pieces) = sync_channel(WAITING);
    let handle = Handle { lines, dropped: Arc::default(), reopen: Arc::default() };
    let (dropped, reopen) = (handle.dropped.clone(), handle.reopen.clone());
    std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || write(&target, sink, &pieces, &dropped, &reopen))
        .map_err(ProxyError::Thread)?;
    Ok(handle)
}

enum Sink {
    File(File),
    Output,
}

impl Sink {
    fn open(target: &LogTarget) -> Result<Self, ProxyError> {
        match target {
            LogTarget::Output => Ok(Self::Output),
            LogTarget::File(path) => {
                let opened = append(path);
                opened.map(Self::File).map_err(|source| ProxyError::File { path: path.clone(), source })
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(piece),
            Self::Output => io::stdout().lock().write_all(piece).and_then(|()| io::stdout().flush()),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn write(target: &LogTarget, mut sink: Sink, pieces: &Receiver<Vec<u8>>, dropped: &AtomicU64, reopen: &AtomicBool) {
    let mut complained: Option<Instant> = None;
    for piece in pieces {
        let opened = if reopen.swap(false, Relaxed) { Sink::open(target).map(Some) } else { Ok(None) };
        let written = match opened {
            Ok(fresh) => {
                sink = fresh.unwrap_or(sink);
                sink.write(&piece).map_err(|error| error.to_string())
            }
            Err(error) => {
                // With the old file there is at least a log.
                reopen.store(true, Relaxed);
                sink.write(&piece).and(Err(io::Error::other(error.to_string()))).map_err(|error| error.to_string())
            }
        };
        let Err(why) = written else { continue };
        dropped.fetch_add(piece.iter().filter(|b| **b == b'\n').count() as u64, Relaxed);
        if complained.is_none_or(|since| since.elapsed() >= AGAIN) {
            complained = Some(Instant::now());
            tracing::warn!(why, "the access log cannot be written: lines are dropped until it can");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eventually(what: &str, mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < Duration::from_secs(20), "never came true: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn log_is_appended_to_and_opened_again_when_it_was_moved() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        std::fs::write(&path, "before\n").expect("written");
        let handle = start(LogTarget::File(path.clone())).expect("started");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        handle.lines.send(b"one\n".to_vec()).expect("sent");
        eventually("the first line is there", || read(&path) == "before\none\n");
        std::fs::rename(&path, &old).expect("moved");
        handle.reopen();
        handle.lines.send(b"two\n".to_vec()).expect("sent");
        eventually("the second line is in the new file", || read(&path) == "two\n");
        assert_eq!(read(&old), "before\none\n");
        assert_eq!(handle.dropped.load(Relaxed), 0);
    }

    #[test]
    fn hostile_h63_a_full_disk_drops_lines_and_goes_on() {
        let handle = start(LogTarget::File("/dev/full".into())).expect("started");
        for _ in 0..3 {
            handle.lines.send(b"one\ntwo\n".to_vec()).expect("sent");
        }
        eventually("six lines are counted", || handle.dropped.load(Relaxed) == 6);
    }
}
