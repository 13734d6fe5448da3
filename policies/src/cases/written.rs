//! Parts of a case as people write them.
//!
//! Must not know: policies, or what becomes of a case.
//!
//! Main types: [`Does`], [`StageName`], [`Given`].

use api::fleet::claim_attribute::Type;
use serde::Deserialize;

use crate::credential::Attribute;
use crate::policy::{Action, AttributeTypes};
use crate::verdict::{Named, Wanted};

/// What somebody does: "GET /path", "rpc /pkg.Service/Method", "upgrade /path", "preflight /path", "check /path",
/// "discover", "use r42", or "read" and "write" without saying more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Does {
    pub(super) action: Action,
    pub(super) release: Option<u32>,
    pub(super) method: String,
    pub(super) path: String,
}

/// A stage, as "service/environment".
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct StageName {
    pub(super) service: String,
    pub(super) environment: String,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "accepted are a string, an integer, true, false, or a list of strings")]
#[allow(missing_docs, reason = "named after fleet::claim_attribute::Type")]
pub enum Given {
    String(String),
    Long(i64),
    Bool(bool),
    Strings(Vec<String>),
}

// === impl Does ===

impl Does {
    /// As it is weighed; None: only whether the stage may be known.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let plain = Wanted { action: self.action, exempt: None, release: Named::Nothing };
        match self.action {
            Action::Discover => None,
            // A page asks before it calls, and a checker reads.
            Action::Preflight | Action::Check => {
                Some(Wanted { action: Action::Read, exempt: Some(self.action), ..plain })
            }
            Action::Use => Some(Wanted { action: Action::Read, release: Named::Known, ..plain }),
            Action::Read | Action::Write | Action::Rpc | Action::Upgrade => Some(plain),
        }
    }

    fn new(action: Action, method: &str, path: &str) -> Self {
        Self { action, release: None, method: method.to_owned(), path: path.to_owned() }
    }
}

impl TryFrom<String> for Does {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let path = if rest.is_empty() { "/" } else { rest };
        let refused = || {
            format!(
                "\"{}\": accepted are \"discover\", \"read\", \"write\", \"GET /path\" or another method in capitals, \
                 \"rpc /pkg.Service/Method\", \"upgrade /path\", \"preflight /path\", \"check /path\", \"use r42\"",
                text.escape_debug()
            )
        };
        let is_path = path.starts_with('/') && !path.contains(char::is_whitespace);
        let is_method = !word.is_empty() && word.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'-');
        match word {
            "discover" if rest.is_empty() => Ok(Self::new(Action::Discover, "GET", "/")),
            "read" if is_path => Ok(Self::new(Action::Read, "GET", path)),
            "write" if is_path => Ok(Self::new(Action::Write, "POST", path)),
            "rpc" if is_path && !rest.is_empty() => Ok(Self::new(Action::Rpc, "POST", path)),
            "upgrade" if is_path => Ok(Self::new(Action::Upgrade, "GET", path)),
            "preflight" if is_path => Ok(Self::new(Action::Preflight, "OPTIONS", path)),
            "check" if is_path => Ok(Self::new(Action::Check, "GET", path)),
            "use" => {
                let number = rest.strip_prefix('r').and_then(|number| number.parse().ok()).ok_or_else(refused)?;
                Ok(Self { release: Some(number), ..Self::new(Action::Use, "GET", "/") })
            }
            method if is_method && is_path => Ok(Self::new(Action::of_method(method), method, path)),
            _ => Err(refused()),
        }
    }
}

// === impl StageName ===

impl TryFrom<String> for StageName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((service, environment)) if !service.is_empty() && !environment.is_empty() => {
                Ok(Self { service: service.to_owned(), environment: environment.to_owned() })
            }
            _ => Err(format!("\"{}\" is no stage: accepted is \"service/environment\"", text.escape_debug())),
        }
    }
}

// === impl Given ===

impl Given {
    /// As an attribute of the type that the schema has for this name. A string counts as a list of one, as in tokens.
    pub(super) fn of_type(&self, name: &str, types: &AttributeTypes) -> Result<Attribute, String> {
        let given = types.get(name).ok_or_else(|| {
            let known: Vec<_> = types.keys().map(|known| format!("\"{known}\"")).collect();
            let known = if known.is_empty() { "no issuer gives any".to_owned() } else { known.join(", ") };
            format!("no issuer gives users the attribute \"{}\" (there are: {known})", name.escape_debug())
        })?;
        match (given, self) {
            (Type::String, Self::String(value)) => Ok(Attribute::String(value.clone())),
            (Type::Long, Self::Long(value)) => Ok(Attribute::Long(*value)),
            (Type::Bool, Self::Bool(value)) => Ok(Attribute::Bool(*value)),
            (Type::Strings, Self::String(value)) => Ok(Attribute::Strings(vec![value.clone()])),
            (Type::Strings, Self::Strings(values)) => Ok(Attribute::Strings(values.clone())),
            (other, _) => Err(format!("the attribute \"{name}\" is of type {}", type_name(*other))),
        }
    }
}

fn type_name(of_type: Type) -> &'static str {
    match of_type {
        Type::Long => "long",
        Type::Bool => "bool",
        Type::Strings => "strings",
        Type::String | Type::Unspecified => "string",
    }
}
