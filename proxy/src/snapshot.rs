//! The compiled state that a request reads from beginning to end, and the way it comes to be.
//!
//! Must not know: sockets, files, clocks, requests. Parts arrive as resources, leave as a [`Snapshot`].
//!
//! Main types: [`Snapshot`] with its [`Stage`]s; [`Resources`], what was applied, byte for byte; [`Compiler`], which
//! turns one into the other; [`Receiver`], which puts messages of the controller together.

mod apply;
mod challenges;
mod check;
mod clients;
mod compile;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fixture;
mod gate;
mod guard;
mod placing;
mod resources;
mod sealing;
mod shown;
mod slots;
mod tls;
mod zones;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use api::Version;
use certs::client::Clients;
use policies::verdict::Rule;

pub(crate) use apply::{Incoming, Received, Receiver};
pub(crate) use challenges::Challenges;
pub(crate) use compile::{Compiled, Compiler};
pub(crate) use gate::{Asking, Gate, Guarded};
pub(crate) use placing::HeaderRule;
pub(crate) use resources::{Delta, Resources};
pub(crate) use sealing::is_key_id;
pub(crate) use tls::Tls;

use crate::guard::Guard;
use crate::health::Health;
use crate::sticky::Sticky;

/// A table that requests look things up in. Its hash is fast, and seeded once a process; clients ask for keys and do not
/// choose which are in it, so they cannot make any collide.
pub(crate) type Table<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Stages of one environment by service.
type Services = Table<Arc<str>, Arc<Stage>>;

/// Immutable compiled state; a change makes a new one that shares what did not change.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// `None`: nothing was ever applied, and nothing may be served.
    pub(crate) version: Option<Version>,
    /// By domain. Rebuilt from `environments` with each change: there are few zones.
    zones: Table<Arc<str>, Zone>,
    environments: Table<Arc<str>, Arc<Services>>,
    /// Who may pass.
    pub(crate) access: Arc<Gate>,
    pub(crate) challenges: Arc<Challenges>,
    /// Some zone or stage may ask clients for certificates.
    pub(crate) asks_clients: bool,
}

/// A domain whose hosts lead to the stages of an environment.
#[derive(Debug)]
struct Zone {
    services: Arc<Services>,
    guarded: Arc<Guarded>,
    https: Https,
    /// Which certificates clients may show to any of its hosts.
    clients: Option<Arc<Clients>>,
}

/// How the hosts of a zone are asked for. The same for hosts that lead nowhere: nothing tells those apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Https {
    /// Port of https that requests in clear are sent to; `None`: they are served.
    pub(crate) redirect_port: Option<NonZeroU16>,
    /// What `Strict-Transport-Security` says over TLS, in seconds.
    pub(crate) hsts_seconds: Option<NonZeroU32>,
}

/// One service in one environment.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    /// "hello/staging".
    pub(crate) text: Arc<str>,
    /// Place of the stage's split state in each worker; the same as long as the stage is there.
    pub(crate) slot: u32,
    /// Changes whenever `weighted` does: the worker then starts a new split.
    pub(crate) generation: u64,
    /// Weight and place in `backends`, only weights above zero, ordered by release. One entry under an override.
    pub(crate) weighted: Box<[(u32, usize)]>,
    /// Ordered by release.
    pub(crate) backends: Box<[Backend]>,
    /// The first that a request matches decides, before places and weights.
    pub(crate) rules: Box<[HeaderRule]>,
    /// Which callers keep their release: what it gives are places in `backends`. `None`: each request is dealt out by itself.
    pub(crate) sticky: Option<Sticky>,
    /// Origins whose pages may call the stage from a browser; empty: the endpoints answer for themselves.
    pub(crate) cors: Box<[Box<str>]>,
    /// Which certificates clients may show to its hosts, in place of the zone's.
    pub(crate) clients: Option<Arc<Clients>>,
    /// What it asks for besides its policies; `None`: it is open to everybody, and no policy is asked (a controller of before
    /// schema 4).
    pub(crate) rule: Option<Rule>,
    /// As a denial names it.
    pub(crate) short: u64,
    /// Where its backends are asked for their health, without queries, in order.
    pub(crate) health_paths: Box<[Arc<str>]>,
    /// What is counted and watched for the rollout under way; `None`: there is none.
    pub(crate) guard: Option<Arc<Guard>>,
    /// The break-glass override that made `weighted`.
    pub(crate) overridden: Option<u32>,
}

