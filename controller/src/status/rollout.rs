//! How a rollout stands: what is on record and what was seen of it, in words and numbers.
//!
//! Must not know: who asks, or what follows from it. It asks `core::rollout` what a rollout waits for, and adds how long that
//! may take.
//!
//! Main type: [`Look`], at one stage.

use std::collections::BTreeMap;
use std::time::Instant;

use api::operator::{
    RolloutCheck, RolloutCounts, RolloutQueued, RolloutStatus, RolloutTest, RolloutWait, RolloutWatched, StageBack,
};
use api::{ReleaseNumber, Span, StageName};

use super::clock_ms;
use crate::core::back::{Back, back, named};
use crate::core::due::start_problem;
use crate::core::event::odds;
use crate::core::observe::RolloutSeen;
use crate::core::rollout::{Wait, next_share, waits};
use crate::core::spec::Check;
use crate::core::state::{CheckSeen, Leaving, Phase, Rollout, Stage, StartTakes, State, Why};
use crate::engine::Engine;
use crate::judge::{Answered, Evidence, Measure, Verdict};

/// The 97.5 % point of the normal distribution: 95 % lie between it and its negative.
const Z: f64 = 1.959_963_984_540_054;

/// A look at one stage.
pub(super) struct Look<'a> {
    pub(super) engine: &'a Engine,
    pub(super) name: &'a StageName,
    pub(super) stage: &'a Stage,
    pub(super) now_ms: u64,
}

/// The rollout of a stage that is under way, and what waits for its end.
pub(crate) fn rollout_of(
    engine: &Engine,
    name: &StageName,
    now: Instant,
) -> (Option<RolloutStatus>, Option<RolloutQueued>) {
    let Some(stage) = engine.state.stage(name) else { return (None, None) };
    let changed = super::changed(engine, name);
    let rate = |number| engine.fleet.with_measure(|measure| measure.rate_since(name, number, changed, now));
    let look = Look { engine, name, stage, now_ms: clock_ms() };
    (look.under_way(rate), look.queued())
}

/// What is watched of a stage after its last rollout.
pub(crate) fn watched_of(engine: &Engine, name: &StageName) -> Option<RolloutWatched> {
    let stage = engine.state.stage(name)?;
    Look { engine, name, stage, now_ms: clock_ms() }.watched()
}

/// Where a rollback of the stage would go.
pub(crate) fn back_of(state: &State, name: &StageName) -> Option<StageBack> {
    let Back { to, start, problem, past } = back(state, name)?;
    let words = match start {
        _ if !problem.is_empty() => format!("{to} is no longer warm, and cannot be started: {problem}"),
        Some(takes) => format!("{to} is no longer warm: it needs {takes}"),
        None => String::new(),
    };
    Some(StageBack {
        release: to.number(),
        starts: !words.is_empty(),
        start_ms: start.and_then(StartTakes::ms),
        start: words,
        past: past.last().map_or(0, |mark| mark.release.number()),
        passes: if past.is_empty() { String::new() } else { named(&past) },
    })
}

// === impl Look ===

