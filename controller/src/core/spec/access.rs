//! What operators wrote of who may pass: what environments and stages ask for, and the one file of issuers and policies.

use std::collections::BTreeMap;

use api::fleet::claim_attribute::Type;
use api::{MemberName, Span};
use policies::policy::AttributeTypes;
use serde::{Deserialize, Serialize};

/// What somebody is told who may know of a stage and not call it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// The same as if it did not exist.
    #[default]
    Hidden,
    /// That it may not.
    Explicit,
}

/// What a call has to come with, whatever policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// A valid application.
    pub application: bool,
    /// A valid user.
    pub user: bool,
}

impl Credentials {
    /// Whether it asks for all that `other` asks for.
    pub fn covers(self, other: Self) -> bool {
        self.application >= other.application && self.user >= other.user
    }
}

/// Both.
impl Default for Credentials {
    fn default() -> Self {
        Self { application: true, user: true }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hidden => "hidden",
            Self::Explicit => "explicit",
        })
    }
}

/// As in files.
impl std::fmt::Display for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.application, self.user) {
            (true, true) => "[\"application\", \"user\"]",
            (true, false) => "[\"application\"]",
            (false, true) => "[\"user\"]",
            (false, false) => "[]",
        })
    }
}

/// Most policy documents.
pub const DOCUMENTS_MOST: usize = 256;
/// Longest text of one document, and of the entities, in bytes.
pub const DOCUMENT_BYTES: usize = 1024 * 1024;
/// Longest texts of all files together that one `access.toml` names, in bytes: it becomes one event, and one change for
/// every proxy.
pub const ACCESS_BYTES: usize = 8 * 1024 * 1024;
// INVARIANT: what is accepted here, proxies accept.
const _: () = assert!(DOCUMENTS_MOST <= api::POLICIES_MOST && DOCUMENT_BYTES <= api::POLICY_BYTES);
/// By how much clocks may differ when nobody says otherwise, and at most.
pub const LEEWAY: Span = Span::from_ms(30_000).expect("30 seconds are a span");
/// See [`LEEWAY`].
pub const LEEWAY_MOST: Span = Span::from_ms(5 * 60_000).expect("5 minutes are a span");
/// How often an issuer's keys are fetched when nobody says otherwise, at least and at most.
pub const REFRESH: Span = Span::from_ms(5 * 60_000).expect("5 minutes are a span");
/// See [`REFRESH`].
pub const REFRESH_LEAST: Span = Span::from_ms(30_000).expect("30 seconds are a span");
/// See [`REFRESH`].
pub const REFRESH_MOST: Span = Span::from_ms(86_400_000).expect("a day is a span");

/// Who may pass, for the whole fleet: `access.toml` with the files that it names. One unit: each replaces the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessSpec {
    /// Who issues users' tokens, by name.
    pub issuers: BTreeMap<MemberName, IssuerSpec>,
    /// Policies in Cedar's language, by the document's name.
    pub documents: BTreeMap<String, String>,
    /// Groups within groups, in Cedar's JSON form of entities.
    pub entities: Option<String>,
}

/// Who issues users' tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerSpec {
    /// What `iss` has to be, byte for byte: a URL.
    pub issuer: String,
    /// `aud` has to hold one of them. At least one.
    pub audiences: Vec<String>,
    /// Accepted signatures (RFC 7518 §3.1); empty: all that we know.
    pub algorithms: Vec<String>,
    /// URL of its keys; none: as its configuration says.
    pub jwks: Option<String>,
    /// Who is believed about the server that has them, PEM; none: whom the machine trusts that fetches.
    pub ca: Option<String>,
    /// By how much clocks may differ, at most [`LEEWAY_MOST`].
    pub leeway: Span,
    /// How often keys are fetched when nothing else asks for them.
    pub refresh: Span,
    /// Groups of users.
    pub groups: Vec<GroupRule>,
    /// What policies may read of users, by attribute.
    pub attributes: BTreeMap<String, AttributeRule>,
}

/// A claim that puts users into groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRule {
    /// Its name; dots lead into objects.
    pub claim: String,
    /// What it means.
    pub means: GroupMeaning,
}

/// What the values of a claim say of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupMeaning {
    /// Each is the name of a group, behind this, which may be empty.
    Prefix(String),
    /// This one puts the user into a group; others do not count.
    Value {
        /// The value.
        value: String,
        /// The group.
        group: String,
    },
}

/// A claim that policies may read as an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRule {
    /// Its name; dots lead into objects.
    pub claim: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: AttributeType,
}

/// Type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named after fleet::claim_attribute::Type")]
pub enum AttributeType {
    String,
    Long,
    Bool,
    Strings,
}

impl AccessSpec {
    /// What policies may read of users: attributes of all issuers.
    pub fn attribute_types(&self) -> AttributeTypes {
        let rules = self.issuers.values().flat_map(|issuer| &issuer.attributes);
        rules.map(|(name, rule)| (name.clone(), rule.kind.into())).collect()
    }
}

impl From<AttributeType> for Type {
    fn from(kind: AttributeType) -> Self {
        match kind {
            AttributeType::String => Self::String,
            AttributeType::Long => Self::Long,
            AttributeType::Bool => Self::Bool,
            AttributeType::Strings => Self::Strings,
        }
    }
}

/// As in files.
impl std::fmt::Display for AttributeType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::String => "string",
            Self::Long => "long",
            Self::Bool => "bool",
            Self::Strings => "strings",
        })
    }
}
