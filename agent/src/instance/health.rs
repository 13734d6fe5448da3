//! Whether a process is well: one probe, and what several of them mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::agent::instance_status::State;
use api::fleet::HealthCheck;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
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

/// Asks once. Without a port there is nothing to ask: running is enough.
pub(super) async fn probe(check: &HealthCheck, address: IpAddr, port: Option<u16>) -> Result<(), String> {
    let Some(port) = port else { return Ok(()) };
    let timeout = Duration::from_millis(u64::from(check.timeout_ms.max(100)));
    match tokio::time::timeout(timeout, ask(check, SocketAddr::new(address, port))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

async fn ask(check: &HealthCheck, address: SocketAddr) -> Result<(), String> {
    let tcp = TcpStream::connect(address).await.map_err(|problem| format!("cannot connect to {address}: {problem}"))?;
    if check.http_path.is_empty() {
        return Ok(());
    }
    let failed = |problem: hyper::Error| format!("GET {}: {problem}", check.http_path);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(failed)?;
    let request = hyper::Request::get(&check.http_path)
        .header("host", "localhost")
        .header("user-agent", "pointsman-agent")
        .body(Empty::<bytes::Bytes>::new());
    let request = request.map_err(|problem| format!("{:?} cannot be asked for: {problem}", check.http_path))?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let answered = tokio::select! {
        answer = &mut answer => Some(answer),
        _ = connection => None,
    };
    // A server may close right after its answer, which then waits to be taken; otherwise the answer tells why.
    let answer = match answered {
        Some(answer) => answer,
        None => answer.await,
    };
    let answer = answer.map_err(failed)?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("GET {} answers {status}", check.http_path)) }
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
}
