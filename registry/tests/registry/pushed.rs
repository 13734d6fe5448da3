//! What is pushed is what others find, and what is fetched is what was pushed.

use std::process::Command;

use pointsman_registry::{Again, Credentials, Progress, Reference, Wanted};

use super::artifact::{by_tls, empty, in_clear, is_whole, packed, password, place};
use super::docker::{Docker, skopeo};
use super::tls::Tls;

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_pushed_and_skopeo_reads_the_same_digest() {
    let folder = tempfile::tempdir().expect("folder");
    let tls = Tls::make(folder.path(), "localhost");
    let docker = Docker::start(folder.path(), Some(&tls), Some(("ann", "hunter2")));
    let (layout, artifact) = packed(folder.path(), 70 << 20);
    let client = by_tls(docker.port, password("ann", "hunter2"), tls.authorities());
    let at = place(docker.port, "shop/hello/web");
    let (tag, progress) = ("r1".parse().expect("a tag"), Progress::default());
    let pushed = client.push(&layout, &artifact.digest, &at, Some(&tag), &progress).await.expect("pushed");
    assert_eq!((pushed.digest, pushed.bytes), (artifact.digest, artifact.bytes));
    // Two parts and an empty configuration.
    assert_eq!((progress.done(), progress.all()), (artifact.bytes + 2, artifact.bytes + 2));
    assert_eq!(docker.revisions("shop/hello/web"), [artifact.digest.to_string()]);

    let certificates = tls.folder.display().to_string();
    let raw = ["inspect", "--raw", "--creds", "ann:hunter2", "--cert-dir", &certificates];
    let found = skopeo(folder.path(), &[&raw[..], &[&format!("docker://{at}:r1")]].concat());
    assert_eq!(api::Digest::of(&found), artifact.digest, "others find another manifest");
    let copy = folder.path().join("copy");
    let to = format!("dir:{}", copy.display());
    let copied = ["copy", "--src-creds", "ann:hunter2", "--src-cert-dir", &certificates];
    skopeo(folder.path(), &[&copied[..], &[&format!("docker://{at}@{}", artifact.digest), &to]].concat());
    for blob in std::fs::read_dir(folder.path().join("layout/blobs/sha256")).expect("folder").flatten() {
        let name = if blob.file_name().to_string_lossy() == artifact.digest.hex() {
            "manifest.json".into()
        } else {
            blob.file_name()
        };
        let same = Command::new("cmp").arg(blob.path()).arg(copy.join(name)).status().expect("cmp");
        assert!(same.success(), "{:?} differs", blob.path());
    }

    let into = empty(folder.path());
    let progress = Progress::default();
    client.fetch(&at, &artifact.digest, &into, &progress).await.expect("fetched");
    assert!(is_whole(&into, &artifact.digest));
    assert_eq!(progress.done(), progress.all());
    // What is damaged here since is fetched again.
    let manifest = layout.open_blob(&artifact.digest).expect("there");
    let manifest: serde_json::Value = serde_json::from_reader(manifest).expect("JSON");
    let layer =
        manifest["layers"][1]["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("one");
    let path = folder.path().join("fetched/blobs/sha256").join(layer);
    let mut bytes = std::fs::read(&path).expect("bytes");
    bytes[9] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    assert!(!is_whole(&into, &artifact.digest));
    client.fetch(&at, &artifact.digest, &into, &Progress::default()).await.expect("fetched again");
    assert!(is_whole(&into, &artifact.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_authority_is_needed() {
    let folder = tempfile::tempdir().expect("folder");
    let tls = Tls::make(folder.path(), "localhost");
    let docker = Docker::start(folder.path(), Some(&tls), None);
    let others = tempfile::tempdir().expect("folder");
    let stranger = Tls::make(others.path(), "localhost");
    let (layout, artifact) = packed(folder.path(), 100);
    let at = place(docker.port, "a");
    let wrong_name = format!("127.0.0.1:{}/a", docker.port).parse().expect("a place");
    let both = stranger.authorities().and(&tls.authorities());
    for (authorities, at, expected) in [
        (stranger.authorities(), &at, false),
        (tls.authorities(), &at, true),
        (tls.authorities(), &wrong_name, false),
        (both, &at, true),
    ] {
        let client = by_tls(docker.port, Credentials::Anonymous, authorities);
        let error = client.manifest(at, &Wanted::Digest(artifact.digest)).await.expect_err("not there yet");
        assert_eq!(error.again(), Again::Never, "who is not trusted is not asked again");
        let why = if expected { "does not have it" } else { "not trusted: the TLS handshake failed" };
        assert!(error.to_string().contains(why), "{error}");
    }
    let client = by_tls(docker.port, Credentials::Anonymous, tls.authorities());
    client.push(&layout, &artifact.digest, &at, None, &Progress::default()).await.expect("pushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_looked_up_once_and_a_manifest_taken_away() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let (layout, artifact) = packed(folder.path(), 1000);
    let client = in_clear(docker.port, Credentials::Anonymous);
    let at = place(docker.port, "hello");
    let tag = "v1".parse().expect("a tag");
    client.push(&layout, &artifact.digest, &at, Some(&tag), &Progress::default()).await.expect("pushed");
    let reference: Reference = format!("{at}:v1").parse().expect("a reference");
    let found = client.manifest(&reference.place, &reference.wanted).await.expect("found");
    assert_eq!((found.digest, found.bytes), (artifact.digest, artifact.bytes));
    assert_eq!(found.media_type, "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(api::Digest::of(&found.body), artifact.digest);
    assert!(client.delete(&at, &artifact.digest).await.expect("deleted"));
    assert!(!client.delete(&at, &artifact.digest).await.expect("gone"));
    let error = client.manifest(&at, &Wanted::Digest(artifact.digest)).await.expect_err("gone").to_string();
    assert_eq!(error, format!("{at}: the registry does not have it"));
}
