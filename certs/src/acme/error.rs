//! Why there is no certificate: whose side, which name and challenge, in whose words.

use std::fmt;
use std::time::Duration;

use super::prove::Method;
use crate::CertsError;

/// What the server says is wrong: a problem document (RFC 8555 §6.7), bounded and without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its type without `urn:ietf:params:acme:error:`, such as `unauthorized`; empty when it names none.
    pub kind: String,
    /// In the server's words, with what it says about single names; may be empty.
    pub detail: String,
}

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Our settings, files or prover.
    Ours,
    /// The network or the server: trying again may help.
    Theirs,
    /// The name: what the world sees of it is not what was to be shown, or the server does not issue for it.
    Name,
}

/// Why there is no certificate.
#[derive(Debug)]
pub enum AcmeError {
    /// Something that was asked for cannot be: what, and what is accepted.
    Asked(String),
    /// The account's file cannot be used, or no key can be made.
    Kept(CertsError),
    /// The directory does not offer the profile.
    Profile {
        /// Which was asked for.
        asked: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// The server offers no such challenge for the name.
    NotOffered {
        /// Which name, with `*.` for a wildcard.
        name: String,
        /// Which challenge was asked for.
        method: Method,
        /// What there is.
        offered: Vec<Method>,
    },
    /// The proof could not be shown.
    Show {
        /// Which name, with `*.` for a wildcard.
        name: String,
        /// By which challenge.
        method: Method,
        /// Why, in the prover's words.
        why: String,
    },
    /// The server looked and did not find the proof.
    Proof {
        /// Which name, with `*.` for a wildcard.
        name: String,
        /// By which challenge.
        method: Method,
        /// What it found instead.
        problem: Problem,
    },
    /// The server refused.
    Refused {
        /// What was asked of it.
        doing: &'static str,
        /// Why.
        problem: Problem,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server could not be reached, or it does not speak ACME.
    Server {
        /// What was asked of it.
        doing: &'static str,
        /// What happened.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// What the server issued is not what was ordered: what is wrong with it.
    Issued(String),
    /// It took too long.
    TimedOut {
        /// What was being waited for.
        doing: &'static str,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(said: &instant_acme::Problem) -> Self {
        let kind = said.r#type.as_deref().unwrap_or_default();
        let mut detail = said.detail.clone().unwrap_or_default();
        for one in said.subproblems.iter().take(MOST_SUBPROBLEMS) {
            let name = one.identifier.as_ref().map(|name| name.authorized(false).to_string()).unwrap_or_default();
            detail.push_str(&format!("; {name}: {}", one.detail.as_deref().unwrap_or_default()));
        }
        Self { kind: plain(kind.strip_prefix(NAMESPACE).unwrap_or(kind)), detail: plain(&detail) }
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.detail.as_str(), self.kind.as_str()) {
            ("", "") => f.write_str("it does not say why"),
            (detail, "") => f.write_str(detail),
            ("", kind) => f.write_str(kind),
            (detail, kind) => write!(f, "{detail} ({kind})"),
        }
    }
}

// === impl AcmeError ===

impl AcmeError {
    /// Who has to do something about it.
    pub fn side(&self) -> Side {
        match self {
            Self::Asked(_) | Self::Kept(_) | Self::Profile { .. } | Self::NotOffered { .. } | Self::Show { .. } => {
                Side::Ours
            }
            Self::Proof { .. } => Side::Name,
            Self::Refused { problem, .. } => match problem.kind.as_str() {
                // RFC 8555 §6.7: about the names of an order.
                "caa" | "dns" | "rejectedIdentifier" | "unsupportedIdentifier" => Side::Name,
                // And about the account.
                "badContact"
                | "externalAccountRequired"
                | "invalidContact"
                | "unauthorized"
                | "unsupportedContact"
                | "userActionRequired" => Side::Ours,
                _ => Side::Theirs,
            },
            Self::Server { .. } | Self::Issued(_) | Self::TimedOut { .. } => Side::Theirs,
        }
    }

    /// How long the server wants to be left alone, if it said so: at most 7 days.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. }
            | Self::Server { retry_after, .. }
            | Self::TimedOut { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The name whose proof failed, with `*.` for a wildcard, and the challenge.
    pub fn challenge(&self) -> Option<(&str, Method)> {
        match self {
            Self::NotOffered { name, method, .. }
            | Self::Show { name, method, .. }
            | Self::Proof { name, method, .. } => Some((name, *method)),
            _ => None,
        }
    }

    /// Whether the server refused with this type of problem.
    pub(super) fn is_refusal(&self, kind: &str) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem.is(kind))
    }
}

impl fmt::Display for AcmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(what) => f.write_str(what),
            Self::Kept(error) => write!(f, "{error}"),
            Self::Profile { asked, offered } => {
                write!(f, "the ACME server does not offer the profile {asked:?}, {}", Offered(offered))
            }
            Self::NotOffered { name, method, offered } => {
                write!(f, "the ACME server does not prove {name} by {method}, {}", Offered(offered))
            }
            Self::Show { name, method, why } => write!(f, "the proof of {name} by {method} could not be shown: {why}"),
            Self::Proof { name, method, problem } => {
                write!(f, "the ACME server did not find the proof of {name} by {method}: {problem}")
            }
            Self::Refused { doing, problem, .. } => write!(f, "the ACME server refused to {doing}: {problem}"),
            Self::Server { doing, why, .. } => write!(f, "the ACME server was asked to {doing}: {why}"),
            Self::Issued(what) => write!(f, "the ACME server issued what was not ordered: {what}"),
            Self::TimedOut { doing, .. } => write!(f, "the ACME server was asked to {doing}: it took too long"),
        }?;
        match self.retry_after() {
            Some(wait) => write!(f, "; it asks to come back in {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for AcmeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kept(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CertsError> for AcmeError {
    fn from(error: CertsError) -> Self {
        Self::Kept(error)
    }
}

struct Offered<'o, T>(&'o [T]);

