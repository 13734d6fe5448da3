//! Looks after the sources of all environments: files that change, lists that change, certificates that near their end.
//!
//! Main function: [`run`]. What it finds is brought to the engine; what fails stays as it was and is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::fleet;
use api::{EnvironmentName, HostTarget};
use certs::development::Material;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::acme::{Ended, Turn};
use super::bring::{Bringer, bring};
use super::ordering::{Names, Orders};
use super::watched::{self, Watched};
use crate::core::State;
use crate::core::resources::client_certificates;
use crate::core::spec::{CertificateSource, ChallengeSpec, ClientCertificates, EnvironmentSpec};
use crate::engine::{Engine, Handle};
use crate::fleet::Fleet;

/// How often sources are looked at: a file that was replaced is served seconds later.
const LOOK: Duration = Duration::from_secs(2);

/// Somebody wants a source asked now.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) environment: EnvironmentName,
    pub(crate) bringer: Bringer,
    /// Told when it is done: why not, if not.
    pub(crate) done: oneshot::Sender<Result<(), String>>,
}

/// How a source stands, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Why the last attempt failed; empty: it did not.
    pub(crate) problem: String,
    /// When it failed, milliseconds since the Unix epoch.
    pub(crate) failed_ms: u64,
    /// When it is asked next; 0: not by itself.
    pub(crate) renews_ms: u64,
}

/// An environment as far as it matters here.
struct Wanted {
    name: EnvironmentName,
    source: CertificateSource,
    /// Names that go into one certificate each.
    names: Vec<Names>,
    /// What there is of this source.
    have: Vec<Material>,
}

/// Runs until it is dropped.
pub(crate) async fn run(engine: Handle, fleet: Arc<Fleet>, mut orders: mpsc::Receiver<Order>) {
    let (files, lists, acme, turns) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), JoinSet::new());
    let mut keeper = Keeper { engine, fleet, files, lists, acme, turns };
    loop {
        keeper.look().await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            Some(Ok((name, ended))) = keeper.turns.join_next() => keeper.ended(&name, ended),
            order = orders.recv() => match order {
                Some(order) => keeper.obey(order).await,
                None => return,
            }
        }
    }
}

struct Keeper {
    engine: Handle,
    fleet: Arc<Fleet>,
    files: BTreeMap<EnvironmentName, (CertificateSource, Watched)>,
    lists: BTreeMap<String, Watched>,
    acme: BTreeMap<EnvironmentName, Acme>,
    /// Not ended with this: an order has to take back what it has shown. They have deadlines of their own.
    turns: JoinSet<(EnvironmentName, Option<Ended>)>,
}

/// An environment with an ACME authority.
struct Acme {
    source: CertificateSource,
    /// None: it is its turn.
    orders: Option<Orders>,
}

impl Keeper {
    async fn look(&mut self) {
        let now = SystemTime::now();
        let Some((wanted, lists)) = self.engine.read(|engine| (wanted(engine), list_files(&engine.state))).await else {
            return;
        };
        self.files.retain(|name, _| wanted.iter().any(|one| one.name == *name));
        // One whose turn it is stays, so that it is not begun twice.
        self.acme.retain(|name, acme| acme.orders.is_none() || wanted.iter().any(|one| one.name == *name));
        for one in wanted {
            match &one.source {
                CertificateSource::Files { .. } => {
                    let bringer = Bringer { by: "controller".into(), reason: "its files have changed".into() };
                    let _ = self.files(&one.name, &one.source, bringer, now, false).await; // It has told what is wrong.
                }
                CertificateSource::Acme(_) => self.acme(one, now, None).await,
                CertificateSource::Development | CertificateSource::Imported => {}
            }
        }
        self.lists(lists, now).await;
    }

    async fn obey(&mut self, order: Order) {
        let name = order.environment.clone();
        let found = self.engine.read(move |engine| wanted(engine).into_iter().find(|one| one.name == name)).await;
        let refused = match found.flatten() {
            Some(one) => match &one.source {
                CertificateSource::Files { .. } => {
                    let done = self.files(&one.name, &one.source, order.bringer, SystemTime::now(), true).await;
                    return drop(order.done.send(done)); // Whoever asked may have gone.
                }
                CertificateSource::Acme(_) => return self.acme(one, SystemTime::now(), Some(order)).await,
                CertificateSource::Imported => {
                    format!("it was imported: `pointsman cert import {} --chain FILE --key FILE`", order.environment)
                }
                CertificateSource::Development => return self.development(one.name, order).await,
            },
            None => format!("there is no environment {}", order.environment),
        };
        let _ = order.done.send(Err(refused)); // Whoever asked may have gone.
    }

