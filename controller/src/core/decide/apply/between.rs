//! What files say together with what is there already: each function gives the mistakes of one kind.

use std::collections::{BTreeMap, BTreeSet};

use api::{EnvironmentName, ServiceName};

use crate::core::spec::{AccessSpec, EnvironmentSpec, ReleasesSpec, ServiceSpec};
use crate::core::state::{Application, State};

/// Most names in one sentence.
const NAMES_SHOWN: usize = 10;

/// Two environments in one zone would claim the same hosts.
pub(super) fn clashes(
    after: &BTreeMap<&EnvironmentName, &EnvironmentSpec>,
    applied: &[EnvironmentSpec],
) -> Vec<String> {
    let other = |spec: &EnvironmentSpec| {
        after.values().find(|other| other.zone == spec.zone && other.name != spec.name).map(|other| other.name.clone())
    };
    let clash = |spec: &EnvironmentSpec| {
        other(spec).map(|other| format!("environment {}: zone {} already belongs to {other}", spec.name, spec.zone))
    };
    applied.iter().filter_map(clash).collect()
}

/// Issuers that would be gone, or be somebody else, while applications are known by their tokens.
pub(super) fn lost_issuers(state: &State, access: &AccessSpec) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (name, before) in &state.access.issuers {
        let what = match access.issuers.get(name) {
            Some(after) if after.issuer == before.issuer => continue,
            Some(after) => format!("become {}", after.issuer),
            None => "be left out".to_owned(),
        };
        let is_known_by = |one: &Application| !one.revoked && one.clients.iter().any(|(issuer, _)| issuer == name);
        let known = state.applications.iter().filter(|(_, one)| is_known_by(one)).map(|(name, _)| name.as_str());
        let known: Vec<_> = known.collect();
        if !known.is_empty() {
            let shown = known[..known.len().min(NAMES_SHOWN)].join(", ");
            let more = known.len().saturating_sub(NAMES_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            mistakes.push(format!(
                "[issuer.{name}] cannot {what} while applications are known by its tokens ({shown}{more}): keep it as it is, or \
                 `pointsman app revoke NAME` each of them first, and create it anew afterwards"
            ));
        }
    }
    mistakes
}

/// Stages that would let more through than their environment does: owners may only tighten.
pub(in crate::core::decide) fn loosened(
    state: &State,
    environments: &BTreeMap<&EnvironmentName, &EnvironmentSpec>,
    applied: &[ServiceSpec],
) -> Vec<String> {
    let mut mistakes = Vec::new();
    for spec in all_services(state, applied).values() {
        for (name, stage) in &spec.stages {
            let Some(environment) = environments.get(name) else { continue };
            let place = format!("service {}: stage {name}", spec.name);
            if stage.public && !environment.may_be_public {
                mistakes.push(format!("{place} cannot be public: the environment says `public = false`"));
            }
            if let Some(denial) = stage.denial.filter(|denial| *denial > environment.denial) {
                let least = environment.denial;
                mistakes.push(format!("{place} cannot be \"{denial}\": the environment says `denial = \"{least}\"`"));
            }
            if let Some(credentials) = stage.credentials.filter(|own| !own.covers(environment.credentials)) {
                let least = environment.credentials;
                mistakes.push(format!(
                    "{place} cannot do with `credentials = {credentials}`: the environment asks for {least}"
                ));
            }
        }
    }
    mistakes
}

pub(in crate::core::decide) fn twice(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let doubled: Vec<_> = names.filter(|name| !seen.insert(name.clone())).collect();
    doubled.into_iter().map(|name| format!("{name} is given more than once")).collect()
}

/// What runs in an environment cannot follow it to another target.
pub(super) fn moved_target(state: &State, spec: &EnvironmentSpec) -> Option<String> {
    let before = state.environments.get(&spec.name).filter(|before| before.target != spec.target)?;
    let users = state.stage_names().filter(|stage| {
        stage.environment == before.name && state.stage(stage).is_some_and(|stage| !stage.running().is_empty())
    });
    let users: Vec<_> = users.map(|stage| stage.to_string()).collect();
    (!users.is_empty()).then(|| {
        format!("environment {}: its target cannot change while releases run there ({})", spec.name, users.join(", "))
    })
}

/// What a service says of stages, whoever says it.
pub(in crate::core::decide) fn of_service(
    state: &State,
    environments: &BTreeMap<&EnvironmentName, &EnvironmentSpec>,
    spec: &ServiceSpec,
) -> Vec<String> {
    let missing = spec.stages.keys().filter(|name| !environments.contains_key(name)).map(|environment| {
        format!(
            "service {}: there is no environment {environment}: apply its file first, or together with this one",
            spec.name
        )
    });
    missing.chain(lost_stages(state, spec)).collect()
}

/// A service that comes from a repository is changed there, as long as that repository may say what it is.
pub(super) fn registered(state: &State, releases: &ReleasesSpec, spec: &ServiceSpec) -> Option<String> {
    let repository = &state.service(&spec.name)?.registered.as_ref()?.repository;
    let listed = releases.repositories.get(repository)?;
    listed.services.iter().any(|pattern| pattern.covers(&spec.name)).then(|| {
        format!(
            "service {} is registered from repository {repository}: change it there, or leave its name out of \
             [repository.{repository}] first",
            spec.name
        )
    })
}

/// Secrets that builds would be given as variables of the controller's environment, which nobody hides in their logs.
pub(in crate::core::decide) fn passed_secrets(
    state: &State,
    releases: &ReleasesSpec,
    applied: &[ServiceSpec],
) -> Vec<String> {
    let withheld = releases.withheld();
    let mut mistakes = Vec::new();
    for spec in all_services(state, applied).values() {
        let Some(build) = &spec.build else { continue };
        let is_secret = |name: &&String| releases.secrets.contains_key(*name);
        let of_its_name = build.pass.iter().chain(build.environment.keys()).filter(is_secret);
        mistakes.extend(of_its_name.map(|name| {
            format!(
                "service {}: {name} is a secret: [build] has it by `secrets = [\"{name}\"]`, not by `pass` or `environment`",
                spec.name
            )
        }));
        let holds_one = build.pass.iter().filter(|name| withheld.contains(name.as_str()) && !is_secret(name));
        mistakes.extend(holds_one.map(|name| {
            format!(
                "service {}: `pass` names {name}, in which the controller has a secret of the operator's",
                spec.name
            )
        }));
    }
    mistakes
}

/// As they will be.
fn all_services<'a>(state: &'a State, applied: &'a [ServiceSpec]) -> BTreeMap<&'a ServiceName, &'a ServiceSpec> {
    let known = state.services.iter().map(|(name, service)| (name, &service.spec));
    known.chain(applied.iter().map(|spec| (&spec.name, spec))).collect()
}

/// A stage that serves must not vanish by an edit.
fn lost_stages(state: &State, spec: &ServiceSpec) -> Vec<String> {
    let Some(service) = state.services.get(&spec.name) else { return Vec::new() };
    let serving = service.stages.iter().filter(|(_, stage)| !stage.running().is_empty());
    let lost = serving.filter(|(environment, _)| !spec.stages.contains_key(environment));
    lost.map(|(environment, _)| format!("service {}: stage {environment} serves and cannot be left out", spec.name))
        .collect()
}
