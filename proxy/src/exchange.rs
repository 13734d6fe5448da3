//! A request's life: head check, identify, route, decide, split, choose endpoint, forward, record.
//!
//! Must not know: how a request is written on the wire, or where the snapshot comes from.
//!
//! Main function: [`pass`]. INVARIANT: nothing here takes a lock or writes memory that another thread writes.

mod arrival;
mod placing;
mod who;

use std::borrow::Cow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use rustls::server::ClientHello;
use tokio::time::Sleep;

use crate::answer::{Own, grpc_code_of_http};
use crate::callers::Caller;
use crate::codec::connection::Flight;
use crate::codec::grpc_web::Web;
use crate::codec::pool::{Answered, Failed, Lease};
use crate::codec::relay::{Download, Grpc, Relay};
use crate::codec::told::{Calls, Told};
use crate::codec::{AnswerHead, Dialect, Exchange, Inbound, Notice, Outbound, Prepared, RequestView};
use crate::cors::{self, Preflight};
use crate::decide::GRPC_HEALTH;
use crate::guard::Judging;
use crate::handshake::Way;
use crate::lasting::{Basis, Watched};
use crate::record::Ticket;
use crate::route::{self, Release, route};
use crate::snapshot::{Backend, Gate, Protocol, Snapshot, Stage};
use crate::worker::Worker;
use crate::{balance, grpc_timeout, handshake, head_check};
use arrival::{admit, introduce, keep_to_https, prove};
use placing::place;
use who::{Identified, Patience, asked, decide, identify};

impl Exchange for Rc<Worker> {
    /// Answers one request: with what the chosen endpoint says, or with why there is nothing.
    #[expect(clippy::manual_async_fn, reason = "a block holds what it is given once, an async fn twice")]
    fn answer(&self, inbound: Box<Inbound>, mut flight: Flight) -> impl Future<Output = Outbound> {
        async move {
            let dialect = inbound.head.view().dialect();
            introduce(inbound.head.view(), &mut flight);
            match pass(self, inbound, &mut flight, dialect).await {
                Ok(passed) => passed.into_outbound(flight),
                Err(own) => {
                    self.refused(own, &mut flight);
                    Outbound::Own(Notice::of(own, dialect), flight)
                }
            }
        }
    }

    fn way(&self, hello: &ClientHello<'_>) -> Way {
        handshake::choose(&self.snapshot(), hello.server_name(), hello.alpn())
    }

    fn refused(&self, own: Own, flight: &mut Flight) {
        self.count_refused(own);
        self.ring.answered(flight.decided, own.status());
        if flight.entry.is_none() {
            flight.begin_log(flight.connection().peer().address);
        }
        flight.log(|entry| {
            entry.number("status", own.status().into());
            entry.text("why", own.reason().as_bytes());
        });
    }
}

/// When the caller of a gRPC call stops waiting. Allocates: only for calls that say so.
type End = Option<Pin<Box<Sleep>>>;

/// What is answered.
enum Passed {
    /// By an endpoint.
    Relay {
        head: AnswerHead,
        body: Download,
        lease: Lease,
        ticket: Ticket,
        limit: Duration,
        grpc: Grpc,
        web: Option<Web>,
        end: End,
        watched: Option<Watched>,
    },
    /// By us.
    Said(Notice),
}

impl Passed {
    fn into_outbound(self, flight: Flight) -> Outbound {
        let (mut head, body, lease, ticket, limit, grpc, web, end, watched) = match self {
            Self::Said(notice) => return Outbound::Own(notice, flight),
            Self::Relay { head, body, lease, ticket, limit, grpc, web, end, watched } => {
                (head, body, lease, ticket, limit, grpc, web, end, watched)
            }
        };
        // Allocates: it is large, and goes from here to the client's connection.
        let relay = |body| Box::new(Relay::new(body, lease, ticket, flight, limit, grpc));
        match body {
            Download::Http1(answer) if head.status() == 101 => {
                let mut relay = relay(None);
                relay.watch(watched);
                if head.first("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket")) {
                    relay.turn_into_websocket();
                }
                Outbound::Tunnel(head, answer.into_tunnel(), relay)
            }
            body => {
                let mut relay = relay(Some(body));
                relay.end_at(end);
                relay.watch(watched);
                if let Some(web) = web {
                    head.turn_into_web(web);
                    relay.turn_into_web(web);
                }
                Outbound::Relay(head, relay)
            }
        }
    }
}

