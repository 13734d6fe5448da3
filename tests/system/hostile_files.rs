//! h83: operator input through the command. All mistakes at once, each with its place; nothing is applied.

use std::fs;

use crate::harness::House;

const SERVICE: &str = r#"schema = 1
service = "Hello"
colour = "red"
[component.web]
folder = "../dist"
protocol = "h3"
[stage.dev]
from = "staging"
keep_warm = "0s"
[stage.staging]
from = "dev"
[stage."a--b"]
"#;

const ENVIRONMENT: &str = r#"schema = 2
environment = "production"
zone = "10.0.0.1"
target = { kind = "agents" }
time_zone = "Mars/Olympus"
keep_warm = "10000y"
"#;

const GOOD: &str = "schema = 1\nenvironment = \"fresh\"\nzone = \"fresh.localhost\"\ntarget = { kind = \"static\" }\n";

/// What would show that something was applied.
async fn known(house: &House) -> (usize, String) {
    let environments = house.json(&["environment", "list"]).await.to_string();
    let services = house.json(&["service", "list"]).await.to_string();
    (house.history().await.len(), environments + &services)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_mistakes_of_all_files_come_together_with_their_places() {
    let house = House::with_hello().await;
    for (name, text) in [("bad.toml", SERVICE), ("worse.toml", ENVIRONMENT), ("good.toml", GOOD)] {
        fs::write(house.path(name), text).expect("written");
    }
    let before = known(&house).await;
    for plan in [&[][..], &["--plan"]] {
        let line = ["apply", "-f", "bad.toml", "-f", "worse.toml", "-f", "good.toml"];
        let said = house.run(&[&line, plan].concat()).await.ends(1);
        for place in ["bad.toml:2:", "bad.toml:3:", "bad.toml:5:", "bad.toml:6:", "bad.toml:9:", "bad.toml:12:"] {
            assert!(said.err.contains(place), "{place} in {}", said.err);
        }
        for place in ["worse.toml:1:", "worse.toml:3:", "worse.toml:4:", "worse.toml:5:", "worse.toml:6:"] {
            assert!(said.err.contains(place), "{place} in {}", said.err);
        }
        for words in ["did you mean \"agent\"", "form a cycle", "IANA", "\"h1\" (HTTP/1.1)"] {
            assert!(said.err.contains(words), "{words} in {}", said.err);
        }
        assert!(!said.err.contains("good.toml") && said.out.is_empty(), "{said:?}");
    }
    assert_eq!(known(&house).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_mistakes_between_files_and_the_state_are_told() {
    let house = House::with_hello().await;
    let stray =
        "schema = 1\nservice = \"stray\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h1\"\n[stage.nowhere]\n";
    let twice =
        "schema = 1\nenvironment = \"other\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";
    for (name, text, expected) in [("stray.toml", stray, "nowhere"), ("twice.toml", twice, "production.localhost")] {
        fs::write(house.path(name), text).expect("written");
        let before = known(&house).await;
        house.run(&["apply", "-f", name]).await.ends(1).complains(&[expected]);
        assert_eq!(known(&house).await, before, "{name}");
    }
    // The same file twice in one call is a mistake of the call.
    house.run(&["apply", "-f", "production.toml", "-f", "production.toml"]).await.ends(1).complains(&["production"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_files_that_are_none_are_refused() {
    let house = House::with_controller().await;
    fs::write(house.path("huge.toml"), vec![b'#'; 10_000_000]).expect("written");
    fs::write(house.path("binary.toml"), [0xff, 0xfe, 0]).expect("written");
    fs::write(house.path("cut.toml"), "schema = 1\nservice = \"he").expect("written");
    fs::write(house.path("empty.toml"), "").expect("written");
    let before = known(&house).await;
    for (name, expected) in [
        ("huge.toml", "larger than 1 MiB"),
        ("binary.toml", "not UTF-8"),
        ("none.toml", "no such file"),
        ("cut.toml", "cut.toml:2:"),
        ("empty.toml", "empty.toml"),
    ] {
        house.run(&["apply", "-f", name]).await.ends(1).complains(&[name, expected]);
    }
    let all = ["apply", "-f", "huge.toml", "-f", "none.toml", "-f", "binary.toml"];
    house.run(&all).await.ends(1).complains(&["huge.toml", "none.toml", "binary.toml"]);
    assert_eq!(known(&house).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_words_on_the_command_line_that_are_not_accepted_say_what_is() {
    let house = House::with_hello().await;
    let long = "a".repeat(64);
    let before = known(&house).await;
    let table: [(&[&str], &str); 22] = [
        (&["service", "show", "a/b"], "accepted is"),
        (&["service", "show", ".."], "accepted is"),
        (&["service", "show", "hällo"], "accepted is"),
        (&["service", "show", &long], "accepted is"),
        (&["service", "show", "a--b"], "accepted is"),
        (&["promote", "hello@r0", "--to", "production"], "accepted is"),
        (&["promote", "hello@42", "--to", "production"], "accepted is"),
        (&["promote", "hello@r1", "--to", "a/b"], "accepted is"),
        (&["promote", "hello@r1", "--to", "production", "--weight=-1%"], "0% to 100%"),
        (&["promote", "hello@r1", "--to", "production", "--weight=NaN%"], "0% to 100%"),
        (&["promote", "hello@r1", "--to", "production", "--weight=1e9%"], "0% to 100%"),
        (&["promote", "hello@r1", "--to", "production", "--bypass"], "--reason"),
        (&["rollout", "weight", "hello", "5%"], "accepted is"),
        (&["rollout", "weight", "hello/production", "0.00001%"], "0% to 100%"),
        (&["rollback", "hello/production", "--to", "r99999999999"], "accepted is"),
        (&["join", "proxy", "--name", "p1", "--valid=0s"], "from 1ms to 366d"),
        (&["join", "proxy", "--name", "p1", "--valid=-1s"], "from 1ms to 366d"),
        (&["join", "proxy", "--name", "p1", "--valid=10000y"], "from 1ms to 366d"),
        (&["token", "create", "ci", "--allow", "fly"], "read, apply, release"),
        (&["release", "add", "hello", "--version", "1", "--address", "web=nowhere"], "IP:PORT"),
        (&["release", "build", "hello", "--tag", "a", "--branch", "b"], "--tag"),
        (&["rolback", "hello/production"], "rollback"),
    ];
    for (arguments, expected) in table {
        let said = house.run(arguments).await.ends(2).complains(&[expected]);
        assert!(said.out.is_empty(), "{said:?}");
    }
    let all = ["promote", "Hello@r0", "--to", "A/B", "--weight", "200%"];
    house.run(&all).await.ends(2).complains(&["Hello@r0", "A/B", "200%"]);
    assert_eq!(known(&house).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h83_names_that_nobody_has_are_refused_with_code_1() {
    let house = House::with_hello().await;
    let before = known(&house).await;
    let table: [(&[&str], &str); 8] = [
        (&["status", "other"], "other"),
        (&["release", "show", "hello@r7"], "hello@r7"),
        (&["release", "logs", "hello@r7"], "hello@r7"),
        (&["release", "list", "other"], "other"),
        (&["promote", "hello@r7", "--to", "production"], "hello@r7"),
        (&["rollback", "hello/production"], "production"),
        (&["rollout", "weight", "hello/production", "5%"], "no release is on its way"),
        (&["fleet", "revoke", "p7"], "p7"),
    ];
    for (arguments, expected) in table {
        house.run(arguments).await.ends(1).complains_once(&[expected]);
    }
    assert_eq!(known(&house).await, before);
}
