//! A release that something else has made.

use std::collections::{BTreeMap, BTreeSet};

use api::{ComponentName, EnvironmentName, ReleaseName, ServiceName};

use super::{next, service};
use crate::core::command::{Decision, GivenArtifact, Refusal};
use crate::core::event::Event;
use crate::core::spec::ServiceSpec;
use crate::core::state::{Addresses, Artifact, State};

pub(in crate::core::decide) fn add(
    state: &State,
    name: &ServiceName,
    version: &str,
    commit: &str,
    addresses: &[Addresses],
    artifacts: &[GivenArtifact],
) -> Result<Decision, Refusal> {
    let service = service(state, name)?;
    let mistakes = mistakes(&service.spec, addresses, artifacts);
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    let environments: BTreeSet<_> = artifacts.iter().filter_map(|one| one.environment.as_ref()).collect();
    let of = |environment: &EnvironmentName| (environment.clone(), given(artifacts, Some(environment)));
    Ok(Decision::one(Event::ReleaseAdded {
        release: ReleaseName::new(name.clone(), next(service)),
        version: version.into(),
        commit: commit.into(),
        components: service.spec.components.clone(),
        addresses: addresses.to_vec(),
        artifacts: given(artifacts, None),
        for_environments: environments.into_iter().map(of).collect(),
    }))
}

/// All of them at once.
fn mistakes(spec: &ServiceSpec, addresses: &[Addresses], artifacts: &[GivenArtifact]) -> Vec<String> {
    let name = &spec.name;
    let named = addresses.iter().map(|entry| (&entry.component, entry.environment.as_ref()));
    let named = named.chain(artifacts.iter().map(|one| (&one.component, one.environment.as_ref())));
    let mut mistakes = Vec::new();
    for (component, environment) in named {
        if !spec.components.contains_key(component) {
            mistakes.push(format!("{name} has no component {component}"));
        }
        if let Some(environment) = environment.filter(|environment| !spec.stages.contains_key(environment)) {
            mistakes.push(format!("{name} has no stage {environment}"));
        }
    }
    let mut seen = BTreeSet::new();
    for one in artifacts.iter().filter(|one| !seen.insert((&one.environment, &one.component))) {
        let place = one.environment.as_ref().map(|at| format!("{at}/")).unwrap_or_default();
        mistakes.push(format!("{place}{} has two images: one is accepted", one.component));
    }
    let is_reached = |entry: &&Addresses| !entry.addresses.is_empty();
    if artifacts.is_empty() && !addresses.iter().any(|entry| is_reached(&entry)) {
        mistakes.push(
            "a release that is added needs at least one address or image: --address COMPONENT=HOST:PORT, \
             --image COMPONENT=REFERENCE"
                .into(),
        );
    }
    // Where nothing but addresses is given, somebody else runs it, with all its parts.
    let runs = spec.components.iter().filter(|(_, one)| !one.run.is_empty() || one.protocol.is_some());
    for (component, _) in runs.filter(|_| !artifacts.is_empty()) {
        let is_given = artifacts.iter().any(|one| one.component == *component)
            || addresses.iter().filter(is_reached).any(|entry| entry.component == *component);
        if !is_given {
            mistakes.push(format!(
                "component {component} of {name} has neither an image nor an address: --image {component}=REFERENCE, or \
                 --address {component}=HOST:PORT"
            ));
        }
    }
    if !spec.components.values().any(|component| component.protocol.is_some()) {
        mistakes.push(format!(
            "{name} has no [component] with a protocol in its pointsman.toml: nothing could be routed to"
        ));
    }
    mistakes
}

fn given(artifacts: &[GivenArtifact], environment: Option<&EnvironmentName>) -> BTreeMap<ComponentName, Artifact> {
    let wanted = artifacts.iter().filter(|one| one.environment.as_ref() == environment);
    wanted.map(|one| (one.component.clone(), one.artifact.clone())).collect()
}
