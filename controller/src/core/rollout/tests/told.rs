//! What proxies are told of a rollout, and what is read of old.

use api::fleet::{self, sticky};
use prost::Message;

use super::*;
use crate::core::resources;

pub(super) fn split(world: &World) -> (u32, fleet::Split) {
    let all = resources::of_stage(&world.state, &name());
    let found = all.iter().find(|resource| resource.kind == "split").expect("a split");
    (found.schema, fleet::Split::decode(&*found.body).expect("decodes"))
}

fn insiders(value: &str) -> Option<Insiders> {
    Some(Insiders { header: "x-insider".into(), value: value.into() })
}

#[test]
fn rollout_is_told_to_proxies_with_its_guard() {
    let mut spec = canary(vec![to("10%"), to("100%")]);
    spec.failure_header = Some("x-app-failed".into());
    spec.bounds.slow = Some(span("300ms"));
    spec.objective = Some(objective(Breach::Ask));
    let mut world = world(spec);
    assert_eq!(split(&world).1.guard, None, "nothing is under way");
    world.promote("hello@r2", "production", None).expect("enters");
    let (schema, told) = split(&world);
    assert_eq!((schema, &told.sticky, told.rules.len()), (1, &None, 0), "older proxies count as before");
    let guard = told.guard.expect("a guard");
    assert_eq!((guard.rollout, guard.canary, guard.stable), (world.rollout().number, 2, 1));
    assert_eq!((guard.slow_us, guard.failure_header.as_str()), (300_000, "x-app-failed"));
    let tripwire = guard.tripwire.expect("a tripwire");
    assert!(tripwire.failures > 0 && tripwire.failures <= tripwire.among && tripwire.among <= api::TRIPWIRE_MOST);

    world.see(PRODUCTION, no_worse(9));
    let (_, told) = split(&world);
    let after = told.guard.expect("the objective's");
    assert!(after.rollout > guard.rollout);
    assert_eq!((after.canary, after.stable, after.slow_us, after.tripwire), (2, 0, 300_000, None));
    world.pass_ms(3_600_000);
    world.run_due();
    assert_eq!(split(&world).1.guard, None, "the release before is warm no more");
}

#[test]
fn rollout_tells_proxies_which_callers_keep_their_release() {
    for (sticky, by, cookie) in
        [(Sticky::Identity, sticky::By::Identity, ""), (Sticky::Cookie, sticky::By::Cookie, "pointsman-place")]
    {
        let mut world = entering(RolloutSpec {
            sticky,
            on_worse: OnWorse::Freeze,
            ..canary(vec![to("10%"), to("20%"), to("100%")])
        });
        let told = |world: &World| {
            let (schema, told) = split(world);
            assert_eq!(schema, api::SCHEMA_ROLLOUT, "one that passed over it would deal callers out anew");
            told.sticky.expect("sticky")
        };
        let first = told(&world);
        assert_eq!((first.by(), first.cookie.as_str(), first.key.len()), (by, cookie, 16));
        assert_eq!(first.order, [2, 1], "a growing share only moves callers to the one that enters");
        // Neither a step, nor a number of its own, nor a weight by hand deals them out anew.
        world.see(PRODUCTION, no_worse(9));
        assert_eq!(told(&world), first);
        world.see(PRODUCTION, worse);
        world.resume().expect("goes on");
        assert_eq!(told(&world), first);
        world.weigh(PRODUCTION, "30%").expect("by hand");
        assert_eq!(told(&world), first);
        world.abort(false).expect("aborted");
        assert_eq!(split(&world).1.sticky, None, "one release has everything");
        world.promote("hello@r3", "production", None).expect("the next");
        assert_ne!(told(&world).key, first.key, "others are first");
    }
}

