use api::operator::{ExplainPolicyRequest, GivenAttribute};
use policies::credential::denial::short_user;

use super::*;
use crate::core::evolve_test::World;
use crate::core::{Command, KeyMade, NewApplication};
use crate::keys::{EXPLAIN, Keys};

const ACCESS: &str = r#"schema = 1
policies = ["staff.cedar"]
[issuer.corp]
issuer = "https://login.example.com"
audience = ["pointsman"]
attributes = { department = { claim = "department", type = "string" }, level = { claim = "level", type = "long" } }
"#;
const STAFF: &str = r#"permit (principal in Group::"staff", action == Action::"discover", resource);
@id("reading")
permit (principal in Group::"staff", action == Action::"read", resource in Environment::"production");
permit (principal, action == Action::"write", resource)
  when { principal is User && principal has level && principal.level > 3 };
forbid (principal, action == Action::"write", resource) when { context.path == "/admin" };
permit (principal in Group::"testers", action == Action::"use", resource);
"#;

/// hello with a release in all stages, the policies, and the application batch; production says `explicit`.
fn world(explicit: bool) -> World {
    let mut world = World::with_static_releases(1).promoted_everywhere("hello@r1");
    let attached =
        |name: &str| (name == "staff.cedar").then_some(crate::files::Attached { name: "staff.cedar", text: STAFF });
    let read = crate::files::parse_with("access.toml", ACCESS, &attached);
    let Ok(crate::files::File::Access(access)) = read else { panic!("{read:?}") };
    let mut production = world.state.environments[&"production".parse().expect("name")].clone();
    if explicit {
        production.denial = crate::core::spec::Denial::Explicit;
    }
    let apply =
        Command::Apply { environments: vec![production], services: Vec::new(), access: Some(access), releases: None };
    world.command(apply, "").expect("applied");
    let key = KeyMade { id: "a".into(), sha256: api::Digest::of(b"a"), until_ms: None };
    let create = Command::CreateApplication {
        name: "batch".parse().expect("name"),
        new: NewApplication::default(),
        key: Some(key),
    };
    world.command(create, "").expect("made");
    world
}

fn alice(groups: &[&str]) -> ExplainPolicyRequest {
    ExplainPolicyRequest {
        stage: "hello/production".into(),
        issuer: "corp".into(),
        subject: "alice".into(),
        groups: groups.iter().map(ToString::to_string).collect(),
        application: "batch".into(),
        ..ExplainPolicyRequest::default()
    }
}

fn explained(world: &World, request: &ExplainPolicyRequest) -> api::operator::PolicyExplained {
    policy(&Ask::read(&world.state, request).expect("it can be asked"), 1_000_000).expect("an answer")
}

