//! What the operator says of releases as a whole (`releases.toml`): who builds, where artifacts go, which repositories
//! register their services, which secrets builds may have, what is kept.
//!
//! Must not know: a secret. There are references only, read where they are used.

use std::collections::{BTreeMap, BTreeSet};

use api::{MemberName, ServiceName, Span};
use registry::Place;
use serde::{Deserialize, Serialize};

use super::OnMachine;

/// Builds at once when nobody says otherwise, and at most.
pub const BUILDERS: u32 = 2;
/// See [`BUILDERS`].
pub const BUILDERS_MOST: u32 = 64;
/// Uploads at once to the registry when nobody says otherwise.
pub const UPLOADS: u8 = 4;
/// Files of a repository that may describe services.
pub const REPOSITORY_FILES_MOST: usize = 32;

/// `releases.toml`: one for the whole controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasesSpec {
    /// Builds at once, 1 to [`BUILDERS_MOST`]; default [`BUILDERS`].
    pub builders: u32,
    /// Where artifacts are pushed to; none: they stay on the controller's disk.
    pub registry: Option<RegistrySpec>,
    /// Repositories whose services register themselves, by name.
    pub repositories: BTreeMap<MemberName, RepositorySpec>,
    /// What builds may be given, by name.
    pub secrets: BTreeMap<String, SecretSpec>,
    /// What stays.
    pub keep: KeepSpec,
}

/// A registry for what is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrySpec {
    /// Components go to `<address>/<service>/<component>`.
    pub address: Place,
    /// PEM file of authorities that count beside the machine's.
    pub ca_file: Option<String>,
    /// Who we are there.
    pub credentials: RegistryCredentials,
    /// Uploads at once, 1 to 16; default [`UPLOADS`].
    pub uploads: u8,
}

/// Who we are to a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryCredentials {
    /// Nobody.
    #[default]
    None,
    /// As docker's `config.json` at this path says, with its helpers.
    Docker {
        /// Path.
        file: String,
    },
    /// A name and its password.
    Basic {
        /// Name.
        user: String,
        /// Password.
        password: SecretRef,
    },
    /// A registry token, sent as it is.
    Token(SecretRef),
    /// An identity token, which is exchanged for others.
    Identity(SecretRef),
}

/// Where a secret is; never the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// Path of a file of the controller's machine; one line end at its end is no part of it.
    File(String),
    /// Variable of the controller's own environment.
    Environment(String),
    /// Program and arguments; what it prints, without one line end at its end.
    Command(Vec<String>),
}

/// A secret that builds may be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// Where it is.
    pub from: SecretRef,
    /// Which services may have it.
    pub services: Vec<ServicePattern>,
}

/// A repository whose services register themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySpec {
    /// As `git clone` takes it.
    pub url: String,
    /// Branch that counts; default `main`.
    pub branch: String,
    /// Files on it that describe services; default `pointsman.toml`, at most [`REPOSITORY_FILES_MOST`].
    pub files: Vec<String>,
    /// Who we are to its server; also for builds of services whose source has the same URL.
    pub credentials: Option<GitCredentials>,
    /// Who may tell us that something has changed.
    pub webhook: Option<WebhookSpec>,
    /// Names that it may register; at least one.
    pub services: Vec<ServicePattern>,
}

/// Who we are to a server of repositories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitCredentials {
    /// Name.
    pub user: String,
    /// Password or token.
    pub password: SecretRef,
}

/// Who may tell us that something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSpec {
    /// How it shows that it may.
    pub kind: WebhookKind,
    /// Key of its signatures.
    pub secret: SecretRef,
}

/// How a webhook is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// `X-Hub-Signature-256` over the body, as GitHub sends it.
    Github,
    /// `X-Pointsman-Signature` over time and body.
    Signed,
}

/// Names of services: one name, or its beginning and a `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePattern(pub String);

/// What stays of releases that nothing needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepSpec {
    /// Newest releases of each service; default 200.
    pub releases: u32,
    /// Logs of builds, so long after the build; default 90 days.
    pub logs: Span,
    /// Releases of each service whose artifacts stay; default 20.
    pub artifacts: u32,
    /// Releases before the stable one of each stage that can be rolled back to; default 5.
    pub back: u32,
    /// Whether what goes is removed from the registry, too; default no.
    pub in_registry: bool,
}

// === impl ReleasesSpec ===

impl Default for ReleasesSpec {
    fn default() -> Self {
        let (repositories, secrets) = (BTreeMap::new(), BTreeMap::new());
        Self { builders: BUILDERS, registry: None, repositories, secrets, keep: KeepSpec::default() }
    }
}

impl ReleasesSpec {
    /// Files and programs of the controller's machine that it names.
    pub fn on_machine(&self) -> Vec<OnMachine> {
        let mut all: Vec<_> = self.references().filter_map(SecretRef::on_machine).collect();
        if let Some(registry) = &self.registry {
            all.extend(registry.ca_file.as_deref().map(|path| OnMachine::of("certificate", [path])));
            if let RegistryCredentials::Docker { file } = &registry.credentials {
                all.push(OnMachine::of("secret", [file.as_str()]));
            }
        }
        all
    }

    /// Variables of the controller that no build gets by `pass`: the names of secrets, and those in which a secret is. Who
    /// may have one is said by `services` alone.
    pub fn withheld(&self) -> BTreeSet<&str> {
        let variables = self.references().filter_map(|reference| match reference {
            SecretRef::Environment(name) => Some(name.as_str()),
            SecretRef::File(_) | SecretRef::Command(_) => None,
        });
        self.secrets.keys().map(String::as_str).chain(variables).collect()
    }

    /// Where all its secrets are.
    fn references(&self) -> impl Iterator<Item = &SecretRef> {
        let secrets = self.secrets.values().map(|secret| &secret.from);
        let of_repositories = self.repositories.values().flat_map(|repository| {
            let password = repository.credentials.iter().map(|credentials| &credentials.password);
            password.chain(repository.webhook.iter().map(|webhook| &webhook.secret))
        });
        let of_registry = self.registry.iter().filter_map(|registry| match &registry.credentials {
            RegistryCredentials::None | RegistryCredentials::Docker { .. } => None,
            RegistryCredentials::Basic { password: secret, .. }
            | RegistryCredentials::Token(secret)
            | RegistryCredentials::Identity(secret) => Some(secret),
        });
        secrets.chain(of_repositories).chain(of_registry)
    }
}

impl SecretRef {
    fn on_machine(&self) -> Option<OnMachine> {
        match self {
            Self::File(path) => Some(OnMachine::of("secret", [path.as_str()])),
            Self::Environment(_) => None,
            Self::Command(words) => Some(OnMachine::of("command", words.iter().map(String::as_str))),
        }
    }
}

impl ServicePattern {
    /// Whether it means this service.
    pub fn covers(&self, service: &ServiceName) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => service.as_str().starts_with(beginning),
            None => service.as_str() == self.0,
        }
    }
}

impl Default for KeepSpec {
    fn default() -> Self {
        let logs = Span::from_ms(90 * 86_400_000).expect("90 days are a span");
        Self { releases: 200, logs, artifacts: 20, back: 5, in_registry: false }
    }
}
