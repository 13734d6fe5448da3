//! A request's life: head check, route, split, choose endpoint, forward, record.
//!
//! Must not know: how a request is written on the wire, or where the snapshot comes from.
//!
//! Main function: [`pass`]. INVARIANT: nothing here takes a lock or writes memory that another thread writes.

use std::borrow::Cow;
use std::rc::Rc;

use tokio::time::Instant;

use crate::answer::{Own, grpc_code_of_http};
use crate::balance;
use crate::codec::connection::Flight;
use crate::codec::pool::{Answered, Failed};
use crate::codec::relay::{Download, Grpc, Relay};
use crate::codec::{Dialect, Exchange, Inbound, Notice, Outbound, Prepared, rewrite};
use crate::head_check;
use crate::record::Ticket;
use crate::route::{Routed, route};
use crate::snapshot::{Backend, Protocol};
use crate::worker::Worker;

impl Exchange for Rc<Worker> {
    /// Answers one request: with what the chosen endpoint says, or with why there is nothing.
    async fn answer(&self, inbound: Inbound, flight: Flight) -> Outbound {
        let dialect = inbound.head.view().dialect();
        match pass(self, inbound, flight, dialect).await {
            Ok(answer) => answer,
            Err(own) => {
                self.refused(own);
                Outbound::Own(rewrite::notice(own, dialect))
            }
        }
    }

    fn refused(&self, own: Own) {
        self.count_refused(own);
    }
}

async fn pass(worker: &Worker, inbound: Inbound, flight: Flight, dialect: Dialect) -> Result<Outbound, Own> {
    let started = Instant::now();
    // One snapshot to the end, whatever is swapped in meanwhile. The count of the handle is this worker's own.
    let snapshot = worker.snapshot();

    let head = head_check::check(inbound.head.view(), flight.connection().sni()).map_err(Own::Refused)?;
    if snapshot.version.is_none() {
        return Err(Own::NotReady);
    }
    let Routed { stage, release } = route(&snapshot, &head.host).ok_or(Own::UnknownHost)?;
    let backend = match release {
        Some(backend) => backend,
        None => worker.split(stage).ok_or(Own::NoEndpoint)?,
    };
    if dialect == Dialect::Grpc && backend.protocol == Protocol::Http1 {
        return Err(Own::GrpcOverHttp1);
    }
    let ticket = Ticket::begin(worker.counters.block(backend.slot, &stage.text, backend.release), started);

    // What was decided on is what the endpoint is told.
    let authority = match head.authority {
        Cow::Borrowed(_) => None,
        Cow::Owned(authority) => Some(authority.into()),
    };
    let mut request = Prepared::new(inbound, authority, flight.connection(), backend.protocol)?;
    let answered = forward(worker, backend, &mut request, dialect).await.inspect_err(|own| {
        // A client that broke off says nothing about the release, nor do limits of ours.
        if !matches!(own, Own::ClientBody | Own::Overloaded) {
            ticket.unanswered();
        }
    })?;
    record(worker, answered, ticket, flight, dialect)
}

/// Sends the request to the best endpoint; to others when no connection comes about, which harms nobody.
async fn forward(
    worker: &Worker,
    backend: &Backend,
    request: &mut Prepared,
    dialect: Dialect,
) -> Result<Answered, Own> {
    let limit = if dialect == Dialect::Http { worker.limits.answer } else { worker.limits.stream_idle };
    let begun = Instant::now();
    let mut failed_at = None;
    for _ in 0..backend.endpoints.len() {
        let place = choose(worker, backend, failed_at);
        let Some(endpoint) = place.and_then(|place| backend.endpoints.get(place)) else { break };
        let failed = match worker.pools.forward(endpoint.address, request, limit).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        tracing::debug!(address = %endpoint.address, %failed, "no answer");
        match failed {
            Failed::Connect(_) if begun.elapsed() < limit => failed_at = place,
            Failed::Connect(_) => return Err(Own::ConnectFailed),
            Failed::Full => return Err(Own::Overloaded),
            Failed::TooSlow => return Err(Own::TooSlow),
            Failed::ClientBody => return Err(Own::ClientBody),
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
        endpoint.health.is_healthy() && !worker.pools.is_refused(endpoint.address)
    };
    let outstanding = |place: usize| worker.pools.outstanding(endpoints[place].address, backend.protocol);
    balance::choose(endpoints.len(), healthy, outstanding, worker.seed(), except)
}

/// Counts the answer and passes it on.
fn record(
    worker: &Worker,
    Answered { head, body, lease }: Answered,
    ticket: Ticket,
    flight: Flight,
    dialect: Dialect,
) -> Result<Outbound, Own> {
    let status = head.status();
    ticket.answered(status);
    let mut grpc = Grpc::Told;
    if dialect == Dialect::Grpc {
        if !head.is_grpc() {
            // Something in front of the service, or the service itself, answered without gRPC.
            let notice = Notice::Grpc { code: grpc_code_of_http(status), message: None, web: false };
            ticket.grpc_status(b"-");
            return Ok(Outbound::Own(notice));
        }
        match head.first("grpc-status") {
            Some(status) => ticket.grpc_status(status),
            None => grpc = Grpc::Owed,
        }
    }
    let limit = if head.is_stream() { worker.limits.stream_idle } else { worker.limits.answer };
    match body {
        Download::Http1(answer) if status == 101 => {
            Ok(Outbound::Tunnel(head, answer.into_tunnel(), Relay::new(None, lease, ticket, flight, limit, grpc)))
        }
        body => Ok(Outbound::Relay(head, Relay::new(Some(body), lease, ticket, flight, limit, grpc))),
    }
}
