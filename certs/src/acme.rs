//! Certificates from an ACME server (RFC 8555): an account, orders, proofs, and when to renew.
//!
//! Must not know: events, proxies, or the controller's files beyond the folder it is given. Who shows a proof to the
//! world is behind [`Prover`].
//!
//! Main types: [`Account`], which orders; [`Prover`], which shows that a name is ours ([`hook::Hook`] by an operator's
//! command); [`AcmeError`], whose fault it was. [`renewal`] decides when, and is pure.

mod account;
mod alpn;
mod authorize;
mod error;
pub mod hook;
mod http;
mod issued;
mod order;
mod prove;
pub mod renewal;

pub use account::Account;
pub use alpn::{PROTOCOL, challenge_certificate};
pub use error::{AcmeError, Problem, Side};
pub use issued::validity;
pub use prove::{Method, Proof, Prover};
pub use renewal::Window;

use crate::endpoint::Authorities;

/// Which server, and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// URL of the server's directory (RFC 8555 §7.1.1), `https` only, such as
    /// `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// Where the authority may write to: URLs such as `mailto:ops@example.com`; may be empty. They count when the account
    /// is made.
    pub contact: Vec<String>,
    /// Who is believed about the server itself.
    pub roots: Authorities,
    /// Key identifier and HMAC key (the raw bytes, not their base64url) of an account that exists elsewhere, for servers
    /// that ask for one (RFC 8555 §7.3.4). They count when the account is made.
    pub external_account: Option<(String, Vec<u8>)>,
    /// Which of the server's profiles orders ask for (draft-ietf-acme-profiles); `None` leaves it to the server.
    pub profile: Option<String>,
}
