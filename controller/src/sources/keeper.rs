//! Looks at one repository, again and again, for as long as somebody wants to know of it.
//!
//! Must not know: what follows from what is seen. One look at a time; who asks meanwhile gets one more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use api::ServiceName;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::build::{BuildProblem, mirror};
use crate::status::clock_ms;

use super::ask::{self, Found};
use super::register::Registration;
use super::schedule::Schedule;
use super::watched::{Standing, Watched};
use super::{Around, pace};

/// Has one repository looked at; dropped, it ends what it does.
pub(super) struct Keeper {
    watched: watch::Sender<Watched>,
    asked: Arc<Asked>,
    task: JoinHandle<()>,
}

/// That somebody has asked for a look which has not begun.
#[derive(Default)]
struct Asked {
    is_asked: AtomicBool,
    news: Notify,
}

struct Looker {
    url: String,
    around: Around,
    found: BTreeMap<ServiceName, Found>,
    registration: Registration,
}

// === impl Keeper ===

impl Keeper {
    /// Begins with a look at once.
    pub(super) fn begin(url: String, watched: Watched, around: Around) -> Self {
        let (sender, receiver) = watch::channel(watched);
        let asked = Arc::new(Asked::default());
        let looker = Looker { url, around, found: BTreeMap::new(), registration: Registration::default() };
        let task = tokio::spawn(looker.run(receiver, asked.clone()));
        Self { watched: sender, asked, task }
    }

    /// Takes over what it is looked at for; when that is something else, it is looked at at once.
    pub(super) fn follow(&self, watched: Watched) {
        self.watched.send_if_modified(|known| {
            let is_new = *known != watched;
            *known = watched;
            is_new
        });
    }

    /// Has it looked at as soon as its pace allows.
    pub(super) fn poke(&self) {
        self.asked.is_asked.store(true, Ordering::SeqCst);
        self.asked.news.notify_one();
    }

    /// A build of a service has ended: what came meanwhile is looked for.
    pub(super) fn ended(&self, service: &ServiceName) {
        let wants = self.watched.borrow().services.get(service).is_some_and(|wants| {
            let trigger = &wants.trigger;
            trigger.commits || trigger.schedule.is_some()
        });
        if wants {
            self.poke();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Looker ===

impl Looker {
    async fn run(mut self, mut watched: watch::Receiver<Watched>, asked: Arc<Asked>) {
        let (mut last, mut due, mut failures) = (None, Instant::now(), 0);
        loop {
            loop {
                let now = Instant::now();
                let at = pace::next(last, due, asked.is_asked.load(Ordering::SeqCst), now);
                if at <= now {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = asked.news.notified() => {}
                    changed = watched.changed() => match changed {
                        Ok(()) => due = now,
                        Err(_) => return,
                    },
                }
            }
            let Ok(_permit) = self.around.looks.clone().acquire_owned().await else { return };
            // What is asked for from here on is asked for anew.
            asked.is_asked.store(false, Ordering::SeqCst);
            let wanted = watched.borrow_and_update().clone();
            let began = Instant::now();
            last = Some(began);
            match Box::pin(self.look(&wanted)).await {
                Ok(goes_on) => {
                    failures = 0;
                    self.tell(None);
                    if goes_on {
                        asked.is_asked.store(true, Ordering::SeqCst);
                    }
                }
                Err(problem) => {
                    failures += 1;
                    self.tell(Some(problem.sentence));
                }
            }
            let wait = pace::wait(wanted.poll, failures);
            due = began + until_schedule(&wanted).map_or(wait, |until| until.min(wait));
        }
    }

    /// One look; whether another one is needed at once, because a build ended meanwhile.
    async fn look(&mut self, wanted: &Watched) -> Result<bool, BuildProblem> {
        let Self { url, around, found, registration } = self;
        // Before the repository is asked: what ends from here on may have hidden commits that are not seen.
        let names: Vec<ServiceName> = wanted.services.keys().cloned().collect();
        let read = around.engine.read(move |engine| {
            let standing = |name: ServiceName| Some((name.clone(), Standing::of(engine.state.service(&name)?)));
            names.into_iter().filter_map(standing).collect::<BTreeMap<_, _>>()
        });
        let Some(standings) = read.await else {
            // The controller is stopping: there is nobody left to look for.
            return std::future::pending().await;
        };
        let remote = mirror::look(&around.folders, url, ask::nobody()).await?;
        for (name, repository) in &wanted.repositories {
            registration.look(around, name, repository, &remote).await?;
        }
        let mut goes_on = false;
        found.retain(|name, _| wanted.services.contains_key(name));
        for (name, wants) in &wanted.services {
            let Some(standing) = standings.get(name) else { continue };
            let found = found.entry(name.clone()).or_default();
            goes_on |= ask::service(around, name, wants, standing, &remote, found).await?;
        }
        Ok(goes_on)
    }

    /// Tells people how the last look ended; the log once, when that changes.
    fn tell(&self, problem: Option<String>) {
        let mut known = self.around.sources.known();
        let before = match problem.clone() {
            Some(problem) => known.away.insert(self.url.clone(), problem),
            None => known.away.remove(&self.url),
        };
        drop(known);
        match problem {
            Some(problem) if before.as_ref() != Some(&problem) => warn!(%problem, "a repository cannot be looked at"),
            None if before.is_some() => info!(repository = self.url, "a repository can be looked at again"),
            _ => {}
        }
    }
}

/// How long until the next time of any schedule.
fn until_schedule(wanted: &Watched) -> Option<std::time::Duration> {
    let schedules = wanted.services.values().filter_map(|wants| wants.trigger.schedule.as_ref());
    let times = schedules.filter_map(|one| Schedule::read(&one.cron, &one.time_zone).ok()?.until_next(clock_ms()));
    times.min()
}
