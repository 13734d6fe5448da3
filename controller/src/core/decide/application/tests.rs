use api::Digest;

use super::*;
use crate::core::command::Command;
use crate::core::evolve_test::World;
use crate::core::spec::{AccessSpec, IssuerSpec, LEEWAY, REFRESH};

fn name(text: &str) -> MemberName {
    text.parse().expect("a name")
}

fn key(id: &str, until_ms: Option<u64>) -> KeyMade {
    KeyMade { id: id.into(), sha256: Digest::of(id.as_bytes()), until_ms }
}

fn access() -> AccessSpec {
    let corp = IssuerSpec {
        issuer: "https://login.example.com".into(),
        audiences: vec!["pointsman".into()],
        algorithms: Vec::new(),
        jwks: None,
        ca: None,
        leeway: LEEWAY,
        refresh: REFRESH,
        groups: Vec::new(),
        attributes: Default::default(),
    };
    AccessSpec { issuers: [(name("corp"), corp)].into(), ..AccessSpec::default() }
}

const DAY_MS: u64 = 86_400_000;

/// A world at 1,000,000 ms that knows the issuer corp.
fn world() -> World {
    let mut world = World::new(false);
    let apply =
        Command::Apply { environments: Vec::new(), services: Vec::new(), access: Some(access()), releases: None };
    world.command(apply, "").expect("applied");
    world
}

fn new(groups: &[&str], certificates: &[&str], clients: &[(&str, &str)]) -> NewApplication {
    NewApplication {
        groups: groups.iter().map(ToString::to_string).collect(),
        certificates: certificates.iter().map(ToString::to_string).collect(),
        clients: clients.iter().map(|(issuer, client)| (name(issuer), (*client).to_owned())).collect(),
    }
}

fn create(world: &mut World, of: &str, new: NewApplication, key: Option<KeyMade>) -> Result<Decision, String> {
    let command = Command::CreateApplication { name: name(of), new, key };
    world.command(command, "").map_err(|refusal| refusal.to_string())
}

fn rotate(world: &mut World, of: &str, key: KeyMade, overlap_ms: u64) -> Result<Decision, String> {
    let command = Command::RotateApplication { name: name(of), key, overlap_ms };
    world.command(command, "").map_err(|refusal| refusal.to_string())
}

/// The keys as proxies are told of them: first letter of the id, and until when.
fn told(world: &World, of: &str) -> Option<Vec<(char, u64)>> {
    use prost::Message;
    let resource = resources::access::of_application(&world.state, &name(of))?;
    assert_eq!(resource.schema, api::SCHEMA_ACCESS);
    let message = api::fleet::Application::decode(&*resource.body).expect("an application");
    let letter = |key: &api::fleet::ApiKey| {
        let found =
            ('a'..='z').find(|letter| Digest::of(letter.to_string().as_bytes()).as_bytes()[..] == key.sha256[..]);
        (found.expect("one of ours"), key.until_ms)
    };
    Some(message.keys.iter().map(letter).collect())
}

#[test]
fn app_keys_rotate_with_an_overlap_and_end_by_themselves() {
    let mut world = world();
    create(&mut world, "batch", new(&["partners"], &[], &[]), Some(key("a", None))).expect("made");
    assert_eq!(told(&world, "batch"), Some(vec![('a', 0)]));
    rotate(&mut world, "batch", key("b", Some(9_000_000)), 500_000).expect("rotated");
    assert_eq!(told(&world, "batch"), Some(vec![('a', 1_500_000), ('b', 9_000_000)]));
    // A longer overlap never makes a key count longer than was said.
    rotate(&mut world, "batch", key("c", None), 900_000).expect("rotated");
    assert_eq!(told(&world, "batch"), Some(vec![('a', 1_500_000), ('b', 1_900_000), ('c', 0)]));
    world.run_due();
    assert_eq!(told(&world, "batch").expect("there").len(), 3, "nothing is over yet");
    world.pass_ms(499_999);
    world.run_due();
    assert_eq!(told(&world, "batch").expect("there").len(), 3, "a millisecond before");
    world.pass_ms(1);
    world.run_due();
    assert_eq!(told(&world, "batch").expect("there").len(), 3, "proxies know themselves that it is over");
    world.pass_ms(DAY_MS - 1);
    world.run_due();
    assert_eq!(told(&world, "batch").expect("there").len(), 3, "kept for a day");
    world.pass_ms(1);
    world.run_due();
    assert_eq!(told(&world, "batch"), Some(vec![('b', 1_900_000), ('c', 0)]));
    assert_eq!(world.log.last().map(|(event, _)| event.kind()), Some("application_keys_ended"));
    world.pass_ms(1_000_000);
    world.run_due();
    assert_eq!(told(&world, "batch"), Some(vec![('c', 0)]));
    let events = world.log.len();
    world.run_due();
    assert_eq!(world.log.len(), events, "nothing more is due");
    rotate(&mut world, "batch", key("d", None), 0).expect("at once");
    assert_eq!(told(&world, "batch"), Some(vec![('d', 0)]));
}

