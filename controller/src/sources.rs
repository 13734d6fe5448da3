//! What repositories have that nobody has released yet: looked for, told of, asked for.
//!
//! Must not know: builds. It asks for them as anybody does, and `core::queue` says when one begins.
//!
//! Main types: [`Sources`], which everybody may ask and poke; [`run`] is its driver. `watched` says which repositories are looked
//! at, and what for (pure); `keeper` looks at one of them, again and again, at the pace of `pace` (pure); `look` says what
//! follows from what was seen (pure), with `tags` and `schedule`; `ask` asks the engine for it; `register` reads the files by
//! which services register themselves; `kept` is what a start has to know of the looks before it.
//!
//! A head is no event: it is put into the engine's observations, and asked for once nothing of the service is built. A hundred
//! commits while one is built are one more build.

mod ask;
mod keeper;
mod kept;
mod look;
mod pace;
mod register;
pub(crate) mod schedule;
pub(crate) mod tags;
#[cfg(test)]
mod tests;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{MemberName, ReleaseName, ServiceName};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast};
use tracing::warn;

use crate::build::process::cancelled;
use crate::build::{BuildFolders, Cancel, secrets};
use crate::core::spec::{ReleasesSpec, WebhookKind};
use crate::engine::{Engine, Handle};
use crate::store::Record;
use keeper::Keeper;
use kept::Kept;
use watched::Watched;

/// How often state is looked at when nothing happens, and keys of webhooks are read anew.
const LOOK: Duration = Duration::from_secs(30);
/// Looks at once.
const LOOKS: usize = 8;

/// What is known of repositories. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Sources(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Keys of webhooks, by repository.
    hooks: BTreeMap<MemberName, HookKey>,
    /// Why a webhook of a repository opens to nobody.
    closed: BTreeMap<MemberName, String>,
    repositories: BTreeMap<MemberName, RepositorySeen>,
    services: BTreeMap<ServiceName, Vec<String>>,
    /// By URL: why it could not be looked at last.
    away: BTreeMap<String, String>,
    /// By URL: has it looked at.
    keepers: BTreeMap<String, Keeper>,
    /// By name of the repository.
    urls: BTreeMap<MemberName, String>,
}

/// By what a webhook shows that it may.
#[derive(Clone)]
pub(crate) struct HookKey {
    pub(crate) kind: WebhookKind,
    pub(crate) key: Vec<u8>,
}

/// What was seen of a repository whose services register themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RepositorySeen {
    /// The head of its branch; none: nobody has looked yet, or there is none.
    pub(crate) commit: Option<String>,
    /// When it was looked at last, milliseconds since the Unix epoch; none: never.
    pub(crate) looked_ms: Option<u64>,
    /// What is wrong with its files, or keeps it from being looked at, a sentence each.
    pub(crate) problems: Vec<String>,
}

// === impl Sources ===

impl Sources {
    /// Has a repository looked at as soon as its pace allows, because somebody says that something has changed.
    pub(crate) fn poke(&self, name: &MemberName) {
        let known = self.known();
        if let Some(keeper) = known.urls.get(name).and_then(|url| known.keepers.get(url)) {
            keeper.poke();
        }
    }

    /// Ends all looks: the controller is stopping.
    pub(crate) fn end(&self) {
        // Dropped, each of them ends what it does; not under the lock, which they take.
        let keepers = std::mem::take(&mut self.known().keepers);
        drop(keepers);
    }

    /// By what a webhook for this repository shows that it may; none: nobody may.
    pub(crate) fn hook(&self, name: &MemberName) -> Option<HookKey> {
        self.known().hooks.get(name).cloned()
    }

    /// What was seen of a repository whose services register themselves.
    pub(crate) fn repository(&self, name: &MemberName) -> RepositorySeen {
        let known = self.known();
        let mut seen = known.repositories.get(name).cloned().unwrap_or_default();
        let away = known.urls.get(name).and_then(|url| known.away.get(url));
        seen.problems.extend(away.into_iter().chain(known.closed.get(name)).cloned());
        seen
    }

    /// What keeps a service's commits from being released by themselves, a sentence each; `repository` is its source's.
    pub(crate) fn service_problems(&self, service: &ServiceName, repository: &str) -> Vec<String> {
        let known = self.known();
        let own = known.services.get(service).into_iter().flatten();
        own.chain(known.away.get(repository)).cloned().collect()
    }

