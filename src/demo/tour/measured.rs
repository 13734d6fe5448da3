//! What the clients saw: counts of answers by release, over stretches of the story.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::super::figures::Step;
use super::super::load::{Counted, Load};
use super::super::parts::Parts;
use super::{STAGE, Tour, run};
use crate::exit::Failure;
use crate::render::numbers;

/// Requests by which a share is measured.
pub(super) const PER_STEP: u64 = 4_000;
/// Longest time for one step: the load is far faster.
pub(super) const STEP: Duration = Duration::from_secs(120);
/// Longest time in which a request that was taken before a switch is answered.
const IN_FLIGHT: Duration = Duration::from_millis(500);
/// Between two looks at `status`.
const POLL: Duration = Duration::from_millis(100);

impl Tour {
    pub(super) fn counted(&self) -> Counted {
        self.load.as_ref().map(Load::counted).unwrap_or_default()
    }

    pub(super) async fn wait_for_requests(&self, count: u64, since: &Counted) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP;
        while self.counted().since(since).total() < count {
            if Instant::now() > deadline {
                return Err(Failure::refused("the demo's clients get too few answers"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Measures the share of a release, from now on.
    pub(super) async fn measure(&mut self, release: &str, set: f64) -> Result<(), Failure> {
        let since = self.counted();
        self.wait_for_requests(PER_STEP, &since).await?;
        let seen = self.counted().since(&since);
        let (own, all) = (seen.requests.get(release).copied().unwrap_or(0), seen.total());
        let measured = own as f64 * 100.0 / all as f64;
        tell!("    {release} at {set}%: the clients measured {measured:.2}% of {} requests", numbers::count(all))?;
        self.figures.steps.push(Step { release: release.into(), set, measured, requests: all });
        Ok(())
    }

    /// Waits until the rollout has reached a step of its own accord, and every proxy serves by it.
    pub(super) async fn reached(&self, parts: &Parts, step: u64) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP;
        loop {
            let status = parts.ask_json(&["status", STAGE]).await?;
            let rollout = &status["services"][0]["stages"][0]["rollout"];
            if rollout["step"].as_u64() == Some(step) && is_everywhere(&status) {
                return Ok(());
            }
            if rollout.is_null() || Instant::now() > deadline {
                run(parts, &["explain", "rollout", STAGE]).await?;
                return Err(Failure::refused(format!("the rollout did not reach its step {step}")));
            }
            sleep(POLL).await;
        }
    }

    /// Sees to it that a release that was left answers nobody any more.
    pub(super) async fn is_left(&self, release: &str) -> Result<(), Failure> {
        sleep(IN_FLIGHT).await;
        let since = self.counted();
        self.wait_for_requests(PER_STEP, &since).await?;
        let seen = self.counted().since(&since);
        let left = seen.requests.get(release).copied().unwrap_or(0);
        if left > 0 {
            return Err(Failure::refused(format!("{release} answered {left} requests although it was left")));
        }
        tell!("  since then {release} has answered none of {} requests", numbers::count(seen.total()))
    }
}

/// Waits until every proxy serves by what is on record.
pub(super) async fn everywhere(parts: &Parts) -> Result<(), Failure> {
    let deadline = Instant::now() + STEP;
    while !is_everywhere(&parts.ask_json(&["status", STAGE]).await?) {
        if Instant::now() > deadline {
            return Err(Failure::refused("the proxies do not follow the controller"));
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Whether every proxy serves by the newest version.
fn is_everywhere(status: &Value) -> bool {
    let members = status["fleet"].as_array().into_iter().flatten();
    let mut proxies = members.filter(|member| member["role"] == "proxy");
    proxies.all(|proxy| proxy["state"] == "active" && proxy["version"] == status["version"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rollout_is_measured_only_when_every_proxy_follows() {
        let (old, new) = (json!({ "term": 1, "number": 6 }), json!({ "term": 1, "number": 7 }));
        let proxy = |state: &str, version: &Value| json!({ "role": "proxy", "state": state, "version": version });
        let agent = json!({ "role": "agent", "state": "connected", "version": null });
        for (what, fleet, everywhere) in [
            ("both follow", [proxy("active", &new), proxy("active", &new)], true),
            ("one is behind", [proxy("active", &new), proxy("active", &old)], false),
            ("one lags", [proxy("active", &new), proxy("lagging", &new)], false),
            ("agents do not count", [agent, proxy("active", &new)], true),
        ] {
            assert_eq!(is_everywhere(&json!({ "version": new, "fleet": fleet })), everywhere, "{what}");
        }
    }
}
