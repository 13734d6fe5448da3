//! Whether endpoints are fit to serve, found out by asking them.
//!
//! Must not know: requests, splits, snapshots' versions. Workers read one flag per endpoint and nothing else.
//!
//! Main types: [`Health`], the flag with its history; [`HealthBoard`], which shares one among all who ask the same
//! question; [`checker::run`], which asks.

pub(crate) mod checker;
mod fold;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::fleet;

use crate::snapshot::{Protocol, Tls};
use fold::{Fold, Limits};

/// A question to an address. Equal questions are asked once, whoever wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    /// How it is verified; `None`: it is asked in clear.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Asked with GET; `None`: a TCP connection is enough, through TLS its handshake.
    pub(crate) path: Option<Arc<str>>,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    limits: Limits,
}

/// Health of one endpoint under one check.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) check: Check,
    /// Written by the admin runtime, read by every worker. Unknown counts as healthy, so that a start serves at once.
    healthy: AtomicBool,
    /// Admin runtime only.
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    fold: Fold,
    /// Why it is unhealthy.
    reason: String,
}

/// Every health that the newest snapshot may name.
#[derive(Debug, Default)]
pub(crate) struct HealthBoard {
    known: HashMap<Check, Arc<Health>>,
}

/// Fastest and slowest pace of a check.
const EVERY_MS: (u32, u32) = (100, 3_600_000);
/// Shortest and longest time for an answer. An endpoint that thinks for ten seconds is not fit to serve, and a check
/// under way holds one of the few places that all checks share.
const TIMEOUT_MS: (u32, u32) = (10, 10_000);
/// Time that a check may take however often it is asked.
const TIMEOUT_ALWAYS_MS: u32 = 1_000;

impl Check {
    /// The check that a backend asks for; what it leaves open gets a default.
    ///
    /// What lies outside of its range counts as the nearest bound: a refusal would keep the whole fleet at an old state
    /// for the sake of one check. `every`: 100 ms to 1 h. `timeout`: 10 ms to 10 s, and above 1 s at most `every`.
    pub(crate) fn new(
        address: SocketAddr,
        protocol: Protocol,
        tls: Option<Arc<Tls>>,
        asked: Option<&fleet::HealthCheck>,
    ) -> Self {
        let asked = asked.cloned().unwrap_or_default();
        let or = |ms: u32, default: u32| if ms == 0 { default } else { ms };
        let every_ms = or(asked.every_ms, 2_000).clamp(EVERY_MS.0, EVERY_MS.1);
        let longest = TIMEOUT_MS.1.min(every_ms.max(TIMEOUT_ALWAYS_MS));
        let timeout_ms = or(asked.timeout_ms, 1_000).clamp(TIMEOUT_MS.0, longest);
        Self {
            address,
            protocol,
            tls,
            path: (!asked.http_path.is_empty()).then(|| asked.http_path.as_str().into()),
            every: Duration::from_millis(every_ms.into()),
            timeout: Duration::from_millis(timeout_ms.into()),
            limits: Limits { fall: or(asked.fall, 3), rise: or(asked.rise, 2) },
        }
    }
}

impl Health {
    fn new(check: Check) -> Self {
        Self { check, healthy: AtomicBool::new(true), history: Mutex::default() }
    }

    /// Whether requests should go there.
    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Why not; empty while healthy.
    pub(crate) fn reason(&self) -> String {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).reason.clone()
    }

    /// Counts one result; true when the health changed by it.
    pub(crate) fn record(&self, result: Result<(), String>) -> bool {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.is_healthy();
        let after = history.fold.next(before, result.is_ok(), self.check.limits);
        history.reason = match result {
            Err(reason) if !after => reason,
            _ if after => String::new(),
            _ => std::mem::take(&mut history.reason),
        };
        self.healthy.store(after, Ordering::Relaxed);
        before != after
    }
}

impl HealthBoard {
    /// The health that belongs to a check; its state survives every change of the snapshot.
    pub(crate) fn of(&mut self, check: Check) -> Arc<Health> {
        self.known.entry(check.clone()).or_insert_with(|| Arc::new(Health::new(check))).clone()
    }

    /// Forgets everything but `in_use`, which is what the newest snapshot names. Whoever comes back starts anew.
    pub(crate) fn keep(&mut self, in_use: &[Arc<Health>]) {
        self.known = in_use.iter().map(|health| (health.check.clone(), health.clone())).collect();
    }
}
