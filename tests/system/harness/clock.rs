//! A clock that is off: libfaketime stands between a process and the kernel, and reads from a file by how much.
//!
//! As on a machine whose clock is set, time that goes by is not touched: only what is asked as a date is another.

use std::path::{Path, PathBuf};

/// A clock that a test moves.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right, until it is moved.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let clock = Self { file: folder.join(name) };
        clock.moves(0);
        clock
    }

    /// Off by so many seconds from now on, for all that look at it.
    pub(crate) fn moves(&self, seconds: i64) {
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, format!("{seconds:+}")).expect("written");
        // In one step: processes look at any time.
        std::fs::rename(beside, &self.file).expect("renamed");
    }

    /// What a process is started with to look at it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let file = self.file.to_str().expect("text").to_owned();
        [
            ("LD_PRELOAD", library()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// What scripts/setup has installed.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("a folder").flatten().map(|entry| entry.path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is there: scripts/setup installs it").to_str().expect("text").to_owned()
}
