//! Checks of rollouts as callers: through a real proxy, over TLS, let in or not, and ended with the controller.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use serde_json::Value;

use crate::harness::{House, Proxy, STAGE, Temper, Upstream, running_in, until};

const ENVIRONMENT: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
    target = { kind = \"static\" }\n";
const ACCESS: &str = "schema = 1\npolicies = [\"checks.cedar\"]\n";

/// The service, hidden from strangers, with a check before it flips.
fn service(check: &str) -> String {
    format!(
        r#"schema = 1
service = "hello"
[component.web]
folder = "dist"
protocol = "h1"
health = {{ every = "1s" }}
[stage.production]
strategy = "blue-green"
[[stage.production.check]]
name = "smoke"
{check}
every = "1s"
fall = 1
"#
    )
}

/// By the release's own host, as the application.
fn by_https(proxy: Proxy) -> String {
    format!("http = \"https://{{host}}:{}/smoke\"\napp = \"smoke\"", proxy.https.port())
}

const GUIDE: &str = include_str!("../../docs/rollouts.md");

/// What the guide says to whoever wants a check let in.
fn of_the_guide() -> &'static str {
    let (_, rest) = GUIDE.split_once("```cedar\n").expect("it shows one");
    rest.split_once("```").expect("it ends").0
}

/// What it says about public stages.
fn of_the_guide_for_public_stages() -> &'static str {
    let begin = GUIDE.find("permit (principal, action == Action::\"use\"").expect("it shows one");
    GUIDE[begin..].split_once('`').expect("it ends").0
}

/// Lets the application do this to the stage.
fn permit(actions: &str) -> String {
    format!(
        "permit (principal, action in [{actions}], resource in Stage::\"{STAGE}\")\n\
         when {{ context has application && context.application.name == \"smoke\" }};\n"
    )
}

async fn describe(house: &House, environment: &str, check: &str, policies: &str) {
    fs::write(house.path("checks.cedar"), policies).expect("written");
    let service = service(check);
    house.apply(&[("production.toml", environment), ("pointsman.toml", &service), ("access.toml", ACCESS)]).await;
}

/// Gives the service's checks the key of an application.
fn gives(house: &House, key: &str) {
    let folder = house.path("controller/checks/keys/hello/production");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).expect("made");
    fs::write(folder.join("smoke"), key).expect("written");
}

/// What `status` says of the stage.
async fn stage(house: &House) -> Value {
    house.json(&["status", STAGE]).await["services"][0]["stages"][0].clone()
}

