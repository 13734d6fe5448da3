//! A client that means well while others do not: none of its requests may fail.
//!
//! Main types: [`Bystander`], the client; [`Waits`], how long it waited for its answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::{Client, HOST, until};

/// Between two requests: the machine is there for others as well.
const PAUSE: Duration = Duration::from_millis(3);

/// Asks one request after the other on one HTTP/2 connection until it is dropped.
pub(crate) struct Bystander {
    waits: Arc<Mutex<Vec<Duration>>>,
    asking: JoinHandle<()>,
}

/// Shortest first; at least one.
#[derive(Debug)]
pub(crate) struct Waits(Vec<Duration>);

impl Bystander {
    pub(crate) async fn at(proxy: SocketAddr) -> Self {
        let (waits, mut client) = (Arc::<Mutex<Vec<Duration>>>::default(), Client::http2(proxy).await);
        let shared = waits.clone();
        let asking = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                let answer = client.get(HOST, "/normal").await;
                assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
                shared.lock().expect("whole").push(begun.elapsed());
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { waits, asking }
    }

    /// The waits since the last look, so many of them at least: all these requests were served.
    pub(crate) async fn served(&mut self, least: usize) -> Waits {
        let count = || self.waits.lock().expect("whole").len();
        until("a bystander is served", || count() >= least.max(1) || self.asking.is_finished()).await;
        if self.asking.is_finished() {
            (&mut self.asking).await.expect("a bystander is served");
        }
        let mut waits = std::mem::take(&mut *self.waits.lock().expect("whole"));
        waits.sort_unstable();
        Waits(waits)
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Waits {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// So much of all waits was not longer than this.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }

    /// Shown, and not judged: what else the machine does is in it.
    pub(crate) fn show_against(&self, quiet: &Self) {
        let ratio = |share| self.quantile(share).as_secs_f64() / quiet.quantile(share).as_secs_f64();
        println!(
            "a bystander: {} requests, none failed; median {:?}, {:.2} of that in quiet; p99 {:?}, {:.2} of it",
            self.count(),
            self.quantile(0.5),
            ratio(0.5),
            self.quantile(0.99),
            ratio(0.99),
        );
    }
}
