//! The verbs of a registry: push, look, fetch, delete. Everything is known by digest, checked, and asked again after a pause
//! when that may help; nobody else repeats anything.
//!
//! Must not know: what artifacts are for, or when they are pushed.
//!
//! Main types: [`Registry`], [`Settings`], [`RegistryError`]. Source: OCI distribution specification 1.1.
//!
//! A blob is sent by at most 64 MiB for each request and continued where the registry says that it was cut; larger artifacts
//! of ours are cut into parts of that size, so that a registry that forgets what a request brought loses one part at most.
//! What lets us in goes to the registry itself and to whom it sends us for a token, and to nobody that it redirects to.

mod backoff;
mod body;
pub(crate) mod challenge;
mod client;
mod connection;
mod download;
mod error;
mod manifest;
mod pass;
mod upload;

use std::fmt;
use std::io::Read;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use api::Digest;
use bytes::Bytes;
use certs::call::Clear;
use certs::endpoint::Authorities;
use tokio::task::{JoinSet, spawn_blocking};

pub use error::{Again, RegistryError, Why};

use crate::credentials::Credentials;
use crate::layout::{ArtifactError, Layout};
use crate::place::{Place, Tag, Wanted};
use crate::progress::Progress;
use client::Client;
use download::{Download, Named};
use upload::{Blob, Upload};

pub(crate) use manifest::{MANIFEST_BYTES, blobs_of};

/// The longest time in which nothing moves: registries hash what came before they answer.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Credentials that are given, rather than found in docker's files, count at the registry of this place alone.
    pub place: Place,
    /// Who is believed about registries.
    pub authorities: Authorities,
    /// Who we are.
    pub credentials: Credentials,
    /// Blobs of one artifact that are sent, or fetched, at once. 1 to 255; 4 is a good number.
    pub uploads: NonZeroU8,
    /// Which registries are asked without TLS.
    pub clear: Clear,
    /// The longest time in which nothing moves; [`SILENCE`] unless somebody cannot wait.
    pub silence: Duration,
}

/// A client of registries. Clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    client: Arc<Client>,
    /// Of one artifact at once.
    at_once: usize,
}

/// What was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's.
    pub digest: Digest,
    /// Sizes of the layers together.
    pub bytes: u64,
}

/// A manifest of a registry. Its bytes have its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Of its bytes.
    pub digest: Digest,
    /// Sizes of the layers together; 0 of an index.
    pub bytes: u64,
    /// What it says that it is.
    pub media_type: String,
    /// As it came, at most 4 MiB.
    pub body: Bytes,
}

impl Registry {
    /// A client; nobody is asked yet.
    pub fn new(settings: Settings) -> Self {
        let at_once = usize::from(settings.uploads.get());
        Self { client: Arc::new(Client::new(settings)), at_once }
    }

    /// Pushes an artifact of the layout: what the registry lacks of it, then its manifest.
    ///
    /// `tag` keeps it from a registry's collector of garbage; nobody here reads it.
    ///
    /// # Errors
    /// [`RegistryError`], after as many attempts as may help; [`Why::Disk`] when the layout's own bytes are at fault.
    ///
    /// # Cancel safety
    /// What was pushed stays there; calling again sends only what is missing.
    pub async fn push(
        &self,
        layout: &Layout,
        manifest: &Digest,
        to: &Place,
        tag: Option<&Tag>,
        progress: &Progress,
    ) -> Result<Pushed, RegistryError> {
        self.push_all(layout, manifest, to, tag, progress).await.map_err(|why| why.at(to))
    }

    /// The manifest at a place. One of a tag counts for now; whoever records it, records its digest.
    ///
    /// # Errors
    /// [`RegistryError`]; [`Why::Mismatch`] when it came twice with other bytes than its digest says.
    pub async fn manifest(&self, at: &Place, wanted: &Wanted) -> Result<Found, RegistryError> {
        self.client.manifest(at, wanted).await.map_err(|why| why.at(at))
    }

    /// Fetches an artifact into the layout, every byte checked: what is there and whole is not fetched again. Its manifest
    /// comes last, so that an artifact that has one is whole.
    ///
    /// # Errors
    /// [`RegistryError`]; what does not match its digest is not kept.
    ///
    /// # Cancel safety
    /// What came so far stays on the disk and is continued.
    pub async fn fetch(
        &self,
        at: &Place,
        manifest: &Digest,
        into: &Layout,
        progress: &Progress,
    ) -> Result<(), RegistryError> {
        self.fetch_all(at, manifest, into, progress).await.map_err(|why| why.at(at))
    }

