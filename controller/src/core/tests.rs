//! Tables of commands on a small world: one service in three stages with static addresses or an agent.

use std::collections::BTreeMap;

use api::{ReleaseNumber, Share, StageName};

use super::evolve_test::{World, failed, wanted};
use super::*;

fn share(text: &str) -> Share {
    text.parse().expect("share")
}

fn stage(text: &str) -> StageName {
    text.parse().expect("stage")
}

fn r(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).expect("not 0")
}

/// Shares of a stage now, by release.
fn shares(world: &World, name: &str) -> BTreeMap<u32, String> {
    let Some(found) = world.state.stage(&stage(name)) else { return BTreeMap::new() };
    let all = found.running().into_iter().map(|release| (release.number(), found.share(release)));
    all.filter(|(_, share)| *share > Share::NONE).map(|(release, share)| (release, share.to_string())).collect()
}

fn map(entries: &[(u32, &str)]) -> BTreeMap<u32, String> {
    entries.iter().map(|(release, share)| (*release, (*share).to_owned())).collect()
}

#[test]
fn promotion_follows_the_graph() {
    let mut world = World::with_static_releases(2);
    let refusal = world.promote("hello@r1", "production", None).expect_err("has not run upstream");
    assert!(refusal.to_string().contains("has not served in staging yet"), "{refusal}");
    world.promote("hello@r1", "dev", None).expect("dev has no upstream");
    world.promote("hello@r1", "staging", None).expect("ran in dev");
    world.promote("hello@r1", "production", None).expect("ran in staging");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "100%")]));
}

#[test]
fn promotion_by_bypass_says_why() {
    let mut world = World::with_static_releases(1);
    let bypass = |world: &mut World, reason: &str| {
        let command = Command::Promote {
            release: "hello@r1".parse().expect("name"),
            environment: "production".parse().expect("name"),
            share: None,
            bypass: true,
        };
        world.command(command, reason)
    };
    let refusal = bypass(&mut world, " ").expect_err("no reason");
    assert!(refusal.to_string().contains("--reason"), "{refusal}");
    bypass(&mut world, "the shop is down").expect("with a reason");
}

#[test]
fn promotion_of_what_is_there_changes_nothing() {
    let mut world = World::with_static_releases(1);
    world.promote("hello@r1", "dev", None).expect("first");
    let again = world.promote("hello@r1", "dev", None).expect("again");
    assert_eq!(again.events, []);
}

#[test]
fn rollout_by_weights_to_completion_and_back() {
    let mut world = World::with_static_releases(3).promoted_everywhere("hello@r1");
    world.promote_down("hello@r2");
    world.promote("hello@r2", "production", Some(share("1%"))).expect("canary");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "99%"), (2, "1%")]));
    world.weigh("hello/production", "50%").expect("half");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "50%"), (2, "50%")]));
    world.weigh("hello/production", "100%").expect("all");
    assert_eq!(shares(&world, "hello/production"), map(&[(2, "100%")]));
    assert!(world.state.stage(&stage("hello/production")).expect("stage").is_warm(r(1)));

    let decision = world.rollback("hello/production", None).expect("back");
    assert!(matches!(decision.events[..], [Event::RolledBack { bad: true, .. }]), "{decision:?}");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "100%")]));
}

#[test]
fn rollback_in_mid_rollout_goes_to_stable() {
    let mut world = World::with_static_releases(2).promoted_everywhere("hello@r1");
    world.promote_down("hello@r2");
    world.promote("hello@r2", "production", Some(share("20%"))).expect("canary");
    world.rollback("hello/production", None).expect("back");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "100%")]));
    let refusal = world.promote("hello@r2", "production", None).expect_err("marked bad");
    assert!(refusal.to_string().contains("unhold"), "{refusal}");
    world.command(Command::Unhold { stage: stage("hello/production"), release: r(2) }, "").expect("unheld");
    world.promote("hello@r2", "production", None).expect("again");
}

