//! Whether a process is well: one probe, and what several of them mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::agent::Instance;
use api::agent::instance_status::State;
use api::fleet::HealthCheck;
use bytes::Bytes;
use certs::endpoint::{Application, Authorities, Connector};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderValue;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
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

/// How a process is asked, over HTTP/1.1 or HTTP/2, in clear or through TLS.
pub(super) struct Probe {
    http2: bool,
    /// The error: it cannot be verified as it was said, so it is not well.
    connector: Result<Option<Connector>, String>,
}

impl Probe {
    /// As its instance says. `machine`: who is believed where it does not say.
    pub(super) fn new(instance: &Instance, machine: &Authorities) -> Self {
        let application = if instance.http2 { Application::Http2 } else { Application::Http1 };
        // Without a memory of sessions: each probe verifies anew.
        let connector = instance.tls.as_ref().map(|tls| Connector::of(tls, machine, application));
        Self { http2: instance.http2, connector: connector.transpose().map_err(|problem| problem.to_string()) }
    }

    /// Asks once. Without a port there is nothing to ask: running is enough.
    pub(super) async fn ask(&self, check: &HealthCheck, address: IpAddr, port: Option<u16>) -> Result<(), String> {
        let Some(port) = port else { return Ok(()) };
        let timeout = Duration::from_millis(u64::from(check.timeout_ms.max(100)));
        match tokio::time::timeout(timeout, self.connect(check, SocketAddr::new(address, port))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    async fn connect(&self, check: &HealthCheck, address: SocketAddr) -> Result<(), String> {
        let connector = self.connector.as_ref().map_err(Clone::clone)?;
        let refused = |problem: String| format!("cannot connect to {address}: {problem}");
        let tcp = TcpStream::connect(address).await.map_err(|problem| refused(problem.to_string()))?;
        match connector {
            None => self.get(check, tcp, "http://localhost", "localhost").await,
            Some(connector) => {
                let stream = connector.connect(tcp).await.map_err(refused)?;
                let name = connector.authority();
                self.get(check, stream, &format!("https://{name}"), &name).await
            }
        }
    }

    async fn get<S>(&self, check: &HealthCheck, stream: S, origin: &str, host: &str) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let path = &check.http_path;
        if path.is_empty() {
            return Ok(());
        }
        let request = Request::get(if self.http2 { format!("{origin}{path}") } else { path.clone() })
            .header("user-agent", "pointsman-agent")
            .body(Empty::<Bytes>::new());
        let wrong = |problem: String| format!("{path:?} cannot be asked for: {problem}");
        let mut request = request.map_err(|problem| wrong(problem.to_string()))?;
        let answer = if self.http2 {
            two(request, TokioIo::new(stream)).await
        } else {
            let host = HeaderValue::from_str(host).map_err(|problem| wrong(problem.to_string()))?;
            request.headers_mut().insert("host", host);
            one(request, TokioIo::new(stream)).await
        };
        let status = answer.map_err(|problem| format!("GET {path}: {problem}"))?.status();
        if status.is_success() { Ok(()) } else { Err(format!("GET {path} answers {status}")) }
    }
}

async fn one<S>(request: Request<Empty<Bytes>>, io: TokioIo<S>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await?;
    answered(sender.send_request(request), connection).await
}

async fn two<S>(request: Request<Empty<Bytes>>, io: TokioIo<S>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
    use std::sync::Arc;
    use std::time::SystemTime;

    use api::fleet::EndpointTls;
    use certs::development::DevelopmentCa;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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

    /// A server in one protocol only, with a certificate of `ca` or in clear: 200 on one connection after another.
    async fn serve(listener: tokio::net::TcpListener, http2: bool, tls: Option<tokio_rustls::TlsAcceptor>) {
        while let Ok((tcp, _)) = listener.accept().await {
            match &tls {
                None => drop(tokio::spawn(answer(tcp, http2))),
                // Who does not trust it goes away.
                Some(tls) => {
                    let shaking = tls.accept(tcp);
                    tokio::spawn(async move {
                        if let Ok(stream) = shaking.await {
                            answer(stream, http2).await;
                        }
                    });
                }
            }
        }
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, http2: bool) {
        let ok =
            |_: Request<Incoming>| async { Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new())) };
        let (io, ok) = (TokioIo::new(stream), hyper::service::service_fn(ok));
        // However the other side ends it.
        if http2 {
            drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, ok).await);
        } else {
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, ok).await);
        }
    }

    /// For `*.staging.internal`, offering one protocol by ALPN.
    fn acceptor(ca: &DevelopmentCa, http2: bool) -> tokio_rustls::TlsAcceptor {
        let zone = "staging.internal".parse().expect("a zone");
        let made = ca.wildcard(&zone, SystemTime::now()).expect("issued");
        let chain = made.chain_der.into_iter().map(CertificateDer::from).collect();
        let key = PrivateKeyDer::try_from(made.key_der).expect("a key");
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.expect("usable");
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Arc::new(config).into()
    }

    fn instance(http2: bool, tls: Option<(&str, &str)>) -> Instance {
        let tls =
            tls.map(|(ca, name)| EndpointTls { ca_pem: ca.into(), server_name: name.into(), ..EndpointTls::default() });
        Instance { http2, tls, ..Instance::default() }
    }

    #[tokio::test]
    async fn agent_a_release_is_asked_in_its_own_protocol() {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("a folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("an authority");
        let trusted = ca.certificate_pem();
        let check = HealthCheck { http_path: "/healthz".into(), timeout_ms: 5_000, ..HealthCheck::default() };
        let ways = [(false, false), (true, false), (false, true), (true, true)];
        for spoken in ways {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let serving = tokio::spawn(serve(listener, spoken.0, spoken.1.then(|| acceptor(&ca, spoken.0))));
            for asked in ways {
                let tls = asked.1.then_some((trusted.as_str(), "hello.staging.internal"));
                let probe = Probe::new(&instance(asked.0, tls), &Authorities::default());
                let outcome = probe.ask(&check, address.ip(), Some(address.port())).await;
                assert_eq!(
                    outcome.is_ok(),
                    asked == spoken,
                    "(HTTP/2, TLS): spoken {spoken:?}, asked {asked:?}: {outcome:?}"
                );
            }
            serving.abort();
        }
    }

    #[tokio::test]
    async fn agent_a_release_behind_tls_is_well_only_when_it_is_who_it_must_be() {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("a folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("an authority");
        let (trusted, none) = (ca.certificate_pem(), Authorities::default());
        let machine = Authorities::parse(&trusted).expect("usable");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(serve(listener, false, Some(acceptor(&ca, false))));
        for (ca, name, machine, expected) in [
            (trusted.as_str(), "hello.staging.internal", &none, ""),
            (&trusted, "hello.internal", &none, "not valid for name"),
            (&trusted, "", &none, "neither a DNS name"),
            ("", "hello.staging.internal", &none, "UnknownIssuer"),
            ("", "hello.staging.internal", &machine, ""),
            ("garbage", "hello.staging.internal", &machine, "no certificate"),
        ] {
            // With a path, and where a handshake is enough.
            for http_path in ["/healthz", ""] {
                let check = HealthCheck { http_path: http_path.into(), timeout_ms: 5_000, ..HealthCheck::default() };
                let probe = Probe::new(&instance(false, Some((ca, name))), machine);
                let outcome = probe.ask(&check, address.ip(), Some(address.port())).await;
                match (outcome, expected) {
                    (Ok(()), "") => {}
                    (Err(problem), expected) if !expected.is_empty() && problem.contains(expected) => {}
                    (outcome, expected) => panic!("{name:?} {http_path:?}: {outcome:?}, not {expected:?}"),
                }
            }
        }
        serving.abort();
    }
}
