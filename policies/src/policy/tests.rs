//! Policies as they are written, against questions as they are asked.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::credential::{Application, Attribute, Standing, User};

fn document(name: &str, text: &str) -> Document {
    Document { name: name.to_owned(), text: text.to_owned() }
}

fn read(text: &str) -> Policies {
    read_all(&[document("staff.cedar", text)], None)
}

fn read_all(documents: &[Document], entities: Option<&str>) -> Policies {
    Policies::read(documents, entities, &attributes(), None).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn attributes() -> AttributeTypes {
    use api::fleet::claim_attribute::Type;
    let types = [("department", Type::String), ("level", Type::Long), ("intern", Type::Bool), ("sites", Type::Strings)];
    types.into_iter().map(|(name, of_type)| (name.to_owned(), of_type)).collect()
}

fn problems(text: &str) -> Vec<Problem> {
    Policies::read(&[document("staff.cedar", text)], None, &attributes(), None).expect_err("something is wrong")
}

fn user(groups: &[&str]) -> User {
    User {
        issuer: "corp".into(),
        subject: "alice".to_owned(),
        client: None,
        groups: groups.iter().map(|group| Arc::from(*group)).collect(),
        attributes: BTreeMap::new(),
        until_s: 0,
    }
}

fn known(user: User) -> Identity {
    Identity { user: Standing::Valid(Arc::new(user)), ..nobody() }
}

fn nobody() -> Identity {
    Identity { application: Standing::Absent, user: Standing::Absent, until_s: None, by_proxy_authorization: false }
}

fn staff() -> Identity {
    known(user(&["staff"]))
}

fn batch(groups: &[&str]) -> Identity {
    let groups = groups.iter().map(|group| Arc::from(*group)).collect();
    Identity { application: Standing::Valid(Arc::new(Application { name: "batch".into(), groups })), ..nobody() }
}

fn question(action: Action) -> Question<'static> {
    Question {
        action,
        release: None,
        method: "GET",
        path: "/orders/7?full=1",
        client: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)),
        now_ms: 0,
    }
}

fn of_release(number: u32) -> Question<'static> {
    Question { release: Some(number), ..question(Action::Use) }
}

fn hello(is_public: bool) -> Vec<StageFacts> {
    vec![StageFacts { service: "hello".into(), public: is_public }]
}

fn decided(text: &str, identity: &Identity, question: &Question<'_>) -> Decision {
    read(text).cut("staging", &hello(false)).stages["hello"].decide(identity, question)
}

fn names(decision: &Decision) -> Vec<&str> {
    decision.policies.iter().map(AsRef::as_ref).collect()
}