impl Look<'_> {
    /// The release that enters. `rate`: requests a second that a release answers lately; none: nobody knows yet.
    pub(super) fn under_way(&self, rate: impl Fn(ReleaseNumber) -> Option<f64>) -> Option<RolloutStatus> {
        let entering = self.stage.entering.as_ref()?;
        let mut status = RolloutStatus {
            release: entering.release.number(),
            stable: self.stage.stable.map_or(0, ReleaseNumber::number),
            strategy: "rollback".to_owned(),
            place: "fetched back".to_owned(),
            began_ms: entering.since_ms,
            since_ms: entering.since_ms,
            starting: entering.starting_until_ms.is_some(),
            share_ppm: entering.share.ppm(),
            ..RolloutStatus::default()
        };
        if let Some(rollout) = &entering.rollout {
            show_way(&mut status, rollout);
            self.show_seen(&mut status, rollout, rate(entering.release));
        }
        if status.starting {
            let problem = start_problem(&self.engine.state, &self.engine.seen, self.name, entering.release);
            let what = format!("{} to start: {}", entering.release, problem.unwrap_or_else(|| "all is healthy".into()));
            status.waits = vec![RolloutWait { kind: "start".to_owned(), what }];
        }
        Some(status)
    }

    /// What was seen, and what is missing.
    fn show_seen(&self, status: &mut RolloutStatus, rollout: &Rollout, rate: Option<f64>) {
        if self.stage.rolling().is_none() {
            return;
        }
        let nothing = RolloutSeen::nothing(rollout.number, rollout.at());
        let seen = self.engine.seen.rollouts.get(self.name).filter(|seen| seen.rollout == rollout.number);
        let seen = seen.unwrap_or(&nothing);
        let is_of_step = seen.step == rollout.at();
        status.step_requests = if is_of_step { seen.requests } else { 0 };
        show_evidence(status, &seen.evidence, seen.verdict);
        let none = BTreeMap::new();
        let said = self.engine.fleet.said(self.name, (rollout.number, rollout.at()));
        let checks = if rollout.phase == Phase::ByHand { &[] } else { rollout.spec.checks.as_slice() };
        status.checks = shown_checks(checks, if is_of_step { &seen.checks } else { &none }, &said);
        status.tripped = seen.tripped.as_ref().map_or(String::new(), |tripped| {
            format!("{} after {} failures among {} requests", tripped.proxy, tripped.failures, tripped.among)
        });
        let waits = waits(&self.engine.state, self.name, seen, self.now_ms);
        status.next_at_ms = next_at_ms(rollout, &waits);
        let asked = rollout.step().and_then(|(_, step)| step.requests);
        status.waits = waits.iter().map(|wait| shown_wait(wait, rollout, asked, rate)).collect();
    }

    /// The release that waits.
    pub(super) fn queued(&self) -> Option<RolloutQueued> {
        let queued = self.stage.queued.as_ref()?;
        Some(RolloutQueued {
            release: queued.release.number(),
            since_ms: queued.since_ms,
            share_ppm: queued.share.map(api::Share::ppm),
        })
    }

    /// What is watched after the last one.
    pub(super) fn watched(&self) -> Option<RolloutWatched> {
        let watching = self.stage.watched()?;
        let nothing = RolloutSeen::nothing(watching.number, 0);
        let seen = self.engine.seen.rollouts.get(self.name).filter(|seen| seen.rollout == watching.number);
        let seen = seen.unwrap_or(&nothing);
        let breach = seen.breach.map(|breach| {
            Why::Breached { by: breach.by, counted: breach.counted, allowed: breach.allowed }.to_string()
        });
        // What was told stays so, whatever is seen now: somebody was asked.
        let asked = watching.asked.as_ref();
        let breach = asked.map(|asked| asked.why.to_string()).or(breach);
        Some(RolloutWatched {
            release: watching.release.number(),
            before: watching.before.number(),
            objective: watching.objective.as_ref().map(ToString::to_string).unwrap_or_default(),
            until_ms: watching.until_ms.unwrap_or(0),
            warm_until_ms: match self.stage.leaving.get(&watching.before) {
                Some(Leaving::Warm { until_ms }) => *until_ms,
                _ => 0,
            },
            requests: seen.requests,
            breach: breach.unwrap_or_default(),
            told: watching.told,
            told_ms: asked.map_or(0, |asked| asked.at_ms),
            problem: asked.map(|asked| asked.problem.clone()).unwrap_or_default(),
            checks: shown_checks(
                &watching.checks,
                &seen.checks,
                &self.engine.fleet.said(self.name, (watching.number, 0)),
            ),
        })
    }
}

/// What is on record.
fn show_way(status: &mut RolloutStatus, rollout: &Rollout) {
    status.number = rollout.number;
    status.place = rollout.place();
    status.since_ms = rollout.since_ms;
    status.strategy = match rollout.phase {
        Phase::ByHand => "by-hand",
        Phase::AtOnce => "all-at-once",
        Phase::BeforeFlip | Phase::Step(_) => rollout.spec.strategy.name(),
    }
    .to_owned();
    if let Some((at, step)) = rollout.step() {
        status.step = at.saturating_add(1);
        status.steps = u32::try_from(rollout.steps().len()).unwrap_or(u32::MAX);
        status.asks = step.to_string();
    }
    status.next_share_ppm = next_share(rollout).map(api::Share::ppm);
    status.paused = rollout.paused;
    status.frozen = rollout.frozen.as_ref().map(ToString::to_string).unwrap_or_default();
    status.slow_us = rollout.slow_us.unwrap_or(0);
    status.insiders = rollout.insiders.iter().map(|one| format!("{}: {}", one.header, one.value)).collect();
    status.on_worse = rollout.spec.on_worse.to_string();
}

fn show_evidence(status: &mut RolloutStatus, evidence: &Evidence, verdict: Verdict) {
    status.canary = Some(counts(evidence.counted.canary));
    status.stable_counts = Some(counts(evidence.counted.stable));
    status.tests = tests_of(evidence);
    status.verdict = match verdict {
        Verdict::Worse { .. } => "worse",
        Verdict::NoWorse => "no worse",
        Verdict::NotYet { .. } => "not yet",
    }
    .to_owned();
    status.likely_requests = match verdict {
        Verdict::NotYet { likely_requests } => likely_requests,
        Verdict::Worse { .. } | Verdict::NoWorse => None,
    };
}

/// When the least time of the place is over; 0 where somebody has to move it.
fn next_at_ms(rollout: &Rollout, waits: &[Wait]) -> u64 {
    let is_a_persons = |wait: &Wait| {
        use Wait::*;
        matches!(wait, ByHand | Frozen | Paused | Resume | Mark { .. } | NoStep)
    };
    if waits.iter().any(is_a_persons) {
        return 0;
    }
    let least = rollout.step().and_then(|(_, step)| step.least_time);
    rollout.since_ms.saturating_add(least.map_or(0, Span::ms))
}

