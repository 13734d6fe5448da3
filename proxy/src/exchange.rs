//! A request's life: head check, route, split, choose endpoint, forward, record.
//!
//! Must not know: how a request is written on the wire, or where the snapshot comes from.
//!
//! Main function: [`pass`]. INVARIANT: nothing here takes a lock or writes memory that another thread writes.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use http::uri::Scheme;
use tokio::time::Instant;

use crate::answer::{Own, grpc_code_of_http};
use crate::codec::connection::Flight;
use crate::codec::grpc_web::Web;
use crate::codec::pool::{Answered, Failed, Lease};
use crate::codec::relay::{Download, Grpc, Relay};
use crate::codec::told::Told;
use crate::codec::{AnswerHead, Dialect, Exchange, Inbound, Notice, Outbound, Prepared, RequestView};
use crate::cors::{self, Preflight, Verdict};
use crate::record::Ticket;
use crate::request_id::RequestId;
use crate::route::{Routed, route};
use crate::snapshot::{Backend, Protocol};
use crate::worker::Worker;
use crate::{balance, forwarded, head_check};

impl Exchange for Rc<Worker> {
    /// Answers one request: with what the chosen endpoint says, or with why there is nothing.
    async fn answer(&self, inbound: Inbound, mut flight: Flight) -> Outbound {
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

    fn refused(&self, own: Own, flight: &mut Flight) {
        self.count_refused(own);
        if flight.entry.is_none() {
            flight.begin_log(flight.connection().peer().address);
        }
        flight.log(|entry| {
            entry.number("status", own.status().into());
            entry.text("why", own.reason().as_bytes());
        });
    }
}

/// Gives the request its name, and says in the log what it is.
fn introduce(view: RequestView<'_>, flight: &mut Flight) {
    let peer = flight.connection().peer();
    if peer.is_trusted
        && let Some(given) = view.header("x-request-id").next().and_then(RequestId::given)
    {
        flight.id = given;
    }
    if flight.connection().listener.log.is_none() {
        return;
    }
    let trusted = &flight.connection().listener.trusted;
    let client = if peer.is_trusted { forwarded::origin(view, peer.address, trusted).client } else { peer.address };
    let scheme = flight.connection().scheme();
    flight.begin_log(client);
    flight.log(|entry| {
        entry.text("scheme", scheme.as_bytes());
        entry.text("version", view.version().as_bytes());
        entry.text("method", view.method().as_bytes());
        entry.text("host", view.named_host());
        entry.text("target", view.path().as_bytes());
        if let Some(agent) = view.header("user-agent").next() {
            entry.text("user_agent", agent);
        }
    });
}

/// What is answered.
#[expect(clippy::large_enum_variant, reason = "nearly all are relays, which a box would cost an allocation each")]
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
    },
    /// By us.
    Said(Notice),
}

impl Passed {
    fn into_outbound(self, flight: Flight) -> Outbound {
        match self {
            Self::Said(notice) => Outbound::Own(notice, flight),
            Self::Relay { head, body: Download::Http1(answer), lease, ticket, limit, grpc, .. }
                if head.status() == 101 =>
            {
                Outbound::Tunnel(head, answer.into_tunnel(), Relay::new(None, lease, ticket, flight, limit, grpc))
            }
            Self::Relay { mut head, body, lease, ticket, limit, grpc, web } => {
                let mut relay = Relay::new(Some(body), lease, ticket, flight, limit, grpc);
                if let Some(web) = web {
                    head.turn_into_web(web);
                    relay.turn_into_web(web);
                }
                Outbound::Relay(head, relay)
            }
        }
    }
}

