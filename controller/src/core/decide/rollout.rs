//! A rollout moves: by itself, by what was earned, or because somebody says so. Each is decided by what is on record, so that a
//! word that comes late or twice does nothing.

use api::{ReleaseNumber, Share, StageName};

use super::require_reason;
use super::traffic::{Taking, cancel, further, go_back_to, known, number_after, take_share, warm_until_ms};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::observe::RolloutSeen;
use crate::core::rollout::{Act, Wait, next, next_share, past_going_out, waits};
use crate::core::state::{Earned, Entering, Phase, Rollout, Stage, State, WatchEnd, Watching, Why};

/// What follows from what was seen: nothing, once it has been done or when it is of another rollout or step.
pub(super) fn go_on(
    state: &State,
    name: &StageName,
    seen: &RolloutSeen,
    context: &Context,
) -> Result<Decision, Refusal> {
    let Some(stage) = state.stage(name) else { return Ok(Decision::default()) };
    let Some(act) = next(state, name, seen, context.now_ms) else { return Ok(Decision::default()) };
    let events = match (stage.rolling(), stage.watched()) {
        (Some((entering, rollout, stable)), _) => match act {
            Act::TakeOut(why) => {
                return Ok(cancel(state, name, entering, stable, true, Some(why), context));
            }
            other => of_entering(state, name, entering, rollout, other, context),
        },
        (None, Some(watching)) => return Ok(of_watched(state, name, stage, watching, act, context)),
        (None, None) => Vec::new(),
    };
    Ok(told(events))
}

fn told(events: Vec<Event>) -> Decision {
    Decision { lines: events.iter().map(Event::sentence).collect(), events }
}

fn of_entering(
    state: &State,
    name: &StageName,
    entering: &Entering,
    rollout: &Rollout,
    act: Act,
    context: &Context,
) -> Vec<Event> {
    let (stage, release, number) = (name.clone(), entering.release, rollout.number);
    match act {
        Act::Freeze(why) => {
            // The proxies have sent it nothing since; what is on record says the same.
            let share = if matches!(why, Why::Tripped { .. }) { Share::NONE } else { entering.share };
            let held = past_going_out(state, name, rollout, release);
            vec![Event::RolloutFrozen { stage, release, rollout: number, share, why: Box::new(why), held }]
        }
        Act::BoundSlow(slow_us) => {
            vec![Event::SlowBoundSet { stage, release, rollout: number, slow_us }]
        }
        Act::WarmUp => vec![Event::WarmingUp { stage, release, rollout: number }],
        Act::Advance(earned) | Act::Flip(earned) => {
            step_on(state, name, (entering, rollout, number), Some(earned), context)
        }
        // INVARIANT: the rest is about what is watched afterwards, or done before.
        Act::TakeOut(_) | Act::GoBack(_) | Act::Tell(_) | Act::EndWatch(..) => Vec::new(),
    }
}

/// The next phase begins, under this number. `earned`: by what; none: somebody skips.
fn step_on(
    state: &State,
    name: &StageName,
    (entering, rollout, number): (&Entering, &Rollout, u64),
    earned: Option<Earned>,
    context: &Context,
) -> Vec<Event> {
    let Some(share) = next_share(rollout) else { return Vec::new() };
    let (stage, release, earned) = (name.clone(), entering.release, earned.map(Box::new));
    let mut events = Vec::new();
    if let Some((at, _)) = rollout.step() {
        let of = u32::try_from(rollout.steps().len()).unwrap_or(u32::MAX);
        events.push(Event::StepTaken { stage, release, rollout: number, step: at + 1, of, share, earned });
    } else {
        events.push(Event::Flipped { stage, release, earned });
    }
    if share == Share::ALL {
        let way = Rollout { number: number.max(rollout.number), ..rollout.clone() };
        let taking = Taking { release, share, rollback: false, rollout: Some(&way) };
        events.extend(take_share(state, name, &taking, context));
    }
    events
}

