//! What operators and teams wrote, as it is meant: the second of the two types of each file.
//!
//! Must not know: TOML, places in files, or how a mistake is told; `files` does that. Everything here is already valid
//! by itself; what needs other state (does the environment exist?) is checked by `decide`.

mod access;
mod build;
mod certificates;
mod releases;
mod rollout;

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use api::{ComponentName, EnvironmentName, Host, MemberName, ServiceName, Span};
use serde::{Deserialize, Serialize};

pub use access::{
    ACCESS_BYTES, AccessSpec, AttributeRule, AttributeType, Credentials, DOCUMENT_BYTES, DOCUMENTS_MOST, Denial,
    GroupMeaning, GroupRule, IssuerSpec, LEEWAY, LEEWAY_MOST, REFRESH, REFRESH_LEAST, REFRESH_MOST,
};
pub use build::{
    BUILD_CHECKS_MOST, BuildCheck, BuildLimits, BuildSpec, ImageSpec, POLL, POLL_LEAST, POLL_MOST, ScheduleSpec,
    Source, TriggerSpec, WORKSPACE_BYTES,
};
pub use certificates::{
    ACME_DIRECTORY, AcmeSpec, CertificateSource, ChallengeSpec, ClientCertificates, ExternalAccount, HOOK_TIMEOUT,
};
pub use releases::{
    BUILDERS, BUILDERS_MOST, GitCredentials, KeepSpec, REPOSITORY_FILES_MOST, RegistryCredentials, RegistrySpec,
    ReleasesSpec, RepositorySpec, SecretRef, SecretSpec, ServicePattern, UPLOADS, WebhookKind, WebhookSpec,
};
pub use rollout::{
    BlueGreen, Bounds, Breach, CHECK_EVERY, CHECK_FALL, CHECK_TIMEOUT, CHECKS_MOST, Check, CheckKind, INSIDERS_BYTES,
    Insiders, Limits, Meanwhile, Objective, OnWorse, RolloutSpec, SHARE_LEAST, STEP_REQUESTS_MOST, STEP_TIME_MOST,
    STEPS_MOST, Step, Sticky, Strategy, WORDS, WrongWord, check_words, fill,
};
pub(crate) use rollout::{is_near, names_near, sample};

/// How long a release that left is kept ready when nobody says otherwise.
pub const KEEP_WARM: Span = Span::from_ms(3_600_000).expect("an hour is a span");

/// Longest time between two health checks, and longest for one: proxies accept no more.
pub const HEALTH_MOST: Span = Span::from_ms(3_600_000).expect("an hour is a span");

/// A place shared by services, owned by the operator (`production.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentSpec {
    /// Its name.
    pub name: EnvironmentName,
    /// DNS zone in which its stages have their implicit hosts.
    pub zone: Host,
    /// IANA name, default `UTC`.
    pub time_zone: String,
    /// Where releases run.
    pub target: Target,
    /// For stages that say nothing; default [`KEEP_WARM`].
    pub keep_warm: Span,
    /// Whether every change needs a reason; default no.
    pub reason_required: bool,
    /// How its hosts are asked for; default in clear and over TLS alike.
    #[serde(default)]
    pub https: HttpsSpec,
    /// Where its certificates come from; default the development authority.
    #[serde(default)]
    pub certificates: CertificateSource,
    /// Which certificates clients may show, to all its hosts alike; none: they are not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    /// What is told to those who may not call a stage that they may know of; stages may only tighten it.
    #[serde(default)]
    pub denial: Denial,
    /// What calls have to come with; stages may only ask for more.
    #[serde(default)]
    pub credentials: Credentials,
    /// Whether its stages may be public; default yes.
    #[serde(default = "may_be_public")]
    pub may_be_public: bool,
}

fn may_be_public() -> bool {
    true
}

impl EnvironmentSpec {
    /// Files and programs of the controller's machine that it names: whoever may name them may do there what it may.
    pub fn on_machine(&self) -> Vec<OnMachine> {
        let lists = self.client_certificates.iter().filter_map(|clients| clients.crl_file.as_deref());
        let lists = lists.map(|list| OnMachine::of("list", [list]));
        self.certificates.on_machine().into_iter().chain(lists).collect()
    }
}

impl ServiceSpec {
    /// As for environments, and servers there.
    pub fn on_machine(&self) -> Vec<OnMachine> {
        let of_stage = |(name, stage): (&EnvironmentName, &StageSpec)| {
            let list = stage.client_certificates.as_ref().and_then(|clients| clients.crl_file.as_deref());
            let list = list.map(|list| OnMachine::of("list", [list]));
            let named = list.into_iter().chain(stage.rollout.on_machine());
            let stage = name.clone();
            named.map(move |named| OnMachine { stage: Some(stage.clone()), ..named }).collect::<Vec<_>>()
        };
        self.stages.iter().flat_map(of_stage).collect()
    }
}