#[test]
fn rollback_twice_never_toggles_and_never_goes_further() {
    let mut world = World::with_static_releases(3)
        .promoted_everywhere("hello@r1")
        .promoted_everywhere("hello@r2")
        .promoted_everywhere("hello@r3");
    world.rollback("hello/production", None).expect("r3 -> r2");
    let second = world.rollback("hello/production", None).expect("said to be done");
    assert_eq!(second.events, []);
    assert!(second.lines[0].contains("--to"), "{second:?}");
    assert_eq!(shares(&world, "hello/production"), map(&[(2, "100%")]));
    world.rollback("hello/production", Some(r(1))).expect("by name");
    assert_eq!(shares(&world, "hello/production"), map(&[(1, "100%")]));
    let refusal = world.rollback("hello/production", Some(r(3))).expect_err("bad");
    assert!(refusal.to_string().contains("marked bad"), "{refusal}");
}

#[test]
fn rollback_needs_an_earlier_release() {
    let mut world = World::with_static_releases(1);
    assert!(world.rollback("hello/production", None).is_err());
    world = world.promoted_everywhere("hello@r1");
    assert!(world.rollback("hello/production", None).is_err());
}

#[test]
fn hostile_h86_two_releases_never_enter_one_stage() {
    let mut world = World::with_static_releases(3).promoted_everywhere("hello@r1");
    world.promote_down("hello@r2");
    world.promote_down("hello@r3");
    world.promote("hello@r2", "production", Some(share("1%"))).expect("canary");
    let refusal = world.promote("hello@r3", "production", Some(share("1%"))).expect_err("busy");
    assert!(refusal.to_string().contains("r2 is on its way"), "{refusal}");
}

#[test]
fn rollout_on_agents_starts_first_and_fails_by_its_deadline() {
    let mut world = World::with_built_releases(2);
    let refusal = world.promote("hello@r1", "dev", None).expect_err("nobody to run it");
    assert!(refusal.to_string().contains("pointsman join agent"), "{refusal}");
    world.join_agent("a1");
    world.promote("hello@r1", "dev", None).expect("starts");
    assert_eq!(shares(&world, "hello/dev"), map(&[]));
    world.run_due();
    assert_eq!(shares(&world, "hello/dev"), map(&[]), "not before it is healthy");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(shares(&world, "hello/dev"), map(&[(1, "100%")]));

    world.promote("hello@r2", "dev", None).expect("starts");
    world.pass_ms(decide::START_DEADLINE_MS);
    world.run_due();
    assert_eq!(shares(&world, "hello/dev"), map(&[(1, "100%")]), "the stage is untouched");
    assert!(world.state.stage(&stage("hello/dev")).expect("stage").entering.is_none());
}

/// The endpoints that proxies are told for a release.
fn endpoints(world: &World, name: &str, number: u32) -> usize {
    let resources = resources::of_stage(&world.state, &stage(name));
    let found = resources.iter().find(|r| r.kind == "endpoints" && r.name == format!("{name}/r{number}"));
    let decoded = found.map(|r| <api::fleet::Endpoints as prost::Message>::decode(&*r.body).expect("decodes"));
    decoded.map_or(0, |endpoints| endpoints.endpoints.len())
}

/// r1 serves in dev, on the agent a1.
fn on_an_agent() -> World {
    let mut world = World::with_built_releases(3);
    world.join_agent("a1");
    world.promote("hello@r1", "dev", None).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!((shares(&world, "hello/dev"), endpoints(&world, "hello/dev", 1)), (map(&[(1, "100%")]), 1));
    world
}

#[test]
fn rollback_of_a_release_that_never_started_does_not_make_it_warm() {
    let mut world = on_an_agent();
    world.promote("hello@r2", "dev", None).expect("starts, and crashes again and again");
    world.rollback("hello/dev", None).expect("cancelled");
    assert!(!world.state.stage(&stage("hello/dev")).expect("stage").is_warm(r(2)));
    assert!(!resources::of_stage(&world.state, &stage("hello/dev")).iter().any(|r| r.name.ends_with("/r2")));
    let again = world.promote("hello@r2", "dev", None).expect("it was not bad");
    assert!(matches!(again.events[..], [Event::Promoted { starting_until_ms: Some(_), .. }]), "{again:?}");
    world.run_due();
    assert_eq!(shares(&world, "hello/dev"), map(&[(1, "100%")]), "nothing goes where nobody answers");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!((shares(&world, "hello/dev"), endpoints(&world, "hello/dev", 2)), (map(&[(2, "100%")]), 1));
}