async fn pass(worker: &Worker, inbound: Inbound, flight: &mut Flight, dialect: Dialect) -> Result<Passed, Own> {
    let started = Instant::now();
    // One snapshot to the end, whatever is swapped in meanwhile. The count of the handle is this worker's own.
    let snapshot = worker.snapshot();

    let head = head_check::check(inbound.head.view(), flight.connection().sni()).map_err(Own::Refused)?;
    if snapshot.version.is_none() {
        return Err(Own::NotReady);
    }
    let Routed { stage, release } = route(&snapshot, &head.host).ok_or(Own::UnknownHost)?;
    flight.answers_cors = !stage.cors.is_empty();
    match cors::judge(inbound.head.view(), &stage.cors) {
        Verdict::Allowed(origin) => {
            flight.cors = Some(origin);
            if let Some(preflight) = Preflight::read(inbound.head.view()) {
                return Ok(Passed::Said(Notice::Preflight(preflight)));
            }
        }
        Verdict::Refused if Preflight::read(inbound.head.view()).is_some() => return Err(Own::OriginRefused),
        Verdict::Refused | Verdict::Unasked => {}
    }
    let backend = match release {
        Some(backend) => backend,
        None => worker.split(stage).ok_or(Own::NoEndpoint)?,
    };
    flight.log(|entry| {
        entry.text("stage", stage.text.as_bytes());
        entry.number("release", backend.release.into());
    });
    if dialect != Dialect::Http && backend.protocol == Protocol::Http1 {
        return Err(Own::GrpcOverHttp1);
    }
    let ticket = Ticket::begin(worker.counters.block(backend.slot, &stage.text, backend.release), started);

    // What was decided on is what the endpoint is told.
    let authority = match head.authority {
        Cow::Borrowed(_) => None,
        Cow::Owned(authority) => Some(authority.into()),
    };
    let told = Told::new(inbound.head.view(), flight.connection().clone(), flight.id.clone());
    let scheme = if backend.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let mut request = Prepared::new(inbound, authority, told, backend.protocol, scheme)?;
    let answered = forward(worker, backend, &mut request, flight, dialect).await.inspect_err(|own| {
        // A client that broke off says nothing about the release, nor do limits of ours.
        if !matches!(own, Own::ClientBody(_) | Own::Overloaded) {
            ticket.unanswered();
        }
    })?;
    Ok(record(worker, answered, ticket, flight, dialect))
}

/// Sends the request to the best endpoint; to others when no connection comes about, which harms nobody.
async fn forward(
    worker: &Worker,
    backend: &Backend,
    request: &mut Prepared,
    flight: &mut Flight,
    dialect: Dialect,
) -> Result<Answered, Own> {
    let limit = if dialect == Dialect::Http { worker.limits.answer } else { worker.limits.stream_idle };
    let begun = Instant::now();
    let mut failed_at = None;
    for _ in 0..backend.endpoints.len() {
        let place = choose(worker, backend, failed_at);
        let Some(endpoint) = place.and_then(|place| backend.endpoints.get(place)) else { break };
        let sent = worker.pools.forward(endpoint.address, backend, request, limit).await;
        // What it was not sent to has not seen it.
        if !matches!(sent, Err(Failed::Connect(_) | Failed::Full)) {
            flight.log(|entry| entry.text("upstream", endpoint.address.to_string().as_bytes()));
        }
        let failed = match sent {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        tracing::debug!(address = %endpoint.address, %failed, "no answer");
        match failed {
            Failed::Connect(_) if begun.elapsed() < limit => failed_at = place,
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
) -> Passed {
    let status = head.status();
    ticket.answered(status);
    flight.log(|entry| entry.number("status", status.into()));
    let mut grpc = Grpc::Told;
    if dialect != Dialect::Http {
        if !head.is_grpc() {
            // Something in front of the service, or the service itself, answered without gRPC. Its class has said so.
            if status < 500 {
                ticket.grpc_status(b"-");
            }
            return Passed::Said(Notice::Grpc { code: grpc_code_of_http(status), message: None, web: dialect.web() });
        }
        match head.first("grpc-status") {
            Some(status) => ticket.grpc_status(status),
            None => grpc = Grpc::Owed,
        }
    }
    let limit = if head.is_stream() { worker.limits.stream_idle } else { worker.limits.answer };
    Passed::Relay { head, body, lease, ticket, limit, grpc, web: dialect.web() }
}
