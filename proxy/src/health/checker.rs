//! Asks every endpoint in use, each at its own pace and one question at a time, a bounded number at once.
//!
//! Must not know: what a snapshot is. It is told when the set of checks may have changed and reads it anew.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Check, Health};
use crate::codec::probe;

/// Checks under way at once, each with a descriptor: few enough to stay unnoticed, and 256 endpoints that answer nothing
/// until their time is over still leave the others their turn within a few seconds.
const AT_ONCE: usize = 256;

/// Runs until it is dropped. `in_use` is asked whenever `changed` is notified.
pub(crate) async fn run(changed: Arc<Notify>, in_use: impl Fn() -> Vec<Arc<Health>>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut schedule = Schedule::default();
    // Ends with this future, and every check under way with it.
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            () = changed.notified() => schedule.reconcile(in_use(), Instant::now()),
            Some(ended) = under_way.join_next() => {
                // A check that panicked would be asked no more; it only awaits and compares.
                if let Ok((id, began)) = ended {
                    schedule.ended(id, began, Instant::now());
                }
            }
            () = sleep_until(schedule.next()) => {
                let Some((id, health)) = schedule.take() else { continue };
                let permits = permits.clone();
                under_way.spawn(async move {
                    // Awaited here: a full house delays this check, not the schedule of all.
                    let _permit = permits.acquire_owned().await;
                    let began = Instant::now();
                    ask(&health).await;
                    (id, began)
                });
            }
        }
    }
}

/// Which check comes when.
#[derive(Debug, Default)]
struct Schedule {
    /// Given to each check that comes, and never again: a check that went and came back is another one.
    last_id: u64,
    ids: HashMap<Check, u64>,
    healths: HashMap<u64, Arc<Health>>,
    /// Those that are not under way. May hold some that are gone.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Schedule {
    /// When the next check is due.
    fn next(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the next check out; [`Schedule::ended`] puts it back. `None`: it is gone.
    fn take(&mut self) -> Option<(u64, Arc<Health>)> {
        let Reverse((_, id)) = self.due.pop()?;
        Some((id, self.healths.get(&id)?.clone()))
    }

    /// A check that began at `began` has ended: its next turn is one interval after that, or now.
    fn ended(&mut self, id: u64, began: Instant, now: Instant) {
        if let Some(health) = self.healths.get(&id) {
            self.due.push(Reverse(((began + health.check.every).max(now), id)));
        }
    }

    /// Forgets what is gone and schedules what is new, spread over one interval so that a start is no burst.
    #[expect(clippy::mutable_key_type, reason = "what changes within TLS settings is neither compared nor hashed")]
    fn reconcile(&mut self, in_use: Vec<Arc<Health>>, now: Instant) {
        let mut before = std::mem::take(&mut self.ids);
        self.healths.clear();
        for health in in_use {
            let id = before.remove(&health.check).unwrap_or_else(|| {
                self.last_id += 1;
                self.due.push(Reverse((now + offset(&health.check), self.last_id)));
                self.last_id
            });
            self.ids.insert(health.check.clone(), id);
            self.healths.insert(id, health);
        }
        self.due.retain(|Reverse((_, id))| self.healths.contains_key(id));
    }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::health::HealthBoard;
    use crate::snapshot::Protocol;

    /// A server that counts connections, and answers them or keeps them waiting for ever.
    async fn server(answers: bool) -> (std::net::SocketAddr, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, count) = (listener.local_addr().expect("bound"), Arc::new(AtomicU64::new(0)));
        let counted = count.clone();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                counted.fetch_add(1, Relaxed);
                if !answers {
                    kept.push(stream);
                    continue;
                }
                tokio::spawn(async move {
                    // Whatever the other side does.
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
                });
            }
        });
        (address, count)
    }

    #[tokio::test]
    async fn checks_that_hang_are_asked_once_at_a_time_and_hold_up_nobody() {
        let ((slow, hanging), (good, answered)) = (server(false).await, server(true).await);
        let check = |address, path: String| {
            let asked =
                api::fleet::HealthCheck { http_path: path, every_ms: 100, timeout_ms: 60_000, fall: 1, rise: 1 };
            Check::new(address, Protocol::Http1, None, Some(&asked))
        };
        let mut board = HealthBoard::default();
        // One address, but each path is a check of its own.
        let mut all: Vec<Arc<Health>> = (0..100).map(|n| board.of(check(slow, format!("/{n}")))).collect();
        all.push(board.of(check(good, "/".into())));
        let changed = Arc::new(Notify::new());
        changed.notify_one();
        let running = tokio::spawn(run(changed, move || all.clone()));
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert!(answered.load(Relaxed) >= 4, "{} of the good one in 800 ms", answered.load(Relaxed));
        assert_eq!(hanging.load(Relaxed), 100, "one each is under way");
        running.abort();
    }
}
