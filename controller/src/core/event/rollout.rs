//! What happened to a release on its way into a stage, as a person says it, with the numbers that it went by.

use std::fmt;

use api::{Share, Span};

use super::Event;
use super::odds::Odds;
use crate::core::state::{Begun, Earned, Phase, WatchEnd, Watching, Why};
use crate::judge::{Answered, Block, Evidence, Measure, Verdict};

impl Event {
    pub(super) fn sentence_of_rollout(&self) -> String {
        match self {
            Self::Promoted { .. } => self.sentence_of_promotion(),
            Self::StepTaken { stage, release, step, of, share, earned, .. } => {
                let step = u64::from(*step) + 1;
                format!("{release} takes step {step} of {of} in {stage} with {share}: {}", by(earned.as_deref()))
            }
            Self::Flipped { stage, release, earned } => {
                format!("{stage} is flipped to {release}: {}", by(earned.as_deref()))
            }
            Self::Completed { stage, release, watching, .. } => {
                format!("{release} serves all of {stage}{}", watched(watching.as_deref()))
            }
            Self::RolledBack { stage, from, to, why, .. } => {
                let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                format!("{stage} was rolled back from {from} to {to}{why}")
            }
            Self::WarmingUp { stage, release, .. } => {
                format!(
                    "{release} in {stage} has earned its next step and waits for at most 5m until its latency is flat"
                )
            }
            Self::SlowBoundSet { stage, release, slow_us, .. } => {
                format!(
                    "answers of {stage} that take longer than {} are slow: {release} is judged by that",
                    ms(*slow_us)
                )
            }
            Self::RolloutPaused { stage, release } => {
                format!("the rollout of {release} in {stage} is paused: `pointsman rollout resume {stage}` goes on")
            }
            Self::RolloutResumed { stage, release, share, .. } => {
                let from = if *share == Share::NONE { String::new() } else { format!(" from {share}") };
                format!("the rollout of {release} in {stage} goes on{from}")
            }
            Self::RolloutFrozen { held: Some(held), .. } => self.sentence_of_held(held),
            Self::RolloutFrozen { stage, release, share, why, .. } => format!(
                "the rollout of {release} in {stage} is frozen at {share}: {why}; `pointsman rollout abort {stage}` ends it, \
                 resume, skip or weight goes on"
            ),
            Self::TakenOver { stage, release, .. } => format!(
                "the rollout of {release} in {stage} goes on by hand: its steps count no more, \
                 `pointsman rollout weight {stage} SHARE` moves it"
            ),
            Self::Replaced { stage, release, by, .. } => {
                format!("{release} left {stage} for {by}; it is not marked bad")
            }
            Self::Queued { stage, release, .. } => {
                format!("{release} waits until the rollout under way in {stage} has ended")
            }
            Self::Dropped { stage, release, because } => {
                format!("{release} no longer waits to enter {stage}: {because}")
            }
            Self::Breached { stage, release, why, fetched_back: Some(back), .. } => {
                format!(
                    "{release} breaks what {stage} promises: {why}; everything goes back to {back}, which has to start first"
                )
            }
            Self::Breached { stage, release, why, problem, .. } => {
                let problem = if problem.is_empty() { String::new() } else { format!(" ({problem})") };
                format!(
                    "{release} breaks what {stage} promises: {why}; `pointsman rollback {stage}` goes back{problem}"
                )
            }
            Self::WatchEnded { .. } => self.sentence_of_watch_end(),
            // INVARIANT: `sentence` words all others.
            other => other.kind().replace('_', " "),
        }
    }

    fn sentence_of_watch_end(&self) -> String {
        let Self::WatchEnded { stage, release, earned, took_ms, cause, .. } = self else { return String::new() };
        let took = seconds(*took_ms);
        let took = took.map(|took| format!(" after {took}")).unwrap_or_default();
        match (cause, earned) {
            (WatchEnd::Earned, Some(earned)) => {
                format!("{release} in {stage} has passed its time after the flip: {earned}")
            }
            (WatchEnd::Earned | WatchEnd::Skipped, _) => {
                format!("{release} in {stage} is watched no longer{took}: somebody skipped the rest")
            }
            (WatchEnd::Replaced, _) => {
                format!("{release} in {stage} is watched no longer{took}: another release takes its place")
            }
            (WatchEnd::WarmthEnded, earned) => {
                let saw = earned.as_ref().map(|earned| format!("; it saw {earned}")).unwrap_or_default();
                format!(
                    "{release} in {stage} is watched no longer{took}, for what it would flip back to is no longer warm{saw}"
                )
            }
        }
    }

