//! One check of one step, asked again and again until the step is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::ask::{Asker, Outcome};
use super::tally::Tally;
use super::wanted::Wanted;
use crate::build::Cancel;
use crate::build::process::cancelled;
use crate::core::state::CheckSeen;
use crate::engine::Handle;
use crate::fleet::Fleet;

/// Who is told.
#[derive(Clone)]
pub(super) struct Ears {
    pub(super) engine: Handle,
    pub(super) fleet: Arc<Fleet>,
}

/// It, while it runs. Dropped, it ends at once, with what it has started.
pub(super) struct Rounds {
    wanted: Wanted,
    cancel: watch::Sender<bool>,
    task: JoinHandle<()>,
}

// === impl Rounds ===

impl Rounds {
    /// Ends `before` and begins once it has ended: at once, and then as often as the check says.
    pub(super) fn begin(wanted: Wanted, asker: Arc<Asker>, ears: Ears, before: Option<Self>) -> Self {
        let (cancel, cancelled) = watch::channel(false);
        let one = wanted.clone();
        if let Some(before) = &before {
            before.cancel.send_replace(true);
        }
        let task = tokio::spawn(async move {
            if let Some(mut before) = before {
                // However it ended.
                let _ = (&mut before.task).await;
            }
            ask_on(&one, &asker, &ears, cancelled).await;
        });
        Self { wanted, cancel, task }
    }

    /// Whether this is what runs. One that panicked does not.
    pub(super) fn is_of(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted && !*self.cancel.borrow() && !self.task.is_finished()
    }

    /// Has it end, if it has not been told; whether it has still not ended.
    pub(super) fn is_ending(&self) -> bool {
        self.cancel.send_replace(true);
        !self.task.is_finished()
    }

    /// Waits until it has ended, for which it has to be told.
    pub(super) async fn ended(&mut self) {
        // However it ended.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask_on(one: &Wanted, asker: &Asker, ears: &Ears, mut cancel: Cancel) {
    let (mut tally, mut last) = (Tally::default(), None);
    let mut beat = interval(Duration::from_millis(one.check.every.ms().max(1)));
    // One that takes longer than its interval is not asked the more often afterwards.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = cancelled(&mut cancel) => return,
            _ = beat.tick() => {}
        }
        let Some(outcome) = asker.ask(one, &mut cancel).await else { return };
        let before = tally.seen().clone();
        tally.take_in(&outcome, one.check.fall);
        tell(one, ears, &before, &tally, &outcome);
        if last.as_ref() != Some(&outcome) {
            note(one, &outcome, &tally);
            last = Some(outcome);
        }
    }
}

/// What belongs to a step that is over is not heard there.
fn tell(one: &Wanted, ears: &Ears, before: &CheckSeen, tally: &Tally, outcome: &Outcome) {
    let seen = tally.seen();
    ears.fleet.checked(&one.stage, one.of, &one.check.name, seen.clone(), &tally.said(outcome, one.check.fall));
    if before != seen {
        // The engine looks at what is due at once, and not within its next tick.
        ears.engine.tell(|_| {});
    }
}

fn note(one: &Wanted, outcome: &Outcome, tally: &Tally) {
    let (stage, release, check) = (&one.stage, one.release, &one.check.name);
    match outcome {
        Outcome::Well => info!(%stage, %release, check, "a check is well"),
        Outcome::Silent(why) => info!(%stage, %release, check, why, "a check says neither yes nor no"),
        Outcome::Failed(problem) => {
            warn!(%stage, %release, check, problem, row = tally.failures(), fall = one.check.fall, "a check failed")
        }
    }
}
