//! The driver with a real engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{ReleaseNumber, Share, StageName};
use tokio::task::JoinHandle;

use super::servers::{Manner, Server};
use super::*;
use crate::core::evolve_test;
use crate::core::spec::{BlueGreen, OnWorse, RolloutSpec, Step, Strategy};
use crate::core::state::CheckSeen;
use crate::core::{Command, Event};
use crate::engine::Submission;
use crate::engine::tests::World;

const STAGE: &str = "hello/production";

fn stage() -> StageName {
    STAGE.parse().expect("name")
}

fn r(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).expect("above 0")
}

/// Steps of which a person ends each.
fn in_steps(checks: Vec<Check>) -> RolloutSpec {
    let step = |share: &str| Step { share: share.parse().ok(), pause: true, ..Step::default() };
    let last = Step { share: Some(Share::ALL), ..Step::default() };
    let strategy = Strategy::Canary(vec![step("10%"), step("20%"), last]);
    RolloutSpec { strategy, checks, ..RolloutSpec::default() }
}

/// An engine with a stage whose first release serves, and the driver.
struct Rolling {
    world: World,
    driver: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Drop for Rolling {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Rolling {
    async fn new(rollout: RolloutSpec) -> Self {
        let world = World::new().await;
        let plain = evolve_test::World::new(false).state;
        let mut service = plain.service(&stage().service).expect("there").spec.clone();
        for (name, spec) in &mut service.stages {
            spec.from.clear();
            spec.rollout = if name.as_str() == "production" { rollout.clone() } else { RolloutSpec::default() };
        }
        let environments = plain.environments.values().cloned().collect();
        world
            .carries_out(Submission::own(Command::Apply {
                environments,
                services: vec![service],
                access: None,
                releases: None,
            }))
            .await;
        for number in 1..=3 {
            let address = ([10, 0, 0, 1], 8_000 + number).into();
            let component = "web".parse().expect("name");
            let addresses =
                vec![crate::core::state::Addresses { environment: None, component, addresses: vec![address] }];
            let (service, version, commit) = (stage().service, format!("1.{number}"), String::new());
            world
                .carries_out(Submission::own(Command::AddRelease {
                    service,
                    version,
                    commit,
                    addresses,
                    artifacts: Vec::new(),
                }))
                .await;
        }
        let fleet = world.engine.read(|engine| engine.fleet.clone()).await.expect("it runs");
        let folders = folders(world.folder.path());
        let (stop, stopped) = watch::channel(false);
        let happened = world.happened.subscribe();
        let driver = tokio::spawn(crate::checks::run(world.engine.clone(), fleet, folders, happened, stopped));
        let rolling = Self { world, driver, stop };
        rolling.promote(1).await;
        rolling
    }

    async fn promote(&self, number: u32) {
        let release = format!("hello@r{number}").parse().expect("name");
        let environment = stage().environment;
        self.does(Command::Promote { release, environment, share: None, bypass: false }).await;
    }

    async fn does(&self, command: Command) {
        self.world.carries_out(Submission::of("test", "a test".into(), command)).await;
    }

    /// What a check is known to say, with the number and step for which it says it.
    async fn seen(&self, check: &'static str) -> Option<((u64, u32), CheckSeen)> {
        let look = move |engine: &crate::engine::Engine| {
            let rollouts = engine.fleet.rollouts();
            let seen = rollouts.get(&stage())?;
            Some(((seen.rollout, seen.step), seen.checks.get(check).cloned().unwrap_or_default()))
        };
        self.world.engine.read(look).await.expect("it runs")
    }

    /// How the one check is shown to people, and what is said about it.
    async fn shown(&self) -> (String, String) {
        let look = |engine: &crate::engine::Engine| {
            let (status, _) = crate::status::rollout_of(engine, &stage(), Instant::now());
            let [check] = &status.expect("under way").checks[..] else { panic!("one check") };
            (check.state.clone(), check.problem.clone())
        };
        self.world.engine.read(look).await.expect("it runs")
    }

    /// What is on record of why r2 is out, as soon as it is.
    async fn rolled_back(&self) -> String {
        let is_bad = |engine: &crate::engine::Engine| {
            engine.state.stage(&stage()).is_some_and(|stage| stage.bad.contains(&r(2)))
        };
        until("it is rolled back", async || self.world.engine.read(is_bad).await == Some(true)).await;
        let look = |engine: &crate::engine::Engine| {
            let records = engine.store.read(1, usize::MAX).expect("read");
            let events = records.iter().filter_map(|record| crate::engine::event_of(record).ok().flatten());
            events.map(|event: Event| event.sentence()).rfind(|words| words.contains("smoke"))
        };
        self.world.engine.read(look).await.expect("it runs").expect("on record")
    }
}

fn http(server: &Server) -> CheckKind {
    CheckKind::http(server.url("/{release}/{host}"))
}

#[tokio::test]
async fn rollout_check_is_asked_at_each_step_anew() {
    let server = Server::start(Manner::answer("200 OK", "", "")).await;
    // So rarely that only what is asked at once counts.
    let once = Check { every: span(3_600_000), ..check("smoke", http(&server)) };
    let rolling = Rolling::new(in_steps(vec![once])).await;
    assert_eq!(
        (rolling.seen("smoke").await, server.asked().len()),
        (None, 0),
        "nothing to compare with, nothing to check"
    );
    rolling.promote(2).await;
    for step in 0..2 {
        until("it is well", async || rolling.seen("smoke").await == Some(((2, step), CheckSeen::Well))).await;
        assert_eq!(server.asked().len(), usize::try_from(step).expect("small") + 1);
        assert!(server.asked()[0].starts_with("GET /r2/r2--hello.production.example.com HTTP/1.1\r\n"));
        rolling.does(Command::SkipStep { stage: stage() }).await;
    }
    // The last step completes it; the next one begins at the first step again.
    rolling.promote(3).await;
    until("the next is checked", async || server.asked().iter().any(|head| head.starts_with("GET /r3/"))).await;
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn rollout_check_is_asked_as_often_as_it_says_and_takes_the_release_out() {
    let is_bad = Arc::new(AtomicBool::new(false));
    let server = Server::start(Manner::Switch(is_bad.clone(), "no\tdatabase")).await;
    let smoke = Check { fall: 3, ..check("smoke", http(&server)) };
    let rolling = Rolling::new(in_steps(vec![smoke])).await;
    rolling.promote(2).await;
    until("it was well often", async || server.asked().len() > 5).await;
    assert_eq!(rolling.seen("smoke").await, Some(((2, 0), CheckSeen::Well)));
    is_bad.store(true, Ordering::SeqCst);
    let words = rolling.rolled_back().await;
    assert!(words.contains("it answered 500 Internal Server Error: no\\tdatabase"), "{words}");
    // Nothing of it runs on.
    until("its connections are closed", async || server.open() == 0).await;
    assert_eq!(rolling.seen("smoke").await, None);
}

#[tokio::test]
async fn rollout_check_that_freezes_goes_on_until_somebody_ends_it() {
    let server = Server::start(Manner::answer("500 Internal Server Error", "", "")).await;
    let spec = RolloutSpec { on_worse: OnWorse::Freeze, ..in_steps(vec![check("smoke", http(&server))]) };
    let rolling = Rolling::new(spec).await;
    rolling.promote(2).await;
    let is_frozen = |engine: &crate::engine::Engine| {
        let stage = engine.state.stage(&stage());
        stage.and_then(|stage| stage.rolling()).is_some_and(|(_, rollout, _)| rollout.frozen.is_some())
    };
    until("it is frozen", async || rolling.world.engine.read(is_frozen).await == Some(true)).await;
    let before = server.asked().len();
    until("it is still asked", async || server.asked().len() > before + 1).await;
    rolling.does(Command::AbortRollout { stage: stage(), bad: false }).await;
    until("it has ended", async || rolling.seen("smoke").await.is_none() && server.open() == 0).await;
}

#[tokio::test]
async fn rollout_check_of_a_rollout_that_ended_ends() {
    let server = Server::start(Manner::Hang).await;
    let hour = Check { timeout: span(3_600_000), ..check("smoke", http(&server)) };
    let rolling = Rolling::new(in_steps(vec![hour])).await;
    rolling.promote(2).await;
    until("it is asked", async || server.open() == 1 && server.asked().len() == 1).await;
    rolling.does(Command::Weigh { stage: stage(), share: "30%".parse().expect("share") }).await;
    until("by hand there are none", async || server.open() == 0).await;
    rolling.does(Command::AbortRollout { stage: stage(), bad: false }).await;
    rolling.promote(3).await;
    until("the next is asked", async || server.open() == 1 && server.asked().len() == 2).await;
    drop(rolling);
    until("it ends with the controller", async || server.open() == 0).await;
}

#[tokio::test]
async fn rollout_check_of_blue_green_is_asked_before_and_after_the_flip() {
    let is_bad = Arc::new(AtomicBool::new(false));
    let server = Server::start(Manner::Switch(is_bad.clone(), "worse")).await;
    let flip = BlueGreen { pause: false, watch: Some(span(3_600_000)) };
    let checks = vec![check("smoke", http(&server))];
    let spec = RolloutSpec { strategy: Strategy::BlueGreen(flip), checks, ..RolloutSpec::default() };
    let rolling = Rolling::new(spec).await;
    rolling.promote(2).await;
    let is_watched = |engine: &crate::engine::Engine| {
        engine
            .state
            .stage(&stage())
            .and_then(|stage| stage.watched())
            .map(|watching| (watching.release, watching.number))
    };
    let mut watched = None;
    until("it has flipped by itself", async || {
        watched = rolling.world.engine.read(is_watched).await.flatten();
        watched.is_some()
    })
    .await;
    let (release, number) = watched.expect("it has");
    assert_eq!(release, r(2));
    until("it is well", async || rolling.seen("smoke").await == Some(((number, 0), CheckSeen::Well))).await;
    is_bad.store(true, Ordering::SeqCst);
    let words = rolling.rolled_back().await;
    assert!(words.contains("worse"), "{words}");
    until("its connections are closed", async || server.open() == 0).await;
}

#[tokio::test]
async fn rollout_check_is_never_run_twice_at_once() {
    let shared = tempfile::tempdir().expect("folder");
    // Holds a lock while it runs, takes its time to end, and says so when somebody else holds it.
    let script = "trap 'sleep 0.05; exit 1' TERM; exec 9>lock; flock -n 9 || echo twice >> twice; echo >> runs; sleep 0.02 9>&-; sleep 600 9>&- & wait";
    let script = format!("cd {} && {script}", shared.path().display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let slow = Check { timeout: span(3_600_000), ..check("smoke", CheckKind::Command { command }) };
    let rolling = Rolling::new(in_steps(vec![slow])).await;
    let runs = || std::fs::read_to_string(shared.path().join("runs")).unwrap_or_default().len();
    let mut before = 0;
    for number in [2, 3, 2, 3] {
        rolling.promote(number).await;
        until("it runs", async || runs() > before).await;
        before = runs();
        rolling.does(Command::SkipStep { stage: stage() }).await;
        until("it runs at the next step", async || runs() > before).await;
        before = runs();
        rolling.does(Command::AbortRollout { stage: stage(), bad: false }).await;
    }
    assert!(!shared.path().join("twice").exists(), "it ran twice at once");
}

#[tokio::test]
async fn rollout_check_without_an_answer_is_not_well_and_not_failed() {
    let empty = "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}";
    // Stands in for Prometheus: this is what it answers to a query without a result.
    let server = Server::start(Manner::answer("200 OK", "", empty)).await;
    let limits = crate::core::spec::Limits { least: Some("0".into()), most: None };
    let kind = CheckKind::prometheus(server.url(""), "up{{release=\"{release}\"}", limits);
    let rolling = Rolling::new(in_steps(vec![check("orders", kind)])).await;
    rolling.promote(2).await;
    until("it is asked often", async || server.asked().len() > 5).await;
    let head = &server.asked()[0];
    assert!(head.starts_with("GET /api/v1/query?query=up%7Brelease%3D%22r2%22%7D HTTP/1.1\r\n"), "{head}");
    assert_eq!(rolling.seen("orders").await, Some(((2, 0), CheckSeen::NotYet)));
    assert_eq!(rolling.shown().await, ("not yet".into(), "neither yes nor no: the query has no result".into()));
    // Of the next step nothing is known yet that this one said.
    rolling.does(Command::SkipStep { stage: stage() }).await;
    let said = |step: u32| move |engine: &crate::engine::Engine| engine.fleet.said(&stage(), (2, step));
    until("the next is known", async || rolling.world.engine.read(said(1)).await.is_some_and(|said| !said.is_empty()))
        .await;
    assert_eq!(rolling.world.engine.read(said(0)).await, Some(std::collections::BTreeMap::new()));
}

#[tokio::test]
async fn rollout_check_that_fails_less_often_than_counts_says_so() {
    let server = Server::start(Manner::answer("503 Service Unavailable", "", "")).await;
    let smoke = Check { fall: 100, ..check("smoke", CheckKind::http(server.url("/"))) };
    let rolling = Rolling::new(in_steps(vec![Check { every: span(3_600_000), ..smoke }])).await;
    rolling.promote(2).await;
    until("it is asked", async || rolling.seen("smoke").await.is_some()).await;
    let said = "failed 1 of 100 times in a row: it answered 503 Service Unavailable";
    until("it says so", async || rolling.shown().await.1 == said).await;
    assert_eq!(rolling.shown().await.0, "not yet");
}

/// Whether a process of this number runs.
fn is_alive(number: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", number.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn rollout_checks_end_in_order_with_the_controller() {
    let shared = tempfile::tempdir().expect("folder");
    let numbers = shared.path().join("numbers");
    // One that left the command's process group, and the command itself, which takes its time.
    let stray = format!("setsid sh -c 'echo $$ >> {0}; exec sleep 600' & echo $$ >> {0};", numbers.display());
    let script =
        format!("trap 'sleep 0.1; echo ended > {}; exit 1' TERM; {stray} wait", shared.path().join("ended").display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let server = Server::start(Manner::Hang).await;
    let hour = |name: &str, kind: CheckKind| Check { timeout: span(3_600_000), ..check(name, kind) };
    let checks = vec![hour("ledger", CheckKind::Command { command }), hour("smoke", http(&server))];
    let rolling = Rolling::new(in_steps(checks)).await;
    rolling.promote(2).await;
    let read = || std::fs::read_to_string(&numbers).unwrap_or_default();
    until("both are asked", async || server.open() == 1 && read().lines().count() == 2).await;
    let work = rolling.world.folder.path().join("checks/work");
    assert_eq!(std::fs::read_dir(&work).map_or(0, Iterator::count), 1);
    rolling.stop.send_replace(true);
    until("it has ended", async || rolling.driver.is_finished()).await;
    // All of it at once: nothing is left to the next start.
    assert!(!read().lines().any(is_alive), "{}", read());
    assert_eq!(std::fs::read_dir(&work).map_or(0, Iterator::count), 0);
    assert!(shared.path().join("ended").exists(), "it was asked to end before it was made to");
    until("its connections are closed", async || server.open() == 0).await;
    assert_eq!(
        rolling.seen("smoke").await.map(|(_, seen)| seen),
        Some(CheckSeen::NotYet),
        "that it was ended is nothing that it said"
    );
}
