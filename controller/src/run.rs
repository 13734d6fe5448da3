//! A controller from start to stop: opens what is kept, starts the engine and the drivers, serves, ends in order.

mod drivers;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use api::{MemberName, Scope};
use certs::fleet::{FleetCa, server_config_is_old};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::build::{self, BuildFolders};
use crate::builder;
use crate::core::{Command, State};
use crate::engine::{self, Fault, Handle, NotDone, Parts, Priority, Publisher, Submission};
use crate::fleet::Fleet;
use crate::secret;
use crate::server::hooks::{self, Hooks};
use crate::server::{self, Shared};
use crate::shelf::Shelf;
use crate::sources::{self, Sources};
use crate::store::{Opened, Record, Store};
use drivers::Drivers;
use registry::Layout;

/// Events that a slow follower of history may be behind before it misses some.
const HAPPENED: usize = 4_096;
/// Orders to ask a certificate's source that may wait: each is a person's.
const ORDERS: usize = 16;
/// Records folded at once at the start.
const PAGE: usize = 10_000;
/// After a failure, for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(250);
/// For the engine's last checkpoint; a state of thousands of stages takes a fraction of a second.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);
/// How often the clock is asked whether the controller's own certificate is old. Often, because clocks are set.
const LOOK: Duration = Duration::from_secs(10);
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
    /// Where webhooks are taken in clear, beside `listen`; none: only there. Port 0 takes a free one.
    pub hooks: Option<SocketAddr>,
    /// Version, for the log.
    pub software: String,
    /// How long certificates of members are good; none: a day. For tests.
    pub member_lifetime: Option<Duration>,
    /// For crash tests: the point at which the process ends at once.
    pub fault: Option<String>,
}

/// What a controller tells when it is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it takes webhooks in clear; none: nowhere.
    pub hooks: Option<SocketAddr>,
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
    // The port first: nothing is made when it is taken.
    let (listener, address) = listen(settings.listen).await?;
    let hooks = match settings.hooks {
        Some(wanted) => Some(listen(wanted).await?),
        None => None,
    };
    // Builds run in folders of their own, where a relative path would name something else.
    let data = &std::path::absolute(&settings.data).map_err(failed)?;
    let mut kept = Kept::open(data)?;
    if let Some(lifetime) = settings.member_lifetime {
        kept.ca = kept.ca.with_member_lifetime(lifetime);
    }
    let advertise = settings.advertise.or_else(|| (!address.ip().is_unspecified()).then(|| address.to_string()));
    let hosts = hosts(advertise.as_deref());
    let (renewed, tls) = watch::channel(kept.ca.server_config(&hosts).map_err(failed)?);

    let authority = kept.publisher.certificates().authority_pem();
    let Leading { engine, mut ended, fleet, happened, jobs } =
        Leading::begin(kept.opened, kept.publisher, Fault::new(settings.fault))?;
    let operator_file = match files_for_people(&engine, data, address, &kept.ca, &authority).await {
        Ok(path) => path,
        Err(problem) => return Err(engine_failure(&engine, &mut ended).await.unwrap_or(problem)),
    };
    info!(%address, software = settings.software, data = %data.display(), "listens");

    let (orders, ordered) = mpsc::channel(ORDERS);
    let sources = Sources::default();
    sources::introduce(&engine, &kept.folders).await;
    let shared = Arc::new(Shared {
        engine: engine.clone(),
        sources: sources.clone(),
        fleet,
        happened,
        ca: kept.ca,
        shelf: Shelf::new(kept.layout),
        folders: kept.folders,
        data: data.to_owned(),
        advertise,
        orders,
        connections: AtomicU64::new(0),
    });
    let mut drivers = Drivers::begin(&shared, ordered, jobs);
    drivers.tasks.spawn(renew(shared.clone(), hosts, renewed));
    drivers.tasks.spawn(async { drop(server::serve(listener, tls, shared).await) });
    let hooks = hooks.map(|(listener, address)| {
        info!(%address, "takes webhooks in clear");
        drivers.tasks.spawn(hooks::serve_clear(listener, Hooks::new(sources.clone())));
        address
    });
    if let Some(ready) = ready {
        let _ = ready.send(Ready { address, hooks, operator_file }); // Whoever started us may not care.
    }
    let result = until_the_end(stop, &engine, &mut ended).await;
    sources.end();
    drivers.end().await;
    result
}

async fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), ControllerError> {
    let listener = TcpListener::bind(wanted).await.map_err(|problem| listen_problem(wanted, &problem))?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What lies in the data folder.
struct Kept {
    opened: Opened,
    ca: FleetCa,
    publisher: Publisher,
    layout: Layout,
    folders: BuildFolders,
}

impl Kept {
    /// Opens it, and ends and removes what a crash left behind.
    fn open(data: &Path) -> Result<Self, ControllerError> {
        let opened = Store::open(data).map_err(failed)?;
        let ca = FleetCa::open_or_create(data).map_err(failed)?;
        let layout = Layout::open(&data.join("artifacts")).map_err(failed)?;
        let folders = BuildFolders::within(data, inherited());
        build::end_leftovers(&folders);
        server::remove_unfinished(data);
        let publisher = Publisher::new(data).map_err(failed)?;
        Ok(Self { opened, ca, publisher, layout, folders })
    }
}

/// An engine that has begun to lead, and what connects it with the rest.
struct Leading {
    engine: Handle,
    ended: oneshot::Receiver<Result<(), NotDone>>,
    fleet: Arc<Fleet>,
    happened: broadcast::Sender<Arc<Record>>,
    jobs: mpsc::UnboundedReceiver<builder::Order>,
}

impl Leading {
    fn begin(opened: Opened, publisher: Publisher, fault: Fault) -> Result<Self, ControllerError> {
        let fleet = Arc::new(Fleet::new());
        let (happened, _) = broadcast::channel(HAPPENED);
        let (builds, jobs) = mpsc::unbounded_channel();
        let (engine, ended) = engine::start(fold(opened, publisher, fleet.clone(), happened.clone(), builds, fault)?);
        Ok(Self { engine, ended, fleet, happened, jobs })
    }
}

/// The name in `host:port` by which others reach the controller, for its certificate.
fn hosts(advertise: Option<&str>) -> Vec<String> {
    let host = advertise.and_then(|advertise| advertise.rsplit_once(':'));
    host.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()).into_iter().collect()
}

/// Writes what people need: the authority for clients, the one for whoever asks the controller, and the operator file.
async fn files_for_people(
    engine: &Handle,
    data: &Path,
    address: SocketAddr,
    ca: &FleetCa,
    authority: &str,
) -> Result<PathBuf, ControllerError> {
    std::fs::write(data.join("development-ca.pem"), authority)
        .map_err(|problem| failed(format!("{}: {problem}", data.display())))?;
    for_everybody(&data.join("ca.pem"), &ca.certificate_pem())
        .map_err(|problem| failed(format!("{}: {problem}", data.join("ca.pem").display())))?;
    first_token(engine, data, address, ca).await
}

/// Writes a file that is no secret, mode 0644 whatever the umask, whole or not at all.
fn for_everybody(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("pem.new");
    std::fs::write(&new, text)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(&new, path)
}

/// Waits for `stop`, or for the engine to fail.
async fn until_the_end(
    stop: impl Future<Output = ()> + Send,
    engine: &Handle,
    ended: &mut oneshot::Receiver<Result<(), NotDone>>,
) -> Result<(), ControllerError> {
    tokio::select! {
        () = stop => engine_failure(engine, ended).await.map_or(Ok(()), Err),
        result = &mut *ended => {
            // Whoever asked for what failed is told so.
            tokio::time::sleep(LAST_ANSWERS).await;
            told(result)
        }
    }
}

/// Ends the engine, and waits for what it says about it; `None` when it ended well.
async fn engine_failure(
    engine: &Handle,
    ended: &mut oneshot::Receiver<Result<(), NotDone>>,
) -> Option<ControllerError> {
    engine.stop();
    // It writes a last checkpoint, which the next start can do without.
    let result = tokio::time::timeout(LAST_CHECKPOINT, ended).await.ok()?;
    told(result).err()
}

/// How the engine ended, for people.
fn told(ended: Result<Result<(), NotDone>, oneshot::error::RecvError>) -> Result<(), ControllerError> {
    ended.unwrap_or(Err(NotDone::Stopping)).map_err(sentence)
}

fn sentence(not_done: NotDone) -> ControllerError {
    match not_done {
        NotDone::Store(problem) => failed(problem),
        NotDone::Refused(refusal) => failed(refusal),
        NotDone::Stopping => failed("the controller ended, and did not say why"),
    }
}

/// Keeps the controller's own certificate from growing old; connections that are open keep theirs.
async fn renew(shared: Arc<Shared>, hosts: Vec<String>, renewed: watch::Sender<Arc<rustls::ServerConfig>>) {
    let mut made = SystemTime::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if !server_config_is_old(made, SystemTime::now()) {
            continue;
        }
        match shared.ca.server_config(&hosts) {
            Ok(config) => {
                made = SystemTime::now();
                renewed.send_replace(config);
            }
            Err(problem) => warn!(%problem, "the controller's own certificate could not be renewed"),
        }
    }
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
    builds: mpsc::UnboundedSender<builder::Order>,
    fault: Fault,
) -> Result<Parts, ControllerError> {
    for note in &opened.notes {
        warn!("{note}");
    }
    let OnRecord { state, checkpointed, last_ms } = on_record(&opened)?;
    Ok(Parts { state, store: opened.store, checkpointed, last_ms, publisher, fleet, happened, builds, fault })
}

/// What a store says.
struct OnRecord {
    state: State,
    /// The last event that the checkpoint holds; 0: there is none of this shape.
    checkpointed: u64,
    /// When the last event was.
    last_ms: u64,
}