#[test]
fn rollback_of_a_fetch_back_does_not_make_its_release_warm() {
    let mut world = on_an_agent();
    world.promote("hello@r2", "dev", None).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    world.pass_ms(3_600_000);
    world.run_due();
    world.seen.drained.insert((stage("hello/dev"), r(1)));
    world.run_due();
    world.report_healthy("a1");
    for _ in 0..2 {
        let back = world.rollback("hello/dev", Some(r(1))).expect("needs a start");
        assert!(matches!(back.events[..], [Event::Promoted { starting_until_ms: Some(_), .. }]), "{back:?}");
        world.rollback("hello/dev", Some(r(2))).expect("cancelled");
        assert_eq!(shares(&world, "hello/dev"), map(&[(2, "100%")]));
    }
}

#[test]
fn a_warm_release_whose_agent_was_revoked_has_to_start_again() {
    let mut world = on_an_agent();
    world.promote("hello@r2", "dev", None).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.seen.agents.clear();
    assert!(world.rollback("hello/dev", None).is_err(), "there is no agent at all");
    world.join_agent("a2");
    let back = world.rollback("hello/dev", None).expect("needs a start");
    assert!(matches!(back.events[..], [Event::Promoted { starting_until_ms: Some(_), .. }]), "{back:?}");
}

#[test]
fn rollout_of_a_canary_whose_agent_was_revoked_goes_no_further() {
    let mut world = on_an_agent();
    world.promote("hello@r2", "dev", Some(share("10%"))).expect("starts");
    world.report_healthy("a1");
    world.run_due();
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    for more in ["11%", "100%"] {
        let refusal = world.weigh("hello/dev", more).expect_err("nobody would answer");
        assert!(refusal.to_string().contains("runs on no agent"), "{refusal}");
    }
    world.weigh("hello/dev", "1%").expect("less is always possible");
    world.join_agent("a1");
    world.report_healthy("a1");
    world.run_due();
    world.weigh("hello/dev", "100%").expect("it runs again");
}

#[test]
fn an_agent_that_joins_again_has_its_endpoints_again() {
    let mut world = on_an_agent();
    world.command(Command::RevokeMember { name: "a1".parse().expect("name") }, "").expect("revoked");
    world.seen.agents.clear();
    world.run_due();
    world.join_agent("a1");
    assert_eq!(endpoints(&world, "hello/dev", 1), 0, "not before it is healthy there");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(endpoints(&world, "hello/dev", 1), 1);
    let placed = world.log.iter().filter(|(event, _)| matches!(event, Event::Placed { .. }));
    assert_eq!(placed.count(), 2, "proxies are told by an event");
}

#[test]
fn a_release_that_no_agent_can_run_is_refused() {
    let run = |built: &mut command::Built| built.components.values_mut().for_each(|spec| spec.run.clear());
    let artifact = |built: &mut command::Built| {
        built.artifacts =
            [("notes".parse().expect("name"), built.artifacts.values().next().expect("one").clone())].into();
    };
    for spoil in [&run as &dyn Fn(&mut command::Built), &artifact] {
        let mut world = World::with_built_releases_of(1, spoil);
        world.join_agent("a1");
        let refusal = world.promote("hello@r1", "dev", None).expect_err("nothing could be routed to");
        assert!(refusal.to_string().contains("nothing that an agent could run"), "{refusal}");
    }
}

#[test]
fn a_warm_release_ends_in_its_time_and_only_then() {
    let mut world = World::with_two_of(2);
    let dev = stage("hello/dev");
    assert!(world.state.stage(&dev).expect("stage").is_warm(r(1)));
    world.pass_ms(3_599_000);
    world.run_due();
    assert!(world.state.stage(&dev).expect("stage").is_warm(r(1)));
    world.pass_ms(1_000);
    world.run_due();
    assert!(!world.state.stage(&dev).expect("stage").routed().contains(&r(1)));
    assert!(world.state.stage(&dev).expect("stage").running().contains(&r(1)), "drains first");
    world.seen.drained.insert((dev.clone(), r(1)));
    world.run_due();
    assert!(!world.state.stage(&dev).expect("stage").running().contains(&r(1)));

    let back = world.rollback("hello/dev", None).expect("needs a start");
    assert!(back.lines[0].contains("it needs about 1s to start (as long as last time)"), "{back:?}");
    world.report_healthy("a1");
    world.run_due();
    assert_eq!(shares(&world, "hello/dev"), map(&[(1, "100%")]));
}

