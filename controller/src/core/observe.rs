//! What agents, proxies and builders report: true for the moment, never written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use api::{MemberName, ReleaseName, ReleaseNumber, ServiceName, Share, StageName};

use super::state::{CheckSeen, Wanted};
use crate::judge::{Answered, Evidence, Measure, Verdict};

/// The moment's facts, kept up to date by the drivers.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// Agents that are connected, with what they run.
    pub agents: BTreeMap<MemberName, BTreeMap<String, InstanceSeen>>,
    /// Draining releases that no proxy of the fleet knows or serves any more.
    pub drained: BTreeSet<(StageName, ReleaseNumber)>,
    /// Builds that run now.
    pub building: BTreeSet<ReleaseName>,
    /// Those of them that were told to end.
    pub ending: BTreeSet<ReleaseName>,
    /// Heads of services' branches that nobody has asked for yet, as a look at the repository found them.
    pub heads: BTreeMap<ServiceName, Wanted>,
    /// What goes to a registry now.
    pub transfers: BTreeMap<ReleaseName, Transfer>,
    /// What is seen of the rollout under way in a stage, or of what is watched after it.
    pub rollouts: BTreeMap<StageName, RolloutSeen>,
}

/// Bytes on their way to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The component, and the environment if it is for one.
    pub what: String,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Of so many.
    pub all_bytes: u64,
}

/// What proxies, the judge and checks say about one rollout now. Begins empty with each number: what was seen of another is
/// nothing for this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSeen {
    /// `Rollout::number` or `Watching::number` that it is about.
    pub rollout: u64,
    /// `Rollout::at`: the step in which `requests` and `checks` were counted; both begin anew with each step.
    pub step: u32,
    /// Judged requests of the release that were dealt out since the step began.
    pub requests: u64,
    /// Of the step's least time, so many milliseconds are left although they have passed: the controller was away meanwhile.
    pub least_left_ms: u64,
    /// What the judge says: worse, of all that was counted since the rollout has its number; no worse, since the step began.
    pub verdict: Verdict,
    /// What it goes by.
    pub evidence: Evidence,
    /// A proxy has stopped the release.
    pub tripped: Option<TrippedSeen>,
    /// Whether the release's 95 % of the last reports is at most 1.5 times that of the reports before. True while there is
    /// nothing to compare.
    pub is_flat: bool,
    /// By name; what is missing has not answered since the step began.
    pub checks: BTreeMap<String, CheckSeen>,
    /// Watching: a promise that is broken.
    pub breach: Option<BreachSeen>,
    /// 95 % of what the stable release answered lately took less, in microseconds; none: too few to say. Looked at only while
    /// `Rollout::slow_us` is none.
    pub stable_p95_us: Option<u64>,
}

/// A proxy that stopped a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrippedSeen {
    /// Its name.
    pub proxy: MemberName,
    /// Failed requests of one worker.
    pub failures: u32,
    /// Among so many.
    pub among: u32,
}

/// A promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreachSeen {
    /// In this.
    pub by: Measure,
    /// What speaks for that: counted since nothing did.
    pub counted: Answered,
    /// What the objective allows.
    pub allowed: Share,
}

impl RolloutSeen {
    /// Nothing was seen yet.
    pub fn nothing(rollout: u64, step: u32) -> Self {
        Self {
            rollout,
            step,
            requests: 0,
            least_left_ms: 0,
            verdict: Verdict::NotYet { likely_requests: None },
            evidence: Evidence::default(),
            tripped: None,
            is_flat: true,
            checks: BTreeMap::new(),
            breach: None,
            stable_p95_us: None,
        }
    }
}

/// One instance as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// Passes its health check.
    pub healthy: bool,
    /// Where proxies reach it; none until it has a port.
    pub address: Option<SocketAddr>,
    /// "starting", "healthy", "backoff"...: for people.
    pub state: &'static str,
    /// Last failure; empty: none.
    pub problem: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// Name of an instance: "hello/production/r42/web".
pub fn instance_id(stage: &StageName, release: ReleaseNumber, component: &api::ComponentName) -> String {
    format!("{stage}/{release}/{component}")
}
