//! The one thread where decisions are made: it owns state and store, takes messages in order, and tells everybody.
//!
//! Must not know: gRPC, TLS, git or processes. It is told what was seen and says what should be.
//!
//! Order within a command: decide, append (on disk), evolve, publish. A crash in between is answered by folding the
//! events again and asking what is due.

mod clock;
mod connected;
mod fault;
mod inbox;
mod members;
mod publish;
mod records;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::fleet::Challenge;
use api::{EnvironmentName, ReleaseNumber, StageName, Version};
use certs::development::Material;
use certs::fleet::Role;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{error, info, warn};

pub(crate) use connected::Sealed;
pub(crate) use fault::Fault;
pub(crate) use inbox::{Handle, Priority};
pub(crate) use members::AgentSender;
pub(crate) use publish::{Publisher, secrets_messages};
pub(crate) use records::{event_of, fold};

use crate::builder::Order;
use crate::certificates::{Lists, Shelved};
use crate::core::state::{Member, MemberProgress};
use crate::core::{Command, Context, Due, Event, Observations, Refusal, State, decide, due};
use crate::fleet::Fleet;
use crate::store::{Checkpoint, Record, Store, StoreError};
use inbox::{Inbox, Message};
use members::Agents;

/// How often time is asked what is due when nothing else happens.
const TICK: Duration = Duration::from_millis(250);
/// How often it is looked whether keys of tickets have to be rotated, or a development certificate is near its end. Neither
/// is in a hurry: the next key is known everywhere half a day before it counts.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// A start folds at most so many events after the last checkpoint: some 20 ms.
const CHECKPOINT_EVERY: u64 = 1_000;

/// Records read at once to find those of one command: nearly all have one or two.
const EVENTS_OF_ONE: usize = 8;

/// A command with who asks for it.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) command: Command,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// Drawn by the caller; may be empty.
    pub(crate) request: String,
    /// As [`Context::past`].
    pub(crate) past: Option<ReleaseNumber>,
    /// Decide only.
    pub(crate) plan: bool,
    /// When it arrived at the controller.
    pub(crate) arrived: Instant,
}

impl Submission {
    /// A command of the controller itself.
    pub(crate) fn own(command: Command) -> Self {
        Self::of("controller", String::new(), command)
    }

    /// A command of somebody, arriving now.
    pub(crate) fn of(by: &str, reason: String, command: Command) -> Self {
        let (by, request, arrived) = (by.to_owned(), String::new(), Instant::now());
        Self { command, by, reason, request, past: None, plan: false, arrived }
    }
}

/// A command that was carried out (or, with `plan`, could be).
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    /// Last event; 0 when there was none.
    pub(crate) event: u64,
    pub(crate) events: Vec<Event>,
    pub(crate) lines: Vec<String>,
    /// What proxies have once they have it.
    pub(crate) version: Version,
    /// Whether proxies have to do anything about it.
    pub(crate) published: bool,
    /// When the command arrived.
    pub(crate) arrived: Instant,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum NotDone {
    Refused(Refusal),
    Store(StoreError),
    /// The controller is stopping.
    Stopping,
}

/// What the engine is made of.
pub(crate) struct Engine {
    pub(crate) state: State,
    pub(crate) store: Store,
    pub(crate) seen: Observations,
    pub(crate) publisher: Publisher,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) agents: Agents,
    /// The last version that changed a stage, and when the command arrived that did it.
    pub(crate) changed: BTreeMap<StageName, (Version, Instant)>,
    happened: broadcast::Sender<Arc<Record>>,
    builds: mpsc::UnboundedSender<Order>,
    fault: Fault,
    /// Time of the last event: no later one carries an earlier time, whatever the clock does.
    last_ms: u64,
    checkpointed: u64,
    /// When certificates were looked at last, whether they have to be renewed.
    renewed: Instant,
    /// Nobody knows what the store holds any more: set where it is found out, looked at after every message.
    failed: Option<StoreError>,
    /// What an operator should know now.
    pub(crate) warnings: Vec<String>,
}

/// What the engine needs from outside.
pub(crate) struct Parts {
    pub(crate) state: State,
    pub(crate) store: Store,
    pub(crate) checkpointed: u64,
    pub(crate) last_ms: u64,
    pub(crate) publisher: Publisher,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) happened: broadcast::Sender<Arc<Record>>,
    pub(crate) builds: mpsc::UnboundedSender<Order>,
    pub(crate) fault: Fault,
}

/// Starts the engine on a thread of its own. The receiver tells when it ended, and why if not on purpose.
pub(crate) fn start(parts: Parts) -> (Handle, oneshot::Receiver<Result<(), NotDone>>) {
    let inbox = Arc::new(Inbox::default());
    let handle = Handle::new(inbox.clone());
    let (ended, receiver) = oneshot::channel();
    let engine = Engine {
        state: parts.state,
        store: parts.store,
        seen: Observations::default(),
        publisher: parts.publisher,
        fleet: parts.fleet,
        agents: Agents::default(),
        changed: BTreeMap::new(),
        happened: parts.happened,
        builds: parts.builds,
        fault: parts.fault,
        last_ms: parts.last_ms,
        checkpointed: parts.checkpointed,
        renewed: Instant::now(),
        failed: None,
        warnings: Vec::new(),
    };
    let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
        let result = engine.run(&inbox);
        inbox.close();
        // The receiver is gone only when the whole controller is.
        let _ = ended.send(result);
    });
    thread.expect("the operating system gives a thread");
    (handle, receiver)
}