#[test]
fn rollback_to_a_cold_release_says_how_long_it_needs() {
    for (r1_took, r2_took, expected) in [
        (
            Some(11_200),
            Some(3_000),
            "r1 is no longer warm in hello/dev: it needs about 12s to start (as long as last time)",
        ),
        (None, Some(3_000), "it needs about 3s to start (as long as r2); r2 serves until then"),
        (None, None, "it needs to start first, and nobody knows how long that takes; r2 serves until then"),
    ] {
        let mut world = World::with_built_releases(2);
        world.join_agent("a1");
        for (release, took_ms) in [("hello@r1", 11_200), ("hello@r2", 3_000)] {
            world.promote(release, "dev", None).expect("starts");
            world.pass_ms(took_ms);
            world.report_healthy("a1");
            world.run_due();
        }
        let (service, dev) = ("hello".parse().expect("name"), "dev".parse().expect("name"));
        let found = world.state.services.get_mut(&service).and_then(|service| service.stages.get_mut(&dev));
        let known = &mut found.expect("serves").start_took_ms;
        assert_eq!(known.values().copied().collect::<Vec<_>>(), [11_200, 3_000]);
        // What a release took that was started by an earlier controller is not known.
        for (number, took) in [(1, r1_took), (2, r2_took)] {
            if took.is_none() {
                known.remove(&r(number));
            }
        }
        let way = back::back(&world.state, &stage("hello/dev")).expect("a way back");
        assert_eq!((way.to, way.start), (r(1), None), "warm");
        world.pass_ms(3_600_000);
        world.run_due();
        let way = back::back(&world.state, &stage("hello/dev")).expect("a way back");
        assert_eq!(way.start.and_then(state::StartTakes::ms), r1_took.or(r2_took), "cold");
        let said = world.rollback("hello/dev", None).expect("fetched back");
        assert!(said.lines[0].contains(expected), "{said:?}");
    }
}

#[test]
fn builds_go_one_at_a_time_per_service() {
    let mut world = World::new(true);
    for commit in ["a", "b"] {
        let command = Command::Build {
            service: "hello".parse().expect("name"),
            wanted: wanted(&commit.repeat(40)),
            again: false,
        };
        world.command(command, "").expect("queued");
    }
    world.run_due();
    let builds = due(&world.state, &world.seen, world.now_ms).into_iter().filter_map(|due| match due {
        Due::Build(release) => Some(release.to_string()),
        Due::Command(_) | Due::Cancel(_) => None,
    });
    assert_eq!(builds.collect::<Vec<_>>(), ["hello@r1"]);
    world
        .command(
            Command::EndBuild { release: "hello@r1".parse().expect("name"), outcome: Err(failed("exit status 1")) },
            "",
        )
        .expect("failed");
    let refusal = world.promote("hello@r1", "dev", None).expect_err("failed");
    assert!(refusal.to_string().contains("not ready"), "{refusal}");
}

#[test]
fn applied_files_are_checked_together() {
    let world = World::new(false);
    let mut spec = world.state.services.values().next().expect("service").spec.clone();
    spec.stages.insert("moon".parse().expect("name"), Default::default());
    let mut environment = world.state.environments.values().next().expect("environment").clone();
    environment.name = "other".parse().expect("name");
    let command = Command::Apply {
        environments: vec![environment.clone(), environment],
        services: vec![spec],
        access: None,
        releases: None,
    };
    let Err(Refusal::Wrong(mistakes)) = decide(&world.state, &command, &world.context("")) else { panic!("applied") };
    assert!(mistakes.iter().any(|mistake| mistake.contains("no environment moon")), "{mistakes:?}");
    assert!(mistakes.iter().any(|mistake| mistake.contains("already belongs to")), "{mistakes:?}");
    assert!(mistakes.iter().any(|mistake| mistake.contains("more than once")), "{mistakes:?}");
}

