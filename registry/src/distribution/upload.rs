//! One blob to a registry: sent once, and continued where it was cut as far as the registry can.
//!
//! Source: OCI distribution specification 1.1, "Pushing blobs". A session is a URL that the registry gives; how much of a
//! blob it has is asked for after each failure. A registry that has forgotten its session is sent the blob anew.

use std::fs::File;
use std::io;
use std::sync::Arc;

use api::Digest;
use aws_lc_rs::digest::{Context, SHA256};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderMap, Method, StatusCode, Uri};
use tokio::task::spawn_blocking;

use super::backoff::Tries;
use super::body::Outgoing;
use super::client::{Client, May, bare, located};
use super::error::{Again, Why};
use crate::place::Place;
use crate::progress::Share;

/// Most that is sent in one request: what a cut costs at most where a registry forgets what a request brought.
const PIECE: u64 = 64 * 1024 * 1024;

/// A blob of ours.
#[derive(Clone)]
pub(super) struct Blob {
    pub(super) file: Arc<File>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What a registry has of a blob.
struct Session {
    location: Uri,
    /// Bytes that it has.
    offset: u64,
    /// Most bytes of one request, unless these are the last.
    piece: u64,
}

/// An upload under way.
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client,
    pub(super) at: &'a Place,
    pub(super) blob: Blob,
    pub(super) share: Share,
}

