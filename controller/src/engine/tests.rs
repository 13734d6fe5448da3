//! The engine on a real store, in a folder of its own.

use std::path::Path;

use api::fleet::Hello;
use api::{EnvironmentName, MemberName, Scope};

use super::*;
use api::ReleaseName;

use crate::builder::Order;
use crate::core::Mark;
use crate::core::spec::{ServiceSpec, TriggerSpec};
use crate::store::Opened;

/// An engine that leads.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) engine: Handle,
    /// What happened; holds so few events that who reads slowly misses some.
    pub(crate) happened: broadcast::Sender<Arc<Record>>,
    pub(crate) ended: oneshot::Receiver<Result<(), NotDone>>,
    /// Builds that are due.
    pub(crate) builds: mpsc::UnboundedReceiver<Order>,
}

/// The state that is on disk, by folding all of it, and with the checkpoint as a start would.
fn on_disk(folder: &Path) -> (State, State) {
    let Opened { store, checkpoint, .. } = Store::open(folder).expect("the store is whole");
    let mut folded = State::default();
    fold(&mut folded, &store.read(1, usize::MAX).expect("read")).expect("fold");
    let (from, mut started) = checkpoint.map_or_else(Default::default, |checkpoint| {
        (checkpoint.seq, serde_json::from_slice(&checkpoint.state).expect("a state"))
    });
    fold(&mut started, &store.read(from + 1, usize::MAX).expect("read")).expect("fold");
    (folded, started)
}

impl World {
    pub(crate) async fn new() -> Self {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store").store;
        let (builds, due) = mpsc::unbounded_channel();
        let (happened, _) = broadcast::channel(16);
        let parts = Parts {
            state: State::default(),
            store,
            checkpointed: 0,
            last_ms: 0,
            publisher: Publisher::new(folder.path()).expect("publisher"),
            fleet: Arc::new(Fleet::new()),
            happened: happened.clone(),
            builds,
            fault: Fault::default(),
        };
        let (engine, ended) = start(parts);
        engine.read(|_| ()).await.expect("it leads");
        Self { folder, engine, happened, ended, builds: due }
    }

    pub(crate) async fn carries_out(&self, submission: Submission) -> Accepted {
        self.engine.submit(submission, Priority::Normal).await.expect("carried out")
    }

    /// Revokes an operator's token.
    pub(crate) async fn revokes(&self, name: &str) {
        let command = Command::RevokeToken { name: name.parse().expect("name") };
        self.carries_out(Submission::of("test", String::new(), command)).await;
    }

    /// How the engine ended, which it must have by itself, and what it left behind.
    async fn ends_with_its_store(self) {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.ended).await.expect("the engine ends");
        let ended = ended.expect("it says how");
        assert!(matches!(ended, Err(NotDone::Store(StoreError::Uncertain { .. }))), "{ended:?}");
        let (folded, started) = on_disk(self.folder.path());
        assert_eq!(started, folded, "the checkpoint hides an event");
    }
}

/// Makes an operator's token.
pub(crate) fn token(name: &str) -> Submission {
    let (name, secret) = (name.parse().expect("name"), api::Digest::of(name.as_bytes()));
    Submission::of("test", String::new(), Command::CreateToken { name, secret, scope: Scope::admin() })
}

#[tokio::test]
async fn a_store_that_fails_under_a_command_ends_the_engine_and_hides_nothing() {
    let world = World::new().await;
    world.carries_out(token("one")).await;
    world.engine.tell(|engine| engine.store.fail_from_now_on());
    let answer = world.engine.submit(token("two"), Priority::Normal).await;
    assert!(matches!(answer, Err(NotDone::Store(StoreError::Uncertain { .. }))), "{answer:?}");
    world.ends_with_its_store().await;
}

#[tokio::test]
async fn a_store_that_fails_under_what_is_due_ends_the_engine() {
    let world = World::new().await;
    world.engine.tell(|engine| {
        engine.store.fail_from_now_on();
        // A release whose build is due.
        let name: ReleaseName = "hello@r1".parse().expect("name");
        let spec = ServiceSpec {
            name: name.service.clone(),
            source: None,
            trigger: TriggerSpec::default(),
            build: None,
            components: BTreeMap::new(),
            stages: BTreeMap::<EnvironmentName, _>::new(),
        };
        let mark = Mark { seq: 0, at_ms: 0, by: "", reason: "", request: "" };
        engine.state.evolve(&Event::ServiceApplied { spec }, mark);
        engine.state.evolve(&Event::ReleaseRequested { release: name, wanted: Box::default() }, mark);
    });
    world.ends_with_its_store().await;
}

#[tokio::test]
async fn a_store_that_fails_under_a_new_term_ends_the_engine() {
    let world = World::new().await;
    let (sender, _receiver) = mpsc::channel(crate::fleet::QUEUE);
    world.engine.tell(move |engine| {
        engine.store.fail_from_now_on();
        let ahead = Hello { have: Some(Version { term: 9, number: 1 }.into()), ..Hello::default() };
        engine.attach_proxy(&"p1".parse().expect("name"), 1, &ahead, sender, &Sealed::default());
    });
    world.ends_with_its_store().await;
}

