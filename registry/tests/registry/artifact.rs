//! Layouts with something in them, and clients.

use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use api::Digest;
use certs::call::Clear;
use certs::endpoint::Authorities;
use pointsman_registry::{Artifact, Credentials, Layout, Place, Registry, Settings};

/// Waits until something is so; it must be within a minute, which is far above what it takes.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A folder with so many bytes, packed.
pub(crate) fn packed(folder: &Path, length: usize) -> (Layout, Artifact) {
    let content = folder.join("content");
    std::fs::create_dir_all(&content).expect("folder");
    std::fs::write(content.join("noise"), noise(length, 7)).expect("written");
    let layout = Layout::open(&folder.join("layout")).expect("layout");
    let (release, component) = ("hello@r1".parse().expect("release"), "web".parse().expect("component"));
    let artifact = layout.pack(&content, &release, &component).expect("packed");
    (layout, artifact)
}

/// An artifact with one layer as it is, as others make them; its manifest's digest and the layer's.
pub(crate) fn plain(folder: &Path, length: usize) -> (Layout, Digest, Digest) {
    let layout = Layout::open(&folder.join("layout")).expect("layout");
    let keep = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(folder.join("layout/blobs/sha256").join(digest.hex()), bytes).expect("written");
        digest
    };
    let (config, layer) = (keep(b"{}"), keep(&noise(length, 11)));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{
            "mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},"layers":[{{
            "mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{length}}}]}}"#
    );
    let manifest = keep(manifest.as_bytes());
    (layout, manifest, layer)
}

/// An empty layout.
pub(crate) fn empty(folder: &Path) -> Layout {
    Layout::open(&folder.join("fetched")).expect("layout")
}

pub(crate) fn place(port: u16, repository: &str) -> Place {
    format!("localhost:{port}/{repository}").parse().expect("a place")
}

/// A client that speaks in clear, as it may on this machine.
pub(crate) fn in_clear(port: u16, credentials: Credentials) -> Registry {
    Registry::new(settings(port, credentials, Authorities::default(), Clear::OnLoopback))
}

/// A client that speaks TLS.
pub(crate) fn by_tls(port: u16, credentials: Credentials, authorities: Authorities) -> Registry {
    Registry::new(settings(port, credentials, authorities, Clear::Never))
}

pub(crate) fn settings(port: u16, credentials: Credentials, authorities: Authorities, clear: Clear) -> Settings {
    certs::install_provider();
    Settings {
        place: place(port, "ours"),
        authorities,
        credentials,
        uploads: NonZeroU8::new(4).expect("four"),
        clear,
        silence: Duration::from_secs(20),
    }
}

pub(crate) fn password(user: &str, password: &str) -> Credentials {
    Credentials::Password { user: user.to_owned(), password: password.to_owned() }
}

/// Whether every blob of an artifact is in the layout, byte for byte.
pub(crate) fn is_whole(layout: &Layout, manifest: &Digest) -> bool {
    let Ok(file) = layout.open_blob(manifest) else { return false };
    let manifest: serde_json::Value = serde_json::from_reader(file).expect("JSON");
    let blobs = manifest["layers"].as_array().expect("layers").iter().chain([&manifest["config"]]);
    blobs.into_iter().all(|blob| {
        let digest = blob["digest"].as_str().expect("digest").parse().expect("digest");
        layout.check_blob(&digest).ok() == blob["size"].as_u64()
    })
}
