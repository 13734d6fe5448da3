//! The contenders: started alike, checked alike.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pointsman_benches::Problem;
use pointsman_benches::client::{Connection, Fields};
use pointsman_benches::fleet::Fleet;
use pointsman_benches::operator::{Operator, promote};
use pointsman_benches::process::{Running, last_words, pinned};
use tokio::runtime::Runtime;

use crate::credentials::{API_KEY, AUDIENCE, AUTHORIZATION, GROUP, ISSUER};
use crate::origin::{Stand, fill, free_ports};
use crate::work::{GREETER, HELLO, Kind, Task};
use crate::{CONTENDER_CORE, LOAD_CORE};

const PROXY: &str = "p1";
/// Everything, in parts per million.
const ALL: u32 = 1_000_000;
/// Longest wait for the proxy to have what it should serve.
const READY: Duration = Duration::from_secs(30);
const ENVIRONMENT: &str =
    "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";

/// What is sent to those who make no keys; as long as pointsman's.
const PEERS_KEY: &str = "pm_benchkey_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGabcdef";
/// Policies: the one that permits what is asked, and others that do not, as there are in a company.
const POLICIES: usize = 20;

/// A contender that serves; it ends with this.
pub(crate) struct Contender {
    /// It looks at who asks.
    asks_who: bool,
    pub(crate) pid: u32,
    /// HTTP/1.1 in clear.
    pub(crate) http: SocketAddr,
    /// HTTP/2 in clear, for clients who know.
    pub(crate) http2: SocketAddr,
    /// Both over TLS.
    pub(crate) https: SocketAddr,
    /// What requests to it carry.
    pub(crate) fields: Vec<(&'static str, String)>,
    log: PathBuf,
    _parts: Parts,
}

/// What it consists of, to be ended.
#[expect(dead_code, reason = "kept for their end")]
enum Parts {
    Fleet(Fleet),
    Peer(Running),
}

impl Contender {
    /// Starts one in a folder of its own, with one worker on the contender's core.
    ///
    /// `credentials`: requests carry them, whether or not this one looks.
    pub(crate) fn start(
        kind: Kind,
        stand: &Stand,
        folder: &Path,
        binary: &Path,
        credentials: bool,
    ) -> Result<Self, Problem> {
        fs::create_dir(folder)?;
        let mut contender = match kind {
            Kind::Pointsman => runtime()?.block_on(pointsman(stand, folder, binary, false)),
            Kind::PointsmanPolicy => runtime()?.block_on(pointsman(stand, folder, binary, true)),
            Kind::EnvoyPolicy => peer(stand, folder, "envoy.yaml", |configuration| {
                let mut command = pinned("envoy", CONTENDER_CORE);
                command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
                command.arg(configuration);
                command
            }),
            Kind::Nginx => peer(stand, folder, "nginx.conf", |configuration| {
                let mut command = pinned("nginx", CONTENDER_CORE);
                command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c").arg(configuration);
                command
            }),
            Kind::Haproxy => peer(stand, folder, "haproxy.cfg", |configuration| {
                let mut command = pinned("haproxy", CONTENDER_CORE);
                command.args(["-db", "-f"]).arg(configuration);
                command
            }),
        }?;
        if credentials {
            let token = stand.issuer.tokens(1)?.pop().unwrap_or_default();
            contender.fields.push((AUTHORIZATION, format!("Bearer {token}")));
            if !contender.fields.iter().any(|(name, _)| *name == API_KEY) {
                contender.fields.push((API_KEY, PEERS_KEY.to_owned()));
            }
        }
        Ok(contender)
    }