    /// Takes a manifest away from a repository; whether it was there. Its blobs are the registry's to collect.
    ///
    /// # Errors
    /// [`RegistryError`]: registries that do not delete say 405.
    pub async fn delete(&self, at: &Place, manifest: &Digest) -> Result<bool, RegistryError> {
        self.client.delete_manifest(at, manifest).await.map_err(|why| why.at(at))
    }

    async fn push_all(
        &self,
        layout: &Layout,
        manifest: &Digest,
        to: &Place,
        tag: Option<&Tag>,
        progress: &Progress,
    ) -> Result<Pushed, Why> {
        let (body, blobs) = prepared(layout, manifest).await?;
        let read = manifest::read(&body, None)?;
        blobs.iter().for_each(|blob| progress.expect(blob.size));
        let (client, place, progress) = (self.client.clone(), to.clone(), progress.clone());
        let upload = move |blob: Blob| {
            let (client, place, share) = (client.clone(), place.clone(), progress.share());
            async move { Upload { client: &client, at: &place, blob, share }.run().await }
        };
        self.each(blobs, upload).await?;
        self.client.put_manifest(to, manifest, tag, &body).await?;
        Ok(Pushed { digest: *manifest, bytes: read.bytes })
    }

    async fn fetch_all(&self, at: &Place, manifest: &Digest, into: &Layout, progress: &Progress) -> Result<(), Why> {
        let found = self.client.manifest(at, &Wanted::Digest(*manifest)).await?;
        let read = manifest::read(&found.body, Some(&found.media_type))?;
        manifest::fits(&read)?;
        if read.blobs.is_empty() {
            return Err(Why::Strange(format!("{} names no layers", read.media_type)));
        }
        read.blobs.iter().for_each(|blob| progress.expect(blob.size));
        let (client, place, layout, progress) = (self.client.clone(), at.clone(), into.clone(), progress.clone());
        let download = move |blob: Named| {
            let (client, place, into, share) = (client.clone(), place.clone(), layout.clone(), progress.share());
            async move { Download { client: &client, at: &place, blob, into: &into, share }.run().await }
        };
        self.each(read.blobs, download).await?;
        let (into, body) = (into.clone(), found.body);
        let stored = spawn_blocking(move || into.store(&body)).await;
        stored.map_err(|error| Why::Strange(error.to_string()))??;
        Ok(())
    }

    /// Does something with each, some at once; ends with the first error, and then ends the others.
    async fn each<T, F>(&self, all: Vec<T>, work: impl Fn(T) -> F) -> Result<(), Why>
    where
        F: Future<Output = Result<(), Why>> + Send + 'static,
    {
        let mut under_way = JoinSet::new();
        for one in all {
            if under_way.len() >= self.at_once {
                done(under_way.join_next().await)?;
            }
            under_way.spawn(work(one));
        }
        while !under_way.is_empty() {
            done(under_way.join_next().await)?;
        }
        Ok(())
    }
}

fn done(joined: Option<Result<Result<(), Why>, tokio::task::JoinError>>) -> Result<(), Why> {
    joined.unwrap_or(Ok(Ok(()))).map_err(|error| Why::Strange(error.to_string()))?
}

/// A manifest of the layout with its blobs, opened.
async fn prepared(layout: &Layout, manifest: &Digest) -> Result<(Bytes, Vec<Blob>), Why> {
    let (layout, digest) = (layout.clone(), *manifest);
    let open = move || {
        let mut body = Vec::new();
        let file = layout.open_blob(&digest)?;
        let most = MANIFEST_BYTES as u64 + 1;
        file.take(most).read_to_end(&mut body).map_err(ArtifactError::io(&layout.blob_path(&digest)))?;
        if Digest::of(&body) != digest {
            return Err(ArtifactError::Changed { digest }.into());
        }
        let mut blobs = Vec::new();
        for Named { digest, size } in manifest::read(&body, None)?.blobs {
            let file = layout.open_blob(&digest)?;
            let length = file.metadata().map_err(ArtifactError::io(&layout.blob_path(&digest)))?.len();
            if length != size {
                return Err(ArtifactError::Changed { digest }.into());
            }
            blobs.push(Blob { file: Arc::new(file), digest, size });
        }
        Ok((body.into(), blobs))
    };
    spawn_blocking(open).await.map_err(|error| Why::Strange(error.to_string()))?
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}
