//! What a rollout does by itself, and what it waits for: from what is on record, what was seen, and the time.
//!
//! Must not know: how things are seen, how events are worded, or who asks. `due` asks whether anything follows, `decide` asks
//! again before it is recorded, so that nothing that arrives late or twice takes a step.
//!
//! Main functions: [`next`] gives the [`Act`] that follows; [`waits`] says what keeps it from moving.

#[cfg(test)]
mod tests;
mod wait;

use api::{ReleaseNumber, Share, Span, StageName};

use super::back::{held, passed};
use super::observe::RolloutSeen;
use super::spec::{Breach, OnWorse, Strategy};
use super::state::rollout::{all_well, failed};
use super::state::{
    CheckSeen, Earned, Entering, Leaving, Marked, Phase, Rollout, Stage, State, WatchEnd, Watching, Why,
};
use crate::judge::Verdict;

pub use wait::Wait;

/// Longest wait for flat latency before a share grows: by then a cache is warm, or is never.
pub const WARM_UP_MOST: Span = Span::from_ms(300_000).expect("five minutes are a span");

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The release goes out again, and is marked bad.
    TakeOut(Why),
    /// Everything stays as it is, after a tripwire without the release.
    Freeze(Why),
    /// The stable release's own 95 %, in microseconds, are what is slow from now on.
    BoundSlow(u64),
    /// The step is over, but the canary's latency rises.
    WarmUp,
    /// The next step begins.
    Advance(Earned),
    /// Blue-green: everything goes to the new release.
    Flip(Earned),
    /// Afterwards: everything goes back.
    GoBack(Why),
    /// Afterwards: somebody is told.
    Tell(Why),
    /// Blue-green: all was well for long enough, or there is nothing to flip back to any more.
    EndWatch(Earned, WatchEnd),
}

/// Number and step under which observations of a stage count now; none: nothing is looked at.
pub fn seen_as(stage: &Stage) -> Option<(u64, u32)> {
    let rolling = stage.rolling().map(|(_, rollout, _)| (rollout.number, rollout.at()));
    rolling.or_else(|| stage.watched().map(|watching| (watching.number, 0)))
}

/// What follows from `seen`, if it is about what is under way now.
pub fn next(state: &State, name: &StageName, seen: &RolloutSeen, now_ms: u64) -> Option<Act> {
    let stage = state.stage(name)?;
    if let Some((entering, rollout, _)) = stage.rolling() {
        let lost = state.has_lost(name, entering.release);
        return (seen.rollout == rollout.number).then(|| {
            let held = past_going_out(state, name, rollout, entering.release).is_some();
            let moves =
                || go_on(entering, rollout, seen, lost, now_ms).filter(|act| may_follow(state, name, entering, act));
            stop(rollout, seen, held).or_else(moves)
        })?;
    }
    let watching = stage.watched().filter(|watching| watching.number == seen.rollout)?;
    let is_warm = |why: &Leaving| matches!(why, Leaving::Warm { until_ms } if *until_ms > now_ms);
    if !stage.leaving.get(&watching.before).is_some_and(is_warm) {
        // Nothing goes back to it any more, whatever was seen.
        return watching.until_ms.map(|_| Act::EndWatch(saw(watching, seen, now_ms), WatchEnd::WarmthEnded));
    }
    watch(watching, seen, now_ms)
}

/// A release that is worse, whatever else it waits for.
fn stop(rollout: &Rollout, seen: &RolloutSeen, held: bool) -> Option<Act> {
    let has_tripped = |why: &Why| matches!(why, Why::Tripped { .. });
    let frozen = rollout.frozen.as_ref().map(|frozen| &frozen.why);
    let tripped = seen.tripped.as_ref().map(|tripped| Why::Tripped {
        proxy: tripped.proxy.clone(),
        failures: tripped.failures,
        among: tripped.among,
    });
    let why = match frozen {
        Some(why) if has_tripped(why) => None,
        // The share becomes what proxies made of it.
        Some(_) => tripped,
        None => tripped.or_else(|| is_worse(rollout, seen)),
    }?;
    Some(match rollout.spec.on_worse {
        OnWorse::Rollback if !held => Act::TakeOut(why),
        OnWorse::Rollback | OnWorse::Freeze => Act::Freeze(why),
    })
}

/// What keeps a release from going out by itself: the highest release, marked not reversible, that it would leave behind.
pub(super) fn past_going_out(
    state: &State,
    name: &StageName,
    rollout: &Rollout,
    release: ReleaseNumber,
) -> Option<Marked> {
    let stable = state.stage(name)?.stable.filter(|_| rollout.spec.on_worse == OnWorse::Rollback)?;
    passed(state, name, &[release], stable).pop()
}

/// An older release takes no more by itself once something is marked that it would leave behind.
fn may_follow(state: &State, name: &StageName, entering: &Entering, act: &Act) -> bool {
    !matches!(act, Act::Advance(_) | Act::Flip(_)) || held(state, name, entering).is_none()
}

