//! Reports of several proxies, and what is made of them over steps, changes of shares, and starts of the controller.

use api::Histogram;
use api::fleet::{Judged, ReleaseCounts};

use super::*;
use crate::core::evolve_test::World;
use crate::core::rollout::{Wait, waits};
use crate::core::spec::{Breach, RolloutSpec, Step, Strategy};
use crate::core::state::Phase;

const PRODUCTION: &str = "hello/production";
const CANARY: u32 = 2;
const STABLE: u32 = 1;

/// A stage in which r2 enters beside r1, two proxies, and one who listens.
struct Stand {
    world: World,
    trials: Trials,
    now: Instant,
    proxies: [Proxy; 2],
}

/// Counts as a proxy does.
#[derive(Default)]
struct Proxy {
    rollout: u64,
    /// Requests, failed and slow ones by epoch and release.
    counted: BTreeMap<(u32, u32), [u64; 3]>,
}

fn share(text: &str) -> Share {
    text.parse().expect("a share")
}

fn name() -> StageName {
    PRODUCTION.parse().expect("a stage")
}

fn step(share_text: &str, requests: Option<u64>) -> Step {
    Step { share: Some(share(share_text)), requests, ..Step::default() }
}

impl Stand {
    fn new(steps: Vec<Step>) -> Self {
        Self::with(steps, "1s".parse().ok())
    }

    /// `slow`: none: the stable release's own pace is found out.
    fn with(steps: Vec<Step>, slow: Option<api::Span>) -> Self {
        let mut world = World::with_static_releases(2).promoted_everywhere("hello@r1");
        world.promote_down("hello@r2");
        let mut spec = RolloutSpec { strategy: Strategy::Canary(steps), ..RolloutSpec::default() };
        spec.bounds.slow = slow;
        spec.objective = Some(Objective { errors: Some(share("0.1%")), slow: None, on_breach: Breach::Ask });
        world.enter_by("production", spec);
        let (now, proxies) = (Instant::now(), Default::default());
        let mut stand = Self { world, trials: Trials::default(), now, proxies };
        stand.trials.follow(&name(), stand.world.state.stage(&name()), now);
        stand.world.promote("hello@r2", "production", None).expect("enters");
        stand.follow();
        stand
    }

    fn follow(&mut self) {
        self.trials.follow(&name(), self.world.state.stage(&name()), self.now);
    }

    /// So many requests of a release end on a proxy that were dealt out under an epoch, so many of them failed.
    fn end(&mut self, proxy: usize, epoch: u32, release: u32, requests: u64, failed: u64) {
        let number = self.number();
        let counting = &mut self.proxies[proxy];
        if counting.rollout != number {
            *counting = Proxy { rollout: number, ..Proxy::default() };
        }
        let counted = counting.counted.entry((epoch, release)).or_default();
        *counted = [counted[0] + requests, counted[1] + failed, counted[2]];
    }

    /// A proxy tells all that it has counted.
    fn tell(&mut self, proxy: usize) {
        let of = |release: u32| {
            let told = self.proxies[proxy].counted.iter().filter(|((_, of), _)| *of == release);
            let judged = told.map(|((epoch, _), [requests, failed, slow])| Judged {
                rollout: self.proxies[proxy].rollout,
                epoch: *epoch,
                requests: *requests,
                failed: *failed,
                slow: *slow,
                latency: Some((&Histogram::default()).into()),
            });
            ReleaseCounts {
                stage: PRODUCTION.to_owned(),
                release,
                judged: judged.collect(),
                ..ReleaseCounts::default()
            }
        };
        let counts = Counts { run: 1, releases: vec![of(STABLE), of(CANARY)], ..Counts::default() };
        self.trials.take_in(&format!("p{proxy}").parse().expect("a name"), &counts, self.now);
    }

    /// Both proxies tell, and what follows is done.
    fn go_on(&mut self) {
        (0..2).for_each(|proxy| self.tell(proxy));
        self.world.seen.rollouts = self.trials.seen(self.now);
        self.world.run_due();
        self.follow();
    }

    /// The controller starts anew: nothing is known but what is on record.
    fn restart(&mut self) {
        self.trials = Trials::default();
        self.follow();
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.world.pass_ms(ms);
    }

    fn seen(&self) -> RolloutSeen {
        self.trials.seen(self.now).remove(&name()).expect("it is under way")
    }

