//! What the tour measured: for people, and as JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

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
    /// How the bad release left; None: the tour did not come that far.
    pub(super) stopped: Option<Stopped>,
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

/// The end of a rollout that nobody looked after.
#[derive(Debug, Serialize)]
pub(super) struct Stopped {
    /// "r3".
    pub(super) release: String,
    /// Who stopped it.
    pub(super) by: String,
    /// "worse": the judge; "tripped": a proxy; "check"; as the record has it.
    pub(super) cause: String,
    /// Percent that it had at most.
    pub(super) reached: f64,
    /// From its first share to its last.
    pub(super) in_for_ms: u64,
    /// Requests that it answered, as the clients counted them.
    pub(super) requests: u64,
    /// Of those: failed.
    pub(super) failed: u64,
}

impl Stopped {
    /// By what `explain rollout` says; the clients' counts are 0. None: it was not rolled back.
    pub(super) fn from_record(explained: &Value) -> Option<Self> {
        let moments = explained["moments"].as_array()?;
        let end = moments.iter().rev().find(|moment| moment["kind"] == "rolled_back")?;
        let share = |moment: &Value| moment["share_ppm"].as_u64().unwrap_or(0);
        let entered = moments.iter().find(|moment| share(moment) > 0)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Self {
            release: format!("r{}", explained["release"]),
            by: text(&end["by"]),
            cause: text(&end["cause"]),
            reached: moments.iter().map(share).max().unwrap_or(0) as f64 / 10_000.0,
            in_for_ms: end["at_ms"].as_u64()?.saturating_sub(entered["at_ms"].as_u64()?),
            requests: 0,
            failed: 0,
        })
    }

    fn tell(&self) -> Result<(), Failure> {
        let Self { release, by, reached, requests, failed, .. } = self;
        let seconds = self.in_for_ms as f64 / 1_000.0;
        let [requests, failed] = [*requests, *failed].map(numbers::count);
        tell!("  {release} was in for {seconds:.1} s, at {reached}% at most, and was stopped by the {by}")?;
        tell!("  it answered {requests} requests and failed {failed} of them")
    }
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
        let times: Vec<_> = self.rollback_ms.iter().map(|(proxy, ms)| format!("{proxy} in {ms:.1} ms")).collect();
        tell!("  the rollback by hand was in force on {}", times.join(", "))?;
        self.stopped.iter().try_for_each(Stopped::tell)?;
        tell!("  {} requests failed otherwise", numbers::count(self.failed_elsewhere()))?;
        let own = format!("{}:", self.bad);
        let mut others = self.examples.iter().filter(|example| !example.starts_with(&own));
        others.try_for_each(|example| tell!("    {example}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn explained(end: &Value) -> Value {
        json!({ "stage": "hello/production", "release": 3, "moments": [
            { "kind": "promoted", "at_ms": 1_000, "by": "operator" },
            { "kind": "share_set", "at_ms": 2_000, "by": "controller", "share_ppm": 10_000 },
            { "kind": "step_taken", "at_ms": 9_000, "by": "controller", "cause": "earned", "share_ppm": 100_000 },
            end,
        ] })
    }

    #[test]
    fn rollout_that_was_stopped_is_told_by_its_record() {
        let back = |by: &str, cause: &str| json!({ "kind": "rolled_back", "at_ms": 9_500, "by": by, "cause": cause });
        for (by, cause) in [("controller", "worse"), ("operator", "")] {
            let stopped = Stopped::from_record(&explained(&back(by, cause))).expect("it was");
            assert_eq!((stopped.release.as_str(), stopped.by.as_str(), stopped.cause.as_str()), ("r3", by, cause));
            // Not since it was promoted: it had to start.
            assert_eq!((stopped.in_for_ms, stopped.reached), (7_500, 10.0));
        }
        for end in
            [json!({ "kind": "completed", "at_ms": 9_500, "by": "controller", "share_ppm": 1_000_000 }), json!({})]
        {
            assert!(Stopped::from_record(&explained(&end)).is_none(), "{end}");
        }
    }

    #[test]
    fn story_counts_what_the_bad_release_did_not_cause() {
        for (by_release, elsewhere) in [(&[("r3", 7)][..], 0), (&[("r3", 7), ("r2", 1), ("none", 2)][..], 3), (&[], 0)]
        {
            let failed_by_release: BTreeMap<_, _> =
                by_release.iter().map(|(release, count)| ((*release).to_owned(), *count)).collect();
            let failed = failed_by_release.values().sum();
            let figures = Figures { failed, failed_by_release, bad: "r3".into(), ..Figures::default() };
            assert_eq!(figures.failed_elsewhere(), elsewhere, "{by_release:?}");
        }
    }
}
