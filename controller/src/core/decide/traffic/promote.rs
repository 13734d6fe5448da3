//! A release wants to enter a stage: whether it may, whether it is there already, and what has to happen first.

use api::{EnvironmentName, ReleaseName, Share, StageName};

use super::{START_DEADLINE_MS, needs_start, take_share, weigh};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::decide::require_reason;
use crate::core::event::Event;
use crate::core::spec::EnvironmentSpec;
use crate::core::state::{Release, Stage, State};

/// A release wants to enter a stage.
pub(in crate::core::decide) struct Promotion<'a> {
    pub(in crate::core::decide) state: &'a State,
    pub(in crate::core::decide) context: &'a Context,
    pub(in crate::core::decide) release: &'a ReleaseName,
    pub(in crate::core::decide) environment: &'a EnvironmentName,
    pub(in crate::core::decide) share: Option<Share>,
    pub(in crate::core::decide) bypass: bool,
}

impl Promotion<'_> {
    pub(in crate::core::decide) fn decide(&self) -> Result<Decision, Refusal> {
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
