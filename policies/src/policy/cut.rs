//! All policies cut into what each stage of an environment is asked with.
//!
//! Must not know: who asks.
//!
//! Cedar's evaluation costs the same for every policy in a set, so a set holds what its stage and action can match alone.
//!
//! Main function: [`cut`].

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use cedar_policy::{Policy, PolicyId};

use super::asked::Asked;
use super::groups::Groups;
use super::read::Written;
use super::scope::Stages;
use super::{Action, Cut, Reads, StageFacts, StagePolicies};

/// Questions that are put before it is known whether the caller may know of the stage.
///
/// INVARIANT: for each of these, all stages of an environment and the stage that does not exist have the same number of
/// policies, all of which are evaluated, and count as reading the same of a request. Otherwise the time of an answer, also
/// of one that is remembered, would tell a hidden stage from none. Stages with fewer get policies that never match and are
/// built like those that people write.
const EQUAL: [Action; 3] = [Action::Discover, Action::Preflight, Action::Check];

/// The service of the stage that does not exist. No service can have this name.
const NOWHERE: &str = "~";

/// Never matches, whatever groups a token brings: nobody who calls is in an environment.
static PADDING: LazyLock<Policy> = LazyLock::new(|| {
    Policy::from_str(r#"permit (principal in Environment::"~", action, resource) when { !false };"#)
        .expect("it is ours")
});

/// What `public = true` means: `permit (principal, action, resource == Stage::"hello/staging")`. It stands in the sets of its
/// own stage alone, so it need not name it, and is read once.
static PUBLIC: LazyLock<Policy> =
    LazyLock::new(|| Policy::from_str("permit (principal, action, resource is Stage);").expect("it is ours"));

/// Which policies stand in a set: equal picks share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pick {
    /// By place among all.
    policies: Vec<usize>,
    is_public: bool,
    /// See [`EQUAL`].
    is_equal: bool,
    padding: usize,
    /// What it counts as reading, whatever its policies do.
    reads: Reads,
}

type Picks = [Pick; Action::ALL.len()];

pub(super) fn cut(written: &[&Written], groups: &Arc<Groups>, environment: &str, stages: &[StageFacts]) -> Cut {
    let by_stages = ByStages::new(written, environment);
    let nowhere = StageFacts { service: NOWHERE.into(), public: false };
    let all = stages.iter().chain([&nowhere]);
    let mut picks: Vec<(&StageFacts, Picks)> = all.map(|facts| (facts, by_stages.pick(facts))).collect();
    for action in EQUAL {
        let most = picks.iter().map(|(_, picks)| picks[action.index()].count()).max().unwrap_or(0);
        let read = |(_, picks): &(_, Picks)| picks[action.index()].read(written);
        let reads = picks.iter().map(read).fold(Reads::default(), Reads::or);
        for (_, picks) in &mut picks {
            let pick = &mut picks[action.index()];
            (pick.padding, pick.reads) = (most - pick.count(), reads);
        }
    }
    let mut sets = BTreeMap::new();
    let mut made = picks.into_iter().map(|(facts, picks)| {
        let asked = picks.map(|pick| sets.entry(pick).or_insert_with_key(|pick| Arc::new(pick.asked(written))).clone());
        Arc::new(StagePolicies::new(facts, environment, asked, Arc::clone(groups)))
    });
    let known = stages.iter().map(|facts| Arc::clone(&facts.service)).zip(made.by_ref()).collect();
    Cut { stages: known, unknown: made.next().expect("the stage that does not exist was put last") }
}

/// Policies that can match in an environment.
struct ByStages<'a> {
    written: &'a [&'a Written],
    environment: &'a str,
    /// In every stage.
    everywhere: Vec<usize>,
    /// By stage.
    one: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> ByStages<'a> {
    fn new(written: &'a [&'a Written], environment: &'a str) -> Self {
        let mut found = Self { written, environment, everywhere: Vec::new(), one: BTreeMap::new() };
        for (place, policy) in written.iter().enumerate() {
            match &policy.scope.stages {
                Stages::All => found.everywhere.push(place),
                Stages::Environment(name) if **name == *environment => found.everywhere.push(place),
                Stages::One(stage) => found.one.entry(stage).or_default().push(place),
                Stages::Environment(_) | Stages::None => {}
            }
        }
        found
    }

    fn pick(&self, facts: &StageFacts) -> Picks {
        let own = self.one.get(format!("{}/{}", facts.service, self.environment).as_str());
        let all = || self.everywhere.iter().chain(own.into_iter().flatten()).copied();
        Action::ALL.map(|action| Pick {
            policies: all().filter(|place| self.written[*place].scope.has(action)).collect(),
            // Of releases it says nothing: they are no stages.
            is_public: facts.public && action != Action::Use,
            is_equal: EQUAL.contains(&action),
            padding: 0,
            reads: Reads::default(),
        })
    }
}

// === impl Pick ===

impl Pick {
    fn count(&self) -> usize {
        self.policies.len() + usize::from(self.is_public)
    }

    /// What its policies read.
    fn read(&self, written: &[&Written]) -> Reads {
        self.policies.iter().map(|place| written[*place].reads).fold(Reads::default(), Reads::or)
    }

    fn asked(&self, written: &[&Written]) -> Asked {
        let mut asked = Asked::new(self.reads.or(self.read(written)), self.is_equal);
        for place in &self.policies {
            let Written { name, policy, .. } = written[*place];
            asked.add(policy.clone(), Some(Arc::clone(name)));
        }
        if self.is_public {
            asked.add(PUBLIC.new_id(PolicyId::new("public")), Some("public".into()));
        }
        for number in 0..self.padding {
            asked.add(PADDING.new_id(PolicyId::new(format!("~{number}"))), None);
        }
        asked
    }
}

#[cfg(test)]
mod tests;