// === impl Engine ===

impl Engine {
    fn run(mut self, inbox: &Inbox) -> Result<(), NotDone> {
        self.take_the_lead()?;
        let mut looked = Instant::now();
        loop {
            // Whoever only looks, however often, must not keep time from being asked.
            let due = match inbox.take(TICK.saturating_sub(looked.elapsed())) {
                Some(Message::Stop) => break,
                Some(Message::Command(submission, reply)) => {
                    let result = self.carry_out(*submission);
                    let _ = reply.send(result); // The asker may have gone; what was done is done.
                    true
                }
                Some(Message::Change(change)) => {
                    change(&mut self);
                    true
                }
                Some(Message::Read(read)) => {
                    read(&self);
                    looked.elapsed() >= TICK
                }
                None => true,
            };
            if due && self.failed.is_none() {
                self.do_what_is_due();
                looked = Instant::now();
            }
            if let Some(problem) = self.failed.take() {
                // No checkpoint: the store's last event may be one that this state does not know.
                error!(%problem, "the event store failed; the controller ends and has to be started again");
                return Err(NotDone::Store(problem));
            }
        }
        self.checkpoint();
        Ok(())
    }

    fn take_the_lead(&mut self) -> Result<(), NotDone> {
        self.begin_term(0)?;
        let is_proxy =
            |member: &Member| member.role == Role::Proxy && matches!(member.progress, MemberProgress::Joined { .. });
        let joined = self.state.members.iter().filter(|(_, member)| is_proxy(member));
        self.fleet.expect(joined.map(|(name, _)| name.clone()));
        info!(term = self.state.term, events = self.store.last(), "leads");
        Ok(())
    }

    /// Takes a term above all known ones and derives what everybody should have anew.
    fn begin_term(&mut self, above: u64) -> Result<(), NotDone> {
        self.carry_out(Submission::own(Command::Start { above }))?;
        let stages: Vec<StageName> = self.state.stage_names().collect();
        self.fleet.know(&self.state, stages.iter());
        let names: Vec<_> = self.state.environments.keys().cloned().collect();
        self.publisher.begin_term(self.state.term, &self.state, &names);
        Ok(())
    }

    /// Decides, records and publishes one command.
    fn carry_out(&mut self, submission: Submission) -> Result<Accepted, NotDone> {
        let arrived = submission.arrived;
        let nothing = |engine: &Self, lines| Accepted {
            event: 0,
            events: Vec::new(),
            lines,
            version: engine.publisher.version(),
            published: false,
            arrived,
        };
        if let Some(before) = self.done_before(&submission.request, &submission.by, arrived) {
            return before;
        }
        let now_ms = self.now_ms();
        let context = Context { by: submission.by, reason: submission.reason, now_ms, past: submission.past };
        let decision = decide(&self.state, &submission.command, &context).map_err(NotDone::Refused)?;
        if submission.plan || decision.events.is_empty() {
            return Ok(Accepted { events: decision.events, ..nothing(self, decision.lines) });
        }
        self.fault.point("before_append", &decision.events);
        let records =
            decision.events.iter().map(|event| records::new_record(event, &context, &submission.request)).collect();
        let records = self.store.append(records).map_err(|problem| {
            self.failed = problem.again().or(self.failed.take());
            NotDone::Store(problem)
        })?;
        self.fault.point("after_append", &decision.events);
        self.last_ms = now_ms;
        for (event, record) in decision.events.iter().zip(&records) {
            self.state.evolve(event, records::mark_of(record));
        }
        self.fault.point("after_evolve", &decision.events);
        let before = self.publisher.version();
        self.publish(&decision.events);
        let version = self.publisher.version();
        for stage in decision.events.iter().filter_map(Event::stage).filter(|_| version != before) {
            self.changed.insert(stage.clone(), (version, arrived));
        }
        self.fault.point("after_publish", &decision.events);
        let event = records.last().map_or(0, |record| record.seq);
        for record in records {
            // Nobody may be listening.
            let _ = self.happened.send(Arc::new(record));
        }
        Ok(Accepted {
            event,
            events: decision.events,
            lines: decision.lines,
            version,
            published: version != before,
            arrived,
        })
    }

