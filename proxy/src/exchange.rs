//! A request's life: head check, route, split, choose endpoint, forward, record.
//!
//! Must not know: how a request is written on the wire, or where the snapshot comes from.
//!
//! Main function: [`exchange`]. INVARIANT: nothing here takes a lock or writes memory that another thread writes.

use std::rc::Rc;

use tokio::time::Instant;

use crate::answer::{Own, grpc_code_of_http};
use crate::balance::{self, Load};
use crate::codec::connection::Flight;
use crate::codec::pool::{Answered, Failed};
use crate::codec::relay::{Grpc, Relay};
use crate::codec::{Authority, Dialect, Inbound, Outbound, body::AnswerBody, rewrite};
use crate::head_check;
use crate::record::Ticket;
use crate::route::{Routed, route};
use crate::snapshot::{Backend, Protocol};
use crate::worker::Worker;

/// Endpoints that are asked at most, when connections to them fail.
const TRIES: usize = 2;

/// Answers one request: with what the chosen endpoint says, or with why there is nothing.
pub(crate) async fn exchange(worker: Rc<Worker>, inbound: Inbound, flight: Flight) -> Outbound {
    let (dialect, http_2) = (inbound.dialect(), inbound.is_http_2());
    match pass(&worker, inbound, flight).await {
        Ok(answer) => answer,
        Err(own) => {
            worker.refused(own);
            rewrite::own(own, dialect, http_2)
        }
    }
}

async fn pass(worker: &Worker, inbound: Inbound, flight: Flight) -> Result<Outbound, Own> {
    let started = Instant::now();
    // One snapshot to the end, whatever is swapped in meanwhile. The count of the handle is this worker's own.
    let snapshot = worker.snapshot();

    let head = head_check::check(inbound.view()).map_err(Own::Refused)?;
    if snapshot.version.is_none() {
        return Err(Own::NotReady);
    }
    let Routed { stage, release } = route(&snapshot, &head.host).ok_or(Own::UnknownHost)?;
    let backend = match release {
        Some(backend) => backend,
        None => worker.split(stage).ok_or(Own::NoEndpoint)?,
    };
    let ticket = Ticket::begin(worker.counters.block(backend.slot, &stage.text, backend.release), started);

    // What was decided on is what the endpoint is told.
    let authority = inbound.authority_value(&head);
    drop(head);
    let dialect = inbound.dialect();
    let answered = forward(worker, backend, inbound, authority, &flight, dialect).await.inspect_err(|own| {
        // A client that broke off says nothing about the release.
        if *own != Own::ClientBody {
            ticket.unanswered();
        }
    })?;
    record(worker, answered, ticket, flight, dialect)
}

/// Sends the request to the best endpoint; to another one when no connection came about.
async fn forward(
    worker: &Worker,
    backend: &Backend,
    inbound: Inbound,
    authority: Authority,
    flight: &Flight,
    dialect: Dialect,
) -> Result<Answered, Own> {
    if dialect == Dialect::Grpc && backend.protocol == Protocol::Http1 {
        return Err(Own::GrpcOverHttp1);
    }
    let mut request = inbound.into_upstream(authority, flight.connection(), backend.protocol, &worker.limits)?;
    let client_failed = request.body().failure();
    let limit = if dialect == Dialect::Http { worker.limits.answer } else { worker.limits.stream_idle };
    let deadline = Instant::now() + limit;
    let mut failed_at = None;
    for _ in 0..TRIES {
        let place = choose(worker, backend, failed_at);
        let Some(endpoint) = place.and_then(|place| backend.endpoints.get(place)) else { break };
        let sent = worker.pools.forward(endpoint.address, backend.protocol, request);
        match tokio::time::timeout_at(deadline, sent).await {
            Ok(Ok(answered)) => return Ok(answered),
            Ok(Err(Failed::Connect { why, request: unsent })) => {
                tracing::debug!(address = %endpoint.address, why, "no connection");
                (request, failed_at) = (*unsent, place);
            }
            Ok(Err(Failed::Full)) => return Err(Own::Overloaded),
            Ok(Err(Failed::Broken(why))) => {
                tracing::debug!(address = %endpoint.address, why, "no answer");
                let client = client_failed.is_some_and(|failed| failed.get());
                return Err(if client { Own::ClientBody } else { Own::BadAnswer });
            }
            Err(_) => return Err(Own::TooSlow),
        }
    }
    Err(if failed_at.is_some() { Own::ConnectFailed } else { Own::NoEndpoint })
}

/// The less busy of two healthy endpoints, other than the one that just failed.
fn choose(worker: &Worker, backend: &Backend, except: Option<usize>) -> Option<usize> {
    let endpoints = &backend.endpoints;
    let load = |place: usize| Load {
        healthy: endpoints[place].health.is_healthy(),
        outstanding: worker.pools.outstanding(endpoints[place].address, backend.protocol),
    };
    balance::choose(endpoints.len(), load, worker.seed(), except)
}

/// Counts the answer and passes it on.
fn record(
    worker: &Worker,
    Answered { answer, lease }: Answered,
    ticket: Ticket,
    flight: Flight,
    dialect: Dialect,
) -> Result<Outbound, Own> {
    let Some((head, body)) = rewrite::from_upstream(answer) else {
        ticket.unanswered();
        return Err(Own::BadAnswer);
    };
    let status = head.status.as_u16();
    ticket.answered(status);
    let mut grpc = Grpc::Told;
    if dialect == Dialect::Grpc {
        if !rewrite::is_grpc(&head) {
            // Something in front of the service, or the service itself, answered without gRPC.
            let code = grpc_code_of_http(status);
            ticket.grpc_status(b"-");
            return Ok(rewrite::grpc_status(code, None, dialect));
        }
        match rewrite::grpc_status_of(&head) {
            Some(status) => ticket.grpc_status(status),
            None => grpc = Grpc::Owed,
        }
    }
    let idle = if rewrite::is_stream(&head) { worker.limits.stream_idle } else { worker.limits.answer };
    let relay = Relay::new(body, lease, ticket, flight, idle, grpc);
    Ok(Outbound::from_parts(head, AnswerBody::Relay(relay)))
}
