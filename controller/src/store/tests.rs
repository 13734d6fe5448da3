use std::path::Path;

use serde_json::json;

use super::*;

mod hostile;

/// Records that differ in every field and in length.
pub(super) fn records(from: u64, count: u64) -> Vec<NewRecord> {
    let record = |n: u64| NewRecord {
        at_ms: 1_700_000_000_000 + n,
        by: format!("operator-{}", n % 3),
        reason: "because ".repeat(usize::try_from(n % 5).expect("small")),
        about: format!("hello/env-{}", n % 4),
        kind: "stage.weights_set".to_owned(),
        schema: 1,
        payload: json!({ "n": n, "text": "x".repeat(usize::try_from(n * 37 % 900).expect("small")) }),
    };
    (from..from + count).map(record).collect()
}

pub(super) fn all(store: &Store) -> Vec<Record> {
    store.read(1, usize::MAX).expect("read")
}

fn open(folder: &Path) -> Opened {
    Store::open(folder).expect("open")
}

/// The files of a store as they lie on disk while it is open: what a crash leaves behind.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for name in [database::FILE_NAME, database::LOG_NAME, anchor::FILE_NAME] {
        let _ = std::fs::remove_file(to.join(name));
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).expect("copy");
        }
    }
}

#[test]
fn events_survive_a_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let written = {
        let mut store = open(folder.path()).store;
        assert_eq!((store.last(), all(&store)), (0, vec![]));
        let mut written = store.append(records(1, 3)).expect("append");
        written.extend(store.append(records(4, 1)).expect("append"));
        assert_eq!(store.append(vec![]).expect("nothing"), vec![]);
        written
    };
    let seqs: Vec<u64> = written.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    let Opened { mut store, notes, .. } = open(folder.path());
    assert_eq!((store.last(), notes, all(&store)), (4, Vec::<String>::new(), written.clone()));
    assert_eq!(store.read(2, 2).expect("read"), written[1..3]);
    assert_eq!(store.read(5, 9).expect("read"), vec![]);
    assert_eq!(store.append(records(5, 1)).expect("append")[0].seq, 5);
}

#[test]
fn one_controller_at_a_time() {
    let folder = tempfile::tempdir().expect("folder");
    let first = open(folder.path());
    let error = Store::open(folder.path()).expect_err("in use");
    assert!(matches!(error, StoreError::InUse { .. }) && error.to_string().contains("in use"), "{error}");
    drop(first);
    open(folder.path());
}

#[test]
fn the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over() {
    let folder = tempfile::tempdir().expect("folder");
    let checkpoint = |seq| Checkpoint { seq, schema: 1, state: format!("state at {seq}").into_bytes() };
    {
        let mut store = open(folder.path()).store;
        store.append(records(1, 9)).expect("append");
        for seq in [3, 5, 8] {
            store.save_checkpoint(&checkpoint(seq)).expect("checkpoint");
        }
        assert!(store.save_checkpoint(&checkpoint(10)).is_err(), "after the last event");
    }
    {
        let Opened { store, checkpoint: found, .. } = open(folder.path());
        assert_eq!(found, Some(checkpoint(8)));
        let kept: i64 =
            store.connection.query_row("SELECT count(*) FROM checkpoint", [], |row| row.get(0)).expect("count");
        assert_eq!(kept, 2);
        store.connection.execute("UPDATE checkpoint SET state = x'00' WHERE seq = 8", []).expect("damage");
    }
    {
        let Opened { store, checkpoint: found, .. } = open(folder.path());
        assert_eq!(found, Some(checkpoint(5)));
        // Valid in itself, but folded from other events.
        store.connection.execute("UPDATE checkpoint SET seq = 6 WHERE seq = 5", []).expect("damage");
    }
    assert_eq!(open(folder.path()).checkpoint, None);
}