impl<T: fmt::Display> fmt::Display for Offered<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("it offers none");
        }
        let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "it offers {}", all.join(", "))
    }
}

const NAMESPACE: &str = "urn:ietf:params:acme:error:";
/// A problem may have one for each name of an order.
const MOST_SUBPROBLEMS: usize = 10;
/// Enough for a sentence or two.
const MOST_CHARACTERS: usize = 500;

/// Somebody else's text for a message of ours: at most 500 characters, everything escaped that is not to be seen.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(MOST_CHARACTERS) {
        // Also what turns the direction of a line round.
        let unseen = letter.is_control()
            || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if unseen { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h48_a_servers_words_are_escaped_and_bounded() {
        let long = "x".repeat(2_000);
        for (text, expected) in [
            ("no TXT record", "no TXT record"),
            ("a\x1b[2J\r\nb\0", "a\\u{1b}[2J\\r\\nb\\u{0}"),
            ("\u{202e}drawkcab", "\\u{202e}drawkcab"),
            (long.as_str(), &long[..500]),
        ] {
            assert_eq!(plain(text), expected);
        }
        let said = format!(
            r#"{{"type": "urn:ietf:params:acme:error:dns", "detail": "two\nlines",
                "subproblems": [{}{{"detail": "last"}}]}}"#,
            r#"{"detail": "lost", "identifier": {"type": "dns", "value": "a.example"}},"#.repeat(5_000)
        );
        let problem = Problem::new(&serde_json::from_str(&said).expect("a problem"));
        assert_eq!(problem.kind, "dns");
        assert!(problem.to_string().starts_with("two\\nlines; a.example: lost"), "{problem}");
        assert!(problem.detail.chars().count() < 600, "{problem}");
    }

    #[test]
    fn acme_errors_say_whose_side_they_are_on() {
        let refused = |kind: &str| AcmeError::Refused {
            doing: "take an order",
            problem: Problem { kind: kind.into(), detail: String::new() },
            retry_after: None,
        };
        for (error, side) in [
            (refused("rejectedIdentifier"), Side::Name),
            (refused("externalAccountRequired"), Side::Ours),
            (refused("rateLimited"), Side::Theirs),
            (AcmeError::Profile { asked: "x".into(), offered: Vec::new() }, Side::Ours),
            (AcmeError::TimedOut { doing: "take an order", retry_after: None }, Side::Theirs),
        ] {
            assert_eq!(error.side(), side, "{error}");
        }
    }
}
