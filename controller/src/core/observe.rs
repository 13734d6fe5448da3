//! What agents, proxies and builders report: true for the moment, never written down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use api::{MemberName, ReleaseName, ReleaseNumber, StageName};

/// The moment's facts, kept up to date by the drivers.
#[derive(Debug, Clone, Default)]
pub struct Observations {
    /// Agents that are connected, with what they run.
    pub agents: BTreeMap<MemberName, BTreeMap<String, InstanceSeen>>,
    /// Draining releases that no proxy of the fleet knows or serves any more.
    pub drained: BTreeSet<(StageName, ReleaseNumber)>,
    /// Builds that run now.
    pub building: BTreeSet<ReleaseName>,
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