async fn pass(worker: &Worker, inbound: Box<Inbound>, flight: &mut Flight, dialect: Dialect) -> Result<Passed, Own> {
    // One snapshot from its decision to its end, whatever is swapped in meanwhile. The count of the handle is this worker's own.
    let first = worker.snapshot();
    let newer;
    let mut snapshot = &*first;
    let mut next = choose_release(worker, snapshot, inbound, flight, Patience::Some)?;
    if let Next::Wait(issuer, generation, inbound) = next {
        // Allocates: somebody has a token that nobody could verify yet.
        Box::pin(worker.newer_keys(&issuer, generation)).await;
        // Nothing was decided by the one from before.
        newer = worker.snapshot();
        snapshot = &newer;
        next = choose_release(worker, snapshot, inbound, flight, Patience::None)?;
    }
    let Chosen { backend, ticket, mut request, mut end, watched, short } = match next {
        Next::Forward(chosen) => chosen,
        Next::Wait(..) => return Err(Own::Overloaded),
        Next::Say(notice) => {
            flight.log(|entry| entry.number("status", notice.status().into()));
            worker.ring.answered(flight.decided, notice.status());
            if let Notice::Redirect(_) = notice {
                worker.count_refused(Own::HttpsOnly);
            }
            return Ok(Passed::Said(notice));
        }
    };
    let answered = {
        let forwarded = pin!(forward(worker, backend, &mut request, (flight, &ticket), dialect));
        in_time(forwarded, &mut end, &watched).await
    };
    if let (Err(Own::Hidden(why)), Some(caller)) = (&answered, watched.as_ref().and_then(Watched::caller)) {
        flight.id = worker.denial(&snapshot.access, &caller, short, *why, &flight.own);
        // It was told what the stage says to pages when it might still go on.
        (flight.cors, flight.answers_cors) = (None, false);
    }
    let answered = answered.inspect_err(|own| ticket.refused(*own))?;
    Ok(record(worker, answered, ticket, flight, dialect, (end, watched)))
}

/// What happens to a request.
enum Next<'a> {
    Forward(Chosen<'a>),
    /// We answer it, though nothing is wrong.
    Say(Notice),
    /// This issuer may have newer keys than in the ring with this generation: the request comes back then.
    Wait(Arc<str>, u64, Box<Inbound>),
}

/// The release that answers.
struct Chosen<'a> {
    backend: &'a Backend,
    ticket: Ticket,
    request: Prepared,
    end: End,
    /// `None`: nobody is asked who may.
    watched: Option<Watched>,
    /// The stage, as a denial names it.
    short: u64,
}

/// Head check, redirect to https, certificate of the client, identify, route, decide, split: all that is decided before
/// anything is sent.
fn choose_release<'a>(
    worker: &Worker,
    snapshot: &'a Snapshot,
    inbound: Box<Inbound>,
    flight: &mut Flight,
    patience: Patience,
) -> Result<Next<'a>, Own> {
    let view = inbound.head.view();
    let head = head_check::check(view, flight.connection().sni()).map_err(Own::Refused)?;
    if snapshot.version.is_none() {
        return Err(Own::NotReady);
    }
    if let Some(answer) = prove(view, snapshot, &head.host, flight) {
        return Ok(Next::Say(Notice::Proof(answer)));
    }
    if let Some(notice) = keep_to_https(view, route::https(snapshot, &head.host), &head.host, flight)? {
        return Ok(Next::Say(notice));
    }
    admit(snapshot, &head.host, flight)?;
    let gate = &*snapshot.access;
    let basis = Basis::of(worker, snapshot);
    let caller = match identify(worker, gate, view, flight, patience) {
        Identified::As(caller) => caller,
        Identified::Perhaps(issuer, generation) => return Ok(Next::Wait(issuer, generation, inbound)),
    };
    let routed = route(snapshot, &head.host);
    let request = asked(&inbound, flight);
    let stage = decide(worker, gate, &caller, &routed, &request, (view, flight))?;
    if let Some(preflight) = share(view, stage, flight)? {
        return Ok(Next::Say(Notice::Preflight(preflight)));
    }
    let watched = stage.rule.map(|_| worker.lasting.begin(&caller, basis, (flight.connection(), &head.host), &request));
    // What was decided on is what the endpoint is told.
    let authority = match head.authority {
        Cow::Borrowed(_) => None,
        Cow::Owned(authority) => Some(authority.into()),
    };
    let allowed = Allowed { stage, release: routed.release, caller, watched, authority };
    split(worker, gate, allowed, inbound, flight).map(Next::Forward)
}

