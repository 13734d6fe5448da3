//! What people ask for. Each call: who asks, may they, what does it mean, what does the engine say.

mod access;
mod applications;
mod apply;
mod certificates;
mod change;
mod explain;
mod marks;
mod releases;
mod resolve;
mod seeing;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use api::operator::operator_server::Operator;
use api::operator::*;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Shared;
use super::who::{self, status, stopping};
use crate::core::Command;
use crate::engine::{Accepted, Engine, Priority, Submission};

pub(crate) use access::remove_unfinished;

pub(super) struct Service(pub(super) Arc<Shared>);

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Shared {
    /// Has an operator's command carried out.
    async fn ask(
        &self,
        who: &who::Operator,
        command: Command,
        reason: String,
        request: String,
        priority: Priority,
    ) -> Result<Accepted, Status> {
        let submission = Submission { request, ..Submission::of(who.name.as_str(), reason, command) };
        self.engine.submit(submission, priority).await.map_err(status)
    }

    /// What an operator's request did when it came first, if it did.
    async fn done_before(&self, who: &who::Operator, request: &str) -> Result<Option<Accepted>, Status> {
        let (request, by, arrived) = (request.to_owned(), who.name.clone(), Instant::now());
        let look = move |engine: &Engine| engine.done_before(&request, by.as_str(), arrived).transpose();
        self.engine.read(look).await.ok_or_else(stopping)?.map_err(status)
    }
}

#[tonic::async_trait]
impl Operator for Service {
    type ReleaseLogsStream = Answers<LogPiece>;
    type ChangeStream = Answers<ChangeUpdate>;
    type StatusStream = Answers<StatusReply>;
    type HistoryStream = Answers<HistoryEntry>;
    type BackupStream = Answers<BackupPiece>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyReply>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.apply(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_environments(&self, request: Request<ListRequest>) -> Result<Response<Environments>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_environments(who).await.map(Response::new)
    }

    async fn list_services(&self, request: Request<ListRequest>) -> Result<Response<Services>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_services(who).await.map(Response::new)
    }

    async fn build_release(&self, request: Request<BuildReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.build_release(&who, request.into_inner()).await.map(Response::new)
    }

    async fn add_release(&self, request: Request<AddReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.add_release(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_releases(&self, request: Request<ListReleasesRequest>) -> Result<Response<Releases>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_releases(&who, request.into_inner()).await.map(Response::new)
    }

    async fn show_release(&self, request: Request<ReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.show_release(&who, &request.into_inner().release).await.map(Response::new)
    }

    async fn release_logs(
        &self,
        request: Request<ReleaseLogsRequest>,
    ) -> Result<Response<Self::ReleaseLogsStream>, Status> {
        let who = self.0.operator(&request).await?;
        releases::logs(self.0.clone(), &who, request.into_inner()).await.map(Response::new)
    }

    async fn cancel_build(&self, request: Request<ChangeReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.cancel_build(&who, request.into_inner()).await.map(Response::new)
    }

    async fn retry_release(&self, request: Request<ChangeReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.retry_release(&who, request.into_inner()).await.map(Response::new)
    }

    async fn diff_releases(&self, request: Request<DiffReleasesRequest>) -> Result<Response<ReleasesDiffer>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.diff_releases(&who, request.into_inner()).await.map(Response::new)
    }

    async fn verify_release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseVerified>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.verify_release(&who, &request.into_inner().release).await.map(Response::new)
    }

    async fn list_repositories(&self, request: Request<ListRequest>) -> Result<Response<Repositories>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_repositories(&who).await.map(Response::new)
    }

    async fn resolve_stage(&self, request: Request<ResolveStageRequest>) -> Result<Response<StageResolved>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.resolve_stage(&who, request.into_inner()).await.map(Response::new)
    }

    async fn mark_release(&self, request: Request<MarkReleaseRequest>) -> Result<Response<Release>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.mark_release(&who, request.into_inner()).await.map(Response::new)
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Result<Response<Self::ChangeStream>, Status> {
        let arrived = Instant::now();
        let who = self.0.operator(&request).await?;
        change::change(self.0.clone(), &who, arrived, request.into_inner()).await.map(Response::new)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let who = self.0.operator(&request).await?;
        seeing::status(self.0.clone(), who, &request.into_inner()).await.map(Response::new)
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<Self::HistoryStream>, Status> {
        let who = self.0.operator(&request).await?;
        seeing::history(self.0.clone(), who, request.into_inner()).await.map(Response::new)
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Result<Response<CreateTokenReply>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.create_token(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_tokens(&self, request: Request<ListRequest>) -> Result<Response<Tokens>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_tokens(&who).await.map(Response::new)
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Result<Response<Done>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.revoke_token(&who, request.into_inner()).await.map(Response::new)
    }

    async fn create_join(&self, request: Request<CreateJoinRequest>) -> Result<Response<CreateJoinReply>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.create_join(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_fleet(&self, request: Request<ListRequest>) -> Result<Response<FleetMembers>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_fleet(&who).await.map(Response::new)
    }

    async fn revoke_member(&self, request: Request<RevokeMemberRequest>) -> Result<Response<Done>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.revoke_member(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_certificates(
        &self,
        request: Request<ListCertificatesRequest>,
    ) -> Result<Response<Certificates>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_certificates(who, request.into_inner()).await.map(Response::new)
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<Certificates>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.renew_certificate(who, request.into_inner()).await.map(Response::new)
    }

    async fn import_certificate(
        &self,
        request: Request<ImportCertificateRequest>,
    ) -> Result<Response<Certificates>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.import_certificate(who, request.into_inner()).await.map(Response::new)
    }

    async fn create_application(
        &self,
        request: Request<CreateApplicationRequest>,
    ) -> Result<Response<ApplicationKey>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.create_application(&who, request.into_inner()).await.map(Response::new)
    }

    async fn list_applications(&self, request: Request<ListRequest>) -> Result<Response<Applications>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.list_applications(&who).await.map(Response::new)
    }

    async fn rotate_application(
        &self,
        request: Request<RotateApplicationRequest>,
    ) -> Result<Response<ApplicationKey>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.rotate_application(&who, request.into_inner()).await.map(Response::new)
    }

    async fn revoke_application(
        &self,
        request: Request<RevokeApplicationRequest>,
    ) -> Result<Response<Reached>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.revoke_application(&who, request.into_inner()).await.map(Response::new)
    }

    async fn assertion_keys(&self, request: Request<ListRequest>) -> Result<Response<AssertionKeySet>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.assertion_keys(&who).await.map(Response::new)
    }

    async fn explain_request(
        &self,
        request: Request<ExplainRequestRequest>,
    ) -> Result<Response<RequestExplained>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.explain_request(&who, request.into_inner()).await.map(Response::new)
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<PolicyExplained>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.explain_policy(&who, request.into_inner()).await.map(Response::new)
    }

    async fn explain_rollout(
        &self,
        request: Request<ExplainRolloutRequest>,
    ) -> Result<Response<RolloutExplained>, Status> {
        let who = self.0.operator(&request).await?;
        self.0.explain_rollout(&who, request.into_inner()).await.map(Response::new)
    }

    async fn backup(&self, request: Request<ListRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let who = self.0.operator(&request).await?;
        access::backup(self.0.clone(), &who).await.map(Response::new)
    }
}
