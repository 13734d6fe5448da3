//! What a start has to know of the looks before it: which tags were there before, which times of a schedule are over.
//!
//! None of it is state: when it is lost, nothing is released that was there before, and times are counted from now on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use api::ServiceName;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::core::spec::ScheduleSpec;

/// Of one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The tags of this repository and this form that were there at the first look are on record; none: there was no look yet.
    #[serde(default)]
    pub(super) tags_of: Option<(String, Option<String>)>,
    /// Times of this schedule (pattern, zone) are over up to then, milliseconds since the Unix epoch.
    #[serde(default)]
    pub(super) schedule: Option<(String, String, u64)>,
}

/// All of it, and the file that it is in. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    path: PathBuf,
    all: Arc<Mutex<BTreeMap<ServiceName, Remembered>>>,
}

// === impl Remembered ===

impl Remembered {
    /// Since when times of this schedule count.
    pub(super) fn since(&self, schedule: &ScheduleSpec) -> Option<u64> {
        let (cron, zone, since_ms) = self.schedule.as_ref()?;
        (*cron == schedule.cron && *zone == schedule.time_zone).then_some(*since_ms)
    }
}

// === impl Kept ===

impl Kept {
    /// What is there; a file that cannot be read is as none, with a warning.
    pub(super) fn open(path: PathBuf) -> Self {
        let all = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|problem| {
                warn!(file = %path.display(), %problem, "what was seen of tags and schedules is damaged: both begin anew");
                BTreeMap::new()
            }),
            Err(_) => BTreeMap::new(),
        };
        Self { path, all: Arc::new(Mutex::new(all)) }
    }

    pub(super) fn of(&self, service: &ServiceName) -> Remembered {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned().unwrap_or_default()
    }

    /// Remembers it, on disk before it counts.
    pub(super) async fn remember(&self, service: &ServiceName, remembered: Remembered) {
        if self.of(service) == remembered {
            return;
        }
        let (kept, service) = (self.clone(), service.clone());
        let written = tokio::task::spawn_blocking(move || {
            let mut all = kept.all.lock().unwrap_or_else(PoisonError::into_inner);
            let mut new = all.clone();
            new.insert(service, remembered);
            durable::write(&kept.path, &serde_json::to_vec(&new).unwrap_or_default())?;
            *all = new;
            Ok::<_, std::io::Error>(())
        });
        if let Ok(Err(problem)) = written.await {
            warn!(%problem, "what was seen of tags and schedules could not be kept: it is looked for again");
        }
    }
}
