//! A controller from start to stop: opens what is kept, starts the engine and the drivers, serves, ends in order.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use api::{MemberName, Scope};
use certs::fleet::FleetCa;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::artifact::Layout;
use crate::build::{self, BuildFolders};
use crate::builder;
use crate::core::{Command, State};
use crate::engine::{self, Fault, Handle, NotDone, Parts, Priority, Publisher, Submission};
use crate::fleet::Fleet;
use crate::secret;
use crate::server::{self, Shared};
use crate::store::{Opened, Record, Store};

/// Events that a slow follower of history may be behind before it misses some.
const HAPPENED: usize = 4_096;
/// Records folded at once at the start.
const PAGE: usize = 10_000;
/// The name of the first token.
const FIRST_TOKEN: &str = "operator";

/// How a controller is started.
#[derive(Debug)]
pub struct Settings {
    /// Folder for everything it keeps; made with mode 0700 when it does not exist.
    pub data: PathBuf,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Host and port as joiners reach it; none: `listen`, unless that is "all addresses".
    pub advertise: Option<String>,
    /// Version, for the log.
    pub software: String,
    /// For crash tests: the point at which the process ends at once.
    pub fault: Option<String>,
}

/// What a controller tells when it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The operator file, mode 0600: address, authority and the first token.
    pub operator_file: PathBuf,
}

/// Why a controller did not start, or ended. One sentence.
#[derive(Debug)]
pub struct ControllerError(String);

impl std::fmt::Display for ControllerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ControllerError {}

fn failed(problem: impl std::fmt::Display) -> ControllerError {
    ControllerError(problem.to_string())
}

fn listen_problem(address: SocketAddr, problem: &std::io::Error) -> ControllerError {
    match problem.kind() {
        ErrorKind::AddrInUse => failed(format!(
            "cannot listen on {address}: the port is in use by another process; choose another with --listen"
        )),
        ErrorKind::PermissionDenied => {
            failed(format!("cannot listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE"))
        }
        _ => failed(format!("cannot listen on {address}: {problem}")),
    }
}

/// Runs a controller until `stop`.
///
/// # Errors
/// A data folder that cannot be used or is in use, a store that cannot be trusted, an address in use, a disk that failed.
pub async fn run(
    settings: Settings,
    stop: impl Future<Output = ()> + Send,
    ready: Option<oneshot::Sender<Ready>>,
) -> Result<(), ControllerError> {
    let data = settings.data.as_path();
    // The port first: nothing is made when it is taken.
    let listener =
        TcpListener::bind(settings.listen).await.map_err(|problem| listen_problem(settings.listen, &problem))?;
    let address = listener.local_addr().map_err(failed)?;
    let opened = Store::open(data).map_err(failed)?;
    let ca = FleetCa::open_or_create(data).map_err(failed)?;
    let advertise = settings.advertise.or_else(|| (!address.ip().is_unspecified()).then(|| address.to_string()));
    let hosts: Vec<String> = advertise
        .iter()
        .filter_map(|advertise| Some(advertise.rsplit_once(':')?.0.trim_matches(['[', ']']).to_owned()))
        .collect();
    let (_renewed, tls) = watch::channel(ca.server_config(&hosts).map_err(failed)?);
    let layout = Layout::open(&data.join("artifacts")).map_err(failed)?;
    let folders = BuildFolders::within(data, inherited());
    build::end_leftovers(&folders);
    server::remove_unfinished(data);

    let fleet = Arc::new(Fleet::new());
    let (happened, _) = broadcast::channel(HAPPENED);
    let (builds, jobs) = mpsc::unbounded_channel();
    let parts = fold(
        opened,
        Publisher::new(data).map_err(failed)?,
        fleet.clone(),
        happened.clone(),
        builds,
        Fault::new(settings.fault),
    )?;
    let authority = parts.publisher.authority_pem();
    let (engine, ended) = engine::start(parts);
    std::fs::write(data.join("development-ca.pem"), authority)
        .map_err(|problem| failed(format!("{}: {problem}", data.display())))?;
    let operator_file = first_token(&engine, data, address, &ca).await?;
    info!(%address, software = settings.software, data = %data.display(), "listens");

    let (layout, builder_layout) = (layout.clone(), layout);
    let shared = Arc::new(Shared {
        engine: engine.clone(),
        fleet,
        happened,
        ca,
        layout,
        folders: folders.clone(),
        data: data.to_owned(),
        advertise,
        connections: AtomicU64::new(0),
    });
    let (cancel, cancelled) = watch::channel(false);
    let builder = tokio::spawn(builder::run(engine.clone(), folders, builder_layout, jobs, cancelled));
    if let Some(ready) = ready {
        let _ = ready.send(Ready { address, operator_file }); // Whoever started us may not care.
    }
    let (stopping, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server::serve(listener, tls, shared, async { drop(stopped.await) }));
    let result = tokio::select! {
        () = stop => Ok(()),
        ended = ended => ended.unwrap_or(Err(NotDone::Stopping)).map_err(|not_done| ControllerError(match not_done {
            NotDone::Store(problem) => problem.to_string(),
            other => format!("the controller ended: {other:?}"),
        })),
    };
    engine.stop();
    cancel.send_replace(true);
    drop(stopping);
    builder.abort();
    // Open streams of proxies would keep the server for ever; they come back by themselves.
    serving.abort();
    result
}

