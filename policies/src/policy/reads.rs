//! What a policy reads of a request, so that decisions can be remembered.
//!
//! Must not know: what is remembered, or for how long.
//!
//! Main function: [`reads`].

use cedar_policy::Policy;
use serde_json::Value;

use super::Reads;

/// What a policy reads, from its JSON form (Cedar's documentation, "JSON policy format"). `has` counts like reading: what is
/// not read is not given, so its absence would be seen. `context` used as a whole counts as everything.
pub(super) fn reads(policy: &Policy) -> Reads {
    let mut reads = Reads::default();
    match policy.to_json() {
        Ok(json) => walk(&json, &mut reads),
        Err(_) => reads = Reads::ALL,
    }
    reads
}

impl Reads {
    /// Everything.
    pub(super) const ALL: Self = Self { method: true, path: true, volatile: true };

    /// What one or the other reads.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            method: self.method || other.method,
            path: self.path || other.path,
            volatile: self.volatile || other.volatile,
        }
    }

    fn of(attribute: &str) -> Self {
        match attribute {
            // It comes with who asks.
            "application" => Self::default(),
            "method" => Self { method: true, ..Self::default() },
            "path" | "service" | "rpc_method" => Self { path: true, ..Self::default() },
            "client" => Self { volatile: true, ..Self::default() },
            _ => Self::ALL,
        }
    }
}

fn walk(json: &Value, found: &mut Reads) {
    match json {
        Value::Object(fields) => {
            if fields.get("Var").is_some_and(|name| name == "context") {
                *found = Reads::ALL;
            }
            for (operator, operands) in fields {
                match attribute_of_context(operator, operands) {
                    Some(attribute) => *found = found.or(Reads::of(attribute)),
                    None => walk(operands, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
        _ => {}
    }
}

/// The attribute in `context.attribute` and in `context has attribute`.
fn attribute_of_context<'a>(operator: &str, operands: &'a Value) -> Option<&'a str> {
    let is_context = operands.get("left")?.get("Var")? == "context";
    if !is_context || !matches!(operator, "." | "has") {
        return None;
    }
    operands.get("attr")?.as_str()
}

#[cfg(test)]
mod tests;
