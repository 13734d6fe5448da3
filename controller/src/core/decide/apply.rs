//! Files that were applied: what they say together with what is there already.

use std::collections::{BTreeMap, BTreeSet};

use api::{EnvironmentName, Host};

use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{EnvironmentSpec, ServiceSpec};
use crate::core::state::{Brought, State};

/// All files or none: mistakes of every file are told at once.
pub(super) fn apply(
    state: &State,
    environments: &[EnvironmentSpec],
    services: &[ServiceSpec],
    context: &Context,
) -> Result<Decision, Refusal> {
    // What will be there when all of this is applied.
    let mut after: BTreeMap<&EnvironmentName, &EnvironmentSpec> = state.environments.iter().collect();
    after.extend(environments.iter().map(|spec| (&spec.name, spec)));
    let mut mistakes = clashes(&after, environments);
    mistakes.extend(twice(
        environments.iter().map(|spec| spec.name.to_string()).chain(services.iter().map(|spec| spec.name.to_string())),
    ));
    for spec in environments {
        mistakes.extend(moved_target(state, spec));
    }
    let reasons = touched(state, environments, services);
    let missing = reasons.into_iter().filter_map(|name| super::require_reason(state, name, context).err());
    mistakes.extend(missing.map(|refusal| refusal.to_string()));
    for spec in services {
        for environment in spec.stages.keys().filter(|name| !after.contains_key(name)) {
            mistakes.push(format!(
                "service {}: there is no environment {environment}: apply its file first, or together with this one",
                spec.name
            ));
        }
        mistakes.extend(lost_stages(state, spec));
    }
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    let changed = environments.iter().filter(|spec| state.environments.get(&spec.name) != Some(spec));
    let mut events: Vec<_> = changed.map(|spec| Event::EnvironmentApplied { spec: spec.clone() }).collect();
    let changed =
        services.iter().filter(|spec| state.services.get(&spec.name).is_none_or(|service| &service.spec != *spec));
    events.extend(changed.map(|spec| Event::ServiceApplied { spec: spec.clone() }));
    Ok(Decision { lines: events.iter().map(Event::sentence).collect(), events })
}

/// What an environment's source has brought; nothing when that was brought before.
pub(super) fn replace_certificates(
    state: &State,
    environment: &EnvironmentName,
    source: &str,
    brought: Brought,
    context: &Context,
) -> Result<Decision, Refusal> {
    let spec = state.environments.get(environment);
    let spec = spec.ok_or_else(|| Refusal::Unknown(format!("there is no environment {environment}")))?;
    let now = &spec.certificates;
    if now.name() != source {
        let now = now.name();
        return Err(Refusal::Refused(format!(
            "the certificates of {environment} come from \"{now}\": apply its file with `tls = {{ source = \"{source}\" }}` first"
        )));
    }
    if now.key() != brought.source {
        return Err(Refusal::Refused(format!("the source of {environment} has changed meanwhile")));
    }
    // It would be shown for hosts that belong to somebody else.
    let is_own = |name: &String| is_within(name, &spec.zone);
    if let Some(strange) = brought.certificates.iter().find(|one| !one.names.iter().any(is_own)) {
        let names: Vec<&str> = strange.names.iter().take(5).map(String::as_str).collect();
        let names = names.join(", ");
        return Err(Refusal::Refused(format!(
            "the certificate is for {names}: none of it lies in {}, the zone of {environment}",
            spec.zone
        )));
    }
    // The controller's own looks have theirs.
    super::require_reason(state, environment, context)?;
    if state.certificates.get(environment) == Some(&brought) {
        return Ok(Decision::already(format!("{environment} has these certificates already")));
    }
    let (environment, source, key) = (environment.clone(), source.to_owned(), brought.source);
    let certificates = brought.certificates;
    Ok(Decision::one(Event::CertificatesReplaced { environment, source, key, certificates }))
}

/// Whether a name of a certificate, which may be a wildcard, is that of a zone or lies in it.
pub fn is_within(name: &str, zone: &Host) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name == zone.as_str() || name.strip_suffix(zone.as_str()).is_some_and(|host| host.ends_with('.'))
}

/// Environments in which the files change something: their own settings, or a service's stage there.
fn touched<'a>(
    state: &'a State,
    environments: &'a [EnvironmentSpec],
    services: &'a [ServiceSpec],
) -> BTreeSet<&'a EnvironmentName> {
    let changed = environments.iter().filter(|spec| state.environments.get(&spec.name) != Some(spec));
    let mut touched: BTreeSet<_> = changed.map(|spec| &spec.name).collect();
    for spec in services {
        let before = state.service(&spec.name).map(|service| &service.spec.stages);
        let names = before.into_iter().flat_map(|stages| stages.keys()).chain(spec.stages.keys());
        touched.extend(names.filter(|name| before.and_then(|stages| stages.get(*name)) != spec.stages.get(*name)));
    }
    touched
}

/// Two environments in one zone would claim the same hosts.
fn clashes(after: &BTreeMap<&EnvironmentName, &EnvironmentSpec>, applied: &[EnvironmentSpec]) -> Vec<String> {
    let other = |spec: &EnvironmentSpec| {
        after.values().find(|other| other.zone == spec.zone && other.name != spec.name).map(|other| other.name.clone())
    };
    let clash = |spec: &EnvironmentSpec| {
        other(spec).map(|other| format!("environment {}: zone {} already belongs to {other}", spec.name, spec.zone))
    };
    applied.iter().filter_map(clash).collect()
}

fn twice(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let doubled: Vec<_> = names.filter(|name| !seen.insert(name.clone())).collect();
    doubled.into_iter().map(|name| format!("{name} is given more than once")).collect()
}

/// What runs in an environment cannot follow it to another target.
fn moved_target(state: &State, spec: &EnvironmentSpec) -> Option<String> {
    let before = state.environments.get(&spec.name).filter(|before| before.target != spec.target)?;
    let users = state.stage_names().filter(|stage| {
        stage.environment == before.name && state.stage(stage).is_some_and(|stage| !stage.running().is_empty())
    });
    let users: Vec<_> = users.map(|stage| stage.to_string()).collect();
    (!users.is_empty()).then(|| {
        format!("environment {}: its target cannot change while releases run there ({})", spec.name, users.join(", "))
    })
}

/// A stage that serves must not vanish by an edit.
fn lost_stages(state: &State, spec: &ServiceSpec) -> Vec<String> {
    let Some(service) = state.services.get(&spec.name) else { return Vec::new() };
    let serving = service.stages.iter().filter(|(_, stage)| !stage.running().is_empty());
    let lost = serving.filter(|(environment, _)| !spec.stages.contains_key(environment));
    lost.map(|(environment, _)| format!("service {}: stage {environment} serves and cannot be left out", spec.name))
        .collect()
}