/// One thing of the controller's machine that a file names. Two are the same only where all of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnMachine {
    /// Which stage names it; none: an environment, or the service as a whole.
    pub stage: Option<EnvironmentName>,
    /// As what: "list" of revoked certificates, "certificate" with its key, "hook", "account" key, "command", "http" or
    /// "prometheus" server.
    pub kind: &'static str,
    /// Paths, a program with its arguments, or a URL.
    pub words: Vec<String>,
}

impl OnMachine {
    fn of<'w>(kind: &'static str, words: impl IntoIterator<Item = &'w str>) -> Self {
        Self { stage: None, kind, words: words.into_iter().map(str::to_owned).collect() }
    }
}

/// How the hosts of an environment are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsSpec {
    /// Port of https that requests in clear are redirected to; `None`: they are served.
    pub redirect_port: Option<NonZeroU16>,
    /// How long browsers remember to ask over TLS only (`Strict-Transport-Security`, RFC 6797); `None`: they are not told.
    pub hsts: Option<Span>,
}

impl std::fmt::Display for HttpsSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let redirect = self.redirect_port.map(|port| format!("clear requests go to port {port}"));
        let hsts = self.hsts.map(|span| format!("HSTS {span}"));
        f.write_str(&redirect.into_iter().chain(hsts).collect::<Vec<_>>().join(", "))
    }
}

/// Where the releases of an environment run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Addresses given by hand with `release add`.
    Static,
    /// Hosts with an agent of this group.
    Agent {
        /// The group.
        group: MemberName,
    },
}

/// Something that is built and serves (`pointsman.toml`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Where its commits come from; without one, releases are added by hand.
    pub source: Option<Source>,
    /// What asks for builds by itself.
    #[serde(default)]
    pub trigger: TriggerSpec,
    /// How a commit becomes artifacts; frozen into each release.
    pub build: Option<BuildSpec>,
    /// Its parts; frozen into each release. Exactly one has a protocol: that one is routed to.
    pub components: BTreeMap<ComponentName, ComponentSpec>,
    /// Where it may be; policy: the newest applied counts.
    pub stages: BTreeMap<EnvironmentName, StageSpec>,
}

/// A part of a service with an artifact of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSpec {
    /// Folder of the checkout that becomes the artifact, relative, without `..`; `{environment}` in it makes one for each
    /// stage. Empty: it is an image.
    pub folder: String,
    /// The image that the build command pushes; none: it is a folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// Command and arguments, relative to the folder; `{port}` becomes the port. Empty: carried along, not run.
    pub run: Vec<String>,
    /// How it is spoken to; none: not routed to.
    pub protocol: Option<Protocol>,
    /// How it is verified, when its protocol is through TLS; none: as the defaults say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// How it shows that it is well.
    pub health: HealthSpec,
    /// Variables for the running component.
    pub environment: BTreeMap<String, String>,
    /// Between SIGTERM and SIGKILL; default 30 s.
    pub stop: Span,
}

/// How a component is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 in clear.
    H1,
    /// HTTP/2 in clear with prior knowledge.
    H2c,
    /// HTTP/1.1 through TLS.
    Tls,
    /// HTTP/2 through TLS.
    H2,
}

impl Protocol {
    /// Whether it is HTTP/2, in clear or not.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2)
    }

    /// Whether it goes through TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::H2)
    }
}

/// Whom a component's endpoints must be, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TlsSpec {
    /// Certificates of the authorities that are trusted, PEM; none: those of the machine that connects.
    pub ca: Option<String>,
    /// DNS name or IP address that the certificate must be for; none: the stage's host, `<service>.<zone>`.
    pub name: Option<String>,
    /// SPIFFE ID that the certificate must name, in place of the name, which is then only asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe: Option<String>,
}

/// How a component shows that it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// Path that answers 2xx; none: a TCP connection is enough.
    pub http: Option<String>,
    /// Default 2 s.
    pub every: Span,
    /// Default 1 s.
    pub timeout: Span,
    /// Failures in a row until unhealthy, default 3.
    pub fall: u32,
    /// Successes in a row until healthy, default 1.
    pub rise: u32,
}

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct StageSpec {
    /// Environments a release must have served in before; empty: none.
    pub from: Vec<EnvironmentName>,
    /// How long a release that left is kept ready; none: as the environment says.
    pub keep_warm: Option<Span>,
    /// Origins whose pages may call the stage from a browser; empty: the service answers for itself.
    #[serde(default)]
    pub cors: Vec<String>,
    /// Whether anybody may know that it exists, and call it without credentials; default no.
    #[serde(default)]
    pub public: bool,
    /// Which certificates clients may show to its hosts, in place of what the environment says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
    /// As the environment's, in place of it; none: as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// As the environment's, in place of it; none: as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// How a release enters; default all at once.
    #[serde(default)]
    pub rollout: RolloutSpec,
}