    fn sentence_of_promotion(&self) -> String {
        let Self::Promoted { stage, release, share, starting_until_ms, rollback, bypass, rollout, .. } = self else {
            return String::new();
        };
        let verb = if *rollback { "is fetched back into" } else { "was promoted to" };
        let starts = if starting_until_ms.is_some() { "; it starts first" } else { "" };
        let bypass = if *bypass { "; it has not run upstream" } else { "" };
        let way = match rollout.as_deref() {
            Some(Begun { phase: Phase::BeforeFlip, .. }) => {
                "for everything once all is well at its own host".to_owned()
            }
            Some(Begun { phase: Phase::Step(_), spec, .. }) => {
                let of = match &spec.strategy {
                    crate::core::spec::Strategy::Canary(steps) => steps.len(),
                    _ => 0,
                };
                let whom = if *share == Share::NONE { "insiders only".to_owned() } else { share.to_string() };
                format!("for {whom}, the first of {of} steps")
            }
            _ => format!("for {share}"),
        };
        format!("{release} {verb} {stage} {way}{starts}{bypass}")
    }
}

fn by(earned: Option<&Earned>) -> String {
    earned.map_or_else(|| "somebody skipped the rest".to_owned(), ToString::to_string)
}

fn watched(watching: Option<&Watching>) -> String {
    let Some(watching) = watching else { return String::new() };
    let before = watching.before;
    if watching.until_ms.is_some() {
        return format!("; it is watched, and whatever fails flips back to {before}");
    }
    format!("; its objective is watched while {before} is warm")
}

/// Whole seconds; none of less than one.
fn seconds(ms: u64) -> Option<Span> {
    Span::from_ms(ms / 1_000 * 1_000)
}

/// Microseconds as milliseconds, without a rest that nobody reads.
fn ms(us: u64) -> String {
    if us < 10_000 { format!("{}.{}ms", us / 1_000, us % 1_000 / 100) } else { format!("{}ms", us / 1_000) }
}

/// A part of requests as a percentage with two decimals.
fn rate(part: u64, of: u64) -> String {
    let ppm = u128::from(part.min(of)) * 1_000_000 / u128::from(of.max(1));
    let share = u32::try_from(ppm / 100 * 100).ok().and_then(Share::from_ppm).unwrap_or(Share::ALL);
    format!("{part} of {of} ({share})")
}

fn of_measure(answered: Answered, measure: Measure) -> u64 {
    match measure {
        Measure::Errors => answered.failed,
        Measure::Slow => answered.slow,
    }
}

fn word(measure: Measure) -> &'static str {
    match measure {
        Measure::Errors => "failed",
        Measure::Slow => "were slow",
    }
}

/// Both releases in one measure, with the evidence and what would have been enough.
fn compared(by: Measure, evidence: &Evidence) -> String {
    let Block { canary, stable } = evidence.counted;
    let test = evidence.tests.iter().find(|test| test.measure == by);
    let test = test
        .map(|test| format!(" ({} that it is worse, {} is enough)", Odds(test.worse_milli), Odds(test.enough_milli)));
    format!(
        "{} of its requests {}, {} of the stable release's{}",
        rate(of_measure(canary, by), canary.requests),
        word(by),
        rate(of_measure(stable, by), stable.requests),
        test.unwrap_or_default()
    )
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worse { by, evidence } => write!(f, "it is worse: {}", compared(*by, evidence)),
            Self::Tripped { proxy, failures, among } => {
                write!(f, "{proxy} stopped it after {failures} failures among {among} requests")
            }
            Self::CheckFailed { check, problem } => write!(f, "the check {check} failed: {problem}"),
            Self::Breached { by, counted, allowed } => {
                let part = rate(of_measure(*counted, *by), counted.requests);
                write!(f, "{part} of its requests {}, and the objective allows {allowed}", word(*by))
            }
        }
    }
}

impl fmt::Display for Earned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = seconds(self.took_ms).map(|span| format!(" in {span}")).unwrap_or_default();
        write!(f, "{} requests{took}", self.requests)?;
        match self.verdict {
            Verdict::NoWorse => write!(f, ", no worse than the stable release")?,
            Verdict::NotYet { .. } if self.requests > 0 => write!(f, ", nothing shows that it is worse")?,
            Verdict::NotYet { .. } => {}
            Verdict::Worse { .. } => write!(f, ", worse")?,
        }
        if !self.checks.is_empty() {
            write!(f, ", checks are well: {}", self.checks.join(", "))?;
        }
        if let Some(warmed) = Span::from_ms(self.warmed_ms) {
            write!(f, ", after it waited {warmed} for flat latency")?;
        }
        Ok(())
    }
}
