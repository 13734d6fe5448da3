//! A world in which tests let commands happen: state, observations and a clock that only tests move.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::{MemberName, ReleaseNumber, Span, StageName};

use super::evolve::Mark;
use super::observe::{InstanceSeen, RolloutSeen};
use super::spec::{
    ComponentSpec, EnvironmentSpec, HealthSpec, HttpsSpec, KEEP_WARM, Protocol, RolloutSpec, ServiceSpec, Source,
    StageSpec, Target, TriggerSpec,
};
use super::state::{Addresses, Artifact, ArtifactKind, Wanted};
use super::*;

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) seen: Observations,
    pub(crate) now_ms: u64,
    pub(crate) log: Vec<(Event, u64)>,
    /// With which people's next commands say what they go past.
    pub(crate) past: Option<ReleaseNumber>,
}

fn span(ms: u64) -> Span {
    Span::from_ms(ms).expect("a span")
}

/// A commit as somebody asks for it.
pub(crate) fn wanted(commit: &str) -> Box<Wanted> {
    Box::new(Wanted { commit: commit.to_owned(), subject: "s".into(), ..Wanted::default() })
}

/// A build of one component, without an artifact.
pub(crate) fn built() -> command::Built {
    command::Built {
        components: [("web".parse().expect("name"), component())].into(),
        artifacts: BTreeMap::new(),
        for_environments: BTreeMap::new(),
        build: None,
        checks: Vec::new(),
        kept_from: None,
    }
}

/// A build that went wrong.
pub(crate) fn failed(problem: &str) -> command::BuildFailed {
    command::BuildFailed { problem: problem.to_owned(), ..Default::default() }
}

/// A folder that was packed.
pub(crate) fn artifact(bytes: &[u8]) -> Artifact {
    Artifact { digest: api::Digest::of(bytes), bytes: 1, kind: ArtifactKind::Folder, place: None }
}

pub(crate) fn component() -> ComponentSpec {
    ComponentSpec {
        folder: "dist".into(),
        image: None,
        run: vec!["./hello".into(), "--port".into(), "{port}".into()],
        protocol: Some(Protocol::H1),
        tls: None,
        health: HealthSpec {
            http: Some("/healthz".into()),
            every: span(2_000),
            timeout: span(1_000),
            fall: 3,
            rise: 1,
        },
        environment: BTreeMap::new(),
        stop: span(30_000),
    }
}

impl World {
    /// dev -> staging -> production, on agents of group `prod` or with static addresses; nothing released.
    pub(crate) fn new(on_agents: bool) -> Self {
        let target = if on_agents { Target::Agent { group: "prod".parse().expect("name") } } else { Target::Static };
        let names = ["dev", "staging", "production"];
        let environment = |name: &&str| EnvironmentSpec {
            name: name.parse().expect("name"),
            zone: format!("{name}.example.com").parse().expect("zone"),
            time_zone: "UTC".into(),
            target: target.clone(),
            keep_warm: KEEP_WARM,
            reason_required: false,
            https: HttpsSpec::default(),
            certificates: Default::default(),
            client_certificates: None,
            denial: Default::default(),
            credentials: Default::default(),
            may_be_public: true,
        };
        let stage = |(at, name): (usize, &&str)| {
            let from = if at == 0 { vec![] } else { vec![names[at - 1].parse().expect("name")] };
            (name.parse().expect("name"), StageSpec { from, ..StageSpec::default() })
        };
        let service = ServiceSpec {
            name: "hello".parse().expect("name"),
            source: Some(Source { repository: "/srv/hello.git".into(), branch: "main".into(), tags: None }),
            trigger: TriggerSpec::default(),
            build: None,
            components: [("web".parse().expect("name"), component())].into(),
            stages: names.iter().enumerate().map(stage).collect(),
        };
        let mut world = Self {
            state: State::default(),
            seen: Observations::default(),
            now_ms: 1_000_000,
            log: Vec::new(),
            past: None,
        };
        world.command(Command::Start { above: 0 }, "").expect("starts");
        let apply = Command::Apply {
            environments: names.iter().map(environment).collect(),
            services: vec![service],
            access: None,
            releases: None,
        };
        world.command(apply, "").expect("applies");
        world
    }