fn of_watched(
    state: &State,
    name: &StageName,
    stage: &Stage,
    watching: &Watching,
    act: Act,
    context: &Context,
) -> Decision {
    let (release, rollout) = (watching.release, watching.number);
    let tell = |why: Why, problem: String, fetched_back: Option<ReleaseNumber>| Event::Breached {
        stage: name.clone(),
        release,
        rollout,
        why: Box::new(why),
        problem,
        fetched_back,
    };
    match act {
        Act::GoBack(why) => {
            match go_back_to(state, name, stage, (release, watching.before), Some(why.clone()), context) {
                // It was fetched back from where it ran no more: the reason would be lost with it.
                Ok(decision) if matches!(decision.events[..], [Event::Promoted { .. }]) => {
                    let mut all = told(vec![tell(why, String::new(), Some(watching.before))]);
                    all.events.extend(decision.events);
                    all.lines.extend(decision.lines);
                    all
                }
                Ok(decision) => decision,
                Err(refusal) => told(vec![tell(why, refusal.to_string(), None)]),
            }
        }
        Act::Tell(why) => told(vec![tell(why, String::new(), None)]),
        Act::EndWatch(earned, cause) => told(vec![end_watch(name, watching, Some(earned), cause, context)]),
        _ => Decision::default(),
    }
}

/// The watch after a flip is over. `earned`: with what it saw; none: nobody looked.
pub(super) fn end_watch(
    name: &StageName,
    watching: &Watching,
    earned: Option<Earned>,
    cause: WatchEnd,
    context: &Context,
) -> Event {
    Event::WatchEnded {
        stage: name.clone(),
        release: watching.release,
        rollout: watching.number,
        earned: earned.map(Box::new),
        took_ms: watching.took_ms(context.now_ms),
        cause,
    }
}

/// The rollout that somebody wants to move, if its release is entering; who may not move it is told why.
fn movable<'a>(
    state: &'a State,
    name: &StageName,
    context: &Context,
) -> Result<(&'a Stage, &'a Entering, &'a Rollout), Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let none = || Refusal::Refused(format!("no release is on its way into {name}: `pointsman promote` lets one in"));
    let stage = state.stage(name).ok_or_else(none)?;
    let entering = stage.entering.as_ref().ok_or_else(none)?;
    let release = entering.release;
    let rollout = entering.rollout.as_ref().ok_or_else(|| {
        Refusal::Refused(if entering.rollback {
            format!("{release} is being fetched back into {name}: a rollback takes no steps")
        } else {
            format!("{release} enters {name} by hand: `pointsman rollout weight {name} SHARE` moves it")
        })
    })?;
    Ok((stage, entering, rollout))
}

fn by_hand(name: &StageName, entering: &Entering, rollout: &Rollout) -> Result<(), Refusal> {
    let release = entering.release;
    match rollout.phase {
        Phase::Step(_) | Phase::BeforeFlip => Ok(()),
        Phase::ByHand => Err(Refusal::Refused(format!(
            "{release} enters {name} by hand: only `pointsman rollout weight {name} SHARE` moves it"
        ))),
        Phase::AtOnce => Err(Refusal::Refused(format!(
            "{release} takes all of {name} as soon as it has started: `pointsman rollout abort {name}` ends that"
        ))),
    }
}

pub(super) fn pause(state: &State, name: &StageName, context: &Context) -> Result<Decision, Refusal> {
    let (_, entering, rollout) = movable(state, name, context)?;
    by_hand(name, entering, rollout)?;
    let release = entering.release;
    if rollout.paused {
        return Ok(Decision::already(format!("the rollout of {release} in {name} is paused already")));
    }
    if rollout.frozen.is_some() {
        return Ok(Decision::already(format!("the rollout of {release} in {name} is frozen: nothing moves")));
    }
    Ok(told(vec![Event::RolloutPaused { stage: name.clone(), release }]))
}

pub(super) fn resume(state: &State, name: &StageName, context: &Context) -> Result<Decision, Refusal> {
    let (_, entering, rollout) = movable(state, name, context)?;
    let release = entering.release;
    if entering.starting_until_ms.is_some() && !rollout.paused {
        return Err(Refusal::Refused(format!(
            "{release} has not started in {name} yet: nothing waits for a resume before that"
        )));
    }
    if rollout.frozen.is_none() && !rollout.paused && !rollout.waits_for_resume() {
        return Ok(Decision::already(format!("nothing in the rollout of {release} in {name} waits for a resume")));
    }
    let (number, share) = match &rollout.frozen {
        // What is known against it is forgotten: proxies untrip, and the judge begins anew.
        Some(frozen) => (number_after(state, name), frozen.share),
        None => (rollout.number, entering.share),
    };
    if share > entering.share && state.has_lost(name, release) {
        return Err(Refusal::Refused(lost(name, release)));
    }
    let passes = further(state, name, entering, share, context)?;
    let mut decision = told(vec![Event::RolloutResumed { stage: name.clone(), release, rollout: number, share }]);
    if let Some(frozen) = &rollout.frozen {
        decision.lines.push(format!("it was frozen because {}; it is judged anew from here", frozen.why));
    }
    decision.lines.extend(follows(state, name, rollout, context));
    Ok(passes.before(decision))
}

