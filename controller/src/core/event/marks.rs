//! Releases that cannot be left unasked, as a person says it.

use std::fmt;

use super::Event;
use crate::core::back::named;
use crate::core::state::{Frozen, Marked};

impl Event {
    pub(super) fn sentence_of_mark(&self) -> String {
        match self {
            Self::ReleaseMarked { release, reason } => format!("{release} was marked not reversible: {reason}"),
            Self::ReleaseUnmarked { release } => format!("{release} is no longer marked not reversible"),
            Self::MarksPassed { stage, to, marks } => {
                format!("{stage} may go back to {to} past {}: somebody said so", named(marks))
            }
            // INVARIANT: `sentence` words all others.
            other => other.kind().replace('_', " "),
        }
    }

    /// Of a rollout that would have ended by itself.
    pub(super) fn sentence_of_held(&self, held: &Marked) -> String {
        let Self::RolloutFrozen { stage, release, share, why, .. } = self else { return String::new() };
        format!(
            "the rollout of {release} in {stage} is frozen at {share}: {why}{}: \
             `pointsman rollout abort {stage} --past {}` takes it out all the same, resume, skip or weight goes on",
            because(held),
            held.release
        )
    }
}

/// Why nothing moves, and why it did not end by itself.
impl fmt::Display for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.as_ref().map(because).unwrap_or_default();
        write!(f, "{}{held}", self.why)
    }
}

fn because(held: &Marked) -> String {
    format!("; it does not go out by itself because of {}", named(std::slice::from_ref(held)))
}
