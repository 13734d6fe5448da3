//! A rollout: how a release enters a stage, how far it is, and what is watched once it serves everything.

use std::collections::BTreeMap;

use api::{MemberName, ReleaseNumber, Share, Span};
use serde::{Deserialize, Serialize};

use super::Marked;
use crate::core::spec::{Breach, Check, Insiders, Objective, RolloutSpec, Step, Strategy};
use crate::judge::{Answered, Evidence, Measure, Verdict};

/// The way of the entering release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// By which proxies and the judge know it: unique in its stage, above 0, and growing. It gets another one when all that was
    /// counted so far is to be forgotten.
    pub number: u64,
    /// Its number when it began: what has to stay the same all the way hangs on it.
    pub first: u64,
    /// As it was when the rollout began: what is applied meanwhile counts for the next one.
    pub spec: RolloutSpec,
    /// Where it is.
    pub phase: Phase,
    /// Since when it is there; from then on everything has to be earned.
    pub since_ms: u64,
    /// Grows whenever what is dealt out to the release changes, or what is slow: proxies count each epoch's requests apart,
    /// whenever they end. Begins at 0.
    #[serde(default)]
    pub epoch: u32,
    /// The epoch that began at `since_ms`.
    #[serde(default)]
    pub since_epoch: u32,
    /// Somebody said "resume" where the phase waits for that.
    pub resumed: bool,
    /// Somebody said "pause": nothing moves by itself until somebody says "resume".
    pub paused: bool,
    /// It was worse, and the stage says that somebody has to look.
    pub frozen: Option<Frozen>,
    /// All else was earned, and it waits until the canary's latency is flat: since when.
    pub warming_since_ms: Option<u64>,
    /// An answer that takes longer is slow, in microseconds; none: nobody knows yet, or nothing is.
    pub slow_us: Option<u64>,
    /// The epoch that began when that became known.
    #[serde(default)]
    pub slow_epoch: u32,
    /// Requests that go to the release whatever its share: of all steps until now.
    pub insiders: Vec<Insiders>,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Takes everything as soon as it has started.
    AtOnce,
    /// Somebody sets its share.
    ByHand,
    /// Blue-green: reachable at its own host, and nowhere else.
    BeforeFlip,
    /// Canary: in this step, from 0.
    Step(u32),
}

/// Why nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// What was seen.
    pub why: Why,
    /// The share before it froze.
    pub share: Share,
    /// When.
    pub at_ms: u64,
    /// It would have gone out by itself, but for this release, which is marked not reversible.
    #[serde(default)]
    pub held: Option<Marked>,
}

/// Why the controller took a release out by itself, or froze it, with all that it saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The judge found it worse than the stable one.
    Worse {
        /// In this.
        by: Measure,
        /// What it went by.
        evidence: Evidence,
    },
    /// A proxy stopped it at once.
    Tripped {
        /// Which.
        proxy: MemberName,
        /// Failed requests of one worker.
        failures: u32,
        /// Among so many.
        among: u32,
    },
    /// A check said no, as often as its `fall` says.
    CheckFailed {
        /// Its name.
        check: String,
        /// What it said.
        problem: String,
    },
    /// The stage's objective is broken.
    Breached {
        /// In this.
        by: Measure,
        /// What was counted.
        counted: Answered,
        /// What the objective allows.
        allowed: Share,
    },
}

/// By what a step was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earned {
    /// How long it lasted.
    pub took_ms: u64,
    /// Judged requests of the release meanwhile.
    pub requests: u64,
    /// What the judge said.
    pub verdict: Verdict,
    /// What it went by, since the rollout began.
    pub evidence: Evidence,
    /// Checks that were well.
    pub checks: Vec<String>,
    /// How long it waited for flat latency; 0: not at all.
    pub warmed_ms: u64,
}

/// A release that waits until another's rollout has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Which.
    pub release: ReleaseNumber,
    /// By hand, for this share; none: by the stage's strategy.
    pub share: Option<Share>,
    /// Somebody said why it need not have run upstream.
    pub bypass: bool,
    /// Since when.
    pub since_ms: u64,
    /// As [`Entering::past`](super::Entering::past).
    #[serde(default)]
    pub past: Option<ReleaseNumber>,
}

/// How a rollout begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// As [`Rollout::number`].
    pub number: u64,
    /// From now on its own.
    pub spec: RolloutSpec,
    /// Where it begins.
    pub phase: Phase,
}

/// What is watched after a rollout, while the release before is warm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// As a rollout's.
    pub number: u64,
    /// What serves everything now.
    pub release: ReleaseNumber,
    /// What everything goes back to.
    pub before: ReleaseNumber,
    /// What is promised.
    pub objective: Option<Objective>,
    /// As the rollout's.
    pub failure_header: Option<String>,
    /// Blue-green: run until [`Watching::until_ms`].
    pub checks: Vec<Check>,
    /// Blue-green: until then the rollout is not over, and whatever fails flips back.
    pub until_ms: Option<u64>,
    /// A breach was told.
    pub told: bool,
    /// Since when; 0: it began before that was kept.
    #[serde(default)]
    pub since_ms: u64,
    /// What was told; none: nothing was, or it was told before that was kept.
    #[serde(default)]
    pub asked: Option<Asked>,
}

/// A breach of which somebody was told, for nothing was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// What was seen.
    pub why: Why,
    /// Why nothing was done, where the stage does not say so; empty: it does.
    pub problem: String,
    /// When.
    pub at_ms: u64,
}

/// Why a watch after a flip is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchEnd {
    /// Its time has passed, and all was well.
    #[default]
    Earned,
    /// Somebody ended it.
    Skipped,
    /// Another release was promoted, and takes its place.
    Replaced,
    /// What it would have flipped back to is no longer warm.
    WarmthEnded,
}

