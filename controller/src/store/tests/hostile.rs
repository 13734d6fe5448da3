//! Damage at many places: the store gives everything that was vouched for, or is not opened. Never a gap.

use super::*;

/// A live store of many commits whose newest part lies in the write-ahead log, and what was written to it.
fn store(folder: &Path, commits: u64) -> (Store, Vec<Record>) {
    let mut store = open(folder).store;
    let mut written = Vec::new();
    for commit in 0..commits {
        written.extend(store.append(records(1 + commit * 3, 1 + commit % 3)).expect("append"));
        if commit == commits / 2 {
            let state = vec![7; 5_000];
            store.save_checkpoint(&Checkpoint { seq: store.last(), schema: 1, state }).expect("checkpoint");
        }
    }
    (store, written)
}

/// Offsets to damage: both ends, around every boundary of pages and log frames, and in between.
fn places(bytes: usize, samples: usize) -> Vec<usize> {
    let boundaries = (0..bytes).step_by(4096).chain((32..bytes).step_by(4096 + 24));
    let mut places: Vec<usize> = boundaries.flat_map(|at| [at.saturating_sub(1), at, at + 1, at + 20]).collect();
    places.extend(0..bytes.min(100));
    places.extend((0..bytes).step_by((bytes / samples).max(1)));
    places.retain(|at| *at < bytes);
    places.sort_unstable();
    places.dedup();
    places
}

/// Opens `folder`: either all of `written` is there, or it was refused with a sentence and no file was changed.
fn check(folder: &Path, written: &[Record], vouched: u64, case: &str) -> bool {
    let files = || -> Vec<_> {
        let names = [database::FILE_NAME, database::LOG_NAME, anchor::FILE_NAME];
        // An empty log where there was none says nothing and loses nothing.
        names.iter().map(|name| std::fs::read(folder.join(name)).ok().filter(|bytes| !bytes.is_empty())).collect()
    };
    let before = files();
    match Store::open(folder) {
        Ok(Opened { store, checkpoint, .. }) => {
            let found = all(&store);
            assert!(
                found.len() as u64 >= vouched,
                "{case}: {} of {vouched} vouched events, without a word",
                found.len()
            );
            assert_eq!(found[..], written[..found.len()], "{case}: not what was written");
            assert!(checkpoint.is_none_or(|checkpoint| checkpoint.state == vec![7; 5_000]), "{case}: checkpoint");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(files() == before, "{case}: refused ({error}), but a file was changed");
            false
        }
    }
}

/// Damages each file of `image` at many places, one at a time.
fn damage_everywhere(image: &Path, written: &[Record], samples: usize) {
    let (work, vouched) = (image.join("work"), written.len() as u64);
    let (mut opened, mut refused) = (0, 0);
    for name in [database::FILE_NAME, database::LOG_NAME, anchor::FILE_NAME] {
        let Ok(whole) = std::fs::read(image.join(name)) else { continue };
        let mut case = |bytes: Option<&[u8]>, case: &str| {
            copy(image, &work);
            match bytes {
                Some(bytes) => std::fs::write(work.join(name), bytes).expect("write"),
                None => std::fs::remove_file(work.join(name)).expect("remove"),
            }
            *if check(&work, written, vouched, case) { &mut opened } else { &mut refused } += 1;
        };
        case(None, &format!("{name} removed"));
        for at in places(whole.len(), samples) {
            case(Some(&whole[..at]), &format!("{name} cut at {at}"));
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            case(Some(&flipped), &format!("{name} flipped at {at}"));
        }
    }
    // Both happen, or this test shows nothing.
    assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
}

#[test]
fn hostile_h82_damage_after_a_crash_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, image) = (folder.path().join("live"), folder.path().join("image"));
    let (store, written) = store(&live, 12);
    copy(&live, &image);
    assert!(image.join(database::LOG_NAME).exists());
    drop(store);
    damage_everywhere(&image, &written, 60);
}

#[test]
fn hostile_h82_damage_after_a_clean_end_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (store, written) = store(folder.path(), 25);
    drop(store);
    assert!(!folder.path().join(database::LOG_NAME).exists());
    damage_everywhere(folder.path(), &written, 80);
}

#[test]
fn hostile_h82_damage_to_a_log_beside_a_grown_database_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, image) = (folder.path().join("live"), folder.path().join("image"));
    let (opened, mut written) = store(&live, 10);
    drop(opened);
    let mut store = open(&live).store;
    for n in 0..8 {
        written.extend(store.append(records(1000 + n, 1)).expect("append"));
    }
    copy(&live, &image);
    drop(store);
    damage_everywhere(&image, &written, 40);
}

