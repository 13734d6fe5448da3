//! The way of new certificates from their source to proxies: kept on disk, on record, published.

use std::path::PathBuf;
use std::time::Duration;

use api::EnvironmentName;
use certs::describe::Description;
use certs::development::Material;
use tokio::sync::Mutex;

use super::shelf::Shelved;
use crate::core::Command;
use crate::core::spec::CertificateSource;
use crate::core::state::CertificateRecord;
use crate::engine::{Accepted, Handle, NotDone, Priority, Submission};

/// Who brings them and why.
#[derive(Debug, Clone)]
pub(crate) struct Bringer {
    pub(crate) by: String,
    pub(crate) reason: String,
}

/// Why they are not there.
#[derive(Debug)]
pub(crate) enum NotBrought {
    /// The core refused it, or the store failed.
    NotDone(NotDone),
    /// They could not be kept: a sentence.
    NotKept(String),
}

impl std::fmt::Display for NotBrought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotDone(NotDone::Refused(refusal)) => write!(f, "{refusal}"),
            Self::NotDone(NotDone::Store(problem)) => write!(f, "{problem}"),
            Self::NotDone(NotDone::Stopping) => f.write_str("the controller is stopping"),
            Self::NotKept(problem) => write!(f, "it could not be kept: {problem}"),
        }
    }
}

/// One at a time: what is on disk, in memory and on record is the same then, and a file has one writer.
static BRINGING: Mutex<()> = Mutex::const_new(());

/// Replaces the certificates of an environment by those of its source.
///
/// Asked first and kept before it is on record: after a crash in between the next look brings them again.
///
/// # Cancel safety
/// Dropped, it may have been carried out or not.
pub(crate) async fn bring(
    engine: &Handle,
    bringer: Bringer,
    environment: EnvironmentName,
    source: &CertificateSource,
    materials: Vec<Material>,
) -> Result<Accepted, NotBrought> {
    let _one = BRINGING.lock().await;
    let certificates = materials.iter().filter_map(record).collect();
    let (name, key) = (environment.clone(), source.key());
    let command = Command::ReplaceCertificates { environment: name, source: source.name().into(), key, certificates };
    let ask = |plan| Submission { plan, ..Submission::of(&bringer.by, bringer.reason.clone(), command.clone()) };
    engine.submit(ask(true), Priority::Normal).await.map_err(NotBrought::NotDone)?;
    let folder = engine.read(|engine| engine.publisher.certificates().shelf.folder().to_owned()).await;
    let folder: PathBuf = folder.ok_or(NotBrought::NotDone(NotDone::Stopping))?;
    let shelved = Shelved { environment, source: source.key(), materials };
    let saving = tokio::task::spawn_blocking(move || shelved.save(&folder).map(|()| shelved));
    let saved = saving.await.unwrap_or_else(|problem| Err(problem.to_string()));
    let shelved = saved.map_err(NotBrought::NotKept)?;
    engine.tell_and_wait(move |engine| engine.take_certificates(shelved)).await;
    engine.submit(ask(false), Priority::Normal).await.map_err(NotBrought::NotDone)
}

/// What is recorded of a certificate; none of what cannot be read, which was looked at before.
fn record(material: &Material) -> Option<CertificateRecord> {
    let leaf = Description::of(material.chain_der.first()?).ok()?;
    let expires = Duration::from_secs(material.expires_s).as_millis();
    let expires_ms = u64::try_from(expires).unwrap_or(u64::MAX);
    Some(CertificateRecord { names: material.dns_names.clone(), sha256: leaf.sha256, expires_ms })
}