fn on_record(opened: &Opened) -> Result<OnRecord, ControllerError> {
    let checkpoint = opened.checkpoint.as_ref().filter(|checkpoint| checkpoint.schema == State::SCHEMA);
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
    Ok(OnRecord { state, checkpointed, last_ms })
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
    if valid == Some(None) {
        // Somebody has made its bearer show a certificate instead, and has the file for it.
        return Ok(path);
    }
    let still = kept.filter(|token| {
        let secret = secret::parse_operator_token(token).map(|(_, secret)| secret);
        secret.zip(valid.flatten().as_ref()).is_some_and(|(secret, valid)| secret::matches(secret, valid))
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
                    .map_err(sentence)?;
            }
            let secret = secret::draw().map_err(failed)?;
            let command =
                Command::CreateToken { name: name.clone(), secret: secret::hash(&secret), scope: Scope::admin() };
            engine.submit(ask(command), Priority::Normal).await.map_err(sentence)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Event;
    use crate::engine::tests::World;
    use crate::store::{Checkpoint, NewRecord};

    #[tokio::test]
    async fn a_start_that_the_store_ends_says_why() {
        let mut world = World::new().await;
        let folder = world.folder.path().to_owned();
        let ca = FleetCa::open_or_create(&folder).expect("made");
        world.engine.tell(|engine| engine.store.fail_from_now_on());
        let address = ([127, 0, 0, 1], 1).into();
        let problem = files_for_people(&world.engine, &folder, address, &ca, "").await.expect_err("no token");
        let why = engine_failure(&world.engine, &mut world.ended).await.unwrap_or(problem).to_string();
        assert!(why.contains("the anchor was not written") && why.contains("start again"), "{why}");
        // The next start can tell, and goes on.
        let stop = std::future::ready(());
        let settings = Settings {
            data: folder,
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            hooks: None,
            software: "test".into(),
            member_lifetime: None,
            fault: None,
        };
        run(settings, stop, None).await.expect("it starts and stops");
    }

    #[tokio::test]
    async fn an_engine_that_fails_later_ends_the_controller_with_an_error() {
        let mut world = World::new().await;
        let engine = world.engine.clone();
        engine.tell(|engine| engine.store.fail_from_now_on());
        let token = engine::tests::token("one");
        engine.submit(token, Priority::Normal).await.expect_err("the store fails");
        let result = until_the_end(std::future::pending(), &engine, &mut world.ended).await;
        assert!(result.expect_err("exit code 1").to_string().contains("start again"));
    }

    #[test]
    fn rollback_knows_what_ran_before_marks_were_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let world = crate::core::evolve_test::World::with_static_releases(2);
        let world = world.promoted_everywhere("hello@r1").promoted_everywhere("hello@r2");
        let stage: api::StageName = "hello/production".parse().expect("a name");
        // As the schema before kept it: neither events nor state know of what this one has added.
        let record = |(event, at_ms): &(Event, u64)| {
            let mut payload = serde_json::to_value(event).expect("written");
            let fields = payload.as_object_mut().expect("fields");
            if event.kind() == "promoted" {
                assert!(fields.remove("past").is_some());
            }
            let (by, about, kind) = ("test".to_owned(), event.about(), event.kind().to_owned());
            NewRecord { at_ms: *at_ms, by, reason: String::new(), about, kind, schema: 1, payload }
        };
        let mut store = Store::open(folder.path()).expect("opens").store;
        let last = store.append(world.log.iter().map(record).collect()).expect("kept").len() as u64;
        let mut state = serde_json::to_value(&world.state).expect("written");
        let hello = &mut state["services"]["hello"];
        assert!(hello["stages"]["production"].as_object_mut().expect("fields").remove("ran").is_some());
        assert!(hello["releases"]["r2"].as_object_mut().expect("fields").remove("not_reversible").is_some());
        let state = serde_json::to_vec(&state).expect("written");
        store.save_checkpoint(&Checkpoint { seq: last, schema: State::SCHEMA - 1, state }).expect("kept");
        drop(store);

        let found = on_record(&Store::open(folder.path()).expect("opens")).expect("folded");
        let ran: Vec<_> = found.state.stage(&stage).expect("serves").ran.iter().map(|one| one.number()).collect();
        assert_eq!((ran, found.checkpointed), (vec![1, 2], 0), "all of it was folded anew");
        assert_eq!(found.state.services, world.state.services);
    }

    #[test]
    fn the_certificate_names_the_advertised_host() {
        for (advertise, host) in
            [("10.0.0.7:8443", "10.0.0.7"), ("ops.example.com:443", "ops.example.com"), ("[::1]:1", "::1")]
        {
            assert_eq!(hosts(Some(advertise)), [host]);
        }
        assert!(hosts(None).is_empty() && hosts(Some("no-port")).is_empty());
    }

    #[test]
    fn what_is_for_everybody_is_whole_and_can_be_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        for text in ["one", "another"] {
            for_everybody(&path, text).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
            assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside it");
    }
}
