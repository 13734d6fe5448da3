//! Who may pass, as proxies are told: issuers, policies, entities and applications.

use api::fleet::{self, Resource};
use api::{MemberName, SCHEMA_ACCESS, Span};
use prost::Message;

use super::resource;
use crate::core::spec::{AccessSpec, GroupMeaning, GroupRule, IssuerSpec};
use crate::core::state::{Application, State};

/// Kinds of what [`of_access`] gives.
pub const ACCESS_KINDS: [&str; 3] = ["entities", "issuer", "policy"];

/// Issuers, policies and entities.
pub fn of_access(spec: &AccessSpec) -> Vec<Resource> {
    let issuers = spec.issuers.iter().map(|(name, spec)| told("issuer", name.as_str(), &issuer(spec)));
    let documents = spec.documents.iter();
    let documents = documents.map(|(name, text)| told("policy", name, &fleet::Policy { text: text.clone() }));
    let entities = spec.entities.iter();
    let entities = entities.map(|json| told("entities", "entities", &fleet::Entities { json: json.clone() }));
    issuers.chain(documents).chain(entities).collect()
}

/// An application; none when there is no such, or it was revoked.
pub fn of_application(state: &State, name: &MemberName) -> Option<Resource> {
    let application = state.applications.get(name).filter(|application| !application.revoked)?;
    Some(told("application", name.as_str(), &message(application)))
}

/// The keys by which proxies assert who calls.
pub fn of_assertion(keys: &fleet::Assertion) -> Resource {
    told("assertion", "assertion", keys)
}

/// The name of the key with which proxies seal why they answered 404.
pub fn of_explain(key: &fleet::Explain) -> Resource {
    told("explain", "explain", key)
}

fn told(kind: &str, name: &str, body: &impl Message) -> Resource {
    Resource { schema: SCHEMA_ACCESS, ..resource(kind, name.to_owned(), body) }
}

/// As it is told to proxies.
pub fn issuer(spec: &IssuerSpec) -> fleet::Issuer {
    let ms = |span: Span| u32::try_from(span.ms()).unwrap_or(u32::MAX);
    let attribute = |(attribute, rule): (&String, &crate::core::spec::AttributeRule)| fleet::ClaimAttribute {
        attribute: attribute.clone(),
        claim: rule.claim.clone(),
        r#type: fleet::claim_attribute::Type::from(rule.kind).into(),
    };
    fleet::Issuer {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        algorithms: spec.algorithms.clone(),
        jwks_url: spec.jwks.clone().unwrap_or_default(),
        ca_pem: spec.ca.clone().unwrap_or_default(),
        leeway_ms: ms(spec.leeway),
        refresh_ms: ms(spec.refresh),
        groups: spec.groups.iter().map(group).collect(),
        attributes: spec.attributes.iter().map(attribute).collect(),
    }
}

fn group(rule: &GroupRule) -> fleet::GroupRule {
    let (value, group) = match &rule.means {
        GroupMeaning::Prefix(prefix) => (String::new(), prefix.clone()),
        GroupMeaning::Value { value, group } => (value.clone(), group.clone()),
    };
    fleet::GroupRule { claim: rule.claim.clone(), value, group }
}

/// As it is told to proxies.
pub fn message(application: &Application) -> fleet::Application {
    let key = |key: &crate::core::state::ApiKey| fleet::ApiKey {
        sha256: key.sha256.as_bytes().to_vec(),
        until_ms: key.until_ms.unwrap_or_default(),
    };
    let client = |(issuer, client): &(MemberName, String)| fleet::IssuedClient {
        issuer: issuer.to_string(),
        client_id: client.clone(),
    };
    fleet::Application {
        keys: application.keys.iter().map(key).collect(),
        certificates: application.certificates.iter().cloned().collect(),
        clients: application.clients.iter().map(client).collect(),
        groups: application.groups.iter().cloned().collect(),
    }
}