#[test]
fn policies_decide_as_they_say() {
    use Action::{Check, Discover, Preflight, Read, Rpc, Upgrade, Use, Write};
    let call = "permit (principal, action in Action::\"call\", resource);";
    let in_staff = "permit (principal in Group::\"staff\", action, resource == Stage::\"hello/staging\");";
    let (of_7, of_8) = (of_release(7), of_release(8));
    let upload = Question { method: "PUT", ..question(Write) };
    let greet = Question { path: "/pkg.Greeter/Hello", method: "POST", ..question(Rpc) };
    let strange = Question { path: "/pkg.Greeter/x/Hello", method: "POST", ..question(Rpc) };
    let mapped = Question { client: "::ffff:10.1.2.3".parse().expect("an address"), ..question(Read) };
    let aged = |level| {
        let attributes = BTreeMap::from([("level".into(), Attribute::Long(level))]);
        known(User { attributes, ..user(&[]) })
    };
    let many = known(User {
        attributes: BTreeMap::from([
            ("department".into(), Attribute::String("sales".to_owned())),
            ("intern".into(), Attribute::Bool(true)),
            ("sites".into(), Attribute::Strings(vec!["berlin".to_owned(), "paris".to_owned()])),
        ]),
        client: Some("portal".to_owned()),
        ..user(&[])
    });
    let level = "permit (principal is User, action, resource) when { principal has level && principal.level > 3 };";
    let table: &[(&str, &Identity, &Question<'_>, bool)] = &[
        ("", &staff(), &question(Discover), false),
        // Actions.
        (call, &nobody(), &question(Read), true),
        (call, &nobody(), &question(Write), true),
        (call, &nobody(), &question(Rpc), true),
        (call, &nobody(), &question(Upgrade), true),
        (call, &nobody(), &question(Discover), false),
        (call, &nobody(), &question(Preflight), false),
        (call, &nobody(), &question(Check), false),
        (call, &nobody(), &of_7, false),
        ("permit (principal, action == Action::\"read\", resource);", &nobody(), &question(Read), true),
        ("permit (principal, action == Action::\"read\", resource);", &nobody(), &question(Write), false),
        (
            "permit (principal, action in [Action::\"read\", Action::\"check\"], resource);",
            &nobody(),
            &question(Check),
            true,
        ),
        (
            "permit (principal, action in [Action::\"read\", Action::\"check\"], resource);",
            &nobody(),
            &question(Rpc),
            false,
        ),
        (
            "permit (principal, action, resource) when { action in Action::\"call\" };",
            &nobody(),
            &question(Upgrade),
            true,
        ),
        (
            "permit (principal, action, resource) when { action in Action::\"call\" };",
            &nobody(),
            &question(Check),
            false,
        ),
        // Who.
        (in_staff, &staff(), &question(Discover), true),
        (in_staff, &staff(), &question(Read), true),
        (in_staff, &staff(), &of_7, false),
        (in_staff, &known(user(&["guests"])), &question(Read), false),
        (in_staff, &nobody(), &question(Read), false),
        ("permit (principal == User::\"corp/alice\", action, resource);", &staff(), &question(Read), true),
        ("permit (principal == User::\"other/alice\", action, resource);", &staff(), &question(Read), false),
        ("permit (principal is User, action, resource);", &nobody(), &question(Read), false),
        ("permit (principal is Anonymous, action, resource);", &nobody(), &question(Read), true),
        ("permit (principal == Anonymous::\"anonymous\", action, resource);", &nobody(), &question(Read), true),
        ("permit (principal is Anonymous, action, resource);", &staff(), &question(Read), false),
        (
            "permit (principal is User, action, resource) when { principal.issuer == \"corp\" };",
            &staff(),
            &question(Read),
            true,
        ),
        (
            "permit (principal is User, action, resource) when { principal.subject == \"bob\" };",
            &staff(),
            &question(Read),
            false,
        ),
        (level, &aged(4), &question(Read), true),
        (level, &aged(3), &question(Read), false),
        (level, &staff(), &question(Read), false),
        (
            "permit (principal is User, action, resource) when { principal has department && principal.department == \"sales\" };",
            &many,
            &question(Read),
            true,
        ),
        (
            "permit (principal is User, action, resource) unless { principal has intern && principal.intern };",
            &many,
            &question(Read),
            false,
        ),
        (
            "permit (principal is User, action, resource) when { principal has sites && principal.sites.contains(\"paris\") };",
            &many,
            &question(Read),
            true,
        ),
        (
            "permit (principal is User, action, resource) when { principal has client && principal.client == \"portal\" };",
            &many,
            &question(Read),
            true,
        ),
        // Through what.
        (
            "permit (principal, action, resource) when { context has application };",
            &batch(&[]),
            &question(Discover),
            true,
        ),
        (
            "permit (principal, action, resource) when { context has application };",
            &nobody(),
            &question(Discover),
            false,
        ),
        (
            "permit (principal, action, resource) when { context has application && context.application.name == \"batch\" };",
            &batch(&[]),
            &question(Read),
            true,
        ),
        (
            "permit (principal, action, resource) when { context has application && context.application in Group::\"partners\" };",
            &batch(&["partners"]),
            &question(Read),
            true,
        ),
        (
            "permit (principal, action, resource) when { context has application && context.application in Group::\"partners\" };",
            &batch(&["staff"]),
            &question(Read),
            false,
        ),
        // What.
        ("permit (principal, action, resource in Environment::\"staging\");", &nobody(), &question(Read), true),
        ("permit (principal, action, resource in Environment::\"staging\");", &nobody(), &of_7, true),
        ("permit (principal, action, resource in Environment::\"production\");", &nobody(), &question(Read), false),
        ("permit (principal, action, resource in Stage::\"hello/staging\");", &nobody(), &of_7, true),
        ("permit (principal, action, resource in Stage::\"hello/staging\");", &nobody(), &question(Read), true),
        ("permit (principal, action, resource in Stage::\"hello/production\");", &nobody(), &of_7, false),
        ("permit (principal, action, resource == Release::\"hello/staging/r7\");", &nobody(), &of_7, true),
        ("permit (principal, action, resource == Release::\"hello/staging/r7\");", &nobody(), &of_8, false),
        ("permit (principal, action, resource is Release);", &nobody(), &question(Read), false),
        ("permit (principal, action, resource is Release in Environment::\"staging\");", &nobody(), &of_8, true),
        (
            "permit (principal, action == Action::\"use\", resource) when { resource.number > 7 };",
            &nobody(),
            &of_8,
            true,
        ),
        (
            "permit (principal, action == Action::\"use\", resource) when { resource.number > 7 };",
            &nobody(),
            &of_7,
            false,
        ),
        ("permit (principal, action == Action::\"use\", resource);", &nobody(), &question(Use), false),
        (
            "permit (principal, action, resource is Stage) when { resource.service like \"he*\" && !resource.public };",
            &nobody(),
            &question(Read),
            true,
        ),
        (
            "permit (principal, action, resource is Stage) when { resource.environment == \"staging\" };",
            &nobody(),
            &question(Read),
            true,
        ),
        // How.
        (
            "permit (principal, action == Action::\"write\", resource) when { context.method == \"PUT\" };",
            &nobody(),
            &upload,
            true,
        ),
        (
            "permit (principal, action == Action::\"write\", resource) when { context.method == \"PATCH\" };",
            &nobody(),
            &upload,
            false,
        ),
        (
            "permit (principal, action == Action::\"read\", resource) when { context.path == \"/orders/7\" };",
            &nobody(),
            &question(Read),
            true,
        ),
        (
            "permit (principal, action == Action::\"rpc\", resource) when { context.service == \"pkg.Greeter\" && context.rpc_method == \"Hello\" };",
            &nobody(),
            &greet,
            true,
        ),
        (
            "permit (principal, action == Action::\"rpc\", resource) when { context.service == \"pkg.Greeter\" };",
            &nobody(),
            &strange,
            false,
        ),
        (
            "permit (principal, action in Action::\"call\", resource) when { context has service };",
            &nobody(),
            &greet,
            true,
        ),
        (
            "permit (principal, action in Action::\"call\", resource) when { context has service };",
            &nobody(),
            &question(Read),
            false,
        ),
        (
            "permit (principal, action == Action::\"read\", resource) when { context.client.isInRange(ip(\"10.0.0.0/8\")) };",
            &nobody(),
            &mapped,
            true,
        ),
        (
            "permit (principal, action == Action::\"read\", resource) when { context.client.isInRange(ip(\"192.168.0.0/16\")) };",
            &nobody(),
            &mapped,
            false,
        ),
        // Of discovering nothing more is known than who asks.
        (
            "permit (principal, action, resource) when { context has method || context has path || context has client };",
            &staff(),
            &question(Discover),
            false,
        ),
        // What forbids counts.
        (
            "permit (principal, action, resource); forbid (principal, action == Action::\"read\", resource);",
            &staff(),
            &question(Read),
            false,
        ),
        (
            "permit (principal, action, resource); forbid (principal, action == Action::\"read\", resource);",
            &staff(),
            &question(Write),
            true,
        ),
    ];
    for (text, identity, question, expected) in table {
        let decision = decided(text, identity, question);
        assert_eq!(decision.is_allowed, *expected, "{text}\n{identity:?}\n{question:?}\n{decision:?}");
        assert!(decision.errors.is_empty(), "{text}: {decision:?}");
    }
}

#[test]
fn those_that_decided_are_named() {
    let text = "permit (principal, action, resource);\n\n// Hours.\n@id(\"only in \\\"office\\\" hours\")\nforbid (principal,\n  action == Action::\"write\", resource);";
    let read = decided(text, &nobody(), &question(Action::Read));
    assert_eq!(names(&read), ["staff.cedar:1"]);
    let write = decided(text, &nobody(), &question(Action::Write));
    assert_eq!(names(&write), ["staff.cedar \"only in \\\"office\\\" hours\""]);
    assert!(!write.is_allowed);
}

#[test]
fn a_failing_forbid_beside_a_permit_is_a_denial() {
    let text = "permit (principal, action, resource);
        forbid (principal is User, action, resource) when { principal has level && principal.level + 1 > 100 };";
    let at = |level| {
        let attributes = BTreeMap::from([("level".into(), Attribute::Long(level))]);
        decided(text, &known(User { attributes, ..user(&[]) }), &question(Action::Read))
    };
    assert!(at(5).is_allowed);
    let failed = at(i64::MAX);
    assert!(!failed.is_allowed, "{failed:?}");
    assert_eq!(failed.errors.len(), 1, "{failed:?}");
    let error = &failed.errors[0];
    assert!(error.starts_with("staff.cedar:2: ") && error.contains("overflow"), "{failed:?}");
}

#[test]
fn an_attribute_of_another_type_than_the_schema_says_is_a_denial() {
    let text = "permit (principal, action, resource);
        forbid (principal is User, action, resource) when { principal has level && principal.level > 100 };";
    let attributes = BTreeMap::from([("level".into(), Attribute::String("101".to_owned()))]);
    let failed = decided(text, &known(User { attributes, ..user(&[]) }), &question(Action::Read));
    assert!(!failed.is_allowed && failed.errors.len() == 1, "{failed:?}");
}

#[test]
fn what_an_issuer_gives_never_stands_for_what_every_user_has() {
    let text = "permit (principal is User, action, resource) when { principal.issuer == \"evil\" || principal.subject == \"evil\" || (principal has client && principal.client == \"evil\") };";
    let evil = Attribute::String("evil".to_owned());
    let attributes = ["issuer", "subject", "client"].map(|name| (name.into(), evil.clone())).into();
    assert!(!decided(text, &known(User { attributes, ..user(&[]) }), &question(Action::Read)).is_allowed);
}

#[test]
fn groups_within_groups_count_for_users_and_applications() {
    let entities = r#"[
        {"uid": {"type": "Group", "id": "interns"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
        {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": [{"type": "Group", "id": "everybody"}]}
    ]"#;
    let text = "permit (principal in Group::\"everybody\", action, resource);
        permit (principal, action, resource) when { context has application && context.application in Group::\"everybody\" };";
    let policies = read_all(&[document("staff.cedar", text)], Some(entities));
    let cut = policies.cut("staging", &hello(false));
    let asked = |identity: &Identity| cut.stages["hello"].decide(identity, &question(Action::Read)).is_allowed;
    assert!(asked(&known(user(&["interns"]))));
    assert!(asked(&batch(&["interns"])));
    assert!(!asked(&known(user(&["guests"]))));
    assert!(!asked(&batch(&["guests"])));
}

#[test]
fn public_is_a_policy_like_any_other() {
    let cut = read("").cut("staging", &hello(true));
    let stage = &cut.stages["hello"];
    for action in Action::ALL {
        let release = (action == Action::Use).then_some(7);
        let decision = stage.decide(&nobody(), &Question { release, ..question(action) });
        assert_eq!(decision.is_allowed, action != Action::Use, "{action:?}");
        if decision.is_allowed {
            assert_eq!(names(&decision), ["public"], "{action:?}");
        }
    }
    assert_eq!((stage.count(Action::Read), stage.count(Action::Use)), (1, 0));
    let forbidden = read("forbid (principal, action == Action::\"write\", resource);").cut("staging", &hello(true));
    assert!(!forbidden.stages["hello"].decide(&nobody(), &question(Action::Write)).is_allowed);
    assert!(forbidden.stages["hello"].decide(&nobody(), &question(Action::Read)).is_allowed);
}

#[test]
fn every_stage_and_none_are_asked_with_as_many_policies() {
    let text = "permit (principal in Group::\"staff\", action, resource);
        permit (principal, action == Action::\"discover\", resource == Stage::\"hello/staging\");
        permit (principal, action == Action::\"check\", resource in Stage::\"hello/staging\");
        permit (principal, action == Action::\"preflight\", resource == Stage::\"shop/staging\");
        permit (principal, action in Action::\"call\", resource == Stage::\"hello/staging\");
        forbid (principal, action, resource == Stage::\"hello/production\");";
    let stages =
        ["hello", "shop", "docs"].map(|service| StageFacts { service: service.into(), public: service == "docs" });
    let cut = read(text).cut("staging", &stages);
    for action in [Action::Discover, Action::Preflight, Action::Check] {
        let most = 2;
        assert_eq!(cut.unknown.count(action), most, "{action:?}");
        cut.stages.iter().for_each(|(service, stage)| assert_eq!(stage.count(action), most, "{service} {action:?}"));
    }
    // What is asked only of those who know of the stage costs what it has.
    let counts = ["hello", "shop", "docs"].map(|service| cut.stages[service].count(Action::Read));
    assert_eq!(counts, [2, 1, 2]);
    // What fills up never decides, whatever groups a token brings.
    let odd = known(user(&["~"]));
    for stage in cut.stages.values().chain([&cut.unknown]) {
        let decision = stage.decide(&odd, &question(Action::Discover));
        assert!(decision.policies.iter().all(|name| !name.contains('~')), "{decision:?}");
    }
    assert!(!cut.unknown.decide(&odd, &question(Action::Discover)).is_allowed);
}

#[test]
fn nothing_is_permitted_where_nothing_was_cut() {
    let none = StagePolicies::default();
    assert_eq!(none.decide(&staff(), &question(Action::Read)), Decision::default());
    assert_eq!(none.count(Action::Discover), 0);
}

#[test]
fn mistakes_are_all_told_with_their_places() {
    let text = "permit (principal, action, resource) when { context.metod == \"GET\" };
permit (principal in Group::\"staff\" action, resource);
// permit (nothing here;
permit (principal, action == Action::\"reed\", resource);
    forbid (principal is User, action, resource) when { principal.level > 3 };
permit (principal in ?principal, action, resource);
permit (principal, action, resource)";
    let found = problems(text);
    let expected = [
        (1, 45, "`metod`"),
        (2, 37, "unexpected token `action`"),
        (4, 30, "`Action::\"reed\"`: did you mean `Action::\"read\"`?"),
        (5, 57, "`e has level && ..`"),
        (6, 22, "?principal"),
        (7, 37, "expected `;`"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (problem, (line, column, message)) in found.iter().zip(expected) {
        assert_eq!((problem.line, problem.column), (line, column), "{found:#?}");
        assert!(problem.message.contains(message), "{problem:?}");
    }
    for problem in &found {
        assert_eq!(problem.place, "staff.cedar");
        assert!(!problem.message.contains('\n') && !problem.message.contains("staff.cedar#"), "{problem:?}");
    }
}

#[test]
fn a_policy_looks_one_step_far() {
    for text in [
        "permit (principal, action, resource) when { Group::\"a\" in Group::\"b\" };",
        "permit (principal, action, resource) when { Stage::\"hello/staging\" in Environment::\"staging\" };",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}");
    }
}

#[test]
fn what_never_applies_is_a_warning() {
    let policies = read("\npermit (principal, action, resource is Environment);");
    let told: Vec<_> = policies.warnings().map(|warning| (warning.place.as_str(), warning.line)).collect();
    assert_eq!(told, [("staff.cedar", 2)]);
    assert_eq!(read("permit (principal, action, resource);").warnings().count(), 0);
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let (one, two) = (document("a.cedar", "permit (principal, action, resource);"), document("b.cedar", ""));
    let before = read_all(&[one.clone(), two], None);
    let changed = document("b.cedar", "forbid (principal, action == Action::\"write\", resource);");
    let after = Policies::read(&[one.clone(), changed], None, &attributes(), Some(&before)).expect("it is right");
    assert!(Arc::ptr_eq(&before.documents[0], &after.documents[0]));
    assert!(!Arc::ptr_eq(&before.documents[1], &after.documents[1]));
    let stage = &after.cut("staging", &hello(false)).stages["hello"];
    assert!(!stage.decide(&nobody(), &question(Action::Write)).is_allowed);
    // Another schema: all is checked again.
    let fewer = Policies::read(&[one], None, &AttributeTypes::new(), Some(&before)).expect("it is right");
    assert!(!Arc::ptr_eq(&before.documents[0], &fewer.documents[0]));
}

#[test]
fn a_document_that_was_right_is_checked_again_when_attributes_go() {
    let uses = document(
        "a.cedar",
        "permit (principal is User, action, resource) when { principal has level && principal.level > 3 };",
    );
    let before = read_all(std::slice::from_ref(&uses), None);
    let after = Policies::read(&[uses], None, &AttributeTypes::new(), Some(&before));
    // `has` of an attribute that nobody has is no mistake; the policy can never apply, which is told.
    assert_eq!(after.expect("it is right").warnings().count(), 1);
}

#[test]
fn attributes_and_names_that_cannot_be_are_refused() {
    use api::fleet::claim_attribute::Type;
    for name in ["subject", "my-level", "7up", ""] {
        let attributes = AttributeTypes::from([(name.to_owned(), Type::Long)]);
        let found = Policies::read(&[], None, &attributes, None).expect_err("refused");
        assert_eq!(found[0].place, format!("attribute {name}"));
    }
    // A word of the language is a name like any other.
    let attributes = AttributeTypes::from([("if".to_owned(), Type::Long), ("__cedar".to_owned(), Type::Long)]);
    Policies::read(&[], None, &attributes, None).expect("accepted");
    let twice = [document("a.cedar", ""), document("a.cedar", "")];
    let found = Policies::read(&twice, None, &AttributeTypes::new(), None).expect_err("refused");
    assert_eq!((found.len(), found[0].place.as_str()), (1, "a.cedar"));
}

#[test]
fn the_schema_that_is_shown_is_the_one_that_counts() {
    let text = schema(&attributes());
    for line in ["\"department\"?: String,", "\"level\"?: Long,", "\"intern\"?: Bool,", "\"sites\"?: Set<String>,"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(text.parse::<cedar_policy::Schema>().is_ok());
    assert!(schema(&AttributeTypes::new()).parse::<cedar_policy::Schema>().is_ok());
}

/// What a document can hold is read on a thread's usual 2 MiB, or refused, however it is nested.
#[test]
fn hostile_nesting_is_read_or_refused() {
    let parts = [
        ("", "if true then ", "true", " else true"),
        ("", "if ", "true", " then true else true"),
        ("", "if true then true else ", "true", ""),
        ("", "true && ", "true", ""),
        ("", "true || ", "true", ""),
        ("1 == ", "1 + ", "1", ""),
        ("1 == ", "1*", "1", ""),
        ("", "!", "true", ""),
        ("1 == ", "-", "1", ""),
        ("principal", ".a", "", ""),
        ("principal", "[\"a\"]", "", ""),
        ("principal has a", ".a", "", ""),
        ("[", "1, ", "1].contains(1)", ""),
        ("principal == ", "A::", "B::\"\"", ""),
        ("", "(", "true", ")"),
        ("", "[", "1", "]"),
        ("", "{a: ", "1", "}"),
        ("principal", ".contains(principal", "", ")"),
        ("", "true || (true && ", "true", ")"),
        ("true", " } when { true", "", ""),
    ];
    for (begin, part, middle, end) in parts {
        // The most of each that is read, and more than that.
        for times in
            [text::MOST_IFS, text::DEEPEST - 2, text::MOST_OPERATORS / 2 - 5, text::MOST_OPERATORS - 5, 5_000, 40_000]
        {
            let body = format!("{begin}{}{middle}{}", part.repeat(times), end.repeat(times));
            let text = format!("permit (principal, action, resource) when {{ {body} }};");
            let work = move || match Policies::read(&[document("a.cedar", &text)], None, &AttributeTypes::new(), None) {
                Ok(policies) => {
                    policies.cut("staging", &hello(false)).stages["hello"].decide(&nobody(), &question(Action::Read));
                }
                Err(problems) => assert!(!problems.is_empty()),
            };
            let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).expect("a thread");
            thread.join().unwrap_or_else(|_| panic!("{times} times {part}"));
        }
    }
}

#[test]
fn what_an_answer_depends_on_is_known_for_each_action() {
    let text = "permit (principal, action, resource) when { context has path && context.path == \"/\" };
        permit (principal, action == Action::\"write\", resource) when { context.method == \"PUT\" };
        permit (principal, action == Action::\"read\", resource == Stage::\"shop/staging\") when { context.client.isIpv4() };";
    let cut = read(text).cut("staging", &hello(false));
    let path = Reads { path: true, ..Reads::default() };
    assert_eq!(cut.stages["hello"].reads(Action::Read), path);
    assert_eq!(cut.stages["hello"].reads(Action::Write), Reads { method: true, ..path });
    // Whether a stage may be known never depends on the request, so that it is remembered alike for hidden and unknown ones.
    assert_eq!(cut.stages["hello"].reads(Action::Discover), Reads::default());
    assert_eq!(cut.unknown.reads(Action::Discover), Reads::default());
}

#[test]
fn environments_that_policies_name_are_known() {
    let text = "permit (principal, action, resource in Environment::\"prod\");

        permit (principal in Group::\"x\", action, resource == Stage::\"hello/staging\")
          unless { resource in Stage::\"shop/test\" };
        forbid (principal, action, resource in Release::\"hello/dev/r1\");";
    let policies = read(text);
    let named: Vec<_> =
        policies.environments().map(|(place, name)| (place.document.as_str(), place.line, name)).collect();
    let expected = [(1, "prod"), (3, "staging"), (3, "test"), (5, "dev")];
    assert_eq!(named, expected.map(|(line, name)| ("staff.cedar", line, name)));
}

#[test]
fn hostile_h47_what_one_stage_alone_reads_every_stage_and_none_count_as_reading() {
    let policies = read(
        "permit (principal, action == Action::\"check\", resource == Stage::\"hello/staging\")\n\
         when { context.client.isLoopback() };\n\
         permit (principal, action == Action::\"preflight\", resource == Stage::\"other/staging\")\n\
         when { context.path == \"/x\" };\n\
         permit (principal, action == Action::\"read\", resource == Stage::\"hello/staging\")\n\
         when { context.method == \"GET\" };",
    );
    let facts = ["hello", "other"].map(|service| StageFacts { service: service.into(), public: false });
    let cut = policies.cut("staging", &facts);
    for stage in cut.stages.values().chain([&cut.unknown]) {
        assert_eq!(stage.reads(Action::Check), Reads { volatile: true, ..Reads::default() });
        assert_eq!(stage.reads(Action::Preflight), Reads { path: true, ..Reads::default() });
    }
    assert_eq!(cut.stages["other"].reads(Action::Read), Reads::default(), "what is asked later is its own");
}