/// A release that can serve in a stage.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) release: u32,
    pub(crate) protocol: Protocol,
    /// How its endpoints are verified; `None`: they are spoken to in clear.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Place of its counts in each worker; the same as long as the release is in the stage.
    pub(crate) slot: u32,
    pub(crate) endpoints: Box<[Endpoint]>,
}

/// One address of a backend.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Shared with every stage that asks the same question of the same address; written by the admin runtime only.
    pub(crate) health: Arc<Health>,
}

/// Where a host leads, be it nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// `None`: no stage has the host.
    pub(crate) stage: Option<&'a Stage>,
    /// The stage, or what stands in its place.
    pub(crate) shape: &'a Stage,
    pub(crate) guarded: &'a Guarded,
    /// What policies are asked there.
    pub(crate) asking: &'a Asking,
}

/// What an endpoint speaks, in clear or through TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Snapshot {
    /// The stage of a service in the environment of a zone.
    pub(crate) fn stage(&self, zone: &str, service: &str) -> Option<&Stage> {
        self.zones.get(zone)?.services.get(service).map(|stage| &**stage)
    }

    /// The same, and what is asked there of anybody, whether or not there is such a stage or zone: three look-ups for each.
    pub(crate) fn place(&self, zone: &str, service: &str) -> Place<'_> {
        let (stage, guarded) = match look_up(&self.zones, zone) {
            Some(zone) => (look_up(&zone.services, service).map(|stage| &**stage), &zone.guarded),
            None => {
                // As if there were services.
                self.access.nowhere.has(service);
                (None, &self.access.nowhere)
            }
        };
        let asking = guarded.asking(stage.map(|_| service));
        Place { stage, shape: stage.unwrap_or(&guarded.nobody), guarded, asking }
    }

    /// How the hosts of a zone are asked for.
    pub(crate) fn https(&self, zone: &str) -> Option<Https> {
        self.zones.get(zone).map(|zone| zone.https)
    }

    /// Which certificates clients may show to the hosts of a zone.
    pub(crate) fn clients(&self, zone: &str) -> Option<&Arc<Clients>> {
        self.zones.get(zone)?.clients.as_ref()
    }

    /// The stage "hello/staging".
    pub(crate) fn stage_named(&self, text: &str) -> Option<&Arc<Stage>> {
        let (service, environment) = text.split_once('/')?;
        self.environments.get(environment)?.get(service)
    }

    /// All stages, in no order.
    pub(crate) fn stages(&self) -> impl Iterator<Item = &Arc<Stage>> {
        self.environments.values().flat_map(|services| services.values())
    }
}

/// Looks something up for a request. Each one takes time, so tests count them.
fn look_up<'a, V>(table: &'a Table<Arc<str>, V>, key: &str) -> Option<&'a V> {
    #[cfg(test)]
    looked_up::add();
    table.get(key)
}

impl Stage {
    /// What stands in the place of a stage that is not there, with so many releases that nobody is led to.
    fn nobody(backends: u32) -> Self {
        let backend = |release| {
            let (protocol, endpoints) = (Protocol::Http1, Box::default());
            Backend { release, protocol, tls: None, slot: 0, endpoints }
        };
        Self { rule: Some(Rule::default()), backends: (1..=backends).map(backend).collect(), ..Self::default() }
    }

    /// The backend of a release.
    pub(crate) fn backend(&self, release: u32) -> Option<&Backend> {
        let place = self.backends.binary_search_by_key(&release, |backend| backend.release).ok()?;
        self.backends.get(place)
    }
}

#[cfg(test)]
pub(crate) mod looked_up {
    use std::cell::Cell;

    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });

    pub(super) fn add() {
        COUNT.set(COUNT.get() + 1);
    }

    /// By this thread so far.
    pub(crate) fn count() -> u64 {
        COUNT.get()
    }
}
