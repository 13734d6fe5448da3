//! What the proxy serves, and every way it changes: the controller, the break-glass socket, time.
//!
//! Must not know: how changes travel here, or how requests are served. Runs on the admin runtime; its lock is never
//! taken by a worker.
//!
//! Main type: [`Control`]. The order of a change is always: compile, swap in memory, then make safe on disk.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::fleet::Rejection;
use api::{ReleaseNumber, StageName, Version};
use arc_swap::ArcSwap;
use certs::resolver::SniResolver;
use tokio::sync::{Notify, watch};

use crate::health::Health;
use crate::journal::{Journal, Loaded};
use crate::overrides::{Ended, Override, Overrides};
use crate::snapshot::{Compiled, Compiler, Delta, Incoming, Snapshot};

/// How long after a failed write it is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// Everything that serves, and what it came from.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    /// What workers read.
    published: Arc<ArcSwap<Snapshot>>,
    resolver: Arc<SniResolver>,
    journal: mpsc::Sender<(Version, Delta)>,
    /// How far the journal is.
    saved: watch::Sender<Saved>,
    overrides_path: PathBuf,
    /// Held while the file is written.
    writing_overrides: Mutex<()>,
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

/// What is safe on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Last version that is safe.
    pub(crate) version: Option<Version>,
    /// Why later ones are not; empty: nothing went wrong.
    pub(crate) problem: String,
}

impl Control {
    /// Takes over what was on disk and starts the journal's thread, which ends with this.
    pub(crate) fn start(data: &std::path::Path, loaded: Loaded, resolver: Arc<SniResolver>) -> std::io::Result<Self> {
        for damage in &loaded.damage {
            tracing::error!("{damage}");
        }
        let overrides_path = data.join("overrides.json");
        let mut overrides = Overrides::load(&overrides_path).unwrap_or_else(|error| {
            tracing::error!("{error}: overrides are not in force");
            Overrides::default()
        });
        overrides.expire(now_ms());
        let mut compiler = Compiler::default();
        for one in &overrides.in_force {
            compiler.set_override(&one.stage.to_string(), Some(one.release.number()));
        }
        let journal = Journal::new(data.join("state"), loaded.state.as_ref());
        let (changes, queue) = mpsc::channel();
        let (saved, _) = watch::channel(Saved::default());
        let thread_saved = saved.clone();
        std::thread::Builder::new().name("journal".into()).spawn(move || write(journal, &queue, &thread_saved))?;
        let control = Self {
            state: Mutex::new(State { compiler, overrides, retired: Vec::new() }),
            published: Arc::default(),
            resolver,
            journal: changes,
            saved,
            overrides_path,
            writing_overrides: Mutex::new(()),
            endpoints_changed: Arc::default(),
            overrides_changed: Arc::default(),
        };
        control.take_over(loaded);
        Ok(control)
    }

    /// Serves what was on disk.
    fn take_over(&self, loaded: Loaded) {
        let Some((version, resources)) = loaded.state else { return };
        let fingerprint = resources.fingerprint().to_bytes().to_vec();
        let incoming = Incoming { version, base: None, set: resources.to_set(), fingerprint };
        let mut state = self.state();
        match state.compiler.apply(incoming) {
            Ok(compiled) => {
                tracing::info!(%version, resources = resources.len(), "serving the state of the last run");
                self.publish(&mut state, compiled);
                self.saved.send_replace(Saved { version: Some(version), problem: String::new() });
            }
            Err(rejections) => {
                tracing::error!(%version, ?rejections, "the saved state cannot be used: starting without routes");
            }
        }
    }

    /// Applies a change: it serves when this returns, and is being made safe on disk.
    pub(crate) fn apply(&self, incoming: Incoming) -> Result<[u8; 32], Vec<Rejection>> {
        let version = incoming.version;
        // INVARIANT: what is compiled under the lock is swapped and queued under it, so that nothing overtakes.
        let mut state = self.state();
        let compiled = state.compiler.apply(incoming)?;
        let (fingerprint, delta) = (compiled.fingerprint, compiled.delta.clone());
        self.publish(&mut state, compiled);
        // It only fails when the journal's thread is gone: then nothing is ever told to be safe.
        let _ = self.journal.send((version, delta));
        Ok(fingerprint.to_bytes())
    }