/// The controller's own environment, of which builds see what they ask for.
fn inherited() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// State as of now: the last checkpoint and the events after it.
fn fold(
    opened: Opened,
    publisher: Publisher,
    fleet: Arc<Fleet>,
    happened: broadcast::Sender<Arc<Record>>,
    builds: mpsc::UnboundedSender<api::ReleaseName>,
    fault: Fault,
) -> Result<Parts, ControllerError> {
    for note in &opened.notes {
        warn!("{note}");
    }
    let checkpoint = opened.checkpoint.filter(|checkpoint| checkpoint.schema == State::SCHEMA);
    let checkpoint = checkpoint
        .and_then(|checkpoint| Some((checkpoint.seq, serde_json::from_slice::<State>(&checkpoint.state).ok()?)));
    let (checkpointed, mut state) = checkpoint.unwrap_or_default();
    let (mut next, mut last_ms) = (checkpointed + 1, 0);
    loop {
        let records = opened.store.read(next, PAGE).map_err(failed)?;
        let Some(last) = records.last() else { break };
        (next, last_ms) = (last.seq + 1, last.at_ms);
        engine::fold(&mut state, &records).map_err(failed)?;
    }
    if last_ms == 0 {
        last_ms = opened.store.read(checkpointed, 1).map_err(failed)?.first().map_or(0, |record| record.at_ms);
    }
    Ok(Parts { state, store: opened.store, checkpointed, last_ms, publisher, fleet, happened, builds, fault })
}

/// Makes the first token and its file, unless both are there. A file that was lost is replaced, and its token with it:
/// who can remove files of the data folder may do everything anyway.
async fn first_token(
    engine: &Handle,
    data: &Path,
    address: SocketAddr,
    ca: &FleetCa,
) -> Result<PathBuf, ControllerError> {
    let path = data.join("operator.toml");
    let name: MemberName = FIRST_TOKEN.parse().expect("the constant is a name");
    let kept = std::fs::read_to_string(&path).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let kept = kept.and_then(|table| Some(table.get("token")?.as_str()?.to_owned()));
    let looked_up = name.clone();
    let valid = engine.read(move |engine| {
        engine.state.tokens.get(&looked_up).filter(|token| !token.revoked).map(|token| token.secret)
    });
    let valid = valid.await.ok_or_else(|| failed("the controller ended while it started"))?;
    let still = kept.filter(|token| {
        let secret = secret::parse_operator_token(token).map(|(_, secret)| secret);
        secret.zip(valid.as_ref()).is_some_and(|(secret, valid)| secret::matches(secret, valid))
    });
    let token = match still {
        Some(token) => token,
        None => {
            let ask = |command| Submission::of("controller", "the operator file was missing".into(), command);
            if valid.is_some() {
                warn!(file = %path.display(), "the operator file is missing or damaged: a new token replaces the old one");
                engine
                    .submit(ask(Command::RevokeToken { name: name.clone() }), Priority::Normal)
                    .await
                    .map_err(|problem| failed(format!("{problem:?}")))?;
            }
            let secret = secret::draw().map_err(failed)?;
            let command =
                Command::CreateToken { name: name.clone(), secret: secret::hash(&secret), scope: Scope::admin() };
            engine.submit(ask(command), Priority::Normal).await.map_err(|problem| failed(format!("{problem:?}")))?;
            secret::operator_token(&name, &secret)
        }
    };
    // Where this machine reaches it; the port may be another than last time.
    let reach =
        if address.ip().is_unspecified() { SocketAddr::new([127, 0, 0, 1].into(), address.port()) } else { address };
    let mut table = toml::Table::new();
    table.insert("schema".into(), 1.into());
    table.insert("controller".into(), reach.to_string().into());
    table.insert("ca".into(), ca.certificate_pem().into());
    table.insert("token".into(), token.into());
    durable::write(&path, table.to_string().as_bytes())
        .map_err(|problem| failed(format!("{}: {problem}", path.display())))?;
    Ok(path)
}
