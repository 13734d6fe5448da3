//! One worker: a thread with its own runtime, sockets, connections, splits and counts.
//!
//! Must not know: the controller, the journal, or other workers. It reads the one published snapshot and writes nothing
//! that another worker writes.
//!
//! Main types: [`Worker`], what a request on this thread works with; [`start`], which makes the thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Cache};
use policies::credential::denial::Seal;
use policies::credential::{KeyRing, Presented};
use policies::verdict::Why;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::access_log::{Log, writer};
use crate::answer::Own;
use crate::assertions::Assertions;
use crate::callers::{Caller, Callers};
use crate::codec::connection::{Connection, Listener};
use crate::codec::pool::Pools;
use crate::codec::server;
use crate::count::{Counters, Opened};
use crate::deadline::Deadlines;
use crate::decide::{Decisions, Judged, Request, decide};
use crate::explain::{Ask, Ring};
use crate::forwarded::Trusted;
use crate::guard::{Tripped, Watches};
use crate::issuers::Issuers;
use crate::lasting::{self, Lasting};
use crate::request_id::{Block, IdKey, Ids, RequestId};
use crate::route::Routed;
use crate::settings::Limits;
use crate::snapshot::{Backend, Gate, Snapshot, Stage};
use crate::split::{Phase, Split};
use crate::totals::Totals;
use crate::{balance, denied};

/// How long accepting pauses after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How often it is said that connections cannot be accepted.
const COMPLAIN_AGAIN: Duration = Duration::from_secs(10);

/// How often it is said that a policy cannot be evaluated.
const ALARM_AGAIN: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) phase: Phase,
    pub(crate) http: Option<std::net::TcpListener>,
    pub(crate) https: Option<(std::net::TcpListener, Arc<ServerConfig>)>,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) opened: std::sync::mpsc::Sender<Opened>,
    /// Where it is told that a canary was stopped.
    pub(crate) tripped: mpsc::UnboundedSender<Tripped>,
    pub(crate) limits: Limits,
    /// Until when requests in flight may go on; `None`: no stop yet.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) trusted: Trusted,
    pub(crate) proxy_protocol: bool,
    pub(crate) ids: IdKey,
    pub(crate) issuers: Arc<Issuers>,
    /// Names 404s until a key for that was sent.
    pub(crate) seal: Arc<Seal>,
    pub(crate) log: Option<writer::Handle>,
    /// What the admin runtime wants to know.
    pub(crate) questions: mpsc::Receiver<Ask>,
}

/// State of one thread.
pub(crate) struct Worker {
    pub(crate) limits: Rc<Limits>,
    deadlines: Deadlines,
    pub(crate) pools: Pools,
    pub(crate) counters: Counters,
    /// Rollouts under way.
    pub(crate) watches: Watches,
    phase: Phase,
    published: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    /// The published snapshot behind a count of our own: a request's handle touches no shared count.
    held: RefCell<Rc<Held>>,
    issuers: Arc<Issuers>,
    keys: RefCell<Cache<Arc<ArcSwap<KeyRing>>, Arc<KeyRing>>>,
    callers: RefCell<Callers>,
    decisions: RefCell<Decisions>,
    assertions: RefCell<Assertions>,
    seal: Arc<Seal>,
    /// What was decided lately.
    pub(crate) ring: Ring,
    /// Exchanges that are decided again.
    pub(crate) lasting: Rc<Lasting>,
    /// When it was last said that a policy cannot be evaluated.
    alarmed: Cell<Option<Instant>>,
    /// By stage slot.
    splits: RefCell<Vec<Option<Splitting>>>,
    seed: Cell<u64>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    outstanding: Rc<Cell<u32>>,
    log: Option<Rc<Log>>,
    draining: Cell<bool>,
    /// Woken when a connection ends, and when draining begins.
    changed: Notify,
    totals: Arc<Totals>,
}

/// A snapshot as the requests of one worker hold it.
#[derive(Debug)]
pub(crate) struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker {}", self.phase.index)
    }
}

#[derive(Debug)]
struct Splitting {
    generation: u64,
    split: Split,
}

impl Worker {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Rc<Held> {
        let mut published = self.published.borrow_mut();
        let newest = published.load();
        let mut held = self.held.borrow_mut();
        if !Arc::ptr_eq(newest, &held.0) {
            // Allocates once per snapshot and worker.
            *held = Rc::new(Held(newest.clone()));
        }
        held.clone()
    }

    /// Who presents this, and the generation of the keys by which that was told.
    pub(crate) fn identify(&self, gate: &Gate, presented: &Presented<'_>) -> (Rc<Caller>, u64) {
        let mut keys = self.keys.borrow_mut();
        let keys = keys.load();
        (self.callers.borrow_mut().identify(gate, keys, presented, now_s), keys.generation)
    }

    /// Of the keys with which users are known now.
    pub(crate) fn keys_generation(&self) -> u64 {
        self.keys.borrow_mut().load().generation
    }

