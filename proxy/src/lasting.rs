//! Exchanges that last are decided again: when anybody may be judged otherwise than before, and when a credential has ended.
//!
//! Must not know: what is exchanged, or how a protocol says that it is over.
//!
//! An exchange of a stage that asks who may is on its worker's list from its decision to its end: a few words and the text of
//! what was asked, in memory that is used again. The list is looked at once a second and costs nothing in between.
//!
//! Main types: [`Lasting`], a worker's list; [`Watched`], an exchange on it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use api::Version;
use policies::credential::{Identity, Presented, Standing};
use policies::verdict::{Verdict, Why};

use crate::answer::Own;
use crate::callers::Caller;
use crate::codec::connection::Connection;
use crate::decide::Request;
use crate::head_check::Refusal;
use crate::route::{Release, clients, route};
use crate::snapshot::Snapshot;
use crate::worker::{self, Worker};

/// Exchanges that are decided one after the other before others have their turn.
const AT_ONCE: usize = 32;
/// An issuer whose keys are on their way has so many seconds.
const PATIENCE: u8 = 5;
/// Entries that are kept for the next exchange.
const KEPT: usize = 256;
/// Text that is kept with them.
const KEPT_BYTES: usize = 1024;

/// See the module. One thread owns it.
#[derive(Debug, Default)]
pub(crate) struct Lasting {
    all: RefCell<Vec<Rc<Watch>>>,
    free: RefCell<Vec<Rc<Watch>>>,
}

/// An exchange on a worker's list until this is dropped.
#[derive(Debug)]
pub(crate) struct Watched {
    watch: Rc<Watch>,
    list: Rc<Lasting>,
}

/// By what somebody is judged, besides what was asked: another one may judge otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Basis {
    /// Generation of the gate.
    gate: u64,
    /// Generation of the issuers' keys.
    keys: u64,
    /// Of the snapshot, which says who vouches for certificates of clients.
    version: Option<Version>,
}

#[derive(Debug)]
struct Watch {
    /// In the list.
    place: Cell<usize>,
    /// `None`: it has ended.
    caller: RefCell<Option<Rc<Caller>>>,
    /// There as long as the caller is.
    connection: RefCell<Option<Rc<Connection>>>,
    /// By what it was allowed.
    basis: Cell<Basis>,
    asked: Asked,
    /// Looks that could not tell.
    unsure: Cell<u8>,
    /// Why it may not go on.
    end: Cell<Option<Own>>,
    waker: RefCell<Option<Waker>>,
}

/// What was asked.
#[derive(Debug)]
struct Asked {
    /// Host, method and path, one behind the other.
    text: String,
    host: usize,
    method: usize,
    is_rpc: bool,
    is_upgrade: bool,
    client: IpAddr,
}

impl Lasting {
    /// Puts an exchange that was allowed on the list. `basis`: from before its caller was identified.
    pub(crate) fn begin(
        self: &Rc<Self>,
        caller: &Rc<Caller>,
        basis: Basis,
        (connection, host): (&Rc<Connection>, &str),
        request: &Request<'_>,
    ) -> Watched {
        // One that somebody still looks at is left to them.
        let free = self.free.borrow_mut().pop().filter(|watch| Rc::strong_count(watch) == 1);
        let mut watch = free.unwrap_or_else(|| Rc::new(Watch::new()));
        let unshared = Rc::get_mut(&mut watch).expect("nobody else has what is free or new");
        unshared.fill(caller, basis, (connection, host), request);
        let mut all = self.all.borrow_mut();
        watch.place.set(all.len());
        all.push(watch.clone());
        Watched { watch, list: self.clone() }
    }

    /// Those that have to be looked at.
    fn due(&self, now: Basis, now_s: u64) -> Vec<Rc<Watch>> {
        self.all.borrow().iter().filter(|watch| watch.is_due(now, now_s)).cloned().collect()
    }
}