#[test]
fn a_join_token_counts_once_and_in_time() {
    let mut world = World::new(true);
    let name: api::MemberName = "p1".parse().expect("name");
    let invite = Command::Invite {
        name: name.clone(),
        role: certs::fleet::Role::Proxy,
        group: String::new(),
        secret: api::Digest::of(b"s"),
        until_ms: world.now_ms + 1_000,
    };
    let join = Command::Join { name, serial: "01".into() };
    world.command(invite.clone(), "").expect("invited");
    world.pass_ms(1_001);
    assert!(world.command(join.clone(), "").expect_err("late").to_string().contains("expired"));
    let invite = match invite {
        Command::Invite { name, role, group, secret, .. } => {
            Command::Invite { name, role, group, secret, until_ms: world.now_ms + 1_000 }
        }
        other => other,
    };
    world.command(invite.clone(), "").expect("invited again");
    world.command(join.clone(), "").expect("joined");
    assert!(world.command(join, "").expect_err("twice").to_string().contains("used before"));
    assert!(world.command(invite, "").expect_err("taken").to_string().contains("already"));
}

#[test]
fn resources_are_a_function_of_the_state() {
    let mut world = World::with_static_releases(2).promoted_everywhere("hello@r1");
    let production = stage("hello/production");
    let before = resources::of_stage(&world.state, &production);
    assert_eq!(before.iter().map(|r| r.kind.as_str()).collect::<Vec<_>>(), ["endpoints", "split", "stage"]);
    world.promote_down("hello@r2");
    assert_eq!(resources::of_stage(&world.state, &production), before);
    world.promote("hello@r2", "production", Some(share("0.01%"))).expect("canary");
    let after = resources::of_stage(&world.state, &production);
    let split: api::fleet::Split =
        prost::Message::decode(&*after.iter().find(|r| r.kind == "split").expect("split").body).expect("decodes");
    let weights: Vec<_> = split.weights.iter().map(|weighted| (weighted.release, weighted.weight)).collect();
    assert_eq!(weights, [(1, 999_900), (2, 100)]);
}

#[test]
fn events_round_trip_through_their_text() {
    let world = World::with_static_releases(2).promoted_everywhere("hello@r1").promoted_everywhere("hello@r2");
    for (event, _) in &world.log {
        let text = serde_json::to_value(event).expect("writes");
        assert_eq!(text["kind"], event.kind());
        assert_eq!(&serde_json::from_value::<Event>(text).expect("reads"), event);
        assert!(!event.sentence().is_empty());
    }
    let kept = serde_json::to_vec(&world.state).expect("writes");
    assert_eq!(serde_json::from_slice::<State>(&kept).expect("reads"), world.state);
}

#[test]
fn proxies_are_told_only_what_they_accept() {
    // An old release may say what is refused today.
    let day = api::Span::from_ms(86_400_000).expect("a day");
    let mut world = World::with_static_releases(1).promoted_everywhere("hello@r1");
    let release = world.state.services.values_mut().next().expect("service").releases.values_mut().next();
    let release = release.expect("r1");
    release.components.values_mut().for_each(|spec| (spec.health.every, spec.health.timeout) = (day, day));
    release.addresses[0].addresses.push(([10, 0, 0, 1], 0).into());
    let resources = resources::of_stage(&world.state, &stage("hello/production"));
    assert_eq!(endpoints(&world, "hello/production", 1), 1, "nobody listens on port 0");
    let told = resources.iter().find(|r| r.kind == "stage").expect("stage");
    let told = <api::fleet::Stage as prost::Message>::decode(&*told.body).expect("decodes");
    let health = told.backends[0].health.as_ref().expect("health");
    assert_eq!((health.every_ms, health.timeout_ms), (3_600_000, 3_600_000));
}

#[test]
fn so_many_warm_releases_are_kept_and_the_oldest_end_first() {
    let count = 80;
    let mut world = World::with_static_releases(count);
    let dev = stage("hello/dev");
    for number in 1..=count {
        world.promote(&format!("hello@r{number}"), "dev", None).expect("promoted");
        let backends = resources::of_stage(&world.state, &dev).iter().filter(|r| r.kind == "endpoints").count();
        assert!(backends <= 64, "proxies accept 64 backends, not {backends}");
        world.run_due();
        world.pass_ms(1);
    }
    let found = world.state.stage(&dev).expect("stage");
    let warm: Vec<u32> = (1..=80).filter(|number| found.is_warm(r(*number))).collect();
    assert_eq!(warm, (48..80).collect::<Vec<_>>());
    // A store of before this was so.
    let stage = world.state.services.values_mut().next().expect("service").stages.get_mut(&dev.environment);
    let stage = stage.expect("stage");
    for number in 1..80 {
        stage.leaving.insert(r(number), state::Leaving::Warm { until_ms: 9_000_000 + u64::from(number) });
    }
    let told = resources::of_stage(&world.state, &dev);
    let names: Vec<&str> = told.iter().filter(|r| r.kind == "endpoints").map(|r| r.name.as_str()).collect();
    assert!(names.len() == 64 && names.contains(&"hello/dev/r80"), "{names:?}");
}

