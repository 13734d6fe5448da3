//! What a controller is told of counts and health: differences to what it knows, in messages that fit.
//!
//! Must not know: streams. It also has the ledger forget what is over and told.
//!
//! Main type: [`Counting`], of one stream.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use api::Histogram;
use api::fleet::{Counts, EndpointHealth, Judged, ReleaseCounts};
use prost::Message;

use crate::admin::Observed;
use crate::count::{Epoch, JudgedSums, Sums};
use crate::snapshot::Snapshot;

/// Largest message of counts: a quarter of what gRPC takes by default.
const COUNTS_BYTES: usize = 1024 * 1024;

/// What was told on one stream.
#[derive(Debug)]
pub(super) struct Counting {
    /// Drawn at the proxy's start.
    run: u64,
    /// By stage and release.
    told: HashMap<(Arc<str>, u32), Known>,
    /// Endpoints that were told to be unhealthy.
    unhealthy: HashMap<(Arc<str>, u32, SocketAddr), String>,
}

/// Counts of a release; and by which epochs it is judged, with what.
type Known = (Sums, Vec<(Epoch, JudgedSums)>);

impl Counting {
    /// Nothing was told yet.
    pub(super) fn new(run: u64) -> Self {
        Self { run, told: HashMap::new(), unhealthy: HashMap::new() }
    }

    /// What has changed since it was asked last, in messages that fit; one at least, which says that we are alive.
    pub(super) fn messages(&mut self, observed: &Observed) -> Vec<Counts> {
        let snapshot = observed.control.published().load_full();
        let serves = |(stage, release): &(Arc<str>, u32)| {
            snapshot.stage_named(stage).is_some_and(|stage| stage.backend(*release).is_some())
        };
        let rollout = |stage: &str| Some(snapshot.stage_named(stage)?.guard.as_ref()?.rollout);
        let (mut releases, mut outstanding) = (Vec::new(), 0);
        {
            let mut ledger = observed.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            for (stage, release, entry) in ledger.fold() {
                let sums = entry.sums();
                outstanding += sums.outstanding;
                let judged: Vec<_> = rollout(stage).into_iter().flat_map(|rollout| entry.epochs(rollout)).collect();
                let now = (sums.clone(), judged.iter().map(|(epoch, sums, _)| (*epoch, *sums)).collect());
                let told = self.told.entry((stage.clone(), release)).or_default();
                if *told == now {
                    continue;
                }
                *told = now;
                releases.push(ReleaseCounts {
                    stage: stage.to_string(),
                    release,
                    requests: sums.requests,
                    by_class: sums.by_class.to_vec(),
                    unanswered: sums.unanswered,
                    outstanding: sums.outstanding,
                    grpc_errors: sums.grpc_errors,
                    latency: Some((&entry.latency()).into()),
                    judged: judged.into_iter().map(self::judged).collect(),
                });
            }
            // What is not new was told a second ago or more, on a stream that is still open.
            let new: HashSet<_> = releases.iter().map(|one| (one.stage.as_str(), one.release)).collect();
            let is_over = |key: &(Arc<str>, u32)| !new.contains(&(&*key.0, key.1)) && !serves(key);
            for forgotten in ledger.forget(is_over) {
                self.told.remove(&forgotten);
            }
            ledger.forget_judged(|stage, number| rollout(stage) != Some(number));
        }
        // Those that were taken out come first: from the first piece on the controller knows which are still in flight.
        releases.sort_by_cached_key(|one| serves(&(one.stage.as_str().into(), one.release)));
        pieces(self.run, outstanding, releases, self.health(&snapshot))
    }

    /// Endpoints that are unhealthy, and those that no longer are.
    fn health(&mut self, snapshot: &Snapshot) -> Vec<EndpointHealth> {
        let mut now = HashMap::new();
        for stage in snapshot.stages() {
            for backend in &stage.backends {
                for endpoint in backend.endpoints.iter().filter(|endpoint| !endpoint.health.is_healthy()) {
                    now.insert((stage.text.clone(), backend.release, endpoint.address), endpoint.health.reason());
                }
            }
        }
        let health = |(stage, release, address): &(Arc<str>, u32, SocketAddr), healthy, reason: &str| EndpointHealth {
            stage: stage.to_string(),
            release: *release,
            address: address.to_string(),
            healthy,
            reason: reason.to_owned(),
        };
        let recovered = self.unhealthy.keys().filter(|key| !now.contains_key(*key));
        let list =
            recovered.map(|key| health(key, true, "")).chain(now.iter().map(|(key, why)| health(key, false, why)));
        let list = list.collect();
        self.unhealthy = now;
        list
    }
}

fn judged((epoch, sums, latency): (Epoch, JudgedSums, Histogram)) -> Judged {
    let (Epoch { rollout, number }, JudgedSums { requests, failed, slow }) = (epoch, sums);
    Judged { rollout, epoch: number, requests, failed, slow, latency: Some((&latency).into()) }
}

/// Counts in messages of at most [`COUNTS_BYTES`], or of one entry; one at least, which says that we are alive.
fn pieces(run: u64, outstanding: u64, releases: Vec<ReleaseCounts>, unhealthy: Vec<EndpointHealth>) -> Vec<Counts> {
    let empty = Counts { run, outstanding, ..Counts::default() };
    let (mut done, mut piece, mut bytes) = (Vec::new(), empty.clone(), 0);
    let mut room = |piece: &mut Counts, more: usize| {
        if bytes > 0 && bytes + more > COUNTS_BYTES {
            done.push(std::mem::replace(piece, empty.clone()));
            bytes = 0;
        }
        bytes += more;
    };
    for one in releases {
        room(&mut piece, one.encoded_len());
        piece.releases.push(one);
    }
    for one in unhealthy {
        room(&mut piece, one.encoded_len());
        piece.unhealthy.push(one);
    }
    done.push(piece);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_releases_go_in_pieces_that_fit() {
        let release = |release| {
            let mut latency = Histogram::default();
            (0..36).for_each(|power| latency.record(1 << power));
            let (stage, latency) = ("hello/production".to_owned(), Some((&latency).into()));
            ReleaseCounts { stage, release, by_class: vec![1 << 40; 5], latency, ..ReleaseCounts::default() }
        };
        let reason = "no connection: ".repeat(20);
        let health = EndpointHealth { stage: "hello/production".into(), reason, ..EndpointHealth::default() };
        let pieces = pieces(7, 3, (1..=20_000).map(release).collect(), vec![health; 10_000]);
        assert!(pieces.len() > 4, "{}", pieces.len());
        // gRPC refuses what is larger than 4 MiB.
        assert!(pieces.iter().all(|piece| piece.encoded_len() < 2 * COUNTS_BYTES && piece.run == 7));
        let releases: Vec<u32> = pieces.iter().flat_map(|piece| &piece.releases).map(|one| one.release).collect();
        assert_eq!(releases, (1..=20_000).collect::<Vec<_>>());
        assert_eq!(pieces.iter().map(|piece| piece.unhealthy.len()).sum::<usize>(), 10_000);
        assert_eq!(super::pieces(7, 0, Vec::new(), Vec::new()).len(), 1, "a sign of life");
    }
}
