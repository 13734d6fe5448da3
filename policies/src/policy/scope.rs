//! For which stages and actions a policy can count, by its head alone.
//!
//! Must not know: conditions, principals, or which stages there are.
//!
//! INVARIANT: what this says cannot match never matches; a policy that is left out of a cut would not have counted in it.
//!
//! Main type: [`Scope`].

use cedar_policy::{ActionConstraint, EntityTypeName, EntityUid, Policy, ResourceConstraint};
use serde_json::{Value, json};

use super::Action;
use super::words::TYPES;

/// What a policy's head lets it count for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// By [`Action::index`].
    actions: [bool; Action::ALL.len()],
    /// Of which stages, whatever is asked.
    pub(super) stages: Stages,
}

/// A part of all stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stages {
    All,
    /// Those of an environment.
    Environment(Box<str>),
    /// "hello/staging".
    One(Box<str>),
    None,
}

impl Scope {
    pub(super) fn of(policy: &Policy) -> Self {
        let named = named(&policy.action_constraint());
        let (stages, resource) = resource(&policy.resource_constraint());
        Self { actions: Action::ALL.map(|action| named[action.index()] && resource.fits(action)), stages }
    }

    /// Whether it can count for an action.
    pub(super) fn has(&self, action: Action) -> bool {
        self.actions[action.index()]
    }
}

/// The same policy for whoever asks it of the stages and for the actions of its [`Scope`] alone. Cedar builds and evaluates a
/// head anew each time; without action and resource a policy costs two thirds.
///
/// One without conditions gets one that is true and not a literal: Cedar would fold it away, so that it would cost less than
/// others do, and it could be told which kind a hidden stage has.
pub(super) fn without_head(policy: Policy) -> Policy {
    let bare = || {
        let mut json = policy.to_json().ok().filter(|json| is_within(json, DEEPEST))?;
        json["action"] = json!({ "op": "All" });
        if !names_release(&policy.resource_constraint()) {
            json["resource"] = json!({ "op": "All" });
        }
        let conditions = json.get_mut("conditions")?.as_array_mut()?;
        if conditions.is_empty() {
            conditions.push(json!({ "kind": "when", "body": { "!": { "arg": { "Value": false } } } }));
        }
        Policy::from_json(Some(policy.id().clone()), json).ok()
    };
    bare().unwrap_or(policy)
}

/// Deeper ones are evaluated as they were written: reading JSON recurses, with more stack than reading text.
const DEEPEST: usize = 40;

fn is_within(json: &Value, depth: usize) -> bool {
    let within = |value: &Value| depth > 0 && is_within(value, depth - 1);
    match json {
        Value::Object(fields) => fields.values().all(within),
        Value::Array(values) => values.iter().all(within),
        _ => true,
    }
}

/// A stage has many releases, and [`Scope`] does not say which.
fn names_release(constraint: &ResourceConstraint) -> bool {
    match constraint {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => false,
        ResourceConstraint::Eq(id) | ResourceConstraint::In(id) | ResourceConstraint::IsIn(_, id) => {
            *id.type_name() == TYPES.release
        }
    }
}

fn named(constraint: &ActionConstraint) -> [bool; Action::ALL.len()] {
    Action::ALL.map(|action| match constraint {
        ActionConstraint::Any => true,
        // The group "call" itself is never asked for.
        ActionConstraint::Eq(id) => *id == action.entity().uid(),
        ActionConstraint::In(ids) => ids.iter().any(|id| action.is_in(id)),
    })
}

/// What is asked for is a stage, or for `use` one of its releases.
#[derive(Clone, Copy)]
struct Kinds {
    stage: bool,
    release: bool,
}

impl Kinds {
    const BOTH: Self = Self { stage: true, release: true };
    const STAGE: Self = Self { stage: true, release: false };
    const RELEASE: Self = Self { stage: false, release: true };
    const NONE: Self = Self { stage: false, release: false };

    fn of(name: &EntityTypeName) -> Self {
        match name {
            name if *name == TYPES.stage => Self::STAGE,
            name if *name == TYPES.release => Self::RELEASE,
            _ => Self::NONE,
        }
    }

    fn and(self, other: Self) -> Self {
        Self { stage: self.stage && other.stage, release: self.release && other.release }
    }

    fn fits(self, action: Action) -> bool {
        if action == Action::Use { self.release } else { self.stage }
    }
}

fn resource(constraint: &ResourceConstraint) -> (Stages, Kinds) {
    match constraint {
        ResourceConstraint::Any => (Stages::All, Kinds::BOTH),
        ResourceConstraint::Is(name) => (Stages::All, Kinds::of(name)),
        ResourceConstraint::Eq(id) => {
            let (stages, _) = within(id);
            (stages, Kinds::of(id.type_name()))
        }
        ResourceConstraint::In(id) => within(id),
        ResourceConstraint::IsIn(name, id) => {
            let (stages, kinds) = within(id);
            (stages, kinds.and(Kinds::of(name)))
        }
    }
}

/// Whatever is in `id`, itself included.
fn within(id: &EntityUid) -> (Stages, Kinds) {
    let text = id.id().unescaped();
    match id.type_name() {
        name if *name == TYPES.environment => (Stages::Environment(text.into()), Kinds::BOTH),
        name if *name == TYPES.stage => (Stages::One(text.into()), Kinds::BOTH),
        name if *name == TYPES.release => match text.rsplit_once('/') {
            Some((stage, _)) => (Stages::One(stage.into()), Kinds::RELEASE),
            None => (Stages::None, Kinds::NONE),
        },
        _ => (Stages::None, Kinds::NONE),
    }
}

#[cfg(test)]
mod tests;
