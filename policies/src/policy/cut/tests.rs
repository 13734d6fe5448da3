//! A cut decides as all policies together do.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use cedar_policy::{Authorizer, Context, Decision, Entities, Entity, PolicySet, Request, RestrictedExpression, Schema};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::credential::{Application, Identity, Standing, User};
use crate::policy::words::{TYPES, uid};
use crate::policy::{Action, AttributeTypes, Document, Policies, Question, StageFacts};

const PRINCIPALS: [&str; 7] = [
    "principal",
    "principal is User",
    "principal is Anonymous",
    "principal in Group::\"staff\"",
    "principal in Group::\"everybody\"",
    "principal == User::\"corp/alice\"",
    "principal is User in Group::\"interns\"",
];

const ACTIONS: [&str; 7] = [
    "action",
    "action in Action::\"call\"",
    "action == Action::\"discover\"",
    "action in [Action::\"read\", Action::\"use\"]",
    "action in [Action::\"call\", Action::\"preflight\"]",
    "action == Action::\"rpc\"",
    "action == Action::\"call\"",
];

const RESOURCES: [&str; 12] = [
    "resource",
    "resource is Stage",
    "resource is Release",
    "resource == Stage::\"hello/staging\"",
    "resource == Stage::\"shop/staging\"",
    "resource == Stage::\"hello/production\"",
    "resource in Stage::\"hello/staging\"",
    "resource in Environment::\"staging\"",
    "resource is Stage in Environment::\"staging\"",
    "resource is Release in Environment::\"production\"",
    "resource == Release::\"hello/staging/r7\"",
    "resource in Release::\"shop/staging/r7\"",
];

const CONDITIONS: [&str; 12] = [
    "",
    "",
    "unless { action in Action::\"call\" }",
    "when { context has application }",
    "when { context has application && context.application in Group::\"everybody\" }",
    "when { context has method && context.method == \"GET\" }",
    "unless { context has path && context.path like \"/orders/*\" }",
    "when { context has service && context.service == \"pkg.Greeter\" }",
    "when { context has client && context.client.isInRange(ip(\"10.0.0.0/8\")) }",
    "when { principal is User && principal.subject == \"alice\" }",
    "when { resource is Stage && resource.service like \"h*\" }",
    "when { resource has number && resource.number > 7 }",
];

const SERVICES: [&str; 3] = ["hello", "shop", "docs"];
const GROUPS: [&str; 3] = ["staff", "interns", "guests"];

/// Interns are staff, and staff is everybody.
const ENTITIES: &str = r#"[
    {"uid": {"type": "Group", "id": "interns"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
    {"uid": {"type": "Group", "id": "staff"}, "attrs": {}, "parents": [{"type": "Group", "id": "everybody"}]}
]"#;

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| crate::policy::schema(&AttributeTypes::new()).parse().expect("ours"));

/// So that the schema is not read for each case.
static NONE: LazyLock<Policies> =
    LazyLock::new(|| Policies::read(&[], None, &AttributeTypes::new(), None).expect("nothing is wrong with nothing"));

#[derive(Debug, Clone)]
struct Case {
    policies: Vec<String>,
    public: Vec<&'static str>,
    user: Option<Vec<&'static str>>,
    application: Option<Vec<&'static str>>,
    service: &'static str,
    action: Action,
    release: u32,
    path: &'static str,
    method: &'static str,
    client: &'static str,
}

fn policy() -> impl Strategy<Value = String> {
    let effect = prop_oneof![3 => Just("permit"), 1 => Just("forbid")];
    (effect, select(&PRINCIPALS), select(&ACTIONS), select(&RESOURCES), select(&CONDITIONS)).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};")
        },
    )
}

fn groups() -> impl Strategy<Value = Option<Vec<&'static str>>> {
    proptest::option::of(subsequence(&GROUPS, 0..=3))
}

prop_compose! {
    fn case()(
        policies in proptest::collection::vec(policy(), 0..8),
        public in subsequence(&SERVICES, 0..=1),
        user in groups(),
        application in groups(),
        service in select(&SERVICES),
        action in select(&Action::ALL),
        release in 6_u32..9,
        path in select(vec!["/", "/orders/7?x", "/pkg.Greeter/Hello"]),
        method in select(vec!["GET", "POST"]),
        client in select(vec!["10.0.0.7", "::1"]),
    ) -> Case {
        Case { policies, public, user, application, service, action, release, path, method, client }
    }
}

impl Case {
    fn identity(&self) -> Identity {
        let arcs = |groups: &[&str]| groups.iter().map(|group| Arc::from(*group)).collect();
        let user = self.user.as_ref().map(|groups| User {
            issuer: "corp".into(),
            subject: "alice".to_owned(),
            client: None,
            groups: arcs(groups),
            attributes: BTreeMap::new(),
            until_s: 0,
        });
        let application =
            self.application.as_ref().map(|groups| Application { name: "batch".into(), groups: arcs(groups) });
        Identity {
            application: application.map_or(Standing::Absent, |known| Standing::Valid(Arc::new(known))),
            user: user.map_or(Standing::Absent, |known| Standing::Valid(Arc::new(known))),
            until_s: None,
            by_proxy_authorization: false,
        }
    }

