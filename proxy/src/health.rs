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

use crate::snapshot::Protocol;
use fold::{Fold, Limits};

/// A question to an address. Equal questions are asked once, whoever wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    /// Asked with GET; `None`: a TCP connection is enough.
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

/// Every health that somebody may still look at.
#[derive(Debug, Default)]
pub(crate) struct HealthBoard {
    known: HashMap<Check, Arc<Health>>,
}

impl Check {
    /// The check that a backend asks for; what it leaves open gets a default, what is too fast is slowed down.
    pub(crate) fn new(address: SocketAddr, protocol: Protocol, asked: Option<&fleet::HealthCheck>) -> Self {
        let asked = asked.cloned().unwrap_or_default();
        let or = |ms: u32, default: u32| if ms == 0 { default } else { ms };
        let every = Duration::from_millis(or(asked.every_ms, 2_000).max(100).into());
        Self {
            address,
            protocol,
            path: (!asked.http_path.is_empty()).then(|| asked.http_path.as_str().into()),
            every,
            timeout: Duration::from_millis(or(asked.timeout_ms, 1_000).max(10).into()),
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

    /// Everything that is still in use; what no snapshot names any more is forgotten.
    pub(crate) fn in_use(&mut self) -> Vec<Arc<Health>> {
        self.known.retain(|_, health| Arc::strong_count(health) > 1);
        self.known.values().cloned().collect()
    }
}
