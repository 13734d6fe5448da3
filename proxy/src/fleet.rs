//! The controller's stream: hello, changes down, progress and counts up; connected again and again.
//!
//! Must not know: what changes mean (`control` applies them), or how requests are served.
//!
//! Main type: [`Follower`]. From a whole message to the swap there is no wait: what serves is swapped first, reported
//! after.

mod counting;
mod told;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::Version;
use api::fleet::fleet_client::FleetClient;
use api::fleet::progress::State;
use api::fleet::proxy_message::Kind;
use api::fleet::{self, Hello, Progress, ProxyMessage, Rejection, Tripped};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::admin::Observed;
use crate::balance::mix;
use crate::control::Saved;
use crate::guard::{Guard, Trip};
use crate::snapshot::{Incoming, Received, Receiver, Stage};
use counting::Counting;
use told::Told;

/// First and longest wait before connecting again.
const WAIT: Duration = Duration::from_millis(100);
const WAIT_MOST: Duration = Duration::from_secs(5);
/// A controller that does not answer the call itself within this, or does not greet then, is treated as away.
const OPEN: Duration = Duration::from_secs(10);
/// Messages waiting to be sent; a controller that reads so slowly is left and connected to again.
const OUTGOING: usize = 1024;
/// Versions that are swapped and not yet safe: more mean that the disk does not keep up, the oldest are then implied.
const MOST_UNSAVED: usize = 4096;
/// Questions that are under way at once.
const MOST_QUESTIONS: usize = 64;
/// How often counts are sent.
const COUNTS: Duration = Duration::from_secs(1);

/// Follows a controller.
pub(crate) struct Follower<'a> {
    observed: Arc<Observed>,
    software: String,
    workers: u32,
    /// Drawn at each start: counters of one run only grow.
    run: u64,
    /// Told when the controller does not take this proxy's certificate.
    was_refused: &'a (dyn Fn() + Sync),
}

/// Why a connection ended; for the log.
type Ending = String;

impl<'a> Follower<'a> {
    pub(crate) fn new(
        observed: Arc<Observed>,
        software: String,
        workers: u32,
        was_refused: &'a (dyn Fn() + Sync),
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = mix(since.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32)).max(1);
        Self { observed, software, workers, run, was_refused }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(&self, channel: Channel) {
        let mut failures = 0;
        let mut overrides = Told::default();
        loop {
            overrides.begin();
            let (welcomed, ending) = self.connect(channel.clone(), &mut overrides).await;
            failures = if welcomed { 0 } else { failures + 1 };
            let wait = backoff(failures, mix(self.run ^ failures));
            tracing::warn!(ending, wait_ms = wait.as_millis() as u64, "the controller is away");
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, from hello to its end; true when the controller had greeted.
    async fn connect(&self, channel: Channel, overrides: &mut Told) -> (bool, Ending) {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let mut session = Session {
            observed: &self.observed,
            answering: JoinSet::new(),
            outgoing,
            receiver: Receiver::default(),
            unsaved: VecDeque::new(),
            counting: Counting::new(self.run),
            trips: HashSet::new(),
            overrides,
            welcomed: false,
        };
        if session.greet(self.software.clone(), self.workers).is_err() {
            return (false, "the queue is full".into());
        }
        let mut client = FleetClient::new(channel);
        let opened = tokio::time::timeout(OPEN, client.connect(ReceiverStream::new(queue))).await;
        let incoming = match opened {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                if status.code() == Code::Unauthenticated {
                    (self.was_refused)();
                }
                return (false, status.message().to_owned());
            }
            Err(_) => return (false, "no answer".into()),
        };
        let ending = session.run(incoming).await;
        (session.welcomed, ending)
    }
}

/// Doubles from 100 ms to 5 s, less up to a half by `random`, so that a fleet does not come back as one.
fn backoff(failures: u64, random: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1).min(16)).unwrap_or(16);
    let full = WAIT.saturating_mul(1 << doublings).min(WAIT_MOST);
    full - full.mul_f64((random % 1_000) as f64 / 2_000.0)
}

struct Session<'a> {
    observed: &'a Arc<Observed>,
    /// Questions that workers were asked; they end with the stream.
    answering: JoinSet<()>,
    outgoing: mpsc::Sender<ProxyMessage>,
    receiver: Receiver,
    /// Swapped on this connection, not yet safe on disk.
    unsaved: VecDeque<(Version, [u8; 32])>,
    counting: Counting,
    /// Rollouts whose trip was told on this connection, with their stages.
    trips: HashSet<(Arc<str>, u64)>,
    overrides: &'a mut Told,
    /// Whether the controller has greeted. Before that nothing but hello is sent: an attempt that fails loses nothing.
    welcomed: bool,
}