    fn stages(&self) -> Vec<StageFacts> {
        let facts = |service: &&str| StageFacts { service: (*service).into(), public: self.public.contains(service) };
        SERVICES.iter().map(facts).collect()
    }

    fn question(&self) -> Question<'_> {
        Question {
            action: self.action,
            release: (self.action == Action::Use).then_some(self.release),
            method: self.method,
            path: self.path,
            client: self.client.parse::<IpAddr>().expect("an address"),
            now_ms: 0,
        }
    }

    /// All policies, all entities, and all that is known, as the schema has it: nothing is cut, and nothing left out.
    /// Whether it allows, and how many policies decided.
    fn whole(&self, policies: &[String], schema: &Schema) -> (bool, usize) {
        let public = self
            .public
            .iter()
            .map(|service| format!("permit (principal, action, resource == Stage::\"{service}/staging\");"));
        let text: String = policies.iter().cloned().chain(public).collect();
        let set: PolicySet = text.parse().expect("each was read before");
        let (principal, application, resource, entities) = self.entities(schema);
        let mut context = serde_json::Map::new();
        if application {
            context.insert("application".to_owned(), serde_json::json!({"type": "Application", "id": "batch"}));
        }
        if self.action != Action::Discover {
            let path = self.path.split('?').next().unwrap_or_default();
            context.insert("method".to_owned(), self.method.into());
            context.insert("path".to_owned(), path.into());
            context.insert("client".to_owned(), self.client.into());
        }
        if self.action == Action::Rpc {
            let is_greeter = self.path.starts_with("/pkg");
            context.insert("service".to_owned(), if is_greeter { "pkg.Greeter" } else { "" }.into());
            context.insert("rpc_method".to_owned(), if is_greeter { "Hello" } else { "other" }.into());
        }
        let action = uid(&TYPES.action, self.action.word());
        let context = Context::from_json_value(context.into(), Some((schema, &action))).expect("as the schema says");
        let request = Request::new(principal, action, resource, context, Some(schema)).expect("as the schema says");
        let answer = Authorizer::new().is_authorized(&request, &set, &entities);
        (answer.decision() == Decision::Allow, answer.diagnostics().reason().count())
    }

    fn entities(&self, schema: &Schema) -> (cedar_policy::EntityUid, bool, cedar_policy::EntityUid, Entities) {
        let in_groups = |groups: &[&str]| groups.iter().map(|group| uid(&TYPES.group, group)).collect::<HashSet<_>>();
        let string = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let of = |pairs: Vec<(&str, RestrictedExpression)>| {
            pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>()
        };
        let new = |id, attributes, parents| Entity::new(id, attributes, parents).expect("values");
        let stage_id = uid(&TYPES.stage, &format!("{}/staging", self.service));
        let release_id = uid(&TYPES.release, &format!("{}/staging/r{}", self.service, self.release));
        let environment_id = uid(&TYPES.environment, "staging");
        let is_public = RestrictedExpression::new_bool(self.public.contains(&self.service));
        let facts =
            of(vec![("service", string(self.service)), ("environment", string("staging")), ("public", is_public)]);
        let number = of(vec![("number", RestrictedExpression::new_long(i64::from(self.release)))]);
        let mut all = vec![
            new(environment_id.clone(), of(vec![("name", string("staging"))]), HashSet::new()),
            new(stage_id.clone(), facts, HashSet::from([environment_id])),
            new(release_id.clone(), number, HashSet::from([stage_id.clone()])),
        ];
        let principal = match &self.user {
            Some(groups) => {
                let id = uid(&TYPES.user, "corp/alice");
                let attributes = of(vec![("issuer", string("corp")), ("subject", string("alice"))]);
                all.push(new(id.clone(), attributes, in_groups(groups)));
                id
            }
            None => uid(&TYPES.anonymous, "anonymous"),
        };
        if let Some(groups) = &self.application {
            let attributes = of(vec![("name", string("batch"))]);
            all.push(new(uid(&TYPES.application, "batch"), attributes, in_groups(groups)));
        }
        let entities = Entities::from_json_str(ENTITIES, Some(schema)).expect("ours");
        let entities = entities.add_entities(all, Some(schema)).expect("as the schema says");
        let resource = if self.action == Action::Use { release_id } else { stage_id };
        (principal, self.application.is_some(), resource, entities)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_decides_as_all_policies_together_do(case in case()) {
        let document = |text: &str| Document { name: "a.cedar".to_owned(), text: text.to_owned() };
        let reads = |text: &str| {
            Policies::read(&[document(text)], Some(ENTITIES), &AttributeTypes::new(), Some(&NONE))
        };
        // Not every combination of parts is one that the schema allows.
        let right: Vec<_> = case.policies.iter().filter(|text| reads(text).is_ok()).cloned().collect();
        let policies = reads(&right.concat()).expect("each is right");
        let cut = policies.cut("staging", &case.stages());
        let found = cut.stages[case.service].decide(&case.identity(), &case.question());
        prop_assert!(found.errors.is_empty(), "{:?}", found);
        prop_assert_eq!((found.is_allowed, found.policies.len()), case.whole(&right, &SCHEMA), "{:?} {:?}", right, found);
    }
}
