//! Applications: made, given another key, shut out.

use std::collections::BTreeSet;

use api::MemberName;
use policies::credential::Applications;

use crate::core::command::{Context, Decision, NewApplication, Refusal};
use crate::core::event::{Event, KeyMade};
use crate::core::resources;
use crate::core::state::{ApiKey, Application, State};

/// Keys of one application that count at the same time: enough for a rotation that was begun again and again.
pub(super) const KEYS_MOST: usize = 8;
/// Groups, certificates and clients of one application.
const NAMES_MOST: usize = 64;
/// Longest group, name in a certificate, or id of a client.
const NAME_BYTES: usize = 255;

pub(super) fn create(
    state: &State,
    name: &MemberName,
    new: &NewApplication,
    key: Option<&KeyMade>,
    context: &Context,
) -> Result<Decision, Refusal> {
    if state.applications.get(name).is_some_and(|application| !application.revoked) {
        return Err(Refusal::Refused(format!(
            "there is an application {name} already: choose another name, `pointsman app rotate {name}` for another key, or \
             `pointsman app revoke {name}` first"
        )));
    }
    let count = state.applications.values().filter(|application| !application.revoked).count();
    if count >= api::APPLICATIONS_MOST {
        return Err(Refusal::Refused(format!(
            "there are {count} applications, and proxies accept no more: `pointsman app revoke` those that nobody needs"
        )));
    }
    let mut mistakes = wrong_names(new);
    let issuers: BTreeSet<&MemberName> = new.clients.iter().map(|(issuer, _)| issuer).collect();
    for issuer in issuers.into_iter().filter(|issuer| !state.access.issuers.contains_key(*issuer)) {
        mistakes.push(format!("there is no issuer {issuer}: apply an access file with [issuer.{issuer}] first"));
    }
    if key.is_none() && new.certificates.is_empty() && new.clients.is_empty() {
        mistakes.push(format!("{name} could show nothing: without a key it needs --certificate or --client"));
    }
    mistakes.extend(key.and_then(|key| key.until_ms).filter(|until_ms| *until_ms <= context.now_ms).map(over));
    if mistakes.is_empty() {
        mistakes.extend(stands_for_others(state, name, new, key, context));
    }
    if !mistakes.is_empty() {
        return Err(Refusal::Wrong(mistakes));
    }
    super::require_any_reason(state, context)?;
    Ok(Decision::one(Event::ApplicationCreated {
        name: name.clone(),
        key: key.cloned(),
        groups: new.groups.clone(),
        certificates: new.certificates.clone(),
        clients: new.clients.clone(),
    }))
}

fn over(until_ms: u64) -> String {
    format!("a key that ends at {until_ms} has ended already")
}

