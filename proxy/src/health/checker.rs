//! Asks every endpoint in use, each at its own pace, a bounded number at a time.
//!
//! Must not know: what a snapshot is. It is told when the set of checks may have changed and reads it anew.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::{Check, Health};
use crate::codec::probe;

/// Checks under way at once: enough for 5,000 endpoints every 2 s at 25 ms each, few enough to stay unnoticed.
const AT_ONCE: usize = 64;

/// Runs until it is dropped. `in_use` is asked whenever `changed` is notified.
pub(crate) async fn run(changed: Arc<Notify>, in_use: impl Fn() -> Vec<Arc<Health>>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut known: HashMap<Check, Arc<Health>> = HashMap::new();
    let mut due: BinaryHeap<Reverse<(Instant, Key)>> = BinaryHeap::new();
    let mut round = 0;
    loop {
        let next = due.peek().map(|Reverse((at, _))| *at);
        tokio::select! {
            () = changed.notified() => {
                round += 1;
                reconcile(&mut known, &mut due, in_use(), Instant::now());
            }
            () = sleep_until(next) => {
                let Some(Reverse((at, key))) = due.pop() else { continue };
                let Some(health) = known.get(&key.0) else { continue };
                let health = health.clone();
                due.push(Reverse((at.max(Instant::now() - key.0.every) + key.0.every, key)));
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                tokio::spawn(async move {
                    ask(&health).await;
                    drop(permit);
                });
            }
        }
        tracing::trace!(round, checks = known.len(), "health checks");
    }
}

/// Heap entries need an order; which of two comes first at the same instant does not matter.
#[derive(PartialEq, Eq)]
struct Key(Check);

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.address.cmp(&other.0.address)
    }
}

/// Forgets what is gone and schedules what is new, spread over one interval so that a start is no burst.
fn reconcile(
    known: &mut HashMap<Check, Arc<Health>>,
    due: &mut BinaryHeap<Reverse<(Instant, Key)>>,
    in_use: Vec<Arc<Health>>,
    now: Instant,
) {
    let before = std::mem::take(known);
    for health in in_use {
        if !before.contains_key(&health.check) {
            due.push(Reverse((now + offset(&health.check), Key(health.check.clone()))));
        }
        known.insert(health.check.clone(), health);
    }
    due.retain(|Reverse((_, key))| known.contains_key(&key.0));
}

/// The same check always has the same place within its interval.
fn offset(check: &Check) -> Duration {
    let mut hasher = DefaultHasher::new();
    check.hash(&mut hasher);
    check.every.mul_f64((hasher.finish() % 1_000) as f64 / 1_000.0)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn ask(health: &Health) {
    let check = &health.check;
    let result = match tokio::time::timeout(check.timeout, probe::ask(check)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} ms", check.timeout.as_millis())),
    };
    let problem = result.as_ref().err().cloned();
    if health.record(result) {
        match problem {
            None => tracing::info!(address = %check.address, "endpoint is healthy"),
            Some(reason) => tracing::warn!(address = %check.address, reason, "endpoint is unhealthy"),
        }
    }
}
