//! Rollouts under way, as they are seen: what was counted since each step began, what the judge says of it, and whether the
//! release that enters answers as fast as before.
//!
//! Must not know: how anything is told or recorded, or what follows. `now` is an argument.
//!
//! Main types: [`Trials`], of the whole fleet; [`Trial`], of one stage.

mod judged;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use api::fleet::{Counts, Tripped};
use api::{MemberName, ReleaseNumber, Share, StageName};

use crate::core::observe::{BreachSeen, RolloutSeen, TrippedSeen};
use crate::core::rollout::seen_as;
use crate::core::spec::{Bounds, Objective};
use crate::core::state::{CheckSeen, Stage};
use crate::judge::{Answered, Judge, Measure, Promise, Terms, Verdict};
use judged::{Guarded, Heard, Ledger};
use pace::Pace;

/// Of how many rollouts without a difference one may be called worse.
const ONE_IN: u32 = 1_000;

/// All that are under way.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    ledger: Ledger,
    /// By stage, as reports name it.
    by_stage: BTreeMap<String, Trial>,
    /// Stages that were looked at: what is under way in another was so before the controller started.
    followed: BTreeSet<StageName>,
}

/// One of them.
#[derive(Debug)]
struct Trial {
    name: StageName,
    guarded: Guarded,
    step: u32,
    /// The epoch with which the step began.
    since_epoch: u32,
    /// Of the step that was under way when the controller started: its least time, which is earned anew. Else it has passed.
    earned_at: Instant,
    kind: Kind,
    /// Judged requests of the release that were dealt out since the step began.
    requests: u64,
    pace: Pace,
    tripped: Option<TrippedSeen>,
    checks: BTreeMap<String, CheckSeen>,
    /// What checks said last where that did not change how they are seen.
    said: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Kind {
    /// The release enters: it is compared with the stable one.
    Enters(Judge),
    /// It serves everything: it is held to what the stage promises.
    Serves { errors: Option<(Promise, Share)>, slow: Option<(Promise, Share)> },
}

// === impl Trials ===

impl Trials {
    /// How it stands with a stage now: begins what began, and forgets what ended.
    pub(crate) fn follow(&mut self, name: &StageName, stage: Option<&Stage>, now: Instant) {
        let was_followed = !self.followed.insert(name.clone());
        let Some((stage, (number, step))) = stage.and_then(|stage| Some((stage, seen_as(stage)?))) else {
            self.by_stage.remove(&name.to_string());
            return;
        };
        let known = self.by_stage.get_mut(&name.to_string()).filter(|trial| trial.guarded.number == number);
        if let Some(trial) = known {
            trial.go_on(stage, step, now);
        } else if let Some(mut trial) = Trial::begin(name, stage, number, now) {
            trial.go_on(stage, step, now);
            if !was_followed {
                trial.begin_anew(stage, now);
            }
            self.by_stage.insert(name.to_string(), trial);
        }
    }

    /// Takes in what a proxy counted. True if a release has to be stopped from now on.
    pub(crate) fn take_in(&mut self, proxy: &MemberName, counts: &Counts, now: Instant) -> bool {
        let by_stage = &mut self.by_stage;
        let guarded = |stage: &str| by_stage.get(stage).map(|trial| trial.guarded);
        let mut is_bad = false;
        for (stage, heard) in self.ledger.take_in(proxy, counts, now, guarded) {
            if let Some(trial) = by_stage.get_mut(&stage) {
                let was_bad = trial.is_bad();
                trial.take_in(&heard, now);
                // Once is enough: what is frozen, or was told, stays bad for days.
                is_bad |= trial.is_bad() && !was_bad;
            }
        }
        is_bad
    }

    /// Nothing is known of a proxy any more.
    pub(crate) fn forget(&mut self, proxy: &MemberName) {
        self.ledger.forget(proxy);
    }

    /// A proxy has stopped a release. True if it is one that is under way, and the first proxy that did.
    pub(crate) fn trip(&mut self, proxy: &MemberName, told: &Tripped) -> bool {
        let trial = self.by_stage.get_mut(&told.stage);
        let Some(trial) = trial.filter(|trial| trial.guarded.is_of(told.rollout, told.release)) else { return false };
        let is_first = trial.tripped.is_none();
        trial.tripped.get_or_insert(TrippedSeen { proxy: proxy.clone(), failures: told.failures, among: told.among });
        is_first
    }

    /// What a check said, of a step that may be over.
    /// `said`: for people, why it is not seen otherwise; empty: nothing.
    pub(crate) fn check(&mut self, stage: &StageName, of: (u64, u32), check: &str, seen: CheckSeen, said: &str) {
        let trial = self.by_stage.get_mut(&stage.to_string());
        if let Some(trial) = trial.filter(|trial| (trial.guarded.number, trial.step) == of) {
            trial.checks.insert(check.to_owned(), seen);
            trial.said.insert(check.to_owned(), said.to_owned());
        }
    }

    /// What the checks of a step said last, by name; empty: nothing more than how they are seen.
    pub(crate) fn said(&self, stage: &StageName, of: (u64, u32)) -> BTreeMap<String, String> {
        let trial = self.by_stage.get(&stage.to_string());
        let trial = trial.filter(|trial| (trial.guarded.number, trial.step) == of);
        trial.map(|trial| trial.said.clone()).unwrap_or_default()
    }