/// A request that may go on.
struct Allowed<'a> {
    stage: &'a Stage,
    release: Release<'a>,
    caller: Rc<Caller>,
    watched: Option<Watched>,
    /// The host as it was decided on, unless it was written so.
    authority: Option<Box<str>>,
}

/// Which release answers, and what it is told.
fn split<'a>(
    worker: &Worker,
    gate: &Gate,
    Allowed { stage, release, caller, watched, authority }: Allowed<'a>,
    inbound: Box<Inbound>,
    flight: &mut Flight,
) -> Result<Chosen<'a>, Own> {
    let view = inbound.head.view();
    // Before its turn in the split is taken.
    let timeout =
        if view.dialect() == Dialect::Http { None } else { grpc_timeout::read(view).map_err(Own::Refused)? };
    let (backend, placed) = place(worker, stage, release, &caller, view, flight).ok_or(Own::NoEndpoint)?;
    let (backend, judging) = match placed.is_forced() {
        false => worker.watches.admit(stage, backend, placed.caller(), || is_health_check(view, stage)),
        true => (backend, None),
    };
    flight.log(|entry| {
        entry.text("stage", stage.text.as_bytes());
        entry.number("release", backend.release.into());
        entry.text("placed", placed.word().as_bytes());
    });
    worker.ring.chose(flight.decided, backend.release);
    // One that its release cannot be asked is judged, and otherwise not counted as one of its own.
    check_dialect(&inbound, backend).inspect_err(|_| judging.iter().for_each(Judging::failed))?;
    let block = worker.counters.block(backend.slot, &stage.text, backend.release);
    let ticket = Ticket::begin(block, flight.begun, judging);
    let assertion = worker.assertion(gate, &caller, stage, &flight.own);
    let calls = Calls { assertion, spent_authorization: caller.spent_authorization() };
    let told = Told::new(view, flight.connection().clone(), flight.id.clone(), calls);
    let scheme = if backend.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let request =
        Prepared::new(inbound, authority, told, backend.protocol, scheme).inspect_err(|own| ticket.refused(*own))?;
    let end = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    Ok(Chosen { backend, ticket, request, end, watched, short: stage.short })
}

/// Whether the stage's own checks would ask so, be it somebody else who asks.
fn is_health_check(view: RequestView<'_>, stage: &Stage) -> bool {
    let path = view.path().split('?').next().unwrap_or_default();
    match view.method() {
        "GET" | "HEAD" => stage.health_paths.iter().any(|known| **known == *path),
        "POST" => path.starts_with(GRPC_HEALTH) && view.dialect() != Dialect::Http,
        _ => false,
    }
}

/// Which page may read the answer; with a preflight, the answer to that.
fn share(view: RequestView<'_>, stage: &Stage, flight: &mut Flight) -> Result<Option<Preflight>, Own> {
    flight.answers_cors = !stage.cors.is_empty();
    match cors::judge(view, &stage.cors) {
        cors::Verdict::Allowed(origin) => {
            flight.cors = Some(origin);
            Ok(Preflight::read(view))
        }
        cors::Verdict::Refused if Preflight::is_asked(view) => Err(Own::OriginRefused),
        cors::Verdict::Refused | cors::Verdict::Unasked => Ok(None),
    }
}

/// What a backend's protocol cannot carry is refused.
fn check_dialect(inbound: &Inbound, backend: &Backend) -> Result<(), Own> {
    let view = inbound.head.view();
    if inbound.upgrade.is_some() && view.is_http_2() && backend.protocol == Protocol::Http2 {
        return Err(Own::NoWebSocket);
    }
    if view.dialect() != Dialect::Http && backend.protocol == Protocol::Http1 {
        return Err(Own::GrpcOverHttp1);
    }
    Ok(())
}

