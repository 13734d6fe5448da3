//! A request's life: head check, route, split, choose endpoint, forward, record.
//!
//! Must not know: how a request is written on the wire, or where the snapshot comes from.
//!
//! Main function: [`pass`]. INVARIANT: nothing here takes a lock or writes memory that another thread writes.

use std::borrow::Cow;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::uri::Scheme;
use rustls::server::ClientHello;
use tokio::time::Sleep;

use crate::answer::{Own, grpc_code_of_http};
use crate::codec::connection::Flight;
use crate::codec::grpc_web::Web;
use crate::codec::pool::{Answered, Failed, Lease};
use crate::codec::relay::{Download, Grpc, Relay};
use crate::codec::told::Told;
use crate::codec::{AnswerHead, Dialect, Exchange, Inbound, Notice, Outbound, Prepared, RequestView};
use crate::cors::{self, Preflight, Verdict};
use crate::handshake::Way;
use crate::head_check::Refusal;
use crate::record::Ticket;
use crate::request_id::RequestId;
use crate::route::{self, Routed, route};
use crate::snapshot::{Backend, Https, Protocol, Snapshot, Stage};
use crate::worker::Worker;
use crate::{balance, forwarded, grpc_timeout, handshake, head_check};

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
    let (mut client, mut scheme) = (peer.address, flight.connection().scheme());
    if peer.is_trusted {
        let origin = forwarded::origin(view, peer.address, &flight.connection().listener.trusted);
        (client, scheme) = (origin.client, origin.scheme.unwrap_or(scheme));
        if let Some(given) = view.header("x-request-id").next().and_then(RequestId::given) {
            flight.id = given;
        }
    }
    flight.is_https = scheme == "https";
    if flight.connection().listener.log.is_none() {
        return;
    }
    flight.begin_log(client);
    let certificate = flight.connection().admission.client();
    flight.log(|entry| {
        entry.text("scheme", scheme.as_bytes());
        entry.text("version", view.version().as_bytes());
        entry.text("method", view.method().as_bytes());
        entry.text("host", view.named_host());
        entry.text("target", view.path().as_bytes());
        if let Some(client) = certificate {
            entry.text("client_certificate", client.name().as_bytes());
        }
        if let Some(agent) = view.header("user-agent").next() {
            entry.text("user_agent", agent);
        }
    });
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
    },
    /// By us.
    Said(Notice),
}