#[test]
fn hostile_h82_a_crash_between_commit_and_anchor_is_mended() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, image) = (folder.path().join("live"), folder.path().join("image"));
    let (mut store, mut written) = store(&live, 5);
    copy(&live, &image);
    let vouched = store.last();
    written.extend(store.append(records(500, 2)).expect("append"));
    for name in [database::FILE_NAME, database::LOG_NAME] {
        std::fs::copy(live.join(name), image.join(name)).expect("copy");
    }
    // Inside the new commit each cut loses only what nobody was promised.
    let log = std::fs::read(image.join(database::LOG_NAME)).expect("read");
    let work = folder.path().join("work");
    for at in (log.len() - 9000..=log.len()).step_by(500).chain([log.len()]) {
        copy(&image, &work);
        std::fs::write(work.join(database::LOG_NAME), &log[..at]).expect("write");
        check(&work, &written, vouched, &format!("log cut at {at}"));
    }
    let Opened { store: mended, notes, .. } = open(&image);
    assert_eq!((all(&mended), notes.len()), (written, 1));
    assert!(notes[0].contains("not yet in the anchor"), "{notes:?}");
    drop(mended);
    assert_eq!(open(&image).notes, Vec::<String>::new(), "mended once");
}

#[test]
fn hostile_h82_changed_history_is_found() {
    for (sql, seq) in [
        ("UPDATE event SET payload = replace(payload, '\"n\":4', '\"n\":5') WHERE seq = 4", 4),
        ("UPDATE event SET by = 'nobody' WHERE seq = 1", 1),
        ("UPDATE event SET reason = by || reason, by = '' WHERE seq = 3", 3),
        ("DELETE FROM event WHERE seq = 6", 6),
        ("UPDATE event SET seq = 0 WHERE seq = 1", 1),
        ("UPDATE event SET hash = x'00' WHERE seq = 2", 2),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let mut store = open(folder.path()).store;
        store.append(records(1, 9)).expect("append");
        assert_eq!(store.connection.execute(sql, []).expect(sql), 1);
        drop(store);
        let error = Store::open(folder.path()).expect_err(sql);
        assert!(matches!(error, StoreError::Broken { seq: found, .. } if found == seq), "{sql}: {error}");
        assert!(matches!(accept_loss(folder.path(), 1, "root", ""), Err(StoreError::Broken { .. })));
    }
}

#[test]
fn hostile_h82_another_whole_history_is_found() {
    let folder = tempfile::tempdir().expect("folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    open(&one).store.append(records(1, 5)).expect("append");
    open(&two).store.append(records(2, 7)).expect("append");
    std::fs::copy(two.join(database::FILE_NAME), one.join(database::FILE_NAME)).expect("copy");
    assert!(matches!(Store::open(&one), Err(StoreError::Rewritten { seq: 5 })));
}

#[test]
fn hostile_h82_a_full_disk_changes_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let (mut store, mut written) = store(folder.path(), 5);
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("pages");
    store.connection.pragma_update(None, "max_page_count", pages).expect("limit");
    let last = store.last();
    let error = store.append(records(700, 200)).expect_err("full");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!((store.last(), all(&store)), (last, written.clone()));
    store.connection.pragma_update(None, "max_page_count", pages + 1000).expect("limit");
    written.extend(store.append(records(900, 20)).expect("room again"));
    drop(store);
    let Opened { store, notes, .. } = open(folder.path());
    assert_eq!((all(&store), notes), (written, vec![]));
}

#[test]
fn hostile_h82_a_damaged_backup_is_not_restored() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, backup, work) = (folder.path().join("live"), folder.path().join("backup"), folder.path().join("work"));
    let (store, written) = store(&live, 12);
    store.backup(&backup).expect("backup");
    let whole = std::fs::read(&backup).expect("read");
    let mut refused = 0;
    for at in places(whole.len(), 30) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        for (bytes, case) in [(&whole[..at], "cut"), (&flipped[..], "flipped")] {
            let _ = std::fs::remove_dir_all(&work);
            std::fs::write(&backup, bytes).expect("write");
            match restore(&backup, &work) {
                Ok(last) => {
                    assert_eq!(last, written.len() as u64, "{case} at {at}");
                    assert_eq!(all(&open(&work).store), written, "{case} at {at}");
                }
                Err(_) => {
                    refused += 1;
                    assert!(!work.join(database::FILE_NAME).exists(), "{case} at {at}: left something behind");
                }
            }
        }
    }
    assert!(refused > 0);
}
