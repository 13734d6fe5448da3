//! h82: an event store that was damaged is not started on and not touched; backup and restore give the same state.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Changed, Client, Happened, House, PROGRAM, Part, STAGE, Speech, until};

const FILES: [&str; 3] = ["events.db", "events.db-wal", "events.anchor"];

/// What is in the store's files. An empty one is as good as none: SQLite makes the log when it looks.
fn contents(folder: &Path) -> [Vec<u8>; 3] {
    FILES.map(|name| fs::read(folder.join(name)).unwrap_or_default())
}

fn copy_folder(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-r").args([from, to]).status().expect("cp");
    assert!(status.success());
}

/// How a controller on some folder begins.
enum Start {
    Refuses(String),
    Runs(Part),
}

async fn start(house: &House, folder: &str) -> Start {
    let mut command = Command::new(PROGRAM);
    command.args(["controller", "--listen", "127.0.0.1:0", "--log", "error", "--data"]).arg(house.path(folder));
    let mut part = Part::start(folder, &house.path(&format!("{folder}.log")), &mut command);
    until("the controller starts or ends", async || (!part.runs() || part.log().contains("log in with")).then_some(()))
        .await;
    if part.runs() {
        return Start::Runs(part);
    }
    assert_eq!(part.ended().await.code(), Some(1), "{}", part.log());
    Start::Refuses(part.log())
}

async fn history_of(house: &House, folder: &str) -> Vec<Happened> {
    let context = house.path(folder).join("operator.toml");
    Happened::read(&house.run_as(&context, &["-o", "json", "history", "-n", "0"]).await.ends(0).json())
}

/// A store with some hundred events, left as by a crash: much of it is in the write-ahead log.
async fn crashed() -> (House, Vec<Happened>) {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let mut operator = house.operator();
    operator.changes(Changed::promote(2, Some(1)), 0).await;
    for share in 2..100 {
        operator.changes(Changed::weight(share), 0).await;
    }
    let history = house.history().await;
    house.kill_controller();
    (house, history)
}