    pub(crate) fn with_static_releases(count: u16) -> Self {
        let mut world = Self::new(false);
        for number in 1..=count {
            let address: SocketAddr = ([10, 0, 0, 1], 8_000 + number).into();
            let addresses = vec![Addresses {
                environment: None,
                component: "web".parse().expect("name"),
                addresses: vec![address],
            }];
            let command = Command::AddRelease {
                service: "hello".parse().expect("name"),
                version: format!("1.{number}"),
                commit: String::new(),
                addresses,
                artifacts: Vec::new(),
            };
            world.command(command, "").expect("added");
        }
        world
    }

    pub(crate) fn with_built_releases(count: u32) -> Self {
        Self::with_built_releases_of(count, &|_| {})
    }

    /// Releases whose build came out as `shaped` leaves it.
    pub(crate) fn with_built_releases_of(count: u32, shaped: &dyn Fn(&mut command::Built)) -> Self {
        let mut world = Self::new(true);
        for number in 1..=count {
            let command = Command::Build {
                service: "hello".parse().expect("name"),
                wanted: wanted(&number.to_string().repeat(40)),
                again: false,
            };
            world.command(command, "").expect("queued");
            world.run_due();
            let artifact = artifact(&number.to_be_bytes());
            let artifacts = [("web".parse().expect("name"), artifact)].into();
            let mut built = command::Built { artifacts, ..built() };
            shaped(&mut built);
            world
                .command(
                    Command::EndBuild {
                        release: format!("hello@r{number}").parse().expect("name"),
                        outcome: Ok(built),
                    },
                    "",
                )
                .expect("built");
        }
        world
    }

    /// So many releases are built; r2 serves hello/dev on the agent a1, after r1.
    pub(crate) fn with_two_of(count: u32) -> Self {
        Self::with_two_of_by(count, RolloutSpec::default())
    }

    /// As `with_two_of`; they enter by `spec`.
    pub(crate) fn with_two_of_by(count: u32, spec: RolloutSpec) -> Self {
        let mut world = Self::with_built_releases(count);
        world.join_agent("a1");
        world.enter_by("dev", spec);
        for release in ["hello@r1", "hello@r2"] {
            world.promote(release, "dev", None).expect("starts");
            world.report_healthy("a1");
            world.run_due();
        }
        world
    }

    pub(crate) fn promoted_everywhere(mut self, release: &str) -> Self {
        self.promote_down(release);
        self.promote(release, "production", None).expect("production");
        self
    }

    /// Through dev and staging.
    pub(crate) fn promote_down(&mut self, release: &str) {
        self.promote(release, "dev", None).expect("dev");
        self.promote(release, "staging", None).expect("staging");
    }

