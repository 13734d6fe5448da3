//! Files of contexts on a real disk.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn context(controller: &str) -> Context {
    Context {
        controller: controller.into(),
        ca: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into(),
        token: "pmop1.secret".into(),
        ..Context::default()
    }
}

fn name(name: &str) -> MemberName {
    name.parse().expect("name")
}

#[test]
fn contexts_round_trip_in_a_file_for_the_owner_only() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("deep/pointsman/contexts.toml");
    assert_eq!(Contexts::load(&path).expect("none yet"), Contexts::default());
    let mut contexts = Contexts::default();
    contexts.add(&name("local"), context("127.0.0.1:7400")).expect("added");
    contexts.add(&name("prod"), context("controller.example.com:7400")).expect("added");
    contexts.save(&path).expect("saved");
    contexts.save(&path).expect("saved over the first");
    assert_eq!(Contexts::load(&path).expect("loaded"), contexts);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().expect("parent"))), (0o600, 0o700));
    let names: Vec<_> = fs::read_dir(path.parent().expect("parent")).expect("listed").collect();
    assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
}

#[test]
fn a_context_is_chosen_by_name_or_is_the_current_one() {
    let mut contexts = Contexts::default();
    let none = contexts.choose(None).expect_err("none").message;
    assert!(none.contains("login --from") && none.contains("--context FILE"), "{none}");
    contexts.add(&name("local"), context("127.0.0.1:7400")).expect("added");
    contexts.add(&name("prod"), context("controller.example.com:7400")).expect("added");
    assert_eq!(contexts.choose(None).expect("current").0, "prod");
    assert_eq!(contexts.choose(Some("local")).expect("named").0, "local");
    let unknown = contexts.choose(Some("nowhere")).expect_err("unknown").message;
    assert!(unknown.contains("there are local, prod"), "{unknown}");
}

#[test]
fn an_empty_context_is_none() {
    assert_eq!([None, Some(""), Some("prod")].map(given_as), [None, None, Some("prod")]);
}

#[test]
fn a_name_is_not_taken_from_another_controller() {
    let mut contexts = Contexts::default();
    contexts.add(&name("local"), context("127.0.0.1:7400")).expect("added");
    contexts.add(&name("local"), Context { token: "pmop1.new".into(), ..context("127.0.0.1:7400") }).expect("renewed");
    assert_eq!(contexts.all["local"].token, "pmop1.new");
    let refused = contexts.add(&name("local"), context("127.0.0.1:7500")).expect_err("another").message;
    assert!(refused.contains("--name"), "{refused}");
}

#[test]
fn operator_files_are_read_and_mistakes_are_told_without_the_secret() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("operator.toml");
    let good = "schema = 1\ncontroller = \"127.0.0.1:7400\"\nca = \"\"\"PEM\"\"\"\ntoken = \"pmop1.secret\"\n";
    fs::write(&path, good).expect("written");
    assert_eq!(operator_file(&path).expect("read").token, "pmop1.secret");
    assert_eq!(chosen(path.to_str()).expect("a path is accepted").1.controller, "127.0.0.1:7400");
    for (bad, told) in [
        (good.replace("schema = 1", "schema = 9"), "schema 9 is not known"),
        (good.replace("controller", "controler"), "missing field `controller`"),
        (good.replace("\"pmop1.secret\"", "\"pmop1.secret"), ":4:"),
        (good.replace("token = \"pmop1.secret\"", ""), "either a `token`, or a `certificate` with its `key`"),
        (good.replace("token", "key"), "either a `token`, or a `certificate` with its `key`"),
        (format!("{good}certificate = \"PEM\"\nkey = \"secret\""), "either a `token`, or a `certificate`"),
    ] {
        fs::write(&path, bad).expect("written");
        let message = operator_file(&path).expect_err("refused").message;
        assert!(message.contains(told) && !message.contains("secret"), "{message}");
    }
    let message = operator_file(&folder.path().join("none")).expect_err("no file").message;
    assert!(message.ends_with("there is no such file or folder"), "{message}");
}

#[test]
fn an_operator_file_with_a_certificate_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("alice.toml");
    let pem = |what: &str| format!("-----BEGIN {what}-----\nAA==\n-----END {what}-----\n");
    let context = Context {
        token: String::new(),
        certificate: pem("CERTIFICATE"),
        key: pem("PRIVATE KEY"),
        ..context("127.0.0.1:7400")
    };
    write_operator_file(&path, context.clone()).expect("written");
    assert_eq!(path.metadata().expect("file").permissions().mode() & 0o777, 0o600);
    assert!(operator_file(&path).expect("read") == context);
    let mut contexts = Contexts::default();
    contexts.add(&name("alice"), context.clone()).expect("added");
    contexts.save(&folder.path().join("contexts.toml")).expect("saved");
    let loaded = Contexts::load(&folder.path().join("contexts.toml")).expect("loaded");
    assert!(loaded.all["alice"] == context);
}

#[test]
fn the_place_follows_the_environment() {
    let of = |set: &[(&str, &str)]| {
        path_in(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
            .map(|path| path.display().to_string())
    };
    let home = ("HOME", "/h");
    assert_eq!(of(&[("POINTSMAN_CONFIG", "/x/c.toml"), home]).as_deref(), Some("/x/c.toml"));
    assert_eq!(of(&[("XDG_CONFIG_HOME", "/xdg"), home]).as_deref(), Some("/xdg/pointsman/contexts.toml"));
    assert_eq!(of(&[("XDG_CONFIG_HOME", "relative"), home]).as_deref(), Some("/h/.config/pointsman/contexts.toml"));
    assert_eq!(of(&[]), None);
}

#[test]
fn contexts_are_named_after_their_controller() {
    for (controller, expected) in [
        ("127.0.0.1:7400", "local"),
        ("[::1]:7400", "local"),
        ("localhost:7400", "local"),
        ("controller.example.com:7400", "controller"),
        ("10.0.0.1:7400", "default"),
        ("Ünsinn", "default"),
    ] {
        assert_eq!(name_for(controller).as_str(), expected, "{controller}");
    }
}