/// Starts on a damaged copy: it either refuses with one sentence and touches nothing, or has every event.
async fn is_never_a_silent_gap(house: &House, history: &[Happened], what: &str) -> bool {
    let damaged = contents(&house.path("damaged"));
    match start(house, "damaged").await {
        Start::Refuses(said) => {
            assert_eq!(said.lines().count(), 1, "{what}: {said}");
            assert!(contents(&house.path("damaged")) == damaged, "{what}: the files were touched");
            true
        }
        Start::Runs(part) => {
            let found = history_of(house, "damaged").await;
            assert_eq!(found[..history.len()], *history, "{what}: a silent gap");
            assert_eq!(part.stop().await, Some(0));
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h82_a_flipped_byte_or_a_cut_is_refused_and_leaves_the_files_as_they_are() {
    let (house, history) = crashed().await;
    let whole = house.path("controller");
    let mut refused = 0;
    for name in FILES {
        let length = usize::try_from(fs::metadata(whole.join(name)).expect("a file").len()).expect("small");
        assert!(length > 0, "{name} is empty: nothing to damage");
        for part in 0..6 {
            let at = (length - 1) * part / 5;
            copy_folder(&whole, &house.path("damaged"));
            let path = house.path("damaged").join(name);
            let mut bytes = fs::read(&path).expect("read");
            bytes[at] ^= 0x40;
            fs::write(&path, bytes).expect("written");
            refused += u32::from(is_never_a_silent_gap(&house, &history, &format!("{name}, byte {at}")).await);
        }
        for length in [0, length / 3, length - 1] {
            copy_folder(&whole, &house.path("damaged"));
            let file = fs::OpenOptions::new().write(true).open(house.path("damaged").join(name)).expect("opened");
            file.set_len(length as u64).expect("cut");
            refused += u32::from(is_never_a_silent_gap(&house, &history, &format!("{name}, cut at {length}")).await);
        }
        copy_folder(&whole, &house.path("damaged"));
        fs::remove_file(house.path("damaged").join(name)).expect("removed");
        refused += u32::from(is_never_a_silent_gap(&house, &history, &format!("{name} is gone")).await);
    }
    assert!(refused >= 10, "only {refused} of 30 damages were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h82_an_older_copy_that_was_put_back_is_refused_by_name() {
    let mut house = House::with_hello().await;
    house.stop_controller().await;
    copy_folder(&house.path("controller"), &house.path("damaged"));
    house.start_controller(&[]).await;
    let (_r1, _r2) = house.two_releases().await;
    house.stop_controller().await;
    // The newest anchor beside an older database.
    let anchor = house.path("controller/events.anchor");
    fs::copy(anchor, house.path("damaged/events.anchor")).expect("copied");
    match start(&house, "damaged").await {
        Start::Refuses(said) => assert!(said.contains("missing") && said.contains("restore"), "{said}"),
        Start::Runs(_) => panic!("it started"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h82_backup_and_restore_give_the_same_state() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "0.01%"]).await.ends(0);
    let (serving, history) = (house.serving().await, house.history().await);
    let releases = house.json(&["release", "list", "hello"]).await;
    let line = ["controller", "backup", "monday.db", "--data", "controller"];
    house.run_bare(&line).await.ends(0);
    house.run_bare(&line).await.ends(1).complains_once(&["monday.db", "exists"]);
    // What happens later is not in it.
    house.run(&["rollback", STAGE]).await.ends(0);
    house.kill_controller();

    house
        .run_bare(&["controller", "restore", "monday.db", "--data", "controller"])
        .await
        .ends(1)
        .complains_once(&["exists"]);
    house.run_bare(&["controller", "restore", "monday.db", "--data", "restored"]).await.ends(0);
    let Start::Runs(part) = start(&house, "restored").await else { panic!("it refused") };
    let context = house.path("restored/operator.toml");
    let ask =
        async |arguments: &[&str]| house.run_as(&context, &[&["-o", "json"], arguments].concat()).await.ends(0).json();
    assert_eq!(crate::harness::Serving::read(&ask(&["status"]).await), serving);
    assert_eq!(ask(&["release", "list", "hello"]).await, releases);
    assert_eq!(history_of(&house, "restored").await[..history.len()], history);
    assert_eq!(part.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h82_a_backup_that_is_not_whole_is_refused() {
    let house = House::with_hello().await;
    house.run(&["controller", "backup", "whole.db"]).await.ends(0);
    let whole = fs::read(house.path("whole.db")).expect("read");
    fs::write(house.path("cut.db"), &whole[..whole.len() / 2]).expect("written");
    fs::write(house.path("garbage.db"), vec![7; 10_000]).expect("written");
    let mut flipped = whole.clone();
    let at = flipped.windows(11).position(|word| word == b"environment").expect("an event says so");
    flipped[at] ^= 1;
    fs::write(house.path("flipped.db"), flipped).expect("written");
    for name in ["cut.db", "garbage.db", "flipped.db", "none.db"] {
        let said = house.run_bare(&["controller", "restore", name, "--data", "fresh"]).await;
        said.ends(1).complains_once(&[name]);
        assert!(!house.path("fresh/events.db").exists(), "{name} left a store");
    }
}

/// The store goes back behind what proxies have seen: whatever serves afterwards, the controller says so truly, and the
/// next change reaches every proxy.
async fn goes_back_loudly(restarts: u32) {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["controller", "backup", "old.db"]).await.ends(0);
    for _ in 0..restarts {
        house.stop_controller().await;
        house.start_controller(&[]).await;
    }
    house.follows("p1").await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "30%"]).await.ends(0);
    for share in ["40%", "60%", "100%"] {
        house.run(&["rollout", "weight", STAGE, share]).await.ends(0);
    }
    let version = |fleet: &serde_json::Value| {
        let version = &fleet["members"][0]["version"];
        (version["term"].as_u64().unwrap_or(0), version["number"].as_u64().unwrap_or(0))
    };
    let before = version(&house.json(&["fleet", "list"]).await);

    // The disk is lost: the backup takes the place of the store; keys and certificates are still there.
    house.kill_controller();
    FILES.iter().for_each(|name| drop(fs::remove_file(house.path("controller").join(name))));
    house.run_bare(&["controller", "restore", "old.db", "--data", "controller"]).await.ends(0);
    house.start_controller(&[]).await;
    until("the proxy is connected", async || {
        (house.json(&["fleet", "list"]).await["members"][0]["connected"] == true).then_some(())
    })
    .await;
    house.follows("p1").await;
    let after = version(&house.json(&["fleet", "list"]).await);
    assert!(after > before, "the restored controller leads with {after:?}, but {before:?} was seen before");
    let counts = Client::plain(proxy.http, Speech::Http1).counts(20).await;
    let told = house.serving().await;
    let stable = told.of(STAGE, 1).map(|(_, weight)| weight);
    assert_eq!((stable, counts.get("r1")), (Some(1_000_000), Some(&20)), "{told:?} {counts:?}");
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "50%"]).await.ends(0);
    let counts = Client::plain(proxy.http, Speech::Http1).counts(20).await;
    assert_eq!(counts.get("r2"), Some(&10), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h80_a_restored_controller_whose_term_was_the_last_leads_with_a_higher_one() {
    goes_back_loudly(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h80_a_restored_controller_whose_term_was_used_leads_with_a_higher_one() {
    goes_back_loudly(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h80_a_restored_controller_far_behind_leads_with_a_higher_term() {
    goes_back_loudly(4).await;
}
