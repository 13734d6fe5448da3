//! All issuers, what is known of each, and whose turn it is.
//!
//! Must not know: sockets, files, or threads; `now` is an argument. What a fetch brought is told to it.
//!
//! Main types: [`Board`]; [`Turn`], one fetch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use policies::credential::{KeyRing, KeySet};
use tokio::time::Instant;

use super::door::Door;
use super::kept::Kept;
use super::plan::Plan;
use super::source::{Failure, Fetched, Source};
use crate::balance::mix;

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    issuers: BTreeMap<Arc<str>, Entry>,
    /// From disk; each is looked at when its issuer is named first.
    kept: BTreeMap<String, Kept>,
    /// Number of the last source that came.
    last: u64,
    /// The ring lacks something.
    is_changed: bool,
}

/// One issuer.
#[derive(Debug)]
struct Entry {
    source: Arc<Source>,
    /// Another for each source: what was fetched from one before is nobody's.
    number: u64,
    plan: Plan,
    door: Arc<Door>,
    held: Option<Held>,
    /// `held` is other than what was published.
    is_newer: bool,
    /// Since when it has failed, in milliseconds since the Unix epoch, and why it did last.
    failing: Option<(u64, Failure)>,
    counts: Counts,
}

/// Keys that count.
#[derive(Debug, Clone)]
struct Held {
    keys: Arc<KeySet>,
    text: Bytes,
    at_ms: u64,
}

/// Fetches by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) fetched: u64,
    pub(super) unreachable: u64,
    pub(super) refused: u64,
    pub(super) unusable: u64,
}

/// What can be seen of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) name: Arc<str>,
    /// When the keys that count were fetched last, in milliseconds since the Unix epoch.
    pub(super) at_ms: Option<u64>,
    /// Since when fetches have failed.
    pub(super) failing_ms: Option<u64>,
    pub(super) counts: Counts,
}

/// A fetch: for whom, and from which source.
#[derive(Debug)]
pub(super) struct Turn {
    name: Arc<str>,
    pub(super) number: u64,
}

impl Board {
    pub(super) fn new(kept: BTreeMap<String, Kept>) -> Self {
        Self { issuers: BTreeMap::new(), kept, last: 0, is_changed: false }
    }

    /// All issuers from now on: their name, source, and pace. Whoever has another address begins without keys.
    pub(super) fn set(&mut self, sources: Vec<(&str, Source, Duration)>, now: Instant, seed: u64) {
        let mut before = std::mem::take(&mut self.issuers);
        for (name, source, refresh) in sources {
            let known = before.remove_entry(name);
            let (name, mut entry) = match known {
                Some((name, entry)) if entry.source.is_same(&source) => (name, entry),
                known => {
                    let name = known.as_ref().map_or_else(|| Arc::from(name), |(name, _)| name.clone());
                    let entry = self.enter(&name, source, known.map(|(_, entry)| entry), refresh, now);
                    (name, entry)
                }
            };
            entry.plan.set_refresh(refresh, now, mix(seed ^ entry.number));
            self.issuers.insert(name, entry);
        }
        self.is_changed |= !before.is_empty();
        for gone in before.values() {
            gone.door.open_from(None);
            gone.door.answer();
        }
    }

    /// A new source: fetched at once. Keys from the same addresses go on counting until then.
    fn enter(&mut self, name: &str, source: Source, before: Option<Entry>, refresh: Duration, now: Instant) -> Entry {
        self.last += 1;
        let (counts, held, door) = match before {
            Some(Entry { source: old, counts, held, door, .. }) => {
                (counts, held.filter(|_| old.has_same_keys(&source)), Some(door))
            }
            None => (Counts::default(), self.take_kept(name, &source), None),
        };
        self.is_changed = true;
        let door = door.unwrap_or_else(|| Arc::new(Door::new(now)));
        door.open_from(Some(now));
        let (plan, is_newer) = (Plan::new(refresh, now), held.is_some());
        Entry { source: Arc::new(source), number: self.last, plan, door, held, is_newer, failing: None, counts }
    }

    /// What is on disk of this very issuer.
    fn take_kept(&mut self, name: &str, source: &Source) -> Option<Held> {
        let Kept { issuer, jwks_url, at_ms, keys } = self.kept.remove(name)?;
        if issuer != source.issuer || jwks_url != source.jwks_url {
            return None;
        }
        match KeySet::read(keys.as_bytes()) {
            Ok(read) => Some(Held { keys: Arc::new(read), text: keys.into(), at_ms }),
            Err(why) => {
                tracing::error!(issuer = name, why, "the keys that were kept cannot be used; they are fetched anew");
                None
            }
        }
    }

    pub(super) fn doors(&self) -> BTreeMap<Arc<str>, Arc<Door>> {
        self.issuers.iter().map(|(name, entry)| (name.clone(), entry.door.clone())).collect()
    }

    /// The ring with this generation, if it is another one than before.
    pub(super) fn ring(&mut self, generation: u64) -> Option<KeyRing> {
        if !std::mem::take(&mut self.is_changed) {
            return None;
        }
        let keys = |(name, entry): (&Arc<str>, &Entry)| Some((name.clone(), entry.held.as_ref()?.keys.clone()));
        Some(KeyRing { issuers: self.issuers.iter().filter_map(keys).collect(), generation })
    }

