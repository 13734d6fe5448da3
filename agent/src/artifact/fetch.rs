//! One blob from the controller: continued where it was cut, checked as a whole.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Digest;
use api::agent::FetchRequest;
use api::agent::agents_client::AgentsClient;
use aws_lc_rs::digest::{Context, SHA256};
use tonic::transport::Channel;

/// Longest silence while a blob is fetched.
const SILENCE: Duration = Duration::from_secs(30);

/// The file with the blob's bytes; `size` is what was announced, and nothing larger is taken.
pub(super) async fn blob(channel: &Channel, folder: &Path, digest: &Digest, size: u64) -> Result<PathBuf, String> {
    let path = folder.join(digest.hex());
    if path.is_file() && digest_of(&path).is_ok_and(|found| found == *digest) {
        return Ok(path);
    }
    let partial = path.with_extension("partial");
    let io = |problem: std::io::Error| format!("{}: {problem}", partial.display());
    let mut file = fs::OpenOptions::new().append(true).create(true).open(&partial).map_err(io)?;
    let mut length = file.metadata().map_err(io)?.len();
    let request = FetchRequest { digest: digest.to_string(), offset: length };
    let failed = |status: tonic::Status| format!("{} could not be fetched: {}", digest.short(), status.message());
    let mut pieces = AgentsClient::new(channel.clone()).fetch(request).await.map_err(failed)?.into_inner();
    loop {
        let piece = tokio::time::timeout(SILENCE, pieces.message()).await;
        let piece =
            piece.map_err(|_| format!("{} could not be fetched: the controller fell silent", digest.short()))?;
        let Some(piece) = piece.map_err(failed)? else { break };
        length += piece.data.len() as u64;
        if length > size {
            fs::remove_file(&partial).map_err(io)?;
            return Err(format!("{} is larger than announced ({size} bytes)", digest.short()));
        }
        file.write_all(&piece.data).map_err(io)?;
    }
    file.sync_all().map_err(io)?;
    if digest_of(&partial).map_err(io)? != *digest {
        fs::remove_file(&partial).map_err(io)?;
        return Err(format!("what came for {} has another digest; it was deleted", digest.short()));
    }
    fs::rename(&partial, &path).map_err(io)?;
    Ok(path)
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    let (mut file, mut context, mut buffer) = (fs::File::open(path)?, Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    Ok(Digest::from_bytes(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")))
}
