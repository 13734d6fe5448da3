//! Names of services, environments, components, stages, releases and fleet members.
//!
//! One grammar for all plain names: lower-case letters, digits and single hyphens, a letter first, at most 40
//! characters. So each is a DNS label, a folder name and an argument that needs no quoting, and `r42--hello` (a
//! release's own host) can never be a service's name.

use std::fmt;
use std::str::FromStr;

use crate::{NotAccepted, serde_as_text};

/// Leaves room for `r<10 digits>--` within the 63 octets of a DNS label (RFC 1035 §2.3.4).
const NAME_LENGTH: usize = 40;

const NAME_FORM: &str = "1 to 40 lower-case letters, digits and single hyphens, a letter first, no hyphen last, such as \"hello\" or \"web-shop\"";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_LENGTH).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        && !text.contains("--")
}

macro_rules! plain_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAccepted;

            fn from_str(text: &str) -> Result<Self, NotAccepted> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(NotAccepted::new($what, text, NAME_FORM)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        serde_as_text!($name);
    };
}

plain_name!(
    /// Name of a service: something that is built and serves, such as `hello`.
    ServiceName,
    "a service name"
);
plain_name!(
    /// Name of an environment: a place shared by services, such as `staging`.
    EnvironmentName,
    "an environment name"
);
plain_name!(
    /// Name of a component: a part of a service with an artifact of its own, such as `web`.
    ComponentName,
    "a component name"
);
plain_name!(
    /// Name of a proxy, an agent, an agent group or a token.
    MemberName,
    "a name"
);

/// One service in one environment: `hello/staging`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName {
    /// The service.
    pub service: ServiceName,
    /// The environment.
    pub environment: EnvironmentName,
}

impl StageName {
    /// Joins a service and an environment.
    pub fn new(service: ServiceName, environment: EnvironmentName) -> Self {
        Self { service, environment }
    }
}

impl FromStr for StageName {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || NotAccepted::new("a stage", text, "SERVICE/ENVIRONMENT, such as \"hello/staging\"");
        let (service, environment) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self {
            service: service.parse().map_err(|_| wrong())?,
            environment: environment.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.environment)
    }
}

/// Number of a release within its service, from 1: written `r42`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseNumber(std::num::NonZeroU32);

impl ReleaseNumber {
    /// The first release of a service.
    pub const FIRST: Self = Self(std::num::NonZeroU32::MIN);

    /// From a bare number; `None` for 0, which no release has.
    pub fn new(number: u32) -> Option<Self> {
        std::num::NonZeroU32::new(number).map(Self)
    }

    /// The bare number, as messages carry it.
    pub fn number(self) -> u32 {
        self.0.get()
    }

    /// The number after this one.
    ///
    /// # Panics
    /// After 4,294,967,295 releases of one service.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("fewer than 2^32 releases of one service"))
    }
}

impl FromStr for ReleaseNumber {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        text.strip_prefix('r')
            .filter(|digits| !digits.starts_with(['0', '+']))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| NotAccepted::new("a release number", text, "r and a number from 1, such as \"r42\""))
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("r{}", self.0))
    }
}

/// A release with its service: `hello@r42`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseName {
    /// The service.
    pub service: ServiceName,
    /// The release's number within it.
    pub number: ReleaseNumber,
}

impl ReleaseName {
    /// Joins a service and a release number.
    pub fn new(service: ServiceName, number: ReleaseNumber) -> Self {
        Self { service, number }
    }
}

impl FromStr for ReleaseName {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || NotAccepted::new("a release", text, "SERVICE@rNUMBER, such as \"hello@r42\"");
        let (service, number) = text.split_once('@').ok_or_else(wrong)?;
        Ok(Self { service: service.parse().map_err(|_| wrong())?, number: number.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.service, self.number)
    }
}

serde_as_text!(StageName, ReleaseNumber, ReleaseName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h83_names_accept_one_grammar() {
        for good in ["a", "hello", "web-shop", "a1", "x".repeat(40).as_str()] {
            assert_eq!(good.parse::<ServiceName>().map(|n| n.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "..",
            "../a",
            "a--b",
            "ä",
            "a b",
            "a\0",
            "a\n",
            "x".repeat(41).as_str(),
            "x".repeat(64).as_str(),
        ] {
            let error = bad.parse::<ServiceName>().expect_err(bad);
            assert!(error.to_string().contains("accepted is 1 to 40"), "{error}");
        }
    }

    #[test]
    fn joined_names_round_trip() {
        assert_eq!("hello/staging".parse::<StageName>().expect("stage").to_string(), "hello/staging");
        assert_eq!("hello@r42".parse::<ReleaseName>().expect("release").to_string(), "hello@r42");
        for bad in [
            "hello",
            "hello/",
            "/staging",
            "a/b/c",
            "hello@42",
            "hello@r0",
            "hello@r042",
            "hello@r+1",
            "hello@r4294967296",
        ] {
            assert!(bad.parse::<StageName>().is_err() && bad.parse::<ReleaseName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_long_name_makes_a_short_message() {
        let error = "x".repeat(10_000_000).parse::<ServiceName>().expect_err("too long");
        assert!(error.to_string().len() < 400);
    }
}
