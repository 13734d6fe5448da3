//! Values that only the command line has; all others are parsed by the contract's own types.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use api::operator::{ApplicationClient, GivenAttribute, GivenImage, StaticAddress};
use api::{ComponentName, EnvironmentName, MemberName, ReleaseName, ReleaseNumber, ServiceName, Span, StageName};

/// A value that was not accepted: what is, in words with an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn accepted(form: &str) -> Refused {
    Refused(format!("accepted is {form}"))
}

/// A service or a stage: what `status` is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector(pub(crate) String);

impl FromStr for Selector {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.parse::<ServiceName>().is_ok() || text.parse::<StageName>().is_ok() {
            return Ok(Self(text.into()));
        }
        Err(accepted("a service or a stage, such as \"hello\" or \"hello/staging\""))
    }
}

/// What history can be about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject(pub(crate) String);

impl FromStr for Subject {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.parse::<Selector>().is_ok() || text.parse::<ReleaseName>().is_ok() {
            return Ok(Self(text.into()));
        }
        Err(accepted(
            "a service, stage, release or member, such as \"hello\", \"hello/staging\", \"hello@r42\" or \"p1\"",
        ))
    }
}

/// Host and port: `10.0.0.7:8080`, `[2001:db8::7]:8080`, `web.example.com:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort(pub(crate) String);

impl FromStr for HostPort {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || accepted("HOST:PORT, such as \"10.0.0.7:8080\" or \"[2001:db8::7]:8080\"");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port_is_good = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        let host_is_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok() || host.parse::<api::Host>().is_ok(),
        };
        if port_is_good && host_is_good { Ok(Self(text.into())) } else { Err(wrong()) }
    }
}

/// Where a component of a release runs: `[ENVIRONMENT/]COMPONENT=IP:PORT[,IP:PORT]...`. Proxies look up no names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed(StaticAddress);

impl FromStr for Placed {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || {
            accepted(
                "[ENVIRONMENT/]COMPONENT=IP:PORT[,IP:PORT]..., such as \"web=10.0.0.7:8080\" or \
                 \"staging/web=10.0.0.7:8080,10.0.0.8:8080\"",
            )
        };
        let (place, addresses) = text.split_once('=').ok_or_else(wrong)?;
        let (environment, component) = place.split_once('/').map_or((None, place), |(e, c)| (Some(e), c));
        let environment = environment.map(str::parse::<EnvironmentName>).transpose().map_err(|_| wrong())?;
        let component: ComponentName = component.parse().map_err(|_| wrong())?;
        let addresses =
            addresses.split(',').map(|address| address.parse().ok().filter(|at: &SocketAddr| at.port() > 0));
        let addresses: Option<Vec<SocketAddr>> = addresses.collect();
        Ok(Self(StaticAddress {
            environment: environment.map(|environment| environment.to_string()).unwrap_or_default(),
            component: component.to_string(),
            addresses: addresses.ok_or_else(wrong)?.iter().map(SocketAddr::to_string).collect(),
        }))
    }
}

impl From<Placed> for StaticAddress {
    fn from(placed: Placed) -> Self {
        placed.0
    }
}

/// An image of a component of a release: `[ENVIRONMENT/]COMPONENT=REF`. The controller reads the reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imaged(GivenImage);

impl FromStr for Imaged {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || {
            accepted(
                "[ENVIRONMENT/]COMPONENT=REF, such as \"web=registry.example.com/shop/web:v1\" or \
                 \"staging/web=registry.example.com/shop/web@sha256:...\"",
            )
        };
        let (place, reference) =
            text.split_once('=').filter(|(_, reference)| !reference.is_empty()).ok_or_else(wrong)?;
        let (environment, component) = place.split_once('/').map_or((None, place), |(e, c)| (Some(e), c));
        let environment = environment.map(str::parse::<EnvironmentName>).transpose().map_err(|_| wrong())?;
        let component: ComponentName = component.parse().map_err(|_| wrong())?;
        Ok(Self(GivenImage {
            environment: environment.map(|environment| environment.to_string()).unwrap_or_default(),
            component: component.to_string(),
            reference: reference.to_owned(),
        }))
    }
}

impl From<Imaged> for GivenImage {
    fn from(imaged: Imaged) -> Self {
        imaged.0
    }
}

/// The other one of two releases of a service: `hello@r42`, or `r42` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherRelease {
    /// Of the same service.
    Number(ReleaseNumber),
    /// By its whole name.
    Name(ReleaseName),
}

impl FromStr for OtherRelease {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let number = text.parse().map(Self::Number);
        let wrong = || accepted("a release, such as \"r42\" or \"hello@r42\"");
        number.or_else(|_| text.parse().map(Self::Name)).map_err(|_: api::NotAccepted| wrong())
    }
}

impl OtherRelease {
    /// Its whole name, beside that of the first one.
    pub(crate) fn of(&self, first: &ReleaseName) -> ReleaseName {
        match self {
            Self::Number(number) => ReleaseName::new(first.service.clone(), *number),
            Self::Name(name) => name.clone(),
        }
    }
}

/// How long something still counts beside what replaces it: a duration, or `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) u64);

