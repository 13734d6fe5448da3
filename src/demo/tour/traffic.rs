//! The chapters in which traffic moves: by steps that are earned, by hand, and by the controller alone.

use super::super::figures::{Figures, Stopped};
use super::super::load::Load;
use super::super::parts::Parts;
use super::measured::{PER_STEP, STEP, everywhere};
use super::{HOST, STAGE, Tour, authority, prepare, run, say};
use crate::exit::{Exit, Failure};

/// Requests of the whole tour, at least.
const AT_LEAST: u64 = 20_000;

/// Shows a rollout as it goes, until it has ended, and how the command ended; None: it went on for too long.
async fn watch(parts: &Parts) -> Result<Option<i32>, Failure> {
    let arguments = ["rollout", "watch", STAGE];
    tell!("  $ pointsman {}", arguments.join(" "))?;
    parts.follow(&arguments, STEP, |line| tell!("    {line}")).await
}

impl Tour {
    /// There is nobody to compare the first one with: it gets everything.
    pub(super) async fn first_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r1 goes through dev and staging into production")?;
        prepare(parts, "hello@r1").await?;
        run(parts, &["promote", "hello@r1", "--to", "production"]).await?;
        let credentials = self.credentials.as_ref().ok_or_else(|| Failure::refused("nobody may call"))?;
        self.load = Some(Load::start(&parts.proxies, HOST, &authority(parts)?, credentials)?);
        tell!("  and requests begin, for alice through shop: HTTP/1.1, HTTP/2 and gRPC to both proxies")?;
        self.wait_for_requests(PER_STEP, &self.counted()).await
    }

    pub(super) async fn second_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r2 takes over in steps: 1%, 10%, 50% and 100%, as the service's file says. It has to earn each of them")?;
        prepare(parts, "hello@r2").await?;
        run(parts, &["promote", "hello@r2", "--to", "production"]).await?;
        self.measure("r2", 1.0).await?;
        self.reached(parts, 2).await?;
        self.measure("r2", 10.0).await?;
        self.reached(parts, 3).await?;
        self.measure("r2", 50.0).await?;
        tell!("  from here a person has to let it go on, because the file says so. What it has earned so far:")?;
        run(parts, &["explain", "rollout", STAGE]).await?;
        run(parts, &["rollout", "resume", STAGE]).await?;
        if watch(parts).await? != Some(Exit::Done as i32) {
            return Err(Failure::refused("r2 did not come to everything"));
        }
        everywhere(parts).await?;
        self.measure("r2", 100.0).await
    }

    /// A person goes back, although the rollout has completed, and changes their mind.
    pub(super) async fn roll_back(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("Somebody has doubts about r2. It has everything; r1 is warm, and one command away")?;
        let command = ["rollback", STAGE, "--reason", "is it r2?"];
        tell!("  $ pointsman rollback {STAGE} --reason \"is it r2?\"")?;
        let reply = parts.ask_json(&command).await?;
        let switched = reply["outcome"]["switched"].as_array().cloned().unwrap_or_default();
        for proxy in &switched {
            let ms = proxy["us"].as_f64().unwrap_or(0.0) / 1_000.0;
            let name = proxy["proxy"].as_str().unwrap_or_default();
            tell!("    proxy {name} switched in {ms:.1} ms")?;
            self.figures.rollback_ms.insert(name.to_owned(), ms);
        }
        tell!("    to undo: {}", reply["outcome"]["undo"].as_str().unwrap_or_default())?;
        self.is_left("r2").await?;
        tell!("  it was not r2: everything back to it, at once and not in steps")?;
        run(parts, &["unhold", STAGE, "r2"]).await?;
        run(parts, &["promote", "hello@r2", "--to", "production", "--weight", "100%"]).await
    }

    /// Nobody but the controller looks after this one.
    pub(super) async fn bad_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r3 fails one request in twenty. Nobody knows, and nobody looks")?;
        prepare(parts, "hello@r3").await?;
        let since = self.counted();
        run(parts, &["promote", "hello@r3", "--to", "production"]).await?;
        let code = watch(parts).await?;
        tell!("  what it went by is on record:")?;
        run(parts, &["explain", "rollout", STAGE]).await?;
        let explained = parts.ask_json(&["explain", "rollout", STAGE]).await?;
        let mut stopped = Stopped::from_record(&explained)
            .filter(|stopped| {
                code == Some(Exit::Refused as i32) && stopped.by == "controller" && stopped.release == "r3"
            })
            .ok_or_else(|| Failure::refused("r3 was not stopped by the controller"))?;
        tell!("  the controller stopped it by itself")?;
        self.is_left("r3").await?;
        let seen = self.counted().since(&since);
        stopped.requests = seen.requests.get("r3").copied().unwrap_or(0);
        stopped.failed = seen.failed.get("r3").copied().unwrap_or(0);
        self.figures.stopped = Some(stopped);
        Ok(())
    }

    pub(super) async fn sum_up(&mut self) -> Result<Figures, Failure> {
        let missing = AT_LEAST.saturating_sub(self.counted().total());
        self.wait_for_requests(missing, &self.counted()).await?;
        let counted = self.counted();
        let mut figures = std::mem::take(&mut self.figures);
        figures.requests = counted.total();
        figures.failed = counted.failed.values().sum();
        figures.failed_by_release = counted.failed;
        for release in ["r1", "r2", "r3"] {
            figures.failed_by_release.entry(release.into()).or_default();
        }
        figures.examples = counted.examples;
        Ok(figures)
    }
}