impl Upload<'_> {
    /// Until the registry has the blob.
    ///
    /// # Cancel safety
    /// Dropping it leaves a session there, which the registry ends.
    pub(super) async fn run(self) -> Result<(), Why> {
        let mut tries = Tries::new(seed(&self.blob.digest));
        let mut session = None;
        let mut furthest = 0;
        loop {
            let why = match self.step(&mut session).await {
                Ok(true) => {
                    self.share.set(self.blob.size);
                    return Ok(());
                }
                Ok(false) => continue,
                Err(why) => why,
            };
            let refused_at = session.as_ref().filter(|_| matches!(why, Why::Refused { status: 416, .. }));
            let refused_at = refused_at.map(|session| session.offset);
            let why = self.whose(why, session.is_some()).await?;
            if self.share.done() > furthest && session.is_some() {
                furthest = self.share.done();
                tries.moved();
            }
            tries.wait(why).await?;
            if let Some(known) = session.take() {
                let found = self.found_again(known, &mut tries).await?;
                // It says that it goes on where it does not: `0-0` of one byte, for one.
                session = found.filter(|found| refused_at != Some(found.offset));
            }
            self.share.set(session.as_ref().map_or(0, |session| session.offset));
        }
    }

    /// Goes one request further; whether the registry has the blob now.
    async fn step(&self, session: &mut Option<Session>) -> Result<bool, Why> {
        let Some(known) = session else {
            if self.is_there().await? {
                return Ok(true);
            }
            *session = Some(self.begin().await?);
            return Ok(false);
        };
        let rest = self.blob.size - known.offset;
        if rest <= known.piece {
            self.finish(known).await?;
            return Ok(true);
        }
        let end = known.offset + known.piece;
        let make = || self.request(Method::PATCH, &known.location, known.offset, end);
        let answer = self.client.send(self.at, May::Push, make).await?;
        let head = self.client.settle(answer, &[202, 204]).await?;
        known.location = located(&head.headers, &known.location)?;
        known.offset = end;
        Ok(false)
    }

    async fn is_there(&self) -> Result<bool, Why> {
        let url = self.client.url(self.at, &format!("blobs/{}", self.blob.digest));
        let answer = self.client.send(self.at, May::Push, || bare(Method::HEAD, &url)).await?;
        let status = answer.head.status;
        match status {
            StatusCode::NOT_FOUND => {
                self.client.settle(answer, &[404]).await?;
                Ok(false)
            }
            // Some keep it elsewhere, and have it.
            _ if status.is_redirection() => Ok(true),
            _ => {
                let head = self.client.settle(answer, &[200]).await?;
                let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
                Ok(length.is_none_or(|length| length.parse() == Ok(self.blob.size)))
            }
        }
    }

    async fn begin(&self) -> Result<Session, Why> {
        let url = self.client.url(self.at, "blobs/uploads/");
        let make = || {
            let mut request = bare(Method::POST, &url)?;
            request.headers_mut().insert(CONTENT_LENGTH, 0.into());
            Ok(request)
        };
        let answer = self.client.send(self.at, May::Push, make).await?;
        let head = self.client.settle(answer, &[202]).await?;
        let least = head.headers.get("oci-chunk-min-length").and_then(|least| least.to_str().ok());
        let least: u64 = least.and_then(|least| least.parse().ok()).unwrap_or(0);
        Ok(Session { location: located(&head.headers, &url)?, offset: 0, piece: PIECE.max(least) })
    }

    /// Sends what is left and says what all of it is.
    async fn finish(&self, session: &Session) -> Result<(), Why> {
        let location = session.location.to_string();
        let sign = if session.location.query().is_some() { '&' } else { '?' };
        let url: Uri = format!("{location}{sign}digest={}", self.blob.digest)
            .parse()
            .map_err(|_| Why::Strange("it does not say where to go on".to_owned()))?;
        let make = || self.request(Method::PUT, &url, session.offset, self.blob.size);
        let answer = self.client.send(self.at, May::Push, make).await?;
        self.client.settle(answer, &[201, 204]).await?;
        Ok(())
    }

    fn request(&self, method: Method, url: &Uri, from: u64, end: u64) -> Result<http::Request<Outgoing>, Why> {
        // What an attempt took before, this one takes again.
        self.share.set(from);
        let is_whole = from == 0 && method == Method::PUT;
        let request = http::Request::builder().method(method).uri(url).header(CONTENT_LENGTH, end - from);
        let mut request = request.header(CONTENT_TYPE, "application/octet-stream");
        if !is_whole && end > from {
            request = request.header(CONTENT_RANGE, format!("{from}-{}", end - 1));
        }
        let body = Outgoing::slice(self.blob.file.clone(), from, end, self.share.clone());
        request.body(body).map_err(|error| Why::Strange(error.to_string()))
    }

    /// What the registry has of a session, after a failure; nothing when it has forgotten it, or got lost in it.
    async fn found_again(&self, known: Session, tries: &mut Tries) -> Result<Option<Session>, Why> {
        let head = loop {
            let asked = self.client.send(self.at, May::Push, || bare(Method::GET, &known.location)).await;
            let settled = match asked {
                Ok(answer) => self.client.settle(answer, &[204, 202]).await,
                Err(why) => Err(why),
            };
            match settled {
                Ok(head) => break head,
                Err(why) if why.again() != Again::Never => tries.wait(why).await?,
                Err(Why::Unauthorized) => return Err(Why::Unauthorized),
                Err(why) => {
                    tracing::info!(at = %self.at, blob = %self.blob.digest.short(), %why, "an upload begins again");
                    return Ok(None);
                }
            }
        };
        let offset = received(&head.headers).filter(|offset| *offset <= self.blob.size);
        let Some(offset) = offset else { return Ok(None) };
        let location = located(&head.headers, &known.location).unwrap_or(known.location);
        Ok(Some(Session { location, offset, piece: known.piece }))
    }

    /// Looks for the fault where it can be: a digest that the registry refuses is wrong on this disk, or got lost on its way.
    async fn whose(&self, why: Why, is_begun: bool) -> Result<Why, Why> {
        let Why::Refused { status, code, message, retry_after } = why else {
            return match why {
                // A session that is gone is begun anew.
                Why::Unknown if is_begun => Ok(Why::Cut("it has forgotten what was sent".to_owned())),
                why => Ok(why),
            };
        };
        match (status, code.as_str()) {
            (_, "DIGEST_INVALID") => {
                let (file, wanted) = (self.blob.file.clone(), self.blob.digest);
                let found = spawn_blocking(move || digest_of(&file)).await.map_err(io::Error::other).flatten();
                match found {
                    Ok(found) if found == wanted => Ok(Why::Cut("other bytes came than were sent".to_owned())),
                    _ => Err(Why::Disk(crate::ArtifactError::Changed { digest: wanted })),
                }
            }
            (416, _) | (400 | 404, "BLOB_UPLOAD_INVALID" | "BLOB_UPLOAD_UNKNOWN") => {
                Ok(Why::Cut("it lost what was sent".to_owned()))
            }
            _ => Ok(Why::Refused { status, code, message, retry_after }),
        }
    }
}

/// How many bytes a registry says that it has: `Range: 0-<last>`. `0-0` is what registries say of none, too.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    match last {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Of the whole file, wherever it stands. Blocks.
fn digest_of(file: &File) -> io::Result<Digest> {
    use std::os::unix::fs::FileExt;
    let (mut context, mut buffer, mut at) = (Context::new(&SHA256), vec![0; 64 * 1024], 0);
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => break,
            count => {
                context.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    Ok(Digest::from_bytes(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")))
}

/// Spreads attempts at different blobs.
pub(super) fn seed(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("8 of 32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has_is_read_from_its_range() {
        for (range, expected) in [
            ("0-99", Some(100)),
            ("bytes=0-99", Some(100)),
            ("0-0", Some(0)),
            ("1-99", None),
            ("0-", None),
            ("0--1", None),
            ("99", None),
            ("0-18446744073709551615", None),
        ] {
            let headers = HeaderMap::from_iter([(RANGE, range.parse().expect("a header"))]);
            assert_eq!(received(&headers), expected, "{range}");
        }
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