    /// Has the development authority make a new certificate.
    async fn development(&self, name: EnvironmentName, order: Order) {
        let (made, renewed) = (name.clone(), oneshot::channel());
        let renew = move |engine: &mut Engine| drop(renewed.0.send(engine.renew_development(&made)));
        self.engine.tell_and_wait(renew).await;
        let done = match renewed.1.await {
            Ok(Ok(material)) => {
                let source = &CertificateSource::Development;
                let brought = bring(&self.engine, order.bringer, name, source, vec![material]).await;
                brought.map(drop).map_err(|not| not.to_string())
            }
            Ok(Err(problem)) => Err(problem),
            Err(_) => Err("the controller is stopping".into()),
        };
        let _ = order.done.send(done); // Whoever asked may have gone.
    }

    /// Begins a turn with the authority of an environment, when something is due or somebody asks.
    async fn acme(&mut self, wanted: Wanted, now: SystemTime, asked: Option<Order>) {
        let Wanted { name, source, names, have } = wanted;
        let CertificateSource::Acme(spec) = source.clone() else { return };
        let fresh = || Acme { source: source.clone(), orders: Some(Orders::default()) };
        let known = self.acme.entry(name.clone()).or_insert_with(fresh);
        if known.source != source && known.orders.is_some() {
            *known = fresh();
        }
        let is_due = asked.is_some() || known.orders.as_ref().is_some_and(|orders| orders.is_due(&names, &have, now));
        if !is_due {
            return;
        }
        let Some(orders) = known.orders.take() else {
            if let Some(order) = asked {
                let _ = order.done.send(Err("it is being asked for right now: try again in a moment".into()));
            }
            return;
        };
        let own = || Bringer { by: "controller".into(), reason: "it was due".into() };
        let (bringer, asked) = asked.map_or_else(|| (own(), None), |order| (order.bringer, Some(order.done)));
        let Some(folder) = self.folder().await else { return };
        let (engine, fleet) = (self.engine.clone(), self.fleet.clone());
        let turn = Turn { name, spec, wanted: names, have, orders, bringer, asked, engine, fleet, folder };
        self.turns.spawn(apart(turn));
    }

    fn ended(&mut self, name: &EnvironmentName, ended: Option<Ended>) {
        let Some(Ended { orders, standing }) = ended else {
            // It panicked: the next look begins anew.
            return drop(self.acme.remove(name));
        };
        if let Some(acme) = self.acme.get_mut(name) {
            acme.orders = Some(orders);
            let source = acme.source.key();
            self.stands(name, source, standing);
        }
    }

    /// None: the controller is stopping.
    async fn folder(&self) -> Option<PathBuf> {
        self.engine.read(|engine| engine.publisher.certificates().shelf.folder().to_owned()).await
    }

    /// Takes over the files of an environment when they have changed, or when somebody `asked` for it.
    async fn files(
        &mut self,
        name: &EnvironmentName,
        source: &CertificateSource,
        bringer: Bringer,
        now: SystemTime,
        asked: bool,
    ) -> Result<(), String> {
        let CertificateSource::Files { chain, key } = source.clone() else { return Ok(()) };
        let (known, watched) = self.files.entry(name.clone()).or_insert_with(|| (source.clone(), Watched::default()));
        if known != source {
            (*known, *watched) = (source.clone(), Watched::default());
        }
        if !watched.changed(&[&chain, &key], now) && !asked {
            return Ok(());
        }
        let reading = tokio::task::spawn_blocking(move || watched::pair(&chain, &key, now));
        let read = reading.await.unwrap_or_else(|problem| Err(problem.to_string()));
        let brought = match read {
            Ok(material) => {
                bring(&self.engine, bringer, name.clone(), source, vec![material]).await.map_err(|not| not.to_string())
            }
            Err(problem) => Err(problem),
        };
        watched.was_read(brought.is_ok(), now);
        match &brought {
            Ok(accepted) if accepted.event > 0 => {
                info!(environment = %name, "files were taken over as its certificate")
            }
            Ok(_) => {}
            Err(problem) => warn!(environment = %name, problem, "its certificate stays as it is"),
        }
        let problem = brought.as_ref().err().cloned().unwrap_or_default();
        let failed_ms = if problem.is_empty() { 0 } else { ms(now) };
        self.stands(name, source.key(), Standing { failed_ms, problem, renews_ms: 0 });
        brought.map(drop)
    }

