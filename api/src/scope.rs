//! What the bearer of an operator token may do.

use std::fmt;
use std::str::FromStr;

use crate::{EnvironmentName, NotAccepted, ServiceName, serde_as_text};

/// What a token permits: one word per group of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Lists, shows, logs, status, history.
    Read,
    /// `apply`.
    Apply,
    /// `release build`, `release add`.
    Release,
    /// `promote`, `rollout weight`.
    Promote,
    /// `rollback` and `unhold`.
    Rollback,
    /// `join`, `fleet revoke`.
    Fleet,
    /// `app create`, `app rotate`, `app revoke`.
    App,
    /// `token create`, `token revoke`, and everything else.
    Admin,
}

impl Verb {
    /// All of them, in the order of documentation.
    pub const ALL: [Self; 8] =
        [Self::Read, Self::Apply, Self::Release, Self::Promote, Self::Rollback, Self::Fleet, Self::App, Self::Admin];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Apply => "apply",
            Self::Release => "release",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Fleet => "fleet",
            Self::App => "app",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Verb {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).ok_or_else(|| {
            NotAccepted::new("a verb", text, "one of read, apply, release, promote, rollback, fleet, app, admin")
        })
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

serde_as_text!(Verb);

/// Verbs, and the services and environments they count for. An empty list of services or environments means all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scope {
    /// What may be done.
    pub verbs: Vec<Verb>,
    /// For which services; empty: all.
    pub services: Vec<ServiceName>,
    /// In which environments; empty: all.
    pub environments: Vec<EnvironmentName>,
}

impl Scope {
    /// Everything.
    pub fn admin() -> Self {
        Self { verbs: vec![Verb::Admin], services: Vec::new(), environments: Vec::new() }
    }

    /// Whether `verb` is permitted on what `service` and `environment` name.
    ///
    /// `None` means "all of them" and is permitted only where the scope is not narrowed: who may act on one service
    /// may not act on the whole. Only `admin` includes other verbs.
    pub fn permits(&self, verb: Verb, service: Option<&ServiceName>, environment: Option<&EnvironmentName>) -> bool {
        fn within<T: PartialEq>(list: &[T], one: Option<&T>) -> bool {
            list.is_empty() || one.is_some_and(|one| list.contains(one))
        }
        (self.verbs.contains(&verb) || self.verbs.contains(&Verb::Admin))
            && within(&self.services, service)
            && within(&self.environments, environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_scope_never_reaches_the_whole() {
        let hello: ServiceName = "hello".parse().expect("name");
        let other: ServiceName = "other".parse().expect("name");
        let production: EnvironmentName = "production".parse().expect("name");
        let narrow = Scope { verbs: vec![Verb::Rollback], services: vec![hello.clone()], environments: vec![] };
        let table = [
            (Verb::Rollback, Some(&hello), Some(&production), true),
            (Verb::Rollback, Some(&hello), None, true),
            (Verb::Rollback, Some(&other), Some(&production), false),
            (Verb::Rollback, None, None, false),
            (Verb::Promote, Some(&hello), Some(&production), false),
            (Verb::Read, Some(&hello), Some(&production), false),
        ];
        for (verb, service, environment, expected) in table {
            assert_eq!(narrow.permits(verb, service, environment), expected, "{verb} {service:?}");
            assert!(Scope::admin().permits(verb, service, environment));
        }
    }

    #[test]
    fn verbs_round_trip() {
        for verb in Verb::ALL {
            assert_eq!(verb.to_string().parse(), Ok(verb));
        }
        assert!("all".parse::<Verb>().is_err());
    }
}
