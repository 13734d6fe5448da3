//! What the proxy serves, and every way it changes: the controller, the break-glass socket, time.
//!
//! Must not know: how changes travel here, or how requests are served. Runs on the admin runtime; its lock is never
//! taken by a worker.
//!
//! Main type: [`Control`]. The order of a change is always: compile, swap in memory, then make safe on disk.

mod saving;
mod secrets;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::fleet::{Rejection, Secret};
use api::{ReleaseNumber, StageName, Version};
use arc_swap::ArcSwap;
use certs::endpoint::Authorities;
use certs::public::Public;
use certs::secret::SealKey;
use tokio::sync::{Notify, oneshot, watch};

pub(crate) use saving::Saved;

use crate::health::Health;
use crate::issuers::Issuers;
use crate::journal::{Journal, Loaded, Served};
use crate::keyring;
use crate::overrides::{Ended, Override, Overrides};
use crate::snapshot::{Compiled, Compiler, Incoming, Resources, Snapshot};
use saving::{Files, Job};
use secrets::SecretsFile;

/// Everything that serves, and what it came from.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// What workers read.
    published: Arc<ArcSwap<Snapshot>>,
    public: Arc<Public>,
    issuers: Arc<Issuers>,
    /// What secrets are sealed for.
    seal_key: SealKey,
    /// To the thread that writes. Sent under the lock, so that nothing older is written over something newer.
    jobs: mpsc::Sender<Job>,
    /// Set once, when the proxy is told to stop; read by the admin pages.
    draining: AtomicBool,
    /// How far the journal is.
    saved: watch::Sender<Saved>,
    /// Notified when endpoints may have come or gone.
    pub(crate) endpoints_changed: Arc<Notify>,
    /// Notified when overrides have changed.
    pub(crate) overrides_changed: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    compiler: Compiler,
    overrides: Overrides,
    /// Snapshots that a worker may still hold: they are freed here, not in the middle of a request.
    retired: Vec<Arc<Snapshot>>,
}