#[test]
fn app_is_known_by_nothing_once_it_is_revoked() {
    let mut world = world();
    let by = new(&[], &["spiffe://example.com/batch"], &[("corp", "abc")]);
    create(&mut world, "batch", by.clone(), Some(key("a", None))).expect("made");
    let revoke = Command::RevokeApplication { name: name("batch") };
    world.command(revoke.clone(), "").expect("revoked");
    assert_eq!(told(&world, "batch"), None);
    assert!(world.state.applications[&name("batch")].keys.is_empty());
    assert_eq!(world.command(revoke, "").expect("said").events, [], "once is enough");
    assert!(rotate(&mut world, "batch", key("b", None), 0).expect_err("gone").contains("app create batch"));
    // Its name, certificate and client are free again.
    create(&mut world, "other", by.clone(), None).expect("made");
    let said = create(&mut world, "batch", by, Some(key("c", None))).expect_err("they stand for other now");
    assert!(said.contains("stands for other already"), "{said}");
    create(&mut world, "batch", new(&[], &[], &[]), Some(key("c", None))).expect("made anew");
    assert_eq!(told(&world, "batch"), Some(vec![('c', 0)]));
    let unknown = Command::RevokeApplication { name: name("nobody") };
    assert!(matches!(world.command(unknown, ""), Err(Refusal::Unknown(_))));
}