#[test]
fn explain_policy_says_what_decided_and_what_was_missing() {
    let level = |value: &str| vec![GivenAttribute { name: "level".into(), value: value.into() }];
    let nobody = ExplainPolicyRequest { stage: "hello/production".into(), ..ExplainPolicyRequest::default() };
    let table: Vec<(ExplainPolicyRequest, &str, &str, &str)> = vec![
        (alice(&["staff"]), "allowed: policies permit it", "discover+ read+", ""),
        (
            alice(&[]),
            "hidden: no policy lets the caller know of the stage",
            "discover-",
            "to User::\"corp/alice\" (in no group) through Application::\"batch\"",
        ),
        (nobody, "hidden: no policy lets the caller know of the stage", "discover-", "to Anonymous::\"anonymous\""),
        (
            ExplainPolicyRequest { application: String::new(), ..alice(&["staff"]) },
            "unauthenticated: no valid application",
            "discover+",
            "",
        ),
        (
            ExplainPolicyRequest { method: "POST".into(), ..alice(&["staff"]) },
            "forbidden: no policy lets the caller do this, or one forbids it",
            "discover+ write-",
            "no policy permits Action::\"write\" on Stage::\"hello/production\"",
        ),
        (
            ExplainPolicyRequest { method: "POST".into(), attributes: level("4"), ..alice(&["staff"]) },
            "allowed: policies permit it",
            "discover+ write+",
            "",
        ),
        (
            ExplainPolicyRequest {
                method: "POST".into(),
                path: "/admin?x=1".into(),
                attributes: level("4"),
                ..alice(&["staff"])
            },
            "forbidden: no policy lets the caller do this, or one forbids it",
            "discover+ write-",
            "write: forbidden by staff.cedar:6",
        ),
        (
            ExplainPolicyRequest { rpc: "pkg.Service/Method".into(), ..alice(&["staff"]) },
            "forbidden: no policy lets the caller do this, or one forbids it",
            "discover+ rpc-",
            "no policy permits Action::\"rpc\"",
        ),
        (
            ExplainPolicyRequest { upgrade: true, ..alice(&["staff"]) },
            "forbidden: no policy lets the caller do this, or one forbids it",
            "discover+ upgrade-",
            "no policy permits Action::\"upgrade\"",
        ),
        (
            ExplainPolicyRequest { release: 1, ..alice(&["staff"]) },
            "hidden: no policy lets the caller use this release by its own host, or one forbids it",
            "discover+ use-",
            "on Release::\"hello/production/r1\"",
        ),
        (
            ExplainPolicyRequest { release: 1, ..alice(&["staff", "testers"]) },
            "allowed: policies permit it",
            "discover+ use+ read+",
            "",
        ),
        (
            ExplainPolicyRequest { release: 9, ..alice(&["staff", "testers"]) },
            "hidden: the stage has no such release",
            "discover+",
            "",
        ),
    ];
    let world = world(true);
    for (request, verdict, asked, line) in table {
        let found = explained(&world, &request);
        let sign = |allowed| if allowed { '+' } else { '-' };
        let questions: Vec<_> =
            found.questions.iter().map(|one| format!("{}{}", one.action, sign(one.allowed))).collect();
        let said = format!("{}: {}", found.verdict, found.why);
        assert_eq!((said.as_str(), questions.join(" ").as_str()), (verdict, asked), "{request:?}");
        let lines = found.lines.join("\n");
        assert!(lines.contains(line) && lines.is_empty() == line.is_empty(), "{request:?}: {lines}");
    }
    let found = explained(&world, &alice(&["staff"]));
    let by: Vec<_> = found.questions.iter().flat_map(|one| one.policies.clone()).collect();
    assert_eq!(by, ["staff.cedar:1", "staff.cedar \"reading\""]);
    let hidden = explained(&self::world(false), &ExplainPolicyRequest { method: "POST".into(), ..alice(&["staff"]) });
    assert_eq!(hidden.verdict, "hidden", "the stage does not say so");
}

