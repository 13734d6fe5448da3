//! The fleet's own certificates: the controller is the authority, each proxy and agent keeps the key that it made.
//!
//! Must not know: tokens' life, leases, or what is said over the connections; it says who the other side is.
//!
//! A member is named by a SPIFFE URI in its certificate, `spiffe://pointsman/<role>/<name>` (SPIFFE-ID §2); an operator
//! who has a certificate in place of a token by `spiffe://pointsman/operator/<name>`. The controller's certificate
//! carries one fixed DNS name, so a member needs no name or address of it to verify it.
//!
//! The rooms: `authority` signs, `grace` says who passes the handshake, `trust` verifies the controller, `identity` is a
//! member's own, `renewal` keeps it from growing old, `connect` opens channels, `operator` is an operator's own.

mod authority;
mod connect;
mod grace;
mod identity;
mod operator;
mod renewal;
mod trust;
mod validity;

pub use authority::{FleetCa, certificate_pem, server_config_is_old};
pub(crate) use authority::{leaf, make_authority};
pub use connect::operator_channel;
pub use grace::GRACE;
pub use identity::{Identity, join};
pub use operator::{OperatorKey, certified_operator_channel, forgotten_since};
pub use trust::WrongClock;
pub use validity::rfc3339;

use std::time::SystemTime;

use api::MemberName;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::CertsError;
use validity::Validity;

/// The name in the controller's certificate. `.internal` is reserved for private use (ICANN resolution 2024.07.29.06).
const CONTROLLER_NAME: &str = "controller.pointsman.internal";

/// What a member of the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Forwards requests.
    Proxy,
    /// Runs releases.
    Agent,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Proxy => "proxy",
            Self::Agent => "agent",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = CertsError;

    fn from_str(text: &str) -> Result<Self, CertsError> {
        match text {
            "proxy" => Ok(Self::Proxy),
            "agent" => Ok(Self::Agent),
            _ => Err(CertsError::Material(format!("{text:?} is not a role: accepted is proxy or agent"))),
        }
    }
}

/// What somebody with a certificate of the fleet's authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A proxy or an agent.
    Member(Role),
    /// An operator; the certificate stands for the token of that name.
    Operator,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(role) => role.fmt(f),
            Self::Operator => f.pad("operator"),
        }
    }
}

/// Who is at the other end of a connection, by its verified client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is.
    pub who: Who,
    /// Its registered name, or that of its token.
    pub name: MemberName,
    /// Serial number of the certificate, for revocation.
    pub serial: Vec<u8>,
    /// From when the certificate counts: a little before it was made.
    pub from: SystemTime,
    /// When the certificate ends. The handshake lets it through for [`GRACE`] longer, for a renewal and nothing else.
    pub until: SystemTime,
}

fn spiffe_id(who: Who, name: &MemberName) -> String {
    format!("spiffe://pointsman/{who}/{name}")
}

/// Reads who it is from a chain that rustls has verified; `None` when the leaf names neither member nor operator.
///
/// Only a certificate with exactly one URI counts (SPIFFE X509-SVID §2): two names would be a choice for the reader.
pub fn peer(certificates: &[CertificateDer<'_>]) -> Option<Peer> {
    let (_, leaf) = X509Certificate::from_der(certificates.first()?).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    let (who, name) = uri.strip_prefix("spiffe://pointsman/")?.split_once('/')?;
    let who = if who == "operator" { Who::Operator } else { Who::Member(who.parse().ok()?) };
    let Validity { from, until } = Validity::within(&leaf)?;
    Some(Peer { who, name: name.parse().ok()?, serial: leaf.raw_serial().to_vec(), from, until })
}

#[cfg(test)]
mod tests;