    /// Waits until an issuer has newer keys, if it may have some. See [`Issuers::newer`].
    pub(crate) async fn newer_keys(&self, issuer: &str, seen_generation: u64) {
        self.issuers.newer(issuer, seen_generation).await;
    }

    /// What happens to a request.
    pub(crate) fn decide(
        &self,
        gate: &Gate,
        caller: &Caller,
        routed: &Routed<'_, '_>,
        request: &Request<'_>,
    ) -> Judged {
        decide(&mut self.decisions.borrow_mut(), gate, caller, routed, request)
    }

    /// What was done to decide so far.
    #[cfg(test)]
    pub(crate) fn work(&self) -> crate::decide::Work {
        self.decisions.borrow().work()
    }

    /// What the endpoints of a stage are told of who calls. `own`: the request for which it is signed, if it is.
    pub(crate) fn assertion(&self, gate: &Gate, caller: &Caller, stage: &Stage, own: &Block) -> Option<Rc<str>> {
        self.assertions.borrow_mut().of(gate, caller, stage, own, now_s)
    }

    /// The name of a 404. `stage`: as a denial names it.
    pub(crate) fn denial(&self, gate: &Gate, caller: &Caller, stage: u64, why: Why, own: &Block) -> RequestId {
        denied::name(gate.seal.as_ref().unwrap_or(&self.seal), caller, (stage, why), own, now_ms())
    }

    /// Counts where policies could not be evaluated, and says so at most once a second.
    pub(crate) fn alarm(&self, stage: &str, judged: &Judged) {
        if judged.failed.is_empty() {
            return;
        }
        judged.failed.iter().for_each(|_| self.totals.policy_failed());
        let now = Instant::now();
        if self.alarmed.get().is_none_or(|last| now.duration_since(last) >= ALARM_AGAIN) {
            self.alarmed.set(Some(now));
            let errors: Vec<&String> = judged.failed.iter().flat_map(|answered| &answered.errors).collect();
            tracing::error!(stage, ?errors, "a policy cannot be evaluated: nobody is let in where it counts");
        }
    }

    /// The backend whose turn it is in a stage; `None` when no weight is above zero.
    pub(crate) fn split<'a>(&self, stage: &'a Stage) -> Option<&'a Backend> {
        let mut splits = self.splits.borrow_mut();
        let slot = stage.slot as usize;
        if slot >= splits.len() {
            splits.resize_with(slot + 1, || None);
        }
        let known = &mut splits[slot];
        if known.as_ref().is_none_or(|known| known.generation != stage.generation) {
            // Allocates once per change of the weights.
            let split = Split::new(stage.weighted.iter().map(|(weight, _)| *weight), self.phase);
            *known = Some(Splitting { generation: stage.generation, split });
        }
        let place = known.as_mut()?.split.next()?;
        let (_, backend) = stage.weighted.get(place)?;
        stage.backends.get(*backend)
    }

    /// The next number of this worker's own sequence.
    pub(crate) fn seed(&self) -> u64 {
        let n = self.seed.get();
        self.seed.set(n.wrapping_add(1));
        balance::mix(n)
    }

    /// Counts a request that we answered ourselves.
    pub(crate) fn count_refused(&self, own: Own) {
        self.totals.refuse(own.label());
    }

    pub(crate) fn new(setup: &Setup) -> Rc<Self> {
        let mut published = Cache::new(setup.snapshot.clone());
        let held = Rc::new(Held(published.load().clone()));
        let (limits, deadlines) = (Rc::new(setup.limits.clone()), Deadlines::new());
        Rc::new(Self {
            pools: Pools::new(limits.clone(), deadlines.clone()),
            limits,
            deadlines,
            counters: Counters::new(setup.opened.clone()),
            watches: Watches::new(setup.opened.clone(), setup.tripped.clone()),
            phase: setup.phase,
            published: RefCell::new(published),
            held: RefCell::new(held),
            issuers: setup.issuers.clone(),
            keys: RefCell::new(Cache::new(setup.issuers.keys().clone())),
            callers: RefCell::default(),
            decisions: RefCell::default(),
            assertions: RefCell::default(),
            seal: setup.seal.clone(),
            ring: Ring::default(),
            lasting: Rc::default(),
            alarmed: Cell::new(None),
            splits: RefCell::default(),
            seed: Cell::new(u64::from(setup.phase.index) << 40),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            outstanding: Rc::default(),
            log: setup.log.as_ref().map(|handle| Rc::new(Log::new(handle.lines.clone(), handle.dropped.clone()))),
            draining: Cell::new(false),
            changed: Notify::new(),
            totals: setup.totals.clone(),
        })
    }

    fn report(&self) {
        self.totals.connections.store(self.connections.borrow().len() as u64, Relaxed);
        self.totals.outstanding.store(self.outstanding.get().into(), Relaxed);
    }
}

/// Milliseconds since the Unix epoch by the system's clock, which is what tokens are compared with.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn now_s() -> u64 {
    now_ms() / 1_000
}

