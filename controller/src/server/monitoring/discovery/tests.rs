//! Which endpoints are told, with which labels, to whom.

use serde_json::{Value, json};

use super::*;
use crate::core::Command;
use crate::core::evolve_test::World;
use crate::core::state::Addresses;

/// What anybody who may see everything is told, as JSON.
fn told(world: &World, query: &str) -> Value {
    let wanted = Wanted::read(query).expect("understood");
    serde_json::to_value(groups(&world.state, &wanted, |_, _| true)).expect("JSON")
}

/// Stage, release, role, weight and address of each group.
fn lines(told: &Value) -> Vec<String> {
    let line = |group: &Value| {
        let label =
            |name: &str| group["labels"][format!("__meta_pointsman_{name}")].as_str().expect("a label").to_owned();
        let [stage, release, role, weight] = ["stage", "release", "role", "weight_ppm"].map(label);
        let targets = group["targets"].as_array().expect("a list");
        assert_eq!(targets.len(), 1, "{group}");
        format!("{stage} {release} {role} {weight} {}", targets[0].as_str().expect("an address"))
    };
    told.as_array().expect("a list").iter().map(line).collect()
}

fn share(text: &str) -> Option<api::Share> {
    Some(text.parse().expect("a share"))
}

#[test]
fn discovery_tells_all_that_is_known_of_an_endpoint() {
    let mut world = World::with_static_releases(1);
    world.promote("hello@r1", "dev", None).expect("promoted");
    let expected = json!([{
        "targets": ["10.0.0.1:8001"],
        "labels": {
            "__meta_pointsman_service": "hello",
            "__meta_pointsman_environment": "dev",
            "__meta_pointsman_stage": "hello/dev",
            "__meta_pointsman_release": "r1",
            "__meta_pointsman_version": "1.1",
            "__meta_pointsman_commit": "",
            "__meta_pointsman_component": "web",
            "__meta_pointsman_protocol": "h1",
            "__meta_pointsman_role": "stable",
            "__meta_pointsman_weight_ppm": "1000000",
        },
    }]);
    assert_eq!(told(&world, ""), expected);
}

#[test]
fn discovery_follows_a_release_on_agents_from_its_start_to_its_end() {
    let mut world = World::with_built_releases(2);
    world.join_agent("a1");
    world.promote("hello@r1", "dev", None).expect("starts");
    assert_eq!(told(&world, ""), json!([]), "nobody knows yet where it runs");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(lines(&told(&world, "")), ["hello/dev r1 stable 1000000 10.0.0.1:20000"]);
    assert_eq!(told(&world, "")[0]["labels"]["__meta_pointsman_commit"], "1".repeat(40));

    world.promote("hello@r2", "dev", share("0.01%")).expect("starts");
    assert_eq!(lines(&told(&world, "")), ["hello/dev r1 stable 1000000 10.0.0.1:20000"]);
    world.report_healthy("a1");
    world.run_due();
    let both = ["hello/dev r1 stable 999900 10.0.0.1:20000", "hello/dev r2 canary 100 10.0.0.1:20001"];
    assert_eq!(lines(&told(&world, "")), both);
    world.weigh("hello/dev", "100%").expect("everything");
    let warm = ["hello/dev r1 warm 0 10.0.0.1:20000", "hello/dev r2 stable 1000000 10.0.0.1:20001"];
    assert_eq!(lines(&told(&world, "")), warm);
    world.pass_ms(3_600_000);
    world.run_due();
    let draining = ["hello/dev r1 draining 0 10.0.0.1:20000", warm[1]];
    assert_eq!(lines(&told(&world, "")), draining);
}

#[test]
fn discovery_lists_in_one_order_what_is_wanted_and_may_be_seen() {
    let mut world = World::with_static_releases(2);
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let add = Command::AddRelease {
        service: "hello".parse().expect("name"),
        version: "three".into(),
        commit: String::new(),
        addresses: vec![Addresses {
            environment: None,
            component: "web".parse().expect("name"),
            addresses: ["[::1]:80", "10.0.0.9:80", "10.0.0.2:80"].map(address).into(),
        }],
        artifacts: Vec::new(),
    };
    world.command(add, "").expect("added");
    world.promote("hello@r3", "dev", None).expect("dev");
    let mut world = world.promoted_everywhere("hello@r1");
    world.promote("hello@r2", "dev", share("25%")).expect("dev");
    let dev = [
        "hello/dev r1 stable 750000 10.0.0.1:8001",
        "hello/dev r2 canary 250000 10.0.0.1:8002",
        "hello/dev r3 warm 0 10.0.0.2:80",
        "hello/dev r3 warm 0 10.0.0.9:80",
        "hello/dev r3 warm 0 [::1]:80",
    ];
    let others = ["hello/production r1 stable 1000000 10.0.0.1:8001", "hello/staging r1 stable 1000000 10.0.0.1:8001"];
    let all = [&dev[..], &others].concat();
    for (query, expected) in [
        ("", &all[..]),
        ("service=hello", &all),
        ("environment=dev", &dev),
        ("environment=dev&service=hello", &dev),
        ("environment=staging", &others[1..]),
        ("service=other", &[]),
        ("environment=test", &[]),
        ("service=other&environment=dev", &[]),
    ] {
        assert_eq!(lines(&told(&world, query)), expected, "{query}");
    }
    let sees = |service: &ServiceName, environment: &EnvironmentName| {
        service.as_str() == "hello" && environment.as_str() == "production"
    };
    let seen = |query: &str| groups(&world.state, &Wanted::read(query).expect("understood"), sees);
    assert_eq!(lines(&serde_json::to_value(seen("")).expect("JSON")), &others[..1]);
    assert_eq!(seen("environment=dev"), []);
}
