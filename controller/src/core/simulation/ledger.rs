//! A second pair of eyes: reads the events of stages one by one and asks of each whether it may have happened.

mod crossed;

use std::collections::{BTreeMap, BTreeSet};

use api::{ReleaseNumber, Share, StageName};

use self::crossed::Crossed;
use super::rollouts::BAD;
use crate::core::Event;
use crate::core::evolve_test::World;
use crate::core::observe::RolloutSeen;
use crate::core::spec::{Step, Strategy};
use crate::core::state::{Begun, CheckSeen, Earned, Phase};
use crate::judge::Verdict;

/// Whether anything like that was ever seen of the stage.
type WasSeen<'a> = dyn Fn(&dyn Fn(&RolloutSeen) -> bool) -> bool + 'a;

/// What it remembers.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Events that it has read.
    read: usize,
    stages: BTreeMap<StageName, Page>,
    /// Releases that are marked not reversible.
    marks: BTreeSet<ReleaseNumber>,
    /// All that was ever seen.
    offered: Vec<(StageName, RolloutSeen)>,
}

/// One stage.
#[derive(Debug, Default)]
struct Page {
    entering: Option<(ReleaseNumber, Option<Way>)>,
    queued: Option<ReleaseNumber>,
    /// The highest number.
    number: u64,
    crossed: Crossed,
}

/// The way of what enters.
#[derive(Debug, Clone)]
struct Way {
    begun: Begun,
    phase: Phase,
    since_ms: u64,
    resumed: bool,
    paused: bool,
    frozen: bool,
    /// A person had a hand in it.
    helped: bool,
}

impl Ledger {
    pub(super) fn offer(&mut self, name: &StageName, seen: &RolloutSeen) {
        self.offered.push((name.clone(), seen.clone()));
    }

    pub(super) fn seen_before(&self, which: usize) -> Option<(StageName, RolloutSeen)> {
        self.offered.get(which.checked_rem(self.offered.len())?).cloned()
    }

    /// Reads what has happened since.
    pub(super) fn read(&mut self, world: &World) {
        let new = world.log.iter().skip(self.read);
        for (event, at_ms) in new {
            match event {
                Event::ReleaseMarked { release, .. } => drop(self.marks.insert(release.number)),
                Event::ReleaseUnmarked { release } => drop(self.marks.remove(&release.number)),
                _ => {}
            }
            let Some(name) = event.stage() else { continue };
            let page = self.stages.entry(name.clone()).or_default();
            page.crossed.read(event, &self.marks);
            page.read(event, *at_ms, &|seen| self.offered.iter().any(|(stage, one)| stage == name && seen(one)));
        }
        self.read = world.log.len();
        for (name, page) in &self.stages {
            let queued = world.state.stage(name).and_then(|stage| stage.queued.as_ref());
            assert_eq!(queued.map(|queued| queued.release), page.queued, "{name}: what waits is on record");
        }
    }
}

impl Page {
    fn read(&mut self, event: &Event, at_ms: u64, was_seen: &WasSeen<'_>) {
        match event {
            Event::Promoted { release, rollout, .. } => self.promoted(*release, rollout.as_deref(), at_ms),
            Event::Entered { .. } => self.change(|way| way.since_ms = at_ms),
            Event::StepTaken { step, share, earned, rollout, .. } => {
                self.number_is_new_or_the_same(*rollout);
                let Some((release, Some(way))) = &mut self.entering else { panic!("no rollout: {event:?}") };
                assert_eq!(way.phase, Phase::Step(step - 1), "a step twice, or left out: {event:?}");
                match earned {
                    Some(earned) => way.check(*release, earned, *rollout, at_ms, was_seen),
                    None => (way.helped, way.frozen) = (true, false),
                }
                assert_eq!(share_of(&way.begun, *step), *share, "{event:?}");
                (way.phase, way.since_ms, way.resumed) = (Phase::Step(*step), at_ms, false);
            }
            Event::Flipped { earned, .. } => self.change(|way| way.helped |= earned.is_none()),
            Event::RolloutPaused { .. } => self.change(|way| way.paused = true),
            Event::RolloutFrozen { .. } => {
                self.was_seen_of_it(event, was_seen);
                self.change(|way| way.frozen = true);
            }
            Event::RolloutResumed { rollout, .. } => {
                let anew = *rollout > self.number;
                self.number_is_new_or_the_same(*rollout);
                self.change(|way| {
                    (way.paused, way.frozen, way.resumed) = (false, false, !anew);
                    way.since_ms = if anew { at_ms } else { way.since_ms };
                });
            }
            Event::SlowBoundSet { rollout, .. } => self.number_is_new_or_the_same(*rollout),
            Event::TakenOver { rollout, .. } => {
                self.number_is_new_or_the_same(*rollout);
                self.change(|way| (way.phase, way.helped) = (Phase::ByHand, true));
            }
            Event::Completed { release, watching, .. } => {
                self.completed(*release);
                self.number_is_new_or_the_same(watching.as_ref().map_or(self.number.max(1), |one| one.number));
            }
            Event::RolledBack { why: Some(_), .. } => {
                self.was_seen_of_it(event, was_seen);
                self.entering = None;
            }
            Event::RolledBack { .. } | Event::Replaced { .. } | Event::PromotionFailed { .. } => self.entering = None,
            Event::Queued { release, .. } => {
                assert!(self.queued.is_none_or(|older| older == *release), "{:?} is lost: {event:?}", self.queued);
                self.queued = Some(*release);
            }
            Event::Dropped { release, .. } => {
                assert_eq!(self.queued, Some(*release), "it did not wait: {event:?}");
                self.queued = None;
            }
            _ => {}
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Way)) {
        if let Some((_, Some(way))) = &mut self.entering {
            change(way);
        }
    }

