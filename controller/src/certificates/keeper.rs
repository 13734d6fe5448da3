//! Looks after the sources of all environments: files that change, lists that change, certificates that near their end.
//!
//! Main function: [`run`]. What it finds is brought to the engine; what fails stays as it was and is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::EnvironmentName;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::bring::{Bringer, bring};
use super::watched::{self, Watched};
use crate::core::State;
use crate::core::spec::{CertificateSource, ClientCertificates};
use crate::engine::{Engine, Handle};

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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: EnvironmentName,
    source: CertificateSource,
}

/// Runs until it is dropped.
pub(crate) async fn run(engine: Handle, mut orders: mpsc::Receiver<Order>) {
    let mut keeper = Keeper { engine, files: BTreeMap::new(), lists: BTreeMap::new() };
    loop {
        keeper.look().await;
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            order = orders.recv() => match order {
                Some(order) => keeper.obey(order).await,
                None => return,
            }
        }
    }
}

struct Keeper {
    engine: Handle,
    files: BTreeMap<EnvironmentName, (CertificateSource, Watched)>,
    lists: BTreeMap<String, Watched>,
}

impl Keeper {
    async fn look(&mut self) {
        let now = SystemTime::now();
        let read = |engine: &Engine| (wanted(&engine.state), list_files(&engine.state));
        let Some((wanted, lists)) = self.engine.read(read).await else { return };
        self.files.retain(|name, _| wanted.iter().any(|one| one.name == *name));
        for Wanted { name, source } in wanted {
            if let CertificateSource::Files { .. } = source {
                let bringer = Bringer { by: "controller".into(), reason: "its files have changed".into() };
                let _ = self.files(&name, &source, bringer, now, false).await; // It has told what is wrong.
            }
        }
        self.lists(lists, now).await;
    }

    async fn obey(&mut self, order: Order) {
        let name = order.environment.clone();
        let source = self.engine.read(move |engine| {
            engine.state.environments.get(&name).map(|environment| environment.certificates.clone())
        });
        let done = match source.await.flatten() {
            Some(source @ CertificateSource::Files { .. }) => {
                self.files(&order.environment, &source, order.bringer, SystemTime::now(), true).await
            }
            Some(CertificateSource::Imported) => {
                Err(format!("it was imported: `pointsman cert import {} --chain FILE --key FILE`", order.environment))
            }
            Some(CertificateSource::Development) => {
                Err("it is from the development authority, which renews it a month before its end".into())
            }
            Some(CertificateSource::Acme(_)) => Err("not yet".into()),
            None => Err(format!("there is no environment {}", order.environment)),
        };
        let _ = order.done.send(done); // Whoever asked may have gone.
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
            Ok(material) => bring(&self.engine, bringer, name.clone(), source.name(), vec![material])
                .await
                .map_err(|not| not.to_string()),
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
        self.stands(name, Standing { failed_ms: if problem.is_empty() { 0 } else { ms(now) }, problem, renews_ms: 0 });
        brought.map(drop)
    }

    /// Takes over lists of revoked certificates whose files have changed.
    async fn lists(&mut self, paths: BTreeSet<String>, now: SystemTime) {
        self.lists.retain(|path, _| paths.contains(path));
        for path in paths {
            let watched = self.lists.entry(path.clone()).or_default();
            if !watched.changed(&[&path], now) {
                continue;
            }
            let taken = take_lists(&self.engine, path.clone(), false).await;
            watched.was_read(taken.is_ok(), now);
            if let Err(problem) = &taken {
                warn!(problem, "the lists of revoked certificates stay as they are");
            }
            let problem = taken.err();
            self.engine.tell(move |engine| engine.publisher.certificates_mut().list_stands(path, problem));
        }
    }

    fn stands(&self, name: &EnvironmentName, standing: Standing) {
        let name = name.clone();
        self.engine.tell(move |engine| engine.publisher.certificates_mut().stands(name, standing));
    }
}

/// Reads the lists of a file, keeps them and has proxies told; only reads them, with `plan`.
///
/// # Errors
/// A sentence: they cannot be read or kept. What was there is still there then.
pub(crate) async fn take_lists(engine: &Handle, path: String, plan: bool) -> Result<(), String> {
    let folder = engine.read(|engine| engine.publisher.certificates().shelf.folder().to_owned()).await;
    let folder = folder.ok_or("the controller is stopping")?;
    let reading = tokio::task::spawn_blocking(move || {
        let lists = watched::lists(&path)?;
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

fn wanted(state: &State) -> Vec<Wanted> {
    let all = state.environments.values();
    all.map(|spec| Wanted { name: spec.name.clone(), source: spec.certificates.clone() }).collect()
}

fn list_files(state: &State) -> BTreeSet<String> {
    let of_environments = state.environments.values().filter_map(|spec| spec.client_certificates.as_ref());
    let stages = state.services.values().flat_map(|service| service.spec.stages.values());
    let of_stages = stages.filter_map(|stage| stage.client_certificates.as_ref());
    of_environments.chain(of_stages).filter_map(|clients: &ClientCertificates| clients.crl_file.clone()).collect()
}

pub(super) fn ms(moment: SystemTime) -> u64 {
    u64::try_from(moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