    /// After the ring with this generation can be read.
    pub(super) fn published(&mut self, generation: u64) {
        for entry in self.issuers.values_mut() {
            if std::mem::take(&mut entry.is_newer) {
                entry.door.bring(generation);
            }
        }
    }

    /// Has keys fetched for those who knocked, where that is allowed; the others have their answer at once.
    pub(super) fn answer_knocks(&mut self, now: Instant) {
        for entry in self.issuers.values_mut() {
            let Some(lacks_newer) = entry.door.take_knock() else { continue };
            if !(lacks_newer && entry.plan.ask(now)) {
                entry.door.answer();
            }
        }
    }

    /// Begins every fetch that is due.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<(Turn, Arc<Source>)> {
        let mut due = Vec::new();
        for (name, entry) in &mut self.issuers {
            if entry.plan.begin(now) {
                // Whoever comes now waits for it.
                entry.door.open_from(Some(now));
                due.push((Turn { name: name.clone(), number: entry.number }, entry.source.clone()));
            }
        }
        due
    }

    /// When the next fetch is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.issuers.values().filter_map(|entry| entry.plan.next()).min()
    }

    /// What a fetch brought. Nothing that cannot be used ever replaces what can.
    pub(super) fn ended(
        &mut self,
        turn: &Turn,
        fetched: Result<Fetched, Failure>,
        now: Instant,
        now_ms: u64,
        seed: u64,
    ) {
        let Some(entry) = self.issuers.get_mut(&turn.name).filter(|entry| entry.number == turn.number) else { return };
        entry.plan.ended(fetched.is_ok(), now, seed);
        entry.door.open_from(entry.plan.asks_from());
        match fetched {
            Ok(fetched) => self.is_changed |= entry.fetched(&turn.name, fetched, now_ms),
            Err(failure) => entry.failed(&turn.name, failure, now_ms),
        }
    }

    /// Answers those who waited for this fetch; of a source before, nobody does.
    pub(super) fn tell(&self, turn: &Turn) {
        if let Some(entry) = self.issuers.get(&turn.name).filter(|entry| entry.number == turn.number) {
            // Whoever knocked while it was under way has what it brought: that takes nobody the fetch of the next 30 s.
            entry.door.take_knock();
            entry.door.answer();
        }
    }

    /// What belongs on disk: what counts.
    pub(super) fn kept(&self) -> BTreeMap<String, Kept> {
        let kept = |(name, Entry { source, held, .. }): (&Arc<str>, &Entry)| {
            let Held { text, at_ms, .. } = held.as_ref()?;
            let keys = String::from_utf8_lossy(text).into_owned();
            let (issuer, jwks_url) = (source.issuer.clone(), source.jwks_url.clone());
            Some((name.to_string(), Kept { issuer, jwks_url, at_ms: *at_ms, keys }))
        };
        self.issuers.iter().filter_map(kept).collect()
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        let seen = |(name, entry): (&Arc<str>, &Entry)| Seen {
            name: name.clone(),
            at_ms: entry.held.as_ref().map(|held| held.at_ms),
            failing_ms: entry.failing.as_ref().map(|(since, _)| *since),
            counts: entry.counts,
        };
        self.issuers.iter().map(seen).collect()
    }
}

impl Entry {
    /// True if these are other keys.
    fn fetched(&mut self, name: &str, fetched: Fetched, now_ms: u64) -> bool {
        self.counts.fetched += 1;
        if self.failing.take().is_some() {
            tracing::info!(issuer = name, "keys are fetched again");
        }
        let Fetched { keys, text } = fetched;
        match &mut self.held {
            // The ring stays what it is, and with it everything that workers remember. Some issuers write the same keys in
            // another order each time.
            Some(held) if held.keys.is_same(&keys) => {
                held.at_ms = now_ms;
                false
            }
            held => {
                tracing::info!(issuer = name, first = held.is_none(), "keys were fetched that are other ones");
                *held = Some(Held { keys: Arc::new(keys), text, at_ms: now_ms });
                self.is_newer = true;
                true
            }
        }
    }

    /// Says so once per change, not per attempt.
    fn failed(&mut self, name: &str, failure: Failure, now_ms: u64) {
        let count = match &failure {
            Failure::Unreachable(_) => &mut self.counts.unreachable,
            Failure::Refused(_) => &mut self.counts.refused,
            Failure::Unusable(_) => &mut self.counts.unusable,
        };
        *count += 1;
        let since_ms = self.failing.as_ref().map_or(now_ms, |(since, _)| *since);
        if self.failing.as_ref().is_none_or(|(_, before)| *before != failure) {
            let (failing_s, has_keys) = ((now_ms - since_ms.min(now_ms)) / 1_000, self.held.is_some());
            tracing::warn!(issuer = name, why = %failure, failing_s, has_keys, "keys cannot be fetched; those before count on");
        }
        self.failing = Some((since_ms, failure));
    }
}
