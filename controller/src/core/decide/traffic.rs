//! Who serves how much of a stage: promotion, weight, rollback, and how a release leaves.

use api::{EnvironmentName, MemberName, ReleaseName, ReleaseNumber, Share, StageName};

use super::require_reason;
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{EnvironmentSpec, Target};
use crate::core::state::{Entering, Leaving, Release, Stage, State};

/// Longest time between a promotion and its release being healthy everywhere: fetching an artifact over a slow line
/// takes minutes; after this somebody has to look anyway.
pub(crate) const START_DEADLINE_MS: u64 = 300_000;

/// Longest time that requests in flight keep a draining release alive (hostile.md: drain 30 s), and half as much again
/// for proxies that learn of it late.
pub(crate) const DRAIN_DEADLINE_MS: u64 = 45_000;

/// A release wants to enter a stage.
pub(super) struct Promotion<'a> {
    pub(super) state: &'a State,
    pub(super) context: &'a Context,
    pub(super) release: &'a ReleaseName,
    pub(super) environment: &'a EnvironmentName,
    pub(super) share: Option<Share>,
    pub(super) bypass: bool,
}

impl Promotion<'_> {
    pub(super) fn decide(&self) -> Result<Decision, Refusal> {
        let (name, number) =
            (StageName::new(self.release.service.clone(), self.environment.clone()), self.release.number);
        let release = self.ready_release()?;
        let environment = self.environment_of(&name)?;
        require_reason(self.state, self.environment, self.context)?;
        let none = Stage::default();
        let stage = self.state.stage(&name).unwrap_or(&none);
        let share = self.share.unwrap_or(Share::ALL);
        if let Some(answer) = self.is_there_already(&name, stage, share)? {
            return Ok(answer);
        }
        if stage.bad.contains(&number) {
            return Err(Refusal::Refused(format!(
                "{number} was rolled back from in {name} and is marked bad: `pointsman unhold {name} {number}` takes the mark away"
            )));
        }
        self.has_run_upstream(&name)?;
        // The first release of a stage serves everything: there is nobody else to take the rest.
        let share = if stage.stable.is_none() { Share::ALL } else { share };
        let starts = needs_start(self.state, environment, release, stage, number)?;
        let mut events = vec![Event::Promoted {
            stage: name.clone(),
            release: number,
            share,
            starting_until_ms: starts.then(|| self.context.now_ms + START_DEADLINE_MS),
            rollback: false,
            bypass: self.bypass,
        }];
        if !starts {
            events.extend(take_share(self.state, &name, number, share, false, self.context));
        }
        Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
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

    /// Answers a promotion of what is stable or entering already, and one into another's rollout.
    fn is_there_already(&self, name: &StageName, stage: &Stage, share: Share) -> Result<Option<Decision>, Refusal> {
        let number = self.release.number;
        match &stage.entering {
            Some(entering) if entering.release == number => {
                if entering.share == share || self.share.is_none() && entering.starting_until_ms.is_some() {
                    return Ok(Some(Decision::already(format!(
                        "{number} is on its way into {name} for {share} already"
                    ))));
                }
                Ok(Some(weigh(self.state, name, share, self.context)?))
            }
            Some(entering) => Err(Refusal::Refused(format!(
                "{} is on its way into {name}: complete it with `pointsman rollout weight {name} 100%`, or `pointsman rollback {name}` first",
                entering.release
            ))),
            None if stage.stable == Some(number) => {
                Ok(Some(Decision::already(format!("{number} serves all of {name} already"))))
            }
            None => Ok(None),
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
        if self.context.reason.trim().is_empty() {
            return Err(Refusal::Refused(format!(
                "{} has not served in {from} yet: --bypass needs --reason \"...\"",
                self.release
            )));
        }
        Ok(())
    }
}

/// Whether the release has to be started before it can serve; refuses when it cannot be.
fn needs_start(
    state: &State,
    environment: &EnvironmentSpec,
    release: &Release,
    stage: &Stage,
    number: ReleaseNumber,
) -> Result<bool, Refusal> {
    if stage.is_warm(number) {
        return Ok(false);
    }
    match &environment.target {
        Target::Static if release.static_addresses(&environment.name).is_empty() => Err(Refusal::Refused(format!(
            "{number} has no addresses in {}: give them with `release add --address {}/COMPONENT=HOST:PORT`",
            environment.name, environment.name
        ))),
        Target::Static => Ok(false),
        Target::Agent { group } if state.agents(group).next().is_none() => Err(Refusal::Refused(format!(
            "no agent of group {group} has joined: `pointsman join agent --group {group} --name NAME` invites one"
        ))),
        Target::Agent { .. } if release.artifacts.is_empty() => Err(Refusal::Refused(format!(
            "{number} was added with addresses and has nothing that an agent could run in {}",
            environment.name
        ))),
        Target::Agent { .. } => Ok(true),
    }
}

/// What follows once the entering release can serve.
fn take_share(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    share: Share,
    rollback: bool,
    context: &Context,
) -> Vec<Event> {
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    let stable = state.stage(name).and_then(|stage| stage.stable);
    match stable.filter(|_| rollback) {
        Some(from) => vec![Event::RolledBack { stage: name.clone(), from, to: release, warm_until_ms, bad: true }],
        None if share == Share::ALL => vec![Event::Completed { stage: name.clone(), release, warm_until_ms }],
        None => vec![Event::ShareSet { stage: name.clone(), release, share }],
    }
}

fn entering<'a>(state: &'a State, name: &StageName) -> Option<&'a Entering> {
    state.stage(name)?.entering.as_ref()
}

