//! The log of one build: what its programs said and lines of our own, bounded.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::ReleaseName;

use super::BuildProblem;
use super::mask::{Mask, Masked};

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
    /// What is never written to it, and what came last, of which it is not certain yet whether it is that.
    masked: Option<(Arc<Mask>, Masked)>,
}

/// Where the log of a release lies.
pub(crate) fn path(logs: &Path, release: &ReleaseName) -> PathBuf {
    logs.join(release.service.as_str()).join(format!("{}.log", release.number))
}

/// Where the log of a check of a release lies.
pub(crate) fn path_of_check(logs: &Path, release: &ReleaseName, check: &str) -> PathBuf {
    logs.join(release.service.as_str()).join(format!("{}.check-{check}.log", release.number))
}

impl Log {
    /// Opens a log, to go on at its end.
    pub(crate) fn open(path: PathBuf) -> Result<Self, BuildProblem> {
        let open = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error| BuildProblem::io("opening the log", &path, &error))?;
        Ok(Self { file, path, bytes, most: LOG_BYTES, within_line: false, cut: false, failed: false, masked: None })
    }

    /// From here on this is never written to it.
    pub(crate) fn hide(&mut self, mask: Option<Arc<Mask>>) {
        self.settle();
        self.masked = mask.map(|mask| (mask.clone(), Masked::new(mask)));
    }

    /// A line of our own; always kept.
    pub(crate) fn line(&mut self, text: &str) {
        self.settle();
        let hidden = self.masked.as_ref().map(|(mask, _)| mask.text(text));
        self.own(hidden.as_deref().unwrap_or(text));
    }

    fn own(&mut self, text: &str) {
        let start = if self.within_line { "\n" } else { "" };
        self.within_line = false;
        self.write(format!("{start}{text}\n").as_bytes());
    }

    /// Output of a program, as it comes.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        match &mut self.masked {
            Some((_, masked)) => {
                let mut certain = Vec::with_capacity(bytes.len());
                masked.put(bytes, &mut certain);
                self.keep(&certain);
            }
            None => self.keep(bytes),
        }
    }

    /// No more output belongs to what came last.
    fn settle(&mut self) {
        if let Some((_, masked)) = &mut self.masked {
            let mut last = Vec::new();
            masked.end(&mut last);
            self.keep(&last);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.most.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        if let Some(last) = kept.last() {
            self.within_line = *last != b'\n';
            self.write(kept);
        }
        if kept.len() < bytes.len() && !self.cut {
            self.cut = true;
            self.own(&format!("(the output is longer than {} bytes; the rest is not kept)", self.most));
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

impl Drop for Log {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::super::mask::SecretValue;
    use super::*;

    #[test]
    fn hostile_h84_secrets_are_in_no_log_however_they_come() {
        let folder = tempfile::tempdir().expect("folder");
        let path = path(folder.path(), &"hello@r1".parse().expect("release"));
        let secret = SecretValue { name: "TOKEN".into(), text: "s3cr3t-t0ken".into() };
        let mut log = Log::open(path.clone()).expect("log");
        log.hide(Mask::of(&[secret]).map(Arc::new));
        for pieces in [["s3cr3t-", "t0ken, "], ["s3cr3t-", "t0ke, "]] {
            pieces.iter().for_each(|piece| log.output(piece.as_bytes()));
        }
        // What a program has not put out whole is not put together with the next one's.
        log.output(b"s3cr3t");
        log.line("the program \"s3cr3t-t0ken\" was not found");
        log.output(b"-t0ken\ns3c");
        drop(log);
        let text = std::fs::read_to_string(path).expect("text");
        assert_eq!(text, "[TOKEN], s3cr3t-t0ke, s3cr3t\nthe program \"[TOKEN]\" was not found\n-t0ken\ns3c");
    }

    #[test]
    fn output_is_bounded_and_own_lines_are_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let release: ReleaseName = "hello@r1".parse().expect("release");
        let mut log = Log::open(path(folder.path(), &release)).expect("log");
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
