//! Why a request was answered as it was, and how one would be. For those alone who may see everything: it tells what callers
//! must not know.

use std::time::Duration;

use api::Verb;
use api::operator::{ExplainPolicyRequest, ExplainRequestRequest, PolicyExplained, RequestExplained};
use policies::credential::denial;
use tonic::Status;

use crate::engine::{Engine, NotDone};
use crate::explain::{self, Ask};
use crate::server::Shared;
use crate::server::who::{Operator, status, stopping};
use crate::status::clock_ms;

/// How long proxies have for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Digits of a request's id.
const ID_DIGITS: usize = 32;

impl Shared {
    pub(super) async fn explain_request(
        &self,
        who: &Operator,
        request: ExplainRequestRequest,
    ) -> Result<RequestExplained, Status> {
        who.may(Verb::Read, None, None)?;
        let id = request.id.trim().to_owned();
        if !request.user.is_empty() && request.user.split_once('/').is_none() {
            return Err(Status::invalid_argument(format!("{:?} is no user: accepted is ISSUER/SUBJECT", request.user)));
        }
        if id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return self.of_a_proxy(&id.to_ascii_lowercase(), &request.user).await;
        }
        if id.len() != denial::LENGTH {
            return Err(Status::invalid_argument(format!(
                "{} characters are no id: accepted are the {ID_DIGITS} hexadecimal digits of a request, or the {} characters of \
                 an answer 404, both as x-request-id has them",
                id.chars().count(),
                denial::LENGTH
            )));
        }
        let open = move |engine: &Engine| {
            let (denial, own) = explain::open(engine.publisher.certificates().explain().keys(), &id)?;
            Ok(explain::opened(&engine.state, &denial, &own, request.user.split_once('/')))
        };
        self.engine.read(open).await.ok_or_else(stopping)?.map_err(|problem: String| Status::not_found(problem))
    }

    /// What the proxy says that made the id.
    async fn of_a_proxy(&self, id: &str, user: &str) -> Result<RequestExplained, Status> {
        let answered = self.fleet.ask(id, ANSWER).await;
        let Some((proxy, decided)) = answered.decided else {
            let silent = match answered.silent.as_slice() {
                [] => String::new(),
                silent => format!("; {} did not answer", silent.join(", ")),
            };
            return Err(Status::not_found(format!(
                "no proxy knows the request {id}: it was too long ago, or was not made by one that runs now{silent}"
            )));
        };
        let is_user =
            user.split_once('/').map(|(issuer, subject)| decided.issuer == issuer && decided.subject == subject);
        let lines = decided.reasons.clone();
        Ok(RequestExplained {
            source: "proxy".into(),
            proxy: proxy.to_string(),
            decided: Some(decided),
            request_id: id.to_owned(),
            is_user,
            lines,
        })
    }

    pub(super) async fn explain_policy(
        &self,
        who: &Operator,
        request: ExplainPolicyRequest,
    ) -> Result<PolicyExplained, Status> {
        who.may(Verb::Read, None, None)?;
        let ask = self.engine.read(move |engine| Ask::read(&engine.state, &request)).await.ok_or_else(stopping)?;
        let ask = ask.map_err(|refusal| status(NotDone::Refused(refusal)))?;
        let explained = tokio::task::spawn_blocking(move || explain::policy(&ask, clock_ms())).await;
        explained.map_err(|_| stopping())?.map_err(Status::internal)
    }
}
