//! The one word that an operator carries from controller to a new proxy or agent.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, NotAccepted};

/// Where to join, whom to trust, and the secret that may be used once.
///
/// Written `pmjoin1.<controller host:port>.<sha256 of the fleet CA>.<secret>`. The fingerprint lets the joiner verify
/// the controller before it says anything, so the word is all that has to be carried.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Host and port of the controller, as proxies and agents reach it.
    pub controller: String,
    /// SHA-256 of the fleet CA's certificate (DER).
    pub ca: Digest,
    /// What the controller checks; it stores the hash.
    pub secret: String,
}

impl FromStr for JoinToken {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        // The text is a secret, so the error does not repeat it.
        let wrong = || {
            NotAccepted::new(
                "a join token",
                "(not shown)",
                "the whole word that `pointsman join` printed, which begins with \"pmjoin1.\"",
            )
        };
        let rest = text.trim().strip_prefix("pmjoin1.").ok_or_else(wrong)?;
        // From the right: the address holds dots itself.
        let (rest, secret) = rest.rsplit_once('.').ok_or_else(wrong)?;
        let (controller, ca) = rest.rsplit_once('.').ok_or_else(wrong)?;
        let has_port = controller
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        let is_secret = secret.len() >= 32 && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        if !has_port || !is_secret {
            return Err(wrong());
        }
        Ok(Self {
            controller: controller.into(),
            ca: format!("sha256:{ca}").parse().map_err(|_| wrong())?,
            secret: secret.into(),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pmjoin1.{}.{}.{}", self.controller, self.ca.hex(), self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("controller", &self.controller).field("ca", &self.ca).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_stay_out_of_debug() {
        for controller in ["controller.example.com:7400", "127.0.0.1:7400", "[::1]:7400"] {
            let token = JoinToken { controller: controller.into(), ca: Digest::of(b"ca"), secret: "s".repeat(43) };
            assert_eq!(token.to_string().parse(), Ok(token.clone()));
            assert!(!format!("{token:?}").contains("sss"));
        }
    }

    #[test]
    fn a_cut_token_is_refused_without_being_repeated() {
        let whole = JoinToken { controller: "127.0.0.1:7400".into(), ca: Digest::of(b"ca"), secret: "s".repeat(43) }
            .to_string();
        for bad in ["", "pmjoin1.", &whole[..whole.len() - 20], &whole[1..], &whole.replace(":7400", "")] {
            let error = bad.parse::<JoinToken>().expect_err(bad);
            assert!(!error.to_string().contains("sss"), "{error}");
        }
    }
}
