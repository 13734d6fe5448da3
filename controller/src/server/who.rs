//! Who asks: operators by token or certificate, members by certificate; and how refusals are worded for them.

use std::time::SystemTime;

use api::{EnvironmentName, MemberName, Scope, ServiceName, Verb};
use certs::fleet::{Peer, Role, Who, peer, rfc3339};
use tonic::{Request, Status};

use super::Shared;
use super::accept::Caller;
use crate::core::{Refusal, State};
use crate::engine::NotDone;
use crate::secret;
use crate::store::StoreError;

/// An operator whose token, or the certificate that stands for it, was accepted.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) name: MemberName,
    scope: Scope,
}

/// A member whose certificate was accepted.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) name: MemberName,
    pub(super) role: Role,
    pub(super) serial: String,
    /// From when its certificate counts.
    pub(super) from_ms: u64,
}

impl Shared {
    /// The operator behind a request.
    pub(super) async fn operator<T>(&self, request: &Request<T>) -> Result<Operator, Status> {
        if !request.metadata().contains_key("authorization")
            && let Some(peer) = asker(request).filter(|peer| peer.who == Who::Operator)
        {
            return self.certified_operator(peer).await;
        }
        let wrong = || {
            Status::unauthenticated(
                "this token is not accepted: it is unknown or was revoked; `pointsman login` with a valid one",
            )
        };
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = header.and_then(|value| value.strip_prefix("Bearer "));
        let (name, secret) = bearer.and_then(secret::parse_operator_token).ok_or_else(wrong)?;
        let (looked_up, secret) = (name.clone(), secret.to_owned());
        let find = move |engine: &crate::engine::Engine| {
            let token = engine.state.tokens.get(&looked_up).filter(|token| !token.revoked)?;
            let kept = token.secret.as_ref()?;
            secret::matches(&secret, kept).then(|| token.scope.clone())
        };
        let scope = self.engine.read_first(find).await.ok_or_else(stopping)?.ok_or_else(wrong)?;
        Ok(Operator { name, scope })
    }

    /// The operator whose certificate opened the connection: the one that was given out for a token, which is still good.
    async fn certified_operator(&self, peer: Peer) -> Result<Operator, Status> {
        let name = peer.name.clone();
        if peer.until < SystemTime::now() {
            return Err(Status::unauthenticated(format!(
                "the certificate of the operator {name} expired at {}: somebody who may has to `pointsman token revoke \
                 {name}` and make a new one with `pointsman token create {name} --certificate FILE`",
                rfc3339(peer.until)
            )));
        }
        let serial = hex(&peer.serial);
        let find = move |engine: &crate::engine::Engine| {
            let token = engine.state.tokens.get(&peer.name).filter(|token| !token.revoked)?;
            (token.certificate.as_ref() == Some(&serial)).then(|| token.scope.clone())
        };
        let wrong = || Status::unauthenticated("this operator's certificate is not accepted: its token was revoked");
        let scope = self.engine.read_first(find).await.ok_or_else(stopping)?.ok_or_else(wrong)?;
        Ok(Operator { name, scope })
    }

    /// The member behind a request: its certificate is one that was given out last, is good, and was not revoked since.
    pub(super) async fn member<T>(&self, request: &Request<T>, role: Role) -> Result<Admitted, Status> {
        let seen = asker(request).filter(|seen| seen.who == Who::Member(role));
        let seen = seen.ok_or_else(|| {
            Status::unauthenticated(format!("only a {role} of this fleet may call this: its certificate is missing"))
        })?;
        let until = seen.until;
        let admitted = self.admit(seen, role).await?;
        if until < SystemTime::now() {
            // Without the connection it comes back with the certificate that it has by then.
            request.extensions().get::<Caller>().inspect(|caller| caller.ends());
            return Err(Status::unauthenticated(format!(
                "the certificate of the {role} {} expired at {}; it renews it by itself",
                admitted.name,
                rfc3339(until)
            )));
        }
        Ok(admitted)
    }

    /// The member behind a request for another certificate, who may be late.
    pub(super) async fn late_member<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        match asker(request) {
            Some(seen @ Peer { who: Who::Member(role), .. }) => self.admit(seen, role).await,
            _ => Err(Status::unauthenticated("only a member of this fleet may call this: its certificate is missing")),
        }
    }

    async fn admit(&self, seen: Peer, role: Role) -> Result<Admitted, Status> {
        let from = seen.from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let from_ms = u64::try_from(from.as_millis()).unwrap_or(u64::MAX);
        let admitted = Admitted { name: seen.name, role, serial: hex(&seen.serial), from_ms };
        let asked = admitted.clone();
        if self.engine.read_first(move |engine| asked.still(&engine.state)).await.ok_or_else(stopping)? {
            return Ok(admitted);
        }
        Err(Status::permission_denied(format!(
            "{} does not belong to this fleet any more: it was revoked, or joined again elsewhere",
            admitted.name
        )))
    }
}

