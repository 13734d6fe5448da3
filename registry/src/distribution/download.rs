//! One blob from a registry: continued where it was cut, and kept only when every byte was checked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use api::Digest;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::OwnedMutexGuard;
use tokio::task::spawn_blocking;

use super::backoff::Tries;
use super::client::Client;
use super::connection::Answer;
use super::error::Why;
use super::upload::seed;
use crate::layout::{ArtifactError, Layout};
use crate::place::Place;
use crate::progress::Share;

/// A blob that a manifest names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A download under way.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) at: &'a Place,
    pub(super) blob: Named,
    pub(super) into: &'a Layout,
    pub(super) share: Share,
}

/// What is on the disk of a blob that is not whole, with the digest of that.
struct Partial {
    file: Arc<File>,
    path: PathBuf,
    hash: Context,
    length: u64,
    /// Nobody else writes the file meanwhile; also held by what writes in the background.
    held: Arc<OwnedMutexGuard<()>>,
}

impl Download<'_> {
    /// Until the blob is in the layout.
    ///
    /// # Cancel safety
    /// What came so far stays on the disk and is continued.
    pub(super) async fn run(self) -> Result<(), Why> {
        let held = Arc::new(self.client.file(&self.into.partial(&self.blob.digest)).lock_owned().await);
        if self.is_here().await {
            self.share.set(self.blob.size);
            return Ok(());
        }
        let mut tries = Tries::new(seed(&self.blob.digest));
        let mut is_second = false;
        let mut partial = self.open(&held).await?;
        loop {
            let before = partial.length;
            let why = match self.receive(&mut partial).await {
                Ok(()) => match self.keep(partial).await {
                    // A cache between us may have held something else; it will not twice.
                    Err(why @ Why::Mismatch { .. }) if !is_second => {
                        tracing::warn!(at = %self.at, %why, "fetched once more");
                        is_second = true;
                        partial = self.open(&held).await?;
                        continue;
                    }
                    kept => return kept,
                },
                Err(why) => why,
            };
            if partial.length > before {
                tries.moved();
            }
            if matches!(why, Why::TooLarge { .. }) {
                partial.remove();
                return Err(why);
            }
            tries.wait(why).await?;
        }
    }

    /// Whether all of it is here, byte for byte.
    async fn is_here(&self) -> bool {
        let (layout, blob) = (self.into.clone(), self.blob);
        let here = blocking(move || Ok(layout.check_blob(&blob.digest).is_ok_and(|bytes| bytes == blob.size)));
        here.await.unwrap_or(false)
    }

    async fn open(&self, held: &Arc<OwnedMutexGuard<()>>) -> Result<Partial, Why> {
        let (path, held) = (self.into.partial(&self.blob.digest), held.clone());
        blocking(move || Partial::open(path, held)).await
    }

    /// Appends what is missing.
    async fn receive(&self, partial: &mut Partial) -> Result<(), Why> {
        if partial.length > self.blob.size {
            partial.cut()?;
        }
        self.share.set(partial.length);
        if partial.length == self.blob.size && self.blob.size > 0 {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        if partial.length > 0 {
            let range = format!("bytes={}-", partial.length);
            headers.insert(RANGE, range.parse().expect("digits"));
        }
        let answer = self.client.get(self.at, &format!("blobs/{}", self.blob.digest), &headers).await?;
        match answer.head.status {
            StatusCode::PARTIAL_CONTENT if begins_at(&answer.head.headers) == Some(partial.length) => {}
            // It sends all of it.
            StatusCode::OK => partial.cut()?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                partial.cut()?;
                return Err(Why::Cut("it sent another range than it was asked for".to_owned()));
            }
            _ => return Err(self.client.refusal(answer).await),
        }
        self.append(partial, answer).await
    }

    async fn append(&self, partial: &mut Partial, answer: Answer) -> Result<(), Why> {
        self.share.set(partial.length);
        let connections = &self.client.connections;
        let (mut pieces, last) = connections.pieces(answer, self.blob.size - partial.length);
        while let Some(piece) = pieces.next(connections, last).await? {
            let bytes = piece.len() as u64;
            if bytes > self.blob.size - partial.length {
                return Err(Why::TooLarge { most: self.blob.size });
            }
            partial.add(piece).await?;
            self.share.add(bytes);
        }
        pieces.end(connections);
        match partial.length {
            length if length == self.blob.size => Ok(()),
            _ => Err(Why::Cut("the answer was not whole".to_owned())),
        }
    }

    /// Puts it among the layout's blobs, or deletes it when its digest is another one.
    async fn keep(&self, partial: Partial) -> Result<(), Why> {
        let (wanted, found) = (self.blob.digest, partial.digest());
        if found != wanted {
            partial.remove();
            return Err(Why::Mismatch { wanted, found });
        }
        let layout = self.into.clone();
        blocking(move || layout.adopt(&partial.file, &partial.path, &wanted)).await
    }
}

impl Partial {
    /// What is there of it; its bytes are read again, because the disk kept no digest. Blocks.
    fn open(path: PathBuf, held: Arc<OwnedMutexGuard<()>>) -> Result<Self, ArtifactError> {
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
        let mut file = opened.map_err(ArtifactError::io(&path))?;
        let (mut hash, mut buffer, mut length) = (Context::new(&SHA256), vec![0; 64 * 1024], 0);
        loop {
            match file.read(&mut buffer).map_err(ArtifactError::io(&path))? {
                0 => return Ok(Self { file: Arc::new(file), path, hash, length, held }),
                count => {
                    hash.update(&buffer[..count]);
                    length += count as u64;
                }
            }
        }
    }

    async fn add(&mut self, piece: Bytes) -> Result<(), Why> {
        self.hash.update(&piece);
        self.length += piece.len() as u64;
        let (file, path, held) = (self.file.clone(), self.path.clone(), self.held.clone());
        // Away from the runtime: the disk may be slow.
        blocking(move || {
            let _held = held;
            (&*file).write_all(&piece).map_err(ArtifactError::io(&path))
        })
        .await
    }

    /// Begins anew.
    fn cut(&mut self) -> Result<(), ArtifactError> {
        self.file.set_len(0).map_err(ArtifactError::io(&self.path))?;
        (self.hash, self.length) = (Context::new(&SHA256), 0);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    fn remove(self) {
        // What cannot be removed is cut when it is continued.
        let _ = fs::remove_file(&self.path);
    }
}

/// `Content-Range: bytes <first>-<last>/<size>`.
fn begins_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

async fn blocking<T>(work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static) -> Result<T, Why>
where
    T: Send + 'static,
{
    let done = spawn_blocking(work).await.map_err(|error| Why::Strange(io::Error::other(error).to_string()))?;
    Ok(done?)
}
