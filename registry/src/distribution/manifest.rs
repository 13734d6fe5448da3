//! Manifests: small, checked by digest, and what they name.

use api::{ARTIFACT_BYTES, Digest};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;

use super::Found;
use super::backoff::Tries;
use super::body::Outgoing;
use super::client::{Client, May, bare};
use super::download::Named;
use super::error::{Why, shown};
use super::upload::seed;
use crate::place::{Place, Tag, Wanted};

/// Largest manifest that registries take (OCI distribution specification 1.1, "Pushing Manifests").
pub(crate) const MANIFEST_BYTES: usize = 4 * 1024 * 1024;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                        application/vnd.docker.distribution.manifest.v2+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json";
/// Most blobs of one artifact: parts of the largest, twice.
const MOST_BLOBS: usize = 512;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    media_type: Option<String>,
    config: Option<WrittenBlob>,
    #[serde(default)]
    layers: Vec<WrittenBlob>,
}

#[derive(Deserialize)]
struct WrittenBlob {
    digest: Digest,
    size: u64,
}

/// What a manifest is, and what it names.
pub(super) struct Read {
    pub(super) media_type: String,
    /// Config and layers, each once. None of an index.
    pub(super) blobs: Vec<Named>,
    /// Sizes of the layers together.
    pub(super) bytes: u64,
}

/// Reads a manifest or an index.
pub(super) fn read(body: &[u8], said: Option<&str>) -> Result<Read, Why> {
    let strange = |why: String| Why::Strange(format!("its manifest cannot be read: {why}"));
    let written: Written = serde_json::from_slice(body).map_err(|error| strange(shown(&error.to_string())))?;
    let count = written.layers.len();
    if count > MOST_BLOBS {
        return Err(strange(format!("it names {count} layers: accepted are {MOST_BLOBS}")));
    }
    let bytes = written.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    let mut blobs: Vec<Named> = Vec::new();
    for WrittenBlob { digest, size } in written.config.into_iter().chain(written.layers) {
        if !blobs.iter().any(|blob| blob.digest == digest) {
            blobs.push(Named { digest, size });
        }
    }
    let media_type = written.media_type.or_else(|| said.map(str::to_owned)).unwrap_or_else(|| OCI_MANIFEST.to_owned());
    Ok(Read { media_type: shown(&media_type), blobs, bytes })
}

/// The blobs that a manifest names.
pub(crate) fn blobs_of(body: &[u8]) -> Option<Vec<Digest>> {
    Some(read(body, None).ok()?.blobs.into_iter().map(|blob| blob.digest).collect())
}

/// Refuses what no artifact of ours is: more bytes than any disk should get for one.
pub(super) fn fits(read: &Read) -> Result<(), Why> {
    // Its headers come on top of its files.
    let most = ARTIFACT_BYTES + ARTIFACT_BYTES / 8;
    if read.bytes > most || read.blobs.iter().any(|blob| blob.size > ARTIFACT_BYTES) {
        Err(Why::TooLarge { most })
    } else {
        Ok(())
    }
}

impl Client {
    /// A manifest, whose bytes have the digest that was asked for.
    pub(super) async fn manifest(&self, at: &Place, wanted: &Wanted) -> Result<Found, Why> {
        let mut tries = Tries::new(if let Wanted::Digest(digest) = wanted { seed(digest) } else { 0 });
        let mut is_second = false;
        loop {
            match self.manifest_once(at, wanted).await {
                Ok(found) => return Ok(found),
                Err(why @ Why::Mismatch { .. }) if !is_second => {
                    tracing::warn!(%at, %why, "fetched once more");
                    is_second = true;
                }
                Err(why) => tries.wait(why).await?,
            }
        }
    }

    async fn manifest_once(&self, at: &Place, wanted: &Wanted) -> Result<Found, Why> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
        let answer = self.get(at, &format!("manifests/{wanted}"), &headers).await?;
        if answer.head.status != StatusCode::OK {
            return Err(self.refusal(answer).await);
        }
        let (head, body) = self.connections.read(answer, MANIFEST_BYTES).await?;
        let found = Digest::of(&body);
        let named = match wanted {
            Wanted::Digest(digest) => Some(*digest),
            // What it says beside a tag is what others will ask for.
            Wanted::Tag(_) => digest_of(&head.headers),
        };
        if let Some(wanted) = named.filter(|named| *named != found) {
            return Err(Why::Mismatch { wanted, found });
        }
        let said = head.headers.get(CONTENT_TYPE).and_then(|said| said.to_str().ok());
        let Read { media_type, bytes, .. } = read(&body, said)?;
        Ok(Found { digest: found, bytes, media_type, body })
    }

    /// Puts a manifest under its tag, or under its digest alone.
    pub(super) async fn put_manifest(
        &self,
        at: &Place,
        digest: &Digest,
        tag: Option<&Tag>,
        body: &Bytes,
    ) -> Result<(), Why> {
        let media_type = read(body, None)?.media_type;
        let name = tag.map_or_else(|| digest.to_string(), |tag| tag.as_str().to_owned());
        let url = self.url(at, &format!("manifests/{name}"));
        let make = || {
            let request = Request::builder().method(Method::PUT).uri(&url).header(CONTENT_TYPE, &media_type);
            let request = request.body(Outgoing::bytes(body.clone()));
            request.map_err(|error| Why::Strange(error.to_string()))
        };
        let mut tries = Tries::new(seed(digest));
        loop {
            let put = match self.send(at, May::Push, make).await {
                Ok(answer) => self.settle(answer, &[201, 202]).await,
                Err(why) => Err(why),
            };
            match put {
                Ok(head) => match digest_of(&head.headers).filter(|found| found != digest) {
                    Some(found) => return Err(Why::Mismatch { wanted: *digest, found }),
                    None => return Ok(()),
                },
                Err(why) => tries.wait(why).await?,
            }
        }
    }

    /// Takes a manifest away; whether it was there. 405 and 404 of others are errors and no.
    pub(super) async fn delete_manifest(&self, at: &Place, digest: &Digest) -> Result<bool, Why> {
        let url = self.url(at, &format!("manifests/{digest}"));
        let mut tries = Tries::new(seed(digest));
        loop {
            let deleted = match self.send(at, May::Delete, || bare(Method::DELETE, &url)).await {
                Ok(answer) => self.settle(answer, &[200, 202]).await,
                Err(why) => Err(why),
            };
            match deleted {
                Ok(_) => return Ok(true),
                Err(Why::Unknown) => return Ok(false),
                Err(why) => tries.wait(why).await?,
            }
        }
    }
}

fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