/// What comes after a resume, and when.
fn follows(state: &State, name: &StageName, rollout: &Rollout, context: &Context) -> Option<String> {
    let share = next_share(rollout)?;
    let seen = RolloutSeen::nothing(rollout.number, rollout.at());
    let is_said = |wait: &Wait| matches!(wait, Wait::Resume | Wait::Paused | Wait::Frozen);
    let is_all = waits(state, name, &seen, context.now_ms).iter().all(is_said);
    let when = if is_all { "at once: there is nothing else to wait for" } else { "when the rest is earned" };
    Some(format!("{share} follows {when}"))
}

pub(super) fn skip(state: &State, name: &StageName, context: &Context) -> Result<Decision, Refusal> {
    if let Some(watching) = state.stage(name).and_then(Stage::watched).filter(|watching| watching.until_ms.is_some()) {
        known(state, name)?;
        require_reason(state, &name.environment, context)?;
        return Ok(told(vec![end_watch(name, watching, None, WatchEnd::Skipped, context)]));
    }
    let (stage, entering, rollout) = movable(state, name, context)?;
    by_hand(name, entering, rollout)?;
    let release = entering.release;
    if stage.rolling().is_none() {
        return Err(Refusal::Refused(format!("{release} has not started in {name} yet: no step has begun")));
    }
    let Some(share) = next_share(rollout) else {
        return Err(Refusal::Refused(format!(
            "there is no step after this one: `pointsman rollout weight {name} SHARE` moves {release}"
        )));
    };
    if share > entering.share && state.has_lost(name, release) {
        return Err(Refusal::Refused(lost(name, release)));
    }
    let passes = further(state, name, entering, share, context)?;
    let number = if rollout.frozen.is_some() { number_after(state, name) } else { rollout.number };
    let mut decision = told(step_on(state, name, (entering, rollout, number), None, context));
    if rollout.paused && share < Share::ALL {
        decision.lines.push(format!("it stays paused: `pointsman rollout resume {name}` lets it go on by itself"));
    }
    let seen = RolloutSeen::nothing(rollout.number, rollout.at());
    let skipped = waits(state, name, &seen, context.now_ms).into_iter().map(|wait| wait.to_string());
    let skipped: Vec<_> = skipped.collect();
    if !skipped.is_empty() {
        decision.lines.push(format!("the step still asked for {}, less what was counted", skipped.join("; ")));
    }
    Ok(passes.before(decision))
}

/// Why more of a stage cannot go to a release that nobody runs.
pub(super) fn lost(name: &StageName, release: ReleaseNumber) -> String {
    format!("{release} runs on no agent of {name} any more: wait until it does, or `pointsman rollback {name}`")
}

/// What is watched once the rollout of `release` has ended, if anything is.
pub(super) fn watching(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    rollout: &Rollout,
    context: &Context,
) -> Option<Box<Watching>> {
    let before = state.stage(name)?.stable.filter(|stable| *stable != release)?;
    let spec = &rollout.spec;
    let until_ms = rollout.watch().map(|watch| context.now_ms + watch.ms());
    if spec.objective.is_none() && until_ms.is_none() {
        return None;
    }
    Some(Box::new(Watching {
        number: rollout.number + 1,
        release,
        before,
        objective: spec.objective.clone(),
        failure_header: spec.failure_header.clone(),
        checks: if until_ms.is_some() { spec.checks.clone() } else { Vec::new() },
        until_ms,
        told: false,
        since_ms: context.now_ms,
        asked: None,
    }))
}

/// Until when the release before is kept warm: at least for as long as the new one is watched.
pub(super) fn kept_until_ms(state: &State, name: &StageName, rollout: Option<&Rollout>, context: &Context) -> u64 {
    let watch_ms = rollout.and_then(Rollout::watch).map_or(0, api::Span::ms);
    // One tick more: the end of the watch comes first.
    let least_ms = if watch_ms > 0 { context.now_ms + watch_ms + 60_000 } else { 0 };
    warm_until_ms(state, name, context).max(least_ms)
}
