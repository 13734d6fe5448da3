//! A shelf on a real layout; what a registry brings is shown by the tests of the whole system.

use std::fs;

use super::*;

#[tokio::test]
async fn shelf_says_where_a_blob_would_have_to_come_from() {
    let folder = tempfile::tempdir().expect("folder");
    let shelf = Shelf::new(Layout::open(folder.path()).expect("a layout"));
    let dist = tempfile::tempdir().expect("folder");
    fs::write(dist.path().join("x"), "x").expect("written");
    let release = "hello@r1".parse().expect("name");
    let packed = shelf.layout.pack(dist.path(), &release, &"web".parse().expect("name")).expect("packed");
    let manifest = fs::read_to_string(folder.path().join("blobs/sha256").join(packed.digest.hex())).expect("read");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    let layer: Digest = manifest["layers"][0]["digest"].as_str().and_then(|text| text.parse().ok()).expect("a digest");
    let at: Place = "registry.example.com/pointsman/hello/web".parse().expect("a place");
    let placed = || vec![Placed { digest: packed.digest, place: at.clone() }];
    // What is here is not asked for anywhere.
    for digest in [&packed.digest, &layer] {
        shelf.open(digest, Vec::new()).await.expect("it is here");
    }
    fs::remove_file(folder.path().join("blobs/sha256").join(layer.hex())).expect("removed");
    let nowhere = shelf.open(&layer, Vec::new()).await.expect_err("gone");
    assert!(nowhere.contains("no release has it elsewhere"), "{nowhere}");
    let unknown = shelf.open(&Digest::of(b"other"), placed()).await.expect_err("unknown");
    assert!(unknown.contains("no release has it elsewhere"), "{unknown}");
    // Its manifest, which is here, says whose it is.
    let unnamed = shelf.open(&layer, placed()).await.expect_err("no registry");
    assert!(unnamed.contains("no registry is named") && unnamed.contains(&at.to_string()), "{unnamed}");
    shelf.replace(Some(Err("its password is empty".to_owned())));
    assert_eq!(shelf.open(&layer, placed()).await.expect_err("no client"), "its password is empty");
    let gone = shelf.layout.open_blob(&layer);
    assert!(matches!(gone, Err(ArtifactError::Unknown { .. })), "{gone:?}");
}

#[tokio::test]
async fn shelf_gives_out_no_registry_but_the_one_that_was_applied() {
    let folder = tempfile::tempdir().expect("folder");
    let shelf = Shelf::new(Layout::open(folder.path()).expect("a layout"));
    let spec = |repository: &str| RegistrySpec {
        address: format!("registry.example.com/{repository}").parse().expect("a place"),
        ca_file: None,
        credentials: crate::core::spec::RegistryCredentials::None,
        uploads: 4,
    };
    shelf.is_made_of(None);
    let (waiting, wanted) = (shelf.clone(), spec("one"));
    let waiting = tokio::spawn(async move { waiting.registry_of(&wanted).await.map(drop) });
    // Another one comes first, and is not what is waited for.
    for (repository, problem) in [("two", "not this one"), ("one", "its password is empty")] {
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        shelf.replace(Some(Err(problem.to_owned())));
        shelf.is_made_of(Some(spec(repository)));
    }
    assert_eq!(waiting.await.expect("no panic"), Err("its password is empty".to_owned()));
}