    /// All of them, as decisions look at them.
    pub(crate) fn seen(&self, now: Instant) -> BTreeMap<StageName, RolloutSeen> {
        self.by_stage.values().map(|trial| (trial.name.clone(), trial.seen(now))).collect()
    }
}

// === impl Trial ===

impl Trial {
    fn begin(name: &StageName, stage: &Stage, number: u64, now: Instant) -> Option<Self> {
        let (guarded, kind) = match (stage.rolling(), stage.watched()) {
            (Some((entering, rollout, stable)), _) => {
                let judge = Judge::new(terms(&rollout.spec.bounds));
                (guarded(number, entering.release, Some(stable)), Kind::Enters(judge))
            }
            (None, Some(watching)) => {
                (guarded(number, watching.release, None), Kind::serves(watching.objective.as_ref()))
            }
            (None, None) => return None,
        };
        let (step, since_epoch, requests, tripped) = (0, 0, 0, None);
        let (name, pace, earned_at) = (name.clone(), Pace::default(), now);
        let (checks, said) = (BTreeMap::new(), BTreeMap::new());
        Some(Self { name, guarded, step, since_epoch, earned_at, kind, requests, pace, tripped, checks, said })
    }

    /// It was under way before the controller started: nobody judged what went on meanwhile, so it earns nothing.
    fn begin_anew(&mut self, stage: &Stage, now: Instant) {
        self.guarded.unheard = Some(self.guarded.epoch);
        let step = stage.rolling().and_then(|(_, rollout, _)| rollout.step());
        let least = step.and_then(|(_, step)| step.least_time);
        self.earned_at = now + least.map_or(Duration::ZERO, |least| Duration::from_millis(least.ms()));
    }

    /// As far as the stage is. With a new step everything has to be earned anew, but that it is worse.
    fn go_on(&mut self, stage: &Stage, step: u32, now: Instant) {
        let rollout = stage.rolling().map(|(_, rollout, _)| rollout);
        let (epoch, since_epoch) = rollout.map_or((0, 0), |rollout| (rollout.epoch, rollout.since_epoch));
        self.guarded.epoch = epoch;
        if (self.step, self.since_epoch) != (step, since_epoch) {
            (self.step, self.since_epoch) = (step, since_epoch);
            (self.requests, self.earned_at) = (0, now);
            self.checks.clear();
            self.said.clear();
        }
        if let (Kind::Enters(judge), Some(rollout)) = (&mut self.kind, rollout) {
            judge.begin_step(since_epoch);
            if rollout.slow_us.is_some() {
                judge.know_slow(rollout.slow_epoch);
            }
        }
    }

    fn take_in(&mut self, heard: &Heard, now: Instant) {
        let canary = heard.block.canary;
        if heard.epoch >= self.since_epoch {
            self.requests = self.requests.saturating_add(canary.requests);
        }
        self.pace.take_in(heard, now);
        match &mut self.kind {
            Kind::Enters(judge) => judge.add(heard.epoch, &heard.block),
            Kind::Serves { errors, slow } => {
                errors.iter_mut().for_each(|(promise, _)| promise.add(canary.requests, canary.failed));
                slow.iter_mut().for_each(|(promise, _)| promise.add(canary.requests, canary.slow));
            }
        }
    }

    fn is_bad(&self) -> bool {
        let is_broken = |promise: &Option<(Promise, Share)>| promise.as_ref().is_some_and(|(one, _)| one.is_broken());
        match &self.kind {
            Kind::Enters(judge) => matches!(judge.verdict(), Verdict::Worse { .. }),
            Kind::Serves { errors, slow } => is_broken(errors) || is_broken(slow),
        }
    }

    fn seen(&self, now: Instant) -> RolloutSeen {
        let mut seen = RolloutSeen {
            requests: self.requests,
            least_left_ms: self.earned_at.saturating_duration_since(now).as_millis().try_into().unwrap_or(u64::MAX),
            tripped: self.tripped.clone(),
            is_flat: self.pace.is_flat(now),
            checks: self.checks.clone(),
            stable_p95_us: self.pace.stable_p95_us(),
            ..RolloutSeen::nothing(self.guarded.number, self.step)
        };
        match &self.kind {
            Kind::Enters(judge) => (seen.verdict, seen.evidence) = (judge.verdict(), judge.evidence()),
            Kind::Serves { errors, slow } => {
                let broken = |promise: &Option<(Promise, Share)>, by| {
                    let (promise, allowed) = promise.as_ref().filter(|(promise, _)| promise.is_broken())?;
                    let (requests, against) = promise.since();
                    let counted = match by {
                        Measure::Errors => Answered { requests, failed: against, slow: 0 },
                        Measure::Slow => Answered { requests, failed: 0, slow: against },
                    };
                    Some(BreachSeen { by, counted, allowed: *allowed })
                };
                seen.breach = broken(errors, Measure::Errors).or_else(|| broken(slow, Measure::Slow));
            }
        }
        seen
    }
}

impl Kind {
    fn serves(objective: Option<&Objective>) -> Self {
        let promise = |share: Share| (Promise::new(share), share);
        Self::Serves {
            errors: objective.and_then(|objective| objective.errors).map(promise),
            slow: objective.and_then(|objective| objective.slow).map(|(_, share)| promise(share)),
        }
    }
}

fn terms(bounds: &Bounds) -> Terms {
    Terms { errors: bounds.errors, slow: Some(bounds.slow_share), one_in: ONE_IN }
}

fn guarded(number: u64, canary: ReleaseNumber, stable: Option<ReleaseNumber>) -> Guarded {
    Guarded {
        number,
        epoch: 0,
        unheard: None,
        canary: canary.number(),
        stable: stable.map_or(0, ReleaseNumber::number),
    }
}

#[cfg(test)]
mod tests;