impl Passed {
    fn into_outbound(self, flight: Flight) -> Outbound {
        let (mut head, body, lease, ticket, limit, grpc, web, end) = match self {
            Self::Said(notice) => return Outbound::Own(notice, flight),
            Self::Relay { head, body, lease, ticket, limit, grpc, web, end } => {
                (head, body, lease, ticket, limit, grpc, web, end)
            }
        };
        // Allocates: it is large, and goes from here to the client's connection.
        let relay = |body| Box::new(Relay::new(body, lease, ticket, flight, limit, grpc));
        match body {
            Download::Http1(answer) if head.status() == 101 => {
                Outbound::Tunnel(head, answer.into_tunnel(), relay(None))
            }
            body => {
                let mut relay = relay(Some(body));
                relay.end_at(end);
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
    // One snapshot to the end, whatever is swapped in meanwhile. The count of the handle is this worker's own.
    let snapshot = worker.snapshot();
    let Chosen { backend, ticket, mut request, mut end } = match choose_release(worker, &snapshot, inbound, flight)? {
        Next::Forward(chosen) => chosen,
        Next::Say(notice) => {
            flight.log(|entry| entry.number("status", notice.status().into()));
            if let Notice::Redirect(_) = notice {
                worker.count_refused(Own::HttpsOnly);
            }
            return Ok(Passed::Said(notice));
        }
    };
    let answered = {
        let forwarded = pin!(forward(worker, backend, &mut request, flight, dialect));
        in_time(forwarded, &mut end).await
    };
    let answered = answered.inspect_err(|own| match own {
        // A client that broke off says nothing about the release, nor do limits of ours.
        Own::ClientBody(_) | Own::Overloaded => {}
        Own::Late => ticket.late(),
        _ => ticket.unanswered(),
    })?;
    Ok(record(worker, answered, ticket, flight, dialect, end))
}

/// What happens to a request.
enum Next<'a> {
    Forward(Chosen<'a>),
    /// We answer it, though nothing is wrong.
    Say(Notice),
}

/// The release that answers.
struct Chosen<'a> {
    backend: &'a Backend,
    ticket: Ticket,
    request: Prepared,
    end: End,
}

/// Head check, redirect to https, certificate of the client, route, split: all that is decided before anything is waited for.
fn choose_release<'a>(
    worker: &Worker,
    snapshot: &'a Snapshot,
    inbound: Box<Inbound>,
    flight: &mut Flight,
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
    let Routed { stage, release } = route(snapshot, &head.host).ok_or(Own::UnknownHost)?;
    if let Some(preflight) = share(view, stage, flight)? {
        return Ok(Next::Say(Notice::Preflight(preflight)));
    }
    // Before its turn in the split is taken.
    let timeout =
        if view.dialect() == Dialect::Http { None } else { grpc_timeout::read(view).map_err(Own::Refused)? };
    let backend = match release {
        Some(backend) => backend,
        None => worker.split(stage).ok_or(Own::NoEndpoint)?,
    };
    flight.log(|entry| {
        entry.text("stage", stage.text.as_bytes());
        entry.number("release", backend.release.into());
    });
    check_dialect(&inbound, backend)?;
    let ticket = Ticket::begin(worker.counters.block(backend.slot, &stage.text, backend.release), flight.begun);
    // What was decided on is what the endpoint is told.
    let authority = match head.authority {
        Cow::Borrowed(_) => None,
        Cow::Owned(authority) => Some(authority.into()),
    };
    let told = Told::new(view, flight.connection().clone(), flight.id.clone());
    let scheme = if backend.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let request = Prepared::new(inbound, authority, told, backend.protocol, scheme)?;
    let end = timeout.map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    Ok(Next::Forward(Chosen { backend, ticket, request, end }))
}

/// What a certificate authority asks for in clear (RFC 8555 §8.3). Anything else at this path goes the usual way.
fn prove(view: RequestView<'_>, snapshot: &Snapshot, host: &str, flight: &Flight) -> Option<Box<str>> {
    let is_asked = !flight.is_https && matches!(view.method(), "GET" | "HEAD") && view.dialect() == Dialect::Http;
    if !is_asked {
        return None;
    }
    snapshot.challenges.answer(host, view.path()).map(Into::into)
}

/// A host that asks for certificates is served on connections that were asked for them, whether or not there is such a
/// host.
///
/// INVARIANT: where one is required nothing goes on that came without, be it in clear, without a name in the handshake, or
/// on a connection from before.
fn admit(snapshot: &Snapshot, host: &str, flight: &Flight) -> Result<(), Own> {
    let connection = flight.connection();
    if connection.admission.is_good_for(route::clients(snapshot, host)) {
        return Ok(());
    }
    // A new connection is asked anew.
    connection.leave();
    Err(Own::Refused(Refusal::Misdirected))
}

/// Sends requests in clear to where they belong, and has browsers remember it. Before anything asks whether there is such
/// a stage: hosts of a zone are all alike in this.
fn keep_to_https(view: RequestView<'_>, https: Https, host: &str, flight: &mut Flight) -> Result<Option<Notice>, Own> {
    if flight.is_https {
        flight.hsts_seconds = https.hsts_seconds;
        return Ok(None);
    }
    let Some(port) = https.redirect_port else { return Ok(None) };
    if view.dialect() != Dialect::Http {
        return Err(Own::HttpsOnly);
    }
    // `OPTIONS *` has no path.
    let path = if view.path() == "*" { "/" } else { view.path() };
    // Allocates: whoever is sent away comes back over TLS.
    Ok(Some(Notice::Redirect(match port.get() {
        443 => format!("https://{host}{path}").into(),
        port => format!("https://{host}:{port}{path}").into(),
    })))
}

/// Which page may read the answer; with a preflight, the answer to that.
fn share(view: RequestView<'_>, stage: &Stage, flight: &mut Flight) -> Result<Option<Preflight>, Own> {
    flight.answers_cors = !stage.cors.is_empty();
    match cors::judge(view, &stage.cors) {
        Verdict::Allowed(origin) => {
            flight.cors = Some(origin);
            Ok(Preflight::read(view))
        }
        Verdict::Refused if Preflight::read(view).is_some() => Err(Own::OriginRefused),
        Verdict::Refused | Verdict::Unasked => Ok(None),
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

/// Waits for an answer as long as its caller does.
async fn in_time<T>(answer: Pin<&mut impl Future<Output = Result<T, Own>>>, end: &mut End) -> Result<T, Own> {
    let Some(end) = end else { return answer.await };
    tokio::select! {
        biased;
        answered = answer => answered,
        () = end => Err(Own::Late),
    }
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
    end: End,
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
    Passed::Relay { head, body, lease, ticket, limit, grpc, web: dialect.web(), end }
}