    /// What a request did when it came first; `None` for one that was never carried out.
    ///
    /// Whoever asks again waits like the first time: for a start, and for the fleet.
    pub(crate) fn done_before(&self, request: &str, by: &str, arrived: Instant) -> Option<Result<Accepted, NotDone>> {
        let known = self.state.requests.iter().rev().find(|(known, _)| !request.is_empty() && known == request);
        let first = known.map(|(_, first)| *first)?;
        let (mut events, mut next) = (Vec::new(), first);
        loop {
            let page = match self.store.read(next, EVENTS_OF_ONE) {
                Ok(page) => page,
                Err(problem) => return Some(Err(NotDone::Store(problem))),
            };
            let own = page.iter().take_while(|record| records::mark_of(record).request == request && record.by == by);
            let before = next;
            for record in own {
                next = record.seq + 1;
                // Of an older schema it is brought up to date; each was folded before.
                events.extend(event_of(record).ok().flatten());
            }
            if next < before + EVENTS_OF_ONE as u64 {
                break;
            }
        }
        if next == first {
            return Some(Err(NotDone::Refused(Refusal::Refused(format!(
                "the request id {request:?} was used by somebody else: draw another one"
            )))));
        }
        let said = std::iter::once("this request was carried out before".to_owned());
        Some(Ok(Accepted {
            event: next - 1,
            lines: said.chain(events.iter().map(Event::sentence)).collect(),
            events,
            version: self.publisher.version(),
            published: true,
            arrived,
        }))
    }

    /// Brings proxies and agents up to date after some events.
    fn publish(&mut self, events: &[Event]) {
        // Before proxies are told: what they then count is known.
        self.fleet.know(&self.state, events.iter().filter_map(Event::stage));
        self.publisher.refresh(&self.state, events, &self.fleet);
        for event in events {
            if let Event::MemberRevoked { name } = event {
                self.fleet.disconnect(name);
                self.forget_agent(name);
            }
        }
        self.agents.refresh(&self.state, &mut self.seen.agents);
    }

    /// Takes over lists of revoked certificates, which are kept already, and has proxies told.
    pub(crate) fn take_lists(&mut self, lists: Lists) {
        self.publisher.certificates_mut().shelf.put_lists(lists);
        self.publisher.renew(&self.state, &self.fleet, SystemTime::now());
    }

    /// Takes over certificates, which are kept already, and has proxies told.
    pub(crate) fn take_certificates(&mut self, shelved: Shelved) {
        self.publisher.certificates_mut().shelf.put(shelved);
        self.publisher.renew(&self.state, &self.fleet, SystemTime::now());
    }

    /// Makes a new development certificate for an environment and has proxies told.
    pub(crate) fn renew_development(&mut self, name: &EnvironmentName) -> Result<Material, String> {
        let zone = self.state.environments.get(name).map(|spec| spec.zone.clone());
        let zone = zone.ok_or_else(|| format!("there is no environment {name}"))?;
        let made = self.publisher.certificates_mut().renew_development(&zone, SystemTime::now())?;
        self.publisher.renew(&self.state, &self.fleet, SystemTime::now());
        Ok(made)
    }

    /// Has proxies show that a host is ours.
    pub(crate) fn show_challenge(&mut self, told: &Challenge) {
        self.publisher.show_challenge(told, &self.fleet);
    }

    /// Has proxies take that back.
    pub(crate) fn withdraw_challenge(&mut self, kind: &str, host: &str) {
        self.publisher.withdraw_challenge(kind, host, &self.fleet);
    }

    fn do_what_is_due(&mut self) {
        if self.renewed.elapsed() >= LOOK_EVERY {
            self.renewed = Instant::now();
            self.publisher.renew(&self.state, &self.fleet, SystemTime::now());
        }
        self.seen.drained = self.fleet.drained(&self.state, self.publisher.version());
        self.seen.rollouts = self.fleet.rollouts();
        let now_ms = self.now_ms();
        for due in due(&self.state, &self.seen, now_ms) {
            match due {
                Due::Build(release) => {
                    // Marked here, so that it is asked for once; the builder takes the mark away.
                    self.seen.building.insert(release.clone());
                    let _ = self.builds.send(Order::Build(release));
                }
                Due::Cancel(release) => {
                    // As above.
                    self.seen.ending.insert(release.clone());
                    let _ = self.builds.send(Order::End(release));
                }
                Due::Command(command) => {
                    if let Err(problem) = self.carry_out(Submission::own(command)) {
                        warn!(?problem, "what is due could not be done; it will be tried again");
                        return;
                    }
                }
            }
        }
        if self.store.last() >= self.checkpointed + CHECKPOINT_EVERY {
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        let seq = self.store.last();
        let state = match serde_json::to_vec(&self.state) {
            Ok(state) => state,
            Err(problem) => return warn!(%problem, "no checkpoint: the next start folds all events"),
        };
        match self.store.save_checkpoint(&Checkpoint { seq, schema: State::SCHEMA, state }) {
            Ok(()) => self.checkpointed = seq,
            Err(problem) => warn!(%problem, "no checkpoint: the next start folds more events"),
        }
    }

    /// The time for the next event.
    pub(crate) fn now_ms(&mut self) -> u64 {
        let (now_ms, warning) = clock::event_time(crate::status::clock_ms(), self.last_ms);
        self.warnings = warning.into_iter().collect();
        now_ms
    }
}

#[cfg(test)]
pub(crate) mod tests;
