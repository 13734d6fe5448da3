//! Cases of who may do what, as data: what `policy test` runs.
//!
//! Must not know: files, or how results are shown.
//!
//! A case goes the way of a request: the same cut, the same questions, the same [`judge`].
//!
//! Main types: [`Cases`], [`Case`], [`Outcome`]; [`run`].

mod written;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::credential::{self, Identity, Standing};
use crate::policy::{Action, Decision, Policies, Question, StageFacts};
use crate::verdict::{Rule, Said, Verdict, Why, judge};

pub use self::written::{Does, Given, StageName};

/// A file of cases.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// 1.
    pub schema: Schema,
    /// In the order in which they are run.
    #[serde(rename = "case", default)]
    pub cases: Vec<Case>,
}

/// Version of the form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Schema;

/// Who wants what, and what is expected.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// For people: "staff may read".
    pub name: String,
    /// A user with a valid token; none: no token.
    pub user: Option<User>,
    /// A valid application; none: no key.
    pub application: Option<Application>,
    /// "hello/staging".
    pub stage: StageName,
    /// Whether the stage is public.
    #[serde(default)]
    pub public: bool,
    /// "discover", "GET /path", "rpc /pkg.Service/Method", ...
    pub does: Does,
    /// The client's address; default 192.0.2.1, which nobody has (RFC 5737).
    #[serde(default = "nobodys")]
    pub client: IpAddr,
    /// What the stage needs; default both.
    #[serde(default = "both")]
    pub credentials: Vec<Credential>,
    /// How it denies; default hidden.
    #[serde(default)]
    pub denial: Denial,
    /// What is expected.
    pub expect: Expected,
}

/// A user, as an issuer's rules would make it of a token.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name of the issuer.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `azp`, or else `client_id`.
    pub client: Option<String>,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Attributes.
    #[serde(default)]
    pub attributes: BTreeMap<String, Given>,
}

/// An application.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// What a stage can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named after what they are")]
pub enum Credential {
    Application,
    User,
}

/// How a stage denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denial {
    /// As if it were not there.
    #[default]
    Hidden,
    /// Saying so.
    Explicit,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "named after verdict::Verdict")]
pub enum Expected {
    Allowed,
    Hidden,
    Unauthenticated,
    Forbidden,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What happened.
    pub found: Expected,
    /// Why.
    pub why: Why,
    /// What policies were asked and said, in order.
    pub decisions: Vec<(Action, Decision)>,
}

/// Runs a case.
///
/// # Errors
/// It gives an attribute that policies do not know, or one of another type.
pub fn run(policies: &Policies, case: &Case) -> Result<Outcome, String> {
    let identity = case.identity(policies)?;
    let facts = StageFacts { service: case.stage.service.as_str().into(), public: case.public };
    let cut = policies.cut(&case.stage.environment, &[facts]);
    let asking = cut.stages[case.stage.service.as_str()].asking(&identity);
    let mut decisions = Vec::new();
    let mut ask = |action| {
        let decision = asking.decide(&case.question(action));
        let said = said(&decision);
        decisions.push((action, decision));
        said
    };
    let verdict = match case.does.wanted() {
        Some(wanted) => judge(Some(case.rule()), &identity, wanted, ask),
        None => match ask(Action::Discover) {
            Said::Yes => Verdict::Allowed,
            Said::No => Verdict::Hidden(Why::MayNotDiscover),
            Said::Failed => Verdict::Hidden(Why::PolicyFailed),
        },
    };
    let (found, why) = match verdict {
        Verdict::Allowed => (Expected::Allowed, Why::Permitted),
        Verdict::Hidden(why) => (Expected::Hidden, why),
        // A case has no issuer whose keys could be missing.
        Verdict::Unauthenticated(why) | Verdict::Unavailable(why) => (Expected::Unauthenticated, why),
        Verdict::Forbidden(why) => (Expected::Forbidden, why),
    };
    Ok(Outcome { found, why, decisions })
}

impl fmt::Display for Expected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Allowed => "allowed",
            Self::Hidden => "hidden",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
        })
    }
}

// === impl Case ===

impl Case {
    fn rule(&self) -> Rule {
        Rule {
            public: self.public,
            explicit_denial: self.denial == Denial::Explicit,
            needs_application: self.credentials.contains(&Credential::Application),
            needs_user: self.credentials.contains(&Credential::User),
        }
    }

    fn identity(&self, policies: &Policies) -> Result<Identity, String> {
        let application = self
            .application
            .as_ref()
            .map(|given| credential::Application { name: given.name.as_str().into(), groups: names(&given.groups) });
        let user = self.user.as_ref().map(|given| given.known(policies)).transpose()?;
        Ok(Identity {
            application: application.map_or(Standing::Absent, |known| Standing::Valid(Arc::new(known))),
            user: user.map_or(Standing::Absent, |known| Standing::Valid(Arc::new(known))),
            until_s: None,
            by_proxy_authorization: false,
        })
    }

    fn question(&self, action: Action) -> Question<'_> {
        let Does { method, path, release, .. } = &self.does;
        Question { action, release: *release, method, path, client: self.client, now_ms: 0 }
    }
}

impl User {
    fn known(&self, policies: &Policies) -> Result<credential::User, String> {
        let mut attributes = BTreeMap::new();
        for (name, given) in &self.attributes {
            attributes.insert(name.as_str().into(), given.of_type(name, policies.attributes())?);
        }
        Ok(credential::User {
            issuer: self.issuer.as_str().into(),
            subject: self.subject.clone(),
            client: self.client.clone(),
            groups: names(&self.groups),
            attributes,
            until_s: u64::MAX,
        })
    }
}

impl TryFrom<i64> for Schema {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("this version reads schema = 1, not {number}")) }
    }
}

fn names(groups: &[String]) -> Vec<Arc<str>> {
    groups.iter().map(|group| group.as_str().into()).collect()
}

fn said(decision: &Decision) -> Said {
    match decision {
        Decision { errors, .. } if !errors.is_empty() => Said::Failed,
        Decision { is_allowed: true, .. } => Said::Yes,
        Decision { .. } => Said::No,
    }
}

fn nobodys() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn both() -> Vec<Credential> {
    vec![Credential::Application, Credential::User]
}

#[cfg(test)]
mod tests;
