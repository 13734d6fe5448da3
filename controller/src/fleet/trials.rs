//! What proxies report of rollouts under way.
//!
//! Must not know: what follows from it.

use std::collections::BTreeMap;
use std::time::Instant;

use api::fleet::Tripped;
use api::{MemberName, StageName};

use super::Fleet;
use crate::core::observe::RolloutSeen;
use crate::core::state::CheckSeen;

impl Fleet {
    /// A proxy has stopped a release by itself. True if that is one that is under way.
    pub(crate) fn tripped(&self, name: &MemberName, connection: u64, told: &Tripped) -> bool {
        let mut inner = self.lock();
        let is_its = inner.proxies.get(name).is_some_and(|proxy| proxy.connection == connection);
        is_its && inner.trials.trip(name, told)
    }

    /// What a check said of a rollout, by number and step. `said`: for people, why it is not seen otherwise; empty: nothing.
    pub(crate) fn checked(&self, stage: &StageName, of: (u64, u32), check: &str, seen: CheckSeen, said: &str) {
        self.lock().trials.check(stage, of, check, seen, said);
    }

    /// What the checks of a rollout's step said last, by name; empty: nothing more than how they are seen.
    pub(crate) fn said(&self, stage: &StageName, of: (u64, u32)) -> BTreeMap<String, String> {
        self.lock().trials.said(stage, of)
    }

    /// All that is seen of rollouts.
    pub(crate) fn rollouts(&self) -> BTreeMap<StageName, RolloutSeen> {
        self.lock().trials.seen(Instant::now())
    }
}
