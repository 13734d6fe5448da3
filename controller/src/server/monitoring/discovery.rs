//! What serves where, as Prometheus finds targets: a group with labels for each endpoint.
//!
//! Must not know: who asks, or what is scraped there. Pure.
//!
//! Main types: [`Wanted`], what is asked for; [`Group`], what is found. Source: Prometheus, "HTTP SD format".

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::{EnvironmentName, ReleaseName, ReleaseNumber, ServiceName, StageName};
use serde::Serialize;

use super::parameters::Parameters;
use crate::core::State;
use crate::core::resources::addresses;
use crate::core::spec::Protocol;
use crate::core::state::Stage;
use crate::status::role;

/// What is asked for; nothing given: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    service: Option<ServiceName>,
    environment: Option<EnvironmentName>,
}

/// One endpoint with all that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    /// Its address with its port: one.
    targets: Vec<String>,
    /// Beginning with `__meta_pointsman_`: Prometheus drops them after relabelling.
    labels: BTreeMap<&'static str, String>,
}

// === impl Wanted ===

impl Wanted {
    /// From the parameters `service` and `environment`.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub(super) fn read(query: &str) -> Result<Self, Vec<String>> {
        let mut parameters = Parameters::read(query, &["service", "environment"]);
        let wanted = Self { service: parameters.take("service"), environment: parameters.take("environment") };
        parameters.end(wanted)
    }

    fn includes(&self, stage: &StageName) -> bool {
        self.service.as_ref().is_none_or(|service| *service == stage.service)
            && self.environment.as_ref().is_none_or(|environment| *environment == stage.environment)
    }
}

/// All endpoints of releases that run in stages that are wanted and may be seen: by stage, then by release, oldest first,
/// then by address.
///
/// An endpoint is known from its first good health check until its release has left. What has no port has none.
pub(super) fn groups(
    state: &State,
    wanted: &Wanted,
    sees: impl Fn(&ServiceName, &EnvironmentName) -> bool,
) -> Vec<Group> {
    let stages = state.stage_names().filter(|name| wanted.includes(name) && sees(&name.service, &name.environment));
    let mut groups = Vec::new();
    for name in stages {
        let Some(stage) = state.stage(&name) else { continue };
        for number in stage.running() {
            groups.extend(of_release(state, &name, stage, number));
        }
    }
    groups
}

fn of_release(state: &State, name: &StageName, stage: &Stage, number: ReleaseNumber) -> Vec<Group> {
    let release = ReleaseName::new(name.service.clone(), number);
    let Some(release) = state.release(&release) else { return Vec::new() };
    let Some((component, spec)) = release.routed() else { return Vec::new() };
    let protocol = spec.protocol.map(word).unwrap_or_default();
    let labels: BTreeMap<_, _> = [
        ("__meta_pointsman_service", name.service.to_string()),
        ("__meta_pointsman_environment", name.environment.to_string()),
        ("__meta_pointsman_stage", name.to_string()),
        ("__meta_pointsman_release", number.to_string()),
        ("__meta_pointsman_version", release.wanted.version.clone()),
        ("__meta_pointsman_commit", release.wanted.commit.clone()),
        ("__meta_pointsman_component", component.to_string()),
        ("__meta_pointsman_protocol", protocol.to_owned()),
        ("__meta_pointsman_role", role(stage, number).to_owned()),
        ("__meta_pointsman_weight_ppm", stage.share(number).ppm().to_string()),
    ]
    .into();
    let mut addresses = addresses(state, name, stage, number);
    addresses.sort_unstable();
    addresses.dedup();
    let group = |address: SocketAddr| Group { targets: vec![address.to_string()], labels: labels.clone() };
    addresses.into_iter().map(group).collect()
}

/// As it is written in `pointsman.toml`.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::H1 => "h1",
        Protocol::H2c => "h2c",
        Protocol::Tls => "tls",
        Protocol::H2 => "h2",
    }
}

#[cfg(test)]
mod tests;
