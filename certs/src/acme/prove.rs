//! How a name is shown to be ours (RFC 8555 §8): the methods, what there is to show, and who shows it.

use std::fmt;

use api::Host;
use instant_acme::ChallengeType;

/// A way to prove a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A TXT record (RFC 8555 §8.4): the only one that proves a wildcard.
    Dns01,
    /// A file on port 80 (RFC 8555 §8.3).
    Http01,
    /// A certificate on port 443 (RFC 8737).
    TlsAlpn01,
}

/// What there is to show for one name until the server has looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// How it is to be shown.
    pub method: Method,
    /// Which name, without `*.`.
    pub host: Host,
    /// The challenge's name: base64url, at most 256 characters. With HTTP-01 the last segment of the path
    /// `/.well-known/acme-challenge/<token>`.
    pub token: String,
    /// Token and thumbprint of the account's key (RFC 8555 §8.1). With HTTP-01 the body of the answer; with TLS-ALPN-01
    /// for [`super::challenge_certificate`].
    pub key_authorization: String,
    /// With DNS-01 the text of the record `_acme-challenge.<host>`: the digest of the key authorization, base64url.
    pub dns_value: String,
}

/// Shows proofs to the world.
///
/// A name and its wildcard are proved by one host with two values at the same time, so that showing one must leave the
/// other.
#[tonic::async_trait]
pub trait Prover: Send + Sync {
    /// Shows it. When this returns, the whole world sees it: the server looks at once, from several places.
    ///
    /// # Errors
    /// Why it cannot be shown, as a sentence. It is withdrawn all the same, because a part may be visible.
    async fn show(&self, proof: &Proof) -> Result<(), String>;

    /// Takes it back; a failure is the prover's own to tell. Called once for each that was shown or tried.
    async fn withdraw(&self, proof: &Proof);
}

// === impl Method ===

impl Method {
    pub(super) fn of(challenge: &ChallengeType) -> Option<Self> {
        match challenge {
            ChallengeType::Dns01 => Some(Self::Dns01),
            ChallengeType::Http01 => Some(Self::Http01),
            ChallengeType::TlsAlpn01 => Some(Self::TlsAlpn01),
            _ => None,
        }
    }

    pub(super) fn challenge(self) -> ChallengeType {
        match self {
            Self::Dns01 => ChallengeType::Dns01,
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dns01 => "dns-01",
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        })
    }
}