#[test]
fn a_store_that_failed_takes_no_checkpoint() {
    let folder = tempfile::tempdir().expect("folder");
    let mut store = open(folder.path()).store;
    store.append(records(1, 3)).expect("append");
    store.fail_from_now_on();
    let error = store.append(records(4, 1)).expect_err("the anchor fails");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");
    // Its state is that of event 3, whatever the store's last event is.
    let seq = store.last();
    let error = store.save_checkpoint(&Checkpoint { seq, schema: 1, state: b"three".to_vec() }).expect_err("refused");
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error}");
    drop(store);
    let opened = open(folder.path());
    assert_eq!((opened.store.last(), opened.checkpoint), (4, None));
}

#[test]
fn a_backup_restores_everything_and_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let (old, new, file) = (folder.path().join("old"), folder.path().join("new"), folder.path().join("backup"));
    let mut store = open(&old).store;
    let written = store.append(records(1, 40)).expect("append");
    store.save_checkpoint(&Checkpoint { seq: 7, schema: 2, state: vec![1, 2, 3] }).expect("checkpoint");
    assert_eq!(store.backup(&file).expect("backup"), 40);
    assert!(matches!(store.backup(&file), Err(StoreError::Exists { .. })));
    store.append(records(41, 1)).expect("later events are not in it");

    assert_eq!(restore(&file, &new).expect("restore"), 40);
    assert!(matches!(restore(&file, &new), Err(StoreError::Exists { .. })));
    let Opened { store: mut restored, checkpoint, notes } = open(&new);
    assert_eq!((all(&restored), notes), (written, vec![]));
    assert_eq!(checkpoint.map(|checkpoint| checkpoint.seq), Some(7));
    assert_eq!(restored.append(records(99, 1)).expect("append")[0].seq, 41);
}

#[test]
fn a_loss_is_accepted_on_record_only() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, cut) = (folder.path().join("live"), folder.path().join("cut"));
    let mut store = open(&live).store;
    let written = store.append(records(1, 3)).expect("append");
    copy(&live, &cut);
    store.append(records(4, 2)).expect("append");
    // An older copy of the database beside the newer anchor.
    std::fs::copy(live.join(anchor::FILE_NAME), cut.join(anchor::FILE_NAME)).expect("copy");
    let error = Store::open(&cut).expect_err("events are missing");
    assert!(matches!(error, StoreError::Behind { last: 3, anchored: 5, .. }), "{error:?}");
    assert!(error.to_string().starts_with("events 4 to 5 are missing"), "{error}");

    let record = accept_loss(&cut, 1_800_000_000_000, "root", "disk died").expect("accepted");
    assert_eq!((record.seq, record.kind.as_str(), record.payload), (4, LOSS_ACCEPTED, json!({ "kept": 3, "had": 5 })));
    let reopened = open(&cut);
    assert_eq!((all(&reopened.store)[..3].to_vec(), reopened.store.last()), (written, 4));
    assert!(cut.join("before-loss-1800000000000").join(anchor::FILE_NAME).exists());
    drop(reopened);
    assert!(matches!(accept_loss(&cut, 1, "root", ""), Err(StoreError::NothingLost)));
}

#[test]
fn a_database_that_is_gone_is_accepted_too() {
    for remove_log in [true, false] {
        let folder = tempfile::tempdir().expect("folder");
        let (live, cut) = (folder.path().join("live"), folder.path().join("cut"));
        let mut store = open(&live).store;
        store.append(records(1, 3)).expect("append");
        copy(&live, &cut);
        std::fs::remove_file(cut.join(database::FILE_NAME)).expect("remove");
        if remove_log {
            std::fs::remove_file(cut.join(database::LOG_NAME)).expect("remove");
        }
        assert!(matches!(Store::open(&cut), Err(StoreError::Behind { last: 0, anchored: 3, .. })));
        assert_eq!(accept_loss(&cut, 5, "root", "gone").expect("accepted").seq, 1);
        assert_eq!(open(&cut).store.last(), 1);
    }
}