#[tokio::test]
async fn a_term_that_no_controller_can_have_had_is_not_believed() {
    let world = World::new().await;
    for term in [20_000, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let (sender, mut receiver) = mpsc::channel(crate::fleet::QUEUE);
        let hello = Hello { have: Some(Version { term, number: u64::MAX }.into()), ..Hello::default() };
        let attach = move |engine: &mut Engine| {
            engine.attach_proxy(&"p1".parse().expect("name"), 1, &hello, sender, &Sealed::default())
        };
        world.engine.tell_and_wait(attach).await;
        assert!(receiver.recv().await.is_none(), "its stream ends");
        let now = world.engine.read(|engine| (engine.state.term, engine.fleet.proxies().len())).await;
        assert_eq!(now, Some((1, 0)), "{term}");
    }
    let (sender, _receiver) = mpsc::channel(crate::fleet::QUEUE);
    let hello = Hello { have: Some(Version { term: 9_000, number: 1 }.into()), ..Hello::default() };
    let attach = move |engine: &mut Engine| {
        engine.attach_proxy(&"p1".parse().expect("name"), 1, &hello, sender, &Sealed::default())
    };
    world.engine.tell_and_wait(attach).await;
    assert_eq!(world.engine.read(|engine| engine.state.term).await, Some(9_001), "a backup may be old");
}

#[tokio::test]
async fn a_repeated_request_is_answered_with_all_its_events_and_to_its_operator_only() {
    let world = World::new().await;
    let spec = |number: usize| ServiceSpec {
        name: format!("s{number}").parse().expect("name"),
        source: None,
        trigger: TriggerSpec::default(),
        build: None,
        components: BTreeMap::new(),
        stages: BTreeMap::new(),
    };
    for count in [1, EVENTS_OF_ONE, EVENTS_OF_ONE * 2, EVENTS_OF_ONE * 2 + 3] {
        let services = (0..count).map(|number| spec(count * 100 + number)).collect();
        let apply = Submission::of(
            "anna",
            String::new(),
            Command::Apply { environments: Vec::new(), services, access: None, releases: None },
        );
        let ask = |by: &str| {
            let mut submission = Submission::of(by, String::new(), apply.command.clone());
            submission.request = format!("apply-{count}");
            world.engine.submit(submission, Priority::Normal)
        };
        let first = ask("anna").await.expect("applied");
        world.carries_out(token(&format!("t{count}"))).await;
        let again = ask("anna").await.expect("answered");
        assert_eq!((again.event, again.events, first.events.len()), (first.event, first.events, count));
        let other = ask("bert").await;
        assert!(
            matches!(&other, Err(NotDone::Refused(Refusal::Refused(why))) if why.contains("somebody else")),
            "{other:?}"
        );
    }
}

/// An agent of group "prod" joins and connects; what it is told comes out of the receiver.
async fn agent(world: &World, queue: usize) -> mpsc::Receiver<api::agent::ControllerMessage> {
    let name: MemberName = "a1".parse().expect("name");
    let (role, group) = (Role::Agent, "prod".to_owned());
    let secret = api::Digest::of(b"s");
    let invite = Command::Invite { name: name.clone(), role, group, secret, until_ms: u64::MAX };
    world.carries_out(Submission::own(invite)).await;
    world.carries_out(Submission::own(Command::Join { name: name.clone(), serial: "01".into() })).await;
    let (messages, told) = mpsc::channel(queue);
    let attach =
        |engine: &mut Engine| engine.attach_agent(name, String::new(), AgentSender { connection: 1, messages });
    world.engine.tell_and_wait(attach).await;
    told
}

fn generation(message: Option<api::agent::ControllerMessage>) -> u64 {
    match message.and_then(|message| message.kind) {
        Some(api::agent::controller_message::Kind::Desired(desired)) => desired.generation,
        other => panic!("{other:?}"),
    }
}

async fn reports(world: &World, generation: u64) {
    let report =
        move |engine: &mut Engine| engine.observe_agent("a1".parse().expect("name"), 1, generation, Vec::new());
    world.engine.tell_and_wait(report).await;
}

async fn is_seen(world: &World) -> bool {
    let name: MemberName = "a1".parse().expect("name");
    world.engine.read(move |engine| engine.seen.agents.contains_key(&name)).await.expect("it leads")
}

#[tokio::test]
async fn an_agent_is_seen_as_it_reports_on_what_it_was_told() {
    let world = World::new().await;
    let mut told = agent(&world, 8).await;
    let first = generation(told.recv().await);
    reports(&world, first - 1).await;
    assert!(!is_seen(&world).await, "it has not taken in what should run");
    reports(&world, first).await;
    assert!(is_seen(&world).await);
    // Revoked: nothing that it said counts.
    let revoke = Command::RevokeMember { name: "a1".parse().expect("name") };
    world.carries_out(Submission::own(revoke)).await;
    assert!(!is_seen(&world).await);
    reports(&world, first).await;
    assert!(!is_seen(&world).await);
}

#[tokio::test]
async fn an_agent_that_takes_nothing_is_not_seen_any_more() {
    let world = World::new().await;
    let mut told = agent(&world, 1).await;
    let first = generation(told.recv().await);
    reports(&world, first).await;
    assert!(is_seen(&world).await);
    drop(told); // Its connection is broken, and nobody has noticed yet.
    let changed = |engine: &mut Engine| {
        engine.agents.forget_told();
        engine.publish(&[]);
    };
    world.engine.tell_and_wait(changed).await;
    assert!(!is_seen(&world).await);
}