impl Admitted {
    /// Whether it belongs to the fleet now, with this certificate. Asked again after every wait.
    pub(super) fn still(&self, state: &State) -> bool {
        let member = state.members.get(&self.name).filter(|member| member.role == self.role);
        member.is_some_and(|member| member.progress.accepts(&self.serial, self.from_ms))
    }
}

/// Who opened the connection that a request came over, by certificate.
fn asker<T>(request: &Request<T>) -> Option<Peer> {
    peer(request.extensions().get::<Caller>()?.certificates.as_deref()?)
}

#[cfg(test)]
impl Operator {
    /// An operator of a test.
    pub(super) fn new(name: MemberName, scope: Scope) -> Self {
        Self { name, scope }
    }
}

impl Operator {
    /// Refuses what the token's scope does not permit.
    pub(super) fn may(
        &self,
        verb: Verb,
        service: Option<&ServiceName>,
        environment: Option<&EnvironmentName>,
    ) -> Result<(), Status> {
        if self.scope.permits(verb, service, environment) {
            return Ok(());
        }
        if verb == Verb::App {
            return Err(Status::permission_denied(format!(
                "token {} may not make, rotate or revoke applications: that takes one made with `--allow app` for all \
                 services and environments",
                self.name
            )));
        }
        let place = match (service, environment) {
            (Some(service), Some(environment)) => format!(" on {service}/{environment}"),
            (Some(service), None) => format!(" on {service}"),
            (None, Some(environment)) => format!(" in {environment}"),
            (None, None) => " on everything".to_owned(),
        };
        Err(Status::permission_denied(format!("token {} may not {verb}{place}", self.name)))
    }

    /// Whether the operator may do this to anything at all.
    pub(super) fn has(&self, verb: Verb) -> bool {
        self.scope.verbs.iter().any(|held| [verb, Verb::Admin].contains(held))
    }

    /// Whether the operator may see something.
    pub(super) fn sees(&self, service: Option<&ServiceName>, environment: Option<&EnvironmentName>) -> bool {
        self.scope.permits(Verb::Read, service, environment)
    }
}

/// Digits of a serial number, as they are recorded.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn stopping() -> Status {
    Status::unavailable("the controller is stopping")
}

/// The answer to a command that was not carried out.
pub(super) fn status(not_done: NotDone) -> Status {
    match not_done {
        NotDone::Refused(Refusal::Unknown(sentence)) => Status::not_found(sentence),
        NotDone::Refused(Refusal::Refused(sentence)) => Status::failed_precondition(sentence),
        NotDone::Refused(Refusal::Marked(past, sentence)) => {
            let mut status = Status::failed_precondition(sentence);
            // INVARIANT: digits are a metadata value.
            status.metadata_mut().insert(api::PAST_KEY, past.number().into());
            status
        }
        NotDone::Refused(wrong @ Refusal::Wrong(_)) => Status::invalid_argument(wrong.to_string()),
        // These two say themselves what became of it.
        NotDone::Store(problem @ (StoreError::Uncertain { .. } | StoreError::Full { .. })) => {
            Status::unavailable(problem.to_string())
        }
        NotDone::Store(problem) => Status::unavailable(format!("nothing was changed: {problem}")),
        NotDone::Stopping => stopping(),
    }
}

/// Bad input: all mistakes, a line each.
pub(super) fn wrong(mistakes: &[String]) -> Status {
    Status::invalid_argument(mistakes.join("\n"))
}

/// Reads a value, or says what is accepted.
pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|problem: T::Err| Status::invalid_argument(problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_refusal_says_what_it_takes() {
        let scope = Scope { verbs: vec![Verb::Read], ..Scope::admin() };
        let who = Operator::new("ci".parse().expect("a name"), scope);
        let told = who.may(Verb::App, None, None).expect_err("only reads");
        assert!(told.message().starts_with("token ci may not make, rotate or revoke applications: "), "{told}");
        assert!(told.message().contains("--allow app"), "{told}");
        let told = who.may(Verb::Apply, None, None).expect_err("only reads");
        assert_eq!(told.message(), "token ci may not apply on everything");
    }

    #[test]
    fn nobody_is_told_that_nothing_changed_when_nobody_knows() {
        let folder = std::path::PathBuf::from("/var/lib/pointsman");
        let uncertain = StoreError::Uncertain { folder: folder.clone(), cause: "input/output error".into() };
        let told = status(NotDone::Store(uncertain));
        assert!(!told.message().contains("nothing was changed"), "{told}");
        let told = status(NotDone::Store(StoreError::Full { folder }));
        assert_eq!(told.message().matches("nothing was changed").count(), 1, "{told}");
    }
}