#[test]
fn app_that_nobody_could_be_is_refused() {
    let mut world = world();
    create(&mut world, "taken", new(&[], &["a.example.com"], &[("corp", "abc")]), Some(key("z", None))).expect("made");
    let long = "g".repeat(256);
    let many: Vec<String> = (0..65).map(|number| format!("g{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let key = || Some(key("a", None));
    for (new, key, expected) in [
        (new(&[], &[], &[]), None, "batch could show nothing"),
        (new(&[], &[], &[("elsewhere", "abc")]), key(), "there is no issuer elsewhere: apply an access file"),
        (new(&[""], &[], &[]), key(), "\"\" is not the name of a group: accepted are 1 to 255 bytes"),
        (new(&[&long], &[], &[]), key(), "is not the name of a group"),
        (new(&many, &[], &[]), key(), "--group is given 65 times: accepted are 64"),
        (new(&["a\nb"], &[], &[]), key(), "without control characters"),
        (new(&[], &["not a name"], &[]), key(), "\"not a name\" is no name that a certificate can have"),
        (new(&[], &["spiffe://"], &[]), key(), "is no name that a certificate can have"),
        (new(&[], &["A.EXAMPLE.COM"], &[]), key(), "accepted is a URI or a DNS name"),
        (new(&[], &["a.example.com"], &[]), key(), "stands for taken already"),
        (new(&[], &[], &[("corp", "abc")]), key(), "stands for taken already"),
        (new(&[], &[], &[]), Some(self::key("a", Some(1_000_000))), "has ended already"),
    ] {
        let said = create(&mut world, "batch", new.clone(), key).expect_err(expected);
        assert!(said.contains(expected), "{new:?}: {said}");
    }
    assert!(create(&mut world, "taken", new(&["g"], &[], &[]), key()).expect_err("taken").contains("app rotate taken"));
}

#[test]
fn app_keys_are_not_made_without_end() {
    let mut world = world();
    create(&mut world, "batch", new(&[], &[], &[]), Some(key("a", None))).expect("made");
    for letter in 'b'..='h' {
        rotate(&mut world, "batch", key(&letter.to_string(), None), 1_000).expect("rotated");
    }
    let said = rotate(&mut world, "batch", key("i", None), 1_000).expect_err("too many");
    assert!(said.contains("8 keys that count") && said.contains("--overlap 0s"), "{said}");
    rotate(&mut world, "batch", key("i", None), 0).expect("all others end");
    assert_eq!(told(&world, "batch").expect("there").len(), 1);
}

#[test]
fn access_is_applied_whole_and_once() {
    let mut world = world();
    let apply = |access| Command::Apply {
        environments: Vec::new(),
        services: Vec::new(),
        access: Some(access),
        releases: None,
    };
    assert_eq!(world.command(apply(access()), "").expect("the same").events, []);
    let policies = [("staff.cedar".to_owned(), "permit (principal, action, resource);".to_owned())];
    let spec = AccessSpec { documents: policies.into(), ..AccessSpec::default() };
    let decision = world.command(apply(spec.clone()), "").expect("other");
    assert!(matches!(&decision.events[..], [Event::AccessApplied { .. }]), "{decision:?}");
    assert_eq!(world.state.access, spec, "issuers that it does not name are gone");
    // As it is kept and read again.
    let kept = serde_json::to_string(&decision.events[0]).expect("written");
    assert_eq!(serde_json::from_str::<Event>(&kept).expect("read"), decision.events[0]);
    let mut strict = world.state.environments[&"production".parse().expect("name")].clone();
    strict.reason_required = true;
    let environments = vec![strict];
    world
        .command(Command::Apply { environments, services: Vec::new(), access: None, releases: None }, "why")
        .expect("applied");
    let said = world.command(apply(access()), "").expect_err("no reason").to_string();
    assert!(said.contains("production asks for a reason"), "{said}");
    world.command(apply(access()), "because").expect("with one");
}

#[test]
fn access_keeps_the_issuers_that_applications_are_known_by() {
    let mut world = world();
    let apply = |access| Command::Apply {
        environments: Vec::new(),
        services: Vec::new(),
        access: Some(access),
        releases: None,
    };
    for of in ["batch", "web"] {
        create(&mut world, of, new(&[], &[], &[("corp", of)]), Some(key(of, None))).expect("made");
    }
    create(&mut world, "plain", new(&[], &[], &[]), Some(key("p", None))).expect("made");
    let mut moved = access();
    moved.issuers.get_mut(&name("corp")).expect("there").issuer = "https://elsewhere.example.com".into();
    for (changed, expected) in [
        (AccessSpec::default(), "[issuer.corp] cannot be left out"),
        (moved.clone(), "[issuer.corp] cannot become https://elsewhere.example.com"),
    ] {
        let said = world.command(apply(changed), "why").expect_err(expected).to_string();
        assert!(said.contains(expected) && said.contains("(batch, web)"), "{said}");
        assert!(said.contains("`pointsman app revoke NAME`"), "{said}");
    }
    let mut later = access();
    later.issuers.get_mut(&name("corp")).expect("there").audiences = vec!["other".into()];
    world.command(apply(later), "").expect("the same issuer with other settings");
    for of in ["batch", "web"] {
        world.command(Command::RevokeApplication { name: name(of) }, "").expect("revoked");
    }
    world.command(apply(moved), "").expect("who is revoked does not count");
    world.command(apply(AccessSpec::default()), "").expect("nobody needs it any more");
}

#[test]
fn app_changes_ask_for_a_reason_where_an_environment_does() {
    let mut world = world();
    create(&mut world, "batch", new(&[], &[], &[]), Some(key("a", None))).expect("nobody asks for a reason");
    let mut strict = world.state.environments[&"production".parse().expect("name")].clone();
    strict.reason_required = true;
    let apply = Command::Apply { environments: vec![strict], services: Vec::new(), access: None, releases: None };
    world.command(apply, "why").expect("applied");
    let unknown = Command::RevokeApplication { name: name("nobody") };
    assert!(matches!(world.command(unknown, ""), Err(Refusal::Unknown(_))));
    let made = Some(key("c", None));
    for command in [
        Command::CreateApplication { name: name("other"), new: new(&[], &[], &[]), key: made },
        Command::RotateApplication { name: name("batch"), key: key("b", Some(1_200_000)), overlap_ms: 100_000 },
        Command::RevokeApplication { name: name("other") },
    ] {
        let said = world.command(command.clone(), " ").expect_err("no reason").to_string();
        assert!(said.contains("production asks for a reason: add --reason"), "{command:?}: {said}");
        world.command(command, "because").expect("with one");
    }
    world.pass_ms(2 * DAY_MS);
    world.run_due();
    assert_eq!(told(&world, "batch"), Some(vec![]), "what the controller does itself needs none");
}

#[test]
fn app_beyond_what_proxies_accept_is_refused() {
    let mut world = world();
    create(&mut world, "batch", new(&[], &[], &[]), Some(key("a", None))).expect("made");
    let one = Application { keys: Vec::new(), ..world.state.applications[&name("batch")].clone() };
    let gone = Application { revoked: true, ..one.clone() };
    world.state.applications.insert(name("gone"), gone);
    for number in 2..api::APPLICATIONS_MOST {
        world.state.applications.insert(name(&format!("a{number}")), one.clone());
    }
    create(&mut world, "last", new(&[], &[], &[]), Some(key("b", None)))
        .expect("just as many; revoked ones do not count");
    let said = create(&mut world, "more", new(&[], &[], &[]), Some(key("c", None))).expect_err("too many");
    assert!(said.contains("100000 applications") && said.contains("app revoke"), "{said}");
}
