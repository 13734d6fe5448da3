//! Turns: so many checks at once in all, and so many of one stage.
//!
//! Must not know: what is asked. Whoever waits is served in the order in which they came; of one stage no more wait for the
//! common turns than may run at once, so that no stage is before others with all of its checks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use api::StageName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Under way at once, of all stages.
pub(crate) const AT_ONCE: usize = 16;
/// Under way at once, of one stage: fewer than of all, so that slow ones of some leave room for others.
pub(crate) const AT_ONCE_OF_STAGE: usize = 4;

/// Whoever hands them out.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Of stages of which some check waits or runs.
    stages: Mutex<BTreeMap<StageName, Weak<Semaphore>>>,
}

/// One, until it is dropped.
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _of_stage: OwnedSemaphorePermit,
}

// === impl Turns ===

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), stages: Mutex::default() }
    }

    /// Waits for one.
    ///
    /// # Cancel safety
    /// Dropping it gives the place in the queue up.
    pub(super) async fn of(&self, stage: &StageName) -> Turn {
        let own = self.of_stage(stage);
        let of_stage = own.acquire_owned().await.expect("it is never closed");
        let all = self.all.clone().acquire_owned().await.expect("it is never closed");
        Turn { _all: all, _of_stage: of_stage }
    }

    fn of_stage(&self, stage: &StageName) -> Arc<Semaphore> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stages.get(stage).and_then(Weak::upgrade) {
            return known;
        }
        stages.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Semaphore::new(AT_ONCE_OF_STAGE));
        stages.insert(stage.clone(), Arc::downgrade(&new));
        new
    }
}