/// Starts the thread of a worker. It ends with the number of requests that were cut at the drain's deadline.
pub(crate) fn start(setup: Setup) -> std::io::Result<std::thread::JoinHandle<u64>> {
    let (made, making) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("worker-{}", setup.phase.index)).spawn(move || {
        // Made here, because it does not leave its thread. Everything still on it is dropped with it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = made.send(Ok(()));
                runtime.block_on(run(setup))
            }
            Err(error) => {
                let _ = made.send(Err(error));
                0
            }
        }
    })?;
    // Its error is an error of the start.
    making.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker's thread ended at once")))?;
    Ok(thread)
}

async fn run(setup: Setup) -> u64 {
    let worker = Worker::new(&setup);
    let ids = Rc::new(Ids::new(&setup.ids, setup.phase.index));
    let Setup { http, https, mut stop, trusted, proxy_protocol, questions, .. } = setup;
    let mut accepting = Vec::new();
    let listeners = http
        .map(|listener| (listener, None))
        .into_iter()
        .chain(https.map(|(listener, config)| (listener, Some(config))));
    for (listener, tls) in listeners {
        let port = listener.local_addr().map_or(0, |address| address.port());
        let shared = Rc::new(Listener {
            complained: Cell::default(),
            tls: tls.is_some(),
            port: port.to_string().into(),
            proxy_protocol,
            trusted: trusted.clone(),
            limits: worker.limits.clone(),
            deadlines: worker.deadlines.clone(),
            ids: ids.clone(),
            log: worker.log.clone(),
            outstanding: worker.outstanding.clone(),
            totals: worker.totals.clone(),
        });
        match TcpListener::from_std(listener) {
            Ok(listener) => accepting.push(tokio::task::spawn_local(accept(worker.clone(), listener, shared, tls))),
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    tokio::task::spawn_local(worker.deadlines.clone().run());
    tokio::task::spawn_local(keep(worker.clone()));
    tokio::task::spawn_local(answer(worker.clone(), questions));
    if worker.log.is_some() {
        tokio::task::spawn_local(keep_log(worker.clone()));
    }
    let deadline = loop {
        let deadline = *stop.borrow_and_update();
        if let Some(deadline) = deadline {
            break deadline;
        }
        if stop.changed().await.is_err() {
            break Instant::now();
        }
    };
    crate::drain::drain(&worker, accepting, deadline).await
}

/// Once a second: figures for the admin runtime, idle connections, the hold on an old snapshot, old guards and old keys, and who
/// may go on.
async fn keep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        worker.pools.prune();
        worker.watches.keep(&worker.snapshot());
        worker.keys.borrow_mut().load();
        worker.report();
        lasting::look_again(&worker, &worker.lasting).await;
    }
}

/// Tells the admin runtime what was decided.
async fn answer(worker: Rc<Worker>, questions: mpsc::Receiver<Ask>) {
    worker.ring.answer(questions).await;
}

/// What is in the access log is seldom older than this.
const LOG_LAG: Duration = Duration::from_millis(200);

async fn keep_log(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(LOG_LAG).await;
        worker.hand_over_log();
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, shared: Rc<Listener>, tls: Option<Arc<ServerConfig>>) {
    let mut complained: Option<Instant> = None;
    while !worker.draining.get() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = worker.changed.notified() => continue,
        };
        match accepted {
            Ok((stream, peer)) => open(&worker, stream, peer, &shared, tls.clone()),
            Err(error) => {
                // The client is gone, or descriptors are: others end and free some.
                if complained.is_none_or(|since| since.elapsed() >= COMPLAIN_AGAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept connections; it is tried again all the time");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // What waits in the queue was accepted by the kernel already: it is answered, not reset. The socket is asked itself,
    // because the runtime would stop in the middle to let other tasks run.
    let Ok(listener) = listener.into_std() else { return };
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                if stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(stream)
                {
                    open(&worker, stream, peer, &shared, tls.clone());
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

fn open(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    shared: &Rc<Listener>,
    tls: Option<Arc<ServerConfig>>,
) {
    let connection = Rc::new(Connection::new(peer, shared.clone(), worker.seed()));
    let id = worker.next_connection.replace(worker.next_connection.get() + 1);
    worker.connections.borrow_mut().insert(id, connection.clone());
    worker.totals.accepted.store(id + 1, Relaxed);
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        server::serve(stream, tls, connection, worker.clone()).await;
        worker.connections.borrow_mut().remove(&id);
        if worker.draining.get() {
            worker.changed.notify_waiters();
        }
    });
}

// === What draining needs ===

impl Worker {
    /// No new connections from now on.
    pub(crate) fn stop_accepting(&self) {
        self.draining.set(true);
        self.changed.notify_waiters();
    }

    /// Connections that are open now.
    pub(crate) fn open_connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Gives the lines of the access log to the thread that writes them.
    pub(crate) fn hand_over_log(&self) {
        if let Some(log) = &self.log {
            log.hand_over();
        }
    }

    /// Whether any connection is open.
    pub(crate) fn has_connections(&self) -> bool {
        !self.connections.borrow().is_empty()
    }

    /// Requests that are being answered now.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.get()
    }

    /// Completes when another connection has ended.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.changed.notified()
    }
}