/// Waits for an answer as long as its caller does, and may.
async fn in_time<T>(
    answer: Pin<&mut impl Future<Output = Result<T, Own>>>,
    end: &mut End,
    watched: &Option<Watched>,
) -> Result<T, Own> {
    if end.is_none() && watched.is_none() {
        return answer.await;
    }
    tokio::select! {
        biased;
        answered = answer => answered,
        () = when(end.as_mut()) => Err(Own::Late),
        own = when(watched.as_ref().map(Watched::over)) => Err(own),
    }
}

/// Waits for what may never be.
async fn when<F: Future>(end: Option<F>) -> F::Output {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}

/// Sends the request to the best endpoint; to others when no connection comes about, which harms nobody.
async fn forward(
    worker: &Worker,
    backend: &Backend,
    request: &mut Prepared,
    (flight, ticket): (&mut Flight, &Ticket),
    dialect: Dialect,
) -> Result<Answered, Own> {
    let limit = if dialect == Dialect::Http { worker.limits.answer } else { worker.limits.stream_idle };
    let mut failed_at = None;
    for _ in 0..backend.endpoints.len() {
        let place = choose(worker, backend, failed_at);
        let Some(endpoint) = place.and_then(|place| backend.endpoints.get(place)) else { break };
        if failed_at.is_some() {
            ticket.tries_again();
        }
        let sent = worker.pools.forward(endpoint.address, backend, request, limit).await;
        // What it was not sent to has not seen it.
        if !matches!(sent, Err(Failed::Connect(_) | Failed::Full)) {
            flight.log(|entry| entry.text("upstream", endpoint.address.to_string().as_bytes()));
        }
        let failed = match sent {
            Ok(answered) => {
                if request.was_repeated() {
                    ticket.tries_again();
                }
                return Ok(answered);
            }
            Err(failed) => failed,
        };
        tracing::debug!(address = %endpoint.address, %failed, "no answer");
        match failed {
            Failed::Connect(_) if flight.begun.elapsed() < limit => failed_at = place,
            Failed::Connect(_) => return Err(Own::ConnectFailed),
            Failed::Full => return Err(Own::Overloaded),
            Failed::TooSlow => return Err(Own::TooSlow),
            Failed::ClientBody(fault) => return Err(Own::ClientBody(fault)),
            Failed::Broken(_) => return Err(Own::BadAnswer),
        }
    }
    Err(if failed_at.is_some() { Own::ConnectFailed } else { Own::NoEndpoint })
}

/// The less busy of two healthy endpoints, other than the one that just failed.
fn choose(worker: &Worker, backend: &Backend, except: Option<usize>) -> Option<usize> {
    let endpoints = &backend.endpoints;
    let healthy = |place: usize| {
        let endpoint = &endpoints[place];
        endpoint.health.is_healthy() && !worker.pools.is_refused(endpoint.address, backend)
    };
    let outstanding = |place: usize| worker.pools.outstanding(endpoints[place].address, backend);
    balance::choose(endpoints.len(), healthy, outstanding, worker.seed(), except)
}

/// Counts the answer.
fn record(
    worker: &Worker,
    Answered { head, body, lease }: Answered,
    ticket: Ticket,
    flight: &mut Flight,
    dialect: Dialect,
    (end, watched): (End, Option<Watched>),
) -> Passed {
    let status = head.status();
    ticket.answered(&head);
    worker.ring.answered(flight.decided, status);
    flight.log(|entry| entry.number("status", status.into()));
    let mut grpc = Grpc::Told;
    if dialect != Dialect::Http {
        if !head.is_grpc() {
            // Something in front of the service, or the service itself, answered without gRPC.
            let code = grpc_code_of_http(status);
            ticket.no_grpc(status, code);
            return Passed::Said(Notice::Grpc { code, message: None, web: dialect.web() });
        }
        match head.first("grpc-status") {
            Some(status) => ticket.grpc_status(status),
            None => grpc = Grpc::Owed,
        }
    }
    // A stream that is no gRPC says nothing at its end, and may have none.
    if status == 101 || (head.is_stream() && !head.is_grpc()) {
        ticket.over();
    }
    let limit = if head.is_stream() { worker.limits.stream_idle } else { worker.limits.answer };
    Passed::Relay { head, body, lease, ticket, limit, grpc, web: dialect.web(), end, watched }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