impl FromStr for Overlap {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text == "0s" {
            return Ok(Self(0));
        }
        let wrong = |_| accepted("0s to 366d, such as \"24h\" or \"1h30m\"");
        text.parse::<Span>().map(|span| Self(span.ms())).map_err(wrong)
    }
}

/// A user as policies know it: `ISSUER/SUBJECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserName {
    pub(crate) issuer: String,
    pub(crate) subject: String,
}

impl FromStr for UserName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || accepted("ISSUER/SUBJECT, the name of an issuer and `sub`, such as \"corp/alice\"");
        let (issuer, subject) = text.split_once('/').filter(|(_, subject)| !subject.is_empty()).ok_or_else(wrong)?;
        let issuer: MemberName = issuer.parse().map_err(|_| wrong())?;
        Ok(Self { issuer: issuer.to_string(), subject: subject.to_owned() })
    }
}

/// An attribute of a user: `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttributeGiven(pub(crate) GivenAttribute);

impl FromStr for AttributeGiven {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || accepted("NAME=VALUE, with commas between the parts of a list, such as \"department=sales\"");
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
        Ok(Self(GivenAttribute { name: name.to_owned(), value: value.to_owned() }))
    }
}

/// The client that tokens were issued to: `ISSUER=ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedTo(ApplicationClient);

impl FromStr for IssuedTo {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || accepted("ISSUER=ID, the name of an issuer and the client's id there, such as \"corp=abc123\"");
        let (issuer, client_id) = text.split_once('=').filter(|(_, id)| !id.is_empty()).ok_or_else(wrong)?;
        let issuer: MemberName = issuer.parse().map_err(|_| wrong())?;
        Ok(Self(ApplicationClient { issuer: issuer.to_string(), client_id: client_id.to_owned() }))
    }
}

impl From<IssuedTo> for ApplicationClient {
    fn from(client: IssuedTo) -> Self {
        client.0
    }
}

/// A range of ports, both ends included: `20000-20999`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(pub(crate) RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || accepted("FIRST-LAST, both from 1 to 65535, such as \"20000-20999\"");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = Refused> + fmt::Debug>(good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(text.parse::<T>().is_ok(), "{text}");
        }
        for text in bad {
            let refused = text.parse::<T>().expect_err(text).to_string();
            assert!(refused.starts_with("accepted is ") && refused.contains("such as"), "{refused}");
        }
    }

    #[test]
    fn hostile_h83_values_have_one_form() {
        check::<Selector>(&["hello", "hello/staging"], &["", "/", "hello/", "a/b/c", "../x", "Hello", "hello@r1"]);
        check::<Subject>(&["hello", "hello/staging", "hello@r42", "p1"], &["", "hello@42", "a b", "\x1b[2J"]);
        check::<HostPort>(
            &["10.0.0.7:80", "[::1]:8080", "web.example.com:443", "localhost:1"],
            &["", "10.0.0.7", ":80", "::1:80", "10.0.0.7:0", "10.0.0.7:65536", "10.0.0.7:+80", "a b:80", "1.2.3:80"],
        );
        check::<Placed>(
            &["web=10.0.0.7:80", "staging/web=10.0.0.7:80,[::1]:81"],
            &[
                "",
                "web",
                "web=",
                "=10.0.0.7:80",
                "/web=10.0.0.7:80",
                "web=10.0.0.7:80,",
                "a/b/c=10.0.0.7:80",
                "web=a.com:80",
                "web=10.0.0.7:0",
                "web=10.0.0.7",
            ],
        );
        check::<Imaged>(
            &["web=registry.example.com/web:v1", "staging/web=r/w@sha256:aa", "web=a=b"],
            &["", "web", "web=", "=r/w:v1", "/web=r/w:v1", "a/b/c=r/w:v1", "We b=r/w:v1"],
        );
        check::<OtherRelease>(&["r42", "hello@r42"], &["", "42", "r0", "hello", "hello@42", "a b"]);
        check::<Overlap>(&["0s", "24h", "1h30m", "366d"], &["", "0", "0h", "-1s", "367d", "never"]);
        check::<IssuedTo>(&["corp=abc", "corp=a=b"], &["", "corp", "corp=", "=abc", "Corp=abc", "a/b=c"]);
        check::<UserName>(&["corp/alice", "corp/a/b"], &["", "alice", "corp/", "/alice", "Corp/alice"]);
        check::<AttributeGiven>(&["department=sales", "a="], &["", "department", "=sales"]);
        check::<Ports>(&["1-65535", "20000-20000"], &["", "5", "9-1", "0-9", "1-65536", "-1-5", "+1-+5", "1-2-3"]);
    }

    #[test]
    fn placed_addresses_are_taken_apart() {
        let placed: StaticAddress = "staging/web=10.0.0.7:80,[::1]:81".parse::<Placed>().expect("good").into();
        assert_eq!((placed.environment.as_str(), placed.component.as_str()), ("staging", "web"));
        assert_eq!(placed.addresses, ["10.0.0.7:80", "[::1]:81"]);
        let everywhere: StaticAddress = "web=10.0.0.7:80".parse::<Placed>().expect("good").into();
        assert_eq!(everywhere.environment, "");
    }
}