/// Looks at every exchange that has to be.
pub(crate) async fn look_again(worker: &Worker, list: &Lasting) {
    let now = Basis::of(worker, &worker.snapshot());
    for some in list.due(now, worker::now_ms() / 1_000).chunks(AT_ONCE) {
        some.iter().for_each(|watch| watch.look_again(worker));
        tokio::task::yield_now().await;
    }
}

// === impl Basis ===

impl Basis {
    /// What counts now.
    pub(crate) fn of(worker: &Worker, snapshot: &Snapshot) -> Self {
        Self { gate: snapshot.access.generation, keys: worker.keys_generation(), version: snapshot.version }
    }
}

// === impl Watched ===

impl Watched {
    /// Who asked.
    pub(crate) fn caller(&self) -> Option<Rc<Caller>> {
        self.watch.caller.borrow().clone()
    }

    /// Ready once it may not go on. The last task that asked is woken.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Own> {
        if let Some(own) = self.watch.end.get() {
            return Poll::Ready(own);
        }
        let mut waker = self.watch.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Completes once it may not go on.
    pub(crate) async fn over(&self) -> Own {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let Self { watch, list } = self;
        watch.waker.take();
        watch.caller.take();
        watch.connection.take();
        let mut all = list.all.borrow_mut();
        let gone = all.swap_remove(watch.place.get());
        if let Some(moved) = all.get(watch.place.get()) {
            moved.place.set(watch.place.get());
        }
        // INVARIANT: what is free is nobody else's. What is being looked at just now is not used again.
        let is_unshared = Rc::strong_count(&gone) == 2;
        let mut free = list.free.borrow_mut();
        if is_unshared && free.len() < KEPT && gone.asked.text.capacity() <= KEPT_BYTES {
            free.push(gone);
        }
    }
}

// === impl Watch ===

impl Watch {
    fn new() -> Self {
        let asked = Asked {
            text: String::new(),
            host: 0,
            method: 0,
            is_rpc: false,
            is_upgrade: false,
            client: IpAddr::from([0, 0, 0, 0]),
        };
        Self {
            place: Cell::new(0),
            caller: RefCell::default(),
            connection: RefCell::default(),
            basis: Cell::default(),
            asked,
            unsure: Cell::new(0),
            end: Cell::new(None),
            waker: RefCell::default(),
        }
    }

    fn fill(
        &mut self,
        caller: &Rc<Caller>,
        basis: Basis,
        (connection, host): (&Rc<Connection>, &str),
        request: &Request<'_>,
    ) {
        let Request { method, path, is_rpc, is_upgrade, client, .. } = *request;
        let text = &mut self.asked.text;
        text.clear();
        [host, method, path].into_iter().for_each(|part| text.push_str(part));
        (self.asked.host, self.asked.method) = (host.len(), host.len() + method.len());
        (self.asked.is_rpc, self.asked.is_upgrade, self.asked.client) = (is_rpc, is_upgrade, client);
        *self.caller.get_mut() = Some(caller.clone());
        *self.connection.get_mut() = Some(connection.clone());
        self.basis.set(basis);
        self.unsure.set(0);
        self.end.set(None);
    }

    fn is_due(&self, now: Basis, now_s: u64) -> bool {
        let caller = self.caller.borrow();
        let Some(caller) = caller.as_deref() else { return false };
        let identity = &caller.identity;
        let before = self.basis.get();
        let is_over = identity.until_s.is_some_and(|until| until <= now_s);
        // Whoever showed no token is the same with any keys.
        let has_other_keys = before.keys != now.keys && !matches!(identity.user, Standing::Absent);
        // Others on the connection may have found out first that nobody vouches for it.
        let is_on_proven = || self.connection.borrow().as_ref().is_some_and(|one| one.admission.client().is_some());
        let has_certificate = || !caller.presented().certificate.is_empty() || is_on_proven();
        let is_vouched_otherwise = before.version != now.version && has_certificate();
        self.end.get().is_none() && (before.gate != now.gate || has_other_keys || is_over || is_vouched_otherwise)
    }

