//! What proxies should have: derived from state, one stage at a time, never stored.
//!
//! A resource's bytes are a function of the state alone, so that two controllers with the same state give the same
//! fingerprint.

pub mod access;
mod split;

use std::collections::BTreeSet;

use api::fleet::{self, Resource};
use api::{
    EnvironmentName, HostTarget, ReleaseName, ReleaseNumber, SCHEMA_ACCESS, SCHEMA_HTTPS, SCHEMA_SEALED, StageName,
};
use prost::Message;

use super::spec::{ClientCertificates, ComponentSpec, Denial, HEALTH_MOST, HealthSpec, HttpsSpec, Protocol};
use super::state::{Stage, State};

/// Backends of one stage that proxies accept.
const BACKENDS_MOST: usize = 64;

/// A health interval as proxies accept it; what was frozen into a release before they were limited may be longer.
fn ms(span: api::Span) -> u32 {
    u32::try_from(span.min(HEALTH_MOST).ms()).unwrap_or(u32::MAX)
}

pub(super) fn health_check(health: &HealthSpec) -> fleet::HealthCheck {
    fleet::HealthCheck {
        http_path: health.http.clone().unwrap_or_default(),
        every_ms: ms(health.every),
        timeout_ms: ms(health.timeout),
        fall: health.fall,
        rise: health.rise,
    }
}

fn resource(kind: &str, name: String, body: &impl Message) -> Resource {
    Resource { kind: kind.to_owned(), name, body: body.encode_to_vec().into(), schema: 1 }
}

/// The zone of an environment.
pub fn of_environment(state: &State, name: &EnvironmentName) -> Vec<Resource> {
    let Some(environment) = state.environments.get(name) else { return Vec::new() };
    let https = https(&environment.https);
    let client_certificates = environment.client_certificates.as_ref().map(client_certificates);
    let schema = match (&client_certificates, &https) {
        (Some(_), _) => SCHEMA_SEALED,
        (None, Some(_)) => SCHEMA_HTTPS,
        (None, None) => 1,
    };
    let (domain, environment) = (environment.zone.to_string(), name.to_string());
    let zone = fleet::Zone { environment, domain: domain.clone(), https, client_certificates };
    vec![Resource { schema, ..resource("zone", domain, &zone) }]
}

/// Which certificates clients may show, without the lists of revoked ones, which are no part of the state: whoever has them puts them in.
pub fn client_certificates(spec: &ClientCertificates) -> fleet::ClientCertificates {
    // It was read when it was applied.
    let ca_der = pem::parse_many(&spec.ca).unwrap_or_default().into_iter().map(pem::Pem::into_contents).collect();
    fleet::ClientCertificates { ca_der, crl_der: Vec::new(), required: spec.required }
}

fn https(spec: &HttpsSpec) -> Option<fleet::Https> {
    let redirect_port = spec.redirect_port.map_or(0, |port| port.get().into());
    let seconds = |span: api::Span| u32::try_from(span.ms() / 1_000).unwrap_or(u32::MAX);
    let hsts_seconds = spec.hsts.map_or(0, seconds);
    let https = fleet::Https { redirect_port, hsts_seconds };
    (https != fleet::Https::default()).then_some(https)
}

/// A certificate of an environment, without its key: that is sealed for each proxy. `zone`: for all of whose names it
/// stands in when nothing else answers.
pub fn of_certificate(material: &certs::development::Material, environment: &EnvironmentName, zone: &str) -> Resource {
    let body = fleet::Certificate {
        dns_names: material.dns_names.clone(),
        chain_der: material.chain_der.clone(),
        key_der: Vec::new(),
        zone: zone.to_owned(),
    };
    // Two environments may be served with one certificate.
    let first = material.dns_names.first().map(String::as_str).unwrap_or_default();
    Resource { schema: SCHEMA_SEALED, ..resource("certificate", format!("{environment}/{first}"), &body) }
}

/// What shows an authority that a host is ours.
pub fn of_challenge(told: &fleet::Challenge) -> Resource {
    let kind = match told.kind() {
        fleet::challenge::Kind::TlsAlpn01 => "tls-alpn-01",
        _ => "http-01",
    };
    Resource { schema: SCHEMA_SEALED, ..resource("challenge", format!("{kind}/{}", told.host), told) }
}

/// The names of the keys of session tickets.
pub fn of_tickets(told: &fleet::Tickets) -> Resource {
    Resource { schema: SCHEMA_SEALED, ..resource("tickets", "tickets".to_owned(), told) }
}

