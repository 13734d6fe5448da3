//! A whole proxy without a controller: listeners, workers, health checks, journal, admin pages, break-glass socket.
//!
//! Main type: [`Engine`]. `run` adds the controller's stream to it.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use api::Version;
use api::fleet::{Rejection, ResourceSet, Secret};
use arc_swap::ArcSwap;
use certs::CertsError;
use certs::endpoint::Authorities;
use certs::public::Public;
use certs::secret::SealKey;
use policies::credential::denial::Seal;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::access_log::writer;
use crate::admin::{self, Observed};
use crate::control::Control;
use crate::count::{Ledger, Opened};
use crate::explain::{self, Asking};
use crate::fleet::Follower;
use crate::forwarded::Trusted;
use crate::guard::Tripped;
use crate::issuers::Issuers;
use crate::listen::listen;
use crate::request_id::IdKey;
use crate::settings::{Bound, Limits, ProxyError, Settings};
use crate::snapshot::{Incoming, Snapshot};
use crate::split::Phase;
use crate::totals::Totals;
use crate::worker::{self, Setup};
use crate::{control, denied, guard, health, journal, local};

/// A running proxy.
#[derive(Debug)]
pub struct Engine {
    control: Arc<Control>,
    observed: Arc<Observed>,
    bound: Bound,
    software: String,
    drain: Duration,
    stop: watch::Sender<Option<Instant>>,
    workers: Vec<JoinHandle<u64>>,
    /// Everything on the admin runtime; ends with the engine.
    tasks: JoinSet<()>,
    /// Keeps a second proxy out of the folder.
    _lock: File,
}