    /// What an operator should know now: repositories that cannot be looked at, files that do not count.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let known = self.known();
        let of_repositories = known
            .repositories
            .iter()
            .flat_map(|(name, seen)| seen.problems.iter().map(move |problem| format!("repository {name}: {problem}")));
        let closed = known.closed.iter().map(|(name, problem)| format!("repository {name}: {problem}"));
        let of_services = known
            .services
            .iter()
            .flat_map(|(name, problems)| problems.iter().map(move |problem| format!("{name}: {problem}")));
        known.away.values().cloned().chain(of_repositories).chain(closed).chain(of_services).collect()
    }

    /// That knows these keys and nothing else.
    #[cfg(test)]
    pub(crate) fn with_hooks(hooks: BTreeMap<MemberName, HookKey>) -> Self {
        Self(Arc::new(Mutex::new(Known { hooks, ..Known::default() })))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is a whole one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says who we are to servers of repositories, before anything is built or looked at.
pub(crate) async fn introduce(engine: &Handle, folders: &BuildFolders) {
    let read = |engine: &Engine| watched::credentials(&engine.state.releases);
    if let Some(credentials) = engine.read(read).await {
        folders.git.know(credentials);
    }
}

/// Looks at all that is to be looked at, until it is told to stop or the engine is gone.
pub(crate) async fn run(
    engine: Handle,
    folders: BuildFolders,
    sources: Sources,
    data: PathBuf,
    mut happened: broadcast::Receiver<Arc<Record>>,
    mut stop: Cancel,
) {
    let mut driver = Driver {
        around: Around {
            engine: engine.clone(),
            folders,
            sources,
            kept: Kept::open(data.join("sources.json")),
            looks: Arc::new(Semaphore::new(LOOKS)),
        },
        spec: ReleasesSpec::default(),
        read: None,
    };
    loop {
        let read = |engine: &Engine| (engine.state.releases.clone(), watched::all(&engine.state));
        let Some((spec, wanted)) = engine.read(read).await else { break };
        driver.follow(wanted);
        driver.introduce(spec, &mut stop).await;
        let until = Instant::now() + LOOK;
        while !driver.changes(&mut happened, until, &mut stop).await {}
        if *stop.borrow() {
            break;
        }
    }
    driver.around.sources.end();
}

/// What every keeper needs.
#[derive(Clone)]
struct Around {
    engine: Handle,
    folders: BuildFolders,
    sources: Sources,
    kept: Kept,
    looks: Arc<Semaphore>,
}

struct Driver {
    around: Around,
    /// As it was read last.
    spec: ReleasesSpec,
    /// When keys of webhooks were read last.
    read: Option<Instant>,
}

// === impl Driver ===

impl Driver {
    /// Looks at what is to be looked at, and no longer at what is not.
    fn follow(&self, wanted: BTreeMap<String, Watched>) {
        let names = |wanted: &BTreeMap<String, Watched>| {
            wanted.values().flat_map(|one| one.services.keys().cloned()).collect::<BTreeSet<_>>()
        };
        let services = names(&wanted);
        let mut known = self.around.sources.known();
        known.urls = wanted
            .iter()
            .flat_map(|(url, one)| one.repositories.keys().map(|name| (name.clone(), url.clone())))
            .collect();
        let Known { keepers, urls, repositories, services: of_services, away, .. } = &mut *known;
        keepers.retain(|url, _| wanted.contains_key(url));
        away.retain(|url, _| wanted.contains_key(url));
        repositories.retain(|name, _| urls.contains_key(name));
        of_services.retain(|name, _| services.contains(name));
        for (url, one) in wanted {
            match keepers.get(&url) {
                Some(keeper) => keeper.follow(one),
                None => drop(keepers.insert(url.clone(), Keeper::begin(url, one, self.around.clone()))),
            }
        }
        self.around.engine.tell(move |engine| engine.seen.heads.retain(|name, _| services.contains(name)));
    }

    /// Takes over who we are to servers, and who may tell us that something has changed. Keys are read again and again: they are
    /// replaced without a word to us.
    async fn introduce(&mut self, spec: ReleasesSpec, stop: &mut Cancel) {
        if spec == self.spec && self.read.is_some_and(|read| read.elapsed() < LOOK) {
            return;
        }
        let Around { folders, sources, .. } = &self.around;
        folders.git.know(watched::credentials(&spec));
        let (mut hooks, mut closed) = (BTreeMap::new(), BTreeMap::new());
        for (name, repository) in &spec.repositories {
            let Some(webhook) = &repository.webhook else { continue };
            match secrets::value(&webhook.secret, folders, &folders.mirrors, stop).await {
                Ok(key) => drop(hooks.insert(name.clone(), HookKey { kind: webhook.kind, key: key.into_bytes() })),
                Err(problem) => drop(closed.insert(name.clone(), format!("the secret of its webhook {problem}"))),
            }
        }
        let mut known = sources.known();
        (known.hooks, known.closed) = (hooks, closed);
        drop(known);
        (self.spec, self.read) = (spec, Some(Instant::now()));
    }

    /// Waits for one thing that happens; whether state has to be looked at anew.
    async fn changes(
        &self,
        happened: &mut broadcast::Receiver<Arc<Record>>,
        until: Instant,
        stop: &mut Cancel,
    ) -> bool {
        tokio::select! {
            () = cancelled(stop) => true,
            () = tokio::time::sleep_until(until.into()) => true,
            news = happened.recv() => match news {
                Ok(record) => self.hears(&record),
                Err(RecvError::Lagged(missed)) => {
                    warn!(missed, "looks at repositories are behind");
                    self.around.sources.known().keepers.values().for_each(Keeper::poke);
                    true
                }
                // The engine is gone, as the next look at it shows.
                Err(RecvError::Closed) => true,
            },
        }
    }

    fn hears(&self, record: &Record) -> bool {
        match record.kind.as_str() {
            "service_applied" | "service_registered" | "releases_applied" => true,
            "release_built" | "release_failed" | "release_cancelled" => {
                if let Ok(release) = record.about.parse::<ReleaseName>() {
                    let known = self.around.sources.known();
                    known.keepers.values().for_each(|keeper| keeper.ended(&release.service));
                }
                false
            }
            _ => false,
        }
    }
}
