//! Why a request was answered as it was, and how one would be: for those alone who may see everything, as it tells what callers
//! must not know. And what became of a rollout: for those who may see its stage.

use std::time::{Duration, Instant};

use api::operator::{
    ExplainPolicyRequest, ExplainRequestRequest, ExplainRolloutRequest, PolicyExplained, RequestExplained,
    RolloutExplained,
};
use api::{ReleaseNumber, StageName, Verb};
use policies::credential::denial;
use tonic::Status;

use crate::engine::{Engine, NotDone};
use crate::explain::{self, Ask};
use crate::server::Shared;
use crate::server::who::{Operator, parse, status, stopping};
use crate::status::{self as seen, clock_ms};

/// How long proxies have for an answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Records read at once while the beginning of a rollout is looked for.
const PAGE: u64 = 500;

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

    /// The way of the rollout under way, or of the last one; with a release, of its last one.
    pub(super) async fn explain_rollout(
        &self,
        who: &Operator,
        request: ExplainRolloutRequest,
    ) -> Result<RolloutExplained, Status> {
        let stage: StageName = parse(&request.stage)?;
        who.may(Verb::Read, Some(&stage.service), Some(&stage.environment))?;
        let name = stage.clone();
        let is_known = move |engine: &Engine| {
            let service = engine.state.service(&name.service);
            service.is_some_and(|service| service.spec.stages.contains_key(&name.environment))
        };
        if !self.engine.read(is_known).await.ok_or_else(stopping)? {
            return Err(Status::not_found(format!("there is no stage {stage}")));
        }
        let number =
            |number| ReleaseNumber::new(number).ok_or_else(|| Status::invalid_argument("a release number begins at 1"));
        let of = request.release.map(number).transpose()?;
        let happened = self.since_promotion(&stage, of).await?;
        let mut explained = explain::rollout(&stage, &happened).ok_or_else(|| {
            let what = of.map_or_else(|| "no release".to_owned(), |release| release.to_string());
            Status::failed_precondition(format!("{what} was promoted to {stage} yet: `pointsman promote` lets one in"))
        })?;
        let find = move |engine: &Engine| {
            let watched = seen::watched_of(engine, &stage);
            (seen::rollout_of(engine, &stage, Instant::now()), watched, seen::back_of(&engine.state, &stage))
        };
        let ((now, queued), watched, back) = self.engine.read(find).await.ok_or_else(stopping)?;
        explained.back = back;
        explained.now = now.filter(|now| now.release == explained.release);
        explained.queued = queued;
        explained.watched = watched.filter(|watched| watched.release == explained.release);
        Ok(explained)
    }

    /// What happened in a stage since the last promotion, or the last one of a release, which comes first; all there is
    /// without one. Read in pages from the end, so that the engine is never held up for long.
    async fn since_promotion(
        &self,
        stage: &StageName,
        of: Option<ReleaseNumber>,
    ) -> Result<Vec<explain::Happened>, Status> {
        let mut end = self.engine.read(|engine| engine.store.last()).await.ok_or_else(stopping)?;
        let mut happened = std::collections::VecDeque::new();
        while end > 0 {
            let (first, about) = (end.saturating_sub(PAGE) + 1, stage.to_string());
            let count = usize::try_from(end + 1 - first).unwrap_or(usize::MAX);
            let read = move |engine: &Engine| engine.store.read(first, count);
            let page = self.engine.read(read).await.ok_or_else(stopping)?;
            let page = page.map_err(|problem| Status::internal(problem.to_string()))?;
            for record in page.iter().rev().filter(|record| record.about == about) {
                let Some(one) = explain::Happened::of(record) else { continue };
                let begins = one.begins_rollout();
                if begins.is_some() && of.is_some_and(|of| begins != Some(of)) {
                    // What comes after the promotion of another release is its way.
                    happened.clear();
                    continue;
                }
                happened.push_front(one);
                if begins.is_some() {
                    return Ok(happened.into());
                }
            }
            end = first - 1;
        }
        Ok(happened.into())
    }
}
