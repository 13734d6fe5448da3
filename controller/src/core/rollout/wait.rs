//! What a rollout waits for before it moves by itself.

use std::fmt;

use api::{ReleaseNumber, Share, Span};

use super::{WARM_UP_MOST, next_share};
use crate::core::observe::RolloutSeen;
use crate::core::state::{CheckSeen, Entering, Phase, Rollout};
use crate::judge::Verdict;

/// One thing that is not so yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Somebody moves it.
    ByHand,
    /// It was worse; somebody has to say what becomes of it.
    Frozen,
    /// Somebody paused it.
    Paused,
    /// The step asks for somebody to resume it.
    Resume,
    /// Its least time.
    Time {
        /// Milliseconds that are left.
        left_ms: u64,
    },
    /// Its least requests.
    Requests {
        /// So many are missing.
        missing: u64,
    },
    /// A single request that is judged.
    Traffic,
    /// The judge.
    Verdict {
        /// About so many more requests.
        likely_requests: Option<u64>,
    },
    /// A check.
    Check {
        /// Its name.
        name: String,
    },
    /// An agent that runs it: those that did were revoked.
    Agent,
    /// The canary's latency has to be flat.
    Flat {
        /// At the latest then; none: the wait has not begun.
        until_ms: Option<u64>,
    },
    /// It is older than a release that was marked not reversible since: somebody moves it on, or out.
    Mark {
        /// That one.
        release: ReleaseNumber,
    },
    /// There is no step after this one.
    NoStep,
}

/// What keeps the rollout where it is, all of it.
pub(super) fn of_entering(
    entering: &Entering,
    rollout: &Rollout,
    seen: &RolloutSeen,
    lost: bool,
    now_ms: u64,
) -> Vec<Wait> {
    let mut waits = Vec::new();
    let mut wait = |when: bool, wait: Wait| waits.extend(when.then_some(wait));
    wait(rollout.frozen.is_some(), Wait::Frozen);
    wait(rollout.paused, Wait::Paused);
    if matches!(rollout.phase, Phase::ByHand | Phase::AtOnce) {
        wait(true, Wait::ByHand);
        return waits;
    }
    wait(rollout.waits_for_resume(), Wait::Resume);
    let Some(next) = next_share(rollout) else {
        wait(true, Wait::NoStep);
        return waits;
    };
    let rises = next > entering.share;
    wait(lost && rises, Wait::Agent);
    // What was seen in another step was not earned in this one.
    let nothing = RolloutSeen::nothing(seen.rollout, rollout.at());
    let seen = if (seen.rollout, seen.step) == (rollout.number, rollout.at()) { seen } else { &nothing };
    waits.extend(of_step(rollout, seen, now_ms));
    for check in rollout.spec.checks.iter().filter(|check| seen.checks.get(&check.name) != Some(&CheckSeen::Well)) {
        waits.push(Wait::Check { name: check.name.clone() });
    }
    let until_ms = rollout.warming_since_ms.map(|since_ms| since_ms.saturating_add(WARM_UP_MOST.ms()));
    if rises && entering.share > Share::NONE && !seen.is_flat && until_ms.is_none_or(|until_ms| now_ms < until_ms) {
        waits.push(Wait::Flat { until_ms });
    }
    waits
}

/// What a canary's step asks for: time, requests and a verdict.
fn of_step(rollout: &Rollout, seen: &RolloutSeen, now_ms: u64) -> Vec<Wait> {
    let Some((at, step)) = rollout.step() else { return Vec::new() };
    let mut waits = Vec::new();
    let asks_for_nothing = step.least_time.is_none() && step.requests.is_none();
    let passed_ms = now_ms.saturating_sub(rollout.since_ms);
    let left_ms = step.least_time.map_or(0, |least| least.ms().saturating_sub(passed_ms)).max(seen.least_left_ms);
    if left_ms > 0 {
        waits.push(Wait::Time { left_ms });
    }
    // No traffic is a fact and never a pass; a step that only pauses is a person's, and insiders are not judged.
    let only_pauses = step.pause && step.share.is_none() && asks_for_nothing;
    let is_judged = rollout.share_of(at) > Share::NONE && !only_pauses;
    let missing = step.requests.unwrap_or(0).saturating_sub(seen.requests);
    if missing > 0 {
        waits.push(Wait::Requests { missing });
    } else if is_judged && seen.requests == 0 {
        waits.push(Wait::Traffic);
    }
    let likely_requests = match seen.verdict {
        Verdict::NotYet { likely_requests } => likely_requests,
        Verdict::NoWorse | Verdict::Worse { .. } => None,
    };
    let is_worse = matches!(seen.verdict, Verdict::Worse { .. });
    if is_worse || is_judged && asks_for_nothing && seen.verdict != Verdict::NoWorse {
        waits.push(Wait::Verdict { likely_requests });
    }
    waits
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |ms: u64| Span::from_ms(ms.div_ceil(1_000).max(1) * 1_000).unwrap_or(Span::MAX);
        match self {
            Self::ByHand => f.write_str("somebody to set its weight"),
            Self::Frozen => f.write_str("somebody to resume, skip or abort it: it is frozen"),
            Self::Paused => f.write_str("somebody to resume it: it is paused"),
            Self::Resume => f.write_str("somebody to resume it"),
            Self::Time { left_ms } => write!(f, "{} more", whole(*left_ms)),
            Self::Requests { missing } => write!(f, "{missing} more requests"),
            Self::Traffic => f.write_str("a first request"),
            Self::Verdict { likely_requests: Some(more) } => write!(f, "the judge: about {more} more requests"),
            Self::Verdict { likely_requests: None } => f.write_str("the judge"),
            Self::Check { name } => write!(f, "the check {name} to be well"),
            Self::Agent => f.write_str("an agent that runs it"),
            Self::Flat { .. } => write!(f, "flat latency, for at most {WARM_UP_MOST}"),
            Self::Mark { release } => {
                write!(f, "somebody to skip or abort it: {release} was marked not reversible since it was promoted")
            }
            Self::NoStep => f.write_str("somebody to set its weight: there is no step after this one"),
        }
    }
}