#[test]
fn explain_policy_refuses_what_nobody_could_ask() {
    let world = world(false);
    let of = |change: fn(&mut ExplainPolicyRequest)| {
        let mut request = alice(&["staff"]);
        change(&mut request);
        Ask::read(&world.state, &request).expect_err("refused").to_string()
    };
    for (said, expected) in [
        (of(|one| one.stage = "hello".into()), "accepted is"),
        (of(|one| one.stage = "hello/nowhere".into()), "there is no stage hello/nowhere"),
        (of(|one| one.issuer = "other".into()), "there is no issuer \"other\""),
        (of(|one| one.issuer.clear()), "groups and attributes are a user's"),
        (of(|one| one.subject.clear()), "a user has a subject"),
        (of(|one| one.application = "nobody".into()), "there is no application \"nobody\""),
        (of(|one| one.client = "here".into()), "\"here\" is no IP address"),
        (of(|one| one.rpc = "Method".into()), "accepted is \"pkg.Service/Method\""),
        (of(|one| one.path = "x".into()), "begins with \"/\""),
        (
            of(|one| one.attributes = vec![GivenAttribute { name: "level".into(), value: "high".into() }]),
            "\"high\" is not what the attribute \"level\" can be",
        ),
        (
            of(|one| one.attributes = vec![GivenAttribute { name: "colour".into(), value: "red".into() }]),
            "there is no attribute \"colour\"",
        ),
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let mut world = self::world(false);
    world.command(Command::RevokeApplication { name: "batch".parse().expect("name") }, "").expect("revoked");
    let said = Ask::read(&world.state, &alice(&["staff"])).expect_err("it is known by nothing any more").to_string();
    assert!(said.contains("there is no application \"batch\""), "{said}");
}

fn denial(stage: &str) -> Denial {
    Denial {
        at_ms: 1_772_366_400_000,
        stage: denial::short(stage),
        application: denial::short("batch"),
        user: short_user("corp", "alice"),
        why: Why::MayNotDiscover as u8,
        application_fault: 0,
        user_fault: 0,
    }
}

#[test]
fn explain_request_opens_what_a_proxy_sealed() {
    let (world, folder) = (world(false), tempfile::tempdir().expect("folder"));
    let mut keys = Keys::open(folder.path(), EXPLAIN).expect("none");
    keys.rotate(1_000).expect("drawn");
    let key = keys.current().expect("there").clone();
    let seal = Seal::new(key.name.clone().try_into().expect("8 bytes"), &key.key.try_into().expect("32 bytes"));
    let id = seal.seal(&denial("hello/production"), &[7; 16]);
    let id = std::str::from_utf8(&id).expect("text");
    let (found, own) = open(keys.keys(), id).expect("ours");
    let said = opened(&world.state, &found, &own, Some(("corp", "alice")));
    let decided = said.decided.clone().expect("what is known");
    assert_eq!(said.request_id, "07".repeat(16));
    assert_eq!((decided.stage.as_str(), decided.application.as_str()), ("hello/production", "batch"));
    assert_eq!((decided.issuer.as_str(), decided.subject.as_str(), decided.status), ("corp", "alice", 404));
    assert_eq!((said.is_user, decided.at_ms), (Some(true), 1_772_366_400_000));
    assert_eq!(
        said.lines,
        ["no policy lets the caller know of the stage", "application: batch, valid", "user: corp/alice, valid",]
    );
    let mut changed = id.to_owned();
    changed.replace_range(40..41, if &id[40..41] == "A" { "B" } else { "A" });
    assert!(open(keys.keys(), &changed).expect_err("changed").contains("was changed"));
    let elsewhere = Seal::new([1; 8], &[2; 32]).seal(&denial("hello/production"), &[7; 16]);
    let said = open(keys.keys(), std::str::from_utf8(&elsewhere).expect("text")).expect_err("not ours");
    assert!(said.contains("does not have"), "{said}");
    assert!(open(keys.keys(), "short").is_err() && open(keys.keys(), &"é".repeat(50)).is_err());
}

#[test]
fn explain_request_names_what_is_known_and_nothing_else() {
    let world = world(false);
    let said = |denial: &Denial, user| opened(&world.state, denial, &[0; 16], user);
    // Stages where nothing ever ran are known as well.
    let gone = said(&denial("shop/production"), None);
    assert_eq!(gone.decided.as_ref().expect("there").stage, "");
    assert!(gone.lines.iter().any(|line| line.contains("none that this controller knows")), "{:?}", gone.lines);
    assert!(gone.is_user.is_none() && gone.lines.iter().any(|line| line.contains("--user ISSUER/SUBJECT")));
    let other = said(&denial("hello/dev"), Some(("corp", "bob")));
    assert_eq!((other.is_user, other.decided.expect("there").subject.as_str()), (Some(false), ""));
    assert!(other.lines.iter().any(|line| line == "it was not the user corp/bob"), "{:?}", other.lines);
    let expired = Denial { user: 0, application: 0, user_fault: Fault::Expired as u8, ..denial("hello/dev") };
    let lines = said(&expired, None).lines;
    assert_eq!(lines[1..], ["application: none was presented", "user: the token has expired"]);
    let unknown = Denial { stage: 0, why: Why::UnknownHost as u8, ..denial("hello/dev") };
    assert_eq!(said(&unknown, None).lines[0], "no stage has this host");
    let later = Denial { why: 200, user_fault: 250, ..denial("hello/dev") };
    let lines = said(&later, None).lines;
    assert!(lines[0].contains("number 200") && lines[2].contains("number 250"), "{lines:?}");
}

#[test]
fn explain_has_a_sentence_for_every_way_in_which_a_request_ends() {
    for (number, one) in (0_u8..).zip(WHYS) {
        assert_eq!(one as u8, number);
        assert!(!one.to_string().is_empty());
    }
}
