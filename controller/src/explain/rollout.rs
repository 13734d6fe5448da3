//! The way of one release into a stage, told from the events since it was promoted: what happened, when, and why.
//!
//! Must not know: how events are kept, or what is seen now.
//!
//! Main function: [`rollout`], of what [`Happened`] since.

use api::operator::{RolloutExplained, RolloutMoment};
use api::{ReleaseNumber, StageName};

use crate::core::back::named;
use crate::core::event::{Event, odds};
use crate::core::spec::Strategy;
use crate::core::state::{Begun, Earned, Phase, WatchEnd, Why};
use crate::engine;
use crate::judge::{Answered, Evidence, Measure, Verdict};
use crate::status::{counts, tests_of};
use crate::store::Record;

/// An event with who, when and why.
#[derive(Debug, Clone)]
pub(crate) struct Happened {
    seq: u64,
    at_ms: u64,
    by: String,
    reason: String,
    event: Event,
}

// === impl Happened ===

impl Happened {
    /// What a record says; none when it is no event that is known.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let event = engine::event_of(record).ok().flatten()?;
        let (by, reason) = (record.by.clone(), record.reason.clone());
        Some(Self { seq: record.seq, at_ms: record.at_ms, by, reason, event })
    }

    /// The release that was let in: to be fetched back is no rollout.
    pub(crate) fn begins_rollout(&self) -> Option<ReleaseNumber> {
        match self.event {
            Event::Promoted { rollback: false, release, .. } => Some(release),
            _ => None,
        }
    }
}

/// The way of the release whose promotion comes first; none when there is none.
pub(crate) fn rollout(stage: &StageName, happened: &[Happened]) -> Option<RolloutExplained> {
    let first = happened.first().filter(|first| first.begins_rollout().is_some())?;
    let Event::Promoted { release, rollout, .. } = &first.event else { return None };
    let mut explained = RolloutExplained {
        stage: stage.to_string(),
        release: release.number(),
        way: way(rollout.as_deref()),
        outcome: "under way".to_owned(),
        began_ms: first.at_ms,
        ..RolloutExplained::default()
    };
    for one in happened.iter().filter(|one| belongs(&one.event, *release)) {
        take_in(&mut explained, one);
        explained.moments.push(moment(one));
    }
    Some(explained)
}

fn way(begun: Option<&Begun>) -> String {
    match begun {
        Some(Begun { phase: Phase::ByHand, .. }) => "by hand".to_owned(),
        Some(Begun { phase: Phase::AtOnce, .. }) | None => Strategy::AllAtOnce.to_string(),
        Some(begun) => begun.spec.strategy.to_string(),
    }
}

/// Whether an event is about this release's way, or ends it, or tells of what waits for its end.
fn belongs(event: &Event, of: ReleaseNumber) -> bool {
    match event {
        Event::Promoted { rollback, release, .. } => *rollback || *release == of,
        Event::RolledBack { from, .. } => *from == of,
        Event::Entered { release, .. }
        | Event::ShareSet { release, .. }
        | Event::Completed { release, .. }
        | Event::StepTaken { release, .. }
        | Event::Flipped { release, .. }
        | Event::WarmingUp { release, .. }
        | Event::SlowBoundSet { release, .. }
        | Event::RolloutPaused { release, .. }
        | Event::RolloutResumed { release, .. }
        | Event::RolloutFrozen { release, .. }
        | Event::TakenOver { release, .. }
        | Event::Replaced { release, .. }
        | Event::Breached { release, .. }
        | Event::WatchEnded { release, .. } => *release == of,
        Event::Queued { .. } | Event::Dropped { .. } | Event::MarksPassed { .. } => true,
        // Of another one: that it could not be fetched back.
        Event::PromotionFailed { .. } => true,
        _ => false,
    }
}

/// How the way stands after an event.
fn take_in(explained: &mut RolloutExplained, one: &Happened) {
    let outcome = match &one.event {
        Event::Completed { watching, .. } => {
            explained.stable = watching.as_ref().map_or(explained.stable, |watching| watching.before.number());
            let is_watched = watching.as_ref().is_some_and(|watching| watching.until_ms.is_some());
            if is_watched { "watched" } else { "completed" }
        }
        Event::WatchEnded { .. } => "completed",
        Event::RolledBack { to, .. } => {
            explained.stable = to.number();
            "rolled back"
        }
        // It went out because what was before it is fetched back.
        Event::Promoted { rollback: true, .. } => return,
        Event::Replaced { .. } => "replaced",
        Event::PromotionFailed { release, .. } if release.number() == explained.release => "failed",
        _ => return,
    };
    outcome.clone_into(&mut explained.outcome);
    explained.ended_ms = if outcome == "watched" { 0 } else { one.at_ms };
}