/// Waits until the check says something with these words, and is neither well nor failed.
async fn waits_with(house: &House, words: &str) {
    until(&format!("it waits: {words}"), async || {
        let stage = stage(house).await;
        let check = &stage["rollout"]["checks"][0];
        assert!(stage["rollout"].is_object() && check["state"] == "not yet", "{words}: {stage}");
        check["problem"].as_str().is_some_and(|problem| problem.contains(words)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_check_over_tls_lets_a_good_release_flip_and_stops_a_bad_one() {
    let mut house = House::with_controller().await;
    let proxy = house.proxy("p1", 2).await;
    let environment = format!("{ENVIRONMENT}credentials = [\"application\"]\n");
    describe(&house, &environment, &by_https(proxy), of_the_guide()).await;
    let key = house.run(&["app", "create", "smoke"]).await.ends(0).out;
    gives(&house, &key);

    let (_r1, r2) = house.two_releases().await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    house.run(&["rollout", "watch", STAGE]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
    // It came through the proxy, as the application, and the key stayed there.
    let heads = r2.heads();
    let head = heads.iter().find(|head| head.contains_key("x-pointsman-assertion")).expect("it was asked");
    assert!(!head.contains_key("x-api-key"), "{head:?}");
    let host = format!("r2--hello.production.localhost:{}", proxy.https.port());
    assert_eq!(head.get("host").and_then(|host| host.to_str().ok()), Some(host.as_str()));

    let bad = Upstream::tempered("r3", Temper::Fails { ppm: 1_000_000, seed: 1 }).await;
    assert_eq!(house.release(&bad).await, "hello@r3");
    house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(0);
    let watched = house.run(&["rollout", "watch", STAGE]).await.ends(1);
    assert!(watched.out.contains("rolled back"), "{}", watched.out);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
    let explained = house.json(&["explain", "rollout", STAGE]).await;
    assert_eq!((&explained["outcome"], &explained["release"]), (&"rolled back".into(), &3.into()), "{explained}");
    assert!(explained.to_string().contains("it answered 500 Internal Server Error"), "{explained}");
    assert!(bad.requests() > 0, "nobody else has asked it");
    let said = house.run(&["promote", "hello@r3", "--to", "production"]).await.ends(1);
    assert!(said.err.contains("bad"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_check_that_is_not_let_in_takes_no_release_out() {
    let mut house = House::with_controller().await;
    let proxy = house.proxy("p1", 1).await;
    let check = by_https(proxy);
    describe(&house, ENVIRONMENT, &check, &permit(r#"Action::"discover""#)).await;
    let (_r1, r2) = house.two_releases().await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    // One door after the other, and each says what is missing.
    waits_with(&house, "the key of the application smoke is not sent").await;
    let key = house.run(&["app", "create", "smoke"]).await.ends(0).out;
    gives(&house, &key);
    waits_with(&house, "no policy lets the caller use this release by its own host").await;
    waits_with(&house, "application: smoke, valid").await;
    let all = permit(r#"Action::"discover", Action::"use", Action::"read""#);
    describe(&house, ENVIRONMENT, &check, &all).await;
    waits_with(&house, "the stage wants a user's credentials").await;
    assert_eq!(r2.requests(), 0, "nobody has asked the release");
    // What the rollout waits for is no file of its own: it goes on with the door that opens.
    let environment = format!("{ENVIRONMENT}credentials = [\"application\"]\n");
    describe(&house, &environment, &check, &all).await;
    house.run(&["rollout", "watch", STAGE]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
    let history = house.run(&["history", "-n", "0"]).await.ends(0).out;
    assert!(!history.contains(key.trim()) && !history.contains("rolled back"), "{history}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_check_of_a_public_stage_is_let_in_where_strangers_see_releases() {
    let mut house = House::with_controller().await;
    let proxy = house.proxy("p1", 1).await;
    let check = format!("http = \"https://{{host}}:{}/smoke\"", proxy.https.port());
    let public = service(&check).replace("[stage.production]\n", "[stage.production]\npublic = true\n");
    house.apply(&[("production.toml", ENVIRONMENT), ("pointsman.toml", &public)]).await;
    house.two_releases().await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    waits_with(&house, "no policy lets the caller use this release by its own host").await;
    fs::write(house.path("checks.cedar"), of_the_guide_for_public_stages()).expect("written");
    house.apply(&[("access.toml", ACCESS)]).await;
    house.run(&["rollout", "watch", STAGE]).await.ends(0);
    assert_eq!(house.serving().await.of(STAGE, 2), Some(("stable", 1_000_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_checks_end_with_the_controller() {
    let mut house = House::with_controller().await;
    let script = "setsid sleep 601 & sleep 602";
    let command = format!("command = [\"sh\", \"-c\", \"{script}\"]\ntimeout = \"1h\"");
    describe(&house, ENVIRONMENT, &command, "").await;
    house.two_releases().await;
    house.run(&["promote", "hello@r2", "--to", "production"]).await.ends(0);
    let work = house.path("controller/checks/work");
    // The shell, and both that it has started.
    until("the check runs", async || (running_in(&work).len() == 3).then_some(())).await;
    house.stop_controller().await;
    assert_eq!(running_in(&work), []);
    assert_eq!(fs::read_dir(&work).expect("a folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_checks_on_the_machine_are_named_by_whoever_may_do_everything() {
    let house = House::with_controller().await;
    let team = house.operator_with("team", &["--allow", "read,apply", "--service", "hello"]).await;
    let commands = |commands: &[&str]| {
        let checks = commands
            .iter()
            .enumerate()
            .map(|(place, words)| format!("[[stage.production.check]]\nname = \"c{place}\"\ncommand = [{words}]\n"));
        let head = service("").split_once("[[").expect("a check").0.to_owned();
        head + &checks.collect::<String>()
    };
    let apply = async |text: &str| {
        fs::write(house.path("pointsman.toml"), text).expect("written");
        house.run_as(&team, &["apply", "-f", "pointsman.toml"]).await
    };
    let refused = "names files, programs or servers of the controller's machine";
    house.apply(&[("production.toml", ENVIRONMENT), ("pointsman.toml", &commands(&["'x', 'y'", "'z'"]))]).await;
    // Order, another interval, and less of it take no more than before.
    apply(&commands(&["'z'", "'x', 'y'"])).await.ends(0);
    apply(&format!("{}every = \"1m\"\n", commands(&["'x', 'y'"]))).await.ends(0);
    for other in ["'x', 'y'|'z'", "'x'|'y'", "'x y'", "'x', 'y', 'z'"] {
        let other: Vec<&str> = other.split('|').collect();
        apply(&commands(&other)).await.ends(1).complains(&[refused]);
    }
    // Nor elsewhere: another environment may be another matter.
    let moved = commands(&["'x', 'y'"]).replace("stage.production", "stage.staging");
    apply(&moved).await.ends(1).complains(&[refused]);
}
