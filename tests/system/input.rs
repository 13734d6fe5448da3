//! Ports, folders and files that cannot be used: one clear sentence and the right exit code.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::harness::{House, PROGRAM, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_port_in_use_is_told_and_nothing_is_made() {
    let mut house = House::with_controller().await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let line = ["controller", "--data", "fresh", "--listen", &address, "--log", "error"];
    house.run_bare(&line).await.ends(1).complains_once(&[&address, "in use"]);
    assert!(!house.path("fresh").exists());

    let token = house.invite(&["proxy", "--name", "p1"]).await;
    for option in ["--http", "--https", "--admin"] {
        let line = ["proxy", "--data", "p1", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "error"];
        let mut line: Vec<&str> = line.to_vec();
        match line.iter().position(|word| *word == option) {
            Some(place) => line[place + 1] = &address,
            None => line.extend([option, &address]),
        }
        // The token is used by the first, and what it gave is kept for the next.
        let said = house.run_bare(&[&line[..], &["--join", &token]].concat()).await;
        said.ends(1).complains_once(&[&address, "in use"]);
    }

    // Another proxy's port is as much in use as anybody's.
    let proxy = house.proxy("p2", 2).await;
    let line = ["proxy", "--data", "p1", "--http", &proxy.http.to_string(), "--admin", "127.0.0.1:0", "--log", "error"];
    house.run_bare(&line).await.ends(1).complains_once(&["in use"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_folder_that_is_none_is_told() {
    let house = House::with_controller().await;
    fs::write(house.path("file"), "").expect("written");
    let (proxy, agent) =
        (house.invite(&["proxy", "--name", "p1"]).await, house.invite(&["agent", "--name", "a1"]).await);
    let table: [&[&str]; 6] = [
        &["controller", "--data", "file", "--listen", "127.0.0.1:0", "--log", "error"],
        &["controller", "--data", "file/below", "--listen", "127.0.0.1:0", "--log", "error"],
        &[
            "proxy",
            "--data",
            "file",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--join",
            &proxy,
            "--log",
            "error",
        ],
        &["agent", "--data", "file", "--join", &agent, "--log", "error"],
        &["proxy", "status", "--data", "file"],
        &["controller", "backup", "x.db", "--data", "file"],
    ];
    for line in table {
        house.run_bare(line).await.ends(1).complains_once(&["file"]);
    }
    // The tokens were not wasted on it.
    house.run_bare(&["agent", "--data", "file", "--join", &agent, "--log", "error"]).await.ends(1).complains(&["file"]);
    assert_eq!(house.json(&["fleet", "list"]).await["members"][0]["state"], "invited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_folder_serves_one_process_at_a_time() {
    let mut house = House::with_controller().await;
    house.proxy("p1", 1).await;
    house.agent("a1", "prod").await;
    let port = free_port();
    let table: [&[&str]; 3] = [
        &["controller", "--data", "controller", "--listen", &format!("127.0.0.1:{port}"), "--log", "error"],
        &["proxy", "--data", "p1", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "error"],
        &["agent", "--data", "a1", "--log", "error"],
    ];
    for line in table {
        let said = house.run_bare(line).await.ends(1);
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
        assert!(said.err.contains("use"), "{said:?}");
    }
    // A folder belongs to one member only.
    let line = ["agent", "--data", "p1", "--log", "error"];
    house.run_bare(&line).await.ends(1).complains_once(&["p1", "belongs to the proxy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_controller_that_is_away_or_unknown_is_named() {
    let mut house = House::with_controller().await;
    let address = house.controller_address();
    house.run_bare(&["status"]).await.ends(1).complains_once(&["pointsman login --from FILE"]);
    house.stop_controller().await;
    house.run(&["status"]).await.ends(1).complains_once(&[&address, "connection refused"]);
    house.run_bare(&["--context", "./none.toml", "status"]).await.ends(1).complains_once(&["none.toml"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_a_folder_without_permission_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let house = House::empty();
    let locked = house.path("locked");
    fs::create_dir(&locked).expect("a folder");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("set");
    for part in [&["controller", "--listen", "127.0.0.1:0"][..], &["proxy", "--http", "127.0.0.1:0"], &["agent"]] {
        // Root obeys no permission, unless it gives that away.
        let away = "-dac_override,-dac_read_search";
        let mut command = match rustix::process::geteuid().is_root() {
            true => Command::new("setpriv"),
            false => Command::new("env"),
        };
        if rustix::process::geteuid().is_root() {
            command.args([format!("--bounding-set={away}"), format!("--inh-caps={away}")]);
        }
        let said = command.arg(PROGRAM).args(part).args(["--data", "locked/x"]).current_dir(house.path("."));
        let said = said.output().expect("it starts");
        let errors = String::from_utf8_lossy(&said.stderr);
        let sentence = errors.lines().filter(|line| line.contains("locked/x")).count();
        assert_eq!((said.status.code(), sentence), (Some(1), 1), "{part:?}: {errors}");
        assert!(errors.to_lowercase().contains("permission"), "{part:?}: {errors}");
    }
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).expect("set");
}
