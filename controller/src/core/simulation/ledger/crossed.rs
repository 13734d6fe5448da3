//! What was left behind in a stage, and whether somebody had said so.

use std::collections::{BTreeMap, BTreeSet};

use api::ReleaseNumber;

use crate::core::Event;
use crate::core::state::Phase;

type Releases = BTreeSet<ReleaseNumber>;

/// One stage.
#[derive(Debug, Default)]
pub(super) struct Crossed {
    stable: Option<ReleaseNumber>,
    entering: Option<ReleaseNumber>,
    /// Whose share a person moves.
    by_hand: bool,
    ran: Releases,
    /// The highest release that may be left behind for the one that it is kept by.
    agreed: BTreeMap<ReleaseNumber, ReleaseNumber>,
}

// === impl Crossed ===

impl Crossed {
    pub(super) fn read(&mut self, event: &Event, marks: &Releases) {
        match event {
            Event::MarksPassed { to, marks: passed, .. } => {
                let passed: Releases = passed.iter().map(|mark| mark.release).collect();
                assert!(!passed.is_empty() && passed.is_subset(marks), "nobody marked that: {event:?}");
                assert!(passed.iter().all(|mark| mark > to && self.ran.contains(mark)), "not on the way: {event:?}");
                let highest = passed.last().copied().expect("not empty");
                let agreed = self.agreed.entry(*to).or_insert(highest);
                *agreed = highest.max(*agreed);
            }
            Event::Promoted { release, starting_until_ms, rollout, .. } => {
                self.entering = Some(*release);
                self.agreed.retain(|to, highest| !(*to < *release && *release <= *highest));
                self.by_hand = rollout.as_ref().is_some_and(|begun| begun.phase == Phase::ByHand);
                if starting_until_ms.is_none() {
                    self.ran.insert(*release);
                }
            }
            Event::Entered { release, .. } => {
                self.leaves_stable(*release, marks, event);
                self.ran.insert(*release);
            }
            Event::TakenOver { .. } => self.by_hand = true,
            Event::StepTaken { earned, release, .. } | Event::Flipped { earned, release, .. } => match earned {
                Some(_) => self.leaves_stable(*release, marks, event),
                None => self.by_hand = true,
            },
            Event::Completed { release, .. } => {
                if !self.by_hand {
                    self.leaves_stable(*release, marks, event);
                }
                (self.stable, self.entering) = (Some(*release), None);
                self.ran.insert(*release);
            }
            Event::RolledBack { from, to, .. } => {
                let left = self.between(*from, *to, marks);
                self.covers(&left, *to, event);
                if self.stable != Some(*from) {
                    self.ends(*from);
                }
                (self.stable, self.entering) = (Some(*to), None);
            }
            Event::Replaced { release, by, .. } => {
                let left = self.between(*release, *by, marks);
                self.covers(&left, *by, event);
                self.ends(*release);
                self.entering = None;
            }
            Event::PromotionFailed { release, .. } => {
                self.ends(*release);
                self.entering = None;
            }
            Event::Dropped { release, .. } => self.ends(*release),
            Event::Placed { release, .. } => {
                self.ran.insert(*release);
            }
            Event::RolloutFrozen { release, held: Some(held), .. } => {
                let stable = self.stable.expect("somebody else serves");
                let left = self.between(*release, stable, marks);
                assert!(left.contains(&held.release), "nothing kept it: {event:?}");
                assert!(self.agreed.get(&stable) < Some(&held.release), "somebody had agreed: {event:?}");
            }
            _ => {}
        }
    }

    /// INVARIANT: nothing goes past a mark that nobody has named.
    fn covers(&self, left: &Releases, to: ReleaseNumber, event: &Event) {
        let agreed = self.agreed.get(&to);
        assert!(left.last().is_none_or(|highest| Some(highest) <= agreed), "{left:?} but {agreed:?}: {event:?}");
    }

    fn leaves_stable(&self, to: ReleaseNumber, marks: &Releases, event: &Event) {
        let Some(stable) = self.stable else { return };
        self.covers(&self.between(stable, to, marks), to, event);
    }

    fn between(&self, from: ReleaseNumber, to: ReleaseNumber, marks: &Releases) -> Releases {
        if !self.ran.contains(&from) {
            return Releases::new();
        }
        // What is stable lives with all that ran before.
        let is_left = |mark: &ReleaseNumber| self.stable != Some(to) || *mark == from;
        let between = marks.iter().copied().filter(|mark| *mark > to && *mark <= from && self.ran.contains(mark));
        between.filter(is_left).collect()
    }

    fn ends(&mut self, release: ReleaseNumber) {
        self.agreed.remove(&release);
    }
}
