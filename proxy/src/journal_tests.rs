use std::os::unix::fs::PermissionsExt;

use api::fleet::{Resource, ResourceSet};

use super::*;
use crate::snapshot::fixture;

fn delta(upserts: Vec<Resource>) -> Delta {
    Delta::read(ResourceSet { upserts, removals: Vec::new() }).expect("known kinds")
}

fn put(journal: &mut Journal, version: Version, delta: Delta) -> io::Result<()> {
    let fingerprint = journal.resources.fingerprint_after(&delta);
    journal.save(&[Served { version, delta, fingerprint }])
}

fn at(number: u64) -> Version {
    Version { term: 1, number }
}

/// A journal with a base at 1.1 and changes up to 1.`last`, each in a write of its own.
fn written(folder: &Path, last: u64) -> Journal {
    let mut journal = Journal::new(folder.to_owned(), None);
    let base = delta(vec![fixture::stage("hello/staging", &[1, 2]), fixture::split("hello/staging", &[(1, 1)])]);
    put(&mut journal, at(1), base).expect("saved");
    for number in 2..=last {
        let split = fixture::split("hello/staging", &[(1, 1), (2, number as u32)]);
        put(&mut journal, at(number), delta(vec![split])).expect("saved");
    }
    journal
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = tempfile::tempdir().expect("folder");
    let state = folder.path().join("state");
    assert!(load(&state).state.is_none() && load(&state).damage.is_empty());
    let journal = written(&state, 5);
    let loaded = load(&state);
    assert_eq!(loaded.damage, Vec::<String>::new());
    let (version, resources) = loaded.state.expect("a state");
    assert_eq!((version, resources.fingerprint()), (at(5), journal.resources.fingerprint()));
    for (path, mode) in [(state.clone(), 0o700), (state.join("base"), 0o600), (state.join("log"), 0o600)] {
        let found = fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("folder");
    written(folder.path(), 3);
    let loaded = load(folder.path());
    let mut journal = Journal::new(folder.path().to_owned(), loaded.state.as_ref());
    put(&mut journal, at(4), delta(vec![fixture::split("hello/staging", &[(2, 9)])])).expect("saved");
    put(&mut journal, at(5), delta(vec![fixture::split("hello/staging", &[(2, 8)])])).expect("saved");
    let loaded = load(folder.path());
    assert_eq!((loaded.state.expect("a state").0, loaded.damage), (at(5), Vec::new()));
}

#[test]
fn a_long_log_is_folded_into_the_base() {
    let folder = tempfile::tempdir().expect("folder");
    let mut journal = written(folder.path(), 2);
    let many = |n: u32| delta((0..2_000).map(|s| fixture::stage(&format!("s{s}/staging"), &[n])).collect());
    for number in 3..60 {
        put(&mut journal, at(number), many(number as u32)).expect("saved");
    }
    let size = |name: &str| fs::metadata(folder.path().join(name)).expect("there").len();
    assert!(size("log") <= LOG_BYTES && size("base") > 100_000, "{} {}", size("log"), size("base"));
    let loaded = load(folder.path());
    assert_eq!((loaded.state.expect("a state").0, loaded.damage), (at(59), Vec::new()));
}

#[test]
fn hostile_h81_a_log_cut_at_every_byte_gives_the_last_whole_change_and_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    written(folder.path(), 4);
    let log = folder.path().join("log");
    let whole = fs::read(&log).expect("read");
    let length = whole.len() / 3;
    for cut in 0..=whole.len() {
        fs::write(&log, &whole[..cut]).expect("written");
        let loaded = load(folder.path());
        let (version, _) = loaded.state.expect("the base is whole");
        assert_eq!(version, at(1 + (cut / length) as u64), "cut at {cut}");
        assert_eq!(loaded.damage.is_empty(), cut % length == 0, "cut at {cut}: {:?}", loaded.damage);
    }
}

