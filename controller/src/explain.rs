//! Why a request was answered as it was, how one would be, and what became of a rollout: sentences for operators.
//!
//! Must not know: who asks, or how proxies are reached.
//!
//! Main functions: [`opened`], what an id of a 404 says; [`policy()`], what would be decided; [`rollout()`], a release's way.

mod policy;
mod rollout;

use api::StageName;
use api::fleet::Decided;
use api::operator::RequestExplained;
use policies::credential::Fault;
use policies::credential::denial::{self, Denial, Seal};
use policies::verdict::Why;

use crate::core::State;
use crate::keys::Key;

pub(crate) use policy::{Ask, policy};
pub(crate) use rollout::{Happened, rollout};

/// Every way in which a request ends.
const WHYS: [Why; 10] = [
    Why::Permitted,
    Why::UnknownHost,
    Why::MayNotDiscover,
    Why::MayNotCall,
    Why::MayNotUse,
    Why::NoApplication,
    Why::NoUser,
    Why::PolicyFailed,
    Why::KeysUnavailable,
    Why::UnknownRelease,
];

/// Opens the id of a 404 with the key that sealed it.
///
/// # Errors
/// A sentence: it is no such id, or was sealed with a key that is not known here.
pub(crate) fn open(keys: &[Key], id: &str) -> Result<(Denial, [u8; 16]), String> {
    let name = denial::key_name(id)?;
    let key = keys.iter().find(|key| key.name == name);
    let unknown = "the id was sealed with a key that this controller does not have: by another fleet, or by a proxy that had \
                   none of ours yet";
    let key = key.ok_or(unknown)?;
    let secret: &[u8; 32] = key.key.as_slice().try_into().map_err(|_| "the key that sealed the id is damaged")?;
    Seal::new(name, secret).open(id)
}

/// What an opened id says. Names are in it as digests: those that are known here are named.
///
/// `user`: issuer and subject of whom the operator thinks it was.
pub(crate) fn opened(
    state: &State,
    denial: &Denial,
    request_id: &[u8; 16],
    user: Option<(&str, &str)>,
) -> RequestExplained {
    let stage = stages(state).map(|stage| stage.to_string()).find(|name| denial::short(name) == denial.stage);
    let application = state.applications.keys().find(|name| denial::short(name.as_str()) == denial.application);
    let is_user = user.map(|(issuer, subject)| denial::short_user(issuer, subject) == denial.user);
    let (issuer, subject) = user.filter(|_| is_user == Some(true)).unwrap_or_default();
    let mut lines = vec![match WHYS.into_iter().find(|why| *why as u8 == denial.why) {
        Some(known) => known.to_string(),
        None => format!("for a reason of a later version (number {})", denial.why),
    }];
    if denial.stage != 0 && stage.is_none() {
        lines.push("the stage is none that this controller knows, or knows any more".to_owned());
    }
    lines.push(credential(
        "application",
        denial.application,
        application.map(|name| name.as_str()),
        denial.application_fault,
    ));
    let known = (is_user == Some(true)).then(|| format!("{issuer}/{subject}"));
    lines.push(credential("user", denial.user, known.as_deref(), denial.user_fault));
    if let (Some((issuer, subject)), Some(false)) = (user, is_user) {
        lines.push(format!("it was not the user {issuer}/{subject}"));
    }
    let decided = Decided {
        at_ms: denial.at_ms,
        stage: stage.unwrap_or_default(),
        application: application.map(ToString::to_string).unwrap_or_default(),
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        outcome: "hidden".to_owned(),
        status: 404,
        ..Decided::default()
    };
    let request_id = request_id.iter().map(|byte| format!("{byte:02x}")).collect();
    RequestExplained {
        source: "denial".into(),
        decided: Some(decided),
        request_id,
        is_user,
        lines,
        ..Default::default()
    }
}

/// What became of a credential. `digest` is 0 for none that is valid, `fault` 0 for none.
fn credential(what: &str, digest: u64, known: Option<&str>, fault: u8) -> String {
    match (digest, known, Fault::from_u8(fault)) {
        (_, _, Some(fault)) => format!("{what}: {}", fault.reason()),
        (_, _, None) if fault != 0 => format!("{what}: refused, for a reason of a later version (number {fault})"),
        (0, ..) => format!("{what}: none was presented"),
        (_, Some(name), _) => format!("{what}: {name}, valid"),
        (_, None, _) if what == "user" => {
            "user: a valid one; --user ISSUER/SUBJECT tells whether it was that one".to_owned()
        }
        (_, None, _) => format!("{what}: a valid one that this controller does not know any more"),
    }
}

/// All stages that there are, whether or not something ever ran there.
fn stages(state: &State) -> impl Iterator<Item = StageName> + '_ {
    state.services.iter().flat_map(|(service, entry)| {
        entry.spec.stages.keys().map(|environment| StageName::new(service.clone(), environment.clone()))
    })
}

#[cfg(test)]
mod tests;
