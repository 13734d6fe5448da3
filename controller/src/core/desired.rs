//! What an agent should run: derived from state, never stored.

use api::agent::{EnvironmentVariable, Instance};
use api::{ComponentName, MemberName, ReleaseName, ReleaseNumber, StageName};

use super::observe::instance_id;
use super::resources::{endpoint_tls, health_check};
use super::spec::{ComponentSpec, Protocol};
use super::state::{Artifact, State};

/// All instances that should run on `agent`, in a fixed order.
pub fn of_agent(state: &State, agent: &MemberName) -> Vec<Instance> {
    let Some(member) = state.members.get(agent) else { return Vec::new() };
    let mut instances = Vec::new();
    for name in state.stage_names() {
        let group = state.environments.get(&name.environment).and_then(|environment| environment.group());
        if group.is_none_or(|group| group.as_str() != member.group) {
            continue;
        }
        let Some(stage) = state.stage(&name) else { continue };
        for number in stage.running() {
            instances.extend(of_release(state, &name, number));
        }
    }
    instances
}

/// The components of a release that run, as they run in a stage.
pub fn of_release(state: &State, stage: &StageName, number: ReleaseNumber) -> Vec<Instance> {
    let Some(release) = state.release(&ReleaseName::new(stage.service.clone(), number)) else { return Vec::new() };
    let runs = release.components.iter().filter(|(_, component)| !component.run.is_empty());
    runs.filter_map(|(name, component)| {
        let tls = endpoint_tls(state, stage, component);
        Some(Instance { tls, ..instance(stage, number, name, component, release.artifact(name, &stage.environment)?) })
    })
    .collect()
}

fn instance(
    stage: &StageName,
    number: ReleaseNumber,
    name: &ComponentName,
    component: &ComponentSpec,
    artifact: &Artifact,
) -> Instance {
    let variable = |(name, value): (&String, &String)| EnvironmentVariable { name: name.clone(), value: value.clone() };
    Instance {
        id: instance_id(stage, number, name),
        stage: stage.to_string(),
        release: number.number(),
        component: name.to_string(),
        digest: artifact.digest.to_string(),
        run: component.run.clone(),
        environment: component.environment.iter().map(variable).collect(),
        health: Some(health_check(&component.health)),
        stop_ms: u32::try_from(component.stop.ms()).unwrap_or(u32::MAX),
        has_port: component.protocol.is_some(),
        http2: component.protocol.is_some_and(Protocol::is_http2),
        tls: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::evolve_test::World;
    use super::super::spec::TlsSpec;
    use super::*;

    #[test]
    fn an_agent_is_told_what_a_component_speaks() {
        let world = World::with_built_releases(1);
        let (stage, web) = ("hello/dev".parse().expect("stage"), "web".parse().expect("name"));
        let name: ReleaseName = "hello@r1".parse().expect("name");
        let release = world.state.release(&name).expect("built");
        let (spec, artifact) = (&release.components[&web], &release.artifacts[&web]);
        for (protocol, expected) in [
            (None, (false, false)),
            (Some(Protocol::H1), (true, false)),
            (Some(Protocol::H2c), (true, true)),
            (Some(Protocol::Tls), (true, false)),
            (Some(Protocol::H2), (true, true)),
        ] {
            let spec = ComponentSpec { protocol, ..spec.clone() };
            let told = instance(&stage, name.number, &web, &spec, artifact);
            assert_eq!((told.has_port, told.http2), expected, "{protocol:?}");
        }
    }

    #[test]
    fn an_agent_and_proxies_are_told_alike_whom_endpoints_must_be() {
        let spec = |protocol, name: Option<&str>| {
            let tls = name.map(|name| TlsSpec { ca: Some("ca".into()), name: Some(name.into()), spiffe: None });
            ComponentSpec { protocol: Some(protocol), tls, ..super::super::evolve_test::component() }
        };
        for (protocol, name, expected) in [
            (Protocol::H1, None, None),
            (Protocol::H2c, None, None),
            (Protocol::Tls, None, Some(("", "hello.dev.example.com"))),
            (Protocol::H2, None, Some(("", "hello.dev.example.com"))),
            (Protocol::H2, Some("hello.internal"), Some(("ca", "hello.internal"))),
        ] {
            let mut world = World::with_built_releases_of(1, &|built| {
                built.components = [("web".parse().expect("name"), spec(protocol, name))].into();
            });
            world.join_agent("a1");
            world.promote("hello@r1", "dev", None).expect("starts");
            let stage: StageName = "hello/dev".parse().expect("stage");
            let told = of_agent(&world.state, &"a1".parse().expect("name"));
            let tls = told[0].tls.as_ref().map(|tls| (tls.ca_pem.as_str(), tls.server_name.as_str()));
            assert_eq!(tls, expected, "{protocol:?}");
            world.report_healthy("a1");
            world.run_due();
            let resources = super::super::resources::of_stage(&world.state, &stage);
            let resource = resources.iter().find(|resource| resource.kind == "stage").expect("there");
            let stage = <api::fleet::Stage as prost::Message>::decode(&*resource.body).expect("decodes");
            assert_eq!(stage.backends[0].tls, told[0].tls);
            // A proxy that knows no TLS to endpoints, or not who may pass, must refuse it rather than pass over it.
            assert_eq!(resource.schema, api::SCHEMA_ACCESS, "{protocol:?}");
            let others = resources.iter().filter(|resource| resource.kind != "stage");
            assert!(others.into_iter().all(|resource| resource.schema == 1));
        }
    }
}
