//! What repositories say: services that register themselves, and tags.

use std::collections::BTreeMap;

use api::{MemberName, ServiceName};

use super::apply::between;
use crate::core::command::{Decision, Refusal};
use crate::core::event::{Event, short};
use crate::core::spec::{EnvironmentSpec, RepositorySpec, ServiceSpec};
use crate::core::state::{Registered, State};

/// All services of a commit or none: mistakes of every one are told at once.
pub(super) fn register(
    state: &State,
    repository: &MemberName,
    commit: &str,
    services: &[ServiceSpec],
) -> Result<Decision, Refusal> {
    let listed = state.releases.repositories.get(repository);
    let listed = listed.ok_or_else(|| {
        Refusal::Refused(format!(
            "repository {repository} is not listed: releases.toml has no [repository.{repository}]"
        ))
    })?;
    let environments = state.environments.iter().collect::<BTreeMap<_, &EnvironmentSpec>>();
    let mut mistakes = between::twice(services.iter().map(|spec| spec.name.to_string()));
    for spec in services {
        mistakes.extend(strange(state, repository, listed, spec));
        mistakes.extend(between::of_service(state, &environments, spec));
    }
    mistakes.extend(between::loosened(state, &environments, services));
    mistakes.extend(between::passed_secrets(state, &state.releases, services));
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    let is_so = |spec: &&ServiceSpec| {
        let known = state.service(&spec.name);
        known.is_some_and(|service| &service.spec == *spec && service.registered.is_some())
    };
    let changed = services.iter().filter(|spec| !is_so(spec)).map(|spec| {
        let (repository, commit, spec) = (repository.clone(), commit.to_owned(), Box::new(spec.clone()));
        Event::ServiceRegistered { repository, commit, spec }
    });
    let events: Vec<_> = changed.collect();
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
}

/// What a repository may not say: who may push to it is not who runs the controller, nor who owns other services.
fn strange(state: &State, repository: &MemberName, listed: &RepositorySpec, spec: &ServiceSpec) -> Vec<String> {
    let name = &spec.name;
    let mut mistakes = Vec::new();
    if !listed.services.iter().any(|pattern| pattern.covers(name)) {
        let patterns: Vec<_> = listed.services.iter().map(|pattern| pattern.0.as_str()).collect();
        let patterns = patterns.join(", ");
        mistakes.push(format!("service {name}: repository {repository} may register {patterns}, and no other names"));
    }
    match state.service(name).map(|service| &service.registered) {
        Some(Some(Registered { repository: other, .. })) if other != repository => {
            mistakes.push(format!("service {name} is registered from repository {other}: choose another name"));
        }
        Some(None) => {
            mistakes.push(format!("service {name} was applied by an operator, who changes it: choose another name"));
        }
        Some(Some(_)) | None => {}
    }
    if let Some(source) = spec.source.as_ref().filter(|source| source.repository != listed.url) {
        mistakes.push(format!(
            "service {name}: its `source` is {}, and its file is in {}: it is built from where its file is",
            source.repository, listed.url
        ));
    }
    for named in spec.on_machine() {
        let stage = named.stage.map(|stage| format!("stage {stage}: ")).unwrap_or_default();
        mistakes.push(format!(
            "service {name}: {stage}{} `{}` is of the controller's machine, which a repository may not name: an operator \
             applies such a file",
            named.kind,
            named.words.join(" ")
        ));
    }
    let passed = spec.build.iter().flat_map(|build| &build.pass);
    mistakes.extend(passed.map(|variable| {
        format!(
            "service {name}: `pass` hands over {variable} of the controller's environment, which a repository may not do: \
             [secret.{variable}] of releases.toml gives it"
        )
    }));
    mistakes
}

/// Tags that a look has found, all of them. What is on record of a tag stays, wherever it is now.
pub(super) fn notice_tags(
    state: &State,
    name: &ServiceName,
    tags: &BTreeMap<String, String>,
) -> Result<Decision, Refusal> {
    let service = state.service(name).ok_or_else(|| Refusal::Unknown(format!("there is no service {name}")))?;
    let first = |tag: &String| service.tags.get(tag);
    let moved =
        tags.iter().filter_map(|(tag, commit)| first(tag).filter(|first| *first != commit).zip(Some((tag, commit))));
    let moved = moved.map(|(first, (tag, commit))| {
        format!("tag {tag} was at {} when it was first seen and is at {} now", short(first), short(commit))
    });
    let mut lines: Vec<_> = moved.collect();
    let new = tags.iter().filter(|(tag, _)| first(tag).is_none());
    let tags: BTreeMap<_, _> = new.map(|(tag, commit)| (tag.clone(), commit.clone())).collect();
    // The first look is on record also where it found nothing: what comes later is news.
    let seen =
        (!tags.is_empty() || service.tags_since_ms.is_none()).then(|| Event::TagsSeen { service: name.clone(), tags });
    lines.extend(seen.as_ref().map(Event::sentence));
    Ok(Decision { events: seen.into_iter().collect(), lines })
}

#[cfg(test)]
mod tests;
