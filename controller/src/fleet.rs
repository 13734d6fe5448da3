//! The proxies as they report: who is connected, what each serves, who lags.
//!
//! Must not know: what a version contains, or who asked for it.
//!
//! Written by the connections' tasks and the engine, read by whoever waits for the fleet or shows it.

mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::fleet::controller_message::Kind;
use api::fleet::{Answer, ControllerMessage, Counts, Decided, Hello, Progress, Question, progress};
use api::{MemberName, ReleaseNumber, StageName, Version};
use tokio::sync::{mpsc, watch};

use crate::clocks::Clocks;
use crate::core::State;
use crate::core::state::Leaving;
use crate::engine::secrets_messages;
use crate::measure::Measure;
use crate::trial::Trials;

/// A proxy from which nothing was heard for so long is no longer waited for. Ten of its reports.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// Messages that may wait for one proxy: a full state of 5,000 stages is a dozen, the rest is small changes.
pub(crate) const QUEUE: usize = 1_024;

pub(crate) struct Fleet {
    inner: Mutex<Inner>,
    /// Moves on whenever a proxy's state does.
    moved: watch::Sender<u64>,
    /// Of members, and of those who would be.
    pub(crate) clocks: Clocks,
}

#[derive(Default)]
struct Inner {
    proxies: BTreeMap<MemberName, Proxy>,
    measure: Measure,
    trials: Trials,
    questions: BTreeMap<u64, Asked>,
    asked: u64,
}

/// One proxy as last heard of.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    connection: u64,
    messages: Option<mpsc::Sender<ControllerMessage>>,
    /// What its secrets are sealed for; empty: it knows none.
    seal_key: Vec<u8>,
    /// What it serves and has saved, and since when we know.
    pub(crate) active: Option<(Version, Instant)>,
    pub(crate) heard: Instant,
    pub(crate) heard_ms: u64,
    /// When its last counts came.
    counted: Option<Instant>,
    pub(crate) software: String,
    pub(crate) workers: u32,
    /// Why it does not have the newest version; empty: nothing known.
    pub(crate) problem: String,
    /// Highest schema of resources that it knows.
    schema: u32,
}

/// What proxies answered about a request.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    /// Who made it, and what was decided.
    pub(crate) decided: Option<(MemberName, Decided)>,
    /// Connected proxies that did not answer in time, or know no such questions.
    pub(crate) silent: Vec<String>,
}

/// A question on its way, and who waits for its answers.
type Asked = mpsc::UnboundedSender<(MemberName, Option<Decided>)>;

/// A proxy beside a version that somebody waits for.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) name: MemberName,
    /// When it was known to have the version; none: it has not.
    pub(crate) active_at: Option<Instant>,
    /// Whether it is still waited for.
    pub(crate) leased: bool,
    pub(crate) last: Option<Version>,
    pub(crate) problem: String,
}

/// A question that is forgotten when nobody waits any more.
struct Open<'f> {
    fleet: &'f Fleet,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.fleet.lock().questions.remove(&self.number);
    }
}

// === impl Proxy ===

impl Proxy {
    /// Whether it was heard of lately.
    pub(crate) fn is_leased(&self, now: Instant) -> bool {
        now.duration_since(self.heard) < LEASE
    }

    /// Queues messages; a proxy that does not take them is disconnected and will ask again.
    fn send(&mut self, messages: &[ControllerMessage]) {
        let full = |sender: &mpsc::Sender<ControllerMessage>| {
            messages.iter().any(|message| sender.try_send(message.clone()).is_err())
        };
        if self.messages.as_ref().is_some_and(full) {
            self.messages = None;
        }
    }

