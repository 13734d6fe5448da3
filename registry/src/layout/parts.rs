//! A folder as one compressed archive, or, when it is large, as parts of one: cut each 64 MiB, compressed apart and at once.
//!
//! Small folders give the same bytes as ever. Where it is cut depends on the content alone, and so does each part; the parts
//! one after the other are one tar.gz (RFC 1952 §2.2: members). What is sent, or lost on the way, is a part.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Scope};

use api::Digest;
use flate2::{Compression, GzBuilder};

use super::{ArtifactError, blob, pack};

/// Uncompressed bytes of one part. Constant for ever: another number would give the same content another digest.
pub(super) const PART_BYTES: u64 = 64 * 1024 * 1024;
/// More would not be faster: the archive itself is written by one.
const MOST_THREADS: usize = 4;

/// What one part became.
type Packed = Result<(Digest, u64), ArtifactError>;

/// Where parts are made, and how large.
#[derive(Clone, Copy)]
pub(super) struct Packing<'p> {
    pub(super) blobs: &'p Path,
    pub(super) unfinished: &'p Path,
    pub(super) part_bytes: u64,
}

impl Packing<'_> {
    /// Packs a folder; digests and sizes of its parts in order. One part: it is no larger than that.
    pub(super) fn pack(self, folder: &Path) -> Result<Vec<(Digest, u64)>, ArtifactError> {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_THREADS);
        // One part waits while others are compressed: what is ahead is on the disk, and bounded.
        let (sender, receiver) = sync_channel(1);
        let (receiver, packed) = (Mutex::new(receiver), Mutex::new(Vec::new()));
        let archived = thread::scope(|scope| {
            let workers = Workers { scope, packing: self, receiver: &receiver, packed: &packed, idle: threads };
            let spool = spool(self.unfinished)?;
            let mut cutter = Cutter { workers, sender, spool, length: 0, parts: 0 };
            pack::tar(folder, &mut cutter)?;
            let Cutter { mut workers, sender, spool, parts, .. } = cutter;
            // The receiver lives as long as the scope.
            workers.hand(&sender, (parts, spool)).map_err(ArtifactError::io(self.unfinished))
        });
        let mut packed = packed.into_inner().unwrap_or_else(PoisonError::into_inner);
        packed.sort_by_key(|(number, _)| *number);
        // A part that failed is why the archive failed.
        let parts = packed.into_iter().map(|(_, part)| part).collect::<Result<Vec<_>, _>>()?;
        archived.map(|()| parts)
    }

    /// Compresses one part. The bytes depend on the part's alone.
    fn compress(self, mut spool: File) -> Packed {
        let io = |error| ArtifactError::io(self.unfinished)(error);
        spool.rewind().map_err(io)?;
        let mut blob = blob::Writer::new(self.unfinished)?;
        // No name, no time: RFC 1952 §2.3 fields that would differ between two runs.
        let mut gzip = GzBuilder::new().mtime(0).write(&mut blob, Compression::fast());
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match spool.read(&mut buffer).map_err(io)? {
                0 => break,
                count => gzip.write_all(&buffer[..count]).map_err(io)?,
            }
        }
        gzip.finish().map_err(io)?;
        blob.keep(self.blobs)
    }
}

/// Writes an archive, and hands it over part by part.
struct Cutter<'scope, 'env> {
    workers: Workers<'scope, 'env>,
    sender: SyncSender<(usize, File)>,
    spool: File,
    length: u64,
    parts: usize,
}

impl Write for Cutter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part_bytes = self.workers.packing.part_bytes;
        // Not before there is more: what fits into one part is one.
        if self.length == part_bytes && !bytes.is_empty() {
            let full = std::mem::replace(&mut self.spool, spool(self.workers.packing.unfinished).map_err(told)?);
            self.workers.hand(&self.sender, (self.parts, full))?;
            (self.parts, self.length) = (self.parts + 1, 0);
        }
        let room = usize::try_from(part_bytes - self.length).unwrap_or(usize::MAX).min(bytes.len());
        let written = self.spool.write(&bytes[..room])?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that compress; each begins when there is a part for it.
struct Workers<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    packing: Packing<'env>,
    receiver: &'env Mutex<Receiver<(usize, File)>>,
    packed: &'env Mutex<Vec<(usize, Packed)>>,
    /// That have not begun.
    idle: usize,
}

impl Workers<'_, '_> {
    fn hand(&mut self, sender: &SyncSender<(usize, File)>, part: (usize, File)) -> io::Result<()> {
        if self.idle > 0 {
            self.idle -= 1;
            let (packing, receiver, packed) = (self.packing, self.receiver, self.packed);
            self.scope.spawn(move || work(packing, receiver, packed));
        }
        if self.failed() {
            return Err(io::Error::other("a part of it could not be packed"));
        }
        sender.send(part).map_err(io::Error::other)
    }

    fn failed(&self) -> bool {
        let packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.iter().any(|(_, part)| part.is_err())
    }
}

/// Until there are no more parts.
fn work(packing: Packing<'_>, parts: &Mutex<Receiver<(usize, File)>>, packed: &Mutex<Vec<(usize, Packed)>>) {
    loop {
        let next = parts.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((number, spool)) = next else { return };
        let part = packing.compress(spool);
        packed.lock().unwrap_or_else(PoisonError::into_inner).push((number, part));
    }
}

/// A file without a name: nothing is left of it, whatever happens.
fn spool(folder: &Path) -> Result<File, ArtifactError> {
    let path = blob::next_name(folder);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(ArtifactError::io(&path))?;
    std::fs::remove_file(&path).map_err(ArtifactError::io(&path))?;
    Ok(file)
}

fn told(error: ArtifactError) -> io::Error {
    match error {
        ArtifactError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}
