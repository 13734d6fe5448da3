//! What a program puts out: read to its end, and kept as far as it is wanted.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::super::log::Log;

/// Where a program's output goes.
pub(crate) enum Output<'o> {
    /// Both streams into a log, in the order in which they come.
    Log(&'o mut Log),
    /// Standard output is kept, up to a bound that fails the program; of the errors the beginning.
    Keep(&'o mut Kept),
    /// The end of both streams, in the order in which they come.
    End(&'o mut End),
}

/// Output that was kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
    /// Bound on each.
    pub(crate) most: usize,
    /// Whether output went over the bound.
    pub(crate) over: bool,
}

/// The end of what was put out.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) output: Vec<u8>,
    /// Bound on it.
    pub(crate) most: usize,
}

// === impl Output ===

impl Output<'_> {
    fn take(&mut self, bytes: &[u8], is_error: bool) {
        match self {
            Self::Log(log) => log.output(bytes),
            Self::Keep(kept) => {
                let most = kept.most;
                let place = if is_error { &mut kept.errors } else { &mut kept.output };
                let room = most.saturating_sub(place.len()).min(bytes.len());
                place.extend_from_slice(&bytes[..room]);
                kept.over |= room < bytes.len() && !is_error;
            }
            Self::End(end) => {
                end.output.extend_from_slice(bytes);
                end.output.drain(..end.output.len().saturating_sub(end.most));
            }
        }
    }
}

pub(super) fn receiver(end: io::PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(OwnedFd::from(end))
}

/// Reads both pipes to their ends.
pub(super) async fn read_all(out: &mut pipe::Receiver, errors: Option<&mut pipe::Receiver>, output: &mut Output<'_>) {
    let (mut out, mut errors) = (Some(out), errors);
    let (mut chunk, mut error_chunk) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    while out.is_some() || errors.is_some() {
        tokio::select! {
            read = read_some(&mut out, &mut chunk) => match read {
                0 => out = None,
                read => output.take(&chunk[..read], false),
            },
            read = read_some(&mut errors, &mut error_chunk) => match read {
                0 => errors = None,
                read => output.take(&error_chunk[..read], true),
            },
        }
    }
}

/// A pipe that fails has ended; one that has ended never gives anything.
async fn read_some(end: &mut Option<&mut pipe::Receiver>, chunk: &mut [u8]) -> usize {
    match end {
        Some(end) => end.read(chunk).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}