/// Whether something besides the judge says that all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckSeen {
    /// It has not answered since the step began.
    #[default]
    NotYet,
    /// It was, at least once since the step began, and has not failed since as often as its `fall` says.
    Well,
    /// It said no as often as its `fall` says.
    Failed(String),
}

// === impl Rollout ===

impl Rollout {
    /// One that begins now.
    pub fn begin(number: u64, spec: RolloutSpec, phase: Phase, at_ms: u64) -> Self {
        let slow_us = spec.bounds.slow.map(|span| span.ms().saturating_mul(1_000));
        let mut rollout = Self {
            number,
            first: number,
            spec,
            phase,
            since_ms: at_ms,
            epoch: 0,
            since_epoch: 0,
            resumed: false,
            paused: false,
            frozen: None,
            warming_since_ms: None,
            slow_us,
            slow_epoch: 0,
            insiders: Vec::new(),
        };
        rollout.let_insiders_in();
        rollout
    }

    /// Its steps; none but those of a canary.
    pub fn steps(&self) -> &[Step] {
        match &self.spec.strategy {
            Strategy::Canary(steps) => steps,
            Strategy::AllAtOnce | Strategy::BlueGreen(_) => &[],
        }
    }

    /// The step that it is in, with its place.
    pub fn step(&self) -> Option<(u32, &Step)> {
        let Phase::Step(at) = self.phase else { return None };
        Some((at, self.steps().get(usize::try_from(at).ok()?)?))
    }

    /// The step as observations name it; 0 where there are none.
    pub fn at(&self) -> u32 {
        self.step().map_or(0, |(at, _)| at)
    }

    /// The share that a step stands for: its own, or that of the step before.
    pub fn share_of(&self, at: u32) -> Share {
        let until = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1);
        self.steps().iter().take(until).rev().find_map(|step| step.share).unwrap_or(Share::NONE)
    }

    /// Whether the phase waits for "resume".
    pub fn waits_for_resume(&self) -> bool {
        let asked = match (&self.spec.strategy, self.phase) {
            (Strategy::BlueGreen(flip), Phase::BeforeFlip) => flip.pause,
            _ => self.step().is_some_and(|(_, step)| step.pause),
        };
        asked && !self.resumed
    }

    /// Blue-green: how long everything has to be well after the flip; none once somebody has taken it over.
    pub fn watch(&self) -> Option<Span> {
        match (&self.spec.strategy, self.phase) {
            (Strategy::BlueGreen(flip), Phase::BeforeFlip) => flip.watch,
            _ => None,
        }
    }

    /// Takes the next phase, in which everything has to be earned anew.
    pub(crate) fn enter(&mut self, phase: Phase, at_ms: u64) {
        (self.phase, self.since_ms) = (phase, at_ms);
        (self.resumed, self.warming_since_ms) = (false, None);
        self.let_insiders_in();
    }

    /// Nothing keeps it from moving any more; the judge begins anew, and so does the phase.
    pub(crate) fn thaw(&mut self, number: u64, at_ms: u64) {
        if number != self.number {
            (self.number, self.since_ms) = (number, at_ms);
            (self.frozen, self.warming_since_ms) = (None, None);
        }
    }

    /// Whoever is let in once stays in until the end.
    fn let_insiders_in(&mut self) {
        let Some((_, Step { insiders: Some(insiders), .. })) = self.step() else { return };
        let insiders = insiders.clone();
        self.insiders.retain(|known| *known != insiders);
        self.insiders.push(insiders);
        let excess = self.insiders.len().saturating_sub(api::HEADER_RULES_MOST);
        self.insiders.drain(..excess);
    }

    /// Where it is, as a person says it.
    pub fn place(&self) -> String {
        let of = self.steps().len();
        match self.phase {
            Phase::AtOnce => "all at once".to_owned(),
            Phase::ByHand => "by hand".to_owned(),
            Phase::BeforeFlip => "before the flip".to_owned(),
            Phase::Step(at) => format!("step {} of {of}", at.saturating_add(1)),
        }
    }
}

// === impl Watching ===

impl Watching {
    /// What slow is, in microseconds; 0: nothing.
    pub fn slow_us(&self) -> u64 {
        let slow = self.objective.as_ref().and_then(|objective| objective.slow);
        slow.map_or(0, |(span, _)| span.ms().saturating_mul(1_000))
    }

    /// How long it has lasted; 0: nobody knows.
    pub fn took_ms(&self, now_ms: u64) -> u64 {
        if self.since_ms > 0 { now_ms.saturating_sub(self.since_ms) } else { 0 }
    }

    /// What becomes of a breach: before the end of a blue-green rollout everything goes back.
    pub fn on_breach(&self) -> Breach {
        match &self.objective {
            _ if self.until_ms.is_some() => Breach::Rollback,
            Some(objective) => objective.on_breach,
            None => Breach::Ask,
        }
    }
}

/// Whether all of the checks are well.
pub(crate) fn all_well(checks: &[Check], seen: &BTreeMap<String, CheckSeen>) -> bool {
    checks.iter().all(|check| seen.get(&check.name) == Some(&CheckSeen::Well))
}

/// The first of the checks that failed, with what it said.
pub(crate) fn failed<'a>(checks: &'a [Check], seen: &'a BTreeMap<String, CheckSeen>) -> Option<(&'a str, &'a str)> {
    checks.iter().find_map(|check| match seen.get(&check.name) {
        Some(CheckSeen::Failed(problem)) => Some((check.name.as_str(), problem.as_str())),
        _ => None,
    })
}
