//! Policies that are asked together, and those of them that cannot match a caller, left out.
//!
//! Must not know: stages, or what is asked.
//!
//! Cedar evaluates every policy of a set, one after the other. A company has policies for many groups, and a caller is in few
//! of them. Once it may be seen in the time of an answer which those are, the others are not evaluated.
//!
//! Main type: [`Asked`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cedar_policy::{
    AuthorizationError, Authorizer, Entities, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint, Request,
    Response,
};

use super::words::TYPES;
use super::{Decision, Reads};

/// Asking one more set costs as much as evaluating so many policies, in round numbers (`examples/costs.rs`).
const SET_COSTS: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Asked {
    all: PolicySet,
    /// The same, by group; `None`: each caller is asked with all.
    apart: Option<Apart>,
    /// How each is shown.
    names: HashMap<PolicyId, Arc<str>>,
    pub(super) reads: Reads,
}

#[derive(Debug, Default)]
struct Apart {
    /// Those for nobody but who is in a group.
    by_group: HashMap<EntityUid, PolicySet>,
    others: PolicySet,
}

impl Asked {
    /// `is_equal`: every caller is asked with all of them.
    pub(super) fn new(reads: Reads, is_equal: bool) -> Self {
        Self { reads, apart: (!is_equal).then(Apart::default), ..Self::default() }
    }

    /// `name`: how it is shown.
    pub(super) fn add(&mut self, policy: Policy, name: Option<Arc<str>>) {
        self.names.extend(name.map(|name| (policy.id().clone(), name)));
        if let Some(Apart { by_group, others }) = &mut self.apart {
            let set = match group(&policy) {
                Some(group) => by_group.entry(group).or_default(),
                None => others,
            };
            add(set, policy.clone());
        }
        add(&mut self.all, policy);
    }

    /// How many are evaluated at most.
    pub(super) fn count(&self) -> usize {
        self.all.num_of_policies()
    }

    /// Asks of somebody who is in these groups. Never allows when anything failed.
    pub(super) fn answer(&self, request: &Request, entities: &Entities, groups: &HashSet<EntityUid>) -> Decision {
        let ask = |set: &PolicySet| Authorizer::new().is_authorized(request, set, entities);
        let answers: Vec<Response> = match &self.apart {
            Some(Apart { by_group, others }) => {
                let own = groups.iter().filter_map(|group| by_group.get(group));
                let sets: Vec<_> = own.chain((!others.is_empty()).then_some(others)).collect();
                if sets.iter().map(|set| set.num_of_policies() + SET_COSTS).sum::<usize>() < self.count() + SET_COSTS {
                    sets.into_iter().map(ask).collect()
                } else {
                    vec![ask(&self.all)]
                }
            }
            None => vec![ask(&self.all)],
        };
        self.together(&answers)
    }

    /// What one evaluation of all would have said: one that forbids outweighs every one that permits.
    fn together(&self, answers: &[Response]) -> Decision {
        let is_permit = |answer: &&Response| answer.decision() == cedar_policy::Decision::Allow;
        let reasons = |answer: &Response| answer.diagnostics().reason().map(|id| self.name(id)).collect::<Vec<_>>();
        let mut errors: Vec<String> =
            answers.iter().flat_map(|answer| answer.diagnostics().errors()).map(|error| self.failed(error)).collect();
        errors.sort_unstable();
        let mut policies: Vec<_> = answers.iter().filter(|answer| !is_permit(answer)).flat_map(reasons).collect();
        let is_forbidden = !policies.is_empty();
        if !is_forbidden {
            policies = answers.iter().flat_map(reasons).collect();
        }
        policies.sort_unstable();
        // INVARIANT: Cedar leaves out what fails, also a policy that forbids. Here nothing that failed ends in a yes.
        let is_allowed = errors.is_empty() && !is_forbidden && answers.iter().any(|answer| is_permit(&answer));
        Decision { is_allowed, policies, errors }
    }

    fn failed(&self, error: &AuthorizationError) -> String {
        match error {
            AuthorizationError::PolicyEvaluationError(failed) => {
                format!("{}: {}", self.name(failed.policy_id()), failed.inner())
            }
        }
    }

    fn name(&self, id: &PolicyId) -> Arc<str> {
        self.names.get(id).cloned().unwrap_or_else(|| id.to_string().into())
    }
}

/// The group that a caller has to be in, or the policy does not match, whatever else it says.
fn group(policy: &Policy) -> Option<EntityUid> {
    match policy.principal_constraint() {
        PrincipalConstraint::In(id) | PrincipalConstraint::IsIn(_, id) if *id.type_name() == TYPES.group => Some(id),
        _ => None,
    }
}

fn add(set: &mut PolicySet, policy: Policy) {
    set.add(policy).expect("ids are a document's name with a number, `public`, and `~` with a number");
}
