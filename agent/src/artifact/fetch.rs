//! One blob from the controller: continued where it was cut, checked as a whole.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Digest;
use api::agent::FetchRequest;
use api::agent::agents_client::AgentsClient;
use aws_lc_rs::digest::{Context, SHA256};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::transport::Channel;

/// Longest silence while a blob is fetched.
const SILENCE: Duration = Duration::from_secs(30);

/// What was announced of a blob's size. Nothing larger is taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    AtMost(u64),
    Exactly(u64),
}

impl Size {
    fn limit(self) -> u64 {
        let (Self::AtMost(bytes) | Self::Exactly(bytes)) = self;
        bytes
    }

    /// Whether more bytes must follow these.
    fn is_cut(self, length: u64) -> bool {
        matches!(self, Self::Exactly(bytes) if length < bytes)
    }
}

/// The file with the blob's bytes.
pub(super) async fn blob(channel: &Channel, folder: &Path, digest: &Digest, size: Size) -> Result<PathBuf, String> {
    let path = folder.join(digest.hex());
    if path.is_file() && safe_digest_of(&path).await.is_ok_and(|found| found == *digest) {
        return Ok(path);
    }
    let partial = path.with_extension("partial");
    let io = |problem: io::Error| format!("{}: {problem}", partial.display());
    let length = receive(channel, &partial, digest, size).await?;
    if size.is_cut(length) {
        let (digest, size) = (digest.short(), size.limit());
        return Err(format!("{digest} was cut after {length} of {size} bytes; it will be continued there"));
    }
    if safe_digest_of(&partial).await.map_err(io)? != *digest {
        fs::remove_file(&partial).map_err(io)?;
        return Err(format!("what came for {} has another digest; it was deleted", digest.short()));
    }
    fs::rename(&partial, &path).map_err(io)?;
    Ok(path)
}

/// Appends what is missing to `partial` and returns its length.
async fn receive(channel: &Channel, partial: &Path, digest: &Digest, size: Size) -> Result<u64, String> {
    let io = |problem: io::Error| format!("{}: {problem}", partial.display());
    let failed = |why: &str| format!("{} could not be fetched: {why}", digest.short());
    let silent = |_| failed("the controller fell silent");
    let mut file = fs::OpenOptions::new().append(true).create(true).open(partial).map_err(io)?;
    let mut length = file.metadata().map_err(io)?.len();
    if length > size.limit() {
        file.set_len(0).map_err(io)?;
        length = 0;
    }
    if matches!(size, Size::Exactly(bytes) if bytes == length) {
        return Ok(length);
    }
    let request = FetchRequest { digest: digest.to_string(), offset: length };
    let mut client = AgentsClient::new(channel.clone());
    let pieces = timeout(SILENCE, client.fetch(request)).await.map_err(silent)?;
    let mut pieces = pieces.map_err(|status| failed(status.message()))?.into_inner();
    loop {
        let piece = timeout(SILENCE, pieces.message()).await.map_err(silent)?;
        let Some(piece) = piece.map_err(|status| failed(status.message()))? else { return Ok(length) };
        length += piece.data.len() as u64;
        if length > size.limit() {
            fs::remove_file(partial).map_err(io)?;
            return Err(format!("{} is larger than announced ({} bytes)", digest.short(), size.limit()));
        }
        if piece.data.is_empty() {
            return Err(failed("the controller sent an empty piece"));
        }
        file.write_all(&piece.data).map_err(io)?;
    }
}

/// The digest of a file that is safe on disk. Away from the runtime: a large one takes seconds.
async fn safe_digest_of(path: &Path) -> io::Result<Digest> {
    let path = path.to_owned();
    spawn_blocking(move || {
        let mut file = fs::File::open(path)?;
        file.sync_all()?;
        digest_of(&mut file)
    })
    .await
    .map_err(io::Error::other)?
}

/// The digest of what a file holds from where it stands. Blocks.
pub(super) fn digest_of(file: &mut fs::File) -> io::Result<Digest> {
    let (mut context, mut buffer) = (Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    Ok(Digest::from_bytes(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")))
}
