//! For whom: a user as a valid token describes one.
//!
//! Must not know: tokens.
//!
//! Main type: [`User`].

use std::collections::BTreeMap;
use std::sync::Arc;

/// A user whose token is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name of the issuer: "corp".
    pub issuer: Arc<str>,
    /// `sub`, 1 to 255 bytes.
    pub subject: String,
    /// `azp`, or else `client_id`, 1 to 255 bytes.
    pub client: Option<String>,
    /// Groups by the issuer's rules, each once, in order.
    pub groups: Vec<Arc<str>>,
    /// Attributes by the issuer's rules; what a token does not have is not there.
    pub attributes: BTreeMap<Arc<str>, Attribute>,
    /// `exp` and the leeway: the first second, since the Unix epoch, in which the token does not count any more.
    pub until_s: u64,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after fleet::claim_attribute::Type")]
pub enum Attribute {
    String(String),
    Long(i64),
    Bool(bool),
    Strings(Vec<String>),
}
