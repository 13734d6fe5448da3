use super::*;
use crate::policy::{AttributeTypes, Document};
use api::fleet::claim_attribute::Type;

const STAFF: &str = "permit (principal in Group::\"staff\", action, resource in Environment::\"staging\");
permit (principal, action == Action::\"preflight\", resource == Stage::\"hello/staging\");
@id(\"no deletes\")
forbid (principal, action == Action::\"write\", resource) when { context.method == \"DELETE\" };
permit (principal, action in [Action::\"discover\", Action::\"rpc\"], resource) when {
  context has application && context.application in Group::\"partners\"
};
forbid (principal is User, action == Action::\"upgrade\", resource) when { principal has level && principal.level + 1 > 3 };
permit (principal, action == Action::\"read\", resource == Stage::\"office/staging\") when { context.client.isInRange(ip(\"10.0.0.0/8\")) };
permit (principal, action == Action::\"discover\", resource == Stage::\"office/staging\");
";

fn policies() -> Policies {
    let documents = [Document { name: "staff.cedar".to_owned(), text: STAFF.to_owned() }];
    let attributes = [("level", Type::Long), ("sites", Type::Strings)].map(|(name, of)| (name.to_owned(), of));
    Policies::read(&documents, None, &AttributeTypes::from(attributes), None)
        .unwrap_or_else(|found| panic!("{found:#?}"))
}

/// As a file has it: in JSON here, since this crate reads no TOML.
fn case(json: serde_json::Value) -> Case {
    let text = json.to_string();
    serde_json::from_value(json).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn cases_go_the_way_of_a_request() {
    let alice = serde_json::json!({"issuer": "corp", "subject": "alice", "groups": ["staff"]});
    let bob = serde_json::json!({"issuer": "corp", "subject": "bob"});
    let high = serde_json::json!({"issuer": "corp", "subject": "alice", "groups": ["staff"], "attributes": {"level": i64::MAX}});
    let batch = serde_json::json!({"name": "batch", "groups": ["partners"]});
    let none = serde_json::Value::Null;
    use Expected::{Allowed, Forbidden, Hidden, Unauthenticated};
    let table = [
        // user, application, what else, what it does, expected, why, asked
        (&alice, &batch, "", "GET /orders", Allowed, Why::Permitted, "discover read"),
        (&alice, &batch, "", "read", Allowed, Why::Permitted, "discover read"),
        (&alice, &batch, "", "PATCH /", Allowed, Why::Permitted, "discover write"),
        (&alice, &batch, "", "DELETE /orders", Hidden, Why::MayNotCall, "discover write"),
        (&alice, &batch, "explicit", "DELETE /orders", Forbidden, Why::MayNotCall, "discover write"),
        (&alice, &none, "", "GET /", Unauthenticated, Why::NoApplication, "discover"),
        (&none, &batch, "", "rpc /pkg.Greeter/Hello", Unauthenticated, Why::NoUser, "discover"),
        (&none, &batch, "application", "rpc /pkg.Greeter/Hello", Allowed, Why::Permitted, "discover rpc"),
        (&bob, &none, "", "GET /", Hidden, Why::MayNotDiscover, "discover"),
        (&bob, &none, "", "discover", Hidden, Why::MayNotDiscover, "discover"),
        (&alice, &none, "", "discover", Allowed, Why::Permitted, "discover"),
        (&none, &none, "", "preflight /orders", Allowed, Why::Permitted, "preflight"),
        (&none, &none, "", "check /healthz", Hidden, Why::MayNotDiscover, "check discover"),
        (&alice, &batch, "", "check /healthz", Allowed, Why::Permitted, "check"),
        (&alice, &batch, "", "use r42", Allowed, Why::Permitted, "discover use read"),
        (&none, &batch, "", "use r42", Hidden, Why::MayNotUse, "discover use"),
        (&high, &batch, "explicit", "upgrade /socket", Forbidden, Why::PolicyFailed, "discover upgrade"),
        (&none, &none, "public", "GET /", Allowed, Why::Permitted, "discover read"),
        (&none, &none, "public", "DELETE /", Hidden, Why::MayNotCall, "discover write"),
        (&none, &none, "office", "GET /", Hidden, Why::MayNotCall, "discover read"),
        (&none, &none, "office from inside", "GET /", Allowed, Why::Permitted, "discover read"),
    ];
    let policies = policies();
    for (user, application, what, does, expected, why, asked) in table {
        let mut json = serde_json::json!({
            "name": does, "stage": "hello/staging", "does": does, "expect": expected,
            "user": user, "application": application,
        });
        match what {
            "explicit" => json["denial"] = "explicit".into(),
            "application" => json["credentials"] = vec!["application"].into(),
            "public" => json["public"] = true.into(),
            _ if what.starts_with("office") => {
                json["stage"] = "office/staging".into();
                json["credentials"] = serde_json::json!([]);
            }
            _ => {}
        }
        if what.ends_with("inside") {
            json["client"] = "10.1.2.3".into();
        }
        let case = case(json);
        let outcome = run(&policies, &case).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        assert_eq!((outcome.found, outcome.why), (expected, why), "{case:?} {outcome:?}");
        let words: Vec<_> = outcome.decisions.iter().map(|(action, _)| action.word()).collect();
        assert_eq!(words.join(" "), asked, "{case:?}");
    }
}

#[test]
fn those_that_decided_are_told() {
    let json = serde_json::json!({
        "name": "delete", "stage": "hello/staging", "does": "DELETE /", "expect": "allowed", "credentials": [],
        "user": {"issuer": "corp", "subject": "alice", "groups": ["staff"]},
    });
    let outcome = run(&policies(), &case(json)).expect("it can be run");
    let told: Vec<_> = outcome.decisions.iter().map(|(_, decision)| decision.policies.join(", ")).collect();
    assert_eq!(told, ["staff.cedar:1", "staff.cedar \"no deletes\""]);
}

#[test]
fn what_no_case_can_say_is_refused() {
    let good = serde_json::json!({"name": "a", "stage": "hello/staging", "does": "read", "expect": "allowed"});
    case(good.clone());
    let table = [
        ("stage", serde_json::json!("hello"), "service/environment"),
        ("does", serde_json::json!("fetch /"), "accepted are"),
        ("does", serde_json::json!("GET orders"), "accepted are"),
        ("does", serde_json::json!("GET /a b"), "accepted are"),
        ("does", serde_json::json!("rpc"), "accepted are"),
        ("does", serde_json::json!("use 42"), "accepted are"),
        ("does", serde_json::json!("discover /"), "accepted are"),
        ("does", serde_json::json!(""), "accepted are"),
        ("expect", serde_json::json!("denied"), "unknown variant"),
        ("expects", serde_json::json!("hidden"), "unknown field"),
        ("client", serde_json::json!("nowhere"), "address"),
        ("credentials", serde_json::json!(["token"]), "unknown variant"),
        (
            "user",
            serde_json::json!({"issuer": "corp", "subject": "a", "attributes": {"level": 1.5}}),
            "accepted are a string",
        ),
    ];
    for (key, value, message) in table {
        let mut json = good.clone();
        json[key] = value;
        let error = serde_json::from_value::<Case>(json.clone()).expect_err(key).to_string();
        assert!(error.contains(message), "{json}: {error}");
    }
    for schema in [0, 2] {
        serde_json::from_value::<Cases>(serde_json::json!({"schema": schema, "case": []})).expect_err("refused");
    }
}

#[test]
fn attributes_are_those_that_issuers_give() {
    let with = |attributes: serde_json::Value| {
        let json = serde_json::json!({
            "name": "a", "stage": "hello/staging", "does": "read", "expect": "allowed",
            "user": {"issuer": "corp", "subject": "alice", "attributes": attributes},
        });
        run(&policies(), &case(json)).map(|_| ())
    };
    assert_eq!(with(serde_json::json!({"level": 3, "sites": "berlin"})), Ok(()));
    assert_eq!(with(serde_json::json!({"sites": ["berlin", "paris"]})), Ok(()));
    let error = with(serde_json::json!({"lvl": 3})).expect_err("unknown");
    assert!(error.contains("\"lvl\"") && error.contains("\"level\", \"sites\""), "{error}");
    let error = with(serde_json::json!({"level": "3"})).expect_err("of another type");
    assert!(error.contains("\"level\" is of type long"), "{error}");
}