    fn number_is_new_or_the_same(&mut self, number: u64) {
        assert!(number > 0 && number <= self.number + 2, "{number} after {}", self.number);
        self.number = self.number.max(number);
    }

    /// INVARIANT: nothing that was seen of an earlier rollout tells against this one.
    fn was_seen_of_it(&self, event: &Event, was_seen: &WasSeen<'_>) {
        assert!(was_seen(&|seen| seen.rollout >= self.number), "nobody saw that of this rollout: {event:?}");
    }

    /// INVARIANT: never two rollouts in one stage, and each has a number of its own.
    fn promoted(&mut self, release: ReleaseNumber, begun: Option<&Begun>, at_ms: u64) {
        assert!(self.entering.is_none(), "{release} enters beside {:?}", self.entering);
        let way = begun.map(|begun| {
            assert!(begun.number > self.number, "{} was used before", begun.number);
            self.number = begun.number;
            let phase = begun.phase;
            Way {
                begun: begun.clone(),
                phase,
                since_ms: at_ms,
                resumed: false,
                paused: false,
                frozen: false,
                helped: false,
            }
        });
        self.entering = Some((release, way));
        self.queued = self.queued.filter(|queued| *queued != release);
    }

    /// INVARIANT: a bad release never ends stable by itself, where it is judged or checked.
    fn completed(&mut self, release: ReleaseNumber) {
        let Some((entered, Some(way))) = self.entering.take() else { return };
        assert_eq!(entered, release);
        let judged = matches!(way.phase, Phase::Step(_) | Phase::BeforeFlip);
        assert!(!judged || way.helped || release.number() != BAD, "nobody helped {release}: {way:?}");
    }
}

impl Way {
    /// INVARIANT: a step is over only when all of it was earned since it began.
    fn check(&self, release: ReleaseNumber, earned: &Earned, number: u64, at_ms: u64, was_seen: &WasSeen<'_>) {
        let Phase::Step(at) = self.phase else { panic!("{release} takes no steps: {self:?}") };
        let step = &steps(&self.begun)[at as usize];
        assert!(!self.paused && !self.frozen, "{release} was paused or frozen: {self:?}");
        assert!(!step.pause || self.resumed, "{release}: nobody resumed: {self:?}");
        let least_ms = step.least_time.map_or(0, api::Span::ms);
        assert!(at_ms - self.since_ms >= least_ms, "{release} after {} ms: {self:?}", at_ms - self.since_ms);
        assert!(earned.requests >= step.requests.unwrap_or(0), "{release}: {earned:?} {self:?}");
        let asks_for_nothing = step.least_time.is_none() && step.requests.is_none();
        let only_pauses = step.pause && step.share.is_none() && asks_for_nothing;
        if share_of(&self.begun, at) > Share::NONE && !only_pauses {
            assert!(earned.requests > 0, "{release}: no traffic is no pass: {self:?}");
            assert!(!asks_for_nothing || earned.verdict == Verdict::NoWorse, "{release}: {earned:?} {self:?}");
        }
        assert!(!matches!(earned.verdict, Verdict::Worse { .. }), "{release} is worse: {earned:?}");
        let checks = &self.begun.spec.checks;
        let is_it = |seen: &RolloutSeen| {
            let well = |name: &String| seen.checks.get(name) == Some(&CheckSeen::Well);
            (seen.rollout, seen.step, seen.requests) == (number, at, earned.requests)
                && checks.iter().all(|check| well(&check.name))
        };
        let asked_for_nothing = checks.is_empty() && earned.requests == 0;
        assert!(asked_for_nothing || was_seen(&is_it), "{release}: nobody saw that in this step: {earned:?} {self:?}");
    }
}

fn steps(begun: &Begun) -> &[Step] {
    match &begun.spec.strategy {
        Strategy::Canary(steps) => steps,
        _ => &[],
    }
}

fn share_of(begun: &Begun, at: u32) -> Share {
    let own = steps(begun).iter().take(at as usize + 1).rev().find_map(|step| step.share);
    own.unwrap_or(Share::NONE)
}