    /// Whether its stream is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.messages.is_some()
    }
}

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default(), moved: watch::Sender::new(0), clocks: Clocks::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere leaves the maps whole; the next report corrects what it should have written.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_on(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    /// Changes whenever a proxy's state does.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Proxies that belong to the fleet and were not heard of yet: they have one lease to come back.
    pub(crate) fn expect(&self, names: impl Iterator<Item = MemberName>) {
        let now = Instant::now();
        let absent = Proxy {
            connection: 0,
            messages: None,
            seal_key: Vec::new(),
            active: None,
            heard: now,
            heard_ms: 0,
            counted: None,
            software: String::new(),
            workers: 0,
            problem: String::new(),
            schema: 0,
        };
        self.lock().proxies.extend(names.map(|name| (name, absent.clone())));
    }

    /// Takes in a connection, in place of an older one of the same proxy.
    pub(crate) fn attach(
        &self,
        name: &MemberName,
        connection: u64,
        hello: &Hello,
        messages: mpsc::Sender<ControllerMessage>,
        now_ms: u64,
    ) {
        let now = Instant::now();
        let have = hello.have.map(Version::from);
        let mut inner = self.lock();
        let before = inner.proxies.get(name);
        // What it serves need not be on its disk: only ACTIVE says so, which proxies send on each connection for what
        // they have saved. One that comes back with what it was ACTIVE at keeps that, and the moment since.
        let known = before.and_then(|proxy| proxy.active).filter(|(version, _)| Some(*version) == have);
        let proxy = Proxy {
            connection,
            messages: Some(messages),
            seal_key: hello.seal_key.clone(),
            active: known,
            heard: now,
            heard_ms: now_ms,
            counted: None,
            software: hello.software.clone(),
            workers: hello.workers,
            problem: String::new(),
            schema: hello.schema,
        };
        inner.proxies.insert(name.clone(), proxy);
        drop(inner);
        self.move_on();
    }

    /// Whether a connection is the proxy's newest, and the proxy belongs to the fleet.
    pub(crate) fn is_current(&self, name: &MemberName, connection: u64) -> bool {
        self.lock().proxies.get(name).is_some_and(|proxy| proxy.connection == connection)
    }

    /// The stream of a connection ended.
    pub(crate) fn detach(&self, name: &MemberName, connection: u64) {
        if let Some(proxy) = self.lock().proxies.get_mut(name).filter(|proxy| proxy.connection == connection) {
            proxy.messages = None;
        }
        self.move_on();
    }

    /// Ends the connection of a member that was revoked, and forgets it.
    pub(crate) fn disconnect(&self, name: &MemberName) {
        let mut inner = self.lock();
        inner.proxies.remove(name);
        inner.measure.forget(name);
        inner.trials.forget(name);
        drop(inner);
        self.move_on();
    }

    /// Queues messages for every connected proxy.
    pub(crate) fn send_to_all(&self, messages: &[ControllerMessage]) {
        let mut inner = self.lock();
        for proxy in inner.proxies.values_mut() {
            proxy.send(messages);
        }
    }

    /// Seals secrets for every connected proxy and queues them.
    pub(crate) fn send_secrets(&self, secrets: &[(String, Vec<u8>)]) {
        if secrets.is_empty() {
            return;
        }
        let connected = |(name, proxy): (&MemberName, &Proxy)| {
            proxy.is_connected().then(|| (name.clone(), proxy.connection, proxy.seal_key.clone()))
        };
        let keys: Vec<_> = self.lock().proxies.iter().filter_map(connected).collect();
        // Sealed while nobody waits for the lock: it takes some 60 us each.
        for (name, connection, seal_key) in keys {
            self.send(&name, connection, &secrets_messages(secrets, &seal_key));
        }
    }

    /// Queues messages for one connection of a proxy.
    pub(crate) fn send(&self, name: &MemberName, connection: u64, messages: &[ControllerMessage]) {
        let mut inner = self.lock();
        let Some(proxy) = inner.proxies.get_mut(name).filter(|proxy| proxy.connection == connection) else { return };
        proxy.send(messages);
    }

    /// Asks all connected proxies what was decided about a request; whoever made it answers with more than nothing.
    ///
    /// # Cancel safety
    /// Dropping it forgets the question.
    pub(crate) async fn ask(&self, request_id: &str, most: Duration) -> Answered {
        let (sender, mut answers) = mpsc::unbounded_channel();
        let (question, mut silent) = self.question(request_id, sender);
        let deadline = tokio::time::Instant::now() + most;
        let mut decided = None;
        let waiting = |silent: &BTreeMap<MemberName, bool>| silent.values().any(|knows| *knows);
        while waiting(&silent) {
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some((name, Some(found)))) => {
                    decided = Some((name, found));
                    break;
                }
                Ok(Some((name, None))) => drop(silent.remove(&name)),
                Ok(None) | Err(_) => break,
            }
        }
        drop(question);
        Answered { decided, silent: silent.into_keys().map(|name| name.to_string()).collect() }
    }

    /// Sends a question; also gives who should answer, and whether it knows such questions.
    fn question(&self, request_id: &str, sender: Asked) -> (Open<'_>, BTreeMap<MemberName, bool>) {
        let mut inner = self.lock();
        inner.asked += 1;
        let number = inner.asked;
        inner.questions.insert(number, sender);
        let kind = Kind::Question(Question { number, request_id: request_id.to_owned() });
        let message = ControllerMessage { kind: Some(kind) };
        let mut asked = BTreeMap::new();
        for (name, proxy) in inner.proxies.iter_mut().filter(|(_, proxy)| proxy.is_connected()) {
            let knows = proxy.schema >= api::SCHEMA_ACCESS;
            if knows {
                proxy.send(std::slice::from_ref(&message));
            }
            asked.insert(name.clone(), knows);
        }
        (Open { fleet: self, number }, asked)
    }

    /// Takes in an answer; one that nobody waits for any more is dropped.
    pub(crate) fn answered(&self, name: &MemberName, connection: u64, answer: Answer) {
        let inner = self.lock();
        let is_current = inner.proxies.get(name).is_some_and(|proxy| proxy.connection == connection);
        if let Some(asker) = inner.questions.get(&answer.number).filter(|_| is_current) {
            let _ = asker.send((name.clone(), answer.decided)); // Who asked may have gone.
        }
    }

    /// Takes in how far a version has come.
    pub(crate) fn progress(&self, name: &MemberName, connection: u64, report: &Progress, now_ms: u64) {
        let mut inner = self.lock();
        let Some(proxy) = inner.proxies.get_mut(name).filter(|proxy| proxy.connection == connection) else { return };
        (proxy.heard, proxy.heard_ms) = (Instant::now(), now_ms);
        let version = report.version.map(Version::from).unwrap_or_default();
        match report.state() {
            progress::State::Active => {
                let known = proxy.active.filter(|(known, _)| *known == version);
                proxy.active = known.or(Some((version, Instant::now())));
                proxy.problem.clear();
            }
            progress::State::Unsaved => {
                proxy.problem = format!("serves {version} but could not save it: {}", report.note)
            }
            progress::State::Rejected => {
                let reasons = report.rejections.iter().map(|rejection| {
                    let place = [rejection.resource.as_str(), rejection.field.as_str()].join(" ");
                    format!("{}: {}", place.trim(), rejection.reason)
                });
                proxy.problem = format!("refused {version}: {}", reasons.collect::<Vec<_>>().join("; "));
            }
            _ => return,
        }
        drop(inner);
        self.move_on();
    }

    /// Stages that are counted from now on, with the newest release of their service.
    pub(crate) fn know<'a>(&self, state: &State, stages: impl Iterator<Item = &'a StageName>) {
        let mut inner = self.lock();
        let now = Instant::now();
        for stage in stages {
            inner.trials.follow(stage, state.stage(stage), now);
            let newest = state.service(&stage.service).and_then(|service| service.releases.keys().next_back());
            if let Some(newest) = newest {
                inner.measure.know(stage, *newest);
            }
        }
    }

    /// Takes in counters. True if they show that a release has to be stopped.
    pub(crate) fn counts(&self, name: &MemberName, connection: u64, counts: &Counts, now_ms: u64) -> bool {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let proxy = inner.proxies.get_mut(name).filter(|proxy| proxy.connection == connection);
        let Some(proxy) = proxy else { return false };
        let now = Instant::now();
        (proxy.heard, proxy.heard_ms, proxy.counted) = (now, now_ms, Some(now));
        inner.measure.take_in(name, counts, now);
        inner.trials.take_in(name, counts, now)
    }

    /// All proxies ever heard of since the start, beside a version.
    pub(crate) fn standings(&self, version: Version) -> Vec<Standing> {
        let now = Instant::now();
        let standing = |(name, proxy): (&MemberName, &Proxy)| Standing {
            name: name.clone(),
            active_at: proxy.active.filter(|(active, _)| *active >= version).map(|(_, at)| at),
            leased: proxy.is_leased(now),
            last: proxy.active.map(|(version, _)| version),
            problem: proxy.problem.clone(),
        };
        self.lock().proxies.iter().map(standing).collect()
    }

    /// Waits until every proxy that holds a lease is ACTIVE at `version`, at most so long; names those that are not.
    pub(crate) async fn wait_for(&self, version: Version, most: Duration) -> Vec<String> {
        let (mut moved, deadline) = (self.watch(), tokio::time::Instant::now() + most);
        loop {
            moved.mark_unchanged();
            let behind = self.standings(version).into_iter().filter(|one| one.leased && one.active_at.is_none());
            let names: Vec<String> = behind.map(|one| one.name.to_string()).collect();
            if names.is_empty() || tokio::time::timeout_at(deadline, moved.changed()).await.is_err() {
                return names;
            }
        }
    }

    /// A copy of what is known of every proxy.
    pub(crate) fn proxies(&self) -> BTreeMap<MemberName, Proxy> {
        self.lock().proxies.clone()
    }

    /// Lets `look` read the counters.
    pub(crate) fn with_measure<T>(&self, look: impl FnOnce(&Measure) -> T) -> T {
        look(&self.lock().measure)
    }

    /// Draining releases that every proxy has taken out and that nobody serves any more.
    ///
    /// A proxy counts once it is ACTIVE at `version` and has sent counts since then.
    pub(crate) fn drained(&self, state: &State, version: Version) -> BTreeSet<(StageName, ReleaseNumber)> {
        let mut draining = Vec::new();
        for name in state.stage_names() {
            let leaving = state.stage(&name).into_iter().flat_map(|stage| &stage.leaving);
            let releases =
                leaving.filter(|(_, why)| matches!(why, Leaving::Draining { .. })).map(|(release, _)| *release);
            draining.extend(releases.map(|release| (name.clone(), release)));
        }
        if draining.is_empty() {
            return BTreeSet::new();
        }
        let (inner, now) = (self.lock(), Instant::now());
        let caught_up = |proxy: &Proxy| {
            let since = proxy.active.filter(|(active, _)| *active == version).map(|(_, at)| at);
            since.zip(proxy.counted).is_some_and(|(since, counted)| counted > since)
        };
        if !inner.proxies.values().filter(|proxy| proxy.is_leased(now)).all(caught_up) {
            return BTreeSet::new();
        }
        draining.into_iter().filter(|(stage, release)| inner.measure.outstanding(stage, *release, now) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_comes_back_has_what_it_says_is_saved() {
        let (fleet, name): (_, MemberName) = (Fleet::new(), "p1".parse().expect("name"));
        let version = |number| Version { term: 1, number };
        let connect = |connection, have| {
            let hello = Hello { have: Some(Version::into(version(have))), ..Hello::default() };
            fleet.attach(&name, connection, &hello, mpsc::channel(QUEUE).0, 0);
        };
        let report = |connection, number, state: progress::State| {
            let version = Some(version(number).into());
            fleet.progress(&name, connection, &Progress { version, state: state.into(), ..Progress::default() }, 0);
        };
        let active = |number| fleet.standings(version(number))[0].active_at;
        connect(1, 5);
        assert!(active(5).is_none(), "what it serves may not be on its disk");
        report(1, 5, progress::State::Active);
        let since = active(5).expect("told");
        // Its disk is full from now on, and its stream blinks.
        report(1, 6, progress::State::Unsaved);
        connect(2, 6);
        report(2, 6, progress::State::Unsaved);
        assert!(active(6).is_none() && !fleet.standings(version(6))[0].problem.is_empty());
        report(2, 6, progress::State::Active);
        assert!(active(6).is_some_and(|at| at >= since));
        // What it was known to have it still has, since then.
        let since = active(6).expect("told");
        connect(3, 6);
        report(3, 6, progress::State::Active);
        assert_eq!(active(6), Some(since));
    }

    /// A connected proxy that knows resources of a schema, and what it is sent.
    fn connect(fleet: &Fleet, name: &str, schema: u32) -> (MemberName, mpsc::Receiver<ControllerMessage>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (name, hello) = (name.parse().expect("name"), Hello { schema, ..Hello::default() });
        fleet.attach(&name, 1, &hello, sender, 0);
        (name, receiver)
    }

    /// Answers the next question.
    async fn answer(
        fleet: &Fleet,
        name: &MemberName,
        asked: &mut mpsc::Receiver<ControllerMessage>,
        decided: Option<Decided>,
    ) {
        let Some(Kind::Question(question)) = asked.recv().await.expect("asked").kind else { panic!("no question") };
        assert_eq!(question.request_id, "id");
        fleet.answered(name, 7, Answer { number: question.number, decided: Some(Decided::default()) });
        fleet.answered(name, 1, Answer { number: question.number, decided });
    }

    #[tokio::test]
    async fn explain_asks_all_proxies_and_hears_the_one_that_knows() {
        const LONG: Duration = Duration::from_secs(60);
        let fleet = Fleet::new();
        assert!(fleet.ask("id", LONG).await.silent.is_empty(), "there is nobody to wait for");
        let (old, _old_asked) = connect(&fleet, "old", api::SCHEMA_SEALED);
        let answered = fleet.ask("id", LONG).await;
        assert_eq!((answered.decided.is_some(), &answered.silent[..]), (false, &["old".to_owned()][..]));
        let (p1, mut first) = connect(&fleet, "p1", api::SCHEMA_ACCESS);
        let (p2, mut second) = connect(&fleet, "p2", api::SCHEMA_ACCESS);
        let known = Decided { host: "hello.example.com".into(), ..Decided::default() };
        let (answered, ()) = tokio::join!(fleet.ask("id", LONG), async {
            answer(&fleet, &p1, &mut first, None).await;
            answer(&fleet, &p2, &mut second, Some(known.clone())).await;
        });
        assert_eq!(
            answered.decided,
            Some((p2.clone(), known)),
            "an answer on a connection of before counts for nothing"
        );
        let (answered, ()) = tokio::join!(fleet.ask("id", LONG), async {
            answer(&fleet, &p1, &mut first, None).await;
            answer(&fleet, &p2, &mut second, None).await;
        });
        assert_eq!((answered.decided, &answered.silent[..]), (None, &[old.to_string()][..]));
        let (answered, ()) = tokio::join!(fleet.ask("id", Duration::from_millis(50)), async {
            answer(&fleet, &p1, &mut first, None).await;
        });
        assert_eq!(answered.silent, ["old", "p2"], "it says nothing");
        assert!(fleet.lock().questions.is_empty(), "no question is left behind");
    }
}
