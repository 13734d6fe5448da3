//! Releases: asked for, added, built or failed.

use api::{ReleaseName, ReleaseNumber, ServiceName};

use crate::core::command::{Built, Decision, Refusal};
use crate::core::event::Event;
use crate::core::state::{Addresses, Release, ReleaseProgress, Service, State};

fn service<'a>(state: &'a State, name: &ServiceName) -> Result<&'a Service, Refusal> {
    state
        .service(name)
        .ok_or_else(|| Refusal::Unknown(format!("there is no service {name}: apply its pointsman.toml first")))
}

fn next(service: &Service) -> ReleaseNumber {
    service.releases.last_key_value().map_or(ReleaseNumber::FIRST, |(last, _)| last.next())
}

fn release<'a>(state: &'a State, name: &ReleaseName) -> Result<&'a Release, Refusal> {
    state.release(name).ok_or_else(|| Refusal::Unknown(format!("there is no release {name}")))
}

pub(super) fn request(
    state: &State,
    name: &ServiceName,
    version: &str,
    commit: &str,
    subject: &str,
) -> Result<Decision, Refusal> {
    let service = service(state, name)?;
    if service.spec.source.is_none() {
        return Err(Refusal::Refused(format!(
            "{name} has no `source` in its pointsman.toml: name its repository, or use `release add`"
        )));
    }
    let release = ReleaseName::new(name.clone(), next(service));
    Ok(Decision::one(Event::ReleaseRequested {
        release,
        version: version.into(),
        commit: commit.into(),
        subject: subject.into(),
    }))
}

pub(super) fn add(
    state: &State,
    name: &ServiceName,
    version: &str,
    commit: &str,
    addresses: &[Addresses],
) -> Result<Decision, Refusal> {
    let service = service(state, name)?;
    let mut mistakes = Vec::new();
    for entry in addresses {
        if !service.spec.components.contains_key(&entry.component) {
            mistakes.push(format!("{name} has no component {}", entry.component));
        }
        if let Some(environment) =
            entry.environment.as_ref().filter(|environment| !service.spec.stages.contains_key(environment))
        {
            mistakes.push(format!("{name} has no stage {environment}"));
        }
    }
    if addresses.iter().all(|entry| entry.addresses.is_empty()) {
        mistakes.push("a release that is added needs at least one address: --address COMPONENT=HOST:PORT".into());
    }
    if !service.spec.components.values().any(|component| component.protocol.is_some()) {
        mistakes.push(format!(
            "{name} has no [component] with a protocol in its pointsman.toml: nothing could be routed to"
        ));
    }
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    Ok(Decision::one(Event::ReleaseAdded {
        release: ReleaseName::new(name.clone(), next(service)),
        version: version.into(),
        commit: commit.into(),
        components: service.spec.components.clone(),
        addresses: addresses.to_vec(),
    }))
}

pub(super) fn begin_build(state: &State, name: &ReleaseName) -> Result<Decision, Refusal> {
    match release(state, name)?.progress {
        ReleaseProgress::Queued => Ok(Decision::one(Event::BuildStarted { release: name.clone() })),
        // A controller that died in mid-build begins again from a clean checkout.
        ReleaseProgress::Building => Ok(Decision::already(format!("the build of {name} begins again"))),
        ReleaseProgress::Ready { .. } | ReleaseProgress::Failed { .. } => {
            Err(Refusal::Refused(format!("{name} was built already")))
        }
    }
}

pub(super) fn end_build(
    state: &State,
    name: &ReleaseName,
    outcome: &Result<Built, String>,
) -> Result<Decision, Refusal> {
    if release(state, name)?.progress.is_terminal() {
        return Ok(Decision::already(format!("{name} was built already")));
    }
    Ok(Decision::one(match outcome {
        Ok(built) => Event::ReleaseBuilt {
            release: name.clone(),
            components: built.components.clone(),
            artifacts: built.artifacts.clone(),
        },
        Err(problem) => Event::ReleaseFailed { release: name.clone(), problem: problem.clone() },
    }))
}