impl Control {
    /// Takes over what was on disk and starts the thread that writes, which ends with this. `machine`: who is believed
    /// about endpoints where a stage does not say. `issuers`: who has to know whose keys are needed.
    pub(crate) fn start(
        data: &Path,
        loaded: Loaded,
        (public, issuers): (Arc<Public>, Arc<Issuers>),
        machine: Authorities,
        seal_key: SealKey,
    ) -> std::io::Result<Self> {
        for damage in &loaded.damage {
            tracing::error!("{damage}");
        }
        let overrides_path = data.join("overrides.json");
        let mut overrides = Overrides::load(&overrides_path).unwrap_or_else(|error| {
            tracing::error!("{error}: overrides are not in force");
            Overrides::default()
        });
        overrides.carry_over(now_ms());
        overrides.expire(now_ms());
        let mut compiler = Compiler::new(machine, public.clone());
        for one in &overrides.in_force {
            compiler.set_override(&one.stage.to_string(), Some(one.release.number()));
        }
        let (secrets, damage) = SecretsFile::load(&data.join("secrets.json"));
        if let Some(damage) = damage {
            tracing::error!("{damage}");
        }
        let (jobs, queue) = mpsc::channel();
        let (saved, _) = watch::channel(Saved::default());
        let control = Self {
            state: Mutex::new(State { compiler, overrides, retired: Vec::new() }),
            published: Arc::default(),
            public,
            issuers,
            seal_key,
            jobs,
            draining: AtomicBool::new(false),
            saved,
            endpoints_changed: Arc::default(),
            overrides_changed: Arc::default(),
        };
        drop(control.open(secrets.secrets()));
        // What is not served is not in the journal either: a change is saved as the difference to what was served.
        let served = loaded.state.filter(|(version, resources)| control.take_over(*version, resources));
        let files = Files::new(Journal::new(data.join("state"), served.as_ref()), secrets);
        let saved = control.saved.clone();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || saving::run(files, &overrides_path, &queue, &saved))?;
        Ok(control)
    }

    /// Serves what was on disk; false when it cannot be used.
    fn take_over(&self, version: Version, resources: &Resources) -> bool {
        let fingerprint = resources.fingerprint().to_bytes();
        let incoming = Incoming { version, base: None, set: resources.to_set(), fingerprint: fingerprint.to_vec() };
        let mut state = self.state();
        match state.compiler.take_over(incoming) {
            Ok(compiled) => {
                tracing::info!(%version, resources = resources.len(), "serving the state of the last run");
                for Rejection { resource, field, reason } in &compiled.missing {
                    tracing::error!(resource, field, reason, "left out of the state of the last run; all else serves");
                }
                // What lacks a secret is not safe: nothing on disk makes it whole.
                if compiled.missing.is_empty() {
                    self.saved.send_replace(Saved { version: Some(version), fingerprint, problem: String::new() });
                }
                // As for changes.
                let _ = self.jobs.send(Job::Forget(compiled.forgotten.clone()));
                self.publish(&mut state, compiled);
                true
            }
            Err(rejections) => {
                tracing::error!(%version, ?rejections, "the saved state cannot be used: starting without routes");
                false
            }
        }
    }

    /// Applies a change: it serves when this returns, and is being made safe on disk.
    pub(crate) fn apply(&self, incoming: Incoming) -> Result<[u8; 32], Vec<Rejection>> {
        let version = incoming.version;
        // INVARIANT: what is compiled under the lock is swapped and queued under it, so that nothing overtakes.
        let mut state = self.state();
        let compiled = state.compiler.apply(incoming)?;
        let fingerprint = compiled.fingerprint;
        self.serve(&mut state, version, compiled);
        Ok(fingerprint.to_bytes())
    }

    /// Takes over secrets that later changes name, or that the state lacked. They are on disk before any change that comes
    /// after them.
    pub(crate) fn take_secrets(&self, secrets: Vec<Secret>) {
        let (mut state, new) = self.open(secrets);
        if new.is_empty() {
            return;
        }
        // As for changes.
        let _ = self.jobs.send(Job::Secrets(new));
        if let (Some(version), Some(compiled)) = (state.compiler.snapshot().version, state.compiler.mend()) {
            self.serve(&mut state, version, compiled);
        }
    }

    /// Opens secrets and has them ready; gives those that are new.
    fn open(&self, secrets: Vec<Secret>) -> (MutexGuard<'_, State>, Vec<Secret>) {
        // Outside of the lock: it takes its time.
        let (opened, refused) = keyring::open(&self.seal_key, secrets);
        for why in refused.iter().take(20) {
            tracing::error!("a secret was not taken: {why}");
        }
        let mut state = self.state();
        let (new, over) = state.compiler.take_secrets(opened);
        if over > 0 {
            tracing::error!(over, "secrets were not taken: there are too many");
        }
        (state, new)
    }

    /// What secrets are sealed for.
    pub(crate) fn seal_key(&self) -> &[u8] {
        self.seal_key.public()
    }

    /// Publishes what was compiled and has it made safe on disk.
    fn serve(&self, state: &mut State, version: Version, compiled: Compiled) {
        let (delta, fingerprint) = (compiled.delta.clone(), compiled.fingerprint);
        let forgotten = compiled.forgotten.clone();
        let is_whole = compiled.missing.is_empty();
        self.publish(state, compiled);
        // What still lacks a secret is not safe, and the journal holds it already: it is told once nothing is missing.
        if is_whole {
            // It only fails when the journal's thread is gone: then nothing is ever told to be safe.
            let _ = self.jobs.send(Job::Change(Served { version, delta, fingerprint }));
        }
        if !forgotten.is_empty() {
            let _ = self.jobs.send(Job::Forget(forgotten));
        }
    }

    fn publish(&self, state: &mut State, compiled: Compiled) {
        if let Some(certificates) = compiled.changed.certificates {
            self.public.resolver().publish(certificates);
        }
        if let Some(keys) = compiled.changed.tickets {
            self.public.tickets().publish(keys);
        }
        if let Some(issuers) = compiled.issuers {
            // Before anybody's token is looked at with their keys.
            self.issuers.set(issuers.iter().map(|(name, issuer)| (&**name, issuer)));
        }
        self.swap(state, compiled.snapshot);
        // A change of weights, such as a rollback, leaves the checks as they are.
        if compiled.delta.touches_endpoints() {
            self.endpoints_changed.notify_one();
        }
    }

    fn swap(&self, state: &mut State, snapshot: Arc<Snapshot>) {
        state.retired.push(self.published.swap(snapshot));
        // With thousands of routes a snapshot is large: a burst of changes must not pile them up.
        state.retired.retain(|one| Arc::strong_count(one) > 1);
    }

    /// Frees what no worker holds any more; called about once a second.
    pub(crate) fn free_retired(&self) {
        let mut state = self.state();
        let (free, held) = std::mem::take(&mut state.retired).into_iter().partition(|one| Arc::strong_count(one) == 1);
        state.retired = held;
        drop(state);
        drop::<Vec<_>>(free);
    }

    pub(crate) fn published(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.published
    }

    pub(crate) fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    pub(crate) fn saved(&self) -> watch::Receiver<Saved> {
        self.saved.subscribe()
    }

    /// From now on the proxy takes no new requests.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Version and fingerprint of what is served.
    pub(crate) fn have(&self) -> Option<(Version, [u8; 32])> {
        let state = self.state();
        let version = state.compiler.snapshot().version?;
        Some((version, state.compiler.resources().fingerprint().to_bytes()))
    }

    /// The same; `None` as well while secrets are missing that it names: then all of it is asked for again.
    pub(crate) fn have_whole(&self) -> Option<(Version, [u8; 32])> {
        let is_whole = self.state().compiler.is_whole();
        self.have().filter(|_| is_whole)
    }

    /// Name of the resource and end of validity (seconds since the Unix epoch) of each certificate that is served.
    pub(crate) fn expiries(&self) -> Vec<(Arc<str>, u64)> {
        let state = self.state();
        state.compiler.certificates().map(|(name, one)| (name.clone(), one.expires_s())).collect()
    }

    /// Endpoints whose health is of interest.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Health>> {
        self.state().compiler.healths()
    }

    // === Overrides ===

    pub(crate) fn overrides(&self) -> Vec<Override> {
        self.state().overrides.in_force.clone()
    }

    /// Sets an override, in memory and on disk. The error says what is wrong with it, or that it is not safe on disk.
    ///
    /// # Cancel safety
    /// In force from the first poll on, and then written whether or not anybody waits.
    pub(crate) async fn set_override(&self, new: Override) -> Result<(), String> {
        let written = {
            let mut state = self.state();
            check_override(state.compiler.snapshot(), &new.stage, new.release)?;
            if new.until_ms <= now_ms() {
                return Err("the time it would end is past already".into());
            }
            tracing::warn!(stage = %new.stage, release = %new.release, by = new.by, reason = new.reason, "override set");
            let (stage, release) = (new.stage.to_string(), new.release.number());
            state.overrides.set(new);
            let snapshot = state.compiler.set_override(&stage, Some(release));
            self.swap(&mut state, snapshot);
            self.overrides_changed(&state)
        };
        safe(written).await.map_err(|problem| format!("it is in force, but not safe on disk: {problem}"))
    }

    /// Ends an override before its time.
    ///
    /// # Cancel safety
    /// As [`Control::set_override`].
    pub(crate) async fn end_override(&self, stage: &StageName, by: &str) -> Result<(), String> {
        let written = {
            let mut state = self.state();
            if !state.overrides.end(stage, now_ms(), by.to_owned(), "ended by hand".to_owned()) {
                return Err(format!("{stage} has no override on this proxy"));
            }
            tracing::warn!(%stage, by, "override ended");
            let snapshot = state.compiler.set_override(&stage.to_string(), None);
            self.swap(&mut state, snapshot);
            self.overrides_changed(&state)
        };
        safe(written).await.map_err(|problem| format!("it has ended, but a restart would bring it back: {problem}"))
    }

    /// Ends overrides whose time is over; gives how long the next one has.
    pub(crate) fn expire_overrides(&self) -> Option<Duration> {
        let now = now_ms();
        let mut state = self.state();
        let over = state.overrides.expire(now);
        let next = state.overrides.next_end_ms().map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
        if over.is_empty() {
            return next;
        }
        let mut snapshot = state.compiler.snapshot().clone();
        for stage in over {
            tracing::warn!(%stage, "override ended: its time is over");
            snapshot = state.compiler.set_override(&stage.to_string(), None);
        }
        self.swap(&mut state, snapshot);
        // Nobody waits: an older file ends it again at the next start.
        drop(self.overrides_changed(&state));
        next
    }

    /// What is in force, and what ended and is not known to have reached the controller.
    pub(crate) fn overrides_and_ended(&self) -> (Vec<Override>, Vec<Ended>) {
        let overrides = &self.state().overrides;
        (overrides.in_force.clone(), overrides.ended.clone())
    }

    /// Forgets endings that have reached the controller.
    pub(crate) fn forget_ended(&self, told: &[Ended]) {
        let mut state = self.state();
        state.overrides.ended.retain(|one| !told.contains(one));
        // Nobody waits: an older file has them told once more.
        drop(self.write_overrides(&state));
    }

    fn overrides_changed(&self, state: &State) -> oneshot::Receiver<Result<(), String>> {
        self.overrides_changed.notify_one();
        self.write_overrides(state)
    }

    /// Has the overrides written as they are now.
    fn write_overrides(&self, state: &State) -> oneshot::Receiver<Result<(), String>> {
        let (asked, written) = oneshot::channel();
        // It only fails when the thread is gone: then the answer is an error as well.
        let _ = self.jobs.send(Job::Overrides(state.overrides.clone(), asked));
        written
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic inside would have left the compiler between two statements that cannot fail: it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn safe(written: oneshot::Receiver<Result<(), String>>) -> Result<(), String> {
    written.await.unwrap_or_else(|_| Err("the proxy is ending".into()))
}

fn check_override(snapshot: &Snapshot, stage: &StageName, release: ReleaseNumber) -> Result<(), String> {
    let name = stage.to_string();
    let known = snapshot.stage_named(&name).ok_or_else(|| format!("this proxy does not know the stage {name}"))?;
    let backend = known.backend(release.number()).ok_or_else(|| {
        let all: Vec<String> = known.backends.iter().map(|backend| format!("r{}", backend.release)).collect();
        format!("{release} does not run in {name}; there are {}", all.join(", "))
    })?;
    if backend.endpoints.is_empty() { Err(format!("{release} has no endpoints in {name}")) } else { Ok(()) }
}

/// Milliseconds since the Unix epoch, by a clock that nobody sets: the system's as it was when this was asked first, and
/// the time that has gone by since.
///
/// What is set for an hour lasts an hour, whatever becomes of the system's clock meanwhile. A restart believes that anew.
pub(crate) fn now_ms() -> u64 {
    static BEGUN: LazyLock<(Duration, Instant)> =
        LazyLock::new(|| (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now()));
    let since = BEGUN.0 + BEGUN.1.elapsed();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
