//! What becomes of a stage.

use api::{ReleaseNumber, Share};

use crate::core::event::Event;
use crate::core::state::{Begun, Entering, Leaving, RolledBack, Rollout, Stage};

// === impl Stage ===

impl Stage {
    pub(super) fn evolve(&mut self, event: &Event, at_ms: u64) {
        let before = self.counted_by();
        self.take_in(event, at_ms);
        self.begin_epoch(before);
    }

    fn take_in(&mut self, event: &Event, at_ms: u64) {
        self.evolve_marks(event);
        match event {
            Event::Promoted { release, share, starting_until_ms, rollback, rollout, past, .. } => {
                self.entering = Some(Entering {
                    release: *release,
                    share: *share,
                    starting_until_ms: *starting_until_ms,
                    rollback: *rollback,
                    since_ms: at_ms,
                    waited: self.queued.as_ref().is_some_and(|queued| queued.release == *release),
                    rollout: rollout.as_ref().map(|begun| {
                        let Begun { number, spec, phase } = (**begun).clone();
                        Rollout::begin(number, spec, phase, at_ms)
                    }),
                    past: *past,
                });
                self.rollouts = self.rollouts.max(rollout.as_ref().map_or(0, |begun| begun.number));
                self.queued = self.queued.take().filter(|queued| queued.release != *release);
                self.leaving.remove(release);
                self.rolled_back = None;
            }
            Event::PromotionFailed { release, until_ms, .. } => {
                self.entering = None;
                // It may be the one to go back to, which could not be fetched.
                self.watching = self.watching.take().filter(|watching| watching.before != *release);
                self.watch_again();
                self.leaving.insert(*release, Leaving::Draining { until_ms: *until_ms });
            }
            Event::Entered { release, .. } => {
                if let Some(entering) = &mut self.entering {
                    self.start_took_ms.insert(*release, at_ms.saturating_sub(entering.since_ms));
                    entering.starting_until_ms = None;
                    if let Some(rollout) = &mut entering.rollout {
                        rollout.since_ms = at_ms;
                    }
                }
            }
            Event::ShareSet { release, share, .. } => self.set_share(*release, *share),
            Event::Completed { release, warm_until_ms, watching, .. } => {
                self.complete(*release, *warm_until_ms);
                self.watching = watching.as_deref().cloned();
                self.rollouts = self.rollouts.max(self.watching.as_ref().map_or(0, |watching| watching.number));
            }
            Event::RolledBack { from, to, warm_until_ms, bad, .. } => {
                self.roll_back(*from, *to, *warm_until_ms, *bad, at_ms);
                self.watching = self.watching.take().filter(|watching| watching.release == *to);
                self.watch_again();
            }
            Event::Unheld { release, .. } => {
                self.bad.remove(release);
            }
            Event::WarmthEnded { release, until_ms, .. } => {
                self.watching = self.watching.take().filter(|watching| watching.before != *release);
                self.leaving.insert(*release, Leaving::Draining { until_ms: *until_ms });
            }
            Event::Retired { release, .. } => {
                self.leaving.remove(release);
                self.placed.remove(release);
            }
            Event::Placed { release, agent, address, .. } => {
                self.placed.entry(*release).or_default().insert(agent.clone(), *address);
            }
            _ => self.evolve_rollout(event, at_ms),
        }
    }

    pub(super) fn set_share(&mut self, release: ReleaseNumber, share: Share) {
        if let Some(entering) = &mut self.entering {
            entering.waited &= entering.share == share;
            entering.share = share;
            if entering.starting_until_ms.is_none() && share > Share::NONE {
                self.served.insert(release);
            }
        }
    }

    fn complete(&mut self, release: ReleaseNumber, warm_until_ms: u64) {
        self.entering = None;
        if let Some(before) = self.stable.replace(release).filter(|before| *before != release) {
            self.leaving.insert(before, Leaving::Warm { until_ms: warm_until_ms });
        }
        self.became_stable(release);
    }

    fn roll_back(&mut self, from: ReleaseNumber, to: ReleaseNumber, warm_until_ms: u64, bad: bool, at_ms: u64) {
        self.entering = None;
        self.stable = Some(to);
        self.leaving.insert(from, Leaving::Warm { until_ms: warm_until_ms });
        if bad {
            self.bad.insert(from);
        }
        self.rolled_back = Some(RolledBack { from, to, at_ms });
        self.became_stable(to);
    }

    fn became_stable(&mut self, release: ReleaseNumber) {
        self.leaving.remove(&release);
        self.served.insert(release);
        self.ran.insert(release);
        self.past.retain(|past| *past != release);
        self.past.push(release);
    }
}