    /// Takes over lists of revoked certificates whose files have changed.
    async fn lists(&mut self, named: BTreeMap<String, Vec<ClientCertificates>>, now: SystemTime) {
        // Only what was named before: some may be there for a file that is about to be applied.
        let gone: BTreeSet<String> = self.lists.keys().filter(|path| !named.contains_key(*path)).cloned().collect();
        if !gone.is_empty() {
            self.lists.retain(|path, _| !gone.contains(path));
            self.engine.tell(move |engine| engine.publisher.certificates_mut().drop_lists(&gone));
        }
        for (path, clients) in named {
            let watched = self.lists.entry(path.clone()).or_default();
            if !watched.changed(&[&path], now) {
                continue;
            }
            let taken = take_lists(&self.engine, path.clone(), clients, false).await;
            watched.was_read(taken.is_ok(), now);
            if let Err(problem) = &taken {
                warn!(problem, "the lists of revoked certificates stay as they are");
            }
            let problem = taken.err();
            self.engine.tell(move |engine| engine.publisher.certificates_mut().list_stands(path, problem));
        }
    }

    fn stands(&self, name: &EnvironmentName, source: String, standing: Standing) {
        let name = name.clone();
        self.engine.tell(move |engine| engine.publisher.certificates_mut().stands(name, source, standing));
    }
}

/// A turn that goes on when whoever waits for it does not, so that what was shown is taken back.
async fn apart(turn: Turn) -> (EnvironmentName, Option<Ended>) {
    let name = turn.name.clone();
    (name, tokio::spawn(turn.run()).await.ok())
}

/// One at a time: a file has one writer.
static TAKING: Mutex<()> = Mutex::const_new(());

/// Reads the lists of a file, keeps them and has proxies told; only reads them, with `plan`. They have to be of use to all
/// of `clients`, which name them: proxies would refuse what is not, and everything after it.
///
/// # Errors
/// A sentence: they cannot be read, used or kept. What was there is still there then.
pub(crate) async fn take_lists(
    engine: &Handle,
    path: String,
    clients: Vec<ClientCertificates>,
    plan: bool,
) -> Result<(), String> {
    let _one = TAKING.lock().await;
    let folder = engine.read(|engine| engine.publisher.certificates().shelf.folder().to_owned()).await;
    let folder = folder.ok_or("the controller is stopping")?;
    let reading = tokio::task::spawn_blocking(move || {
        let lists = watched::lists(&path)?;
        for clients in &clients {
            let told = fleet::ClientCertificates { crl_der: lists.crl_der.clone(), ..client_certificates(clients) };
            certs::client::check(&told).map_err(|problem| format!("{path}: {problem}"))?;
        }
        if !plan {
            lists.save(&folder)?;
        }
        Ok(lists)
    });
    let lists = reading.await.unwrap_or_else(|problem| Err(problem.to_string()))?;
    if plan {
        return Ok(());
    }
    engine.tell_and_wait(move |engine| engine.take_lists(lists)).await;
    Ok(())
}

fn wanted(engine: &Engine) -> Vec<Wanted> {
    let one = |spec: &EnvironmentSpec| {
        // Only an authority is asked by what there is.
        let asks = matches!(spec.certificates, CertificateSource::Acme(_));
        let have = if asks { engine.publisher.certificates().own(&engine.state, &spec.name) } else { Vec::new() };
        let (name, source) = (spec.name.clone(), spec.certificates.clone());
        Wanted { name, source, names: names(&engine.state, spec), have }
    };
    engine.state.environments.values().map(one).collect()
}

/// The certificates that an environment needs of an authority: a wildcard, or one for each host that anybody may know.
pub(crate) fn names(state: &State, spec: &EnvironmentSpec) -> Vec<Names> {
    let CertificateSource::Acme(acme) = &spec.certificates else { return Vec::new() };
    if matches!(acme.challenge, ChallengeSpec::Dns { .. }) {
        return vec![vec![format!("*.{}", spec.zone)]];
    }
    let public = state
        .services
        .iter()
        .filter(|(_, service)| service.spec.stages.get(&spec.name).is_some_and(|stage| stage.public));
    let host = |service: &api::ServiceName| HostTarget { service: service.clone(), release: None }.host(&spec.zone);
    public.map(|(name, _)| vec![host(name).to_string()]).collect()
}

/// Files of lists of revoked certificates, each with all that name it.
fn list_files(state: &State) -> BTreeMap<String, Vec<ClientCertificates>> {
    let of_environments = state.environments.values().filter_map(|spec| spec.client_certificates.as_ref());
    let stages = state.services.values().flat_map(|service| service.spec.stages.values());
    let of_stages = stages.filter_map(|stage| stage.client_certificates.as_ref());
    let mut named: BTreeMap<String, Vec<ClientCertificates>> = BTreeMap::new();
    for clients in of_environments.chain(of_stages) {
        if let Some(path) = &clients.crl_file {
            named.entry(path.clone()).or_default().push(clients.clone());
        }
    }
    named
}

pub(super) fn ms(moment: SystemTime) -> u64 {
    u64::try_from(moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