impl Session<'_> {
    fn greet(&mut self, software: String, workers: u32) -> Result<(), Ending> {
        let (version, fingerprint) = self.observed.control.have_whole().unzip();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.send(Kind::Hello(Hello {
            software,
            have: version.map(Into::into),
            fingerprint: fingerprint.map(|fingerprint| fingerprint.to_vec()).unwrap_or_default(),
            workers,
            schema: api::RESOURCE_SCHEMA,
            seal_key: self.observed.control.seal_key().to_vec(),
            at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    /// The controller has greeted. Hello said what serves in memory; now it hears what of that is safe on disk.
    fn welcome(&mut self, saved: &Saved) -> Result<(), Ending> {
        if std::mem::replace(&mut self.welcomed, true) {
            return Ok(());
        }
        tracing::info!("following the controller");
        if let Some((version, fingerprint)) = self.observed.control.have_whole() {
            if let Some(safe) = saved.version.filter(|safe| *safe < version) {
                self.progress(safe, State::Active, saved.fingerprint.to_vec(), Vec::new(), String::new())?;
            }
            self.unsaved.push_back((version, fingerprint));
            self.report_saved(saved)?;
        }
        self.send_overrides().and_then(|()| self.send_trips())
    }

    async fn run(&mut self, mut incoming: tonic::Streaming<fleet::ControllerMessage>) -> Ending {
        // Before anything is said about it, so that nothing is missed in between.
        let mut saved = self.observed.control.saved();
        let overrides_changed = self.observed.control.overrides_changed.clone();
        let tripped = self.observed.tripped.clone();
        let mut tick = tokio::time::interval(COUNTS);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let greeting = Instant::now() + OPEN;
        loop {
            let done = tokio::select! {
                biased;
                message = incoming.message() => match message {
                    Ok(Some(message)) => match self.receiver.receive(message) {
                        Received::Welcome => {
                            let now = saved.borrow_and_update().clone();
                            self.welcome(&now)
                        }
                        Received::Nothing => Ok(()),
                        Received::Secrets(secrets) => {
                            self.observed.control.take_secrets(secrets);
                            Ok(())
                        }
                        Received::Question(question) => {
                            self.answer(question);
                            Ok(())
                        }
                        Received::Whole(change) => self.apply(change),
                        Received::Refused { version, rejections } => self.reject(version, rejections),
                    },
                    Ok(None) => Err("the controller ended the stream".to_owned()),
                    Err(status) => Err(status.message().to_owned()),
                },
                changed = saved.changed() => match changed {
                    Ok(()) => {
                        let now = saved.borrow_and_update().clone();
                        self.report_saved(&now)
                    }
                    Err(watch::error::RecvError { .. }) => Err("the journal has ended".to_owned()),
                },
                () = overrides_changed.notified() => self.send_overrides(),
                () = tripped.notified() => self.send_trips(),
                () = tokio::time::sleep_until(greeting), if !self.welcomed => Err("no greeting".to_owned()),
                // Trips as well: a notice may have gone to a connection that ended.
                _ = tick.tick(), if self.welcomed => {
                    self.send_overrides().and_then(|()| self.send_trips()).and_then(|()| self.send_counts())
                }
            };
            if let Err(ending) = done {
                return ending;
            }
        }
    }

    /// Has workers asked, beside everything else; one question too many has no answer, which says that nothing is known.
    fn answer(&mut self, fleet::Question { number, request_id }: fleet::Question) {
        while self.answering.try_join_next().is_some() {}
        let (outgoing, observed) = (self.outgoing.clone(), self.observed.clone());
        let asks = self.answering.len() < MOST_QUESTIONS;
        self.answering.spawn(async move {
            let decided = if asks { observed.asking.decided(&request_id).await } else { None };
            let answer = ProxyMessage { kind: Some(Kind::Answer(fleet::Answer { number, decided })) };
            // A controller that does not read is noticed elsewhere.
            let _ = outgoing.try_send(answer);
        });
    }

    fn apply(&mut self, change: Incoming) -> Result<(), Ending> {
        let version = change.version;
        // Swapped before anything is reported. If it is good, all three states were passed through by then.
        let applied = self.observed.control.apply(change);
        self.passed(version, State::Received)?;
        match applied {
            Ok(fingerprint) => {
                self.passed(version, State::Validated)?;
                self.passed(version, State::Warmed)?;
                // The same version again, mended: what it was before is no longer waited for.
                while self.unsaved.pop_back_if(|(before, _)| *before >= version).is_some() {}
                if self.unsaved.len() == MOST_UNSAVED {
                    self.unsaved.pop_front();
                }
                self.unsaved.push_back((version, fingerprint));
                // The journal may have been faster than this line.
                let saved = self.observed.control.saved().borrow().clone();
                if saved.problem.is_empty() { self.report_saved(&saved) } else { Ok(()) }
            }
            Err(rejections) => self.reject(version, rejections),
        }
    }

    fn reject(&mut self, version: Version, rejections: Vec<Rejection>) -> Result<(), Ending> {
        for Rejection { resource, field, reason } in rejections.iter().take(20) {
            tracing::error!(%version, resource, field, reason, "change rejected; what served before still serves");
        }
        self.progress(version, State::Rejected, Vec::new(), rejections, String::new())
    }

    /// ACTIVE for everything that is safe now; UNSAVED for the rest when it cannot be written.
    fn report_saved(&mut self, saved: &Saved) -> Result<(), Ending> {
        while let Some((version, fingerprint)) = self.unsaved.front().copied() {
            let same = saved.version == Some(version) && saved.fingerprint == fingerprint;
            if !same && saved.version <= Some(version) {
                break;
            }
            self.unsaved.pop_front();
            self.progress(version, State::Active, fingerprint.to_vec(), Vec::new(), String::new())?;
        }
        match self.unsaved.back().copied() {
            Some((version, fingerprint)) if !saved.problem.is_empty() => {
                self.progress(version, State::Unsaved, fingerprint.to_vec(), Vec::new(), saved.problem.clone())
            }
            _ => Ok(()),
        }
    }

    /// A state on the way to one that implies it. Left out while the controller reads slowly: a burst of changes must not
    /// fill the queue with what nobody misses.
    fn passed(&mut self, version: Version, state: State) -> Result<(), Ending> {
        if self.outgoing.capacity() < OUTGOING / 2 {
            return Ok(());
        }
        self.progress(version, state, Vec::new(), Vec::new(), String::new())
    }

    fn progress(
        &mut self,
        version: Version,
        state: State,
        fingerprint: Vec<u8>,
        rejections: Vec<Rejection>,
        note: String,
    ) -> Result<(), Ending> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let version = Some(version.into());
        self.send(Kind::Progress(Progress { version, state: state.into(), fingerprint, at_us, rejections, note }))
    }

    fn send(&mut self, kind: Kind) -> Result<(), Ending> {
        self.outgoing.try_send(ProxyMessage { kind: Some(kind) }).map_err(|error| match error {
            TrySendError::Full(_) => "the controller does not read".to_owned(),
            TrySendError::Closed(_) => "the stream has ended".to_owned(),
        })
    }

    /// Tells what ended, then what is in force, as far as it is news; forgets endings that have arrived.
    fn send_overrides(&mut self) -> Result<(), Ending> {
        if !self.welcomed {
            return Ok(());
        }
        let (control, now) = (&self.observed.control, Instant::now());
        let (in_force, ended) = control.overrides_and_ended();
        for one in self.overrides.news(&in_force, &ended, now) {
            self.send(Kind::Override(one))?;
        }
        let settled = self.overrides.settled(&in_force, now);
        if !settled.is_empty() {
            control.forget_ended(&settled);
        }
        Ok(())
    }

    /// Tells which canaries are stopped here, each once on this connection, as long as their guards are there.
    fn send_trips(&mut self) -> Result<(), Ending> {
        if !self.welcomed {
            return Ok(());
        }
        let snapshot = self.observed.control.published().load_full();
        let stopped = |stage: &Stage| {
            let guard = stage.guard.as_ref()?;
            Some(tripped(stage, guard, guard.trip.get()?))
        };
        let stopped: Vec<Tripped> = snapshot.stages().filter_map(|stage| stopped(stage)).collect();
        self.trips.retain(|(stage, rollout)| stopped.iter().any(|one| (&*one.stage, one.rollout) == (stage, *rollout)));
        for one in stopped {
            if self.trips.insert((one.stage.as_str().into(), one.rollout)) {
                self.send(Kind::Tripped(one))?;
            }
        }
        Ok(())
    }

    fn send_counts(&mut self) -> Result<(), Ending> {
        for counts in self.counting.messages(self.observed) {
            self.send(Kind::Counts(counts))?;
        }
        Ok(())
    }
}

fn tripped(stage: &Stage, guard: &Guard, trip: &Trip) -> Tripped {
    let Trip { failures, among, at_ms } = *trip;
    Tripped { stage: stage.text.to_string(), rollout: guard.rollout, release: guard.canary, failures, among, at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_are_fast_at_first_and_never_slower_than_five_seconds() {
        for (failures, most_ms) in [(0, 100), (1, 100), (2, 200), (4, 800), (7, 5_000), (1_000, 5_000)] {
            let most = Duration::from_millis(most_ms);
            assert_eq!(backoff(failures, 0), most, "{failures}");
            assert!(backoff(failures, 999) >= most / 2 && backoff(failures, 999) < most, "{failures}");
        }
    }
}
