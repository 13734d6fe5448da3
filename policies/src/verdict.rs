//! What a caller is answered: the one place that weighs identity, stage and decisions.
//!
//! Must not know: status codes, texts, or how an answer is written.
//!
//! Main function: [`judge`].

use crate::credential::{Identity, Standing};
use crate::policy::Action;

/// What a stage asks for besides its policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    /// Nobody needs credentials.
    pub public: bool,
    /// Who may know of it and not call it is told so.
    pub explicit_denial: bool,
    /// A call needs a valid application.
    pub needs_application: bool,
    /// A call needs a valid user.
    pub needs_user: bool,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Allowed,
    /// As if the host did not exist.
    Hidden(Why),
    /// It lacks a valid credential.
    Unauthenticated(Why),
    /// It may not, and is told so.
    Forbidden(Why),
    /// It cannot be told whether it may.
    Unavailable(Why),
}

/// Why, for logs and operators. `u8`: as it is sealed into a denial's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// It may.
    Permitted = 0,
    /// No stage has the host.
    UnknownHost = 1,
    /// No policy lets the caller know of the stage.
    MayNotDiscover = 2,
    /// No policy lets the caller do this.
    MayNotCall = 3,
    /// No policy lets the caller use this release by its own host.
    MayNotUse = 4,
    /// No valid application.
    NoApplication = 5,
    /// No valid user.
    NoUser = 6,
    /// A policy could not be evaluated.
    PolicyFailed = 7,
    /// The issuer's keys are not there.
    KeysUnavailable = 8,
    /// The stage has no such release.
    UnknownRelease = 9,
}

impl Why {
    /// A sentence without its full stop, for operators.
    pub fn text(self) -> &'static str {
        match self {
            Self::Permitted => "policies permit it",
            Self::UnknownHost => "no stage has this host",
            Self::MayNotDiscover => "no policy lets the caller know of the stage",
            Self::MayNotCall => "no policy lets the caller do this, or one forbids it",
            Self::MayNotUse => "no policy lets the caller use this release by its own host, or one forbids it",
            Self::NoApplication => "no valid application",
            Self::NoUser => "no valid user",
            Self::PolicyFailed => "a policy could not be evaluated, which is a denial",
            Self::KeysUnavailable => "the issuer's keys are not there",
            Self::UnknownRelease => "the stage has no such release",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.text())
    }
}

/// What the policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Permitted.
    Yes,
    /// Not permitted.
    No,
    /// An evaluation failed: never a yes.
    Failed,
}

/// What a request wants, as far as it is weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What it is when nothing exempts it: `Read`, `Write`, `Rpc` or `Upgrade`.
    pub action: Action,
    /// What it may pass as without credentials: `Preflight` or `Check`.
    pub exempt: Option<Action>,
    /// The release that its host names.
    pub release: Named,
}

/// Whether a host names a release (`r42--hello...`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Named {
    /// It does not.
    #[default]
    Nothing,
    /// One that the stage has.
    Known,
    /// One that it does not have.
    Unknown,
}

/// Weighs, in the one order there is. `rule` is None for a host that no stage has.
///
/// `ask` is asked at most once for each action; `Discover` always, and of a host that no stage has, too, whose answer does
/// not count: so that what is hidden does the same work. Raising the alarm about [`Said::Failed`] is up to `ask`.
pub fn judge(rule: Option<Rule>, identity: &Identity, wanted: Wanted, mut ask: impl FnMut(Action) -> Said) -> Verdict {
    // An exemption that is permitted is the only question: such requests carry no credentials.
    let is_exempt = wanted.exempt.is_some_and(|action| ask(action) == Said::Yes);
    if is_exempt && rule.is_some() {
        return match wanted.release {
            Named::Unknown => Verdict::Hidden(Why::UnknownRelease),
            Named::Nothing | Named::Known => Verdict::Allowed,
        };
    }
    let discover = ask(Action::Discover);
    let Some(rule) = rule else { return Verdict::Hidden(Why::UnknownHost) };
    if let Some(why) = unless_yes(discover, Why::MayNotDiscover) {
        return Verdict::Hidden(why);
    }
    match wanted.release {
        Named::Nothing => {}
        Named::Unknown => return Verdict::Hidden(Why::UnknownRelease),
        Named::Known => {
            if let Some(why) = unless_yes(ask(Action::Use), Why::MayNotUse) {
                return Verdict::Hidden(why);
            }
        }
    }
    if let Some(verdict) = lacking(rule, identity) {
        return verdict;
    }
    match unless_yes(ask(wanted.action), Why::MayNotCall) {
        None => Verdict::Allowed,
        Some(why) if rule.explicit_denial => Verdict::Forbidden(why),
        Some(why) => Verdict::Hidden(why),
    }
}

/// What a stage needs and the caller does not have. One that is not needed and not valid counts as absent.
fn lacking(rule: Rule, identity: &Identity) -> Option<Verdict> {
    if rule.public {
        return None;
    }
    let application = rule.needs_application.then(|| standing(&identity.application, Why::NoApplication)).flatten();
    let user = rule.needs_user.then(|| standing(&identity.user, Why::NoUser)).flatten();
    match (application, user) {
        (Some(Why::KeysUnavailable), _) | (_, Some(Why::KeysUnavailable)) => {
            Some(Verdict::Unavailable(Why::KeysUnavailable))
        }
        (Some(why), _) | (None, Some(why)) => Some(Verdict::Unauthenticated(why)),
        (None, None) => None,
    }
}

fn standing<T>(standing: &Standing<T>, missing: Why) -> Option<Why> {
    match standing {
        Standing::Valid(_) => None,
        Standing::Unavailable(_) => Some(Why::KeysUnavailable),
        Standing::Absent | Standing::Refused(_) => Some(missing),
    }
}

fn unless_yes(said: Said, no: Why) -> Option<Why> {
    match said {
        Said::Yes => None,
        Said::No => Some(no),
        Said::Failed => Some(Why::PolicyFailed),
    }
}

#[cfg(test)]
mod tests;
