//! What the tour measured: for people, and as JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::exit::Failure;
use crate::render::numbers;

/// The figures of a tour.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures {
    /// All requests that were sent.
    pub(super) requests: u64,
    /// Of those: status 500 or above, a gRPC error, or no answer.
    pub(super) failed: u64,
    /// By the release that answered; "none": nobody did.
    pub(super) failed_by_release: BTreeMap<String, u64>,
    /// Weights as set and as measured by the clients.
    pub(super) steps: Vec<Step>,
    /// From the command's arrival at the controller until each proxy was ACTIVE.
    pub(super) rollback_ms: BTreeMap<String, f64>,
    /// The first failures.
    pub(super) examples: Vec<String>,
    /// The release that is bad on purpose.
    #[serde(skip)]
    pub(super) bad: String,
}

/// One weight of the tour.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// The release that gets the share.
    pub(super) release: String,
    /// Percent, as set.
    pub(super) set: f64,
    /// Percent, as measured.
    pub(super) measured: f64,
    /// Requests that it was measured by.
    pub(super) requests: u64,
}

impl Figures {
    /// Requests that failed without the bad release having caused it.
    pub(super) fn failed_elsewhere(&self) -> u64 {
        self.failed - self.failed_by_release.get(&self.bad).copied().unwrap_or(0)
    }

    /// Prints what happened.
    ///
    /// # Errors
    /// Nobody reads it.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        tell!("\nWhat happened")?;
        tell!("  {} requests over HTTP/1.1, HTTP/2 and gRPC", numbers::count(self.requests))?;
        for step in &self.steps {
            let Step { release, set, measured, requests } = step;
            tell!("  {release} at {set}%: measured {measured:.2}% of {}", numbers::count(*requests))?;
        }
        let bad = self.failed_by_release.get(&self.bad).copied().unwrap_or(0);
        tell!(
            "  {} requests failed in {}, which is bad on purpose; {} failed otherwise",
            numbers::count(bad),
            self.bad,
            numbers::count(self.failed_elsewhere())
        )?;
        for example in self.examples.iter().filter(|example| !example.starts_with(&format!("{}:", self.bad))) {
            tell!("    {example}")?;
        }
        let times: Vec<_> = self.rollback_ms.iter().map(|(proxy, ms)| format!("{proxy} in {ms:.1} ms")).collect();
        tell!("  the rollback was in force on {}", times.join(", "))
    }
}