fn moment(one: &Happened) -> RolloutMoment {
    let mut moment = RolloutMoment {
        event: one.seq,
        at_ms: one.at_ms,
        by: one.by.clone(),
        reason: one.reason.clone(),
        kind: one.event.kind().to_owned(),
        what: one.event.sentence(),
        share_ppm: share_after(&one.event),
        ..RolloutMoment::default()
    };
    if let Event::RolloutFrozen { held: Some(held), .. } = &one.event {
        let held = named(std::slice::from_ref(held));
        moment.why.push(format!("it did not go out by itself because of {held}"));
    }
    match &one.event {
        Event::WatchEnded { earned, cause, .. } => {
            let cause = match cause {
                WatchEnd::Earned if earned.is_some() => "earned",
                WatchEnd::Earned | WatchEnd::Skipped => "skipped",
                WatchEnd::Replaced => "replaced",
                WatchEnd::WarmthEnded => "warmth ended",
            };
            cause.clone_into(&mut moment.cause);
        }
        Event::StepTaken { earned, .. } | Event::Flipped { earned, .. } => match earned.as_deref() {
            Some(earned) => show_earned(&mut moment, earned),
            None => "skipped".clone_into(&mut moment.cause),
        },
        Event::RolledBack { why: Some(why), .. } | Event::RolloutFrozen { why, .. } | Event::Breached { why, .. } => {
            show_why(&mut moment, why)
        }
        _ => {}
    }
    moment
}

fn share_after(event: &Event) -> Option<u32> {
    match event {
        Event::Promoted { share, .. }
        | Event::ShareSet { share, .. }
        | Event::StepTaken { share, .. }
        | Event::RolloutResumed { share, .. }
        | Event::RolloutFrozen { share, .. } => Some(share.ppm()),
        Event::Flipped { .. } | Event::Completed { .. } => Some(api::Share::ALL.ppm()),
        Event::RolledBack { .. } | Event::Replaced { .. } => Some(0),
        _ => None,
    }
}

fn show_earned(moment: &mut RolloutMoment, earned: &Earned) {
    "earned".clone_into(&mut moment.cause);
    let decision = match earned.verdict {
        Verdict::NoWorse => "the judge said: no worse than the stable release, within the margins",
        Verdict::NotYet { .. } if earned.requests > 0 => {
            "the judge had not decided, which is enough for time and requests"
        }
        Verdict::NotYet { .. } => "nothing had been judged: the step asked for none of it",
        Verdict::Worse { .. } => "the judge said: worse",
    };
    show_evidence(moment, &earned.evidence);
    moment.why.push(decision.to_owned());
}

fn show_why(moment: &mut RolloutMoment, why: &Why) {
    let (cause, decision) = match why {
        Why::Worse { by, evidence } => {
            show_evidence(moment, evidence);
            ("worse", format!("the judge said: worse, by {}", word(*by)))
        }
        Why::Tripped { .. } => ("tripped", why.to_string()),
        Why::CheckFailed { .. } => ("check", why.to_string()),
        Why::Breached { counted, .. } => {
            moment.canary = Some(counts(*counted));
            ("breach", why.to_string())
        }
    };
    cause.clone_into(&mut moment.cause);
    moment.why.push(decision);
}

fn word(measure: Measure) -> &'static str {
    match measure {
        Measure::Errors => "errors",
        Measure::Slow => "slow answers",
    }
}

/// Numbers, then each test with its threshold.
fn show_evidence(moment: &mut RolloutMoment, evidence: &Evidence) {
    let (canary, stable) = (evidence.counted.canary, evidence.counted.stable);
    if canary == Answered::default() && stable == Answered::default() {
        return;
    }
    (moment.canary, moment.stable) = (Some(counts(canary)), Some(counts(stable)));
    moment.tests = tests_of(evidence);
    let numbers = |answered: Answered| {
        let Answered { requests, failed, slow } = answered;
        format!("{failed} failed and {slow} slow of {requests}")
    };
    moment.why.push(format!("counted at the same time: {}; the stable release {}", numbers(canary), numbers(stable)));
    moment.why.extend(evidence.tests.iter().map(|test| format!("{}: {}", word(test.measure), odds::words(test))));
}

#[cfg(test)]
mod tests;
