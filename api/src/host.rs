//! The host names that stages and releases have without being given any.
//!
//! `<service>.<zone>` is the stage, `r<N>--<service>.<zone>` one release in it (design: implicit hosts).

use std::fmt;
use std::str::FromStr;

use crate::{NotAccepted, ReleaseNumber, ServiceName, serde_as_text};

/// A DNS name in its one normal form: lower case, no trailing dot, no port, at most 253 octets (RFC 1035 §2.3.4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(std::sync::Arc<str>);

/// What an implicit host in a zone names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTarget {
    /// The service.
    pub service: ServiceName,
    /// One release of it; `None`: whatever the weights say.
    pub release: Option<ReleaseNumber>,
}

impl HostTarget {
    /// The host within `zone`.
    pub fn host(&self, zone: &Host) -> Host {
        match self.release {
            None => Host(format!("{}.{zone}", self.service).into()),
            Some(release) => Host(format!("{release}--{}.{zone}", self.service).into()),
        }
    }
}

impl Host {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Host {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        // A name whose last label is a number would be read as an IPv4 address (RFC 3696 §2, WHATWG URL).
        let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if text.len() <= 253 && text.split('.').all(label) && !last_is_number {
            return Ok(Self(text.into()));
        }
        Err(NotAccepted::new(
            "a DNS name",
            text,
            "lower-case labels of letters, digits and hyphens joined by dots, no dot at the end, such as \"staging.example.com\"",
        ))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serde_as_text!(Host);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implicit_hosts_follow_the_rule() {
        let zone: Host = "staging.example.com".parse().expect("zone");
        let service: ServiceName = "hello".parse().expect("service");
        let stage = HostTarget { service: service.clone(), release: None };
        let release = HostTarget { service, release: ReleaseNumber::new(42) };
        assert_eq!(stage.host(&zone).as_str(), "hello.staging.example.com");
        assert_eq!(release.host(&zone).as_str(), "r42--hello.staging.example.com");
    }

    #[test]
    fn hostile_h83_hosts_have_one_form() {
        for good in ["localhost", "a.b", "staging.example.com", "xn--bcher-kva.example"] {
            assert!(good.parse::<Host>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "A.b",
            "a_b.c",
            "-a.b",
            "a-.b",
            "10.0.0.1",
            "a.7",
            "ä.example",
            "a b",
            "a/b",
            "*.a",
            "a:80",
            &format!("{}.a", "x".repeat(64)),
            &"a.".repeat(127),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
    }
}
