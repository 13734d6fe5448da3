//! What goes and what stays: over states that tests make, and with a driver on a real engine and real folders.

use std::fs;

use api::Digest;
use registry::{Layout, Place};

use super::*;
use crate::core::evolve_test::World as Core;
use crate::core::spec::{RegistryCredentials, RegistrySpec};
use crate::core::state::{Artifact, ArtifactKind, Release};

const DAY_MS: u64 = 86_400_000;

/// hello@r1 to r3, built.
fn built() -> State {
    Core::with_built_releases(3).state
}

fn release(state: &mut State, number: u32) -> &mut Release {
    let service = state.services.get_mut(&"hello".parse().expect("name")).expect("there");
    service.releases.get_mut(&api::ReleaseNumber::new(number).expect("a number")).expect("there")
}

fn place(text: &str) -> Place {
    text.parse().expect("a place")
}

#[test]
fn retention_removes_logs_of_releases_that_lost_them_and_leaves_all_others() {
    let mut state = built();
    release(&mut state, 1).trimmed.log_ms = Some(5);
    release(&mut state, 3).trimmed.artifacts_ms = Some(5);
    let service = state.services.get_mut(&"hello".parse().expect("name")).expect("there");
    service.releases.remove(&api::ReleaseNumber::new(2).expect("a number"));
    let folder = tempfile::tempdir().expect("folder");
    let within = folder.path().join("hello");
    fs::create_dir_all(folder.path().join("unknown")).expect("folder");
    fs::create_dir_all(&within).expect("folder");
    let stays =
        ["r3.log", "r3.check-fits.log", "r4.log", "r99.log", "notes.log", "r1.txt", "r01.log", "r1.check-a.txt"];
    let goes = ["r1.log", "r1.check-fits.log", "r2.log", "r2.check-a.log"];
    for name in stays.iter().chain(&goes) {
        fs::write(within.join(name), "x").expect("written");
    }
    fs::write(folder.path().join("unknown/r1.log"), "x").expect("written");
    let logs = Logs::of(&state);
    assert_eq!(logs.remove_gone(folder.path()), goes.len());
    let mut left: Vec<_> =
        fs::read_dir(&within).expect("folder").flatten().filter_map(|one| one.file_name().into_string().ok()).collect();
    left.sort();
    let mut expected = stays.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(left, expected);
    assert!(folder.path().join("unknown/r1.log").exists(), "of a service that nobody knows");
    assert_eq!(logs.remove_gone(folder.path()), 0, "once more");
}

#[test]
fn retention_removes_from_the_registry_only_what_is_ours_and_nobody_else_has() {
    let ours = place("registry.example.com/pointsman/hello/web");
    let case = |change: &dyn Fn(&mut State)| {
        let mut state = built();
        let address = place("registry.example.com/pointsman");
        let credentials = RegistryCredentials::None;
        state.releases.registry = Some(RegistrySpec { address, ca_file: None, credentials, uploads: 4 });
        state.releases.keep.in_registry = true;
        for number in 1..=3 {
            let digest = Digest::of(&[number]);
            let artifact = Artifact { digest, bytes: 1, kind: ArtifactKind::Folder, place: Some(ours.clone()) };
            release(&mut state, number.into()).artifacts = [("web".parse().expect("name"), artifact)].into();
        }
        release(&mut state, 1).trimmed.artifacts_ms = Some(DAY_MS);
        change(&mut state);
        manifests::gone(&state, 2 * DAY_MS)
    };
    let web = |state: &mut State, number: u32, change: &dyn Fn(&mut Artifact)| {
        release(state, number).artifacts.values_mut().for_each(change);
    };
    assert_eq!(case(&|_| {}), [(ours.clone(), Digest::of(&[1]))]);
    assert_eq!(case(&|state| state.releases.keep.in_registry = false), []);
    assert_eq!(case(&|state| state.releases.registry = None), []);
    assert_eq!(case(&|state| release(state, 1).trimmed.artifacts_ms = None), []);
    assert_eq!(case(&|state| web(state, 2, &|web| web.digest = Digest::of(&[1]))), [], "r2 has it, too");
    assert_eq!(case(&|state| web(state, 1, &|web| web.place = None)), []);
    let elsewhere = place("registry.example.com/other/hello/web");
    assert_eq!(case(&|state| web(state, 1, &|web| web.place = Some(elsewhere.clone()))), [], "somebody else's");
    // Of an image that another service gave: it is where that one's things are.
    let other = place("registry.example.com/pointsman/shop/web");
    assert_eq!(case(&|state| web(state, 1, &|web| web.place = Some(other.clone()))), []);
    assert_eq!(case(&|state| release(state, 1).trimmed.artifacts_ms = Some(0)).len(), 1);
    let long_ago = |state: &mut State| {
        release(state, 1).trimmed.artifacts_ms = Some(0);
        release(state, 2).trimmed.artifacts_ms = Some(DAY_MS);
    };
    let mut state = built();
    long_ago(&mut state);
    assert_eq!(manifests::gone(&state, 30 * DAY_MS), [], "it is not asked for for ever");
}

/// A driver whose engine has these releases.
async fn driver(state: State) -> (crate::engine::tests::World, Driver, tempfile::TempDir) {
    let (world, folder) = (crate::engine::tests::World::new().await, tempfile::tempdir().expect("folder"));
    world.engine.tell(move |engine| engine.state.services = state.services);
    let layout = Layout::open(&folder.path().join("artifacts")).expect("a layout");
    let folders = BuildFolders::within(folder.path(), std::collections::BTreeMap::new());
    let (swept, removed, told) = Default::default();
    let driver = Driver { engine: world.engine.clone(), shelf: Shelf::new(layout), folders, swept, removed, told };
    (world, driver, folder)
}

#[tokio::test]
async fn retention_sweeps_no_blob_while_something_is_built() {
    let mut state = built();
    release(&mut state, 3).progress = ReleaseProgress::Building;
    let (world, mut driver, folder) = driver(state).await;
    let old = folder.path().join("artifacts/blobs/sha256").join(Digest::of(b"old").hex());
    let file = fs::File::create(&old).expect("created");
    file.set_modified(SystemTime::now() - 2 * SETTLED).expect("set");
    driver.round().await.expect("it runs");
    assert!(old.exists(), "it may be what is being packed again");
    world.engine.tell(|engine| release(&mut engine.state, 3).progress = ReleaseProgress::Ready { at_ms: 1 });
    let new = folder.path().join("artifacts/blobs/sha256").join(Digest::of(b"new").hex());
    fs::write(&new, "x").expect("written");
    driver.round().await.expect("it runs");
    assert!(!old.exists() && new.exists(), "only what is old goes");
}
