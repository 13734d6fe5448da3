//! The keys of those who issue users' tokens: fetched, kept, fetched again.
//!
//! Must not know: tokens, requests, or what a key is. Runs on the admin runtime. Its lock is never taken by a worker:
//! workers read the ring of keys and, when a token names a key that is not there, ask by [`Issuers::newer`].
//!
//! Keys count for ever: an issuer that is down, or says nonsense, has those that it had. A restart has them, too.
//!
//! Main types: [`Issuers`], the handle; [`plan`] says when, and is pure; [`source`], where from and how.

mod board;
mod door;
mod kept;
mod metrics;
mod plan;
mod source;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::fleet;
use arc_swap::ArcSwap;
use certs::endpoint::Authorities;
use policies::credential::KeyRing;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::balance::mix;
use board::{Board, Turn};
use door::Door;
use source::{Failure, Fetched, Source};

/// How long a request waits for keys at most.
const PATIENCE: Duration = Duration::from_secs(3);
/// When a file that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

/// Everybody whose tokens may count, and their keys. Shared by the whole proxy.
#[derive(Debug)]
pub(crate) struct Issuers {
    keys: Arc<ArcSwap<KeyRing>>,
    /// By name; what workers knock at.
    doors: ArcSwap<BTreeMap<Arc<str>, Arc<Door>>>,
    /// Admin runtime only.
    board: Mutex<Board>,
    machine: Authorities,
    path: PathBuf,
    /// Something may be due sooner.
    changed: Notify,
    /// The file is behind.
    unsaved: Notify,
    /// Spreads refreshes; another for each proxy.
    seed: u64,
}

/// Looks at what a resource says of where its keys are.
///
/// # Errors
/// The field that is wrong, and what is accepted.
pub(crate) fn check(issuer: &fleet::Issuer) -> Result<(), (&'static str, String)> {
    Source::new(issuer, &Authorities::default()).map(drop)
}

impl Issuers {
    /// Reads the keys that were kept in `data`; they count once [`Issuers::set`] names their issuers. `machine`: who is
    /// believed where an issuer does not say.
    pub(crate) fn start(data: &Path, machine: Authorities) -> Arc<Self> {
        let path = data.join("keys.json");
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Self {
            keys: Arc::default(),
            doors: ArcSwap::default(),
            board: Mutex::new(Board::new(kept::load(&path))),
            machine,
            path,
            changed: Notify::new(),
            unsaved: Notify::new(),
            seed: mix(since.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32)),
        })
    }

    /// What workers read, each through a cache of its own.
    pub(crate) fn keys(&self) -> &Arc<ArcSwap<KeyRing>> {
        &self.keys
    }

    /// Whose tokens count from now on, by name. When it returns, the ring has the keys of those alone; whoever is new or has
    /// another source is fetched at once. Called under the lock of `control`; waits for nothing.
    pub(crate) fn set<'a>(&self, issuers: impl Iterator<Item = (&'a str, &'a fleet::Issuer)>) {
        let mut sources = Vec::new();
        for (name, issuer) in issuers {
            match Source::new(issuer, &self.machine) {
                Ok(source) => sources.push((name, source, refresh(issuer))),
                // Whoever takes a change in has looked at it.
                Err((field, why)) => tracing::error!(issuer = name, field, why, "keys cannot be fetched"),
            }
        }
        let mut board = self.board();
        board.set(sources, Instant::now(), self.seed);
        self.doors.store(Arc::new(board.doors()));
        self.publish(&mut board);
        drop(board);
        self.changed.notify_one();
    }

    /// Waits for newer keys of an issuer than those of the ring with this generation, at most 3 s; true: there are some.
    /// Begins a fetch if one is allowed now; false at once when none is, or nobody has this name.
    ///
    /// # Cancel safety
    /// A fetch that was begun goes on.
    pub(crate) async fn newer(&self, issuer: &str, seen_generation: u64) -> bool {
        let Some(door) = self.doors.load().get(issuer).cloned() else { return false };
        if door.has_newer(seen_generation) {
            return true;
        }
        // A flood of unknown keys ends here: one word is read, and nothing is written.
        if !door.is_open(Instant::now()) {
            return false;
        }
        let (mut answers, is_first) = door.knock(seen_generation);
        if is_first {
            self.changed.notify_one();
        }
        // What ended before the knock was not waited for, but may have brought them.
        if !door.has_newer(seen_generation) {
            let _ = tokio::time::timeout(PATIENCE, answers.changed()).await;
        }
        door.has_newer(seen_generation)
    }

    /// Fetches whenever it is time, until it is dropped. Runs once, on the admin runtime.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.fetch(), self.save());
    }

    async fn fetch(&self) {
        // Ends with this future, and every fetch under way with it.
        let (mut under_way, mut turns) = (JoinSet::new(), HashMap::new());
        loop {
            let (due, next) = {
                let mut board = self.board();
                board.answer_knocks(Instant::now());
                (board.begin(Instant::now()), board.next())
            };
            for (turn, source) in due {
                let task = under_way.spawn(async move { source.fetch().await });
                turns.insert(task.id(), turn);
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(next) => {}
                Some(ended) = under_way.join_next_with_id() => {
                    let (id, fetched) = ended.unwrap_or_else(|error| {
                        // Else this issuer would never be fetched again.
                        (error.id(), Err(Failure::Unusable("looking at the keys has failed within the proxy".into())))
                    });
                    if let Some(turn) = turns.remove(&id) {
                        self.ended(&turn, fetched);
                    }
                }
            }
        }
    }

    fn ended(&self, turn: &Turn, fetched: Result<Fetched, Failure>) {
        let mut board = self.board();
        let is_good = fetched.is_ok();
        let seed = mix(self.seed ^ turn.number);
        board.ended(turn, fetched, Instant::now(), now_ms(), seed);
        self.publish(&mut board);
        // After the ring is there.
        board.tell(turn);
        drop(board);
        if is_good {
            self.unsaved.notify_one();
        }
    }

    /// Swaps the ring if it is another one.
    fn publish(&self, board: &mut Board) {
        let generation = self.keys.load().generation + 1;
        if let Some(ring) = board.ring(generation) {
            self.keys.store(Arc::new(ring));
            board.published(generation);
        }
    }

    async fn save(&self) {
        let mut complained = false;
        loop {
            self.unsaved.notified().await;
            let (path, kept) = (self.path.clone(), self.board().kept());
            // The thread of the admin runtime has streams to look after while the disk works.
            let saved = tokio::task::spawn_blocking(move || kept::save(&path, &kept)).await;
            let saved = saved.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            if let Err(error) = &saved {
                if !complained {
                    let path = self.path.display();
                    tracing::error!("{path}: {error}: a restart would lack issuers' newest keys; it is tried again");
                }
                tokio::time::sleep(SAVE_AGAIN).await;
                self.unsaved.notify_one();
            }
            complained = saved.is_err();
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What lies outside of its range counts as the nearest bound.
fn refresh(issuer: &fleet::Issuer) -> Duration {
    let asked_ms = if issuer.refresh_ms == 0 { REFRESH_MS } else { issuer.refresh_ms };
    Duration::from_millis(asked_ms.clamp(REFRESH_BOUNDS_MS.0, REFRESH_BOUNDS_MS.1).into())
}

const REFRESH_MS: u32 = 300_000;
const REFRESH_BOUNDS_MS: (u32, u32) = (30_000, 86_400_000);

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