/// Groups, certificates and clients that nobody could have.
fn wrong_names(new: &NewApplication) -> Vec<String> {
    let is_good = |text: &String| (1..=NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    let clients = new.clients.iter().map(|(_, client)| client);
    let all =
        [("--group", new.groups.len()), ("--certificate", new.certificates.len()), ("--client", new.clients.len())];
    let mut mistakes: Vec<String> = all
        .iter()
        .filter(|(_, count)| *count > NAMES_MOST)
        .map(|(option, count)| format!("{option} is given {count} times: accepted are {NAMES_MOST}"))
        .collect();
    let named = [("group", new.groups.iter().collect::<Vec<_>>()), ("client", clients.collect())];
    for (what, names) in named {
        let wrong = names.into_iter().filter(|name| !is_good(name));
        mistakes.extend(wrong.map(|name| {
            format!(
                "{name:?} is not the name of a {what}: accepted are 1 to {NAME_BYTES} bytes without control characters"
            )
        }));
    }
    let wrong = new.certificates.iter().filter(|name| !is_good(name) || !is_certificate_name(name));
    mistakes.extend(wrong.map(|name| {
        format!(
            "{name:?} is no name that a certificate can have: accepted is a URI or a DNS name, such as \
             \"spiffe://example.com/batch\" or \"batch.example.com\""
        )
    }));
    mistakes
}

fn is_certificate_name(name: &str) -> bool {
    let uri = name.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
    (uri && name.bytes().all(|byte| byte.is_ascii_graphic())) || name.parse::<api::Host>().is_ok()
}

/// What proxies would refuse: a certificate or a client that stands for two.
fn stands_for_others(
    state: &State,
    name: &MemberName,
    new: &NewApplication,
    key: Option<&KeyMade>,
    context: &Context,
) -> Vec<String> {
    let keys = key.iter().map(|key| ApiKey {
        id: key.id.clone(),
        sha256: key.sha256,
        created_ms: context.now_ms,
        until_ms: key.until_ms,
    });
    let application = Application {
        keys: keys.collect(),
        groups: new.groups.clone(),
        certificates: new.certificates.clone(),
        clients: new.clients.clone(),
        created_ms: context.now_ms,
        by: String::new(),
        revoked: false,
    };
    let others = state.applications.iter().filter(|(other, application)| *other != name && !application.revoked);
    // Last: what others stand for already is named as theirs.
    let told = others.chain([(name, &application)]);
    let told: Vec<_> = told.map(|(name, application)| (name, resources::access::message(application))).collect();
    let problems = Applications::new(told.iter().map(|(name, application)| (name.as_str(), application)));
    problems
        .err()
        .unwrap_or_default()
        .into_iter()
        .map(|problem| format!("{}: {}", problem.place, problem.message))
        .collect()
}

/// Another key; those before count until the overlap is over.
pub(super) fn rotate(
    state: &State,
    name: &MemberName,
    key: &KeyMade,
    overlap_ms: u64,
    context: &Context,
) -> Result<Decision, Refusal> {
    let application = known(state, name)?;
    if let Some(until_ms) = key.until_ms.filter(|until_ms| *until_ms <= context.now_ms) {
        return Err(Refusal::Wrong(vec![over(until_ms)]));
    }
    let before_until_ms = context.now_ms.saturating_add(overlap_ms);
    if overlap_ms > 0 && application.keys_at(context.now_ms).count() >= KEYS_MOST {
        return Err(Refusal::Refused(format!(
            "{name} has {KEYS_MOST} keys that count: wait for one to end, or end them all with --overlap 0s"
        )));
    }
    super::require_any_reason(state, context)?;
    Ok(Decision::one(Event::ApplicationRotated { name: name.clone(), key: key.clone(), before_until_ms }))
}

pub(super) fn revoke(state: &State, name: &MemberName, context: &Context) -> Result<Decision, Refusal> {
    match state.applications.get(name) {
        None => Err(unknown(name)),
        Some(application) if application.revoked => {
            Ok(Decision::already(format!("the application {name} was revoked before")))
        }
        Some(_) => {
            super::require_any_reason(state, context)?;
            Ok(Decision::one(Event::ApplicationRevoked { name: name.clone() }))
        }
    }
}

/// Keys whose time was over a day ago are forgotten.
pub(super) fn end_keys(state: &State, name: &MemberName, context: &Context) -> Result<Decision, Refusal> {
    let application = known(state, name)?;
    let over = application.keys.iter().filter(|key| key.is_long_over(context.now_ms));
    let keys: BTreeSet<String> = over.map(|key| key.id.clone()).collect();
    if keys.is_empty() {
        return Ok(Decision::default());
    }
    Ok(Decision::one(Event::ApplicationKeysEnded { name: name.clone(), keys }))
}

fn known<'s>(state: &'s State, name: &MemberName) -> Result<&'s Application, Refusal> {
    match state.applications.get(name) {
        None => Err(unknown(name)),
        Some(application) if application.revoked => Err(Refusal::Refused(format!(
            "the application {name} was revoked: make it anew with `pointsman app create {name}`"
        ))),
        Some(application) => Ok(application),
    }
}

fn unknown(name: &MemberName) -> Refusal {
    Refusal::Unknown(format!("there is no application {name}"))
}

#[cfg(test)]
mod tests;
