//! Documents to policies that were checked, each with its name, its scope, and what it reads.
//!
//! Must not know: stages, or who asks.
//!
//! Main types: [`Checker`], [`ReadDocument`], [`Written`].

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{Entities, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::reads::reads;
use super::scope::{self, Scope};
use super::words::TYPES;
use super::{AttributeTypes, Document, Place, Reads, text, words};
use crate::Problem;

/// How far a policy may look: attributes and groups of who calls and of what is called, and not of what those lead to. So a
/// question needs no more than these entities.
const LEVEL: u32 = 1;

/// A schema, ready to check against.
pub(super) struct Checker {
    pub(super) attributes: AttributeTypes,
    validator: Validator,
}

/// A document that was read and is right.
#[derive(Debug)]
pub(super) struct ReadDocument {
    pub(super) document: Document,
    pub(super) policies: Vec<Written>,
    /// What is right and never applies.
    pub(super) warnings: Vec<Problem>,
}

/// One policy.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// As it is shown: "staff.cedar:12", or by its `@id`.
    pub(super) name: Arc<str>,
    /// What is evaluated: nothing of its head is left that is true wherever `scope` lets it stand.
    pub(super) policy: Policy,
    pub(super) scope: Scope,
    pub(super) reads: Reads,
    pub(super) place: Place,
    /// Environments that it names, each once.
    pub(super) environments: Vec<String>,
}

// === impl Checker ===

impl Checker {
    /// # Errors
    /// Attributes that no schema can have.
    pub(super) fn new(attributes: &AttributeTypes) -> Result<Self, Vec<Problem>> {
        let problems = words::unfit(attributes);
        if !problems.is_empty() {
            return Err(problems);
        }
        let schema =
            Schema::from_str(&words::schema(attributes)).expect("the schema is ours, its attributes were checked");
        Ok(Self { attributes: attributes.clone(), validator: Validator::new(schema) })
    }

    /// Reads entities as they are written in JSON, with those of the schema.
    ///
    /// # Errors
    /// What Cedar says of them.
    pub(super) fn entities(&self, json: &str) -> Result<Entities, String> {
        Entities::from_json_str(json, Some(self.validator.schema())).map_err(|error| {
            let error = DetailedError::from(&error);
            let help = error.help.map(|help| format!(": {help}")).unwrap_or_default();
            format!("{}{help}", error.message)
        })
    }

    /// Reads one document.
    ///
    /// # Errors
    /// Everything that is wrong, in the order in which it stands.
    pub(super) fn read(&self, document: &Document) -> Result<ReadDocument, Vec<Problem>> {
        let Document { name, text } = document;
        let mut problems = Vec::new();
        let pieces = text::policies(name, text)?;
        let mut read = ReadDocument { document: document.clone(), policies: Vec::new(), warnings: Vec::new() };
        for (number, piece) in pieces.iter().enumerate() {
            let id = PolicyId::new(format!("{name}#{number}"));
            let at = |error: &DetailedError| problem(document, piece.at, &id, error);
            match Policy::parse(Some(id.clone()), piece.text) {
                Err(errors) => problems.extend(errors.iter().map(|error| at(&DetailedError::from(error)))),
                Ok(policy) => match self.check(policy.clone()) {
                    Checked { errors, .. } if !errors.is_empty() => problems.extend(errors.iter().map(at)),
                    Checked { warnings, .. } => {
                        read.warnings.extend(warnings.iter().map(at));
                        let (line, column) = text::place(text, piece.at);
                        read.policies.push(Written::new(policy, Place { document: name.clone(), line, column }));
                    }
                },
            }
        }
        read.warnings = one_each(read.warnings);
        let problems = one_each(problems);
        if problems.is_empty() { Ok(read) } else { Err(problems) }
    }

    fn check(&self, policy: Policy) -> Checked {
        let set = PolicySet::from_policies([policy]).expect("one policy has no other of its id");
        let found = self.validator.validate_with_level(&set, ValidationMode::Strict, LEVEL);
        Checked {
            errors: found.validation_errors().map(DetailedError::from).collect(),
            warnings: found.validation_warnings().map(DetailedError::from).collect(),
        }
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Checker").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

struct Checked {
    errors: Vec<DetailedError>,
    warnings: Vec<DetailedError>,
}

// === impl Written ===

impl Written {
    fn new(policy: Policy, place: Place) -> Self {
        let document = &place.document;
        let name = match policy.annotation("id").filter(|id| !id.is_empty()) {
            Some(id) => format!("{document} \"{}\"", id.escape_debug()),
            None => format!("{document}:{}", place.line),
        };
        let (scope, reads, environments) = (Scope::of(&policy), reads(&policy), environments(&policy));
        let policy = scope::without_head(policy);
        Self { name: name.into(), policy, scope, reads, place, environments }
    }
}

fn environments(policy: &Policy) -> Vec<String> {
    let literals = policy.entity_literals();
    let named = literals.iter().filter_map(|id| {
        let text = id.id().unescaped();
        match id.type_name() {
            name if *name == TYPES.environment => Some(text),
            name if *name == TYPES.stage || *name == TYPES.release => text.split('/').nth(1),
            _ => None,
        }
    });
    let named: BTreeSet<_> = named.map(str::to_owned).collect();
    named.into_iter().collect()
}

/// What Cedar says of the policy that begins at byte `from`, in one line.
fn problem(document: &Document, from: usize, id: &PolicyId, error: &DetailedError) -> Problem {
    let label = error.source_locations.first();
    let at = from + label.map_or(0, |label| label.loc.start);
    text::problem(&document.name, &document.text, at, message(error, id))
}

/// In the order in which they stand, one for each place: Cedar says the same of each action that a policy is for.
fn one_each(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems
        .sort_by(|one, other| (one.line, one.column, &one.message).cmp(&(other.line, other.column, &other.message)));
    problems.dedup_by_key(|problem| (problem.line, problem.column));
    problems
}

fn message(error: &DetailedError, id: &PolicyId) -> String {
    let label = error.source_locations.first().and_then(|label| label.label.as_deref());
    let mut message = error.message.replace(&format!("for policy `{id}`, "), "");
    for more in [label, error.help.as_deref()].into_iter().flatten() {
        message.push_str(": ");
        message.push_str(more);
    }
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