fn is_worse(rollout: &Rollout, seen: &RolloutSeen) -> Option<Why> {
    if let Verdict::Worse { by } = seen.verdict {
        return Some(Why::Worse { by, evidence: seen.evidence.clone() });
    }
    // Checks are run at each step: by hand there are none.
    let checks = if rollout.phase == Phase::ByHand { &[] } else { rollout.spec.checks.as_slice() };
    let (check, problem) = failed(checks, &seen.checks)?;
    Some(Why::CheckFailed { check: check.to_owned(), problem: problem.to_owned() })
}

fn go_on(entering: &Entering, rollout: &Rollout, seen: &RolloutSeen, lost: bool, now_ms: u64) -> Option<Act> {
    if rollout.frozen.is_some() {
        return None;
    }
    // Without a share nobody is compared, and nothing need be known.
    let is_compared = entering.share > Share::NONE;
    if let (None, Some(slow_us @ 1..), true) = (rollout.slow_us, seen.stable_p95_us, is_compared) {
        return Some(Act::BoundSlow(slow_us));
    }
    let waits = wait::of_entering(entering, rollout, seen, lost, now_ms);
    let earned = || earned(rollout, seen, now_ms);
    match (waits.as_slice(), rollout.phase) {
        (_, Phase::AtOnce | Phase::ByHand) => None,
        ([], Phase::BeforeFlip) => Some(Act::Flip(earned())),
        ([], Phase::Step(_)) => Some(Act::Advance(earned())),
        ([Wait::Flat { until_ms: None }], Phase::Step(_)) => Some(Act::WarmUp),
        _ => None,
    }
}

fn earned(rollout: &Rollout, seen: &RolloutSeen, now_ms: u64) -> Earned {
    Earned {
        took_ms: now_ms.saturating_sub(rollout.since_ms),
        requests: seen.requests,
        verdict: seen.verdict,
        evidence: seen.evidence.clone(),
        checks: rollout.spec.checks.iter().map(|check| check.name.clone()).collect(),
        warmed_ms: rollout.warming_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
    }
}

fn watch(watching: &Watching, seen: &RolloutSeen, now_ms: u64) -> Option<Act> {
    let failed = failed(&watching.checks, &seen.checks).filter(|_| watching.until_ms.is_some());
    if let Some((check, problem)) = failed {
        return go_back(watching, Why::CheckFailed { check: check.to_owned(), problem: problem.to_owned() });
    }
    let breach = seen.breach.filter(|_| watching.objective.is_some());
    if let Some(breach) = breach {
        let why = Why::Breached { by: breach.by, counted: breach.counted, allowed: breach.allowed };
        // Told or not: what breaks its promise has not passed its time.
        return go_back(watching, why);
    }
    let over = watching.until_ms.is_some_and(|until_ms| until_ms <= now_ms);
    (over && all_well(&watching.checks, &seen.checks))
        .then(|| Act::EndWatch(saw(watching, seen, now_ms), WatchEnd::Earned))
}

/// What was seen since the flip.
fn saw(watching: &Watching, seen: &RolloutSeen, now_ms: u64) -> Earned {
    let well = watching.checks.iter().filter(|check| seen.checks.get(&check.name) == Some(&CheckSeen::Well));
    Earned {
        took_ms: watching.took_ms(now_ms),
        requests: seen.requests,
        verdict: seen.verdict,
        evidence: seen.evidence.clone(),
        checks: well.map(|check| check.name.clone()).collect(),
        warmed_ms: 0,
    }
}

/// Everything back, or a word about it. What was told once is told: somebody has been asked.
fn go_back(watching: &Watching, why: Why) -> Option<Act> {
    match watching.on_breach() {
        _ if watching.told => None,
        Breach::Rollback => Some(Act::GoBack(why)),
        Breach::Ask => Some(Act::Tell(why)),
    }
}

/// What keeps a stage's rollout from moving by itself; empty: nothing, or there is none.
pub fn waits(state: &State, name: &StageName, seen: &RolloutSeen, now_ms: u64) -> Vec<Wait> {
    let rolling = state.stage(name).and_then(Stage::rolling);
    let Some((entering, rollout, _)) = rolling else { return Vec::new() };
    let mut waits = wait::of_entering(entering, rollout, seen, state.has_lost(name, entering.release), now_ms);
    waits.extend(held(state, name, entering).map(|mark| Wait::Mark { release: mark.release }));
    waits
}

/// The share that the next phase has; none: there is no next one.
pub fn next_share(rollout: &Rollout) -> Option<Share> {
    match (&rollout.spec.strategy, rollout.phase) {
        (Strategy::BlueGreen(_), Phase::BeforeFlip) => Some(Share::ALL),
        (Strategy::Canary(steps), Phase::Step(at)) => {
            let next = at.checked_add(1)?;
            (usize::try_from(next).ok()? < steps.len()).then(|| rollout.share_of(next))
        }
        _ => None,
    }
}
