//! Files that were applied: all of them or none.

pub(super) mod between;

use std::collections::{BTreeMap, BTreeSet};

use api::{EnvironmentName, Host};

use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{AccessSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec};
use crate::core::state::{Brought, State};

/// All files or none: mistakes of every file are told at once.
pub(super) fn apply(
    state: &State,
    environments: &[EnvironmentSpec],
    services: &[ServiceSpec],
    access: Option<&AccessSpec>,
    releases: Option<&ReleasesSpec>,
    context: &Context,
) -> Result<Decision, Refusal> {
    // What will be there when all of this is applied.
    let mut after: BTreeMap<&EnvironmentName, &EnvironmentSpec> = state.environments.iter().collect();
    after.extend(environments.iter().map(|spec| (&spec.name, spec)));
    let mut mistakes = between::clashes(&after, environments);
    mistakes.extend(between::twice(
        environments.iter().map(|spec| spec.name.to_string()).chain(services.iter().map(|spec| spec.name.to_string())),
    ));
    for spec in environments {
        mistakes.extend(between::moved_target(state, spec));
    }
    let access = access.filter(|access| state.access != **access);
    mistakes.extend(access.into_iter().flat_map(|access| between::lost_issuers(state, access)));
    let counts = releases.unwrap_or(&state.releases);
    let releases = releases.filter(|spec| state.releases != **spec);
    let mut reasons = touched(state, environments, services);
    if access.is_some() || releases.is_some() {
        // They are for all environments alike.
        reasons.extend(state.environments.keys());
    }
    let missing = reasons.into_iter().filter_map(|name| super::require_reason(state, name, context).err());
    mistakes.extend(missing.map(|refusal| refusal.to_string()));
    for spec in services {
        mistakes.extend(between::of_service(state, &after, spec));
        mistakes.extend(between::registered(state, counts, spec));
    }
    mistakes.extend(between::loosened(state, &after, services));
    mistakes.extend(between::passed_secrets(state, counts, services));
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    let changed = environments.iter().filter(|spec| state.environments.get(&spec.name) != Some(spec));
    let mut events: Vec<_> = changed.map(|spec| Event::EnvironmentApplied { spec: spec.clone() }).collect();
    let is_so = |spec: &&ServiceSpec| {
        let known = state.services.get(&spec.name);
        known.is_some_and(|service| &service.spec == *spec && service.registered.is_none())
    };
    let changed = services.iter().filter(|spec| !is_so(spec));
    events.extend(changed.map(|spec| Event::ServiceApplied { spec: spec.clone() }));
    events.extend(access.map(|spec| Event::AccessApplied { spec: spec.clone() }));
    events.extend(releases.map(|spec| Event::ReleasesApplied { spec: Box::new(spec.clone()) }));
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

#[cfg(test)]
mod tests;