#[test]
fn a_database_cut_within_its_first_page_is_accepted_too() {
    for (bytes, remove_log) in [(0, true), (50, true), (50, false), (1_000, false), (4_095, true)] {
        let folder = tempfile::tempdir().expect("folder");
        let (live, cut) = (folder.path().join("live"), folder.path().join("cut"));
        let mut store = open(&live).store;
        store.append(records(1, 3)).expect("append");
        copy(&live, &cut);
        drop(store);
        // Of a database that was whole: its header is, too.
        let whole = std::fs::read(live.join(database::FILE_NAME)).expect("read");
        std::fs::write(cut.join(database::FILE_NAME), &whole[..bytes]).expect("cut");
        if remove_log {
            std::fs::remove_file(cut.join(database::LOG_NAME)).expect("remove");
        }
        let error = Store::open(&cut).expect_err("it is torn");
        assert!(matches!(error, StoreError::Behind { last: 0, anchored: 3, .. }), "{bytes}: {error}");
        let record = accept_loss(&cut, 5, "root", "torn").unwrap_or_else(|error| panic!("{bytes}: {error}"));
        assert_eq!((record.seq, record.payload), (1, json!({ "kept": 0, "had": 3 })));
        assert_eq!(open(&cut).store.last(), 1);
        let kept = std::fs::read(cut.join("before-loss-5").join(database::FILE_NAME)).expect("a copy");
        assert_eq!(kept, whole[..bytes]);
    }
}

#[test]
fn a_loss_is_on_record_before_the_store_can_be_opened() {
    let folder = tempfile::tempdir().expect("folder");
    let (live, cut) = (folder.path().join("live"), folder.path().join("cut"));
    let mut store = open(&live).store;
    store.append(records(1, 3)).expect("append");
    copy(&live, &cut);
    store.append(records(4, 2)).expect("append");
    std::fs::copy(live.join(anchor::FILE_NAME), cut.join(anchor::FILE_NAME)).expect("copy");
    // It ends in the middle, as with a power cut: the new anchor cannot be made.
    let in_the_way = cut.join("events.anchor.new");
    std::fs::create_dir(&in_the_way).expect("made");
    accept_loss(&cut, 5, "root", "").expect_err("cut short");
    let error = Store::open(&cut).expect_err("nothing vouches for what is there");
    assert!(matches!(error, StoreError::Behind { last: 4, anchored: 5, .. }), "the loss is on record: {error}");
    std::fs::remove_dir(&in_the_way).expect("removed");
    accept_loss(&cut, 6, "root", "").expect("once more");
    let kinds: Vec<String> = all(&open(&cut).store).into_iter().map(|record| record.kind).collect();
    assert_eq!(kinds[3..], [LOSS_ACCEPTED, LOSS_ACCEPTED]);
}

#[test]
fn an_unreadable_anchor_is_refused_even_without_a_database() {
    for with_database in [true, false] {
        let folder = tempfile::tempdir().expect("folder");
        open(folder.path()).store.append(records(1, 3)).expect("append");
        std::fs::write(folder.path().join(anchor::FILE_NAME), [0; 8192]).expect("garbage");
        if !with_database {
            std::fs::remove_file(folder.path().join(database::FILE_NAME)).expect("remove");
        }
        let kept = if with_database { 3 } else { 0 };
        for _ in 0..2 {
            let error = Store::open(folder.path()).expect_err("nothing vouches");
            assert!(matches!(error, StoreError::AnchorUnreadable { last, .. } if last == kept), "{error:?}");
        }
        let record = accept_loss(folder.path(), 5, "root", "").expect("accepted");
        assert_eq!((record.seq, record.payload), (kept + 1, json!({ "kept": kept, "had": null })));
        assert_eq!(open(folder.path()).store.last(), kept + 1);
    }
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join(database::FILE_NAME);
    let other = Connection::open(&file).expect("open");
    other.execute_batch("CREATE TABLE cats (name TEXT)").expect("create");
    drop(other);
    let before = std::fs::read(&file).expect("read");
    assert!(matches!(Store::open(folder.path()), Err(StoreError::NotAStore { .. })));
    assert_eq!(std::fs::read(&file).expect("read"), before);

    let newer = tempfile::tempdir().expect("folder");
    open(newer.path()).store.connection.pragma_update(None, "user_version", 2).expect("pragma");
    assert!(matches!(Store::open(newer.path()), Err(StoreError::Newer { found: 2 })));
}
