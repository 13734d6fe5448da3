//! Has a shelf use the registry that `releases.toml` names: with its authority and credentials, which are read again when they
//! change.
//!
//! Must not know: what goes there.
//!
//! Main type: [`Keeper`].

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certs::call::Clear;
use certs::endpoint::Authorities;
use registry::{Credentials, Registry, SILENCE, Settings};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::Shelf;
use crate::build::{BuildFolders, Cancel, secrets};
use crate::core::spec::{RegistryCredentials, RegistrySpec, SecretRef};
use crate::engine::Handle;
use crate::store::Record;

/// How often files and programs are asked whether they say something else by now.
const LOOK: Duration = Duration::from_secs(60);

/// Looks after the registry of a shelf.
pub(crate) struct Keeper {
    pub(crate) engine: Handle,
    pub(crate) shelf: Shelf,
    pub(crate) folders: BuildFolders,
    /// Where programs that print secrets run.
    pub(crate) folder: PathBuf,
    pub(crate) cancel: Cancel,
}

/// What a registry is made of.
#[derive(PartialEq, Eq)]
struct Made {
    spec: RegistrySpec,
    /// Its authority's certificates and the secret, or what is wrong with one of them.
    found: Result<Found, String>,
}

#[derive(PartialEq, Eq)]
struct Found {
    authority: Option<String>,
    secret: Option<String>,
}

// === impl Keeper ===

impl Keeper {
    /// Runs until it is dropped, or the engine is gone. `first` is told when the shelf has what counts at the start.
    pub(crate) async fn run(
        mut self,
        mut happened: broadcast::Receiver<Arc<Record>>,
        first: tokio::sync::oneshot::Sender<()>,
    ) {
        let (mut first, mut made) = (Some(first), None);
        while let Some(spec) = self.engine.read(|engine| engine.state.releases.registry.clone()).await {
            self.follow(spec, &mut made).await;
            first.take().map(|first| first.send(()));
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                goes_on = applied(&mut happened) => if !goes_on { return },
            }
        }
    }

    /// Puts the registry into the shelf, unless it is there.
    async fn follow(&mut self, spec: Option<RegistrySpec>, made: &mut Option<Made>) {
        let Some(spec) = spec else {
            if made.take().is_some() {
                info!("artifacts stay on this disk");
            }
            self.shelf.replace(None);
            return self.shelf.is_made_of(None);
        };
        let found = self.found(&spec).await;
        let new = Made { spec, found };
        if made.as_ref() == Some(&new) {
            return;
        }
        let registry = new.found.as_ref().map_err(String::clone).and_then(|found| client(&new.spec, found));
        match &registry {
            Ok(_) => info!(address = %new.spec.address, "artifacts go to this registry"),
            Err(problem) => warn!(address = %new.spec.address, problem, "the registry cannot be used"),
        }
        self.shelf.replace(Some(registry.map_err(|why| format!("the registry {}: {why}", new.spec.address.host()))));
        self.shelf.is_made_of(Some(new.spec.clone()));
        *made = Some(new);
    }

    async fn found(&mut self, spec: &RegistrySpec) -> Result<Found, String> {
        let authority = match &spec.ca_file {
            Some(path) => {
                let read = tokio::fs::read_to_string(path).await;
                Some(read.map_err(|problem| format!("its authority {path} cannot be read: {problem}"))?)
            }
            None => None,
        };
        let secret = match secret(&spec.credentials) {
            Some(from) => {
                let value = secrets::value(from, &self.folders, &self.folder, &mut self.cancel).await;
                Some(value.map_err(|why| format!("the secret of its credentials {why}"))?)
            }
            None => None,
        };
        Ok(Found { authority, secret })
    }
}

/// Waits until something is said of releases; whether there can be more.
async fn applied(happened: &mut broadcast::Receiver<Arc<Record>>) -> bool {
    loop {
        match happened.recv().await {
            Ok(record) if record.kind == "releases_applied" => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

fn secret(credentials: &RegistryCredentials) -> Option<&SecretRef> {
    match credentials {
        RegistryCredentials::None | RegistryCredentials::Docker { .. } => None,
        RegistryCredentials::Basic { password: secret, .. }
        | RegistryCredentials::Token(secret)
        | RegistryCredentials::Identity(secret) => Some(secret),
    }
}

fn client(spec: &RegistrySpec, found: &Found) -> Result<Registry, String> {
    let machine = Authorities::of_machine();
    let authorities = match &found.authority {
        Some(pem) => machine.and(&Authorities::parse(pem).map_err(|problem| format!("its authority: {problem}"))?),
        None => machine,
    };
    let secret = found.secret.clone().unwrap_or_default();
    let credentials = match &spec.credentials {
        RegistryCredentials::None => Credentials::Anonymous,
        RegistryCredentials::Docker { file } => Credentials::Docker(file.into()),
        RegistryCredentials::Basic { user, .. } => Credentials::Password { user: user.clone(), password: secret },
        RegistryCredentials::Token(_) => Credentials::Token(secret),
        RegistryCredentials::Identity(_) => Credentials::Identity(secret),
    };
    // Who names an authority means TLS, also on this machine.
    let clear = if spec.ca_file.is_some() { Clear::Never } else { Clear::OnLoopback };
    let uploads = NonZeroU8::new(spec.uploads).unwrap_or(NonZeroU8::MIN);
    let place = spec.address.clone();
    Ok(Registry::new(Settings { place, authorities, credentials, uploads, clear, silence: SILENCE }))
}