fn shown_wait(wait: &Wait, rollout: &Rollout, asked: Option<u64>, rate: Option<f64>) -> RolloutWait {
    let least = rollout.step().and_then(|(_, step)| step.least_time);
    let (kind, what) = match wait {
        Wait::ByHand => ("hand", wait.to_string()),
        Wait::Frozen => ("frozen", wait.to_string()),
        Wait::Paused => ("paused", wait.to_string()),
        Wait::Resume => ("resume", wait.to_string()),
        Wait::Time { .. } => ("time", least.map_or(wait.to_string(), |least| format!("{wait} of {least}"))),
        Wait::Requests { missing } => {
            let of = asked.map_or_else(String::new, |asked| format!(" of {asked}"));
            ("requests", format!("{missing} more{of} requests{}", about(*missing, rate)))
        }
        Wait::Traffic => ("traffic", "a first request that is judged: no traffic is no pass".to_owned()),
        Wait::Verdict { likely_requests } => {
            let likely = likely_requests.map(|more| format!(": about {more} more requests{}", about(more, rate)));
            ("verdict", format!("the judge to say \"no worse\"{}", likely.unwrap_or_default()))
        }
        Wait::Check { .. } => ("check", wait.to_string()),
        Wait::Agent => ("agent", wait.to_string()),
        Wait::Flat { .. } => ("flat", wait.to_string()),
        Wait::Mark { .. } => ("mark", wait.to_string()),
        Wait::NoStep => ("no_step", wait.to_string()),
    };
    RolloutWait { kind: kind.to_owned(), what }
}

/// How long so many requests take at the rate of the last seconds; nothing where that is not known yet.
fn about(requests: u64, rate: Option<f64>) -> String {
    let Some(rate) = rate else { return String::new() };
    if rate <= 0.0 {
        return ", and none come now".to_owned();
    }
    // More than a span can hold is long enough to say nothing.
    let seconds = (requests as f64 / rate).ceil().clamp(1.0, 1e9) as u64;
    let span = Span::from_ms(seconds * 1_000);
    span.map(|span| format!(", about {span} at {rate:.1} a second")).unwrap_or_default()
}

/// `said`: what is not reason enough to see them otherwise.
fn shown_checks(
    checks: &[Check],
    seen: &BTreeMap<String, CheckSeen>,
    said: &BTreeMap<String, String>,
) -> Vec<RolloutCheck> {
    let shown = |check: &Check| {
        let said = said.get(&check.name).cloned().unwrap_or_default();
        let (state, problem) = match seen.get(&check.name) {
            None | Some(CheckSeen::NotYet) => ("not yet", said),
            Some(CheckSeen::Well) => ("well", said),
            Some(CheckSeen::Failed(problem)) => ("failed", problem.clone()),
        };
        let asks = format!("{} every {}", check.kind, check.every);
        RolloutCheck { name: check.name.clone(), asks, state: state.to_owned(), problem }
    };
    checks.iter().map(shown).collect()
}

/// What one release answered, with the interval of its share of failures.
pub(crate) fn counts(answered: Answered) -> RolloutCounts {
    let Answered { requests, failed, slow } = answered;
    let share = wilson(failed, requests);
    RolloutCounts {
        requests,
        failed,
        slow,
        error_share: share.map(|_| failed as f64 / requests as f64),
        error_least: share.map(|(least, _)| least),
        error_most: share.map(|(_, most)| most),
    }
}

/// How each measure's test stands.
pub(crate) fn tests_of(evidence: &Evidence) -> Vec<RolloutTest> {
    let shown = |test: &crate::judge::Test| RolloutTest {
        measure: match test.measure {
            Measure::Errors => "errors",
            Measure::Slow => "slow",
        }
        .to_owned(),
        worse_milli: test.worse_milli,
        no_worse_milli: test.no_worse_milli,
        enough_milli: test.enough_milli,
        words: odds::words(test),
    };
    evidence.tests.iter().map(shown).collect()
}

/// Wilson's interval (1927) at 95 % for `part` of `of`, both ends within 0 and 1; `None` of nothing.
///
/// For people: at one look. The judge's own test is valid at every look.
fn wilson(part: u64, of: u64) -> Option<(f64, f64)> {
    if of == 0 {
        return None;
    }
    let (n, p) = (of as f64, part.min(of) as f64 / of as f64);
    let (z2, whole) = (Z * Z, 1.0 + Z * Z / n);
    let middle = (p + z2 / (2.0 * n)) / whole;
    let half = Z / whole * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // Exact at both ends, where rounding would leave a rest.
    let least = if part == 0 { 0.0 } else { (middle - half).max(0.0) };
    let most = if part >= of { 1.0 } else { (middle + half).min(1.0) };
    Some((least, most))
}

#[cfg(test)]
mod tests;
