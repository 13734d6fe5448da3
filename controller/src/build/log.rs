//! The log of one build: what its programs said and lines of our own, bounded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use api::ReleaseName;

use super::BuildProblem;

/// Most output that is kept: a build that says more is talking to itself.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// An open log. What cannot be written to it is lost with a warning: a full disk fails the build in a better place.
pub(crate) struct Log {
    file: File,
    path: PathBuf,
    bytes: u64,
    most: u64,
    within_line: bool,
    cut: bool,
    failed: bool,
}

/// Where the log of a release lies.
pub(crate) fn path(logs: &Path, release: &ReleaseName) -> PathBuf {
    logs.join(release.service.as_str()).join(format!("{}.log", release.number))
}

impl Log {
    /// Opens the log of a release, to go on at its end.
    pub(crate) fn open(logs: &Path, release: &ReleaseName) -> Result<Self, BuildProblem> {
        let path = path(logs, release);
        let open = || {
            std::fs::create_dir_all(logs.join(release.service.as_str()))?;
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error| BuildProblem::io("opening the log", &path, &error))?;
        Ok(Self { file, path, bytes, most: LOG_BYTES, within_line: false, cut: false, failed: false })
    }

    /// A line of our own; always kept.
    pub(crate) fn line(&mut self, text: &str) {
        let start = if self.within_line { "\n" } else { "" };
        self.within_line = false;
        self.write(format!("{start}{text}\n").as_bytes());
    }

    /// Output of a program, as it comes.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.most.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        if let Some(last) = kept.last() {
            self.within_line = *last != b'\n';
            self.write(kept);
        }
        if kept.len() < bytes.len() && !self.cut {
            self.cut = true;
            self.line(&format!("(the output is longer than {} bytes; the rest is not kept)", self.most));
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if let Err(error) = self.file.write_all(bytes) {
            if !self.failed {
                tracing::warn!(path = %self.path.display(), %error, "a build log cannot be written");
            }
            self.failed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_own_lines_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let release: ReleaseName = "hello@r1".parse().expect("release");
        let mut log = Log::open(folder.path(), &release).expect("log");
        log.most = 10;
        log.line("$ x");
        for _ in 0..3 {
            log.output(b"abcd");
        }
        log.line("exit status 0");
        let text = std::fs::read_to_string(path(folder.path(), &release)).expect("text");
        let cut = "(the output is longer than 10 bytes; the rest is not kept)";
        assert_eq!(text, format!("$ x\nabcdab\n{cut}\nexit status 0\n"));
    }
}
