//! What becomes of a rollout.

use api::Share;

use crate::core::event::Event;
use crate::core::state::{Asked, Frozen, Leaving, Phase, Queued, Rollout, Stage};

/// What requests of a rollout have in common that are compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CountedBy {
    /// Of one rollout.
    first: u64,
    share: Share,
    slow_us: Option<u64>,
    /// Of one step.
    step: (u64, Phase, u64),
}

impl Stage {
    /// What is dealt out now, and what is slow; none: no rollout is under way.
    pub(super) fn counted_by(&self) -> Option<CountedBy> {
        let entering = self.entering.as_ref()?;
        let rollout = entering.rollout.as_ref()?;
        let (share, slow_us) = (self.share(entering.release), rollout.slow_us);
        let step = (rollout.number, rollout.phase, rollout.since_ms);
        Some(CountedBy { first: rollout.first, share, slow_us, step })
    }

    /// Another epoch, if anything is otherwise than before in a rollout that goes on.
    pub(super) fn begin_epoch(&mut self, before: Option<CountedBy>) {
        let Some((before, now)) = before.zip(self.counted_by()) else { return };
        let rollout = self.entering.as_mut().and_then(|entering| entering.rollout.as_mut());
        let Some(rollout) = rollout.filter(|_| before.first == now.first && before != now) else { return };
        rollout.epoch = rollout.epoch.saturating_add(1);
        if before.step != now.step {
            rollout.since_epoch = rollout.epoch;
        }
        if before.slow_us != now.slow_us {
            rollout.slow_epoch = rollout.epoch;
        }
    }

    /// Takes in what changes a rollout, and numbers that were used.
    pub(super) fn evolve_rollout(&mut self, event: &Event, at_ms: u64) {
        let has_moved = matches!(
            event,
            Event::StepTaken { .. }
                | Event::RolloutPaused { .. }
                | Event::RolloutResumed { .. }
                | Event::RolloutFrozen { .. }
                | Event::TakenOver { .. }
        );
        if let Some(entering) = self.entering.as_mut().filter(|_| has_moved) {
            entering.waited = false;
        }
        match event {
            Event::StepTaken { release, rollout, step, share, .. } => {
                self.change(*rollout, |way| {
                    way.thaw(*rollout, at_ms);
                    way.enter(Phase::Step(*step), at_ms);
                });
                self.set_share(*release, *share);
            }
            Event::WarmingUp { rollout, .. } => self.change(*rollout, |way| way.warming_since_ms = Some(at_ms)),
            Event::SlowBoundSet { rollout, slow_us, .. } => {
                self.change(*rollout, |way| (way.number, way.slow_us) = (*rollout, Some(*slow_us)));
            }
            Event::RolloutPaused { .. } => self.change(0, |way| way.paused = true),
            Event::RolloutResumed { release, rollout, share, .. } => {
                // Before it has started no step waits for anybody: what is said then ends a pause.
                let has_started = self.entering.as_ref().is_some_and(|entering| entering.starting_until_ms.is_none());
                self.change(*rollout, |way| {
                    let waits = has_started && way.waits_for_resume();
                    way.resumed = *rollout == way.number && (way.resumed || waits);
                    way.paused = false;
                    way.thaw(*rollout, at_ms);
                });
                self.set_share(*release, *share);
            }
            Event::RolloutFrozen { release, rollout, share, why, held, .. } => {
                let before = self.entering.as_ref().map(|entering| entering.share).unwrap_or(*share);
                self.change(*rollout, |way| {
                    let share = way.frozen.as_ref().map_or(before, |frozen| frozen.share);
                    way.frozen = Some(Frozen { why: (**why).clone(), share, at_ms, held: held.clone() });
                });
                self.set_share(*release, *share);
            }
            Event::TakenOver { rollout, .. } => self.change(*rollout, |way| {
                way.thaw(*rollout, at_ms);
                way.enter(Phase::ByHand, at_ms);
                way.paused = false;
            }),
            _ => self.evolve_beside(event, at_ms),
        }
    }

    /// Takes in what becomes of releases beside a rollout: those that wait, and what is watched after it.
    fn evolve_beside(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::Replaced { release, warm_until_ms, .. } => {
                self.entering = None;
                // What was watched before rests on: another one enters with the same decision.
                self.leaving.insert(*release, Leaving::Warm { until_ms: *warm_until_ms });
            }
            Event::Queued { release, share, bypass, past, .. } => {
                let (release, share, bypass, past) = (*release, *share, *bypass, *past);
                self.queued = Some(Queued { release, share, bypass, since_ms: at_ms, past });
            }
            Event::Dropped { release, .. } => self.queued = self.queued.take().filter(|one| one.release != *release),
            Event::Breached { why, problem, .. } => {
                if let Some(watching) = &mut self.watching {
                    watching.told = true;
                    watching.asked = Some(Asked { why: (**why).clone(), problem: problem.clone(), at_ms });
                }
            }
            Event::WatchEnded { .. } => {
                if let Some(watching) = &mut self.watching {
                    watching.until_ms = None;
                }
                self.watching = self.watching.take().filter(|watching| watching.objective.is_some());
            }
            _ => {}
        }
    }

    /// Changes the rollout under way. `number`: one that is used from now on, or before; 0: none.
    fn change(&mut self, number: u64, change: impl FnOnce(&mut Rollout)) {
        self.rollouts = self.rollouts.max(number);
        if let Some(rollout) = self.entering.as_mut().and_then(|entering| entering.rollout.as_mut()) {
            change(rollout);
        }
    }

    /// A release that entered has gone again: what was watched before is watched anew.
    pub(super) fn watch_again(&mut self) {
        if let Some(watching) = &mut self.watching {
            self.rollouts += 1;
            watching.number = self.rollouts;
        }
    }
}
