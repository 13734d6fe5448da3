//! h85: registries that are down, lie, or were written to by somebody else.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use api::Digest;
use certs::call::Clear;
use certs::endpoint::Authorities;
use pointsman_registry::{Again, Credentials, Progress, Registry, Wanted, Why};

use super::artifact::{empty, in_clear, is_whole, packed, place, plain, settings, until};
use super::docker::{Docker, skopeo};
use super::front::Front;
use super::strict::{Lie, State, Strict};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_registry_down_and_back() {
    let folder = tempfile::tempdir().expect("folder");
    let mut docker = Docker::start(folder.path(), None, None);
    let (layout, manifest, _) = plain(folder.path(), 60 << 20);
    let client = in_clear(docker.port, Credentials::Anonymous);
    let at = place(docker.port, "a");
    let progress = Progress::default();
    let (to, watched) = (at.clone(), progress.clone());
    let pushing = tokio::spawn(async move { client.push(&layout, &manifest, &to, None, &progress).await });
    until("under way", || watched.done() >= 1 << 20).await;
    docker.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!pushing.is_finished(), "it gave up, or was ready before the registry was ended");
    docker.start_again();
    pushing.await.expect("no panic").expect("pushed in the end");
    assert_eq!(docker.revisions("a"), [manifest.to_string()]);

    // What does not come back is an error that says so, after some time.
    docker.kill();
    let client = in_clear(docker.port, Credentials::Anonymous);
    let wanted = Wanted::Digest(manifest);
    let asked = client.manifest(&at, &wanted);
    assert!(tokio::time::timeout(Duration::from_secs(2), asked).await.is_err(), "it is asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_digest_that_does_not_match_is_never_kept() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let (layout, manifest, layer) = plain(folder.path(), 1 << 20);
    let direct = in_clear(docker.port, Credentials::Anonymous);
    direct.push(&layout, &manifest, &place(docker.port, "a"), None, &Progress::default()).await.expect("pushed");
    let into = empty(folder.path());
    // Somebody has changed it on the registry's own disk.
    for (digest, at) in [(layer, 500_000), (manifest, 100)] {
        let path = docker.blob(&digest);
        let right = std::fs::read(&path).expect("bytes");
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        std::fs::write(&path, wrong).expect("written");
        let progress = Progress::default();
        let error = direct.fetch(&place(docker.port, "a"), &manifest, &into, &progress).await.expect_err("refused");
        assert!(matches!(error.why, Why::Mismatch { wanted, .. } if wanted == digest), "{error}");
        assert_eq!(error.again(), Again::Never);
        assert!(into.open_blob(&digest).is_err() && into.open_blob(&manifest).is_err(), "it was kept");
        let left = std::fs::read_dir(folder.path().join("fetched/unfinished")).expect("folder").count();
        assert_eq!(left, 0, "what does not match stays on the disk");
        std::fs::write(&path, right).expect("written");
    }
    // On its way: once is mended by fetching once more, twice is not.
    for (flips, expected) in [(1, true), (99, false)] {
        let front = Front::start(docker.port).await;
        let client = in_clear(front.port, Credentials::Anonymous);
        front.told.flip_each.store(300_000, SeqCst);
        front.told.flips.store(flips, SeqCst);
        let fresh = empty(&folder.path().join(flips.to_string()));
        let fetched = client.fetch(&place(front.port, "a"), &manifest, &fresh, &Progress::default()).await;
        assert_eq!(fetched.is_ok(), expected, "{fetched:?}");
        assert_eq!(is_whole(&fresh, &manifest), expected);
        assert!(front.told.flips.load(SeqCst) < flips, "nothing was flipped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_tag_overwritten_by_somebody_else() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let (layout, artifact) = packed(folder.path(), 1_000);
    let client = in_clear(docker.port, Credentials::Anonymous);
    let at = place(docker.port, "a");
    let tag = "r1".parse().expect("a tag");
    client.push(&layout, &artifact.digest, &at, Some(&tag), &Progress::default()).await.expect("pushed");
    let others = tempfile::tempdir().expect("folder");
    let (other, manifest, _) = plain(others.path(), 500);
    client.push(&other, &manifest, &place(docker.port, "b"), Some(&tag), &Progress::default()).await.expect("pushed");
    let (from, to) = (format!("docker://{}:r1", place(docker.port, "b")), format!("docker://{at}:r1"));
    skopeo(folder.path(), &["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]);
    let found = client.manifest(&at, &Wanted::Tag(tag)).await.expect("found").digest;
    assert_ne!(found, artifact.digest, "it was not overwritten");
    let into = empty(folder.path());
    client.fetch(&at, &artifact.digest, &into, &Progress::default()).await.expect("by digest it is still ours");
    assert!(is_whole(&into, &artifact.digest) && into.open_blob(&found).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_ranges_that_lie() {
    let folder = tempfile::tempdir().expect("folder");
    let strict = Strict::start(State::default()).await;
    let (layout, manifest, layer) = plain(folder.path(), 100_000);
    let client = in_clear(strict.port, Credentials::Anonymous);
    let at = place(strict.port, "ours");
    client.push(&layout, &manifest, &at, None, &Progress::default()).await.expect("pushed");
    strict.state().lie = Lie::Ranges;
    let into = empty(folder.path());
    let unfinished = folder.path().join("fetched/unfinished").join(layer.hex());
    let bytes = strict.state().blobs[&layer.to_string()].slice(..60_000);
    std::fs::write(unfinished, bytes).expect("written");
    client.fetch(&at, &manifest, &into, &Progress::default()).await.expect("fetched from its beginning");
    assert!(is_whole(&into, &manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_h85_silence_is_not_waited_for() {
    let strict = Strict::start(State { lie: Lie::Silence, ..State::default() }).await;
    let mut settings = settings(strict.port, Credentials::Anonymous, Authorities::default(), Clear::OnLoopback);
    settings.silence = Duration::from_millis(20);
    let (client, at) = (Registry::new(settings), place(strict.port, "ours"));
    let asking = tokio::spawn(async move { client.manifest(&at, &Wanted::Digest(Digest::of(b"a"))).await });
    // It answers again, and is asked again.
    until("asked again", || strict.state().log.len() > 1).await;
    strict.state().lie = Lie::None;
    let error = asking.await.expect("no panic").expect_err("there is none");
    assert!(matches!(error.why, Why::Unknown), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_is_damaged_is_not_pushed() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let (layout, manifest, layer) = plain(folder.path(), 10_000);
    let path = folder.path().join("layout/blobs/sha256").join(layer.hex());
    let mut bytes = std::fs::read(&path).expect("bytes");
    bytes[5] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let client = in_clear(docker.port, Credentials::Anonymous);
    let at = place(docker.port, "a");
    let error = client.push(&layout, &manifest, &at, None, &Progress::default()).await.expect_err("refused");
    assert_eq!(error.to_string(), format!("{at}: the artifact {layer} is damaged on this disk"));
    assert_eq!(error.again(), Again::Never);
    assert!(docker.revisions("a").is_empty());
}
