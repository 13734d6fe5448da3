//! The words that policies are written in: types, actions, names of entities, and the schema made of them.
//!
//! Must not know: documents, or how anything is decided.
//!
//! INVARIANT: entities of a question are made of the same words as the schema, so that what was checked is what is asked.
//!
//! Main function: [`schema`].

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::LazyLock;

use api::fleet::claim_attribute::Type;
use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid};

use super::{Action, AttributeTypes};
use crate::Problem;

/// Types that a document may name.
pub(super) struct Types {
    pub(super) user: EntityTypeName,
    pub(super) anonymous: EntityTypeName,
    pub(super) application: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) environment: EntityTypeName,
    pub(super) stage: EntityTypeName,
    pub(super) release: EntityTypeName,
    pub(super) action: EntityTypeName,
}

pub(super) static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let named = |name: &str| name.parse().expect("a word is a name in Cedar");
    Types {
        user: named("User"),
        anonymous: named("Anonymous"),
        application: named("Application"),
        group: named("Group"),
        environment: named("Environment"),
        stage: named("Stage"),
        release: named("Release"),
        action: named("Action"),
    }
});

/// Each action as an entity of a question, with the group that it is in. By [`Action::index`].
static ACTIONS: LazyLock<[Entity; Action::ALL.len()]> = LazyLock::new(|| {
    Action::ALL.map(|action| {
        let parents = if action.is_call() { HashSet::from([uid(&TYPES.action, CALL)]) } else { HashSet::new() };
        Entity::new_no_attrs(uid(&TYPES.action, action.word()), parents)
    })
});

/// The group of all actions that call a stage.
const CALL: &str = "call";

/// What every user has, whatever issuers give.
const OF_USERS: [&str; 3] = ["issuer", "subject", "client"];

impl Action {
    /// All of them.
    pub(super) const ALL: [Self; 8] =
        [Self::Discover, Self::Read, Self::Write, Self::Rpc, Self::Upgrade, Self::Use, Self::Preflight, Self::Check];

    /// Its place in [`Action::ALL`].
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// What a plain request with this method does: GET, HEAD and OPTIONS read (RFC 9110 §9.2.1: safe), others write.
    pub fn of_method(method: &str) -> Self {
        if matches!(method, "GET" | "HEAD" | "OPTIONS") { Self::Read } else { Self::Write }
    }

    /// As policies name it: "discover".
    pub fn word(self) -> &'static str {
        match self {
            Self::Discover => "discover",
            Self::Read => "read",
            Self::Write => "write",
            Self::Rpc => "rpc",
            Self::Upgrade => "upgrade",
            Self::Use => "use",
            Self::Preflight => "preflight",
            Self::Check => "check",
        }
    }

    /// Whether policies mean it, too, when they say "call".
    pub(super) fn is_call(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Rpc | Self::Upgrade)
    }

    /// Whether `id`, as it stands in a policy, names this action or the group that it is in.
    pub(super) fn is_in(self, id: &EntityUid) -> bool {
        *id.type_name() == TYPES.action
            && (id.id().unescaped() == self.word() || (self.is_call() && id.id().unescaped() == CALL))
    }

    /// As an entity of a question.
    pub(super) fn entity(self) -> &'static Entity {
        &ACTIONS[self.index()]
    }
}

pub(super) fn uid(of_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of_type.clone(), EntityId::new(id))
}

/// The schema in Cedar's language, with attributes of users as issuers give them.
pub(super) fn schema(attributes: &AttributeTypes) -> String {
    let mut given = String::new();
    for (name, of_type) in attributes {
        let of_type = match of_type {
            Type::Long => "Long",
            Type::Bool => "Bool",
            Type::Strings => "Set<String>",
            // What has no type is refused with the issuer that it is from.
            Type::String | Type::Unspecified => "String",
        };
        let _ = writeln!(given, "    \"{}\"?: {of_type},", name.escape_debug());
    }
    SCHEMA.replace("    // given\n", &given)
}

/// Attributes that cannot be given, because every user has them, or because they cannot be written.
pub(super) fn unfit(attributes: &AttributeTypes) -> Vec<Problem> {
    let problem = |name: &String, message: &str| {
        let place = format!("attribute {name}");
        Problem { place, line: 0, column: 0, message: message.to_owned() }
    };
    let fits = |name: &str| {
        let mut letters = name.chars();
        let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        begins && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let mut problems = Vec::new();
    for name in attributes.keys() {
        if OF_USERS.contains(&name.as_str()) {
            problems.push(problem(
                name,
                "every user has an attribute of this name (issuer, subject, client): take another",
            ));
        } else if !fits(name) {
            problems.push(problem(name, "accepted are ASCII letters, digits and _, not a digit first"));
        }
    }
    problems
}

const SCHEMA: &str = r#"// Who calls. Whoever has no valid token is Anonymous::"anonymous".
entity User in [Group] {
    // Name of the issuer in access.toml.
    issuer: String,
    // The claim `sub`.
    subject: String,
    // The claim `azp`, or else `client_id`.
    client?: String,
    // given
};
entity Anonymous;
entity Application in [Group] {
    name: String,
};
entity Group in [Group];

// What is called: Stage::"hello/staging", Release::"hello/staging/r42".
entity Environment {
    name: String,
};
entity Stage in [Environment] {
    service: String,
    environment: String,
    public: Bool,
};
entity Release in [Stage] {
    number: Long,
};

// Application::"batch", when there is a valid one.
type Known = {
    application?: Application,
};
type Asked = {
    application?: Application,
    method: String,
    // Without the query.
    path: String,
    client: ipaddr,
};
type AskedByRpc = {
    application?: Application,
    method: String,
    path: String,
    client: ipaddr,
    // "pkg.Greeter" and "Hello" of the path "/pkg.Greeter/Hello".
    service: String,
    rpc_method: String,
};

// Knows of the stage: without it, the stage answers like a host that does not exist.
action discover appliesTo {
    principal: [User, Anonymous],
    resource: Stage,
    context: Known,
};
// Calls it. GET, HEAD and OPTIONS read; other methods write; rpc is gRPC; upgrade is WebSocket and the like.
action call;
action read, write, upgrade in [call] appliesTo {
    principal: [User, Anonymous],
    resource: Stage,
    context: Asked,
};
action rpc in [call] appliesTo {
    principal: [User, Anonymous],
    resource: Stage,
    context: AskedByRpc,
};
// Asks a release by its own host (r42--hello...), or sees one before its turn.
action use appliesTo {
    principal: [User, Anonymous],
    resource: Release,
    context: Asked,
};
// A browser's question before a page calls (CORS), and health checks: they carry no credentials.
action preflight, check appliesTo {
    principal: [User, Anonymous],
    resource: Stage,
    context: Asked,
};
"#;
