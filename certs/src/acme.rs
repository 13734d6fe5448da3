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
#[derive(Clone)]
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

impl std::fmt::Debug for Settings {
    // Without the key of the external account: what is shown ends in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Settings");
        shown.field("directory", &self.directory).field("contact", &self.contact).field("profile", &self.profile);
        shown.field("external_account", &self.external_account.as_ref().map(|(id, _)| id)).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acme_the_key_of_an_external_account_is_never_shown() {
        let settings = Settings {
            directory: "https://acme.example.com/directory".into(),
            contact: Vec::new(),
            roots: Authorities::default(),
            external_account: Some(("kid-1".into(), vec![203, 204])),
            profile: None,
        };
        let shown = format!("{settings:?}");
        assert!(shown.contains("kid-1") && !shown.contains("203"), "{shown}");
    }
}