    pub(crate) fn context(&self, reason: &str) -> Context {
        Context { by: "test".into(), reason: reason.into(), now_ms: self.now_ms, past: self.past }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a test hands a command over and is done with it")]
    pub(crate) fn command(&mut self, command: Command, reason: &str) -> Result<Decision, Refusal> {
        let decision = decide(&self.state, &command, &self.context(reason))?;
        for event in &decision.events {
            let seq = self.log.len() as u64 + 1;
            self.state.evolve(event, Mark { seq, at_ms: self.now_ms, by: "test", reason, request: "" });
            self.log.push((event.clone(), self.now_ms));
        }
        Ok(decision)
    }

    pub(crate) fn promote(
        &mut self,
        release: &str,
        environment: &str,
        share: Option<api::Share>,
    ) -> Result<Decision, Refusal> {
        let command = Command::Promote {
            release: release.parse().expect("name"),
            environment: environment.parse().expect("name"),
            share,
            bypass: false,
        };
        self.command(command, "")
    }

    /// From now on releases enter the stage in this way.
    pub(crate) fn enter_by(&mut self, environment: &str, rollout: RolloutSpec) {
        let mut spec = self.state.services.values().next().expect("hello").spec.clone();
        spec.stages.get_mut(&environment.parse().expect("name")).expect("a stage").rollout = rollout;
        let apply = Command::Apply { environments: Vec::new(), services: vec![spec], access: None, releases: None };
        self.command(apply, "other ways").expect("applied");
    }

    /// Sees this of the rollout as it is now, or of what is watched, and does what follows.
    pub(crate) fn see(&mut self, stage: &str, change: impl FnOnce(&mut RolloutSeen)) {
        let name: StageName = stage.parse().expect("name");
        let found = self.state.stage(&name).and_then(rollout::seen_as);
        let (number, step) = found.expect("something is looked at");
        let mut seen = RolloutSeen::nothing(number, step);
        change(&mut seen);
        self.seen.rollouts.insert(name, seen);
        self.run_due();
    }

    pub(crate) fn weigh(&mut self, stage: &str, share: &str) -> Result<Decision, Refusal> {
        self.command(Command::Weigh { stage: stage.parse().expect("name"), share: share.parse().expect("share") }, "")
    }

    pub(crate) fn rollback(&mut self, stage: &str, to: Option<ReleaseNumber>) -> Result<Decision, Refusal> {
        self.command(Command::Rollback { stage: stage.parse().expect("name"), to }, "")
    }

    pub(crate) fn join_agent(&mut self, name: &str) {
        let name: MemberName = name.parse().expect("name");
        let invite = Command::Invite {
            name: name.clone(),
            role: certs::fleet::Role::Agent,
            group: "prod".into(),
            secret: api::Digest::of(b"s"),
            until_ms: u64::MAX,
        };
        self.command(invite, "").expect("invited");
        self.command(Command::Join { name: name.clone(), serial: "01".into() }, "").expect("joined");
        self.seen.agents.insert(name, BTreeMap::new());
    }

    /// The agent runs all that it should, and all of it is healthy.
    pub(crate) fn report_healthy(&mut self, agent: &str) {
        let name: MemberName = agent.parse().expect("name");
        let instances = desired::of_agent(&self.state, &name).into_iter().zip(20_000..).map(|(instance, port)| {
            let address = Some(([10, 0, 0, 1], port).into());
            (
                instance.id,
                InstanceSeen { healthy: true, address, state: "healthy", problem: String::new(), restarts: 0 },
            )
        });
        self.seen.agents.insert(name, instances.collect());
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Carries out what is due until nothing is; builds are left to the test.
    pub(crate) fn run_due(&mut self) {
        let past = self.past.take();
        self.run_all_due();
        self.past = past;
    }

    fn run_all_due(&mut self) {
        for _ in 0..100 {
            let mut moved = false;
            for due in due(&self.state, &self.seen, self.now_ms) {
                if let Due::Command(command) = due {
                    let moves = matches!(command, Command::MoveRollout { .. } | Command::EnterQueued { .. });
                    let done = self.command(command, "");
                    // A refusal would come again with each look.
                    assert!(done.is_ok() || !moves, "{done:?}");
                    let passes = |decision: &Decision| {
                        decision.events.iter().any(|event| matches!(event, Event::MarksPassed { .. }))
                    };
                    assert!(!done.as_ref().is_ok_and(passes), "nothing passes a mark by itself: {done:?}");
                    moved |= done.is_ok_and(|decision| !decision.events.is_empty());
                }
            }
            if !moved {
                return;
            }
        }
        panic!("what is due never ends");
    }

    pub(crate) fn stage_names(&self) -> Vec<StageName> {
        self.state.stage_names().collect()
    }
}