    /// Decides as if it were asked now, with what was presented then.
    fn look_again(&self, worker: &Worker) {
        // It may have ended while others had their turn.
        let (Some(before), Some(connection)) = (self.caller.borrow().clone(), self.connection.borrow().clone()) else {
            return;
        };
        let snapshot = worker.snapshot();
        let gate = &*snapshot.access;
        let basis = Basis::of(worker, &snapshot);
        let (host, rest) = self.asked.text.split_at(self.asked.host);
        let (method, path) = rest.split_at(self.asked.method - self.asked.host);
        if connection.admission.client().is_some() && !connection.admission.is_good_for(clients(&snapshot, host)) {
            // As whoever asks now is told.
            connection.leave();
            return self.end(Own::Refused(Refusal::Misdirected));
        }
        let names = connection.admission.names();
        let (caller, _) = worker.identify(gate, &again(&before, &names));
        let mut routed = route(&snapshot, host);
        if let Release::Missing(_) = routed.release {
            // A release that is no longer there lets what it serves finish.
            routed.release = Release::Any;
        }
        let Asked { is_rpc, is_upgrade, client, .. } = self.asked;
        let is_preflight = false;
        let request = Request { method, path, is_rpc, is_upgrade, is_preflight, client, now_ms: worker::now_ms };
        let judged = worker.decide(gate, &caller, &routed, &request);
        worker.alarm(routed.service, &judged);
        match judged.verdict {
            Verdict::Allowed => {
                self.basis.set(basis);
                self.unsure.set(0);
                self.caller.replace(Some(caller));
            }
            Verdict::Unavailable(_) if self.unsure.get() < PATIENCE => self.unsure.set(self.unsure.get() + 1),
            verdict => self.end(why(&before.identity, &caller.identity, verdict)),
        }
    }