    fn publish(&self, state: &mut State, compiled: Compiled) {
        if let Some(certificates) = compiled.certificates {
            self.resolver.publish(certificates);
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

    pub(crate) fn saved(&self) -> watch::Receiver<Saved> {
        self.saved.subscribe()
    }

    /// Version and fingerprint of what is served.
    pub(crate) fn have(&self) -> Option<(Version, [u8; 32])> {
        let state = self.state();
        let version = state.compiler.snapshot().version?;
        Some((version, state.compiler.resources().fingerprint().to_bytes()))
    }

    /// Endpoints whose health is of interest.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Health>> {
        self.state().compiler.healths()
    }

    // === Overrides ===

    pub(crate) fn overrides(&self) -> Vec<Override> {
        self.state().overrides.in_force.clone()
    }

    /// Sets an override, in memory and on disk. The error says what is wrong with it.
    pub(crate) fn set_override(&self, new: Override) -> Result<(), String> {
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
        drop(state);
        self.save_overrides()
    }

    /// Ends an override before its time.
    pub(crate) fn end_override(&self, stage: &StageName, by: &str) -> Result<(), String> {
        let mut state = self.state();
        if !state.overrides.end(stage, now_ms(), by.to_owned(), "ended by hand".to_owned()) {
            return Err(format!("{stage} has no override on this proxy"));
        }
        tracing::warn!(%stage, by, "override ended");
        let snapshot = state.compiler.set_override(&stage.to_string(), None);
        self.swap(&mut state, snapshot);
        drop(state);
        self.save_overrides()
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
        drop(state);
        if let Err(error) = self.save_overrides() {
            tracing::error!("{error}");
        }
        next
    }

    /// What ended since the controller was last told; it is taken as told.
    pub(crate) fn take_ended(&self) -> Vec<Ended> {
        let mut state = self.state();
        if state.overrides.ended.is_empty() {
            return Vec::new();
        }
        let ended = std::mem::take(&mut state.overrides.ended);
        drop(state);
        if let Err(error) = self.write_overrides() {
            tracing::warn!("{error}");
        }
        ended
    }

    fn save_overrides(&self) -> Result<(), String> {
        self.overrides_changed.notify_one();
        self.write_overrides()
    }

    /// Writes what is in force now. One writer at a time: an older state must not be written over a newer one.
    fn write_overrides(&self) -> Result<(), String> {
        let _one_at_a_time = self.writing_overrides.lock().unwrap_or_else(PoisonError::into_inner);
        let overrides = self.state().overrides.clone();
        overrides.save(&self.overrides_path).map_err(|error| {
            format!("it is in force, but not safe on disk: {}: {error}", self.overrides_path.display())
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic inside would have left the compiler between two statements that cannot fail: it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

/// The journal's thread: everything that waits is written with one fsync.
fn write(mut journal: Journal, queue: &mpsc::Receiver<(Version, Delta)>, saved: &watch::Sender<Saved>) {
    let mut failing = false;
    loop {
        let first = if failing {
            match queue.recv_timeout(SAVE_AGAIN) {
                Ok(change) => Some(change),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match queue.recv() {
                Ok(change) => Some(change),
                Err(mpsc::RecvError) => return,
            }
        };
        let changes: Vec<(Version, Delta)> = first.into_iter().chain(queue.try_iter()).collect();
        let version = changes.last().map(|(version, _)| *version);
        match journal.save(&changes) {
            Ok(()) => {
                if failing {
                    tracing::info!("the state is safe on disk again");
                }
                failing = false;
                saved.send_modify(|saved| {
                    saved.version = journal.version().or(version);
                    saved.problem.clear();
                });
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "the state cannot be saved: a restart would serve an older one");
                }
                failing = true;
                saved.send_modify(|saved| saved.problem = error.to_string());
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
