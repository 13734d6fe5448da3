//! What was cut goes on where it was.

use std::sync::atomic::Ordering::SeqCst;

use pointsman_registry::{Credentials, Progress};

use super::artifact::{empty, in_clear, is_whole, packed, place, plain, until};
use super::docker::Docker;
use super::front::Front;
use super::strict::{State, Strict};

/// Heads of requests, and questions about sessions.
const HEADS: u64 = 256 * 1024;
const PART: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_on_where_they_were_cut() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let front = Front::start(docker.port).await;
    let (layout, artifact) = packed(folder.path(), 70 << 20);
    let client = in_clear(front.port, Credentials::Anonymous);
    let at = place(front.port, "cut");
    // In the middle of a part: this registry forgets it, and no other.
    front.told.cut_after.store(30 << 20, SeqCst);
    let progress = Progress::default();
    client.push(&layout, &artifact.digest, &at, None, &progress).await.expect("pushed in the end");
    assert_eq!(front.told.cuts.load(SeqCst), 1);
    let sent = front.told.sent.load(SeqCst);
    assert!(sent > artifact.bytes && sent <= artifact.bytes + PART + HEADS, "{sent} for {}", artifact.bytes);
    assert_eq!((progress.done(), docker.revisions("cut").len()), (progress.all(), 1));
    // Given up and pushed again: what is there is not sent.
    client.push(&layout, &artifact.digest, &at, None, &Progress::default()).await.expect("pushed again");
    assert!(front.told.sent.load(SeqCst) - sent < HEADS);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_go_on_after_the_registry_has_died_between_requests() {
    let folder = tempfile::tempdir().expect("folder");
    let mut docker = Docker::start(folder.path(), None, None);
    let front = Front::start(docker.port).await;
    let (layout, manifest, layer) = plain(folder.path(), 150 << 20);
    let client = in_clear(front.port, Credentials::Anonymous);
    let at = place(front.port, "large");
    front.told.refuse_patch.store(2, SeqCst);
    let (told, place) = (front.told.clone(), at.clone());
    let pushing =
        tokio::spawn(async move { client.push(&layout, &manifest, &place, None, &Progress::default()).await });
    told.refused.notified().await;
    docker.kill();
    // Asked while it is away, it is not forgotten what it had.
    until("asked while away", || told.unreachable.load(SeqCst) > 1).await;
    docker.start_again();
    pushing.await.expect("no panic").expect("pushed in the end");
    assert_eq!(told.cuts.load(SeqCst), 1);
    let sent = told.sent.load(SeqCst);
    assert!((150 << 20..(150 << 20) + HEADS).contains(&sent), "{sent}: something was sent twice");
    assert!(docker.blob(&layer).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_send_nothing_twice_where_the_registry_keeps_what_came() {
    let folder = tempfile::tempdir().expect("folder");
    let size = 70 << 20;
    // Twice within a first request, once within a last, once after the very last byte.
    let cuts = vec![2, 5 << 20, 66 << 20, size + 1];
    let strict = Strict::start(State { cuts, ..State::default() }).await;
    let (layout, manifest, layer) = plain(folder.path(), usize::try_from(size).expect("small"));
    let client = in_clear(strict.port, Credentials::Anonymous);
    let at = place(strict.port, "ours");
    client.push(&layout, &manifest, &at, None, &Progress::default()).await.expect("pushed in the end");
    let state = strict.state();
    assert_eq!(state.cuts, Vec::<u64>::new(), "it was never cut");
    assert_eq!(state.received, size + 2, "and 2 of the configuration");
    assert_eq!(state.blobs[&layer.to_string()].len() as u64, size);
    assert!(state.manifests.contains_key(&manifest.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_and_none_have_the_same_range() {
    let folder = tempfile::tempdir().expect("folder");
    let strict = Strict::start(State { cuts: vec![1], ..State::default() }).await;
    let (layout, manifest, layer) = plain(folder.path(), 5_000);
    let client = in_clear(strict.port, Credentials::Anonymous);
    client.push(&layout, &manifest, &place(strict.port, "ours"), None, &Progress::default()).await.expect("pushed");
    let state = strict.state();
    assert_eq!((state.received, state.blobs[&layer.to_string()].len()), (5_000 + 2 + 1, 5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_on_where_they_were_cut() {
    let folder = tempfile::tempdir().expect("folder");
    let docker = Docker::start(folder.path(), None, None);
    let front = Front::start(docker.port).await;
    let (layout, manifest, layer) = plain(folder.path(), 8 << 20);
    let at = place(front.port, "a");
    let client = in_clear(front.port, Credentials::Anonymous);
    client.push(&layout, &manifest, &at, None, &Progress::default()).await.expect("pushed");
    let into = empty(folder.path());
    let before = front.told.received.load(SeqCst);
    front.told.cut_answers_after.store(3 << 20, SeqCst);
    let progress = Progress::default();
    client.fetch(&at, &manifest, &into, &progress).await.expect("fetched in the end");
    let received = front.told.received.load(SeqCst) - before;
    assert!(front.told.cuts.load(SeqCst) == 1 && received < (8 << 20) + HEADS, "{received}");
    assert!(is_whole(&into, &manifest) && progress.done() == progress.all());

    // Another process goes on with what came so far, also where that is wrong.
    let blobs = folder.path().join("fetched/blobs/sha256");
    let unfinished = folder.path().join("fetched/unfinished").join(layer.hex());
    let mut came = std::fs::read(blobs.join(layer.hex())).expect("bytes");
    std::fs::remove_file(blobs.join(layer.hex())).expect("removed");
    came.truncate(6 << 20);
    for (came, most) in [(came.clone(), 3 << 20), ([&came[..], &[0; 10]].concat(), (2 << 20) + (8 << 20) + HEADS)] {
        std::fs::write(&unfinished, came).expect("written");
        let before = front.told.received.load(SeqCst);
        let into = empty(folder.path());
        client.fetch(&at, &manifest, &into, &Progress::default()).await.expect("fetched");
        let received = front.told.received.load(SeqCst) - before;
        assert!(received < most, "{received}: all of it was fetched");
        assert!(is_whole(&into, &manifest) && !unfinished.exists());
        std::fs::remove_file(blobs.join(layer.hex())).expect("removed");
    }
}