fn known(state: &State, name: &StageName) -> Result<(), Refusal> {
    let declared =
        state.service(&name.service).is_some_and(|service| service.spec.stages.contains_key(&name.environment));
    if declared { Ok(()) } else { Err(Refusal::Unknown(format!("there is no stage {name}"))) }
}

pub(super) fn weigh(state: &State, name: &StageName, share: Share, context: &Context) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let Some(entering) = entering(state, name) else {
        return Err(Refusal::Refused(format!("no release is on its way into {name}: `pointsman promote` lets one in")));
    };
    if entering.rollback {
        return Err(Refusal::Refused(format!("{} is being fetched back into {name} for everything", entering.release)));
    }
    if entering.share == share && share != Share::ALL {
        return Ok(Decision::already(format!("{} has {share} of {name} already", entering.release)));
    }
    let stable = state.stage(name).and_then(|stage| stage.stable);
    if stable.is_none() && share != Share::ALL {
        return Err(Refusal::Refused(format!(
            "{} is the first release of {name}: there is nobody else to take the rest",
            entering.release
        )));
    }
    let events = match entering.starting_until_ms {
        Some(_) => vec![Event::ShareSet { stage: name.clone(), release: entering.release, share }],
        None => take_share(state, name, entering.release, share, false, context),
    };
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
}

pub(super) fn rollback(
    state: &State,
    name: &StageName,
    to: Option<ReleaseNumber>,
    context: &Context,
) -> Result<Decision, Refusal> {
    known(state, name)?;
    require_reason(state, &name.environment, context)?;
    let nothing = || Refusal::Refused(format!("nothing serves in {name} yet"));
    let stage = state.stage(name).ok_or_else(nothing)?;
    if to.is_none()
        && stage.entering.is_none()
        && let Some(last) = stage.rolled_back
    {
        // A second rollback, perhaps by a second person, never goes one further back by itself.
        return Ok(Decision::already(format!(
            "{name} was rolled back from {} to {} already; to go further back name the release: --to rN",
            last.from, last.to
        )));
    }
    if let Some(entering) =
        stage.entering.as_ref().filter(|entering| entering.rollback && to.is_none_or(|to| to == entering.release))
    {
        return Ok(Decision::already(format!("{} is being fetched back into {name} already", entering.release)));
    }
    let none = || Refusal::Refused(format!("there is no earlier release in {name} to go back to"));
    let target = to.or_else(|| stage.rollback_target()).ok_or_else(none)?;
    if state.release(&ReleaseName::new(name.service.clone(), target)).is_none() {
        return Err(Refusal::Unknown(format!("there is no release {target} of {}", name.service)));
    }
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    if let Some(entering) = &stage.entering {
        if entering.release == target {
            return Err(Refusal::Refused(format!(
                "{target} is on its way into {name}; a rollback goes to a release that served before"
            )));
        }
        let stable = stage
            .stable
            .ok_or_else(|| Refusal::Refused(format!("{} is the first release of {name}", entering.release)))?;
        if stable == target {
            let bad = entering.starting_until_ms.is_none() && !entering.rollback;
            return Ok(Decision::one(Event::RolledBack {
                stage: name.clone(),
                from: entering.release,
                to: stable,
                warm_until_ms,
                bad,
            }));
        }
        return Err(Refusal::Refused(format!(
            "{} is on its way into {name}: roll back to {stable} first",
            entering.release
        )));
    }
    let stable = stage.stable.ok_or_else(nothing)?;
    if stable == target {
        return Ok(Decision::already(format!("{target} serves all of {name} already")));
    }
    back_to(state, name, stage, stable, target, context)
}

