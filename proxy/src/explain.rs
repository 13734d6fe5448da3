//! What was decided lately, for operators who ask why: each worker remembers its last requests.
//!
//! Must not know: who asks, or how. A worker writes into memory that it has: text that is too long is cut.
//!
//! Main types: [`Ring`], a worker's memory; [`Asking`], by which the admin runtime asks all of them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use api::fleet::Decided;
use policies::credential::Identity;
use policies::policy::Action;
use policies::verdict::{Verdict, Why};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::answer::Own;
use crate::callers::Caller;
use crate::codec::connection::Flight;
use crate::decide::{Answered, Judged, Request};
use crate::request_id::{Block, IdKey, parse};
use crate::route::Routed;
use crate::worker::now_ms;

/// Requests that a worker remembers.
const MOST: usize = 1_024;
/// Text of each: the longest host and stage, a method, and as much of a path as there is room for.
const TEXT_BYTES: usize = 768;
const METHOD_BYTES: usize = 20;
/// Questions that wait for one worker.
const WAITING: usize = 16;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one worker decided lately. One thread owns it.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    entries: RefCell<Vec<Entry>>,
    /// Decisions so far.
    count: Cell<u64>,
}

/// Where a decision is, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u64);

#[derive(Debug)]
struct Entry {
    place: Place,
    own: Block,
    begun: Instant,
    /// Host, service, environment, method and path, one behind the other: also where there is no stage.
    text: String,
    ends: [usize; 4],
    release: u32,
    action: Action,
    caller: Rc<Caller>,
    verdict: Verdict,
    said: Option<Rc<Answered>>,
    status: u16,
}

/// Asks workers what they decided.
#[derive(Debug)]
pub(crate) struct Asking {
    key: IdKey,
    workers: Vec<mpsc::Sender<Ask>>,
}

/// A question to a worker.
#[derive(Debug)]
pub(crate) struct Ask {
    own: Block,
    answer: oneshot::Sender<Option<Decided>>,
}

/// A question's way, from the admin runtime to a worker.
pub(crate) fn channel() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(WAITING)
}

// === impl Asking ===

impl Asking {
    pub(crate) fn new(key: IdKey, workers: Vec<mpsc::Sender<Ask>>) -> Self {
        Self { key, workers }
    }

    /// What was decided about the request that has this name from us; `None`: it is not ours, or too long ago.
    pub(crate) async fn decided(&self, name: &str) -> Option<Decided> {
        let own = parse(name)?;
        let worker = self.workers.get(usize::try_from(self.key.open(own)?).ok()?)?;
        let (answer, answered) = oneshot::channel();
        worker.try_send(Ask { own, answer }).ok()?;
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()?
    }
}

// === impl Ring ===

impl Ring {
    /// Answers questions until nobody can ask any more.
    pub(crate) async fn answer(&self, mut questions: mpsc::Receiver<Ask>) {
        while let Some(Ask { own, answer }) = questions.recv().await {
            // Whoever asked may have gone.
            let _ = answer.send(self.find(&own));
        }
    }

    /// Remembers a decision. Allocates for the first ones only. `routed`: where the host leads.
    pub(crate) fn add(
        &self,
        flight: &Flight,
        (host, routed): (&[u8], &Routed<'_, '_>),
        request: &Request<'_>,
        caller: &Rc<Caller>,
        judged: &Judged,
    ) -> Place {
        let place = Place(self.count.get());
        self.count.set(place.0 + 1);
        let mut entries = self.entries.borrow_mut();
        if entries.len() < MOST {
            entries.push(Entry::new(caller));
        }
        let entry = &mut entries[(place.0 % MOST as u64) as usize];
        (entry.place, entry.own, entry.begun) = (place, flight.own, flight.begun);
        (entry.release, entry.status, entry.action, entry.verdict) = (0, 0, judged.action, judged.verdict);
        entry.caller = caller.clone();
        entry.said = judged.said.clone();
        let host = std::str::from_utf8(host).unwrap_or_default();
        let environment = &routed.guarded.environment;
        entry.write([host, routed.service, environment, cut(request.method, METHOD_BYTES), request.bare_path()]);
        place
    }

    /// A release was chosen.
    pub(crate) fn chose(&self, place: Option<Place>, release: u32) {
        self.change(place, |entry| entry.release = release);
    }

    /// The head of an answer was there.
    pub(crate) fn answered(&self, place: Option<Place>, status: u16) {
        self.change(place, |entry| entry.status = status);
    }

