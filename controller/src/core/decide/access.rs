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

/// So often at most a member is renewed a second time: each is an event for good. A lost answer is soon made up for.
const RENEWED_EVERY_MS: u64 = 5_000;

/// The certificate that was used stays good beside the new one, whichever of the two accepted ones it was: that is the one
/// which the member surely has when the answer is lost.
pub(super) fn renew_member(
    state: &State,
    name: &MemberName,
    used: &str,
    from_ms: u64,
    serial: &str,
    context: &Context,
) -> Result<Decision, Refusal> {
    match state.members.get(name).map(|member| &member.progress) {
        Some(MemberProgress::Joined { before: Some(_), since_ms, .. })
            if context.now_ms < since_ms.saturating_add(RENEWED_EVERY_MS) =>
        {
            Err(Refusal::Refused(format!("{name} was renewed a moment ago: it may ask again in a few seconds")))
        }
        Some(progress) if progress.accepts(used, from_ms) => Ok(Decision::one(Event::MemberRenewed {
            name: name.clone(),
            used: used.to_owned(),
            serial: serial.to_owned(),
        })),
        _ => Err(Refusal::Refused(format!("{name} does not belong to this fleet any more with this certificate"))),
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
    may_be_made(state, name, scope)?;
    Ok(Decision::one(Event::TokenCreated { name: name.clone(), secret, scope: scope.clone() }))
}

pub(super) fn certify_operator(
    state: &State,
    name: &MemberName,
    serial: &str,
    scope: &Scope,
) -> Result<Decision, Refusal> {
    may_be_made(state, name, scope)?;
    let (name, serial, scope) = (name.clone(), serial.to_owned(), scope.clone());
    Ok(Decision::one(Event::OperatorCertified { name, serial, scope }))
}

fn may_be_made(state: &State, name: &MemberName, scope: &Scope) -> Result<(), Refusal> {
    if state.tokens.get(name).is_some_and(|token| !token.revoked) {
        return Err(Refusal::Refused(format!(
            "there is a token {name} already: choose another name, or `pointsman token revoke {name}` first"
        )));
    }
    if scope.verbs.is_empty() {
        return Err(Refusal::Wrong(vec!["a token needs at least one verb: --allow read,promote".into()]));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::decide::decide;
    use crate::core::{Command, Mark};

    fn name(text: &str) -> MemberName {
        text.parse().expect("a name")
    }

    /// Carries out a command at 1,000; the sentence when it is refused.
    fn does(state: &mut State, command: &Command) -> Result<(), String> {
        does_at(state, command, 1_000)
    }

    fn does_at(state: &mut State, command: &Command, now_ms: u64) -> Result<(), String> {
        let context = Context { by: "test".into(), reason: String::new(), now_ms, past: None };
        let decision = decide(state, command, &context).map_err(|refusal| refusal.to_string())?;
        let mark = Mark { seq: 1, at_ms: now_ms, by: "test", reason: "", request: "" };
        for event in &decision.events {
            // As it is kept and read again.
            let kept = serde_json::to_string(event).expect("written");
            state.evolve(&serde_json::from_str(&kept).expect("read"), mark);
        }
        Ok(())
    }

    fn joined() -> State {
        let mut state = State::default();
        let secret = Digest::of(b"secret");
        let invite =
            Command::Invite { name: name("p1"), role: Role::Proxy, group: String::new(), secret, until_ms: 2_000 };
        does(&mut state, &invite).expect("invited");
        does(&mut state, &Command::Join { name: name("p1"), serial: "a".into() }).expect("joined");
        state
    }

    /// A while after all that was before.
    fn renew(state: &mut State, used: &str, serial: &str) -> Result<(), String> {
        renew_since(state, used, 0, serial)
    }

    fn renew_since(state: &mut State, used: &str, from_ms: u64, serial: &str) -> Result<(), String> {
        let now_ms = match &state.members.get(&name("p1")).expect("a member").progress {
            MemberProgress::Joined { since_ms, .. } => since_ms + RENEWED_EVERY_MS,
            _ => 1_000,
        };
        renew_at(state, used, from_ms, serial, now_ms)
    }

    fn renew_at(state: &mut State, used: &str, from_ms: u64, serial: &str, now_ms: u64) -> Result<(), String> {
        let command = Command::RenewMember { name: name("p1"), used: used.into(), from_ms, serial: serial.into() };
        does_at(state, &command, now_ms)
    }

    /// Of the certificates a to e, those that are good.
    fn good(state: &State) -> String {
        let progress = &state.members[&name("p1")].progress;
        ["a", "b", "c", "d", "e"].into_iter().filter(|serial| progress.accepts(serial, 0)).collect()
    }

    #[test]
    fn membership_a_lost_answer_locks_nobody_out() {
        let mut state = joined();
        assert_eq!(good(&state), "a");
        renew(&mut state, "a", "b").expect("renewed");
        assert_eq!(good(&state), "ab");
        // The answer was lost, and so is the next one.
        renew(&mut state, "a", "c").expect("renewed");
        assert_eq!(good(&state), "ac");
        renew(&mut state, "a", "d").expect("renewed");
        assert_eq!(good(&state), "ad");
        // It arrived: the first one is of no use any more.
        renew(&mut state, "d", "e").expect("renewed");
        assert_eq!(good(&state), "de");
        for old in ["a", "b", "c", "x"] {
            assert!(renew(&mut state, old, "f").expect_err("refused").contains("not belong"), "{old}");
        }
    }

    #[test]
    fn membership_who_is_revoked_or_invited_again_renews_nothing() {
        let mut state = joined();
        renew(&mut state, "a", "b").expect("renewed");
        does(&mut state, &Command::RevokeMember { name: name("p1") }).expect("revoked");
        assert_eq!(good(&state), "");
        renew(&mut state, "b", "c").expect_err("revoked");
        renew_since(&mut state, "x", 5_000, "c").expect_err("revoked, however new");
        let secret = Digest::of(b"another");
        let invite =
            Command::Invite { name: name("p1"), role: Role::Proxy, group: String::new(), secret, until_ms: 2_000 };
        does(&mut state, &invite).expect("invited");
        renew(&mut state, "b", "c").expect_err("it has to join first");
        does(&mut state, &Command::Join { name: name("p1"), serial: "d".into() }).expect("joined");
        assert_eq!(good(&state), "d");
        let nobody = Command::RenewMember { name: name("p2"), used: "a".into(), from_ms: 5_000, serial: "b".into() };
        does(&mut state, &nobody).expect_err("unknown");
    }

    #[test]
    fn membership_an_operator_has_a_secret_or_a_certificate() {
        let (mut state, scope) = (State::default(), Scope::admin());
        let certify = |serial: &str| Command::CertifyOperator {
            name: name("alice"),
            serial: serial.into(),
            scope: scope.clone(),
        };
        does(&mut state, &certify("a")).expect("made");
        let token = |state: &State| {
            let token = &state.tokens[&name("alice")];
            (token.secret.is_some(), token.certificate.clone(), token.revoked)
        };
        assert_eq!(token(&state), (false, Some("a".into()), false));
        assert!(does(&mut state, &certify("b")).expect_err("there is one").contains("token revoke alice"));
        let secret = Digest::of(b"secret");
        let create = Command::CreateToken { name: name("alice"), secret, scope: scope.clone() };
        does(&mut state, &create).expect_err("there is one");
        does(&mut state, &Command::RevokeToken { name: name("alice") }).expect("revoked");
        assert_eq!(token(&state), (false, Some("a".into()), true));
        does(&mut state, &create).expect("made");
        assert_eq!(token(&state), (true, None, false), "the certificate of before opens nothing");
    }

    #[test]
    fn membership_who_renewed_at_a_controller_that_lost_it_still_belongs() {
        let mut state = joined();
        let accepts =
            |state: &State, serial: &str, from_ms| state.members[&name("p1")].progress.accepts(serial, from_ms);
        // Joined at 1,000: what is older is of before, as of somebody who was revoked and joined again.
        for (from_ms, expected) in [(0, false), (999, false), (1_000, false), (1_001, true)] {
            assert_eq!(accepts(&state, "x", from_ms), expected, "{from_ms}");
        }
        renew_since(&mut state, "x", 1_001, "b").expect("renewed");
        assert!(accepts(&state, "x", 0) && accepts(&state, "b", 0) && !accepts(&state, "a", 0));
    }

    #[test]
    fn membership_nobody_fills_the_store_with_renewals() {
        let mut state = joined();
        renew_at(&mut state, "a", 0, "b", 1_001).expect("the first, at once");
        for (now_ms, expected) in [(1_001, false), (1_002, false), (6_000, false), (6_001, true), (6_002, false)] {
            let renewed = renew_at(&mut state, "a", 0, "c", now_ms);
            assert_eq!(renewed.is_ok(), expected, "{now_ms}: {renewed:?}");
            assert!(expected || renewed.is_err_and(|why| why.contains("ask again in a few seconds")));
        }
    }

    #[test]
    fn membership_events_of_an_older_version_are_read() {
        let mut state = joined();
        let mark = Mark { seq: 1, at_ms: 1_000, by: "test", reason: "", request: "" };
        for event in [
            r#"{"kind":"member_joined","name":"p1","serial":"c"}"#.to_owned(),
            format!(
                r#"{{"kind":"token_created","name":"ci","secret":"{}","scope":{{"verbs":["admin"],"services":[],"environments":[]}}}}"#,
                Digest::of(b"secret")
            ),
        ] {
            state.evolve(&serde_json::from_str(&event).expect("read"), mark);
        }
        assert_eq!(good(&state), "c");
        assert!(state.tokens[&name("ci")].secret.is_some());
    }
}