/// Back to a release that is not stable now: at once when it is warm, else after it has started.
fn back_to(
    state: &State,
    name: &StageName,
    stage: &Stage,
    from: ReleaseNumber,
    to: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    if !stage.past.contains(&to) {
        return Err(Refusal::Refused(format!("{to} never served all of {name}: `pointsman promote` lets it in")));
    }
    if stage.bad.contains(&to) {
        return Err(Refusal::Refused(format!(
            "{to} is marked bad in {name}: `pointsman unhold {name} {to}` takes the mark away"
        )));
    }
    let release = state.release(&ReleaseName::new(name.service.clone(), to));
    let environment = state.environments.get(&name.environment);
    let (Some(release), Some(environment)) = (release, environment) else {
        return Err(Refusal::Unknown(format!("there is no release {to} of {}", name.service)));
    };
    if needs_start(state, environment, release, stage, to)? {
        let event = Event::Promoted {
            stage: name.clone(),
            release: to,
            share: Share::ALL,
            starting_until_ms: Some(context.now_ms + START_DEADLINE_MS),
            rollback: true,
            bypass: false,
        };
        let line = format!("{to} is no longer warm in {name}: it has to start first; {from} serves until then");
        return Ok(Decision { events: vec![event], lines: vec![line] });
    }
    let warm_until_ms = context.now_ms + state.keep_warm(name).ms();
    Ok(Decision::one(Event::RolledBack { stage: name.clone(), from, to, warm_until_ms, bad: true }))
}

pub(super) fn unhold(state: &State, name: &StageName, release: ReleaseNumber) -> Result<Decision, Refusal> {
    known(state, name)?;
    if state.stage(name).is_some_and(|stage| stage.bad.contains(&release)) {
        return Ok(Decision::one(Event::Unheld { stage: name.clone(), release }));
    }
    Ok(Decision::already(format!("{release} is not marked bad in {name}")))
}

pub(super) fn enter(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    let Some(entering) =
        entering(state, name).filter(|entering| entering.release == release && entering.starting_until_ms.is_some())
    else {
        return Ok(Decision::default());
    };
    let mut events = vec![Event::Entered { stage: name.clone(), release }];
    events.extend(take_share(state, name, release, entering.share, entering.rollback, context));
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
}

pub(super) fn fail(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    problem: &str,
    context: &Context,
) -> Result<Decision, Refusal> {
    if entering(state, name).is_none_or(|entering| entering.release != release || entering.starting_until_ms.is_none())
    {
        return Ok(Decision::default());
    }
    let until_ms = context.now_ms + DRAIN_DEADLINE_MS;
    Ok(Decision::one(Event::PromotionFailed { stage: name.clone(), release, problem: problem.to_owned(), until_ms }))
}

pub(super) fn end_warmth(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    context: &Context,
) -> Result<Decision, Refusal> {
    let until = state.stage(name).and_then(|stage| stage.leaving.get(&release));
    let Some(Leaving::Warm { until_ms }) = until else { return Ok(Decision::default()) };
    if *until_ms > context.now_ms {
        return Err(Refusal::Refused(format!("{release} is kept warm in {name} for longer")));
    }
    Ok(Decision::one(Event::WarmthEnded { stage: name.clone(), release, until_ms: context.now_ms + DRAIN_DEADLINE_MS }))
}

pub(super) fn retire(state: &State, name: &StageName, release: ReleaseNumber) -> Result<Decision, Refusal> {
    match state.stage(name).and_then(|stage| stage.leaving.get(&release)) {
        Some(Leaving::Draining { .. }) => Ok(Decision::one(Event::Retired { stage: name.clone(), release })),
        Some(Leaving::Warm { .. }) | None => Ok(Decision::default()),
    }
}

pub(super) fn place(
    state: &State,
    name: &StageName,
    release: ReleaseNumber,
    agent: &MemberName,
    address: std::net::SocketAddr,
) -> Result<Decision, Refusal> {
    let stage = state.stage(name).filter(|stage| stage.running().contains(&release));
    let known =
        stage.is_none_or(|stage| stage.placed.get(&release).and_then(|agents| agents.get(agent)) == Some(&address));
    if known {
        return Ok(Decision::default());
    }
    Ok(Decision::one(Event::Placed { stage: name.clone(), release, agent: agent.clone(), address }))
}
