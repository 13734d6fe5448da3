//! Tables of rollouts in hello/production, where r1 serves and r2 enters.

mod back;
mod epochs;
mod flip;
mod marks;
mod meanwhile;
mod steps;
mod stop;
mod told;

use api::{ReleaseNumber, Share, Span, StageName};

use crate::core::evolve_test::World;
use crate::core::observe::{BreachSeen, RolloutSeen, TrippedSeen};
use crate::core::spec::{
    BlueGreen, Breach, Check, CheckKind, Insiders, Meanwhile, Objective, OnWorse, RolloutSpec, Step, Sticky, Strategy,
};
use crate::core::state::{CheckSeen, Entering, Phase, Rollout, Stage, WatchEnd, Watching, Why};
use crate::core::{Command, Decision, Event, Refusal, State};
use crate::judge::{Answered, Measure, Verdict};

const PRODUCTION: &str = "hello/production";
const MINUTE_MS: u64 = 60_000;

fn r(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).expect("not 0")
}

fn share(text: &str) -> Share {
    text.parse().expect("share")
}

fn span(text: &str) -> Span {
    text.parse().expect("span")
}

fn name() -> StageName {
    PRODUCTION.parse().expect("stage")
}

fn to(text: &str) -> Step {
    Step { share: Some(share(text)), ..Step::default() }
}

fn canary(steps: Vec<Step>) -> RolloutSpec {
    RolloutSpec { strategy: Strategy::Canary(steps), ..RolloutSpec::default() }
}

fn blue_green(pause: bool, watch: Option<&str>) -> RolloutSpec {
    let flip = BlueGreen { pause, watch: watch.map(span) };
    RolloutSpec { strategy: Strategy::BlueGreen(flip), checks: vec![check("smoke")], ..RolloutSpec::default() }
}

fn check(name: &str) -> Check {
    let kind = CheckKind::Http { url: "https://{host}/smoke".into(), app: None, ca: None };
    Check { name: name.into(), kind, every: span("30s"), timeout: span("10s"), fall: 3 }
}

fn well() -> (String, CheckSeen) {
    ("smoke".into(), CheckSeen::Well)
}

fn failed() -> (String, CheckSeen) {
    ("smoke".into(), CheckSeen::Failed("503".into()))
}

/// r1 serves in production, which lets others in by `spec`; r2 to r4 have run upstream.
fn world(spec: RolloutSpec) -> World {
    let mut world = World::with_static_releases(4).promoted_everywhere("hello@r1");
    (2..=4).for_each(|number| world.promote_down(&format!("hello@r{number}")));
    world.enter_by("production", spec);
    world
}

/// And r2 is on its way in.
fn entering(spec: RolloutSpec) -> World {
    let mut world = world(spec);
    world.promote("hello@r2", "production", None).expect("enters");
    world.run_due();
    world
}

impl World {
    fn stage(&self) -> &Stage {
        self.state.stage(&name()).expect("serves")
    }

    fn entering(&self) -> &Entering {
        self.stage().entering.as_ref().expect("a release enters")
    }

    fn rollout(&self) -> &Rollout {
        self.entering().rollout.as_ref().expect("a rollout")
    }

    fn watching(&self) -> Option<&Watching> {
        self.stage().watching.as_ref()
    }

    /// The phase and the share of r2; none: nothing enters.
    fn place(&self) -> Option<(Phase, String)> {
        self.stage().entering.as_ref()?;
        Some((self.rollout().phase, self.stage().share(self.entering().release).to_string()))
    }

    fn is_stable(&self, number: u32) -> bool {
        self.stage().stable == Some(r(number)) && self.stage().entering.is_none()
    }

    fn pause(&mut self) -> Result<Decision, Refusal> {
        self.act(Command::PauseRollout { stage: name() })
    }

    fn resume(&mut self) -> Result<Decision, Refusal> {
        self.act(Command::ResumeRollout { stage: name() })
    }

    fn skip(&mut self) -> Result<Decision, Refusal> {
        self.act(Command::SkipStep { stage: name() })
    }

    fn abort(&mut self, bad: bool) -> Result<Decision, Refusal> {
        self.act(Command::AbortRollout { stage: name(), bad })
    }

    fn act(&mut self, command: Command) -> Result<Decision, Refusal> {
        let done = self.command(command, "");
        self.run_due();
        done
    }

    /// The last event.
    fn last(&self) -> &Event {
        &self.log.last().expect("something happened").0
    }

    fn count(&self, kind: &str) -> usize {
        self.log.iter().filter(|(event, _)| event.kind() == kind).count()
    }
}

/// Whatever it is, it is refused or answered with these words.
fn says(answer: &Result<Decision, Refusal>, words: &str) {
    let said = match answer {
        Ok(decision) => decision.lines.join("; "),
        Err(refusal) => refusal.to_string(),
    };
    assert!(said.contains(words), "{words:?} is not in {said:?}");
}

fn no_worse(requests: u64) -> impl FnOnce(&mut RolloutSeen) {
    move |seen| (seen.requests, seen.verdict) = (requests, Verdict::NoWorse)
}

fn worse(seen: &mut RolloutSeen) {
    seen.verdict = Verdict::Worse { by: Measure::Errors };
    seen.evidence.counted.canary = Answered { requests: 40, failed: 12, slow: 0 };
    seen.evidence.counted.stable = Answered { requests: 4_000, failed: 4, slow: 0 };
}

fn tripped(seen: &mut RolloutSeen) {
    seen.tripped = Some(TrippedSeen { proxy: "p1".parse().expect("name"), failures: 10, among: 12 });
}

fn breached(seen: &mut RolloutSeen) {
    let counted = Answered { requests: 1_000, failed: 50, slow: 0 };
    seen.breach = Some(BreachSeen { by: Measure::Errors, counted, allowed: share("0.1%") });
}

fn objective(on_breach: Breach) -> Objective {
    Objective { errors: Some(share("0.1%")), slow: Some((span("300ms"), share("1%"))), on_breach }
}