#[test]
fn rollout_lets_insiders_in_and_keeps_them() {
    let first = Step { insiders: insiders("yes"), pause: true, ..Step::default() };
    let second = Step { insiders: insiders("maybe"), ..to("10%") };
    let mut world = entering(canary(vec![first, second, to("20%"), to("100%")]));
    let told = |world: &World| {
        let (schema, told) = split(world);
        let rules: Vec<_> = told.rules.into_iter().map(|rule| (rule.name, rule.value, rule.release)).collect();
        (schema, rules)
    };
    let rule = |value: &str| ("x-insider".to_owned(), value.to_owned(), 2);
    assert_eq!(told(&world), (api::SCHEMA_ROLLOUT, vec![rule("yes")]));
    assert_eq!(split(&world).1.weights.len(), 1, "nobody else");
    world.resume().expect("resumed");
    assert_eq!(told(&world).1, [rule("yes"), rule("maybe")]);
    world.see(PRODUCTION, no_worse(9));
    world.weigh(PRODUCTION, "5%").expect("by hand");
    assert_eq!(told(&world).1, [rule("yes"), rule("maybe")], "whoever was let in stays in");
    world.abort(false).expect("aborted");
    assert_eq!(told(&world), (1, vec![]));
}

#[test]
fn rollout_has_no_more_rules_than_proxies_accept() {
    let step = |number: usize| Step { insiders: insiders(&number.to_string()), pause: true, ..Step::default() };
    let mut steps: Vec<_> = (0..40).map(step).collect();
    steps.push(to("100%"));
    let mut world = entering(canary(steps));
    for _ in 0..39 {
        world.resume().expect("resumed");
    }
    let rules = split(&world).1.rules;
    assert_eq!((rules.len(), rules[15].value.as_str()), (api::HEADER_RULES_MOST, "39"));
}

#[test]
fn rollout_events_of_old_are_read_and_go_on_by_hand() {
    let read = |text: &str| serde_json::from_str::<Event>(text).expect("reads");
    let stage = r#""stage":"hello/production""#;
    let mut world = world(canary(vec![to("10%"), to("100%")]));
    let all = [
        format!(
            r#"{{"kind":"promoted",{stage},"release":2,"share":"5%","starting_until_ms":null,"rollback":false,"bypass":false}}"#
        ),
        format!(r#"{{"kind":"share_set",{stage},"release":2,"share":"5%"}}"#),
    ];
    for text in all {
        let text =
            text.replace(r#""release":2"#, &format!(r#""release":{}"#, serde_json::to_string(&r(2)).expect("writes")));
        let mark = crate::core::Mark { seq: 0, at_ms: world.now_ms, by: "test", reason: "", request: "" };
        world.state.evolve(&read(&text), mark);
    }
    assert!(world.entering().rollout.is_none());
    world.run_due();
    assert_eq!(split(&world).1.guard, None);
    for answer in [world.pause(), world.resume(), world.skip()] {
        says(&answer, "r2 enters hello/production by hand");
    }
    says(&world.promote("hello@r2", "production", None), "on its way into hello/production for 5% already");
    world.weigh(PRODUCTION, "20%").expect("as ever");
    world.weigh(PRODUCTION, "100%").expect("as ever");
    assert!(world.is_stable(2) && world.watching().is_none());

    let release = serde_json::to_string(&r(2)).expect("writes");
    for text in [
        format!(r#"{{"kind":"completed",{stage},"release":{release},"warm_until_ms":5}}"#),
        format!(r#"{{"kind":"rolled_back",{stage},"from":{release},"to":{release},"warm_until_ms":5,"bad":true}}"#),
    ] {
        assert!(!read(&text).sentence().is_empty());
    }
}

#[test]
fn rollout_state_round_trips_at_every_event() {
    let mut spec = blue_green(true, Some("10m"));
    spec.objective = Some(objective(Breach::Ask));
    spec.on_worse = OnWorse::Freeze;
    spec.meanwhile = Meanwhile::Queue;
    let mut world = entering(spec);
    world.promote("hello@r3", "production", None).expect("waits");
    world.see(PRODUCTION, worse);
    let check = |world: &World| {
        let kept = serde_json::to_vec(&world.state).expect("writes");
        assert_eq!(serde_json::from_slice::<State>(&kept).expect("reads"), world.state);
    };
    check(&world);
    world.resume().expect("goes on");
    world.skip().expect("flips");
    check(&world);
    for (event, _) in &world.log {
        let text = serde_json::to_value(event).expect("writes");
        assert_eq!(text["kind"], event.kind());
        assert_eq!(&serde_json::from_value::<Event>(text).expect("reads"), event);
        assert!(event.sentence().contains(' '), "{event:?}");
    }
}
