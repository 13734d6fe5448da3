//! Why a registry did not do what it was asked, and whether asking again may help.

use std::fmt;
use std::time::Duration;

use api::Digest;

use crate::ArtifactError;

/// Why something at a registry failed. Displays as one sentence that names the place, without any secret.
#[derive(Debug)]
pub struct RegistryError {
    /// Where: a repository, or a registry's host.
    pub at: String,
    /// Why.
    pub why: Why,
}

/// What went wrong at a registry.
#[derive(Debug)]
pub enum Why {
    /// No connection, or not with whom it should be: the reason in words.
    Unreachable(String),
    /// Its certificate is not that of whom we asked for, by anybody whom we believe: in words.
    Untrusted(String),
    /// It was silent, or slower than anybody waits for.
    TooSlow,
    /// The connection ended within an answer or a request.
    Cut(String),
    /// It answered with an error.
    Refused {
        /// HTTP status.
        status: u16,
        /// The registry's own word, as `BLOB_UNKNOWN`; may be empty.
        code: String,
        /// What it said, cut and without control characters.
        message: String,
        /// How long it wants not to be asked.
        retry_after: Option<Duration>,
    },
    /// It does not know us, or we may not do this; also after a new token.
    Unauthorized,
    /// There is no such manifest or blob.
    Unknown,
    /// Who we are could not be found out: the reason in words.
    Credentials(String),
    /// What came has another digest; it was not kept.
    Mismatch {
        /// Asked for.
        wanted: Digest,
        /// Came.
        found: Digest,
    },
    /// More came than was announced, or than is taken of such an answer.
    TooLarge {
        /// Bytes that are accepted.
        most: u64,
    },
    /// It answered in a form that the specification does not have: in words.
    Strange(String),
    /// Our own side: what is on this disk is not what its digest says, or the disk does not take it.
    Disk(ArtifactError),
}

/// Whether the same request may work later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// No: somebody has to change something first.
    Never,
    /// Yes, and not before so long has passed, if the registry said so.
    Later(Option<Duration>),
}

impl RegistryError {
    /// Whether asking again may help. What was given up after several attempts says `Later` too.
    pub fn again(&self) -> Again {
        self.why.again()
    }
}

impl Why {
    pub(crate) fn again(&self) -> Again {
        match self {
            Self::Unreachable(_) | Self::TooSlow | Self::Cut(_) => Again::Later(None),
            Self::Refused { status: 408 | 429 | 500..=599, retry_after, .. } => Again::Later(*retry_after),
            _ => Again::Never,
        }
    }

    pub(crate) fn at(self, place: &impl fmt::Display) -> RegistryError {
        RegistryError { at: place.to_string(), why: self }
    }
}

impl From<ArtifactError> for Why {
    fn from(error: ArtifactError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "the registry cannot be reached: {why}"),
            Self::Untrusted(why) => write!(f, "the registry is not trusted: {why}"),
            Self::TooSlow => f.write_str("the registry is silent, or too slow to wait for"),
            Self::Cut(why) => write!(f, "the connection to the registry was cut: {why}"),
            Self::Refused { status, code, message, .. } => {
                write!(f, "the registry answered {status}")?;
                let told = [code, message].map(String::as_str).into_iter().filter(|text| !text.is_empty());
                told.into_iter().try_for_each(|text| write!(f, " {text}"))
            }
            Self::Unauthorized => f.write_str(
                "the registry does not let us in: maybe the credentials are wrong, or lack the right to do this there",
            ),
            Self::Unknown => f.write_str("the registry does not have it"),
            Self::Credentials(why) => write!(f, "the credentials could not be found out: {why}"),
            Self::Mismatch { wanted, found } => {
                write!(f, "what came for {wanted} has the digest {found}; it was not kept")
            }
            Self::TooLarge { most } => write!(f, "the registry sent more than the {most} bytes that are accepted"),
            Self::Strange(why) => write!(f, "the registry answered in a form that is not understood: {why}"),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RegistryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.why {
            Why::Disk(error) => Some(error),
            _ => None,
        }
    }
}

/// What somebody else said, for a message: short, one line, nothing that moves a cursor.
pub(crate) fn shown(text: &str) -> String {
    text.chars()
        .take(200)
        .flat_map(|letter| if letter.is_control() { ' '.escape_debug() } else { letter.escape_debug() })
        .collect()
}