    /// Whether it does what the others do: forwards the request, says who the client is, and passes trailers.
    pub(crate) fn check(&self, task: Task, stand: &Stand) -> Result<(), Problem> {
        for (mut connection, scheme) in
            [(Connection::open(self.http)?, "http"), (Connection::open_tls(self.https, &stand.tls, HELLO)?, "https")]
        {
            connection = connection.with(&self.fields);
            let (status, body) = connection.ask(HELLO, "/headers")?;
            let (body, expected) = (String::from_utf8_lossy(&body), format!("{HELLO} 127.0.0.1 {scheme} {HELLO}"));
            if status != 200 || body != expected {
                return Err(format!("over {scheme}: {status} {body:?} instead of {expected:?}").into());
            }
        }
        let status = Connection::open(self.http)?.with(&self.fields).get("unknown.production.localhost")?;
        if status != 404 {
            return Err(format!("an unknown host is answered with {status}").into());
        }
        if self.asks_who {
            for missing in [API_KEY, AUTHORIZATION] {
                let fields: Vec<_> = self.fields.iter().filter(|(name, _)| *name != missing).cloned().collect();
                let status = Connection::open(self.http)?.with(&fields).get(HELLO)?;
                if status != 401 {
                    return Err(format!("without {missing} a request is answered with {status}").into());
                }
            }
        }
        if let Task::Grpc { .. } = task { runtime()?.block_on(check_grpc(self.http2, &self.fields)) } else { Ok(()) }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn pointsman(stand: &Stand, folder: &Path, binary: &Path, asks_who: bool) -> Result<Contender, Problem> {
    stand.share_authority(&folder.join("controller"))?;
    let mut fleet = Fleet::new(binary, folder)?;
    fleet.tls = true;
    fleet.core = Some(LOAD_CORE);
    let operator = fleet.controller()?;
    fleet.core = Some(CONTENDER_CORE);
    fleet.proxy(&operator, PROXY, 1).await?;

    let service = |name: &str, protocol: &str| {
        let component = format!("[component.web]\nfolder = \"dist\"\nprotocol = \"{protocol}\"\n");
        format!("schema = 1\nservice = \"{name}\"\n{component}[stage.production]\npublic = {}\n", !asks_who)
    };
    let files =
        [("production", ENVIRONMENT.into()), ("hello", service("hello", "h1")), ("greeter", service("greeter", "h2c"))];
    operator.apply(files.map(|(name, text)| (format!("{name}.toml"), text)).into()).await?;
    let fields = if asks_who { vec![(API_KEY, guard(stand, &fleet, &operator).await?)] } else { Vec::new() };
    for (name, origin) in [("hello", stand.http), ("greeter", stand.grpc)] {
        operator.add_release(name, origin).await?;
        operator.change(promote(format!("{name}@r1"), "production", ALL), true).await?;
    }
    wait_for_proxy(&operator).await?;
    if asks_who {
        wait_for_keys(&fleet, stand, &fields)?;
    }

    let pid = fleet.pids().find(|(name, _)| *name == PROXY).ok_or("there is no proxy")?.1;
    let (http, https) = (fleet.proxies[0], *fleet.tls_proxies.first().ok_or("the proxy does not serve HTTPS")?);
    let log = folder.join(format!("{PROXY}.log"));
    Ok(Contender { pid, http, http2: http, https, fields, asks_who, log, _parts: Parts::Fleet(fleet) })
}

/// Has both credentials asked for, and policies looked at; gives an application's key.
async fn guard(stand: &Stand, fleet: &Fleet, operator: &Operator) -> Result<String, Problem> {
    let mut policies = format!(
        "permit (principal, action == Action::\"discover\", resource in Environment::\"production\");\n\
         permit (principal in Group::\"{GROUP}\", action in Action::\"call\", \
         resource in Environment::\"production\");\n"
    );
    for number in 2..POLICIES {
        policies += &format!(
            "permit (principal in Group::\"team-{number}\", action in [Action::\"discover\", Action::\"call\"], \
             resource in Environment::\"production\") when {{ context has application && \
             context.application in Group::\"tools\" }};\n"
        );
    }
    let jwks = format!("http://{}/jwks.json", stand.http);
    let access = format!(
        "schema = 1\npolicies = [\"bench.cedar\"]\n[issuer.bench]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         jwks = \"{jwks}\"\ngroups = [{{ claim = \"groups\" }}]\n"
    );
    operator.apply(vec![("access.toml".into(), access), ("bench.cedar".into(), policies)]).await?;
    let (said, _) = fleet.ask(&["app", "create", "bench", "-o", "json"])?;
    let said: serde_json::Value = serde_json::from_slice(&said)?;
    Ok(said["key"].as_str().ok_or_else(|| format!("`app create` says {said}"))?.to_owned())
}

/// Until the proxy has fetched the issuer's keys.
fn wait_for_keys(fleet: &Fleet, stand: &Stand, fields: &Fields) -> Result<(), Problem> {
    let mut fields = fields.to_vec();
    fields.push((AUTHORIZATION, format!("Bearer {}", stand.issuer.tokens(1)?.pop().unwrap_or_default())));
    let deadline = Instant::now() + READY;
    let mut status = 0;
    while Instant::now() < deadline {
        status = Connection::open(fleet.proxies[0])?.with(&fields).get(HELLO)?;
        if status == 200 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("after {READY:?} a request with both credentials is answered with {status}").into())
}

/// Until the proxy has joined and has the newest version.
async fn wait_for_proxy(operator: &Operator) -> Result<(), Problem> {
    let deadline = Instant::now() + READY;
    while Instant::now() < deadline {
        let status = operator.status().await?;
        if !status.fleet.is_empty() && status.fleet.iter().all(|member| member.version == status.version) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("the proxy does not get the newest version within {READY:?}").into())
}

fn peer(
    stand: &Stand,
    folder: &Path,
    configuration: &str,
    command: impl FnOnce(&Path) -> std::process::Command,
) -> Result<Contender, Problem> {
    for name in ["certificate.pem", "key.pem", "both.pem"] {
        fs::copy(stand.folder.join(name), folder.join(name))?;
    }
    let [http, http2, https] = free_ports()?;
    let ports = [
        ("HTTP", http.port()),
        ("HTTP2", http2.port()),
        ("HTTPS", https.port()),
        ("ORIGIN", stand.http.port()),
        ("GRPC_ORIGIN", stand.grpc.port()),
    ];
    let words = [("ISSUER", ISSUER), ("AUDIENCE", AUDIENCE), ("GROUP", GROUP), ("API_KEY", PEERS_KEY)];
    let log = folder.join("log");
    let mut running = Running::start(command(&fill(configuration, folder, &ports, &words)?), &log)?;
    if let Err(problem) = running.wait_for(https) {
        return Err(format!("{problem}{}", last_words(&log)).into());
    }
    let (asks_who, fields) = (configuration == "envoy.yaml", Vec::new());
    Ok(Contender { pid: running.pid(), http, http2, https, fields, asks_who, log, _parts: Parts::Peer(running) })
}

/// One call, with its message and its trailers.
async fn check_grpc(address: SocketAddr, fields: &Fields) -> Result<(), Problem> {
    let (sender, connection) = h2::client::handshake(tokio::net::TcpStream::connect(address).await?).await?;
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{GREETER}/bench.Echo/Unary"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in fields {
        request = request.header(*name, value);
    }
    let request = request.body(())?;
    let (answer, mut body) = sender.ready().await?.send_request(request, false)?;
    body.send_data(Bytes::from_static(&[0; 5]), true)?;
    let (head, mut body) = answer.await?.into_parts();
    let mut bytes = 0;
    while let Some(piece) = body.data().await {
        bytes += piece?.len();
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    connection.abort();
    let status = trailers.get("grpc-status").and_then(|status| status.to_str().ok());
    if head.status != 200 || bytes != 5 || status != Some("0") {
        return Err(format!("a call is answered with {head:?}, {bytes} bytes and {trailers:?}").into());
    }
    Ok(())
}