    fn end(&self, own: Own) {
        self.end.set(Some(own));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What was presented then, but for a certificate that nobody vouches for any more.
fn again<'a>(before: &'a Caller, names: &'a Option<Rc<[String]>>) -> Presented<'a> {
    let presented = before.presented();
    let certificate = match names {
        Some(names) if !presented.certificate.is_empty() => names,
        _ => &[][..],
    };
    Presented { certificate, ..presented }
}

/// What ends an exchange: who has lost a credential is told so, which is not to say what there is or is not.
fn why(before: &Identity, now: &Identity, verdict: Verdict) -> Own {
    if is_lost(&before.application, &now.application) {
        return Own::Unauthenticated(Why::NoApplication);
    }
    if is_lost(&before.user, &now.user) {
        return Own::Unauthenticated(Why::NoUser);
    }
    match verdict {
        Verdict::Unauthenticated(why) => Own::Unauthenticated(why),
        Verdict::Forbidden(why) => Own::Forbidden(why),
        Verdict::Unavailable(why) => Own::Unavailable(why),
        Verdict::Hidden(why) => Own::Hidden(why),
        Verdict::Allowed => Own::Hidden(Why::Permitted),
    }
}

fn is_lost<T>(before: &Standing<T>, now: &Standing<T>) -> bool {
    before.valid().is_some() && matches!(now, Standing::Absent | Standing::Refused(_))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use policies::credential::{Application, Fault, User};

    use super::*;
    use crate::codec::testing::connection;

    fn request(path: &str) -> Request<'_> {
        let client = IpAddr::from([127, 0, 0, 1]);
        let (is_rpc, is_upgrade, is_preflight) = (false, false, false);
        Request { method: "GET", path, is_rpc, is_upgrade, is_preflight, client, now_ms: worker::now_ms }
    }

    #[test]
    fn lasting_exchanges_leave_the_list_in_any_order_and_their_memory_is_used_again() {
        let (list, caller) = (Rc::<Lasting>::default(), Rc::<Caller>::default());
        let basis = |gate| Basis { gate, ..Basis::default() };
        let connection = connection("192.0.2.7", &[]);
        let begin = |gate, path: &str| list.begin(&caller, basis(gate), (&connection, "a.example"), &request(path));
        let mut all: Vec<Watched> = (0..10).map(|n| begin(n, "/some/path")).collect();
        for gone in [3, 0, 5, 6] {
            drop(all.remove(gone));
            let places: Vec<usize> = list.all.borrow().iter().map(|watch| watch.place.get()).collect();
            assert_eq!(places, (0..all.len()).collect::<Vec<_>>());
        }
        assert_eq!((list.all.borrow().len(), list.free.borrow().len()), (6, 4));
        let due = list.due(basis(1), 0);
        assert_eq!(due.len(), 5, "all but the one of this gate");
        due[0].end(Own::Hidden(Why::MayNotCall));
        assert_eq!(list.due(basis(1), 0).len(), 4, "what ends is not looked at again");
        // What is being looked at is nobody else's, whatever ends meanwhile.
        all.clear();
        assert!(list.free.borrow().iter().all(|watch| due.iter().all(|due| !Rc::ptr_eq(watch, due))));
        let again: Vec<Watched> = (0..20).map(|_| begin(9, "/y")).collect();
        for Watched { watch, .. } in &again {
            let text = watch.asked.text.as_str();
            assert_eq!((text, watch.end.get(), watch.basis.get()), ("a.exampleGET/y", None, basis(9)));
        }
        drop((due, again));
        assert_eq!(list.free.borrow().len(), 20);
        assert_eq!((Rc::strong_count(&caller), Rc::strong_count(&connection)), (1, 1), "what is free keeps nobody");
        let again = begin(7, "/x");
        assert_eq!((list.all.borrow().len(), list.free.borrow().len()), (1, 19));
        let watch = &again.watch;
        assert_eq!((watch.asked.text.as_str(), watch.end.get(), watch.basis.get()), ("a.exampleGET/x", None, basis(7)));
        // Long text is not kept.
        drop((again, begin(1, &"x".repeat(5_000))));
        assert!(list.free.borrow().iter().all(|watch| watch.asked.text.capacity() <= KEPT_BYTES));
    }

    #[test]
    fn lasting_exchanges_end_with_what_was_lost_or_else_with_the_verdict() {
        let application = Standing::Valid(Arc::new(Application { name: "a".into(), groups: Vec::new() }));
        let user = Standing::Valid(Arc::new(User {
            issuer: "corp".into(),
            subject: "alice".into(),
            client: None,
            groups: Vec::new(),
            attributes: Default::default(),
            until_s: 1,
        }));
        let identity = |application: &Standing<_>, user: &Standing<_>| Identity {
            application: application.clone(),
            user: user.clone(),
            until_s: None,
            by_proxy_authorization: false,
        };
        let both = identity(&application, &user);
        let (absent, refused) = (Standing::Absent, Standing::Refused(Fault::UnknownKey));
        let hidden = Verdict::Hidden(Why::MayNotDiscover);
        for (now, verdict, expected) in [
            (both.clone(), hidden, Own::Hidden(Why::MayNotDiscover)),
            (both.clone(), Verdict::Forbidden(Why::MayNotCall), Own::Forbidden(Why::MayNotCall)),
            (identity(&Standing::Absent, &user), hidden, Own::Unauthenticated(Why::NoApplication)),
            (identity(&application, &refused), hidden, Own::Unauthenticated(Why::NoUser)),
            (identity(&application, &absent), Verdict::Forbidden(Why::MayNotCall), Own::Unauthenticated(Why::NoUser)),
            (
                identity(&application, &Standing::Unavailable(Fault::KeysMissing)),
                Verdict::Unavailable(Why::KeysUnavailable),
                Own::Unavailable(Why::KeysUnavailable),
            ),
        ] {
            assert_eq!(why(&both, &now, verdict), expected, "{now:?}");
        }
        let nobody = identity(&Standing::Absent, &Standing::Absent);
        assert_eq!(why(&nobody, &nobody, hidden), Own::Hidden(Why::MayNotDiscover), "nothing was lost");
    }
}
