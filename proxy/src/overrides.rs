//! Break-glass overrides: one release takes a whole stage on this proxy, until a time, whatever the controller says.
//!
//! Must not know: sockets, snapshots. Times are arguments.
//!
//! Main types: [`Override`]; [`Overrides`], those in force and those that ended and were not yet told upstream.

use std::path::Path;

use api::{ReleaseNumber, StageName};
use serde::{Deserialize, Serialize};

/// Most endings kept while no controller is there to be told.
const MOST_ENDED: usize = 1_000;

/// One release takes a whole stage on this proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The stage.
    pub stage: StageName,
    /// The release that takes everything.
    pub release: ReleaseNumber,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends by itself, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Who set it, as given.
    pub by: String,
    /// Why, as given.
    pub reason: String,
}

/// An override that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) stage: StageName,
    pub(crate) since_ms: u64,
    pub(crate) at_ms: u64,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// What it was before it ended: told as well, in case nobody was there when it was set.
    pub(crate) was: Override,
}

/// What is in force, and what ended while nobody listened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Overrides {
    pub(crate) in_force: Vec<Override>,
    #[serde(default)]
    pub(crate) ended: Vec<Ended>,
}

impl Overrides {
    /// Reads the file; a missing one is empty. The error says what is wrong with it.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match durable::read(path).map_err(|error| failed(&error))? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(&error)),
            None => Ok(Self::default()),
        }
    }

    /// Those that were in force before a restart, by the clock of this run, last as long as they were set for at most:
    /// a clock that was wrong at the start may be behind by years.
    pub(crate) fn carry_over(&mut self, now_ms: u64) {
        for one in &mut self.in_force {
            let whole = one.until_ms.saturating_sub(one.since_ms);
            one.until_ms = one.until_ms.min(now_ms.saturating_add(whole));
        }
    }

    /// Writes the file, safe against a crash.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        durable::write(path, &serde_json::to_vec_pretty(self)?)
    }

    /// Puts an override in force; one for the same stage ends.
    pub(crate) fn set(&mut self, new: Override) {
        let (by, reason) = (new.by.clone(), "replaced by another override".to_owned());
        self.end(&new.stage.clone(), new.since_ms, by, reason);
        self.in_force.push(new);
    }

    /// Ends the override of a stage; false when there is none.
    pub(crate) fn end(&mut self, stage: &StageName, now_ms: u64, by: String, reason: String) -> bool {
        let Some(place) = self.in_force.iter().position(|one| one.stage == *stage) else { return false };
        let was = self.in_force.remove(place);
        if self.ended.len() < MOST_ENDED {
            self.ended.push(Ended { stage: was.stage.clone(), since_ms: was.since_ms, at_ms: now_ms, by, reason, was });
        }
        true
    }

    /// Ends those whose time is over; gives their stages.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<StageName> {
        let over: Vec<(StageName, String)> = self
            .in_force
            .iter()
            .filter(|one| one.until_ms <= now_ms)
            .map(|one| (one.stage.clone(), one.by.clone()))
            .collect();
        for (stage, by) in &over {
            self.end(stage, now_ms, by.clone(), "its time is over".to_owned());
        }
        over.into_iter().map(|(stage, _)| stage).collect()
    }

    /// When the next one ends by itself.
    pub(crate) fn next_end_ms(&self) -> Option<u64> {
        self.in_force.iter().map(|one| one.until_ms).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(stage: &str, since_ms: u64, until_ms: u64) -> Override {
        let release = ReleaseNumber::new(41).expect("a number");
        let stage = stage.parse().expect("a stage");
        Override { stage, release, since_ms, until_ms, by: "ops".into(), reason: "broken".into() }
    }

    #[test]
    fn override_ends_at_its_time_and_is_remembered_until_told() {
        let mut overrides = Overrides::default();
        overrides.set(one("a/production", 10, 100));
        overrides.set(one("b/production", 10, 50));
        assert_eq!(overrides.next_end_ms(), Some(50));
        assert_eq!(overrides.expire(49), []);
        assert_eq!(overrides.expire(50), ["b/production".parse().expect("a stage")]);
        assert_eq!(overrides.next_end_ms(), Some(100));
        overrides.set(one("a/production", 60, 200));
        assert_eq!((overrides.in_force.len(), overrides.ended.len()), (1, 2));
        assert!(!overrides.end(&"c/production".parse().expect("a stage"), 70, "x".into(), "y".into()));
    }

    #[test]
    fn override_lasts_no_longer_than_it_was_set_for_whatever_the_clock_said_at_the_start() {
        for (now, until) in [(10, 100), (60, 100), (5, 95), (1_000, 100)] {
            let mut overrides = Overrides::default();
            overrides.set(one("a/production", 10, 100));
            overrides.carry_over(now);
            assert_eq!(overrides.in_force[0].until_ms, until, "{now}");
        }
    }

    #[test]
    fn override_survives_a_restart_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("overrides.json");
        assert!(Overrides::load(&path).expect("no file").in_force.is_empty());
        let mut overrides = Overrides::default();
        overrides.set(one("a/production", 10, 100));
        overrides.save(&path).expect("saved");
        assert_eq!(Overrides::load(&path).expect("loaded").in_force, overrides.in_force);
        std::fs::write(&path, b"{").expect("written");
        assert!(Overrides::load(&path).expect_err("damaged").contains("overrides.json"));
    }
}