#[test]
fn hostile_h81_a_base_cut_at_every_byte_or_flipped_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    written(folder.path(), 3);
    let base = folder.path().join("base");
    let whole = fs::read(&base).expect("read");
    for at in 0..whole.len() {
        fs::write(&base, &whole[..at]).expect("written");
        let loaded = load(folder.path());
        assert!(loaded.state.is_none() && loaded.damage.len() == 1, "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&base, &flipped).expect("written");
        let loaded = load(folder.path());
        assert!(loaded.state.is_none() && loaded.damage.len() == 1, "flipped at {at}");
    }
}

#[test]
fn hostile_h81_garbage_a_missing_base_and_an_unreadable_one_are_refused() {
    let folder = tempfile::tempdir().expect("folder");
    written(folder.path(), 3);
    let (base, log) = (folder.path().join("base"), folder.path().join("log"));
    fs::write(&base, vec![0x5a; 100_000]).expect("written");
    assert!(load(folder.path()).damage[0].contains("is damaged"));
    fs::remove_file(&base).expect("removed");
    assert!(load(folder.path()).damage[0].contains("cannot be read"), "a log without its base is no first start");
    // A folder in its place cannot be read by anybody, whatever rights the test has.
    fs::create_dir(&base).expect("made");
    let loaded = load(folder.path());
    assert!(loaded.state.is_none() && loaded.damage[0].contains("cannot be read"));
    fs::remove_dir(&base).expect("removed");
    fs::remove_file(&log).expect("removed");
    assert!(load(folder.path()).damage.is_empty(), "a first start");
}

#[test]
fn hostile_h81_flipped_bytes_in_the_log_never_give_another_state() {
    let folder = tempfile::tempdir().expect("folder");
    let journal = written(folder.path(), 3);
    let log = folder.path().join("log");
    let whole = fs::read(&log).expect("read");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&log, &flipped).expect("written");
        let loaded = load(folder.path());
        let (version, resources) = loaded.state.expect("the base is whole");
        assert!(version < Version { term: 1, number: 3 } && !loaded.damage.is_empty(), "flipped at {at}");
        assert_ne!(resources.fingerprint(), journal.resources.fingerprint());
    }
}

#[test]
fn a_failed_write_is_made_good_by_the_next() {
    let folder = tempfile::tempdir().expect("folder");
    let state = folder.path().join("state");
    // A file where the folder should be: nothing can be written.
    fs::write(&state, b"").expect("written");
    let mut journal = Journal::new(state.clone(), None);
    let base = delta(vec![fixture::stage("hello/staging", &[1])]);
    assert!(put(&mut journal, at(1), base).is_err());
    assert!(put(&mut journal, at(2), delta(vec![fixture::stage("other/staging", &[1])])).is_err());
    fs::remove_file(&state).expect("removed");
    journal.save(&[]).expect("saved");
    let (version, resources) = load(&state).state.expect("a state");
    assert_eq!((version, resources.len()), (at(2), 2));
}

#[test]
fn a_mend_at_the_same_version_is_what_is_loaded() {
    let folder = tempfile::tempdir().expect("folder");
    let mut journal = written(folder.path(), 3);
    put(&mut journal, at(3), delta(vec![fixture::stage("mended/staging", &[7])])).expect("saved");
    let loaded = load(folder.path());
    let (version, resources) = loaded.state.expect("a state");
    assert_eq!((version, resources.fingerprint()), (at(3), journal.resources.fingerprint()));
    put(&mut journal, at(4), delta(vec![fixture::split("hello/staging", &[(2, 8)])])).expect("saved");
    let loaded = load(folder.path());
    assert_eq!((loaded.state.expect("a state").0, loaded.damage), (at(4), Vec::new()));
}

#[test]
fn a_state_other_than_the_one_that_is_served_is_never_written() {
    let folder = tempfile::tempdir().expect("folder");
    let mut journal = written(folder.path(), 3);
    let delta = delta(vec![fixture::stage("other/staging", &[1])]);
    let wrong = Served { version: at(4), delta, fingerprint: Fingerprint::default() };
    assert!(journal.save(&[wrong]).is_err());
    assert!(journal.save(&[]).is_err(), "nor later");
    assert_eq!(load(folder.path()).state.expect("a state").0, at(3));
}
