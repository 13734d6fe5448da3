//! Resources in one line each, for tests.

use std::sync::Arc;

use api::fleet::{
    Backend, Endpoint, Endpoints, HealthCheck, Protocol, Resource, ResourceSet, Split, Stage, WeightedRelease, Zone,
};
use api::{Fingerprint, Version};
use prost::Message;

use super::{Compiler, Incoming, Snapshot};

pub(crate) fn resource(kind: &str, name: &str, body: &impl Message) -> Resource {
    Resource { kind: kind.into(), name: name.into(), body: body.encode_to_vec().into(), schema: 1 }
}

pub(crate) fn zone(environment: &str, domain: &str) -> Resource {
    resource("zone", domain, &Zone { environment: environment.into(), domain: domain.into(), ..Zone::default() })
}

pub(crate) fn stage(name: &str, releases: &[u32]) -> Resource {
    let (service, environment) = name.split_once('/').expect("a stage's name");
    let backend = |release: &u32| Backend {
        release: *release,
        component: "web".into(),
        protocol: Protocol::H1.into(),
        health: Some(HealthCheck { every_ms: 1000, timeout_ms: 500, fall: 3, rise: 2, ..HealthCheck::default() }),
        tls: None,
    };
    let backends = releases.iter().map(backend).collect();
    resource(
        "stage",
        name,
        &Stage { service: service.into(), environment: environment.into(), backends, ..Stage::default() },
    )
}

pub(crate) fn split(name: &str, weights: &[(u32, u32)]) -> Resource {
    let weights = weights.iter().map(|(release, weight)| WeightedRelease { release: *release, weight: *weight });
    resource("split", name, &Split { weights: weights.collect(), ..Split::default() })
}

pub(crate) fn endpoints(stage: &str, release: u32, addresses: &[&str]) -> Resource {
    let endpoints = addresses.iter().map(|address| Endpoint { address: (*address).into() }).collect();
    resource("endpoints", &format!("{stage}/r{release}"), &Endpoints { endpoints })
}

pub(crate) fn fingerprint(resources: &[Resource]) -> Vec<u8> {
    let mut fingerprint = Fingerprint::default();
    resources.iter().for_each(|resource| fingerprint.add(resource));
    fingerprint.to_bytes().to_vec()
}

/// A full state.
pub(crate) fn full(version: Version, resources: &[Resource]) -> Incoming {
    let set = ResourceSet { upserts: resources.to_vec(), removals: Vec::new() };
    Incoming { version, base: None, set, fingerprint: fingerprint(resources) }
}

#[cfg_attr(not(test), expect(dead_code, reason = "fuzzers apply what they get"))]
pub(crate) fn snapshot(resources: &[Resource]) -> Arc<Snapshot> {
    Compiler::default().apply(full(Version::first_of(1), resources)).expect("good resources").snapshot
}
