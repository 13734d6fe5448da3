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
            let mut last = world
                .command(Command::Apply { environments: first.0, services: first.1, access: None, releases: None }, "");
            if let Some((environments, services)) = second {
                last.expect("the first of two");
                last = world.command(Command::Apply { environments, services, access: None, releases: None }, "");
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
            .command(
                Command::Apply { environments: vec![around], services: vec![service], access: None, releases: None },
                "",
            )
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
