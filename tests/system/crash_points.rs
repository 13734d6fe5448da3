//! A crash at every point between decision and effect ends in the state of a run without one, no step done twice.

use api::operator::change_request::Verb;
use api::operator::{AddReleaseRequest, BuildReleaseRequest, StaticAddress};
use tonic::{Code, Status};

use crate::harness::{
    Changed, Client, Happened, House, Operator, PROGRAM, Proxy, Repository, STAGE, Serving, Speech, Upstream,
    is_broken, request_id, until,
};

const POINTS: [&str; 4] = ["before_append", "after_append", "after_evolve", "after_publish"];

/// A house whose controller ends at a fault point once, and whoever asks it asks again.
pub(crate) struct Story {
    pub(crate) house: House,
    crashes: u32,
}

/// How a story ends: what serves, and what happened in which order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    serving: Serving,
    happened: Vec<(String, String)>,
    served: Option<String>,
    /// What else a story looked at.
    pub(crate) left: Vec<String>,
}

impl Story {
    /// Goes on with a controller that will end at `fault`.
    pub(crate) async fn new(mut house: House, fault: Option<&str>) -> Self {
        house.stop_controller().await;
        match fault {
            Some(fault) => house.start_controller(&["--fault", fault]).await,
            None => house.start_controller(&[]).await,
        }
        Self { house, crashes: 0 }
    }

