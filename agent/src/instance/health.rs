//! Whether a process is well: one probe, and what several of them mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::agent::instance_status::State;
use api::fleet::HealthCheck;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Between probes of a process that is starting: it should serve as soon as it can.
const WHILE_STARTING: Duration = Duration::from_millis(100);

/// Folds outcomes of probes. Pure.
#[derive(Debug)]
pub(super) struct Health {
    fall: u32,
    rise: u32,
    state: State,
    in_a_row: u32,
}

impl Health {
    /// `healthy`: it was so when an earlier agent looked last.
    pub(super) fn new(check: &HealthCheck, healthy: bool) -> Self {
        let state = if healthy { State::Healthy } else { State::Starting };
        Self { fall: check.fall.max(1), rise: check.rise.max(1), state, in_a_row: 0 }
    }

    /// Takes in one outcome: enough of one kind in a row change the state.
    pub(super) fn take_in(&mut self, well: bool) {
        let (other, enough) = match (self.state, well) {
            (State::Healthy, false) => (State::Unhealthy, self.fall),
            (State::Starting | State::Unhealthy, true) => (State::Healthy, self.rise),
            _ => {
                self.in_a_row = 0;
                return;
            }
        };
        self.in_a_row += 1;
        if self.in_a_row >= enough {
            (self.state, self.in_a_row) = (other, 0);
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Time until the next probe.
    pub(super) fn wait(&self, check: &HealthCheck) -> Duration {
        let every = Duration::from_millis(u64::from(check.every_ms.max(100)));
        if self.state == State::Starting { WHILE_STARTING.min(every) } else { every }
    }
}

/// Asks once, over HTTP/2 with prior knowledge or over HTTP/1.1. Without a port there is nothing to ask: running is
/// enough.
pub(super) async fn probe(check: &HealthCheck, http2: bool, address: IpAddr, port: Option<u16>) -> Result<(), String> {
    let Some(port) = port else { return Ok(()) };
    let timeout = Duration::from_millis(u64::from(check.timeout_ms.max(100)));
    match tokio::time::timeout(timeout, ask(check, http2, SocketAddr::new(address, port))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn ask(check: &HealthCheck, http2: bool, address: SocketAddr) -> Result<(), String> {
    let tcp = TcpStream::connect(address).await.map_err(|problem| format!("cannot connect to {address}: {problem}"))?;
    let path = &check.http_path;
    if path.is_empty() {
        return Ok(());
    }
    let request = Request::get(if http2 { format!("http://localhost{path}") } else { path.clone() })
        .header("user-agent", "pointsman-agent")
        .body(Empty::<Bytes>::new());
    let mut request = request.map_err(|problem| format!("{path:?} cannot be asked for: {problem}"))?;
    let answer = if http2 {
        two(request, TokioIo::new(tcp)).await
    } else {
        request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        one(request, TokioIo::new(tcp)).await
    };
    let status = answer.map_err(|problem| format!("GET {path}: {problem}"))?.status();
    if status.is_success() { Ok(()) } else { Err(format!("GET {path} answers {status}")) }
}

async fn one(request: Request<Empty<Bytes>>, io: TokioIo<TcpStream>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(io).await?;
    answered(sender.send_request(request), connection).await
}

async fn two(request: Request<Empty<Bytes>>, io: TokioIo<TcpStream>) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    answered(sender.send_request(request), connection).await
}

/// The answer, with the connection kept going until it is there.
async fn answered(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future,
) -> hyper::Result<Response<Incoming>> {
    tokio::pin!(answer);
    let answered = tokio::select! {
        answer = &mut answer => Some(answer),
        _ = connection => None,
    };
    // A server may close right after its answer, which then waits to be taken; otherwise the answer tells why.
    match answered {
        Some(answer) => answer,
        None => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_health_rises_and_falls_by_counts() {
        let check = HealthCheck { fall: 3, rise: 2, ..HealthCheck::default() };
        for (outcomes, expected) in [
            ("", State::Starting),
            ("-----", State::Starting),
            ("+", State::Starting),
            ("+-+", State::Starting),
            ("++", State::Healthy),
            ("++--", State::Healthy),
            ("++--+--", State::Healthy),
            ("++---", State::Unhealthy),
            ("++---+", State::Unhealthy),
            ("++---++", State::Healthy),
        ] {
            let mut health = Health::new(&check, false);
            outcomes.chars().for_each(|outcome| health.take_in(outcome == '+'));
            assert_eq!(health.state(), expected, "{outcomes}");
        }
        assert_eq!(Health::new(&check, true).state(), State::Healthy, "found again");
    }
    /// Serves 200 on one connection after another, in one protocol only.
    async fn serve(listener: tokio::net::TcpListener, http2: bool) {
        let answer =
            |_: Request<Incoming>| async { Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new())) };
        while let Ok((tcp, _)) = listener.accept().await {
            let (io, answer) = (TokioIo::new(tcp), hyper::service::service_fn(answer));
            if http2 {
                let connection =
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer);
                tokio::spawn(async { drop(connection.await) });
            } else {
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, answer);
                tokio::spawn(async { drop(connection.await) });
            }
        }
    }

    #[tokio::test]
    async fn agent_a_release_is_asked_in_its_own_protocol() {
        let check = HealthCheck { http_path: "/healthz".into(), timeout_ms: 5_000, ..HealthCheck::default() };
        for spoken in [false, true] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let serving = tokio::spawn(serve(listener, spoken));
            for asked in [false, true] {
                let outcome = probe(&check, asked, address.ip(), Some(address.port())).await;
                assert_eq!(outcome.is_ok(), asked == spoken, "HTTP/2 spoken {spoken}, asked {asked}: {outcome:?}");
            }
            serving.abort();
        }
    }
}