    fn change(&self, place: Option<Place>, change: impl FnOnce(&mut Entry)) {
        let Some(place) = place else { return };
        let mut entries = self.entries.borrow_mut();
        // Others may have come since.
        if let Some(entry) = entries.get_mut((place.0 % MOST as u64) as usize).filter(|entry| entry.place == place) {
            change(entry);
        }
    }

    fn find(&self, own: &Block) -> Option<Decided> {
        let entries = self.entries.borrow();
        entries.iter().find(|entry| entry.own == *own).map(Entry::decided)
    }
}

// === impl Entry ===

impl Entry {
    fn new(caller: &Rc<Caller>) -> Self {
        Self {
            place: Place(0),
            own: Block::default(),
            begun: Instant::now(),
            text: String::with_capacity(TEXT_BYTES),
            ends: [0; 4],
            release: 0,
            action: Action::Read,
            caller: caller.clone(),
            verdict: Verdict::Allowed,
            said: None,
            status: 0,
        }
    }

    fn write(&mut self, parts: [&str; 5]) {
        self.text.clear();
        for (at, part) in parts.into_iter().enumerate() {
            self.text.push_str(cut(part, TEXT_BYTES - self.text.len()));
            if let Some(end) = self.ends.get_mut(at) {
                *end = self.text.len();
            }
        }
    }

    fn decided(&self) -> Decided {
        let Identity { application, user, .. } = &self.caller.identity;
        let [host, service, environment, method] = self.ends;
        let stage = match self.verdict {
            Verdict::Hidden(Why::UnknownHost) => String::new(),
            _ => format!("{}/{}", &self.text[host..service], &self.text[service..environment]),
        };
        let (application, user) = (application.valid(), user.valid());
        let groups =
            application.map(|known| &known.groups).into_iter().chain(user.map(|known| &known.groups)).flatten();
        let ago_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Decided {
            at_ms: now_ms().saturating_sub(ago_ms),
            host: self.text[..host].into(),
            stage,
            release: self.release,
            method: self.text[environment..method].into(),
            path: self.text[method..].into(),
            action: action(self.action).into(),
            application: application.map(|known| known.name.to_string()).unwrap_or_default(),
            issuer: user.map(|known| known.issuer.to_string()).unwrap_or_default(),
            subject: user.map(|known| known.subject.clone()).unwrap_or_default(),
            groups: groups.map(|group| group.to_string()).collect(),
            outcome: outcome(self.verdict).into(),
            reasons: self.reasons(),
            status: self.status.into(),
        }
    }

    /// What was missing or wrong, then what decided.
    fn reasons(&self) -> Vec<String> {
        let identity = &self.caller.identity;
        let mut reasons = Vec::new();
        if let Some(own) = own(self.verdict) {
            reasons.push(own.reason().to_owned());
        }
        if let Some(fault) = identity.application.fault() {
            reasons.push(format!("application: {}", fault.reason()));
        }
        if let Some(fault) = identity.user.fault() {
            reasons.push(format!("user: {}", fault.reason()));
        }
        for said in self.said.iter() {
            reasons.extend(said.policies.iter().map(|policy| format!("policy {policy}")));
            reasons.extend(said.errors.iter().map(|error| format!("a policy could not be evaluated: {error}")));
        }
        reasons
    }
}

/// What is answered to a verdict; `None`: it goes on.
fn own(verdict: Verdict) -> Option<Own> {
    match verdict {
        Verdict::Allowed => None,
        Verdict::Hidden(why) => Some(Own::Hidden(why)),
        Verdict::Unauthenticated(why) => Some(Own::Unauthenticated(why)),
        Verdict::Forbidden(why) => Some(Own::Forbidden(why)),
        Verdict::Unavailable(why) => Some(Own::Unavailable(why)),
    }
}

/// The verdict in a word, for people.
pub(crate) fn outcome(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::Hidden(Why::UnknownHost) => "unknown",
        Verdict::Hidden(_) => "hidden",
        Verdict::Unauthenticated(_) => "unauthenticated",
        Verdict::Forbidden(_) => "forbidden",
        Verdict::Unavailable(_) => "unavailable",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Discover => "discover",
        Action::Read => "read",
        Action::Write => "write",
        Action::Rpc => "rpc",
        Action::Upgrade => "upgrade",
        Action::Use => "use",
        Action::Preflight => "preflight",
        Action::Check => "check",
    }
}

/// At most so many bytes of a text.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
