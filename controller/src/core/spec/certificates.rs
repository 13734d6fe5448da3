//! What operators wrote of certificates: where an environment's come from, and which ones clients may show.

use api::Span;
use serde::{Deserialize, Serialize};

use super::OnMachine;

/// Let's Encrypt: public, free, and what people mean when they say no more than "acme".
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How long a DNS hook may take when nobody says otherwise: slow providers take a minute until a record is seen.
pub const HOOK_TIMEOUT: Span = Span::from_ms(120_000).expect("two minutes are a span");

/// Where the certificates of an environment come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// The controller's own authority, which clients have to be told to trust.
    #[default]
    Development,
    /// Two files on the controller's machine, looked at all the time.
    Files {
        /// Absolute path of a PEM, leaf first.
        chain: String,
        /// Absolute path of a PEM.
        key: String,
    },
    /// A certificate authority that speaks ACME (RFC 8555).
    Acme(AcmeSpec),
    /// What `cert import` brought last.
    Imported,
}

/// How certificates are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeSpec {
    /// URL of the directory; default [`ACME_DIRECTORY`].
    pub directory: String,
    /// URLs of whom the authority may write to, such as `mailto:ops@example.com`.
    pub contact: Vec<String>,
    /// Who vouches for the directory's own certificate, PEM; none: whom the controller's machine trusts.
    pub ca: Option<String>,
    /// How it is shown that the names are ours.
    pub challenge: ChallengeSpec,
    /// What the authority calls the kind of certificate; none: its usual one.
    pub profile: Option<String>,
    /// The account elsewhere to which ours belongs (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
}

/// How it is shown that names are ours (RFC 8555 §8, RFC 8737).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeSpec {
    /// By a record in the zone: one wildcard for all its hosts, so that none of their names gets into a public log.
    Dns {
        /// Program and first arguments; it is given `present` or `cleanup`, the record's name and its value.
        hook: Vec<String>,
        /// Longest time for either; default [`HOOK_TIMEOUT`].
        timeout: Span,
    },
    /// By an answer in clear, from any proxy: one certificate for each host of a stage that is public.
    Http,
    /// By a handshake with any proxy: as [`ChallengeSpec::Http`].
    TlsAlpn,
}

/// An account at the authority that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    /// Its key identifier.
    pub id: String,
    /// Absolute path on the controller's machine of its key: base64url, as authorities give it out.
    pub key_file: String,
}

/// Which certificates clients may show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// The authorities that are trusted, PEM, and no others.
    pub ca: String,
    /// Absolute path on the controller's machine of lists of revoked certificates, PEM; looked at all the time. None:
    /// revocation is not asked about.
    pub crl_file: Option<String>,
    /// Whether a handshake without one fails; default true.
    pub required: bool,
}

impl CertificateSource {
    /// What tells it from others that bring other certificates: two ACME directories are two sources.
    pub fn key(&self) -> String {
        match self {
            Self::Acme(acme) => format!("acme {} {}", acme.directory, acme.profile.as_deref().unwrap_or_default()),
            other => other.name().to_owned(),
        }
    }

    /// Files and programs of the controller's machine that it names.
    pub fn on_machine(&self) -> Vec<OnMachine> {
        match self {
            Self::Files { chain, key } => vec![OnMachine::of("certificate", [chain.as_str(), key])],
            Self::Acme(acme) => {
                let hook = match &acme.challenge {
                    ChallengeSpec::Dns { hook, .. } => Some(OnMachine::of("hook", hook.iter().map(String::as_str))),
                    ChallengeSpec::Http | ChallengeSpec::TlsAlpn => None,
                };
                let external = acme.external_account.iter();
                let external = external.map(|external| OnMachine::of("account", [external.key_file.as_str()]));
                hook.into_iter().chain(external).collect()
            }
            Self::Development | Self::Imported => Vec::new(),
        }
    }

    /// The word for it, as in files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Files { .. } => "files",
            Self::Acme(_) => "acme",
            Self::Imported => "imported",
        }
    }
}

impl std::fmt::Display for CertificateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Acme(acme) => write!(f, "acme ({})", acme.challenge),
            Self::Files { chain, key } => write!(f, "files ({chain}, {key})"),
            Self::Development | Self::Imported => f.write_str(self.name()),
        }
    }
}

impl std::fmt::Display for ChallengeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dns { .. } => "dns-01",
            Self::Http => "http-01",
            Self::TlsAlpn => "tls-alpn-01",
        })
    }
}

impl std::fmt::Display for ClientCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.required { "required" } else { "optional" })
    }
}
