//! A release wants to enter a stage: whether it may, whether it is there already, and what has to happen first.

use api::{EnvironmentName, ReleaseName, ReleaseNumber, Share, StageName};

use super::queue::ends_of_wait;
use super::{
    DRAIN_DEADLINE_MS, START_DEADLINE_MS, Taking, needs_start, number_after, take_share, warm_until_ms, weigh,
};
use crate::core::back::passed;
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::marks::{Passes, pass};
use crate::core::decide::require_reason;
use crate::core::decide::rollout::end_watch;
use crate::core::event::Event;
use crate::core::spec::{EnvironmentSpec, Meanwhile, RolloutSpec, Strategy};
use crate::core::state::{Begun, Entering, Phase, Release, Rollout, Stage, State, WatchEnd};

/// A release wants to enter a stage.
pub(in crate::core::decide) struct Promotion<'a> {
    pub(in crate::core::decide) state: &'a State,
    pub(in crate::core::decide) context: &'a Context,
    pub(in crate::core::decide) release: &'a ReleaseName,
    pub(in crate::core::decide) environment: &'a EnvironmentName,
    /// By hand, with this share; none: as the stage's strategy says.
    pub(in crate::core::decide) share: Option<Share>,
    pub(in crate::core::decide) bypass: bool,
    /// It has waited for this: reasons were given then.
    pub(in crate::core::decide) was_queued: bool,
}

