use api::Version;
use api::fleet::{HeaderRule as Told, Rejection, Resource, Split as Body, Sticky as Kept, WeightedRelease};

use super::*;
use crate::snapshot::{Compiler, Stage, fixture};
use crate::sticky::{Name, Token};

const STAGE: &str = "hello/staging";

fn rule(name: &str, value: &str, release: u32) -> Told {
    Told { name: name.into(), value: value.into(), release }
}

fn by_identity(order: &[u32]) -> Kept {
    Kept { by: sticky::By::Identity.into(), key: vec![7; 16], order: order.to_vec(), cookie: String::new() }
}

fn by_cookie(cookie: &str) -> Kept {
    Kept { by: sticky::By::Cookie.into(), cookie: cookie.into(), ..by_identity(&[]) }
}

fn split(weights: &[(u32, u32)], sticky: Option<Kept>, rules: Vec<Told>) -> Resource {
    let weights = weights.iter().map(|(release, weight)| WeightedRelease { release: *release, weight: *weight });
    let body = Body { weights: weights.collect(), sticky, rules, guard: None };
    Resource { schema: api::SCHEMA_ROLLOUT, ..fixture::resource("split", STAGE, &body) }
}

fn apply(compiler: &mut Compiler, number: u64, split: Resource) -> Result<(), Vec<Rejection>> {
    let state = [fixture::stage(STAGE, &[40, 41, 42, 43]), split];
    compiler.apply(fixture::full(Version { term: 1, number }, &state)).map(drop)
}

fn stage(compiler: &Compiler) -> &Stage {
    compiler.snapshot().stage_named(STAGE).expect("there")
}

/// The releases at so many places, spread evenly.
fn releases(stage: &Stage, places: u64) -> Vec<u32> {
    let sticky = stage.sticky.as_ref().expect("callers keep theirs");
    let at = |n: u64| sticky.at(u64::MAX / places * n + u64::MAX / places / 2).expect("somebody's");
    (0..places).map(|n| stage.backends[at(n)].release).collect()
}

#[test]
fn hostile_h80_a_split_that_leads_callers_nowhere_is_refused_whole() {
    let long = "x".repeat(257);
    let key = |bytes: usize| Kept { key: vec![7; bytes], ..by_identity(&[]) };
    let by = |by: i32| Kept { by, ..by_identity(&[]) };
    let sticky = |sticky: Kept| (Some(sticky), Vec::new());
    let rules = |name: &str, value: &str, release: u32| (None, vec![rule("x-a", "1", 41), rule(name, value, release)]);
    let mut cases = vec![
        (sticky(by(0)), "sticky.by", "0 is none of"),
        (sticky(by(3)), "sticky.by", "3 is none of"),
        (sticky(by(-1)), "sticky.by", "-1 is none of"),
        (sticky(key(0)), "sticky.key", "has 0 bytes, not 16"),
        (sticky(key(15)), "sticky.key", "has 15 bytes"),
        (sticky(key(17)), "sticky.key", "has 17 bytes"),
        (sticky(by_identity(&[41, 42, 41])), "sticky.order[2]", "41 is 0 or stands twice"),
        (sticky(by_identity(&[0])), "sticky.order[0]", "0 is 0 or"),
        (sticky(by_identity(&(1..=1_025).collect::<Vec<_>>())), "sticky.order", "there are 1025"),
        ((None, vec![rule("x-a", "1", 41); 17]), "rules", "there are 17, at most 16"),
        (rules("x-b", "", 41), "rules[1].value", "\"\" is not 1 to 256"),
        (rules("x-b", &long, 41), "rules[1].value", "is not 1 to 256"),
        (rules("x-b", "a\r\nhost: b", 41), "rules[1].value", "printable ASCII"),
        (rules("x-b", "caf\u{e9}", 41), "rules[1].value", "printable ASCII"),
        (rules("x-b", "\t", 41), "rules[1].value", "printable ASCII"),
        (rules("x-b", "1", 44), "rules[1].release", "r44 is no backend"),
        (rules("x-b", "1", 0), "rules[1].release", "r0 is no backend"),
        (rules(&long, "1", 41), "rules[1].name", "is not a header's name"),
    ];
    for cookie in ["", "a b", "a=b", "a;b", "a,b", "caf\u{e9}", "a\r\n", &long] {
        cases.push((sticky(by_cookie(cookie)), "sticky.cookie", "is not a cookie's name"));
    }
    for name in ["", "X-Insider", "x insider", "x-insider:", "x\r\n", "caf\u{e9}", ":path", "x\0"] {
        cases.push((rules(name, "1", 41), "rules[1].name", "is not a header's name"));
    }
    for name in ["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"] {
        cases.push((rules(name, "1", 41), "rules[1].name", "that frames"));
    }
    for name in ["authorization", "proxy-authorization", "cookie", "x-api-key", "x-pointsman-", "x-pointsman-release"] {
        cases.push((rules(name, "1", 41), "rules[1].name", "or that is ours"));
    }
    let mut compiler = Compiler::default();
    let good = || split(&[(41, 1), (42, 1)], Some(by_identity(&[42])), vec![rule("x-insider", "yes", 42)]);
    apply(&mut compiler, 1, good()).expect("good");
    for ((sticky, rules), field, reason) in cases {
        let refused = apply(&mut compiler, 2, split(&[(41, 1)], sticky, rules)).expect_err(field);
        let [Rejection { resource, field: at, reason: why }] = &refused[..] else { panic!("{field}: {refused:?}") };
        assert_eq!((resource.as_str(), at.as_str()), ("split hello/staging", field));
        assert!(why.contains(reason), "{why}");
        let stage = stage(&compiler);
        assert_eq!((stage.rules.len(), releases(stage, 2)), (1, vec![42, 41]), "what was there serves on: {field}");
    }
    // All at once; and what is right is still taken.
    let (sticky, rules) = (Kept { key: vec![], ..by_cookie("") }, vec![rule("Host", "", 9), rule("te", "", 41)]);
    let refused = apply(&mut compiler, 2, split(&[(41, 1)], Some(sticky), rules)).expect_err("refused");
    assert_eq!(refused.len(), 7, "{refused:#?}");
    apply(&mut compiler, 2, good()).expect("good");
}

