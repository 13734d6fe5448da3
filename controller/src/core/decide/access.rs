//! Who belongs to the fleet, and who may operate it.

use api::{Digest, MemberName, ReleaseNumber, Scope, StageName};
use certs::fleet::Role;

use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::state::{Member, MemberProgress, Override, State};

pub(super) fn invite(
    state: &State,
    name: &MemberName,
    role: Role,
    group: &str,
    secret: Digest,
    until_ms: u64,
) -> Result<Decision, Refusal> {
    if let Some(member) = state.members.get(name)
        && matches!(member.progress, MemberProgress::Joined { .. })
    {
        let role = member.role;
        return Err(Refusal::Refused(format!(
            "{name} is a {role} of this fleet already: choose another name, or `pointsman fleet revoke {name}` first"
        )));
    }
    Ok(Decision::one(Event::MemberInvited { name: name.clone(), role, group: group.to_owned(), secret, until_ms }))
}

pub(super) fn join(state: &State, name: &MemberName, serial: &str, context: &Context) -> Result<Decision, Refusal> {
    let refused = |why: &str| Err(Refusal::Refused(format!("{why}: make a new one with `pointsman join`")));
    match state.members.get(name).map(|member| &member.progress) {
        Some(MemberProgress::Invited { until_ms, .. }) if *until_ms < context.now_ms => {
            refused("this join token has expired")
        }
        Some(MemberProgress::Invited { .. }) => {
            Ok(Decision::one(Event::MemberJoined { name: name.clone(), serial: serial.to_owned() }))
        }
        Some(MemberProgress::Joined { .. }) => refused("this join token was used before"),
        Some(MemberProgress::Revoked) | None => refused("this join token is not known"),
    }
}

pub(super) fn revoke_member(state: &State, name: &MemberName) -> Result<Decision, Refusal> {
    match state.members.get(name).map(|member| &member.progress) {
        None => Err(Refusal::Unknown(format!("there is no {name} in this fleet"))),
        Some(MemberProgress::Revoked) => Ok(Decision::already(format!("{name} was revoked before"))),
        Some(_) => Ok(Decision::one(Event::MemberRevoked { name: name.clone() })),
    }
}

pub(super) fn create_token(
    state: &State,
    name: &MemberName,
    secret: Digest,
    scope: &Scope,
) -> Result<Decision, Refusal> {
    if state.tokens.get(name).is_some_and(|token| !token.revoked) {
        return Err(Refusal::Refused(format!(
            "there is a token {name} already: choose another name, or `pointsman token revoke {name}` first"
        )));
    }
    if scope.verbs.is_empty() {
        return Err(Refusal::Wrong(vec!["a token needs at least one verb: --allow read,promote".into()]));
    }
    Ok(Decision::one(Event::TokenCreated { name: name.clone(), secret, scope: scope.clone() }))
}

pub(super) fn revoke_token(state: &State, name: &MemberName) -> Result<Decision, Refusal> {
    match state.tokens.get(name) {
        None => Err(Refusal::Unknown(format!("there is no token {name}"))),
        Some(token) if token.revoked => Ok(Decision::already(format!("token {name} was revoked before"))),
        Some(_) => Ok(Decision::one(Event::TokenRevoked { name: name.clone() })),
    }
}

/// A proxy tells of its overrides again after each connection: what is on record already is no news.
pub(super) fn tell_override(
    state: &State,
    proxy: &MemberName,
    stage: &StageName,
    release: Option<ReleaseNumber>,
    until_ms: u64,
) -> Result<Decision, Refusal> {
    let joined =
        |member: &&Member| member.role == Role::Proxy && matches!(member.progress, MemberProgress::Joined { .. });
    let unknown = || Refusal::Unknown(format!("there is no proxy {proxy} in this fleet"));
    let member = state.members.get(proxy).filter(joined).ok_or_else(unknown)?;
    let service = state.service(&stage.service);
    if !service.is_some_and(|service| service.spec.stages.contains_key(&stage.environment)) {
        return Err(Refusal::Unknown(format!("there is no stage {stage}")));
    }
    let told = release.map(|release| Override { release, until_ms });
    if member.overrides.get(stage).copied() == told {
        return Ok(Decision::default());
    }
    Ok(Decision::one(Event::OverrideTold { proxy: proxy.clone(), stage: stage.clone(), release, until_ms }))
}
