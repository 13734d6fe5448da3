//! Who asks, and whether the request may go on.
//!
//! Must not know: releases, or what becomes of a request that may.
//!
//! Main functions: [`identify`], [`decide`].

use std::rc::Rc;
use std::sync::Arc;

use policies::credential::{Presented, Standing};
use policies::verdict::{Verdict, Why};

use super::share;
use crate::access_log::Entry;
use crate::answer::Own;
use crate::callers::{self, Caller};
use crate::codec::connection::Flight;
use crate::codec::{Dialect, Inbound, RequestView};
use crate::cors::Preflight;
use crate::decide::{Judged, Request};
use crate::route::Routed;
use crate::snapshot::{Gate, Stage};
use crate::worker::{self, Worker};

/// Whether a request may wait for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Some,
    None,
}

/// Who asks.
pub(super) enum Identified {
    As(Rc<Caller>),
    /// It cannot be told with the keys that this issuer had in the ring with this generation.
    Perhaps(Arc<str>, u64),
}

/// Reads what the request presents, and says who that is.
pub(super) fn identify(
    worker: &Worker,
    gate: &Gate,
    view: RequestView<'_>,
    flight: &mut Flight,
    patience: Patience,
) -> Identified {
    let admission = &flight.connection().admission;
    let (names, certificate_until_s) = (admission.names(), admission.until_s());
    let presented = callers::presented(view, names.as_deref().unwrap_or_default());
    let presented = Presented { certificate_until_s, ..presented };
    let (caller, generation) = worker.identify(gate, &presented);
    let may_change = patience == Patience::Some && caller.lacks_keys();
    match callers::token(&presented).filter(|_| may_change).and_then(|token| gate.access.issuers.named_by(token)) {
        Some(issuer) => Identified::Perhaps(issuer.clone(), generation),
        None => Identified::As(caller),
    }
}

/// What is decided on.
pub(super) fn asked<'a>(inbound: &'a Inbound, flight: &Flight) -> Request<'a> {
    let view = inbound.head.view();
    Request {
        method: view.method(),
        path: view.path(),
        is_rpc: view.dialect() != Dialect::Http,
        is_upgrade: inbound.upgrade.is_some(),
        is_preflight: Preflight::is_asked(view),
        client: flight.client,
        now_ms: worker::now_ms,
    }
}

/// Whether the request may go on, and to which stage. Whether there is one or it is hidden, the same is done.
pub(super) fn decide<'a>(
    worker: &Worker,
    gate: &Gate,
    caller: &Rc<Caller>,
    routed: &Routed<'a, '_>,
    request: &Request<'_>,
    (view, flight): (RequestView<'_>, &mut Flight),
) -> Result<&'a Stage, Own> {
    let judged = worker.decide(gate, caller, routed, request);
    if gate.guards {
        flight.decided = Some(worker.ring.add(flight, (view.named_host(), routed), request, caller, &judged));
    }
    flight.log(|entry| tell(entry, caller, &judged));
    worker.alarm(routed.service, &judged);
    let stage = routed.stage;
    match (judged.verdict, stage) {
        (Verdict::Allowed, Some(stage)) => Ok(stage),
        (Verdict::Unauthenticated(why), Some(stage)) => Err(readable(view, stage, flight, Own::Unauthenticated(why))),
        (Verdict::Forbidden(why), Some(stage)) => Err(readable(view, stage, flight, Own::Forbidden(why))),
        (Verdict::Unavailable(why), Some(stage)) => Err(readable(view, stage, flight, Own::Unavailable(why))),
        (verdict, _) => {
            let why = if let Verdict::Hidden(why) = verdict { why } else { Why::UnknownHost };
            #[cfg(test)]
            if routed.stage.is_some() && crate::decide::Leak::Header.is_set() {
                flight.cors = Some("https://a".into());
            }
            flight.id = worker.denial(gate, caller, routed.shape.short, why, &flight.own);
            Err(Own::Hidden(why))
        }
    }
}

/// The page that asked may read why not: it may know of the stage.
fn readable(view: RequestView<'_>, stage: &Stage, flight: &mut Flight, own: Own) -> Own {
    // What else is wrong with where it comes from does not count any more.
    let _ = share(view, stage, flight);
    own
}

/// Says in the log who asked, and what was decided.
fn tell(entry: &mut Entry, caller: &Caller, judged: &Judged) {
    let identity = &caller.identity;
    if let Standing::Valid(application) = &identity.application {
        entry.text("application", application.name.as_bytes());
    }
    if let Standing::Valid(user) = &identity.user {
        entry.text("user", format!("{}/{}", user.issuer, user.subject).as_bytes());
    }
    entry.text("decision", judged.outcome().as_bytes());
    if let Some(fault) = identity.application.fault() {
        entry.text("application_refused", fault.reason().as_bytes());
    }
    if let Some(fault) = identity.user.fault() {
        entry.text("user_refused", fault.reason().as_bytes());
    }
    if let Some(said) =
        judged.said.as_ref().filter(|said| judged.verdict != Verdict::Allowed && !said.policies.is_empty())
    {
        entry.text("policies", said.policies.join(", ").as_bytes());
    }
}
