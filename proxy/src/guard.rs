//! The guard of a rollout: what is counted apart for the judge, and when a worker sends the canary nothing more.
//!
//! Must not know: how requests are written, weights, who reads the counts. The decision is `tripwire`, which is pure.
//!
//! A worker that trips acts at once, by itself. It tells the admin runtime, which writes it where the other workers look
//! ([`Guard::trip`]), and into the log; the fleet's stream tells the controller. A change of weights leaves all that as it
//! is; another number, or no guard, ends it, and so does a restart of the proxy.
//!
//! Shares, and what is slow, change within a rollout: each such stretch is an epoch, and a request counts under the one in which
//! it began, whenever it ends. What the tripwire remembers goes on through all of them (`memory`).
//!
//! Main types: [`Guard`], as a snapshot has it; [`Watches`], a worker's guards; [`Judging`], what becomes of one request;
//! [`listen`], the admin runtime's part.

mod memory;
mod tripwire;
mod watch;
mod window;

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::count::Epoch;
use window::Share;

pub(crate) use tripwire::Tripwire;
pub(crate) use watch::{Judging, Watches};

/// What is counted and watched in a stage.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Of the rollout; above 0.
    pub(crate) rollout: u64,
    /// Within the rollout.
    pub(crate) epoch: u32,
    pub(crate) canary: u32,
    /// 0: there is none.
    pub(crate) stable: u32,
    /// 0: nothing is slow.
    pub(crate) slow_us: u64,
    /// In lower case.
    pub(crate) failure_header: Option<Box<str>>,
    pub(crate) tripwire: Option<Tripwire>,
    /// Place of the stable release among the stage's backends while it has weight and endpoints; `None`: the canary cannot
    /// be stopped, because nobody else would serve.
    pub(crate) fallback: Option<usize>,
    /// What stopped the canary. The same for all guards with this number, one after the other; written once, by the admin
    /// runtime, and read by all workers.
    pub(crate) trip: Arc<OnceLock<Trip>>,
}

/// What stopped a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trip {
    pub(crate) failures: u32,
    /// Judged requests.
    pub(crate) among: u32,
    /// Milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
}

/// A worker has stopped a canary.
#[derive(Debug)]
pub(crate) struct Tripped {
    stage: Arc<str>,
    guard: Arc<Guard>,
    share: Share,
}

impl Guard {
    /// Whether the canary is stopped on this proxy.
    pub(crate) fn is_tripped(&self) -> bool {
        self.trip.get().is_some()
    }

    /// Under what requests count that begin now.
    fn epoch(&self) -> Epoch {
        Epoch { rollout: self.rollout, number: self.epoch }
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        (self.rollout, self.canary, self.stable) == (other.rollout, other.canary, other.stable)
    }
}

/// Hears of trips, writes them where all workers look, says so in the log, and wakes whoever tells the controller.
pub(crate) async fn listen(mut tripped: UnboundedReceiver<Tripped>, now_ms: fn() -> u64, told: Arc<Notify>) {
    while let Some(Tripped { stage, guard, share: Share { failures, among } }) = tripped.recv().await {
        // Another worker may have been first.
        if guard.trip.set(Trip { failures, among, at_ms: now_ms() }).is_ok() {
            let Guard { rollout, canary, stable, .. } = *guard;
            tracing::error!(
                %stage, rollout, release = canary, failures, among,
                "the canary is stopped: what a weight deals out to it goes to r{stable}"
            );
            told.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