#[test]
fn sticky_longest_and_oddest_of_what_is_accepted() {
    let name = "!#$%&'*+-.^_`|~09az";
    let long = "x".repeat(256);
    let mut rules = vec![rule(name, " ~", 41), rule(&long, &long, 43)];
    rules.resize(16, rule("x-tenant", "192.0.2.7", 42));
    for sticky in [by_cookie(&long), by_cookie("__Host-Release"), by_identity(&(1..=1_024).collect::<Vec<_>>())] {
        let mut compiler = Compiler::default();
        apply(&mut compiler, 1, split(&[(41, 1)], Some(sticky), rules.clone())).expect("good");
        assert_eq!(stage(&compiler).rules.len(), 16);
        assert_eq!(
            stage(&compiler).rules[1],
            HeaderRule { name: (*long).into(), value: (*long).as_bytes().into(), backend: 3 }
        );
    }
}

#[test]
fn sticky_releases_share_the_range_in_the_order_that_is_told_then_by_number() {
    let quarters: &[(u32, u32)] = &[(43, 1), (42, 1), (41, 1), (40, 1)];
    for (weights, order, shared) in [
        (quarters, &[][..], [40, 41, 42, 43]),
        (quarters, &[42], [42, 40, 41, 43]),
        (quarters, &[43, 41], [43, 41, 40, 42]),
        (quarters, &[43, 42, 41, 40], [43, 42, 41, 40]),
        // Without weight, or gone.
        (&[(40, 1), (41, 0), (42, 3)], &[41, 99, 42], [42, 42, 42, 40]),
        (&[(40, 0), (41, 1), (42, 0)], &[42], [41; 4]),
        (&[(40, 3), (43, 1)], &[43], [43, 40, 40, 40]),
    ] {
        let mut compiler = Compiler::default();
        apply(&mut compiler, 1, split(weights, Some(by_identity(order)), vec![])).expect("good");
        assert_eq!(releases(stage(&compiler), 4), shared, "{weights:?} {order:?}");
    }
}

#[test]
fn sticky_and_rules_give_way_to_an_override() {
    let mut compiler = Compiler::default();
    let told = split(&[(41, 1), (42, 1)], Some(by_identity(&[42])), vec![rule("x-insider", "yes", 42)]);
    apply(&mut compiler, 1, told).expect("good");
    compiler.set_override(STAGE, Some(43));
    let stage_now = stage(&compiler);
    assert_eq!((stage_now.overridden, releases(stage_now, 2)), (Some(43), vec![43, 43]));
    compiler.set_override(STAGE, None);
    assert_eq!((stage(&compiler).overridden, releases(stage(&compiler), 2)), (None, vec![42, 41]));
}

#[test]
fn sticky_and_rules_come_and_go_without_a_new_split() {
    let mut compiler = Compiler::default();
    let weights: &[(u32, u32)] = &[(41, 3), (42, 1)];
    apply(&mut compiler, 1, split(weights, None, vec![])).expect("good");
    let (slot, generation) = (stage(&compiler).slot, stage(&compiler).generation);
    assert!(stage(&compiler).sticky.is_none() && stage(&compiler).rules.is_empty());
    let told = split(weights, Some(by_cookie("release")), vec![rule("x-insider", "yes", 40), rule("x-b", "1", 42)]);
    apply(&mut compiler, 2, told).expect("good");
    let now = stage(&compiler);
    assert_eq!((now.slot, now.generation), (slot, generation), "who is nobody goes on in turn");
    assert_eq!(now.rules.iter().map(|rule| rule.backend).collect::<Vec<_>>(), [0, 2], "also one without weight");
    let sticky = now.sticky.as_ref().expect("callers keep theirs");
    assert_eq!(sticky.by, By::Cookie("release".into()));
    assert!(sticky.of(Name::Token(&Token::new([1; 16]))).is_some());
    // A release to which a rule leads cannot go.
    let state = [fixture::stage(STAGE, &[41, 42]), split(weights, None, vec![rule("x-insider", "yes", 40)])];
    let refused = compiler.apply(fixture::full(Version { term: 1, number: 3 }, &state)).expect_err("refused");
    assert_eq!((refused.len(), refused[0].field.as_str()), (1, "rules[0].release"));
    apply(&mut compiler, 3, split(&[], Some(by_identity(&[42])), vec![])).expect("good");
    let nobodys = stage(&compiler).sticky.as_ref().expect("callers would keep theirs");
    assert_eq!(nobodys.of(Name::Application("batch")), None, "nothing has weight");
}