impl Promotion<'_> {
    pub(in crate::core::decide) fn decide(&self) -> Result<Decision, Refusal> {
        let (name, number) =
            (StageName::new(self.release.service.clone(), self.environment.clone()), self.release.number);
        let release = self.ready_release()?;
        let environment = self.environment_of(&name)?;
        if !self.was_queued {
            require_reason(self.state, self.environment, self.context)?;
        }
        let none = Stage::default();
        let stage = self.state.stage(&name).unwrap_or(&none);
        if let Some(answer) = self.is_there_already(&name, stage)? {
            return Ok(answer);
        }
        let meanwhile = self.spec(&name).meanwhile;
        if let Some(busy) = stage.busy().filter(|_| meanwhile == Meanwhile::Finish) {
            return Err(finish_first(&name, stage, busy));
        }
        if stage.bad.contains(&number) {
            return Err(Refusal::Refused(format!(
                "{number} was rolled back from in {name} and is marked bad: `pointsman unhold {name} {number}` takes the mark away"
            )));
        }
        self.has_run_upstream(&name)?;
        let starts = needs_start(self.state, &name, (environment, release, stage), number)?;
        let (passes, past) = self.pass(&name, stage)?;
        let (mut events, mut waits) = (self.drop_queued(&name, stage), None);
        match stage.busy() {
            Some(_) if meanwhile == Meanwhile::Queue => {
                let (share, bypass) = (self.share, self.bypass);
                waits = stage.busy().map(|busy| ends_of_wait(&name, busy, stage.entering.is_some()));
                events.push(Event::Queued { stage: name, release: number, share, bypass, past });
            }
            busy => {
                if busy.is_some() {
                    events.extend(self.replace(&name, stage)?);
                }
                events.extend(self.enter(&name, stage, starts, past));
            }
        }
        let lines = events.iter().map(Event::sentence).chain(waits).collect();
        Ok(passes.before(Decision { lines, events }))
    }

    /// How releases enter the stage from now on.
    fn spec(&self, name: &StageName) -> RolloutSpec {
        let spec = self.state.service(&name.service).and_then(|service| service.spec.stages.get(&name.environment));
        spec.map(|spec| spec.rollout.clone()).unwrap_or_default()
    }

    /// The rollout begins.
    fn enter(&self, name: &StageName, stage: &Stage, starts: bool, past: Option<ReleaseNumber>) -> Vec<Event> {
        let (spec, now_ms) = (self.spec(name), self.context.now_ms);
        let phase = match (self.share, &spec.strategy) {
            // The first release of a stage serves everything: there is nobody else to take the rest.
            _ if stage.stable.is_none() => Phase::AtOnce,
            (Some(_), _) => Phase::ByHand,
            (None, Strategy::AllAtOnce) => Phase::AtOnce,
            (None, Strategy::BlueGreen(_)) => Phase::BeforeFlip,
            (None, Strategy::Canary(_)) => Phase::Step(0),
        };
        let begun = Begun { number: number_after(self.state, name), spec, phase };
        let rollout = Rollout::begin(begun.number, begun.spec.clone(), phase, now_ms);
        let share = match phase {
            Phase::AtOnce => Share::ALL,
            Phase::ByHand => self.share.unwrap_or(Share::ALL),
            Phase::BeforeFlip => Share::NONE,
            Phase::Step(at) => rollout.share_of(at),
        };
        let release = self.release.number;
        let mut events = vec![Event::Promoted {
            stage: name.clone(),
            release,
            share,
            starting_until_ms: starts.then(|| now_ms + START_DEADLINE_MS),
            rollback: false,
            bypass: self.bypass,
            rollout: Some(Box::new(begun)),
            past,
        }];
        if !starts {
            let taking = Taking { release, share, rollback: false, rollout: Some(&rollout) };
            events.extend(take_share(self.state, name, &taking, self.context));
        }
        events
    }

    /// What is in the way leaves, without a mark.
    fn replace(&self, name: &StageName, stage: &Stage) -> Result<Vec<Event>, Refusal> {
        let (number, now_ms) = (self.release.number, self.context.now_ms);
        let Some(entering) = &stage.entering else {
            let ended = |watching| end_watch(name, watching, None, WatchEnd::Replaced, self.context);
            return Ok(stage.watched().map(ended).into_iter().collect());
        };
        if entering.rollback {
            return Err(finish_first(name, stage, entering.release));
        }
        let (started, release) = (entering.starting_until_ms.is_none(), entering.release);
        let warm_until_ms = if started { warm_until_ms(self.state, name, self.context) } else { now_ms };
        let mut events = vec![Event::Replaced { stage: name.clone(), release, by: number, warm_until_ms }];
        if !started {
            events.push(Event::WarmthEnded { stage: name.clone(), release, until_ms: now_ms + DRAIN_DEADLINE_MS });
        }
        Ok(events)
    }

    /// Past which releases, marked not reversible, it goes; who waited said so then.
    fn pass(&self, name: &StageName, stage: &Stage) -> Result<(Passes, Option<ReleaseNumber>), Refusal> {
        let entering = stage.entering.as_ref().map(|entering| entering.release);
        let serves: Vec<_> = stage.stable.into_iter().chain(entering).collect();
        let number = self.release.number;
        if let Some(past) = stage.queued.as_ref().filter(|_| self.was_queued).and_then(|queued| queued.past) {
            let marks = passed(self.state, name, &serves, number);
            if marks.iter().all(|mark| mark.release <= past) {
                return Ok((Passes::default(), Some(past)));
            }
        }
        let passes = pass(self.state, name, &serves, number, self.context)?;
        let past = passes.past(self.context);
        Ok((passes, past))
    }

    /// An older release that waits makes way for a newer one.
    fn drop_queued(&self, name: &StageName, stage: &Stage) -> Vec<Event> {
        let number = self.release.number;
        let older = stage.queued.as_ref().filter(|queued| queued.release != number);
        let dropped = |release: ReleaseNumber| Event::Dropped {
            stage: name.clone(),
            release,
            because: format!("{number} was promoted after it"),
        };
        older.map(|queued| dropped(queued.release)).into_iter().collect()
    }

    fn ready_release(&self) -> Result<&Release, Refusal> {
        let release = self
            .state
            .release(self.release)
            .ok_or_else(|| Refusal::Unknown(format!("there is no release {}", self.release)))?;
        if !release.is_ready() {
            return Err(Refusal::Refused(format!(
                "{} is not ready: see `pointsman release show {}`",
                self.release, self.release
            )));
        }
        if release.routed().is_none() {
            return Err(Refusal::Refused(format!(
                "{} has no component with a protocol: nothing could be routed to",
                self.release
            )));
        }
        Ok(release)
    }

    fn environment_of(&self, name: &StageName) -> Result<&EnvironmentSpec, Refusal> {
        let declared = self
            .state
            .service(&name.service)
            .is_some_and(|service| service.spec.stages.contains_key(&name.environment));
        let spec = self.state.environments.get(&name.environment).filter(|_| declared);
        spec.ok_or_else(|| {
            Refusal::Unknown(format!(
                "there is no stage {name}: add [stage.{}] to pointsman.toml and apply it",
                name.environment
            ))
        })
    }

    /// Answers a promotion of what is stable, on its way, or waiting already.
    fn is_there_already(&self, name: &StageName, stage: &Stage) -> Result<Option<Decision>, Refusal> {
        let number = self.release.number;
        if let Some(entering) = stage.entering.as_ref().filter(|entering| entering.release == number) {
            return self.enters_already(name, entering).map(Some);
        }
        if stage.stable == Some(number) {
            let all = match &stage.entering {
                Some(entering) => format!(
                    "{number} is stable in {name} already; {} is on its way in, and `pointsman rollout abort {name}` ends that",
                    entering.release
                ),
                None => format!("{number} serves all of {name} already"),
            };
            return Ok(Some(Decision::already(all)));
        }
        let same = |queued: &&crate::core::state::Queued| {
            queued.release == number && queued.share == self.share && !self.was_queued
        };
        Ok(stage.queued.as_ref().filter(same).and(stage.busy()).map(|busy| {
            let mut already =
                Decision::already(format!("{number} waits already until the rollout under way in {name} has ended"));
            already.lines.push(ends_of_wait(name, busy, stage.entering.is_some()));
            already
        }))
    }

    fn enters_already(&self, name: &StageName, entering: &Entering) -> Result<Decision, Refusal> {
        let (number, now) = (entering.release, entering.share);
        // Its way is the one with which it began, whatever was applied since; what froze is nobody's to finish by asking again.
        let is_free = entering.rollout.as_ref().is_none_or(|way| way.phase == Phase::ByHand && way.frozen.is_none());
        let all_at_once = is_free && self.spec(name).strategy == Strategy::AllAtOnce;
        let share = self.share.or(all_at_once.then_some(Share::ALL));
        let starts = self.share.is_none() && entering.starting_until_ms.is_some();
        match share.filter(|share| *share != now && !starts) {
            Some(share) => weigh(self.state, name, share, self.context),
            None => {
                let place = entering.rollout.as_ref().filter(|rollout| rollout.step().is_some());
                let place = place.map(|rollout| format!(", in {}", rollout.place())).unwrap_or_default();
                Ok(Decision::already(format!("{number} is on its way into {name} for {now} already{place}")))
            }
        }
    }

    /// What is promoted is what ran before: in one of the stages that `from` names, or somebody says why not.
    fn has_run_upstream(&self, name: &StageName) -> Result<(), Refusal> {
        let Some(service) = self.state.service(&name.service) else { return Ok(()) };
        let from = service.spec.stages.get(&name.environment).map(|stage| stage.from.as_slice()).unwrap_or_default();
        let ran = |environment: &EnvironmentName| {
            service.stages.get(environment).is_some_and(|stage| stage.served.contains(&self.release.number))
        };
        if from.is_empty() || from.iter().any(ran) {
            return Ok(());
        }
        let from: Vec<_> = from.iter().map(ToString::to_string).collect();
        let from = from.join(" or ");
        if !self.bypass {
            return Err(Refusal::Refused(format!(
                "{} has not served in {from} yet: promote it there first, or say why not with --bypass --reason \"...\"",
                self.release
            )));
        }
        if !self.was_queued && self.context.reason.trim().is_empty() {
            return Err(Refusal::Refused(format!(
                "{} has not served in {from} yet: --bypass needs --reason \"...\"",
                self.release
            )));
        }
        Ok(())
    }
}

/// Refuses what cannot enter before another's rollout has ended, with the commands that end it.
fn finish_first(name: &StageName, stage: &Stage, busy: ReleaseNumber) -> Refusal {
    if stage.entering.is_none() {
        return Refusal::Refused(format!(
            "{name} was flipped to {busy}, which is watched: wait until that is over, end it with `pointsman rollout skip \
             {name}`, or `pointsman rollback {name}` first"
        ));
    }
    if stage.entering.as_ref().is_some_and(|entering| entering.rollback) {
        return Refusal::Refused(format!(
            "{busy} is being fetched back into {name}: wait until it serves, or end that with `pointsman rollout abort {name}`"
        ));
    }
    Refusal::Refused(format!(
        "{busy} is on its way into {name}: complete it with `pointsman rollout weight {name} 100%`, or take it out with \
         `pointsman rollout abort {name}` first (`pointsman rollback {name}` marks it bad, too)"
    ))
}