#[test]
fn an_override_is_told_by_a_proxy_of_the_fleet_about_a_stage_of_ours() {
    let mut world = World::with_static_releases(1).promoted_everywhere("hello@r1");
    let tell = |proxy: &str, stage: &str, until_ms: u64| Command::TellOverride {
        proxy: proxy.parse().expect("name"),
        stage: stage.parse().expect("stage"),
        release: Some(r(1)),
        until_ms,
    };
    assert!(world.command(tell("p1", "hello/dev", 9), "").is_err(), "nobody knows it");
    let invite = |role| Command::Invite {
        name: "p1".parse().expect("name"),
        role,
        group: "prod".into(),
        secret: api::Digest::of(b"s"),
        until_ms: u64::MAX,
    };
    let join = || Command::Join { name: "p1".parse().expect("name"), serial: "01".into() };
    world.command(invite(certs::fleet::Role::Agent), "").expect("invited");
    world.command(join(), "").expect("joined");
    assert!(world.command(tell("p1", "hello/dev", 9), "").is_err(), "it is an agent");
    world.command(Command::RevokeMember { name: "p1".parse().expect("name") }, "").expect("revoked");
    world.command(invite(certs::fleet::Role::Proxy), "").expect("invited");
    assert!(world.command(tell("p1", "hello/dev", 9), "").is_err(), "it was invited only");
    world.command(join(), "").expect("joined");
    assert!(world.command(tell("p1", "other/dev", 9), "").is_err(), "no such service");
    assert!(world.command(tell("p1", "hello/moon", 9), "").is_err(), "no such stage");
    let told = world.command(tell("p1", "hello/dev", 9), "").expect("told");
    assert!(matches!(told.events[..], [Event::OverrideTold { .. }]), "{told:?}");
    world.command(Command::RevokeMember { name: "p1".parse().expect("name") }, "").expect("revoked");
    assert!(world.command(tell("p1", "hello/dev", 10), "").is_err(), "it was revoked");
}

#[test]
fn a_reason_is_asked_for_wherever_it_is_required() {
    let mut world = World::with_static_releases(2).promoted_everywhere("hello@r1").promoted_everywhere("hello@r2");
    world.rollback("hello/production", None).expect("r2 is bad now");
    let mut production = world.state.environments[&"production".parse().expect("name")].clone();
    production.reason_required = true;
    let spec = world.state.services.values().next().expect("hello").spec.clone();
    let apply = |environments, services| Command::Apply { environments, services, access: None, releases: None };
    world.command(apply(vec![production.clone()], vec![]), "").expect("not required yet");

    let unhold = Command::Unhold { stage: stage("hello/production"), release: r(2) };
    assert!(world.command(unhold.clone(), " ").expect_err("no reason").to_string().contains("--reason"));
    world.command(unhold, "it was the database").expect("with a reason");

    // What changes nothing there needs none.
    world.command(apply(vec![production], vec![spec.clone()]), "").expect("nothing changes");
    let mut longer = spec;
    longer.stages.get_mut(&"dev".parse().expect("name")).expect("dev").keep_warm = Some(api::Span::MAX);
    world.command(apply(vec![], vec![longer.clone()]), "").expect("dev does not ask");
    let mut open = longer;
    open.stages.get_mut(&"production".parse().expect("name")).expect("production").from.clear();
    let refusal = world.command(apply(vec![], vec![open.clone()]), "").expect_err("no reason");
    assert!(refusal.to_string().contains("production asks for a reason"), "{refusal}");
    world.command(apply(vec![], vec![open]), "staging is gone").expect("with a reason");
}