/// Why a change was refused: each resource with field and reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected(pub Vec<Rejection>);

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, Rejection { resource, field, reason }) in self.0.iter().enumerate() {
            write!(f, "{}{resource} {field}: {reason}", if place > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejected {}

impl Engine {
    /// Binds, reads the journal, and serves what it held.
    ///
    /// # Errors
    /// An address or the folder cannot be used, or an algorithm does not work on this machine.
    pub async fn start(mut settings: Settings) -> Result<Self, ProxyError> {
        policies::credential::self_test().map_err(ProxyError::Cryptography)?;
        let lock = lock_folder(&settings.data)?;
        let count = match settings.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let http = settings.http.map(|address| listen(address, count)).transpose()?;
        let https = settings.https.map(|address| listen(address, count)).transpose()?;
        let (admin, admin_listener) = listen(settings.admin, 1)?;
        let bound = Bound { http: http.as_ref().map(|http| http.0), https: https.as_ref().map(|https| https.0), admin };

        let public = Public::new();
        let loaded = journal::load(&settings.data.join("state"));
        let machine = Authorities::of_machine();
        let seal_key = seal_key(&settings.data)?;
        let issuers = Issuers::start(&settings.data, machine.clone());
        let shared = (public.clone(), issuers.clone());
        let control = Control::start(&settings.data, loaded, shared, machine, seal_key).map_err(ProxyError::Thread)?;
        let control = Arc::new(control);
        let (ledger, opened) = Ledger::new();
        let (tripped, trips) = unbounded_channel();
        let (stop, stopping) = watch::channel(None);
        let log = settings.access_log.take().map(writer::start).transpose()?;
        let common = Common {
            tls: public.common().clone(),
            snapshot: control.published().clone(),
            opened,
            tripped,
            limits: settings.limits.clone(),
            stop: stopping,
            trusted: Trusted::new(std::mem::take(&mut settings.trusted)),
            proxy_protocol: settings.proxy_protocol,
            ids: IdKey::draw().map_err(ProxyError::Thread)?,
            issuers: issuers.clone(),
            seal: Arc::new(denied::seal_of_process().map_err(ProxyError::Thread)?),
            log: log.clone(),
        };
        let listeners = |bound: Option<(_, Vec<_>)>| bound.map(|(_, listeners)| listeners).unwrap_or_default();
        let (workers, totals, asking) = start_workers(count, listeners(http), listeners(https), &common)?;
        let observed = Arc::new(Observed {
            control: control.clone(),
            ledger: Mutex::new(ledger),
            totals,
            asking,
            tripped: Arc::default(),
            log_dropped: log.as_ref().map(|log| log.dropped.clone()),
        });
        let mut engine = Self {
            control,
            observed,
            bound,
            software: std::mem::take(&mut settings.software),
            drain: settings.drain,
            stop,
            workers,
            tasks: JoinSet::new(),
            _lock: lock,
        };
        engine.spawn(&settings.data, admin_listener)?;
        engine.tasks.spawn(issuers.run());
        engine.tasks.spawn(guard::listen(trips, control::now_ms, engine.observed.tripped.clone()));
        if let Some(log) = log {
            engine.tasks.spawn(reopen(log, settings.reopen_log.clone()));
        }
        write_listening(&settings.data, bound)?;
        if let Some(ready) = settings.ready {
            // Whoever asked may have gone.
            let _ = ready.send(bound);
        }
        Ok(engine)
    }

    fn spawn(&mut self, data: &Path, admin: Vec<TcpListener>) -> Result<(), ProxyError> {
        let address = self.bound.admin;
        for listener in admin {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(|source| ProxyError::Listen { address, source })?;
            self.tasks.spawn(admin::serve(listener, self.observed.clone()));
        }
        let socket = local::bind(data)?;
        self.tasks.spawn(local::serve(socket, self.control.clone()));
        let control = self.control.clone();
        let changed = control.endpoints_changed.clone();
        self.tasks.spawn(async move { health::checker::run(changed, move || control.endpoints()).await });
        self.tasks.spawn(keep(self.control.clone()));
        Ok(())
    }

    /// Where it listens.
    pub fn bound(&self) -> Bound {
        self.bound
    }

    /// Applies a full state, as a controller would send it: it serves when this returns.
    ///
    /// # Errors
    /// Everything that is wrong with it; what served before still serves.
    pub fn apply(&self, version: Version, set: ResourceSet) -> Result<(), Rejected> {
        let mut fingerprint = api::Fingerprint::default();
        set.upserts.iter().for_each(|resource| fingerprint.add(resource));
        let fingerprint = fingerprint.to_bytes().to_vec();
        self.control.apply(Incoming { version, base: None, set, fingerprint }).map_err(Rejected)?;
        Ok(())
    }

    /// Takes over secrets, as a controller would send them before the change that names them.
    pub fn take_secrets(&self, secrets: Vec<Secret>) {
        self.control.take_secrets(secrets);
    }

    /// What secrets for this proxy are sealed for: 32 bytes.
    pub fn seal_key(&self) -> &[u8] {
        self.control.seal_key()
    }

    /// Version that is served; `None` before anything was ever applied.
    pub fn version(&self) -> Option<Version> {
        self.control.have().map(|(version, _)| version)
    }

    /// Waits until a version is safe on disk.
    ///
    /// # Cancel safety
    /// It only looks.
    pub async fn saved(&self, version: Version) {
        let mut saved = self.control.saved();
        // It only fails when the journal's thread is gone, which ends with the engine.
        let _ = saved.wait_for(|saved| saved.version >= Some(version)).await;
    }

    /// Follows a controller until it is dropped: connects again and again, applies what comes, reports. `was_refused` is
    /// called each time that the controller does not take the certificate that the channel shows.
    pub async fn follow(&self, channel: Channel, was_refused: impl Fn() + Sync) {
        let workers = self.workers.len() as u32;
        Follower::new(self.observed.clone(), self.software.clone(), workers, &was_refused).run(channel).await;
    }

    /// Takes no new requests, waits for those in flight, at most as long as the settings say, and ends.
    ///
    /// Returns the number of requests that were cut.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the workers draining on their own.
    pub async fn drain(mut self) -> u64 {
        self.control.drain();
        self.stop.send_replace(Some(Instant::now() + self.drain));
        let workers = std::mem::take(&mut self.workers);
        let joined = tokio::task::spawn_blocking(move || {
            workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
        });
        joined.await.unwrap_or_default()
    }
}

/// What every worker is given alike.
struct Common {
    tls: Arc<rustls::ServerConfig>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    opened: mpsc::Sender<Opened>,
    tripped: UnboundedSender<Tripped>,
    limits: Limits,
    stop: watch::Receiver<Option<Instant>>,
    trusted: Trusted,
    proxy_protocol: bool,
    ids: IdKey,
    issuers: Arc<Issuers>,
    seal: Arc<Seal>,
    log: Option<writer::Handle>,
}

type Workers = (Vec<JoinHandle<u64>>, Vec<Arc<Totals>>, Asking);

/// Starts `count` workers, each with a listener of its own of either kind.
fn start_workers(
    count: usize,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
    common: &Common,
) -> Result<Workers, ProxyError> {
    let (mut http, mut https) = (http.into_iter(), https.into_iter());
    let (mut workers, mut totals, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..count {
        let own = Arc::<Totals>::default();
        totals.push(own.clone());
        let (ask, questions) = explain::channel();
        asked.push(ask);
        let setup = Setup {
            phase: Phase { index: index as u32, workers: count as u32 },
            http: http.next(),
            https: https.next().map(|listener| (listener, common.tls.clone())),
            snapshot: common.snapshot.clone(),
            opened: common.opened.clone(),
            tripped: common.tripped.clone(),
            limits: common.limits.clone(),
            stop: common.stop.clone(),
            totals: own,
            trusted: common.trusted.clone(),
            proxy_protocol: common.proxy_protocol,
            ids: common.ids.clone(),
            issuers: common.issuers.clone(),
            seal: common.seal.clone(),
            log: common.log.clone(),
            questions,
        };
        workers.push(worker::start(setup).map_err(ProxyError::Thread)?);
    }
    Ok((workers, totals, Asking::new(common.ids.clone(), asked)))
}

/// Begins the access log anew when somebody has moved its file.
async fn reopen(log: writer::Handle, asked: Arc<Notify>) {
    loop {
        asked.notified().await;
        log.reopen();
    }
}

/// Ends overrides at their time and frees old snapshots.
async fn keep(control: Arc<Control>) {
    loop {
        let next = control.expire_overrides().unwrap_or(Duration::from_secs(1));
        control.free_retired();
        tokio::time::sleep(next.min(Duration::from_secs(1))).await;
    }
}

fn lock_folder(data: &Path) -> Result<File, ProxyError> {
    let failed = |path: &Path, source| ProxyError::File { path: path.to_owned(), source };
    journal::create_folder(data).map_err(|source| failed(data, source))?;
    let path = data.join("lock");
    let file = File::create(&path).map_err(|source| failed(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ProxyError::InUse { path: data.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(&path, source)),
    }
}

/// The proxy's own key. One that is damaged is moved aside: secrets are sealed for the new one when it is told.
fn seal_key(data: &Path) -> Result<SealKey, ProxyError> {
    match SealKey::open_or_create(data) {
        Err(CertsError::Damaged { path, what }) => {
            let aside = path.with_extension("damaged");
            let (from, to) = (path.display(), aside.display());
            tracing::error!("{from} is {what}: it is moved to {to}, and secrets are asked for anew");
            std::fs::rename(&path, &aside).map_err(|source| ProxyError::File { path: path.clone(), source })?;
            SealKey::open_or_create(data).map_err(ProxyError::Identity)
        }
        opened => opened.map_err(ProxyError::Identity),
    }
}

fn write_listening(data: &Path, bound: Bound) -> Result<(), ProxyError> {
    let path = data.join("listening.json");
    let text = serde_json::to_vec(&bound).expect("addresses can be written as JSON");
    durable::write(&path, &text).map_err(|source| ProxyError::File { path, source })
}