    fn rollout(&self) -> Option<&crate::core::state::Rollout> {
        self.world.state.stage(&name())?.entering.as_ref()?.rollout.as_ref()
    }

    fn number(&self) -> u64 {
        let stage = self.world.state.stage(&name()).expect("a stage");
        seen_as(stage).expect("under way").0
    }

    fn epoch(&self) -> u32 {
        self.rollout().expect("under way").epoch
    }

    fn phase(&self) -> Option<Phase> {
        self.rollout().map(|rollout| rollout.phase)
    }

    fn count(&self, kind: &str) -> usize {
        self.world.log.iter().filter(|(event, _)| event.kind() == kind).count()
    }

    fn waits(&self) -> Vec<Wait> {
        waits(&self.world.state, &name(), &self.seen(), self.world.now_ms)
    }
}

#[test]
fn rollout_steps_are_earned_with_requests_that_were_dealt_out_in_them() {
    let mut stand = Stand::new(vec![step("10%", Some(100)), step("50%", Some(100)), step("100%", None)]);
    let first = stand.epoch();
    stand.end(0, first, CANARY, 60, 0);
    stand.end(1, first, CANARY, 39, 0);
    stand.go_on();
    assert_eq!((stand.phase(), stand.waits()), (Some(Phase::Step(0)), vec![Wait::Requests { missing: 1 }]));
    stand.end(1, first, CANARY, 1, 0);
    stand.go_on();
    assert_eq!(stand.phase(), Some(Phase::Step(1)), "both proxies' requests count");
    // Slow ones of the first step end now.
    stand.end(0, first, CANARY, 5_000, 0);
    stand.end(0, first, STABLE, 5_000, 0);
    stand.go_on();
    assert_eq!(stand.waits(), [Wait::Requests { missing: 100 }], "dealt out before");
    assert_eq!(stand.seen().evidence.counted.canary.requests, 5_100, "and judged all the same");
    let second = stand.epoch();
    stand.end(0, second, CANARY, 100, 0);
    stand.go_on();
    assert_eq!(stand.phase(), None, "it serves everything");
}

#[test]
fn rollout_steps_that_ask_for_a_verdict_need_one_of_their_own() {
    let mut stand = Stand::new(vec![step("10%", None), step("50%", None), step("100%", None)]);
    for at in 0..2 {
        let epoch = stand.epoch();
        assert_eq!(stand.phase(), Some(Phase::Step(at)));
        assert_eq!(stand.seen().verdict, Verdict::NotYet { likely_requests: None }, "nothing of this step");
        for report in 0.. {
            assert!(report < 200, "no verdict: {:?}", stand.seen());
            stand.end(report % 2, epoch, CANARY, 1_000, 1);
            stand.end(report % 2, epoch, STABLE, 1_000, 1);
            // What was dealt out before and ends late tells nothing of this step.
            if at == 1 {
                [CANARY, STABLE].into_iter().for_each(|release| stand.end(0, 0, release, 50_000, 50));
            }
            stand.go_on();
            if stand.phase() != Some(Phase::Step(at)) {
                assert!(report > 3, "after {report} reports");
                break;
            }
        }
    }
    assert_eq!(stand.phase(), None);
}

#[test]
fn rollout_that_is_worse_is_found_whatever_step_showed_it() {
    let mut stand = Stand::new(vec![step("10%", Some(1)), step("50%", Some(1_000)), step("100%", None)]);
    let first = stand.epoch();
    stand.end(0, first, CANARY, 10, 0);
    stand.end(0, first, STABLE, 90, 0);
    stand.go_on();
    assert_eq!(stand.phase(), Some(Phase::Step(1)));
    // Those of the first step fail after a long while.
    for _ in 0..10 {
        if stand.phase().is_none() {
            break;
        }
        stand.end(1, first, CANARY, 10, 10);
        stand.end(1, first, STABLE, 90, 0);
        stand.go_on();
    }
    assert_eq!(stand.phase(), None);
    assert_eq!(stand.count("rolled_back"), 1);
}