    /// Asks until there is an answer: after a crash the same request again, of the controller that came back.
    pub(crate) async fn ask<T>(&mut self, mut question: impl AsyncFnMut(Operator) -> Result<T, Status>) -> T {
        loop {
            match question(self.house.operator()).await {
                Ok(answer) => return answer,
                Err(status) if is_broken(&status) => self.revive().await,
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    async fn revive(&mut self) {
        self.house.revive_controller().await;
        self.crashes += 1;
    }

    async fn change(&mut self, verb: Verb) {
        let id = request_id();
        let changed = self.ask(async |mut operator| operator.send(&id, verb.clone()).await).await;
        assert!(changed.outcome.failed.is_empty(), "{changed:#?}");
    }

    /// Waits for the controller to do something by itself.
    pub(crate) async fn waits_for(&mut self, what: &str, kind: &str, times: usize) {
        until(what, async || {
            if !self.house.controller().runs() {
                self.revive().await;
            }
            let said = self.house.run(&["-o", "json", "history", "-n", "0"]).await;
            if said.code != Some(0) {
                return None;
            }
            let count = Happened::read(&said.json()).iter().filter(|entry| entry.kind == kind).count();
            (count >= times).then_some(())
        })
        .await;
    }

    pub(crate) async fn end(mut self, fault: Option<&str>, proxy: Option<Proxy>) -> End {
        // The last step may be the one that ends it: then it is about to.
        if fault.is_some() && self.crashes == 0 {
            self.revive().await;
        }
        assert_eq!(self.crashes, u32::from(fault.is_some()), "{fault:?} was reached");
        let served = match proxy {
            Some(proxy) => {
                self.house.follows("p1").await;
                Some(format!("{:?}", Client::plain(proxy.http, Speech::Http2).counts(20).await))
            }
            None => None,
        };
        let history = self.house.history().await.into_iter().filter(|entry| entry.kind != "started");
        let happened = history.map(|entry| (entry.kind, entry.about)).collect();
        End { serving: self.house.serving().await, happened, served, left: Vec::new() }
    }
}

/// Runs a story without a fault, then with one at every point for every kind, and compares the ends.
pub(crate) async fn compare(kinds: &[&str], tell: impl AsyncFn(Option<&str>) -> End) {
    let whole = tell(None).await;
    for kind in kinds {
        assert!(whole.happened.iter().any(|(happened, _)| happened == kind), "the story has no {kind}: {whole:#?}");
    }
    for kind in kinds {
        for point in POINTS {
            let fault = format!("{point}:{kind}");
            assert_eq!(tell(Some(&fault)).await, whole, "{fault}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_every_point_of_traffic_ends_as_without_a_crash() {
    let kinds = ["promoted", "share_set", "completed", "rolled_back", "unheld", "warmth_ended", "retired"];
    compare(&kinds, traffic).await;
}

/// r1 takes the stage; r2 is let in, rolled back from, let in again, and completes.
async fn traffic(fault: Option<&str>) -> End {
    let mut house = House::with_hello().await;
    let brief = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                 target = { kind = \"static\" }\nkeep_warm = \"100ms\"\n";
    house.apply(&[("production.toml", brief)]).await;
    let (r1, r2) = (Upstream::start("r1").await, Upstream::start("r2").await);
    house.release(&r1).await;
    house.release(&r2).await;
    let proxy = house.proxy("p1", 1).await;
    let mut story = Story::new(house, fault).await;
    story.change(Changed::promote(1, None)).await;
    story.change(Changed::promote(2, Some(100_000))).await;
    story.change(Changed::weight(500_000)).await;
    story.change(Changed::rollback()).await;
    story.waits_for("r2 leaves", "retired", 1).await;
    story.change(Changed::unhold(2)).await;
    story.change(Changed::promote(2, Some(200_000))).await;
    story.change(Changed::weight(1_000_000)).await;
    story.waits_for("r1 leaves", "retired", 2).await;
    story.end(fault, Some(proxy)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_every_point_of_a_build_ends_as_without_a_crash() {
    compare(&["release_requested", "build_started", "release_built", "release_added"], building).await;
}

/// Two commits become releases, and a third release is added by its addresses.
async fn building(fault: Option<&str>) -> End {
    let house = House::with_hello().await;
    let repository = Repository::new(house.path("hello"));
    house.apply(&[("pointsman.toml", &repository.service())]).await;
    let mut story = Story::new(house, fault).await;
    for number in 1..=2 {
        let build =
            BuildReleaseRequest { service: "hello".into(), request_id: request_id(), ..BuildReleaseRequest::default() };
        story.ask(async |mut operator| made(operator.calls.build_release(build.clone()).await)).await;
        story.waits_for("the release is built", "release_built", number).await;
        repository.commit("another");
    }
    let addresses =
        vec![StaticAddress { component: "web".into(), addresses: vec!["127.0.0.1:1".into()], ..Default::default() }];
    let add = AddReleaseRequest { service: "hello".into(), request_id: request_id(), addresses, ..Default::default() };
    story.ask(async |mut operator| made(operator.calls.add_release(add.clone()).await)).await;
    story.end(fault, None).await
}

/// A release that the request had made before the crash is as good as one that it makes now.
pub(crate) fn made<T>(reply: Result<T, Status>) -> Result<(), Status> {
    match reply {
        Err(status) if status.code() == Code::AlreadyExists => Ok(()),
        reply => reply.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_every_point_of_a_start_on_an_agent_ends_as_without_a_crash() {
    compare(&["promoted", "placed", "entered", "completed"], starting).await;
}

/// A built release starts on an agent and takes the stage.
async fn starting(fault: Option<&str>) -> End {
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
                       target = { kind = \"agent\", group = \"prod\" }\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", &repository.service())]).await;
    house.agent("a1", "prod").await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    let proxy = house.proxy("p1", 1).await;
    let mut story = Story::new(house, fault).await;
    story.change(Changed::promote(1, None)).await;
    story.waits_for("r1 serves", "completed", 1).await;
    story.end(fault, Some(proxy)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_between_record_and_effect_a_repeated_rollback_answers_only_when_the_fleet_has_it() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["promote", "hello@r2", "--to", "production", "--weight", "90%"]).await.ends(0);
    let mut story = Story::new(house, Some("after_append:rolled_back")).await;
    story.house.follows("p1").await;
    let id = request_id();
    let crashed = story.house.operator().send(&id, Changed::rollback()).await;
    assert!(is_broken(&crashed.expect_err("it crashed")));
    // The proxy cannot have heard of it.
    story.house.part("p1").signal(rustix::process::Signal::STOP);
    story.house.revive_controller().await;
    let repeated = story.house.operator().send(&id, Changed::rollback()).await.expect("answered");
    story.house.part("p1").signal(rustix::process::Signal::CONT);
    let lagging: Vec<&str> = repeated.outcome.lagging.iter().map(|lagging| lagging.proxy.as_str()).collect();
    assert_eq!(lagging, ["p1"], "the proxy was stopped: {repeated:#?}");
    story.house.follows("p1").await;
    let serving = story.house.serving().await;
    assert_eq!(serving.of(STAGE, 1), Some(("stable", 1_000_000)), "{serving:?}");
    assert_eq!(Client::plain(proxy.http, Speech::Http1).counts(10).await["r1"], 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_before_a_command_hears_of_its_change_it_still_ends_with_the_real_code() {
    for (fault, line) in [
        ("before_append:promoted", &["promote", "hello@r2", "--to", "production", "--weight", "10%"][..]),
        ("after_append:promoted", &["promote", "hello@r2", "--to", "production", "--weight", "10%"]),
    ] {
        let house = House::with_hello().await;
        let (_r1, _r2) = house.two_releases().await;
        let mut story = Story::new(house, Some(fault)).await;
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(line).env("POINTSMAN_CONTEXT", story.house.context()).kill_on_drop(true);
        let said = tokio::spawn(async move { command.output().await.expect("it runs") });
        story.revive().await;
        let said = said.await.expect("it ends");
        assert_eq!(said.status.code(), Some(0), "{fault}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_amid_a_build_that_is_followed_it_ends_with_the_real_code() {
    let fault = "after_append:release_built";
    let house = House::with_hello().await;
    let service = Repository::new(house.path("hello")).service();
    house.apply(&[("pointsman.toml", &service)]).await;
    let mut story = Story::new(house, Some(fault)).await;
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["release", "build", "hello"]).env("POINTSMAN_CONTEXT", story.house.context()).kill_on_drop(true);
    let said = tokio::spawn(async move { command.output().await.expect("it runs") });
    story.revive().await;
    let said = said.await.expect("it ends");
    assert_eq!(said.status.code(), Some(0), "{fault}: {}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_or_not_a_command_that_nobody_reads_ends_with_the_real_code() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    house.proxy("p1", 1).await;
    house.part("p1").signal(rustix::process::Signal::STOP);
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["promote", "hello@r2", "--to", "production", "--weight", "10%"]);
    let said = command.env("POINTSMAN_CONTEXT", house.context()).stdout(closed()).status();
    let code = said.await.expect("it runs").code();
    house.part("p1").signal(rustix::process::Signal::CONT);
    assert_eq!(code, Some(3), "the proxy was stopped");

    let token = house.invite(&["agent", "--name", "a1"]).await;
    let mut agent = tokio::process::Command::new(PROGRAM);
    agent.args(["agent", "--join", &token, "--data"]).arg(house.path("a1")).stdout(closed()).kill_on_drop(true);
    let _agent = agent.spawn().expect("it starts");
    until("a1 is connected", async || {
        let fleet = house.json(&["fleet", "list"]).await;
        fleet["members"]
            .as_array()?
            .iter()
            .any(|member| member["name"] == "a1" && member["connected"] == true)
            .then_some(())
    })
    .await;
}

/// The end of a pipe that nobody reads.
fn closed() -> std::process::Stdio {
    std::io::pipe().expect("a pipe").1.into()
}
