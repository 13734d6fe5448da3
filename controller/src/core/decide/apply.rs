//! Files that were applied: what they say together with what is there already.

use std::collections::{BTreeMap, BTreeSet};

use api::{EnvironmentName, Host, ServiceName};

use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::spec::{AccessSpec, EnvironmentSpec, ServiceSpec};
use crate::core::state::{Application, Brought, State};

/// Most names in one sentence.
const NAMES_SHOWN: usize = 10;

/// All files or none: mistakes of every file are told at once.
pub(super) fn apply(
    state: &State,
    environments: &[EnvironmentSpec],
    services: &[ServiceSpec],
    access: Option<&AccessSpec>,
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
    let access = access.filter(|access| state.access != **access);
    mistakes.extend(access.into_iter().flat_map(|access| lost_issuers(state, access)));
    let mut reasons = touched(state, environments, services);
    if access.is_some() {
        // It is for all environments alike.
        reasons.extend(state.environments.keys());
    }
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
    mistakes.extend(loosened(state, &after, services));
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    let changed = environments.iter().filter(|spec| state.environments.get(&spec.name) != Some(spec));
    let mut events: Vec<_> = changed.map(|spec| Event::EnvironmentApplied { spec: spec.clone() }).collect();
    let changed =
        services.iter().filter(|spec| state.services.get(&spec.name).is_none_or(|service| &service.spec != *spec));
    events.extend(changed.map(|spec| Event::ServiceApplied { spec: spec.clone() }));
    events.extend(access.map(|spec| Event::AccessApplied { spec: spec.clone() }));
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

/// Issuers that would be gone, or be somebody else, while applications are known by their tokens.
fn lost_issuers(state: &State, access: &AccessSpec) -> Vec<String> {
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
fn loosened(
    state: &State,
    environments: &BTreeMap<&EnvironmentName, &EnvironmentSpec>,
    applied: &[ServiceSpec],
) -> Vec<String> {
    let mut services: BTreeMap<&ServiceName, &ServiceSpec> =
        state.services.iter().map(|(name, service)| (name, &service.spec)).collect();
    services.extend(applied.iter().map(|spec| (&spec.name, spec)));
    let mut mistakes = Vec::new();
    for spec in services.values() {
        for (name, stage) in &spec.stages {
            let Some(environment) = environments.get(name) else { continue };
            let place = format!("service {}: stage {name}", spec.name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evolve_test::World;
    use crate::core::resources;
    use crate::core::spec::{Credentials, Denial};
    use crate::core::{Command, Event as Happened};
    use api::fleet;
    use prost::Message;

    const BOTH: Credentials = Credentials { application: true, user: true };
    const APPLICATION: Credentials = Credentials { application: true, user: false };
    const USER: Credentials = Credentials { application: false, user: true };

    fn specs(world: &World) -> (EnvironmentSpec, ServiceSpec) {
        let environment = world.state.environments[&"production".parse().expect("name")].clone();
        (environment, world.state.services[&"hello".parse().expect("name")].spec.clone())
    }

    /// An environment and its stage as a table has them.
    fn written(
        world: &World,
        environment: (Denial, Credentials),
        stage: (bool, Option<Denial>, Option<Credentials>),
    ) -> (EnvironmentSpec, ServiceSpec) {
        let (mut around, mut service) = specs(world);
        (around.denial, around.credentials) = environment;
        let own = service.stages.get_mut(&around.name).expect("a stage");
        (own.public, own.denial, own.credentials) = stage;
        (around, service)
    }

    #[test]
    fn access_of_a_stage_may_only_be_tighter_than_its_environments() {
        use Denial::{Explicit, Hidden};
        let table = [
            ((Hidden, BOTH), (false, None, None), ""),
            ((Hidden, BOTH), (false, Some(Hidden), Some(BOTH)), ""),
            ((Hidden, BOTH), (false, Some(Explicit), None), "stage production cannot be \"explicit\""),
            ((Explicit, BOTH), (false, Some(Explicit), None), ""),
            ((Explicit, BOTH), (false, Some(Hidden), None), ""),
            ((Hidden, BOTH), (false, None, Some(APPLICATION)), "the environment asks for [\"application\", \"user\"]"),
            ((Hidden, USER), (false, None, Some(APPLICATION)), "the environment asks for [\"user\"]"),
            ((Hidden, APPLICATION), (false, None, Some(BOTH)), ""),
            ((Hidden, BOTH), (true, None, None), ""),
        ];
        for (environment, stage, expected) in table {
            // Together, and one after the other, whichever comes first.
            for order in 0..3 {
                let mut world = World::with_static_releases(1);
                let (around, service) = written(&world, environment, stage);
                let (first, second) = match order {
                    0 => ((vec![around], vec![service]), None),
                    1 => ((vec![around], Vec::new()), Some((Vec::new(), vec![service]))),
                    _ => {
                        // What an environment allows at first, and then does not any more.
                        let (loose, _) =
                            written(&world, (Explicit, Credentials { application: false, user: false }), stage);
                        ((vec![loose], vec![service]), Some((vec![around], Vec::new())))
                    }
                };
                let mut last =
                    world.command(Command::Apply { environments: first.0, services: first.1, access: None }, "");
                if let Some((environments, services)) = second {
                    last.expect("the first of two");
                    last = world.command(Command::Apply { environments, services, access: None }, "");
                }
                let said = last.map_or_else(|refusal| refusal.to_string(), |_| String::new());
                assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{order} {stage:?}: {said}");
            }
        }
    }

    #[test]
    fn access_is_told_to_proxies_as_it_counts() {
        use Denial::{Explicit, Hidden};
        // public, explicit, application, user.
        let table = [
            ((Hidden, BOTH), (false, None, None), (false, false, true, true)),
            ((Explicit, USER), (false, None, None), (false, true, false, true)),
            ((Explicit, USER), (false, Some(Hidden), Some(BOTH)), (false, false, true, true)),
            ((Hidden, BOTH), (true, None, None), (true, false, false, false)),
        ];
        for (environment, stage, expected) in table {
            let mut world = World::with_static_releases(1).promoted_everywhere("hello@r1");
            let (around, service) = written(&world, environment, stage);
            world
                .command(Command::Apply { environments: vec![around], services: vec![service], access: None }, "")
                .expect("applied");
            let told = resources::of_stage(&world.state, &"hello/production".parse().expect("name"));
            let told = told.iter().find(|one| one.kind == "stage").expect("a stage");
            assert_eq!(told.schema, api::SCHEMA_ACCESS);
            let access = fleet::Stage::decode(&*told.body).expect("a stage").access.expect("what it asks for");
            let told = (access.public, access.explicit_denial, access.needs_application, access.needs_user);
            assert_eq!(told, expected, "{environment:?} {stage:?}");
        }
    }

    #[test]
    fn access_of_files_before_there_were_policies_is_closed() {
        let world = World::with_static_releases(1);
        let (environment, service) = specs(&world);
        let read = |event: &Happened, without: &[&str]| {
            let mut value = serde_json::to_value(event).expect("written");
            without.iter().for_each(|key| drop(value["spec"].as_object_mut().expect("a spec").remove(*key)));
            serde_json::from_value::<Happened>(value).expect("read")
        };
        let event = Happened::EnvironmentApplied { spec: environment };
        assert_eq!(read(&event, &["denial", "credentials"]), event);
        let event = Happened::ServiceApplied { spec: service };
        assert_eq!(read(&event, &[]), event);
    }
}