#[test]
fn rollout_steps_are_earned_anew_after_a_restart() {
    let timed = Step { least_time: "10m".parse().ok(), ..step("50%", Some(1_000)) };
    let mut stand = Stand::new(vec![step("10%", Some(1)), timed, step("100%", None)]);
    let first = stand.epoch();
    stand.end(0, first, CANARY, 700, 0);
    stand.go_on();
    assert_eq!(stand.phase(), Some(Phase::Step(1)));
    let second = stand.epoch();
    stand.end(0, second, CANARY, 900, 0);
    stand.go_on();
    stand.end(1, second, CANARY, 690, 690);
    stand.pass_ms(600_000);
    stand.restart();
    stand.go_on();
    let seen = stand.seen();
    assert_eq!(
        (seen.requests, seen.evidence),
        (0, Judge::new(terms(&Bounds::default())).evidence()),
        "nobody judged them"
    );
    let all = [Wait::Time { left_ms: 600_000 }, Wait::Requests { missing: 1_000 }];
    assert_eq!(stand.waits(), all, "nor was there anybody when time passed");
    stand.end(0, second, CANARY, 600, 0);
    stand.end(1, second, CANARY, 400, 0);
    stand.go_on();
    stand.pass_ms(599_999);
    stand.go_on();
    assert_eq!(stand.waits(), [Wait::Time { left_ms: 1 }]);
    stand.pass_ms(1);
    stand.go_on();
    assert_eq!(stand.phase(), None);
}

#[test]
fn rollout_that_was_watched_is_held_to_what_comes_after_a_restart_alone() {
    let mut stand = Stand::new(vec![step("10%", Some(1)), step("100%", None)]);
    let first = stand.epoch();
    stand.end(0, first, CANARY, 1, 0);
    stand.go_on();
    // It serves everything, and one of two proxies has a bad day, in a fleet that keeps its promise.
    stand.end(0, 0, CANARY, 18_000, 54);
    stand.end(1, 0, CANARY, 180_000, 36);
    stand.restart();
    (0..2).for_each(|proxy| stand.tell(proxy));
    assert_eq!(stand.seen().breach, None);
    for _ in 0..20 {
        stand.end(0, 0, CANARY, 10, 5);
        stand.tell(0);
    }
    assert!(stand.seen().breach.is_some_and(|breach| breach.counted.requests <= 200), "{:?}", stand.seen());
}

#[test]
fn rollout_is_judged_anew_by_what_a_proxy_counts_after_it_was_revoked_and_joined_again() {
    let mut stand = Stand::new(vec![step("10%", Some(1_000)), step("100%", None)]);
    let first = stand.epoch();
    stand.end(0, first, CANARY, 10, 0);
    stand.go_on();
    stand.trials.forget(&"p0".parse().expect("a name"));
    stand.proxies[0] = Proxy::default();
    stand.end(0, first, CANARY, 3, 0);
    stand.go_on();
    assert_eq!(stand.seen().requests, 13);
}

#[test]
fn rollout_time_is_judged_from_when_it_is_known_what_slow_is() {
    let mut stand = Stand::with(vec![step("50%", Some(1_000_000)), step("100%", None)], None);
    let number = stand.number();
    let slow = |stand: &mut Stand, epoch: u32, slow: u64| {
        for (release, slow) in [(CANARY, slow), (STABLE, 0)] {
            stand.end(0, epoch, release, 100, 0);
            stand.proxies[0].counted.get_mut(&(epoch, release)).expect("counted")[2] += slow;
        }
        stand.go_on();
    };
    let before = stand.epoch();
    (0..20).for_each(|_| slow(&mut stand, before, 90));
    assert!(stand.phase().is_some(), "nobody knew what slow is: {:?}", stand.seen());
    let bound =
        stand.trials.seen(stand.now).remove(&name()).map(|seen| RolloutSeen { stable_p95_us: Some(5_000), ..seen });
    stand.world.seen.rollouts = bound.into_iter().map(|seen| (name(), seen)).collect();
    stand.world.run_due();
    stand.follow();
    assert_eq!((stand.number(), stand.count("slow_bound_set")), (number, 1));
    assert_eq!(stand.seen().evidence.counted.canary.requests, 2_000, "nothing is forgotten");
    slow(&mut stand, before, 90);
    assert!(stand.phase().is_some(), "late ones of before");
    let after = stand.epoch();
    (0..20).for_each(|_| {
        if stand.phase().is_some() {
            slow(&mut stand, after, 90)
        }
    });
    assert_eq!(stand.count("rolled_back"), 1, "and now it is worse");
}