/// The stage, its split and the endpoints of its releases; nothing when no release can be reached there, unless the stage is
/// public: whoever asks at its URL is told that nothing serves there yet, not that there is no such place.
pub fn of_stage(state: &State, name: &StageName) -> Vec<Resource> {
    let nothing = Stage::default();
    let stage = state.stage(name).unwrap_or(&nothing);
    let mut resources = Vec::new();
    let mut backends = Vec::new();
    for number in told(stage) {
        let Some((backend, endpoints)) = backend(state, name, stage, number) else { continue };
        backends.push(backend);
        resources.push(resource("endpoints", format!("{name}/{number}"), &endpoints));
    }
    let access = of_itself(state, name);
    if backends.is_empty() && !access.public {
        return Vec::new();
    }
    resources.push(split::of(name, stage, &backends));
    let spec = state.service(&name.service).and_then(|service| service.spec.stages.get(&name.environment));
    let body = fleet::Stage {
        service: name.service.to_string(),
        environment: name.environment.to_string(),
        backends,
        cors_origins: spec.map(|spec| spec.cors.clone()).unwrap_or_default(),
        client_certificates: spec.and_then(|spec| spec.client_certificates.as_ref()).map(client_certificates),
        access: Some(access),
    };
    // A proxy that knew nothing of who may pass would let everybody in.
    resources.push(Resource { schema: SCHEMA_ACCESS, ..resource("stage", name.to_string(), &body) });
    resources
}

/// What a stage says of itself to those who decide. What nobody wrote hides it.
pub fn of_itself(state: &State, name: &StageName) -> fleet::StageAccess {
    let environment = state.environments.get(&name.environment);
    let stage = state.service(&name.service).and_then(|service| service.spec.stages.get(&name.environment));
    let public = stage.is_some_and(|stage| stage.public);
    let denial = stage.and_then(|stage| stage.denial).or(environment.map(|spec| spec.denial)).unwrap_or_default();
    let credentials = stage.and_then(|stage| stage.credentials).or(environment.map(|spec| spec.credentials));
    let credentials = credentials.unwrap_or_default();
    fleet::StageAccess {
        public,
        explicit_denial: denial == Denial::Explicit,
        needs_application: credentials.application && !public,
        needs_user: credentials.user && !public,
    }
}

/// How the endpoints of a component are verified in a stage; `None` when they are spoken to in clear.
pub(super) fn endpoint_tls(state: &State, stage: &StageName, component: &ComponentSpec) -> Option<fleet::EndpointTls> {
    component.protocol.filter(|protocol| protocol.is_tls())?;
    let written = component.tls.clone().unwrap_or_default();
    let implicit = || {
        let zone = &state.environments.get(&stage.environment)?.zone;
        Some(HostTarget { service: stage.service.clone(), release: None }.host(zone).to_string())
    };
    // A stage always has its environment. Without a name, verification fails rather than being left out.
    let server_name = written.name.or_else(implicit).unwrap_or_default();
    Some(fleet::EndpointTls {
        ca_pem: written.ca.unwrap_or_default(),
        server_name,
        spiffe_id: written.spiffe.unwrap_or_default(),
    })
}

/// The releases that proxies are told of: all that have or may get weight, and as many warm ones as are accepted.
fn told(stage: &Stage) -> BTreeSet<ReleaseNumber> {
    let mut told = stage.routed();
    let excess = told.len().saturating_sub(BACKENDS_MOST);
    for release in stage.warm().into_iter().take(excess) {
        told.remove(&release);
    }
    told
}

fn backend(
    state: &State,
    name: &StageName,
    stage: &Stage,
    number: ReleaseNumber,
) -> Option<(fleet::Backend, fleet::Endpoints)> {
    let release = state.release(&ReleaseName::new(name.service.clone(), number))?;
    let (component, spec) = release.routed()?;
    let addresses = addresses(state, name, stage, number).into_iter();
    let endpoints = addresses.map(|address| fleet::Endpoint { address: address.to_string() }).collect();
    let protocol = match spec.protocol? {
        Protocol::H1 => fleet::Protocol::H1,
        Protocol::H2c => fleet::Protocol::H2c,
        Protocol::Tls => fleet::Protocol::H1Tls,
        Protocol::H2 => fleet::Protocol::H2Tls,
    };
    let backend = fleet::Backend {
        release: number.number(),
        component: component.to_string(),
        protocol: protocol.into(),
        health: Some(health_check(&spec.health)),
        tls: endpoint_tls(state, name, spec),
    };
    Some((backend, fleet::Endpoints { endpoints }))
}

/// Where the routed component of a release can be reached in a stage, as agents reported or somebody gave it.
pub(crate) fn addresses(
    state: &State,
    name: &StageName,
    stage: &Stage,
    number: ReleaseNumber,
) -> Vec<std::net::SocketAddr> {
    let release = state.release(&ReleaseName::new(name.service.clone(), number));
    let Some((environment, release)) = state.environments.get(&name.environment).zip(release) else {
        return Vec::new();
    };
    let mut addresses = match environment.group() {
        Some(group) => placed(state, stage, group, number),
        None => release.static_addresses(&name.environment),
    };
    // Port 0 was accepted by hand once, and is none.
    addresses.retain(|address| address.port() != 0);
    addresses
}

/// Where agents that still belong to the group run the release.
fn placed(state: &State, stage: &Stage, group: &api::MemberName, number: ReleaseNumber) -> Vec<std::net::SocketAddr> {
    let Some(placed) = stage.placed.get(&number) else { return Vec::new() };
    state.agents(group).filter_map(|agent| placed.get(agent).copied()).collect()
}
